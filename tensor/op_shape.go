package tensor

import "github.com/carousel-ml/carousel/internal/device"

// Reshape returns x with another shape of the same size; one dimension may be -1,
// which is computed from the others. The result shares x's memory. It carries x's
// lengths only if the first two dimensions stay the same. It panics with a
// [*ShapeError] if the sizes differ.
func Reshape(x *Tensor, dims ...int) *Tensor {
	t := tapeOf("Reshape", x)
	y := t.tensor(dims...)
	y.value = x.value
	known, open := 1, -1
	for i := range y.rank {
		if y.dims[i] == -1 && open < 0 {
			open = i
			continue
		}
		known *= y.dims[i]
	}
	if open >= 0 && known > 0 {
		y.dims[open] = x.Len() / known
		known *= y.dims[open]
	}
	if len(dims) == 0 || len(dims) > maxRank || known != x.Len() {
		failf("Reshape", "%s does not fit %s", describe(x), describe(y))
	}
	if x.seq != nil && x.rank > 1 && y.rank > 1 && x.dims[0] == y.dims[0] && x.dims[1] == y.dims[1] {
		y.layout = x.layout
	}
	t.record(copyGrad, y, x)
	return y
}

func copyGrad(t *Tape, n *node) {
	dx, acc := n.in[0].into()
	t.backend.Copy(dx, n.out.grad, acc)
}

// move copies elements of x to other places in y, as s describes; the backward pass
// moves gradients the other way. whole means that all elements of x are copied, each
// once: then the first gradient is copied, not added.
func (t *Tape) move(y, x *Tensor, s device.PermuteSpec, whole bool) {
	s.Src, s.Dst = x.value, y.value
	back := partGrad
	if whole {
		back = wholeGrad
	}
	t.record(back, y, x).keeps(t.permute(s))
}

func wholeGrad(t *Tape, n *node) {
	dx, acc := n.in[0].into()
	t.moveBack(n, dx, acc)
}

func partGrad(t *Tape, n *node) { t.moveBack(n, n.in[0].intoZeroed(), true) }

func (t *Tape) moveBack(n *node, dx device.Buffer, acc bool) {
	s := n.spec.(*device.PermuteSpec)
	s.Src, s.Dst, s.Acc = n.out.grad, dx, acc
	reverse(s)
	t.backend.Permute(s)
}

// reverse exchanges the source and the destination of a move.
func reverse(s *device.PermuteSpec) {
	s.SrcOff, s.DstOff = s.DstOff, s.SrcOff
	s.SrcStride, s.DstStride = s.DstStride, s.SrcStride
	s.RowsDst = !s.RowsDst
}

// around reduces a shape to [before, size of axis, after].
func around(x *Tensor, axis int) (before, size, after int) {
	before, after = 1, 1
	for _, d := range x.dims[:axis] {
		before *= d
	}
	for _, d := range x.dims[axis+1 : x.rank] {
		after *= d
	}
	return before, x.dims[axis], after
}

func checkAxis(op string, x *Tensor, axis int) int {
	a := axis
	if a < 0 {
		a += x.rank
	}
	if a < 0 || a >= x.rank {
		failf(op, "axis %d of a tensor %s", axis, describe(x))
	}
	return a
}

// Slice returns a copy of x[..., lo:hi, ...] along an axis (negative: from the end).
// It carries x's lengths unless the axis is one of the first two. It panics with a
// [*ShapeError] unless 0 <= lo <= hi <= the size of the axis.
func Slice(x *Tensor, axis, lo, hi int) *Tensor {
	t := tapeOf("Slice", x)
	axis = checkAxis("Slice", x, axis)
	if lo < 0 || hi < lo || hi > x.dims[axis] {
		failf("Slice", "[%d,%d) of axis %d of a tensor %s", lo, hi, axis, describe(x))
	}
	d := x.dims
	d[axis] = hi - lo
	y := t.Empty(d[:x.rank]...)
	if axis > 1 {
		y.layout = x.layout
	}
	t.move(y, x, sliceBlock(x, axis, lo, hi), false)
	return y
}

// sliceBlock copies x[..., lo:hi, ...] to a dense tensor.
func sliceBlock(x *Tensor, axis, lo, hi int) device.PermuteSpec {
	before, size, after := around(x, axis)
	return device.PermuteSpec{Dims: [4]int{1, 1, before, (hi - lo) * after}, SrcOff: lo * after,
		SrcStride: [4]int{0, 0, size * after, 1}, DstStride: [4]int{0, 0, (hi - lo) * after, 1}}
}

// Concat joins tensors along an axis (negative: from the end). The result carries
// the lengths of the first tensor, unless the axis is one of the first two. It panics
// with a [*ShapeError] if other dimensions differ.
func Concat(axis int, xs ...*Tensor) *Tensor {
	t := tapeOf("Concat", xs...)
	axis = checkAxis("Concat", xs[0], axis)
	d := xs[0].dims
	for _, x := range xs[1:] {
		e := x.dims
		e[axis] = xs[0].dims[axis]
		if x.rank != xs[0].rank || e != xs[0].dims {
			failf("Concat", "%s and %s differ in other axes than %d", describe(xs[0]), describe(x), axis)
		}
		d[axis] += x.dims[axis]
	}
	y := t.Empty(d[:xs[0].rank]...)
	if axis > 1 {
		y.layout = xs[0].layout
	}
	at := 0
	for _, x := range xs { // one node per part
		s := sliceBlock(y, axis, at, at+x.dims[axis])
		reverse(&s)
		t.move(y, x, s, true)
		at += x.dims[axis]
	}
	return y
}

// Transpose exchanges two axes (negative: from the end). The result carries no
// lengths. It panics with a [*ShapeError] if x has no such axis.
func Transpose(x *Tensor, i, j int) *Tensor {
	t := tapeOf("Transpose", x)
	i, j = checkAxis("Transpose", x, i), checkAxis("Transpose", x, j)
	d := x.dims
	d[i], d[j] = d[j], d[i]
	y := t.Empty(d[:x.rank]...)
	t.move(y, x, transposeBlock(x, i, j), true)
	return y
}

// transposeBlock moves x to the result of a transposition, in the result's order.
func transposeBlock(x *Tensor, i, j int) device.PermuteSpec {
	var stride [maxRank]int
	n := 1
	for k := x.rank - 1; k >= 0; k-- {
		stride[k] = n
		n *= x.dims[k]
	}
	d := x.dims
	d[i], d[j] = d[j], d[i]
	stride[i], stride[j] = stride[j], stride[i]
	s := device.PermuteSpec{Dims: [4]int{1, 1, 1, 1}}
	n = 1
	for k := x.rank - 1; k >= 0; k-- {
		at := 4 - x.rank + k
		s.Dims[at], s.SrcStride[at], s.DstStride[at] = d[k], stride[k], n
		n *= d[k]
	}
	return s
}

// Repeat inserts a new axis of size n before axis and copies x along it: [B,F]
// repeated at axis 1 is [B,n,F]. The result carries no lengths. It panics with a
// [*ShapeError] if n is negative, x has no such axis, or it has four already.
func Repeat(x *Tensor, axis, n int) *Tensor {
	t := tapeOf("Repeat", x)
	if axis < 0 || axis > x.rank || x.rank == maxRank || n < 0 {
		failf("Repeat", "%d copies at axis %d of a tensor %s", n, axis, describe(x))
	}
	var d [maxRank]int
	copy(d[:], x.dims[:axis])
	d[axis] = n
	copy(d[axis+1:], x.dims[axis:x.rank])
	y := t.Empty(d[:x.rank+1]...)
	before, n, after := around(y, axis)
	t.move(y, x, device.PermuteSpec{Dims: [4]int{1, before, n, after}, SrcStride: [4]int{0, after, 0, 1}, DstStride: [4]int{0, n * after, after, 1}}, false)
	return y
}
