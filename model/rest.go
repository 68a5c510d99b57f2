package model

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// restKey is the entry of a file's metadata that says that types are those that weights rest in.
// Files of others have such types too, for other reasons.
const (
	restKey     = "carousel.rest"
	scaleSuffix = ".scale"
	shapeSuffix = ".shape"
)

// restTypes are the types of weights at rest.
var restTypes = map[tensor.Precision]string{tensor.BFloat16: "BF16", tensor.Float16: "F16", tensor.Int8: "I8", tensor.Int4: "U8"}

// stored returns tensors and metadata as a file has them: tensors in 8 or 4 bits are integers, followed
// by their scales and, in 4 bits, their dimensions.
func stored(ts []Tensor, meta map[string]string) (list []Tensor, _ map[string]string) {
	for _, t := range ts {
		if t.Rest == tensor.Float32 {
			list = append(list, t)
			continue
		}
		if meta == nil {
			meta = map[string]string{}
		}
		meta[restKey] = "types"
		if t.Rest != tensor.Int8 && t.Rest != tensor.Int4 {
			list = append(list, t)
			continue
		}
		cols := rowOf(t.Dims)
		values, scales := simd.SplitBytes(t.Data, cols)
		ints := Tensor{Name: t.Name, Dims: t.Dims, Rest: t.Rest, Ints: make([]int64, len(values))}
		for i, v := range values {
			ints.Ints[i] = int64(v)
		}
		list = append(list, ints, Tensor{Name: t.Name + scaleSuffix, Dims: t.Dims[:1], Data: scales})
		if t.Rest == tensor.Int4 {
			packed := &list[len(list)-2]
			packed.Dims = []int{t.Dims[0], (cols + 1) / 2}
			packed.Ints = pairs(values, cols)
			shape := Tensor{Name: t.Name + shapeSuffix, Dims: []int{len(t.Dims)}}
			for _, d := range t.Dims {
				shape.Ints = append(shape.Ints, int64(d))
			}
			list = append(list, shape)
		}
	}
	return list, meta
}

// pairs returns the levels of 4 bits of rows of integers, two in a byte.
func pairs(values []int8, cols int) (bytes []int64) {
	for row := range slices.Chunk(values, cols) {
		for i := 0; i < cols; i += 2 {
			b := simd.LevelOf(float64(row[i]), 1, simd.Levels4) & 15
			if i+1 < cols {
				b |= simd.LevelOf(float64(row[i+1]), 1, simd.Levels4) & 15 << 4
			}
			bytes = append(bytes, int64(b))
		}
	}
	return bytes
}

// unpair makes t, bytes of a file, the integers of 8 bits that pairs was given, with their dimensions. It
// reports whether they are such bytes.
func (t *Tensor) unpair(shape []int64) bool {
	dims, cols := make([]int, len(shape)), 1
	for i, d := range shape {
		if d < 1 || i > 0 && d > int64(2*len(t.Data)/cols) {
			return false
		}
		if dims[i] = int(d); i > 0 {
			cols *= dims[i]
		}
	}
	if len(dims) < 2 || !slices.Equal(t.Dims, []int{dims[0], (cols + 1) / 2}) {
		return false
	}
	data := make([]float32, 0, dims[0]*cols)
	for row := range slices.Chunk(t.Data, t.Dims[1]) {
		for i, b := range row {
			for half, level := range [2]int8{int8(b) << 4 >> 4, int8(b) >> 4} {
				switch {
				case level < -simd.Levels4, 2*i+half == cols && level != 0:
					return false
				case 2*i+half < cols:
					data = append(data, float32(simd.ByteOfLevel(int(level), simd.Levels4)))
				}
			}
		}
	}
	t.Dims, t.Data = dims, data
	return true
}

// rowOf returns the elements of a row.
func rowOf(dims []int) int {
	n := 1
	for _, d := range dims[1:] {
		n *= d
	}
	return n
}

// restore makes the tensors of a model's file with weights at rest what stored was given.
func (f *File) restore(entries []entry) error {
	if f.Meta[restKey] == "" {
		return nil
	}
	bad := func(name, format string, a ...any) error {
		return &FileError{File: f.Path, Tensor: name, Problem: fmt.Sprintf(format, a...), Fix: mend}
	}
	beside := map[string]bool{} // the scales and shapes
	for i, e := range entries {
		t := &f.Tensors[i]
		switch e.dtype {
		case "BF16":
			t.Rest = tensor.BFloat16
		case "F16":
			t.Rest = tensor.Float16
		case "I8", "U8":
			s := f.Lookup(e.name + scaleSuffix)
			if len(e.dims) < 2 || s == nil || s.Data == nil || !slices.Equal(s.Dims, e.dims[:1]) {
				return bad(e.name, "of type %s, it needs at least two dimensions, got %s, and its scales, %s%s of type F32, one for each row", e.dtype, shapeText(e.dims), e.name, scaleSuffix)
			}
			beside[s.Name] = true
			t.Rest = tensor.Int8
			if e.dtype == "U8" {
				t.Rest = tensor.Int4
				shape := f.Lookup(e.name + shapeSuffix)
				if shape == nil || !t.unpair(shape.Ints) {
					return bad(e.name, "of type U8 and shape %s, it needs two levels from -7 to 7 in each byte, and %s%s of type I64 with the dimensions of these weights", shapeText(e.dims), e.name, shapeSuffix)
				}
				beside[shape.Name] = true
			}
			cols := rowOf(t.Dims)
			for j := range t.Data {
				t.Data[j] *= s.Data[j/cols]
			}
			_, again := simd.SplitBytes(t.Data, cols)
			for row, scale := range again {
				if scale != s.Data[row] && !(scale == 0 && s.Data[row] < 1e-30) || math.IsInf(float64(scale), 0) {
					return bad(e.name, "row %d and its scale %g are not as carousel writes them: the greatest magnitude of a row is 127, and a scale is finite and has at most 16 significant bits", row, s.Data[row])
				}
			}
		}
	}
	kept := f.Tensors[:0]
	f.index = make(map[string]int, len(f.Tensors))
	for _, t := range f.Tensors {
		if !beside[t.Name] {
			f.index[t.Name] = len(kept)
			kept = append(kept, t)
		}
	}
	f.Tensors = kept
	delete(f.Meta, restKey)
	return nil
}
