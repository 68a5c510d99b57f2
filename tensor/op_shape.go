package tensor

import "github.com/carousel-ml/carousel/internal/device"

// Reshape gives x's elements another shape of the same size; one dimension may
// be -1. The result shares x's memory. Lengths do not survive unless the first
// two dimensions stay as they are.
func Reshape(x *Tensor, dims ...int) *Tensor {
	t := tapeOf("Reshape", x)
	y := t.tensors.next()
	y.tape, y.epoch, y.value = t, t.epoch, x.value
	y.rank = copy(y.dims[:], dims)
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
		y.seq = x.seq
	}
	t.record(reshapeGrad, y, x)
	return y
}

func reshapeGrad(t *Tape, n *node) {
	if dx, acc := n.in[0].into(); !dx.Zero() {
		t.backend.Copy(dx, n.out.grad, acc)
	}
}

// move makes y of elements of x at other places, as s says. On the way back
// gradients go where the elements came from. whole says that these are all of
// x, each once: then the first gradient is copied and not added.
func (t *Tape) move(y, x *Tensor, s device.PermuteSpec, whole bool) {
	s.Src, s.Dst = x.value, y.value
	back := partGrad
	if whole {
		back = wholeGrad
	}
	t.record(back, y, x).keeps(t.permute(s))
}

func wholeGrad(t *Tape, n *node) {
	if dx, acc := n.in[0].into(); !dx.Zero() {
		t.moveBack(n, dx, acc)
	}
}

func partGrad(t *Tape, n *node) {
	if dx := n.in[0].intoZeroed(); !dx.Zero() {
		t.moveBack(n, dx, true)
	}
}

func (t *Tape) moveBack(n *node, dx device.Buffer, acc bool) {
	s := n.spec.(*device.PermuteSpec)
	s.Src, s.Dst, s.Acc = n.out.grad, dx, acc
	turn(s)
	t.backend.Permute(s)
}

// turn swaps the two sides of a move.
func turn(s *device.PermuteSpec) {
	s.SrcOff, s.DstOff = s.DstOff, s.SrcOff
	s.SrcStride, s.DstStride = s.DstStride, s.SrcStride
	s.RowsDst = !s.RowsDst
}

// around collapses a shape to [before, size of axis, after].
func around(x *Tensor, axis int) (before, size, after int) {
	before, size, after = 1, x.dims[axis], 1
	for i := range x.rank {
		if i < axis {
			before *= x.dims[i]
		} else if i > axis {
			after *= x.dims[i]
		}
	}
	return before, size, after
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

// Slice is x[..., lo:hi, ...] along an axis (negative: from the end). Lengths
// survive a slice of any axis but the first two.
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
		y.seq = x.seq
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

// Concat joins tensors along an axis (negative: from the end); all other
// dimensions must be equal. Lengths come from the first tensor, unless the axis
// is one of the first two.
func Concat(axis int, xs ...*Tensor) *Tensor {
	t := tapeOf("Concat", xs...)
	axis = checkAxis("Concat", xs[0], axis)
	d := xs[0].dims
	for _, x := range xs[1:] {
		e := x.dims
		e[axis] = xs[0].dims[axis]
		if x.rank != xs[0].rank || e != xs[0].dims {
			failf("Concat", "%s and %s differ beside axis %d", describe(xs[0]), describe(x), axis)
		}
		d[axis] += x.dims[axis]
	}
	y := t.Empty(d[:xs[0].rank]...)
	if axis > 1 {
		y.seq = xs[0].seq
	}
	at := 0
	for _, x := range xs { // one node a part: each knows its place in y
		s := sliceBlock(y, axis, at, at+x.dims[axis])
		turn(&s)
		t.move(y, x, s, true)
		at += x.dims[axis]
	}
	return y
}

// Transpose swaps two axes (negative: from the end). Lengths do not survive.
func Transpose(x *Tensor, i, j int) *Tensor {
	t := tapeOf("Transpose", x)
	i, j = checkAxis("Transpose", x, i), checkAxis("Transpose", x, j)
	d := x.dims
	d[i], d[j] = d[j], d[i]
	y := t.Empty(d[:x.rank]...)
	t.move(y, x, transposeBlock(x, i, j), true)
	return y
}

// transposeBlock walks x in the order of the result.
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

// Repeat inserts a new axis of size n before axis and copies x along it: a [B,F]
// repeated at axis 1 becomes [B,n,F].
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
