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

// source is an open file, decompressed if need be.
type source struct {
	file *os.File // nil if the content was already read
	at   io.ReaderAt
	gzip *gzip.Reader
	text *bufio.Reader
	kind fileKind
}

func (s *source) close() {
	if s.gzip != nil {
		s.gzip.Close()
	}
	if s.file != nil {
		s.file.Close()
	}
}

// open opens a data file and detects its format, by its content where that is
// certain and by its name otherwise.
func open(path string) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	s := &source{file: f, at: f}
	if err := s.identify(path, f); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *source) identify(path string, in io.Reader) error {
	s.text = bufio.NewReaderSize(in, sniffed)
	head, err := s.text.Peek(sniffed)
	if len(head) == 0 && err != nil && err != io.EOF {
		return unreadable(path, err)
	}
	if bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		if s.gzip, err = gzip.NewReader(s.text); err != nil {
			return unreadable(path, err)
		}
		s.text = bufio.NewReaderSize(s.gzip, sniffed)
		head, err = s.text.Peek(sniffed)
		if len(head) == 0 && err != io.EOF {
			return unreadable(path, err)
		}
	}
	if bytes.HasPrefix(head, []byte("PAR1")) {
		s.kind = kindParquet
		return nil
	}
	if what, fix := foreign(head); what != "" {
		return &InputError{File: path, Problem: what, Fix: fix}
	}
	if bom := []byte("\xef\xbb\xbf"); bytes.HasPrefix(head, bom) {
		s.text.Discard(len(bom))
		head = head[len(bom):]
	}
	name := strings.TrimSuffix(strings.ToLower(path), ".gz")
	switch {
	case strings.HasSuffix(name, ".parquet"):
		return &InputError{File: path, Problem: "is not a Parquet file: it does not begin with PAR1", Fix: "give it the name that fits its content"}
	case strings.HasSuffix(name, ".tsf") || looksTSF(head):
		s.kind = kindTSF
	}
	return nil
}

// foreign recognises files that are not text in UTF-8 or a superset of ASCII.
func foreign(head []byte) (problem, fix string) {
	switch {
	case bytes.HasPrefix(head, []byte{0xff, 0xfe}) || bytes.HasPrefix(head, []byte{0xfe, 0xff}):
		return "is text in UTF-16", "save it as UTF-8"
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return "is a zip archive or a spreadsheet", "save it as CSV"
	case bytes.HasPrefix(head, []byte("BZh")), bytes.HasPrefix(head, []byte("\xfd7zXZ")), bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
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
