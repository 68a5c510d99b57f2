package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Linear is a MatMul or Gemm with constant weights: x·Wᵀ + b, along the last dimension.
type Linear struct{ Weight, Bias *tensor.Param } // [out,in]; [out], or nil

// turned returns the places of the elements of a transposed matrix in the matrix [rows,cols].
func turned(rows, cols int) func(i int) int {
	return func(i int) int { return i%rows*cols + i/rows }
}

// matrix reports whether v is a constant matrix of floats with elements.
func matrix(v *value) bool { return v != nil && v.kind == floats && v.rank() == 2 && v.len() > 0 }

// prepareGemm keeps the weights of the usual dense layer: constant weights, a
// constant bias or none, and no other factors.
func prepareGemm(m *Model, n *node) any {
	w, c := m.constant(n, 1), m.constant(n, 2)
	if m.constant(n, 0) != nil || !matrix(w) || n.intAttr("transA", 0) != 0 || n.floatAttr("alpha", 1) != 1 || n.floatAttr("beta", 1) != 1 || n.has(2) && c == nil {
		return nil
	}
	out, in := w.dims[0], w.dims[1]
	var at func(i int) int
	if n.intAttr("transB", 0) == 0 {
		at = turned(out, in)
		out, in = in, out
	}
	if c != nil && (c.kind != floats || c.len() != out || c.dims[c.rank()-1] != out) {
		return nil
	}
	l := &Linear{Weight: m.weight(n, 1, "linear", at, out, in)}
	if c != nil {
		l.Bias = m.param(c.host, out)
	}
	return l
}

func prepareMatMul(m *Model, n *node) any {
	if w := m.constant(n, 1); m.constant(n, 0) == nil && matrix(w) {
		return &Linear{Weight: m.weight(n, 1, "linear", turned(w.dims[0], w.dims[1]), w.dims[1], w.dims[0])}
	}
	return nil
}

// apply multiplies x [...,I] by the weights.
func (l *Linear) apply(r *run, n *node, x *value) *value {
	in := l.Weight.Dim(1)
	if x.kind != floats || x.rank() == 0 || x.dims[x.rank()-1] != in {
		n.failf("%s of shape %s do not fit %d rows of weights", x.kind, shape(x.dims), in)
	}
	dims := slices.Clone(x.dims)
	dims[len(dims)-1] = l.Weight.Dim(0)
	out := r.newFloats(n, dims)
	if x.len() > 0 {
		r.work(n, out.len(), in)
		r.onTape(func() {
			tensor.Linear(r.tensor(x, x.len()/in, in), l.Weight.T(), l.Bias.T()).CopyTo(out.host)
			n.activate(out.host)
		})
	}
	return out
}

func runGemm(r *run, n *node, in []*value) []*value {
	a, b, c := in[0], in[1], in[2]
	if a.rank() != 2 || b.rank() != 2 || a.kind != floats || b.kind != floats {
		n.failf("needs two matrices of floats, got shapes %s and %s", shape(a.dims), shape(b.dims))
	}
	if l, ok := n.prepared.(*Linear); ok {
		return one(l.apply(r, n, a))
	}
	if n.intAttr("transA", 0) != 0 {
		a = r.view(n, a, []int{a.dims[1], a.dims[0]}, []int{1, a.dims[1]}, 0)
	}
	if n.intAttr("transB", 0) != 0 {
		b = r.view(n, b, []int{b.dims[1], b.dims[0]}, []int{1, b.dims[1]}, 0)
	}
	y := r.matMul(n, a, b)
	alpha, beta := float64(n.floatAttr("alpha", 1)), float64(n.floatAttr("beta", 1))
	out := r.newFloats(n, y.dims)
	if c != nil && (c.kind != floats || !slices.Equal(n.broadcast(y.dims, c.dims), y.dims)) {
		n.failf("C of shape %s does not fit %s", shape(c.dims), shape(y.dims))
	}
	r.do(func() {
		for i, v := range y.host {
			out.host[i] = simd.Narrow(alpha * float64(v))
		}
	})
	if c != nil {
		own, stretch := strides(y.dims), stretched(c.dims, y.dims)
		plus := func(v, c float32) float32 { return simd.Narrow(float64(v) + beta*float64(c)) }
		r.do(func() { zip(out.host, y.dims, out.host, own, c.host, stretch, plus) })
	}
	return one(out)
}

func runMatMul(r *run, n *node, in []*value) []*value {
	a, b := in[0], in[1]
	if a.kind != floats || b.kind != floats || a.rank() == 0 || b.rank() == 0 {
		n.failf("needs matrices of floats, got %s of shape %s and %s of shape %s", a.kind, shape(a.dims), b.kind, shape(b.dims))
	}
	if l, ok := n.prepared.(*Linear); ok {
		return one(l.apply(r, n, a))
	}
	// A vector is a matrix of one row or column, which is then removed.
	vecA, vecB := a.rank() == 1, b.rank() == 1
	if vecA {
		a = a.reshaped([]int{1, a.dims[0]})
	}
	if vecB {
		b = b.reshaped([]int{b.dims[0], 1})
	}
	y := r.matMul(n, a, b)
	dims := slices.Clone(y.dims)
	if vecB {
		dims = dims[:len(dims)-1]
	}
	if vecA {
		dims = slices.Delete(dims, len(y.dims)-2, len(y.dims)-1)
	}
	return one(y.reshaped(dims))
}

// matMul is the product of the last two dimensions; the leading ones broadcast.
func (r *run) matMul(n *node, a, b *value) *value {
	ra, rb := a.rank(), b.rank()
	m, k, cols := a.dims[ra-2], a.dims[ra-1], b.dims[rb-1]
	if b.dims[rb-2] != k {
		n.failf("shapes %s and %s do not fit together", shape(a.dims), shape(b.dims))
	}
	lead := n.broadcast(a.dims[:ra-2], b.dims[:rb-2])
	dims := slices.Concat(lead, []int{m, cols})
	out := r.newFloats(n, dims)
	if product(dims) == 0 || k == 0 {
		r.do(func() { clear(out.host) })
		return out
	}
	r.work(n, out.len(), k)
	batch := product(lead)
	a, b = r.spread(n, a, lead), r.spread(n, b, lead)
	r.onTape(func() { tensor.MatMul(r.tensor(a, batch, m, k), r.tensor(b, batch, k, cols), false).CopyTo(out.host) })
	return out
}

// spread repeats a stack of matrices over leading dimensions.
func (r *run) spread(n *node, v *value, lead []int) *value {
	dims := slices.Concat(lead, v.dims[v.rank()-2:])
	if product(dims) == v.len() {
		return v
	}
	return r.view(n, v, dims, stretched(v.dims, dims), 0)
}

func runLayerNorm(r *run, n *node, in []*value) []*value {
	x := in[0]
	axis := n.axis(n.intAttr("axis", -1), x.rank())
	size := product(x.dims[axis:])
	for _, v := range in[1:] {
		if v != nil && (v.kind != floats || v.len() != size) {
			n.failf("scale or bias of shape %s does not fit %s from axis %d", shape(v.dims), shape(x.dims), axis)
		}
	}
	if x.kind != floats {
		n.failf("its operand is %s", x.kind)
	}
	if x.len() == 0 {
		return one(x.reshaped(x.dims))
	}
	out, epsilon := r.newFloats(n, x.dims), n.floatAttr("epsilon", 1e-5)
	r.onTape(func() {
		beta := r.tape.Zeros(size)
		if in[2] != nil {
			beta = r.tensor(in[2], size)
		}
		tensor.LayerNorm(r.tensor(x, x.len()/size, size), r.tensor(in[1], size), beta, epsilon).CopyTo(out.host)
	})
	results := []*value{out, nil, nil}
	if len(n.out) > 1 { // the statistics of each row too
		dims := slices.Clone(x.dims)
		for i := axis; i < len(dims); i++ {
			dims[i] = 1
		}
		mean, rstd := r.newFloats(n, dims), r.newFloats(n, dims)
		r.do(func() {
			for i := range mean.host {
				m, variance := moments(x.host[i*size:][:size])
				mean.host[i], rstd.host[i] = simd.Narrow(m), simd.Narrow(1/math.Sqrt(variance+float64(epsilon)))
			}
		})
		results[1], results[2] = mean, rstd
	}
	return results
}

// runSoftmax computes along one axis since operator set 13; before, over all axes
// from the given one on.
func runSoftmax(r *run, n *node, in []*value) []*value {
	x := in[0]
	def := int64(-1)
	if n.opset < 13 {
		def = 1
	}
	axis := n.axis(n.intAttr("axis", def), x.rank())
	if x.kind != floats {
		n.failf("its operand is %s", x.kind)
	}
	if x.len() == 0 {
		return one(x.reshaped(x.dims))
	}
	softmax := func(t *tensor.Tensor) *tensor.Tensor { return tensor.Softmax(t, nil) }
	if n.op == "LogSoftmax" {
		softmax = tensor.LogSoftmax
	}
	out := r.newFloats(n, x.dims)
	before, size, after := around(x.dims, axis)
	if n.opset < 13 {
		size, after = size*after, 1
	}
	r.onTape(func() {
		if after == 1 {
			softmax(r.tensor(x, before, size)).CopyTo(out.host)
			return
		}
		y := softmax(tensor.Transpose(r.tensor(x, before, size, after), 1, 2))
		tensor.Transpose(y, 1, 2).CopyTo(out.host)
	})
	return one(out)
}
