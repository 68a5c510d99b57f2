package data

import (
	"bufio"
	"context"
	"io"
)

// cancelled reads until a context ends, and gives its error then.
type cancelled struct {
	ctx context.Context
	r   io.Reader
	at  io.ReaderAt
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func (c cancelled) ReadAt(p []byte, offset int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.at.ReadAt(p, offset)
}

// under has a context end the reading.
func (s *source) under(ctx context.Context) {
	s.text = bufio.NewReaderSize(cancelled{ctx: ctx, r: s.text}, sniffed)
	s.at = cancelled{ctx: ctx, at: s.at}
}
