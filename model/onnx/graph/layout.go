package graph

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Between convolutions, values [N,C,...] are kept with channels last, as [N,...,C],
// which is what package tensor computes with: value.last. Their dims are those of
// ONNX. Operators that treat all elements alike keep the layout, and those of
// op_conv.go and op_norm.go take either; before any other operator run.step restores
// ONNX's order.

// anyLayout lists the operators that take values with channels last.
var anyLayout = map[string]bool{"Conv": true, "ConvTranspose": true, "MaxPool": true, "AveragePool": true, "GlobalMaxPool": true, "GlobalAveragePool": true, "BatchNormalization": true}

// elementwise reports whether the layout of a node's result is that of its inputs: those
// with channels last have one shape, and the others one element.
func (n *node) elementwise(in []*value) bool {
	_, unary := unaryOps[n.op]
	_, function := functions[n.op]
	if !unary && !function && !slices.Contains([]string{"Add", "Sub", "Mul", "Div", "Max", "Min", "Clip", "Identity", "Dropout"}, n.op) {
		return false
	}
	var dims []int
	rank := 0
	for _, v := range in {
		if v == nil {
			continue
		}
		if rank = max(rank, v.rank()); !v.last {
			if v.len() != 1 {
				return false
			}
			continue
		}
		if dims != nil && !slices.Equal(v.dims, dims) {
			return false
		}
		dims = v.dims
	}
	return rank == len(dims)
}

// arrange brings the inputs of a node to a layout that it takes, and reports whether its
// results have that of its inputs, with channels last.
func (r *run) arrange(n *node, in []*value) (last bool) {
	if anyLayout[n.op] || !slices.ContainsFunc(in, func(v *value) bool { return v != nil && v.last }) {
		return false
	}
	if n.elementwise(in) {
		return true
	}
	for i, slot := range n.in {
		if slot >= 0 && in[i].last {
			in[i] = r.firstLayout(n, in[i])
			r.set(slot, in[i]) // for other nodes too
		}
	}
	return false
}

// images puts a value with channels last on the tape, [N,T,C] or [N,H,W,C].
func (r *run) images(x *value) *tensor.Tensor {
	if x.rank() == 3 {
		return r.tape.Share(x.host, x.dims[0], x.dims[2], x.dims[1])
	}
	return r.tape.Share(x.host, x.dims[0], x.dims[2], x.dims[3], x.dims[1])
}

// newLast returns a new value of shape [N,C,...] with channels last.
func (r *run) newLast(n *node, dims []int) *value {
	v := r.newFloats(n, dims)
	v.last = dims[1] > 1 && product(dims[2:]) > 1 // otherwise it is the same
	return v
}

// lastLayout returns x with channels last, firstLayout in ONNX's order.
func (r *run) lastLayout(n *node, x *value) *value {
	if x.last || x.dims[1] <= 1 || product(x.dims[2:]) <= 1 {
		return x
	}
	return r.turn(n, x, x.dims[1], product(x.dims[2:]))
}

func (r *run) firstLayout(n *node, x *value) *value {
	if !x.last {
		return x
	}
	return r.turn(n, x, product(x.dims[2:]), x.dims[1])
}

// turn transposes the matrices [rows,cols] of x to the other layout.
func (r *run) turn(n *node, x *value, rows, cols int) *value {
	out := r.newFloats(n, x.dims)
	out.last = !x.last
	r.do(func() {
		for i := 0; i < len(x.host); i += rows * cols {
			simd.Best().PackT(out.host[i:i+rows*cols], x.host[i:i+rows*cols], cols, rows, cols, rows)
		}
	})
	return out
}
