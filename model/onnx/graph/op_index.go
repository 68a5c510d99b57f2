package graph

import (
	"cmp"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
)

// combiners are the reductions of ScatterElements and ScatterND, of an element that
// is there and one that comes.
var combiners = map[string]struct {
	floats func(x, y float64) float64
	ints   func(x, y int64) int64
}{
	"add": {add[float64], add[int64]},
	"mul": {func(x, y float64) float64 { return x * y }, func(x, y int64) int64 { return x * y }},
	"max": {larger[float64], larger[int64]},
	"min": {smaller[float64], smaller[int64]},
}

// scatter copies data to out and then puts blocks of the updates, in their order, to
// the places that place gives.
func (r *run) scatter(n *node, data, updates *value, count, block int, place func(i int) int) []*value {
	name := n.stringAttr("reduction", "none")
	combine, reduces := combiners[name]
	if data.kind != updates.kind || reduces && data.kind == bools {
		n.failf("data are %s and updates %s", data.kind, updates.kind)
	}
	out := r.newLike(n, data, data.dims)
	r.do(func() {
		if data.kind == floats {
			copy(out.host, data.host)
			from := updates.host
			for i := range count {
				to := out.host[place(i):][:block]
				for j, v := range from[i*block : (i+1)*block] {
					if reduces {
						v = simd.Narrow(combine.floats(float64(to[j]), float64(v)))
					}
					to[j] = v
				}
			}
			return
		}
		copy(out.ints, data.ints)
		for i := range count {
			to := out.ints[place(i):][:block]
			for j, v := range updates.ints[i*block : (i+1)*block] {
				if reduces {
					v = narrow(data.dtype, combine.ints(to[j], v))
				}
				to[j] = v
			}
		}
	})
	return one(out)
}

// runScatterElements is ScatterElements and its older name, Scatter.
func runScatterElements(r *run, n *node, in []*value) []*value {
	data, index, updates := in[0], in[1], in[2]
	n.wantInts(index, "the indices")
	axis := n.axis(n.intAttr("axis", 0), data.rank())
	ok := slices.Equal(index.dims, updates.dims) && index.rank() == data.rank()
	for i := 0; ok && i < data.rank(); i++ {
		ok = i == axis || index.dims[i] <= data.dims[i]
	}
	if !ok {
		n.failf("indices of shape %s and updates of shape %s for data of shape %s", shape(index.dims), shape(updates.dims), shape(data.dims))
	}
	base, step := n.places(r, index.dims, data.dims, axis)
	return r.scatter(n, data, updates, len(base), 1, func(i int) int {
		return base[i] + n.at(index.ints[i], data.dims[axis])*step
	})
}

// places returns, for each element of shape dims, its place in a larger shape with
// index 0 along an axis, and the stride of the axis.
func (n *node) places(r *run, dims, within []int, axis int) (base []int, step int) {
	to := strides(within)
	step, to[axis] = to[axis], 0
	base = make([]int, r.spend(n, dims))
	size, inner := last(dims, to)
	walk(dims, func(row int, at offsets) {
		for i := range size {
			base[row*size+i] = at[0] + i*inner
		}
	}, to)
	return base, step
}

// tuples checks indices of GatherND and ScatterND: their last dimension holds k
// indices into the dimensions of data after the first batch ones, which both have in
// common. It returns the number of tuples, the size of the block at each, and the
// place of the block of tuple i.
func (n *node) tuples(data, index *value, batch int) (count, k, block int, place func(i int) int) {
	n.wantInts(index, "the indices")
	q := index.rank() - 1
	if q < 0 || batch < 0 || batch > q || batch >= data.rank() || !slices.Equal(index.dims[:batch], data.dims[:batch]) ||
		index.dims[q] < 1 || index.dims[q] > data.rank()-batch {
		n.failf("indices of shape %s with %d common dimensions for data of shape %s", shape(index.dims), batch, shape(data.dims))
	}
	k = index.dims[q]
	count, block = product(index.dims[:q]), product(data.dims[batch+k:])
	from := strides(data.dims)
	each := max(product(index.dims[batch:q]), 1) // tuples of one batch
	whole := product(data.dims[batch:])
	return count, k, block, func(i int) int {
		p := i / each * whole
		for d, x := range index.ints[i*k : (i+1)*k] {
			p += n.at(x, data.dims[batch+d]) * from[batch+d]
		}
		return p
	}
}

func runScatterND(r *run, n *node, in []*value) []*value {
	data, index, updates := in[0], in[1], in[2]
	count, k, block, place := n.tuples(data, index, 0)
	if want := slices.Concat(index.dims[:index.rank()-1], data.dims[k:]); !slices.Equal(updates.dims, want) {
		n.failf("updates of shape %s, expected %s", shape(updates.dims), shape(want))
	}
	return r.scatter(n, data, updates, count, block, place)
}

func runGatherND(r *run, n *node, in []*value) []*value {
	data, index := in[0], in[1]
	batch := int(max(min(n.intAttr("batch_dims", 0), maxRank), -1))
	count, k, block, place := n.tuples(data, index, batch)
	out := r.newLike(n, data, slices.Concat(index.dims[:index.rank()-1], data.dims[batch+k:]))
	r.do(func() {
		for i := range count {
			p := place(i)
			if data.kind == floats {
				copy(out.host[i*block:(i+1)*block], data.host[p:])
			} else {
				copy(out.ints[i*block:(i+1)*block], data.ints[p:])
			}
		}
	})
	return one(out)
}

// runOneHot sets the places that the indices name to the second of two values; an
// index outside -depth to depth-1 names none.
func runOneHot(r *run, n *node, in []*value) []*value {
	index, depths, values := in[0], in[1], in[2]
	if depths.len() != 1 || values.len() != 2 || index.kind == bools {
		n.failf("needs indices, one depth and two values")
	}
	if depths.kind == floats {
		depths = r.cast(n, depths, typeInt64)
	}
	depth := n.size(r.fixed(n, depths, "the depth")[0], "the depth")
	axis := n.axis(n.intAttr("axis", -1), index.rank()+1)
	out := r.newLike(n, values, slices.Insert(slices.Clone(index.dims), axis, depth))
	after := product(index.dims[axis:])
	at := func(i int) int64 { return index.ints[i] }
	if index.kind == floats {
		at = func(i int) int64 { return int64(index.host[i]) }
	}
	r.do(func() {
		if values.kind == floats {
			oneHot(out.host, values.host, index.len(), depth, after, at)
		} else {
			oneHot(out.ints, values.ints, index.len(), depth, after, at)
		}
	})
	return one(out)
}

func oneHot[T any](dst, values []T, count, depth, after int, at func(i int) int64) {
	for i := range dst {
		dst[i] = values[0]
	}
	for i := range count {
		k := at(i)
		if k < 0 {
			k += int64(depth)
		}
		if k >= 0 && k < int64(depth) {
			dst[(i/after*depth+int(k))*after+i%after] = values[1]
		}
	}
}

// size converts an untrusted size.
func (n *node) size(x int64, what string) int {
	if x < 0 || x > maxElements {
		n.failf("%s is %d", what, x)
	}
	return int(x)
}

// runTrilu keeps the upper or the lower triangle of matrices.
func runTrilu(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.rank() < 2 || in[1] != nil && (in[1].kind != ints || in[1].len() != 1) {
		n.failf("needs matrices and one integer, got shape %s", shape(x.dims))
	}
	upper := n.intAttr("upper", 1) != 0
	rows, cols := x.dims[x.rank()-2], x.dims[x.rank()-1]
	out := r.newLike(n, x, x.dims)
	r.do(func() {
		k := int64(0)
		if in[1] != nil {
			k = min(max(in[1].ints[0], -maxElements), maxElements)
		}
		if x.kind == floats {
			triangle(out.host, x.host, rows, cols, k, upper)
		} else {
			triangle(out.ints, x.ints, rows, cols, k, upper)
		}
	})
	return one(out)
}

func triangle[T any](dst, src []T, rows, cols int, k int64, upper bool) {
	var zero T
	for i, v := range src {
		row, col := int64(i/cols%rows), int64(i%cols)
		if dst[i] = v; upper && col < row+k || !upper && col > row+k {
			dst[i] = zero
		}
	}
}

func runEyeLike(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.rank() != 2 {
		n.failf("needs a matrix, got shape %s", shape(x.dims))
	}
	dtype := n.intAttr("dtype", x.elementType())
	out := r.newTyped(n, dtype, x.dims)
	if out.len() == 0 {
		return one(out)
	}
	k := min(max(n.intAttr("k", 0), -maxElements), maxElements)
	r.do(func() {
		clear(out.host)
		clear(out.ints)
		for row := range int64(x.dims[0]) {
			if col := row + k; col >= 0 && col < int64(x.dims[1]) {
				if i := int(row)*x.dims[1] + int(col); out.kind == floats {
					out.host[i] = 1
				} else {
					out.ints[i] = 1
				}
			}
		}
	})
	return one(out)
}

// newTyped returns a value of an element type from a file.
func (r *run) newTyped(n *node, dtype int64, dims []int) *value {
	k, ok := kindOf(dtype)
	if !ok {
		n.failf("%s is not supported", typeName(dtype))
	}
	return r.newLike(n, &value{kind: k, dtype: dtype}, dims)
}

// count returns a number that f computes from elements, and which decides a shape.
func (r *run) count(n *node, what string, f func() int) int {
	v := r.newInts(n, typeInt64, []int{})
	r.do(func() { v.ints[0] = int64(f()) })
	return int(r.fixed(n, v, what)[0])
}

// zero reports whether element i is zero.
func (v *value) zero(i int) bool {
	if v.kind == floats {
		return v.host[i] == 0
	}
	return v.ints[i] == 0
}

func runNonZero(r *run, n *node, in []*value) []*value {
	x := in[0]
	count := r.count(n, "the number of elements that are not zero", func() (k int) {
		for i := range x.len() {
			if !x.zero(i) {
				k++
			}
		}
		return k
	})
	rank := max(x.rank(), 1)
	out := r.newInts(n, typeInt64, []int{rank, count})
	stride := append(strides(x.dims), 1)[:rank] // of a scalar: one index, 0
	r.do(func() {
		k := 0
		for i := range x.len() {
			if x.zero(i) {
				continue
			}
			rest := i
			for d, s := range stride {
				out.ints[d*count+k] = int64(rest / s)
				rest %= s
			}
			k++
		}
	})
	return one(out)
}

// runCompress keeps the slices along an axis, or the elements, that a list of
// booleans marks.
func runCompress(r *run, n *node, in []*value) []*value {
	x, marks := in[0], in[1]
	if marks.kind != bools || marks.rank() != 1 {
		n.failf("needs a list of booleans, got %s of shape %s", marks.kind, shape(marks.dims))
	}
	dims, axis := []int{x.len()}, 0
	if n.attrs["axis"] != nil {
		dims, axis = slices.Clone(x.dims), n.axis(n.intAttr("axis", 0), x.rank())
	}
	before, size, after := around(dims, axis)
	if marks.len() > size {
		n.failf("%d marks for %d elements", marks.len(), size)
	}
	kept := make([]int, marks.len())
	dims[axis] = r.count(n, "the number of marks", func() (k int) {
		for i, m := range marks.ints {
			if m != 0 {
				kept[k] = i
				k++
			}
		}
		return k
	})
	out := r.newLike(n, x, dims)
	if out.len() == 0 {
		return one(out)
	}
	r.do(func() {
		if x.kind == floats {
			takeSlices(out.host, x.host, kept[:dims[axis]], before, size, after)
		} else {
			takeSlices(out.ints, x.ints, kept[:dims[axis]], before, size, after)
		}
	})
	return one(out)
}

// takeSlices copies slices of src along the middle of three axes.
func takeSlices[T any](dst, src []T, which []int, before, size, after int) {
	for b := range before {
		for i, k := range which {
			copy(dst[(b*len(which)+i)*after:][:after], src[(b*size+k)*after:])
		}
	}
}

// runTopK returns the k largest or smallest elements along an axis, in order, and
// their indices; of equal ones the first comes first.
func runTopK(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind == bools {
		n.failf("its operand is booleans")
	}
	k := n.intAttr("k", -1)
	if n.opset >= 10 {
		if in[1] == nil || in[1].len() != 1 {
			n.failf("k must be one integer")
		}
		k = r.fixed(n, in[1], "k")[0]
	}
	axis := n.axis(n.intAttr("axis", -1), x.rank())
	before, size, after := around(x.dims, axis)
	if k < 0 || k > int64(size) {
		n.failf("the %d first of %d elements", k, size)
	}
	dims := slices.Clone(x.dims)
	dims[axis] = int(k)
	values, index := r.newLike(n, x, dims), r.newInts(n, typeInt64, dims)
	if values.len() == 0 {
		return []*value{values, index}
	}
	order := make([]int, size)
	largest := n.intAttr("largest", 1) != 0
	r.do(func() {
		if x.kind == floats {
			topK(values.host, index.ints, x.host, order, before, int(k), after, largest)
		} else {
			topK(values.ints, index.ints, x.ints, order, before, int(k), after, largest)
		}
	})
	return []*value{values, index}
}

func topK[T cmp.Ordered](values []T, index []int64, src []T, order []int, before, k, after int, largest bool) {
	size := len(order)
	for b := range before {
		for a := range after {
			for i := range order {
				order[i] = i
			}
			slices.SortFunc(order, func(i, j int) int {
				c := cmp.Compare(src[(b*size+i)*after+a], src[(b*size+j)*after+a])
				if largest {
					c = -c
				}
				return cmp.Or(c, i-j)
			})
			for i, from := range order[:k] {
				to := (b*k+i)*after + a
				values[to], index[to] = src[(b*size+from)*after+a], int64(from)
			}
		}
	}
}

// runUnique returns the distinct slices along an axis, or elements, sorted or in the
// order in which they first occur, where each occurs first, which one each slice is,
// and how often each occurs.
func runUnique(r *run, n *node, in []*value) []*value {
	x := in[0]
	dims, axis := []int{x.len()}, 0
	if n.attrs["axis"] != nil {
		dims, axis = slices.Clone(x.dims), n.axis(n.intAttr("axis", 0), x.rank())
	}
	before, size, after := around(dims, axis)
	if x.len() == 0 {
		n.failf("no elements of shape %s", shape(x.dims))
	}
	compare := func(i, j int) int {
		if x.kind == floats {
			return compareSlices(x.host, i, j, before, size, after)
		}
		return compareSlices(x.ints, i, j, before, size, after)
	}
	sorted := n.intAttr("sorted", 1) != 0
	order, first := make([]int, size), make([]int, size)
	inverse := r.newInts(n, typeInt64, []int{size})
	count := r.count(n, "the number of distinct elements", func() (k int) {
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(i, j int) int { return cmp.Or(compare(i, j), i-j) })
		for at, i := range order {
			if at == 0 || compare(order[at-1], i) != 0 {
				first[k] = i
				k++
			}
			inverse.ints[i] = int64(first[k-1])
		}
		if !sorted {
			slices.Sort(first[:k])
		}
		for place, f := range first[:k] {
			order[f] = place // of the slice that begins there
		}
		for i, f := range inverse.ints {
			inverse.ints[i] = int64(order[f])
		}
		return k
	})
	dims[axis] = count
	out, where, times := r.newLike(n, x, dims), r.newInts(n, typeInt64, []int{count}), r.newInts(n, typeInt64, []int{count})
	r.do(func() {
		if x.kind == floats {
			takeSlices(out.host, x.host, first[:count], before, size, after)
		} else {
			takeSlices(out.ints, x.ints, first[:count], before, size, after)
		}
		clear(times.ints)
		for i, f := range first[:count] {
			where.ints[i] = int64(f)
		}
		for _, k := range inverse.ints {
			times.ints[k]++
		}
	})
	return []*value{out, where, inverse, times}
}

func compareSlices[T cmp.Ordered](src []T, i, j, before, size, after int) int {
	for b := range before {
		if c := slices.Compare(src[(b*size+i)*after:][:after], src[(b*size+j)*after:][:after]); c != 0 {
			return c
		}
	}
	return 0
}

// runReverseSequence reverses the beginning of each sequence of a batch.
func runReverseSequence(r *run, n *node, in []*value) []*value {
	x, lengths := in[0], in[1]
	n.wantInts(lengths, "the lengths")
	batch, time := n.intAttr("batch_axis", 1), n.intAttr("time_axis", 0)
	if x.rank() < 2 || batch+time != 1 || batch*time != 0 || lengths.rank() != 1 || lengths.len() != x.dims[batch] {
		n.failf("%d lengths for shape %s, batch axis %d and time axis %d", lengths.len(), shape(x.dims), batch, time)
	}
	size, block := x.dims[time], product(x.dims[2:])
	out := r.newLike(n, x, x.dims)
	if out.len() == 0 {
		return one(out)
	}
	r.do(func() {
		for b, length := range lengths.ints {
			if length < 0 || length > int64(size) {
				n.failf("length %d of %d steps", length, size)
			}
			for t := range size {
				from := t
				if t < int(length) {
					from = int(length) - 1 - t
				}
				p, q := (t*x.dims[1]+b)*block, (from*x.dims[1]+b)*block
				if time == 1 {
					p, q = (b*size+t)*block, (b*size+from)*block
				}
				if x.kind == floats {
					copy(out.host[p:p+block], x.host[q:])
				} else {
					copy(out.ints[p:p+block], x.ints[q:])
				}
			}
		}
	})
	return one(out)
}

// runBlocks is SpaceToDepth and DepthToSpace: blocks of an image become channels, or
// channels become blocks.
func runBlocks(r *run, n *node, in []*value) []*value {
	x := in[0]
	side := n.intAttr("blocksize", 0)
	if x.rank() != 4 || side < 1 || side > 1<<15 {
		n.failf("shape %s and blocksize %d", shape(x.dims), side)
	}
	k := int(side)
	N, C, H, W := x.dims[0], x.dims[1], x.dims[2], x.dims[3]
	if n.op == "SpaceToDepth" {
		if H%k != 0 || W%k != 0 {
			n.failf("shape %s is not divided by blocksize %d", shape(x.dims), k)
		}
		perm := []int{0, 3, 5, 1, 2, 4}
		if n.stringAttr("mode", "DCR") == "CRD" {
			perm = []int{0, 1, 3, 5, 2, 4}
		}
		y := r.permuted(n, x, []int{N, C, H / k, k, W / k, k}, perm)
		return one(y.reshaped([]int{N, C * k * k, H / k, W / k}))
	}
	if C%(k*k) != 0 {
		n.failf("%d channels are not divided by blocksize %d", C, k)
	}
	split, perm := []int{N, k, k, C / (k * k), H, W}, []int{0, 3, 4, 1, 5, 2}
	if n.stringAttr("mode", "DCR") == "CRD" {
		split, perm = []int{N, C / (k * k), k, k, H, W}, []int{0, 1, 4, 2, 5, 3}
	}
	y := r.permuted(n, x, split, perm)
	return one(y.reshaped([]int{N, C / (k * k), H * k, W * k}))
}

// permuted views x in another shape and orders its axes.
func (r *run) permuted(n *node, x *value, split, perm []int) *value {
	from := strides(split)
	dims, stride := make([]int, len(perm)), make([]int, len(perm))
	for i, p := range perm {
		dims[i], stride[i] = split[p], from[p]
	}
	return r.view(n, x, dims, stride, 0)
}
