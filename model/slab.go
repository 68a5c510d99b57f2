package model

import (
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/tensor"
)

// SaveSlab writes the parameters of slab under their names to a safetensors
// file; it returns the errors of [WriteTensors].
func SaveSlab(path string, slab *tensor.Slab, meta map[string]string) error {
	return WriteTensors(path, SlabTensors(slab), meta)
}

// LoadSlab reads parameters written by SaveSlab, or by PyTorch under the same
// names, into slab. The file must hold every parameter with its shape, and
// nothing else; otherwise a [*FileError] names the first wrong tensor and slab
// is unchanged.
func LoadSlab(path string, slab *tensor.Slab) error {
	f, err := ReadTensors(path)
	if err != nil {
		return err
	}
	return f.Load(slab)
}

// SlabTensors returns a copy of the parameters of slab, under their names.
func SlabTensors(slab *tensor.Slab) []Tensor {
	ts := make([]Tensor, len(slab.Params))
	for i, p := range slab.Params {
		ts[i] = Tensor{Name: p.Name, Dims: p.Dims(), Data: p.Read(), Rest: p.Rest()}
	}
	return ts
}

// Load copies the tensors into slab, and lets them rest as they are in the file; names and
// shapes must match; it returns the errors of [LoadSlab].
func (f *File) Load(slab *tensor.Slab) error {
	bad := func(name, format string, a ...any) error {
		return &FileError{File: f.Path, Tensor: name, Problem: fmt.Sprintf(format, a...)}
	}
	wanted := make(map[string]bool, len(slab.Params))
	for _, p := range slab.Params {
		wanted[p.Name] = true
		t := f.Lookup(p.Name)
		switch {
		case t == nil:
			return bad(p.Name, "missing: the model needs it with shape %v", p.Dims())
		case !slices.Equal(t.Dims, p.Dims()):
			return bad(p.Name, "expected shape %v, got %s", p.Dims(), shapeText(t.Dims))
		case t.Ints != nil:
			return bad(p.Name, "expected floating-point values, got integers")
		}
	}
	var extra []string
	for _, t := range f.Tensors {
		if !wanted[t.Name] {
			extra = append(extra, clip(t.Name))
		}
	}
	if len(extra) > 0 {
		more := ""
		if n := len(extra) - 1; n > 0 {
			more = fmt.Sprintf(" (nor for %d more: %s)", n, strings.Join(extra[1:min(n, 3)+1], ", "))
		}
		return bad(extra[0], "the model has no parameter of that name%s", more)
	}
	for _, p := range slab.Params {
		t := f.Lookup(p.Name)
		p.Write(t.Data)
		p.SetRest(t.Rest)
	}
	return nil
}
