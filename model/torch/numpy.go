package torch

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/internal/npy"
)

// This file reads NumPy's arrays: those in the pickle of a checkpoint, and .npz
// archives of them.

// The functions and types that NumPy's pickles need, without the module, which
// was numpy.core before NumPy 2 and is numpy._core.
const (
	numpyReconstruct = "numpy.multiarray._reconstruct"
	numpyScalar      = "numpy.multiarray.scalar"
	numpyFrombuffer  = "numpy.numeric._frombuffer"
	numpyArray       = "numpy.ndarray"
	numpyDtype       = "numpy.dtype"
)

// plainNumpy is a name without the module's two spellings.
func plainNumpy(name string) string {
	for _, core := range []string{"numpy.core.", "numpy._core."} {
		if rest, ok := strings.CutPrefix(name, core); ok {
			return "numpy." + rest
		}
	}
	return name
}

// ndtype is a NumPy element type; its order is set by BUILD.
type ndtype struct {
	code string // such as f4
	big  bool
}

// ndtypes maps NumPy's types to those of PyTorch with the same bits.
var ndtypes = map[string]string{
	"f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8", "u4": "uint32", "u2": "uint16", "u1": "uint8", "b1": "bool",
}

// ndarray is an array of a pickle, empty until BUILD. Arrays of numbers become
// views.
type ndarray struct{ view *view }

// build sets an array's state: version, shape, type, whether the first index
// varies fastest, and its bytes.
func (a *ndarray) build(state any) error {
	t, _ := state.(tuple)
	if len(t) != 5 {
		return fmt.Errorf("an array's state is not valid")
	}
	shape, okShape := integers(t[1])
	dt, okType := t[2].(*ndtype)
	fortran, okOrder := t[3].(bool)
	if !okShape || !okType || !okOrder {
		return fmt.Errorf("an array's shape, type or order is not valid")
	}
	raw, ok := t[4].([]byte)
	if !ok { // a list of objects
		return nil
	}
	var err error
	a.view, err = dt.viewOf(shape, fortran, raw)
	return err
}

// viewOf is a tensor of these bytes; nil if the elements are not numbers that a
// tensor has.
func (t *ndtype) viewOf(shape []int64, fortran bool, raw []byte) (*view, error) {
	dt := dtypes["torch."+ndtypes[t.code]]
	if dt == nil {
		return nil, nil
	}
	if raw == nil {
		raw = []byte{} // of an array without elements
	}
	s := &storage{dtype: dt, numel: int64(len(raw) / dt.size), data: raw, order: binary.LittleEndian}
	if t.big {
		s.order = binary.BigEndian
	}
	return dense(s, shape, fortran)
}

// dense is the view of a whole storage.
func dense(s *storage, shape []int64, fortran bool) (*view, error) {
	v := &view{storage: s, dtype: s.dtype, size: shape, stride: make([]int64, len(shape))}
	n := int64(1)
	for k := range shape {
		i := len(shape) - 1 - k
		if fortran {
			i = k
		}
		if shape[i] < 0 || shape[i] > 0 && n > math.MaxInt64/16/shape[i] {
			return nil, fmt.Errorf("an array of shape %v is not valid", shape)
		}
		v.stride[i] = n
		n *= shape[i]
	}
	if n != s.numel {
		return nil, fmt.Errorf("an array of shape %v has %d elements", shape, s.numel)
	}
	return v, nil
}

// numpy returns the result of one of NumPy's functions; ok is false for wrong
// arguments.
func (u *unpickler) numpy(fn global, args tuple) (v any, ok bool) {
	switch fn {
	case numpyReconstruct:
		return &ndarray{}, true
	case numpyScalar: // a number beside the weights
		return tuple(nil), true
	case numpyDtype:
		if len(args) > 0 {
			code, ok := args[0].(string)
			return &ndtype{code: code}, ok
		}
	case numpyFrombuffer: // the bytes, type, shape and order
		if len(args) != 4 {
			return nil, false
		}
		raw, okRaw := args[0].([]byte)
		a := &ndarray{}
		if err := a.build(tuple{nil, args[2], args[1], args[3] == "F", raw}); err != nil || !okRaw {
			return nil, false
		}
		return a, true
	}
	return nil, false
}

// latin1 is how a pickle of protocol 2 holds bytes: as a text whose characters
// they are.
func latin1(s string) ([]byte, bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 255 {
			return nil, false
		}
		b = append(b, byte(r))
	}
	return b, true
}

// readArrays reads an archive of numpy.savez: a member NAME.npy for each array.
func (c *container) readArrays(z *zip.Reader) error {
	state := &dict{}
	members := map[*storage]*zip.File{}
	headers := map[*storage]int64{}
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok {
			continue
		}
		v, header, err := npyView(f)
		if err != nil {
			return problem(c.path, "", "array %s: %w", quote(name), err)
		}
		state.keys, state.values = append(state.keys, name), append(state.values, &ndarray{v})
		if v != nil {
			members[v.storage], headers[v.storage] = f, header
		}
	}
	c.root = state
	c.size *= npy.MaxInflate // the arrays may be compressed
	c.open = func(s *storage) (io.ReadCloser, error) {
		r, err := members[s].Open()
		if err == nil {
			if _, err = io.CopyN(io.Discard, r, headers[s]); err != nil {
				r.Close()
			}
		}
		if err != nil {
			return nil, fmt.Errorf("truncated or damaged: %w", err)
		}
		return r, nil
	}
	return nil
}

// npyView reads the header of a member, of a length; without a view if the
// elements are texts or objects.
func npyView(f *zip.File) (v *view, header int64, err error) {
	r, err := f.Open()
	if err != nil {
		return nil, 0, fmt.Errorf("truncated or damaged: %w", err)
	}
	defer r.Close()
	h, err := npy.ReadHeader(r)
	if err != nil {
		return nil, 0, err
	}
	dt := dtypes["torch."+ndtypes[h.Type]]
	if dt == nil {
		return nil, 0, nil // not numbers that a tensor has
	}
	shape := make([]int64, len(h.Dims))
	for i, d := range h.Dims {
		shape[i] = int64(d)
	}
	size := int64(f.UncompressedSize64) - h.Size
	if size < 0 || size%int64(dt.size) != 0 {
		return nil, 0, fmt.Errorf("truncated or damaged: %d bytes for elements of %d", size, dt.size)
	}
	s := &storage{dtype: dt, numel: size / int64(dt.size), order: binary.LittleEndian}
	if h.Big {
		s.order = binary.BigEndian
	}
	v, err = dense(s, shape, h.Fortran)
	return v, h.Size, err
}
