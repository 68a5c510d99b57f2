package graph

import (
	"slices"
)

// prepareGather keeps a constant table of vectors, an embedding, as a parameter,
// for [Node.Layer].
func prepareGather(m *Model, n *node) any {
	table := m.constant(n, 0)
	if m.constant(n, 1) != nil || table == nil || table.kind != floats || table.rank() != 2 || table.len() == 0 || n.intAttr("axis", 0) != 0 {
		return nil
	}
	return m.weight(n, 0, "embedding", nil, table.dims...)
}

// at makes an index from outside one into size elements.
func (n *node) at(i int64, size int) int {
	if i < -int64(size) || i >= int64(size) {
		n.failf("index %d is outside 0 to %d", i, size-1)
	}
	if i < 0 {
		i += int64(size)
	}
	return int(i)
}

func runGather(r *run, n *node, in []*value) []*value {
	v, index := in[0], n.wantInts(in[1], "the indices")
	if v.rank() == 0 {
		n.failf("needs at least one dimension")
	}
	axis := n.axis(n.intAttr("axis", 0), v.rank())
	before, size, after := around(v.dims, axis)
	dims := slices.Concat(v.dims[:axis], in[1].dims, v.dims[axis+1:])
	if before == 1 && len(index) == 1 && !in[1].varies() {
		return one(v.part(dims, n.at(index[0], size)*after))
	}
	out := r.newLike(n, v, dims)
	r.do(func() {
		if v.kind == floats {
			gather(n, out.host, v.host, index, before, size, after)
		} else {
			gather(n, out.ints, v.ints, index, before, size, after)
		}
	})
	return one(out)
}

func gather[T any](n *node, dst, src []T, index []int64, before, size, after int) {
	for b := range before {
		for i, x := range index {
			p := b*size + n.at(x, size)
			copy(dst[(b*len(index)+i)*after:], src[p*after:(p+1)*after])
		}
	}
}

func runGatherElements(r *run, n *node, in []*value) []*value {
	v, index := in[0], n.wantInts(in[1], "the indices")
	axis := n.axis(n.intAttr("axis", 0), v.rank())
	dims := in[1].dims
	ok := len(dims) == v.rank()
	for i := 0; ok && i < len(dims); i++ {
		ok = i == axis || dims[i] <= v.dims[i]
	}
	if !ok {
		n.failf("indices of shape %s for data of shape %s", shape(dims), shape(v.dims))
	}
	from := strides(v.dims)
	step := from[axis]
	from[axis] = 0
	size, inner := last(dims, from)
	out := r.newLike(n, v, dims)
	r.do(func() {
		walk(dims, func(row int, at offsets) {
			for i := row * size; i < (row+1)*size; i++ {
				p := at[0] + (i-row*size)*inner + n.at(index[i], v.dims[axis])*step
				if v.kind == floats {
					out.host[i] = v.host[p]
				} else {
					out.ints[i] = v.ints[p]
				}
			}
		}, from)
	})
	return one(out)
}
