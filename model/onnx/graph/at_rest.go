package graph

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/tensor"
)

// The first versions of the standard operators in which DequantizeLinear has an axis, and in which
// Cast has bfloat16.
const axisOpset, bfloatOpset = 13, 13

// atRest is weights that are written as they rest.
type atRest struct {
	name   string // of what is made
	dims   []int
	values []float32
	rest   tensor.Precision
	bytes  *quantized // with Int8
	dtype  int64      // of what is made
	opset  int
	fresh  func(name string) string // returns a name that is not in use
}

// add adds tensors and the nodes that make the weights of them.
func (w *atRest) add(g *Builder) {
	q, from := w.bytes, "" // from is what the last node makes
	steps := 0
	node := func(op string, in []string, last bool, attrs ...Attr) {
		out := w.name
		if !last {
			steps++
			out = w.fresh(fmt.Sprintf("%s_%d", w.name, steps))
		}
		g.Node(op, append([]string{from}, in...), []string{out}, attrs...)
		from = out
	}
	if w.rest == tensor.Float32 || w.rest == tensor.BFloat16 && w.opset < bfloatOpset && w.dtype == typeFloat {
		g.Floats(w.name, w.values, w.dims...)
		return
	}
	cast := Attr{"to", int(w.dtype)}
	if w.rest != tensor.Int8 {
		dtype, bits := int64(typeBFloat16), half.ToBFloat16
		if w.rest == tensor.Float16 {
			dtype, bits = typeFloat16, half.ToFloat16
		}
		raw := make([]byte, 0, 2*len(w.values))
		for _, v := range w.values {
			raw = binary.LittleEndian.AppendUint16(raw, bits(v))
		}
		from = g.initializer(w.fresh(w.name+"_"+w.rest.String()), dtype, raw, w.dims)
		node("Cast", nil, true, cast)
		return
	}
	dims, axis, several, float := w.dims, q.from, q.to-q.from > 1, w.dtype == typeFloat
	if several {
		dims, axis = slices.Concat([]int{len(q.scales)}, dims[q.to:]), 0
	}
	raw, scales := make([]byte, len(q.values)), slices.Clone(q.scales)
	for i, b := range q.values {
		raw[i] = byte(b)
	}
	for i, v := range scales {
		if v == 0 { // of zeros
			scales[i] = 1
		}
	}
	from = g.initializer(w.fresh(w.name+"_int8"), typeInt8, raw, dims)
	scale := w.fresh(w.name + "_scale")
	if last := float && !several; w.opset >= axisOpset {
		node("DequantizeLinear", []string{g.Floats(scale, scales, len(scales))}, last, Attr{"axis", axis})
	} else {
		along := slices.Repeat([]int{1}, len(dims))
		along[axis] = len(scales)
		node("Cast", nil, false, Attr{"to", typeFloat})
		node("Mul", []string{g.Floats(scale, scales, along...)}, last)
	}
	if several {
		shape := g.initializer(w.fresh(w.name+"_shape"), typeInt64, int64s(wide(w.dims)), []int{len(w.dims)})
		node("Reshape", []string{shape}, float)
	}
	if !float {
		node("Cast", nil, true, cast)
	}
}

// Weights adds a constant matrix that rests in a precision, as [Model.WriteQuantized] writes it, and
// returns its name; for a name of "" one is generated. For [tensor.Int8], w has values that it was
// rounded to, and a row is the elements with the same indices along the dimensions from up to to.
func (g *Builder) Weights(name string, w []float32, p tensor.Precision, from, to int, dims ...int) string {
	if name == "" {
		name = g.Name()
	}
	stored := &atRest{name: name, dims: dims, values: w, rest: p, dtype: typeFloat, opset: exportOpset, fresh: func(name string) string { return name }}
	switch p {
	case tensor.Int8:
		stored.bytes = &quantized{from: from, to: to}
		stored.bytes.set(w, dims)
	case tensor.BFloat16, tensor.Float16:
		g.meta = append(g.meta, [2]string{metaRest + name, p.String()})
	}
	stored.add(g)
	return name
}

// set rounds a matrix.
func (q *quantized) set(w []float32, dims []int) {
	unknown := slices.Repeat([]float32{-1}, len(w))
	q.values, q.scales = make([]int8, len(w)), unknown[:product(dims[q.from:q.to])]
	q.complete(&value{host: w, dims: dims}, slices.Clone(unknown))
}
