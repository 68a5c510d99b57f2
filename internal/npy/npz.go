package npy

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MaxInflate limits the bytes of compressed arrays, as a multiple of the file's size.
const MaxInflate = 100

// small is the size of arrays that are always accepted: constant ones are compressed
// to almost nothing.
const small = 1 << 26

// Archive is a .npz file.
type Archive struct {
	Names []string // of the arrays, in the order of the file

	files map[string]*zip.File
	left  int64 // bytes that may still be read
}

// OpenArchive reads the names of a .npz file of size bytes.
func OpenArchive(r io.ReaderAt, size int64) (*Archive, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, errors.New("is not a .npz archive, or truncated")
	}
	a := &Archive{files: map[string]*zip.File{}, left: max(size, 1<<10)*MaxInflate + small}
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok {
			continue
		}
		if a.files[name] != nil {
			return nil, fmt.Errorf("is damaged: it holds %.80q twice", name)
		}
		a.files[name] = f
		a.Names = append(a.Names, name)
	}
	return a, nil
}

// Read reads the array of a name of Names. Arrays that are out of proportion to the
// file are an error.
func (a *Archive) Read(name string) (*Array, error) {
	f := a.files[name]
	if f == nil {
		return nil, fmt.Errorf("holds no array %.80q", name)
	}
	if f.UncompressedSize64 > uint64(a.left) {
		return nil, fmt.Errorf("array %.80q %d bytes, out of proportion to the file", name, f.UncompressedSize64)
	}
	a.left -= int64(f.UncompressedSize64)
	r, err := f.Open()
	if err == nil {
		defer r.Close()
		var array *Array
		if array, err = Read(r, int64(f.UncompressedSize64)); err == nil {
			_, err = io.Copy(io.Discard, r) // its checksum
			if err == nil {
				return array, nil
			}
			err = cut(err)
		}
	} else {
		err = cut(err)
	}
	return nil, fmt.Errorf("array %.80q %w", name, err)
}

// WriteArchive writes a .npz file without compression, as numpy.savez does. The
// errors are those of w.
func WriteArchive(w io.Writer, names []string, arrays []*Array) error {
	z := zip.NewWriter(w)
	for i, name := range names {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store})
		if err == nil {
			err = Write(f, arrays[i])
		}
		if err != nil {
			return err
		}
	}
	return z.Close()
}
