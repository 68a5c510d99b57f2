package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// prepareGather keeps a constant table of vectors, an embedding, as a parameter.
func prepareGather(m *Model, n *node) any {
	table := m.constant(n, 0)
	if table == nil || table.kind != floats || table.rank() != 2 || table.len() == 0 || n.intAttr("axis", 0) != 0 {
		return nil
	}
	return m.param(table.host, table.dims...)
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
	if table, ok := n.prepared.(*tensor.Param); ok && len(index) > 0 && size <= math.MaxInt32 {
		r.spend(n, dims)
		ids := make([]int32, len(index))
		for i, x := range index {
			ids[i] = int32(n.at(x, size))
		}
		return one(result(tensor.Embed(table.T(), r.tape.IDs(ids, nil, len(ids)), -1), dims))
	}
	if v.kind == floats {
		out := r.newFloats(n, dims)
		gather(n, out.host, v.floats(), index, before, size, after)
		return one(out)
	}
	out := r.newInts(n, v.dtype, dims)
	gather(n, out.ints, v.ints, index, before, size, after)
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
	place := make([]int, len(index)) // where each element of the result comes from
	size, inner := last(dims, from)
	walk(dims, func(row int, at []int) {
		for i := range size {
			j := row*size + i
			place[j] = at[0] + i*inner + n.at(index[j], v.dims[axis])*step
		}
	}, from)
	return one(r.pick(n, v, dims, place, 1))
}

// pick makes a value of blocks of v that begin at the given places.
func (r *run) pick(n *node, v *value, dims, place []int, block int) *value {
	if v.kind == floats {
		out := r.newFloats(n, dims)
		src := v.floats()
		for i, p := range place {
			copy(out.host[i*block:], src[p:p+block])
		}
		return out
	}
	out := r.newInts(n, v.dtype, dims)
	for i, p := range place {
		copy(out.ints[i*block:], v.ints[p:p+block])
	}
	return out
}

func runGatherND(r *run, n *node, in []*value) []*value {
	v, index := in[0], n.wantInts(in[1], "the indices")
	if n.intAttr("batch_dims", 0) != 0 {
		n.failf("batch_dims is not supported")
	}
	k := 0
	if in[1].rank() > 0 {
		k = in[1].dims[in[1].rank()-1]
	}
	if k < 1 || k > v.rank() {
		n.failf("indices of shape %s for data of shape %s", shape(in[1].dims), shape(v.dims))
	}
	from := strides(v.dims)
	place := make([]int, len(index)/k)
	for i := range place {
		for d := range k {
			place[i] += n.at(index[i*k+d], v.dims[d]) * from[d]
		}
	}
	lead := in[1].dims[:in[1].rank()-1]
	return one(r.pick(n, v, slices.Concat(lead, v.dims[k:]), place, product(v.dims[k:])))
}
