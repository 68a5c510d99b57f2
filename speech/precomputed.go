package speech

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/internal/simd"
)

// IsFeatures reports whether a file holds features instead of sound, by the
// extension .npy or .mfc.
func IsFeatures(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".npy", ".mfc":
		return true
	}
	return false
}

func isMFC(path string) bool { return strings.EqualFold(filepath.Ext(path), ".mfc") }

// readFeatures reads features that another program made: .npy, an array
// [frames,width] of float32 or float64, or Sphinx .mfc with width features per
// frame. A width of 0 accepts any array. A file that cannot be used is a
// *data.InputError.
func readFeatures(path string, width int) (frames []float32, got int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, unreadable(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, unreadable(path, err)
	}
	if isMFC(path) {
		got = width
		frames, err = readMFC(bufio.NewReader(f), info.Size(), width)
	} else {
		frames, got, err = readNPY(bufio.NewReader(f), info.Size())
	}
	if err == nil && len(frames) == 0 {
		err = errors.New("holds no frame")
	}
	if err == nil && width > 0 && got != width {
		err = fmt.Errorf("has %d features per frame, want %d", got, width)
	}
	for i, v := range frames {
		if err == nil && v-v != 0 {
			err = fmt.Errorf("frame %d has a feature that is not a finite number", i/got+1)
		}
		frames[i] = simd.Narrow(float64(v))
	}
	if err != nil {
		return nil, 0, &data.InputError{File: path, Problem: err.Error()}
	}
	return frames, got, nil
}

// readMFC reads Sphinx's format: a 32-bit count and then that number of float32,
// all big-endian or, as the count shows, little-endian.
func readMFC(r io.Reader, size int64, width int) ([]float32, error) {
	body := make([]byte, min(size, 1<<31))
	if _, err := io.ReadFull(r, body); err != nil || len(body) < 4 {
		return nil, errors.New("is truncated")
	}
	var order binary.ByteOrder = binary.BigEndian
	if int64(order.Uint32(body))*4+4 != size {
		order = binary.LittleEndian
	}
	n := int(order.Uint32(body))
	switch {
	case int64(n)*4+4 != size:
		return nil, fmt.Errorf("is not a Sphinx feature file, or truncated: its count is %d numbers, its size %d bytes", binary.BigEndian.Uint32(body), size)
	case n%width != 0:
		return nil, fmt.Errorf("holds %d numbers, which is not a multiple of %d per frame; set coefficients", n, width)
	}
	frames := make([]float32, n)
	for i := range frames {
		frames[i] = math.Float32frombits(order.Uint32(body[4+4*i:]))
	}
	return frames, nil
}

// readNPY reads NumPy's format.
func readNPY(r io.Reader, size int64) (frames []float32, width int, err error) {
	a, err := npy.Read(r, size)
	switch {
	case err != nil:
		return nil, 0, err
	case len(a.Dims) != 2 || a.Type != "f4" && a.Type != "f8":
		return nil, 0, fmt.Errorf("want float32 or float64 of two dimensions, frames and features, got %s%s", npy.Names[a.Type], npy.Shape(a.Dims))
	}
	frames = make([]float32, a.Len())
	for i := range frames {
		frames[i] = float32(a.Float(i))
	}
	return frames, a.Dims[1], nil
}

// unreadable returns a *data.InputError for a file that cannot be opened or read.
func unreadable(path string, err error) error {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &data.InputError{File: path, Problem: "there is no such file"}
	case errors.As(err, &p):
		err = p.Err
	}
	return &data.InputError{File: path, Problem: fmt.Sprintf("cannot be read: %v", err)}
}
