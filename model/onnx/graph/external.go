package graph

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// external is where a tensor's bytes lie outside the ONNX file: in a file named
// relative to its directory, such as the m.onnx.data that PyTorch writes.
type external struct {
	location string
	offset   int64
	length   int64 // -1: to the end
}

func (e *external) set(key, value string) error {
	number := func(dst *int64) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("external data whose %s is %q", key, clip(value))
		}
		*dst = n
		return nil
	}
	switch key {
	case "location":
		e.location = value
	case "offset":
		return number(&e.offset)
	case "length":
		return number(&e.length)
	}
	return nil // a checksum is optional, and the standard names no way to verify it
}

// load reads the bytes of a tensor, which are n, from a file in the directory dir
// or below it; links that lead elsewhere are refused.
func (e *external) load(dir string, n int64) (raw []byte, problem string) {
	name := filepath.FromSlash(e.location)
	if e.location == "" || !filepath.IsLocal(name) {
		return nil, fmt.Sprintf("its data lie in %q, expected a file beside the ONNX file; export with external_data=False", clip(e.location))
	}
	f, err := os.OpenInRoot(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Sprintf("its data lie in the file %s, which is not beside the ONNX file; copy it there, or export with external_data=False", clip(e.location))
	}
	if err != nil {
		return nil, fmt.Sprintf("its data lie in the file %s, which cannot be read: %v", clip(e.location), bare(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Sprintf("its data lie in %s, which is not a regular file", clip(e.location))
	}
	length := e.length
	if length < 0 {
		length = info.Size() - e.offset
	}
	switch {
	case length != n:
		return nil, fmt.Sprintf("it needs %d bytes of the file %s, the entry has %d", n, clip(e.location), length)
	case e.offset > info.Size() || length > info.Size()-e.offset:
		return nil, fmt.Sprintf("its data end at byte %d of the file %s, which has %d; get both files again", e.offset+length, clip(e.location), info.Size())
	}
	raw = make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, e.offset, n), raw); err != nil {
		return nil, fmt.Sprintf("its data in the file %s cannot be read: %v", clip(e.location), bare(err))
	}
	return raw, ""
}
