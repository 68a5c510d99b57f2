package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sniffed is how many bytes of a file are examined to detect its format.
const sniffed = 64 << 10

// fileKind is the format of a file's content.
type fileKind int

const (
	kindCSV fileKind = iota
	kindTSF
	kindParquet
)

// Stdin is the path that stands for standard input, for every reader of this
// package.
const Stdin = "-"

const stdinName = "standard input" // in messages

// BaseName returns the last element of a path, for reports.
func BaseName(path string) string {
	if path == Stdin {
		return stdinName
	}
	return filepath.Base(path)
}

// source is an open input, decompressed if need be, whose beginning has been
// examined: whatever it comes from (a file, a pipe, memory), a byte order mark is
// dropped, what is not text is refused, and line ends are known.
type source struct {
	name    string   // in messages
	file    *os.File // nil if the content does not come from a file
	at      io.ReaderAt
	gzip    *gzip.Reader
	text    *bufio.Reader
	kind    fileKind
	lineEnd byte // '\n', or '\r' where it ends all lines
}

func (s *source) close() {
	if s.gzip != nil {
		s.gzip.Close()
	}
	if s.file != nil {
		s.file.Close()
	}
}

// open opens a data file, or standard input for [Stdin], and detects its format,
// by its content where that is certain and by its name otherwise.
func open(path string) (*source, error) {
	if path == Stdin {
		return openStream(stdinName, os.Stdin, true)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return (&source{name: path, file: f, at: f}).opened(f, true)
}

// openStream is open for a stream. whole says that the reader needs all of it in
// any case; otherwise only what has come already is examined, so that the lines of
// somebody who types are answered one by one.
func openStream(name string, in io.Reader, whole bool) (*source, error) {
	return (&source{name: name}).opened(in, whole)
}

func (s *source) opened(in io.Reader, whole bool) (*source, error) {
	if err := s.identify(in, whole); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *source) identify(in io.Reader, whole bool) error {
	packed := &counted{r: in}
	s.text = bufio.NewReaderSize(&lasting{r: packed}, sniffed)
	head, err := s.head(whole)
	if err == nil && bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		if s.gzip, err = gzip.NewReader(s.text); err != nil {
			return unreadable(s.name, err)
		}
		s.text = bufio.NewReaderSize(&lasting{r: &expanding{counted{r: s.gzip}, packed}}, sniffed)
		head, err = s.head(whole)
	}
	if len(head) == 0 && err != nil {
		return unreadable(s.name, err)
	}
	if bytes.HasPrefix(head, []byte("PAR1")) {
		s.kind = kindParquet
		return nil
	}
	if what, fix := foreign(head); what != "" {
		return &InputError{File: s.name, Problem: what, Fix: fix}
	}
	if bom := []byte("\xef\xbb\xbf"); bytes.HasPrefix(head, bom) {
		s.text.Discard(len(bom))
		head = head[len(bom):]
	}
	s.lineEnd = '\n'
	if cr := bytes.IndexByte(head, '\r'); cr >= 0 && cr < len(head)-1 && bytes.IndexByte(head, '\n') < 0 {
		s.lineEnd = '\r'
	}
	name := strings.TrimSuffix(strings.ToLower(s.name), ".gz")
	switch {
	case strings.HasSuffix(name, ".parquet"):
		return &InputError{File: s.name, Problem: "is not a Parquet file: it does not begin with PAR1", Fix: "give it the name that fits its content"}
	case strings.HasSuffix(name, ".tsf") || looksTSF(head):
		s.kind = kindTSF
	}
	return nil
}

// head returns the beginning of the input without consuming it; the end of the
// input is no error.
func (s *source) head(whole bool) (head []byte, err error) {
	const longestMark = 4
	if whole {
		head, err = s.text.Peek(sniffed)
	} else {
		if head, err = s.text.Peek(1); len(head) > 0 && strings.IndexByte("\x1f\xef\xfe\xff", head[0]) >= 0 {
			s.text.Peek(longestMark) // the rest of a mark may come with the next read
		}
		head, _ = s.text.Peek(s.text.Buffered())
	}
	if err == io.EOF {
		err = nil
	}
	return head, err
}

// lasting is a reader that repeats its first error, as bufio.Reader.Peek returns an
// error only once.
type lasting struct {
	r   io.Reader
	err error
}

func (l *lasting) Read(p []byte) (n int, err error) {
	if l.err == nil {
		n, l.err = l.r.Read(p)
	}
	return n, l.err
}

// counted counts the bytes read from r.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// A text in gzip may be maxExpansion times as long as the file, or unexpanded bytes:
// much that is read is kept in memory, and gzip makes a file of some megabytes out of
// gigabytes of equal rows.
const (
	maxExpansion = 100
	unexpanded   = 64 << 20
)

var errExpands = fmt.Errorf("has more than %d MiB of text, over %d times its size in gzip", unexpanded>>20, maxExpansion)

// expanding is a decompressed text, which ends with errExpands if it is out of
// proportion to the bytes that it came from.
type expanding struct {
	counted
	from *counted
}

func (e *expanding) Read(p []byte) (int, error) {
	n, err := e.counted.Read(p)
	if e.n > max(unexpanded, maxExpansion*e.from.n) {
		return 0, errExpands
	}
	return n, err
}

// foreign recognises files that are not text in UTF-8 or a superset of ASCII.
func foreign(head []byte) (problem, fix string) {
	switch {
	case bytes.HasPrefix(head, []byte{0xff, 0xfe}) || bytes.HasPrefix(head, []byte{0xfe, 0xff}):
		return "is text in UTF-16", "save it as UTF-8"
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return "is a zip archive or a spreadsheet", "save it as CSV"
	case len(head) > 10 && bytes.HasPrefix(head, []byte("BZh")) && bytes.HasPrefix(head[4:], []byte("1AY&SY")), bytes.HasPrefix(head, []byte("\xfd7zXZ")), bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "is compressed, but not with gzip", "unpack it"
	case bytes.IndexByte(head, 0) >= 0:
		return "is not a text file", "text in UTF-8 is read, tables also as Parquet, plain or in gzip"
	}
	return "", ""
}

// looksTSF reports whether the first line that is not a comment is a directive.
func looksTSF(head []byte) bool {
	for line := range bytes.Lines(head) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' {
			return line[0] == '@'
		}
	}
	return false
}

// unreadable turns a failure of the file system or of decompression into an
// InputError.
func unreadable(path string, err error) *InputError {
	e := &InputError{File: path, Problem: err.Error(), cause: err}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		e.Problem = "cannot be read: " + pathErr.Err.Error()
	}
	switch {
	case errors.Is(err, errExpands):
		e.Fix = "unpack it first, if that is right"
	case errors.Is(err, fs.ErrNotExist):
		e.Problem = "there is no such file"
		if near := neighbour(path); near != "" {
			e.Fix = "did you mean " + near + "?"
		}
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		e.Problem, e.Fix = fmt.Sprintf("is damaged or cut short: %v", err), "get it again"
	}
	return e
}

// neighbour returns the file in path's directory with the name nearest to
// path's.
func neighbour(path string) string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if best := closest(filepath.Base(path), names); best != "" {
		return filepath.Join(filepath.Dir(path), best)
	}
	return ""
}
