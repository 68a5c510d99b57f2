package audio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/mewkiz/flac"
	"github.com/mewkiz/flac/frame"

	"github.com/carousel-ml/carousel/data"
)

// flacSource decodes FLAC a frame at a time.
type flacSource struct {
	stream   *flac.Stream
	channels int
	scale    float32
	total    uint64 // samples per channel; 0: unknown
	given    uint64
	frame    *frame.Frame
	at       int // position in the frame
}

// firstBlock is how every FLAC file begins: a block of type 0, perhaps the last, of
// 34 bytes. The decoder would read a block of another type, in up to 20 MB, before it
// refused it.
var firstBlock = []byte("fLaC\x00\x00\x00\x22")

func (r *Reader) openFLAC(b *bufio.Reader) error {
	head, err := b.Peek(len(firstBlock))
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	head = bytes.Clone(head)
	if head[4] &= 0x7f; !bytes.Equal(head, firstBlock) {
		return errors.New("is damaged FLAC: it does not begin with the block that describes the stream")
	}
	var stream *flac.Stream
	err = guard(func() (err error) { stream, err = flac.New(b); return err })
	if err != nil {
		return err
	}
	info := stream.Info
	if info.BitsPerSample < 4 || info.BitsPerSample > 32 || info.NChannels == 0 {
		return fmt.Errorf("is damaged: FLAC with %d channels of %d bits", info.NChannels, info.BitsPerSample)
	}
	r.Rate, r.Channels = int(info.SampleRate), int(info.NChannels)
	if info.NSamples > 0 && info.NSamples < 1<<62 {
		r.Length = int64(info.NSamples)
	}
	r.source = &flacSource{stream: stream, channels: r.Channels, total: info.NSamples,
		scale: 1 / (float32(uint64(1)<<(info.BitsPerSample-1)) * float32(r.Channels))}
	return nil
}

func (f *flacSource) read(dst []float32) (int, error) {
	for f.frame == nil || f.at >= len(f.frame.Subframes[0].Samples) {
		f.at = 0
		if err := guard(f.next); err != nil {
			return 0, err
		}
	}
	first := f.frame.Subframes[0].Samples
	n := min(len(dst), len(first)-f.at)
	for i := range dst[:n] {
		var sum int64
		for _, s := range f.frame.Subframes {
			sum += int64(s.Samples[f.at+i])
		}
		dst[i] = float32(sum) * f.scale
	}
	f.at += n
	f.given += uint64(n)
	return n, nil
}

// next parses a frame. io.EOF before the last sample means a truncated file.
func (f *flacSource) next() error {
	next, err := f.stream.ParseNext()
	if err == io.EOF && f.given >= f.total {
		return io.EOF
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if f.total == 0 {
			return io.ErrUnexpectedEOF
		}
		return cut("ends after %d of %d samples", f.given, f.total)
	}
	if err != nil {
		return err
	}
	if len(next.Subframes) != f.channels {
		return fmt.Errorf("a frame of %d channels among frames of %d", len(next.Subframes), f.channels)
	}
	for _, s := range next.Subframes {
		if len(s.Samples) != len(next.Subframes[0].Samples) {
			return fmt.Errorf("channels of unequal length")
		}
	}
	f.frame = next
	return nil
}

// guard rewords an error of the decoder, and turns a panic on damaged bytes
// into an error. io.EOF, io.ErrUnexpectedEOF and errors of cut are returned
// unchanged.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("is damaged FLAC: the decoder failed: %v", p)
		}
	}()
	err = f()
	var input *data.InputError
	if err == nil || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &input) {
		return err
	}
	return fmt.Errorf("is damaged FLAC: %w", err)
}
