package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// wireConn is a connection of HTTP/1.1 that one client sends its requests over. It does
// what the load generator needs of a net/http.Client for a quarter of its processor
// time, which would be taken from a server on the same machine: it writes requests that
// are prepared as bytes, in the caller's goroutine, and reads of an answer's header what
// the protocol needs.
type wireConn struct {
	url     *url.URL
	timeout time.Duration // of a request

	conn net.Conn // nil: none yet
	in   *bufio.Reader
	body []byte // of the last answer
	ctx  context.Context
	stop func() bool // forget ctx
}

// answer is an HTTP response. Its body is valid until the next.
type answer struct {
	status int
	length string // Inference-Header-Content-Length; "": none
	body   []byte
}

// maxAnswer is the largest body that is read.
const maxAnswer = 1 << 30

// do sends a request, the bytes of its header and body, and reads the answer.
func (w *wireConn) do(ctx context.Context, request []byte) (*answer, error) {
	reused := w.conn != nil
	a, begun, err := w.try(ctx, request)
	if err != nil && reused && !begun && ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		// The server had closed the connection, which it may do between requests.
		a, _, err = w.try(ctx, request)
	}
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Failure{"timeout", fmt.Errorf("no answer within %v", w.timeout)}
	}
	return nil, &Failure{"connection", err}
}

// try is do on the connection that there is, or a new one. begun reports whether a part
// of an answer came.
func (w *wireConn) try(ctx context.Context, request []byte) (a *answer, begun bool, err error) {
	if w.conn == nil {
		if err := w.dial(ctx); err != nil {
			return nil, false, err
		}
	}
	w.watch(ctx)
	w.conn.SetDeadline(time.Now().Add(w.timeout))
	if ctx.Err() != nil { // perhaps before the deadline was set
		return nil, false, ctx.Err()
	}
	// A server may answer before it has read the whole request, and close: its answer
	// says more than the failure to write.
	_, failed := w.conn.Write(request)
	a, begun, closes, err := w.read()
	if err == io.EOF {
		err = errors.New("the server closed the connection without an answer")
	}
	if err != nil && failed != nil {
		err = failed
	}
	if err != nil || failed != nil || closes {
		w.close()
	}
	return a, begun, err
}

func (w *wireConn) dial(ctx context.Context) error {
	port := w.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[w.url.Scheme]
	}
	address := net.JoinHostPort(w.url.Hostname(), port)
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	var err error
	if w.url.Scheme == "https" {
		w.conn, err = (&tls.Dialer{Config: &tls.Config{NextProtos: []string{"http/1.1"}}}).DialContext(ctx, "tcp", address)
	} else {
		w.conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		w.conn = nil
		return err
	}
	w.in = bufio.NewReaderSize(w.conn, 16<<10)
	return nil
}

// watch makes the end of ctx end what the connection waits for.
func (w *wireConn) watch(ctx context.Context) {
	if w.ctx == ctx {
		return
	}
	w.forget()
	conn := w.conn
	w.ctx, w.stop = ctx, context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

func (w *wireConn) forget() {
	if w.stop != nil {
		w.stop()
		w.ctx, w.stop = nil, nil
	}
}

func (w *wireConn) close() {
	w.forget()
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// read reads an answer; closes reports whether the connection cannot be used after it.
func (w *wireConn) read() (a *answer, begun, closes bool, err error) {
	for {
		h, err := w.header()
		if err != nil {
			return nil, h != nil, true, err
		}
		if h.status >= 200 { // before it there may be others, such as 100 Continue
			body, err := w.content(h)
			return &answer{h.status, h.inference, body}, true, h.closes || h.length < 0 && !h.chunked, err
		}
	}
}

// head is the header of an answer.
type head struct {
	status    int
	length    int64 // -1: not said
	chunked   bool
	closes    bool
	inference string
}

// header reads the header of an answer. If it is not nil beside an error, a part came.
func (w *wireConn) header() (*head, error) {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		if len(line) > 0 {
			return &head{}, err
		}
		return nil, err
	}
	h := &head{length: -1}
	version, rest, _ := strings.Cut(string(bytes.TrimRight(line, "\r\n")), " ")
	code, _, _ := strings.Cut(rest, " ")
	if h.status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(version, "HTTP/1.") || len(code) != 3 {
		return h, fmt.Errorf("want an answer of HTTP/1.1, got a line that begins with %.40q", line)
	}
	h.closes = version == "HTTP/1.0"
	for {
		line, err := w.in.ReadSlice('\n')
		if err != nil {
			return h, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if h.status == 204 || h.status == 304 {
				h.length = 0
			}
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case equalFold(name, "content-length"):
			h.length, err = strconv.ParseInt(string(value), 10, 64)
			if err != nil || h.length < 0 || h.length > maxAnswer {
				return h, fmt.Errorf("Content-Length %.40q: want bytes up to %d", value, maxAnswer)
			}
		case equalFold(name, "transfer-encoding"):
			h.chunked = equalFold(value, "chunked")
		case equalFold(name, "connection"):
			h.closes = h.closes || equalFold(value, "close")
		case equalFold(name, "inference-header-content-length"):
			h.inference = string(value)
		}
	}
}

// equalFold compares with an ASCII text in lower case.
func equalFold(b []byte, lower string) bool {
	return len(b) == len(lower) && strings.EqualFold(string(b), lower)
}

// content reads the body.
func (w *wireConn) content(h *head) ([]byte, error) {
	var from io.Reader = w.in
	switch {
	case h.chunked:
		from = httputil.NewChunkedReader(w.in)
	case h.length >= 0:
		// A length is no reason to believe that so much comes.
		for w.body = w.body[:0]; int64(len(w.body)) < h.length; {
			part := min(h.length-int64(len(w.body)), 1<<20)
			w.body = append(w.body, make([]byte, part)...)
			if _, err := io.ReadFull(w.in, w.body[int64(len(w.body))-part:]); err != nil {
				return nil, fmt.Errorf("the answer ends early: %w", err)
			}
		}
		return w.body, nil
	}
	body, err := io.ReadAll(io.LimitReader(from, maxAnswer))
	if err == nil && h.chunked {
		// The trailer, of which the reader of chunks leaves at least an empty line.
		for {
			line, err := w.in.ReadSlice('\n')
			if err != nil {
				return nil, err
			}
			if len(bytes.TrimRight(line, "\r\n")) == 0 {
				break
			}
		}
	}
	return body, err
}
