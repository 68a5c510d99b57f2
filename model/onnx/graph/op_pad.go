package graph

import "math"

// runPad adds elements before and after each axis, or with negative pads removes
// them: a constant, or elements of the input. What remains after removing is what
// is repeated.
func runPad(r *run, n *node, in []*value) []*value {
	x := in[0]
	pads := n.padsOf(r, in)
	fill := n.floatAttr("value", 0)
	if in[2] != nil && (in[2].kind != x.kind || in[2].len() != 1) {
		n.failf("its constant must be one element of the type of its data")
	}
	mode := n.stringAttr("mode", "constant")
	dims, crop := make([]int, x.rank()), make([]int, x.rank())
	for i, size := range x.dims {
		lo, hi := pads[i], pads[x.rank()+i]
		left := int64(size) + min(lo, 0) + min(hi, 0)
		if max(lo, hi) > math.MaxInt32 || min(lo, hi) < -math.MaxInt32 || left < 0 || left == 0 && max(lo, hi) > 0 && mode != "constant" {
			n.failf("pads %d and %d of axis %d do not fit shape %s", lo, hi, i, shape(x.dims))
		}
		dims[i], crop[i] = int(left+max(lo, 0)+max(hi, 0)), int(left)
	}
	out := r.newLike(n, x, dims)
	if out.len() == 0 {
		return one(out)
	}
	from := make([][]int, x.rank())
	for i, stride := range strides(x.dims) {
		lo := int(pads[i])
		from[i] = make([]int, dims[i])
		for j := range from[i] {
			from[i][j] = -1
			if k := padIndex(mode, j-max(lo, 0), crop[i]); k >= 0 {
				from[i][j] = (k + max(-lo, 0)) * stride
			}
		}
	}
	r.do(func() {
		if x.kind == floats {
			if in[2] != nil {
				fill = in[2].host[0]
			}
			pick(out.host, x.host, from, fill)
			return
		}
		whole := int64(0)
		if in[2] != nil {
			whole = in[2].ints[0]
		}
		pick(out.ints, x.ints, from, whole)
	})
	return one(out)
}

// padsOf returns the pads before all axes, and then those after them.
func (n *node) padsOf(r *run, in []*value) []int64 {
	rank := in[0].rank()
	given := n.intsAttr("pads")
	if n.opset >= 11 {
		if in[1] == nil {
			n.failf("its pads are left out")
		}
		given = r.fixed(n, in[1], "the pads")
	}
	pads, axes := make([]int64, 2*rank), []int64(nil)
	for i := range rank {
		axes = append(axes, int64(i))
	}
	if in[3] != nil {
		axes = r.fixed(n, in[3], "the axes")
	}
	if len(given) != 2*len(axes) {
		n.failf("%d pads for %d axes", len(given), len(axes))
	}
	for i, a := range axes {
		axis := n.axis(a, rank)
		pads[axis], pads[rank+axis] = given[i], given[len(axes)+i]
	}
	return pads
}

// padIndex returns which of size elements is at position i, which may lie before
// or behind them; -1 is a constant.
func padIndex(mode string, i, size int) int {
	switch {
	case i >= 0 && i < size:
		return i
	case mode == "constant":
		return -1
	case mode == "edge":
		return min(max(i, 0), size-1)
	case mode == "wrap":
		return ((i % size) + size) % size
	case size == 1:
		return 0
	}
	period := 2 * (size - 1) // reflect: without the element at the edge
	i = ((i % period) + period) % period
	return min(i, period-i)
}

// pick fills dst from src: from has, for each axis and position along it, what it adds
// to the place in src, or -1 for positions that get fill.
func pick[T any](dst, src []T, from [][]int, fill T) {
	if len(from) == 0 {
		copy(dst, src)
		return
	}
	size := len(dst) / len(from[0])
	for i, p := range from[0] {
		part := dst[i*size : (i+1)*size]
		switch {
		case p < 0:
			for j := range part {
				part[j] = fill
			}
		case len(from) == 1:
			part[0] = src[p]
		default:
			pick(part, src[p:], from[1:], fill)
		}
	}
}
