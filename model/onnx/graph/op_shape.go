package graph

import (
	"math"
	"path/filepath"
	"slices"
)

// axis converts an untrusted axis to an index into rank dimensions.
func (n *node) axis(a int64, rank int) int {
	if a < 0 {
		a += int64(rank)
	}
	if a < 0 || a >= int64(rank) {
		n.failf("axis %d of a tensor of %d dimensions", a, rank)
	}
	return int(a)
}

// around collapses a shape to [before, size of axis, after].
func around(dims []int, axis int) (before, size, after int) {
	return product(dims[:axis]), dims[axis], product(dims[axis+1:])
}

// strides of a dense shape.
func strides(dims []int) []int {
	s := make([]int, len(dims))
	n := 1
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = n
		n *= dims[i]
	}
	return s
}

// offsets are the places of a row under up to three strides.
type offsets [3]int

// walk calls visit with the offsets of each row (the last dimension) of a shape
// under several strides, in row-major order. An empty shape has no rows, a scalar
// one row of one element.
func walk(dims []int, visit func(row int, at offsets), strides ...[]int) {
	if product(dims) == 0 {
		return
	}
	outer := max(len(dims)-1, 0)
	var index [maxRank]int
	var at offsets
	for row := 0; ; row++ {
		visit(row, at)
		d := outer - 1
		for ; d >= 0; d-- {
			index[d]++
			for k, s := range strides {
				at[k] += s[d]
			}
			if index[d] < dims[d] {
				break
			}
			for k, s := range strides {
				at[k] -= s[d] * dims[d]
			}
			index[d] = 0
		}
		if d < 0 {
			return
		}
	}
}

// joined returns a shape and strides with adjacent axes joined where all strides
// pass through them as through one, so that rows are long.
func joined(dims []int, strides ...[]int) ([]int, [][]int) {
	shape, steps := []int{}, make([][]int, len(strides))
	for d, size := range dims {
		if size == 1 {
			continue
		}
		end := len(shape) - 1
		join := end >= 0
		for k, s := range strides {
			join = join && steps[k][end] == s[d]*size
		}
		if join {
			shape[end] *= size
		} else {
			shape, end = append(shape, size), end+1
		}
		for k, s := range strides {
			steps[k] = append(steps[k][:end], s[d])
		}
	}
	return shape, steps
}

// last returns a shape's row length and its stride.
func last(dims, stride []int) (n, step int) {
	if len(dims) == 0 {
		return 1, 0
	}
	return dims[len(dims)-1], stride[len(dims)-1]
}

// strided copies from src, begun at off, a dense block of shape dims.
func strided[T any](dst, src []T, dims, stride []int, off int) {
	n, step := last(dims, stride)
	walk(dims, func(row int, at offsets) {
		out := dst[row*n : row*n+n]
		p := off + at[0]
		if step == 1 {
			copy(out, src[p:])
			return
		}
		for i := range out {
			out[i] = src[p]
			p += step
		}
	}, stride)
}

// view makes a new value from the elements of v under other strides.
func (r *run) view(n *node, v *value, dims, stride []int, off int) *value {
	out := r.newLike(n, v, dims)
	dims, s := joined(dims, stride)
	r.do(func() {
		if v.kind == floats {
			strided(out.host, v.host, dims, s[0], off)
		} else {
			strided(out.ints, v.ints, dims, s[0], off)
		}
	})
	return out
}

// wantInts returns an operand that must be integers, such as a shape or indices.
func (n *node) wantInts(v *value, what string) []int64 {
	if v.kind == floats {
		n.failf("%s must be integers, got floats", what)
	}
	return v.ints
}

func runIdentity(_ *run, _ *node, in []*value) []*value { return one(in[0].reshaped(in[0].dims)) }

// runDropout returns its input, as at inference; the mask is all true.
func runDropout(r *run, n *node, in []*value) []*value {
	if in[2] != nil && in[2].kind != floats && in[2].len() == 1 && r.fixed(n, in[2], "the mode")[0] != 0 {
		n.failf("it is set to training mode; export the model for inference")
	}
	out := one(in[0].reshaped(in[0].dims))
	if len(n.out) > 1 && n.out[1] >= 0 {
		r.varies = false
		mask := r.newInts(n, typeBool, in[0].dims)
		for i := range mask.ints {
			mask.ints[i] = 1
		}
		out = append(out, mask)
	}
	return out
}

func prepareConstant(m *Model, n *node) any {
	v := &value{}
	for name, a := range n.attrs {
		switch name {
		case "value":
			if a.tensor == nil {
				n.failf("attribute value holds no tensor")
			}
			if _, ok := kindOf(a.tensor.dtype); !ok {
				m.refused.add("type "+typeName(a.tensor.dtype), n.place())
				return v
			}
			var problem string
			if v, problem = a.tensor.constant(filepath.Dir(m.path)); problem != "" {
				n.failf("attribute value: %s", problem)
			}
		case "value_float":
			v = &value{kind: floats, host: []float32{a.f}}
		case "value_floats":
			v = &value{kind: floats, dims: []int{len(a.floats)}, host: a.floats}
		case "value_int":
			v = &value{kind: ints, dtype: typeInt64, ints: []int64{a.i}}
		case "value_ints":
			v = &value{kind: ints, dtype: typeInt64, dims: []int{len(a.ints)}, ints: a.ints}
		default:
			n.failf("attribute %s is not supported", clip(name))
		}
	}
	if len(n.attrs) != 1 {
		n.failf("expected one attribute, got %d", len(n.attrs))
	}
	if n.out[0] >= 0 { // the nodes after it see a constant
		m.constants[n.out[0]] = v
		if a := n.attrs["value"]; a != nil {
			m.weights.store(n.out[0], a.tensor, v)
		}
	}
	return v
}

func runConstant(_ *run, n *node, _ []*value) []*value {
	return one(n.prepared.(*value))
}

func prepareFill(m *Model, n *node) any {
	a := n.attr("value", attrTensor)
	if a == nil {
		return &value{kind: floats, dims: []int{1}, host: []float32{0}}
	}
	if a.tensor == nil {
		n.failf("attribute value holds no tensor")
	}
	v, problem := a.tensor.constant(filepath.Dir(m.path))
	if problem == "" && v.len() != 1 {
		problem = "expected one element"
	}
	if problem != "" {
		n.failf("attribute value: %s", problem)
	}
	return v
}

func runConstantOfShape(r *run, n *node, in []*value) []*value {
	dims := r.shapeFrom(n, in[0])
	r.varies = false
	return one(r.view(n, n.prepared.(*value), dims, make([]int, len(dims)), 0))
}

// shapeFrom reads a shape from a tensor of integers.
func (r *run) shapeFrom(n *node, v *value) []int {
	list := r.fixed(n, v, "a shape")
	if len(list) > maxRank {
		n.failf("a shape of %d dimensions; at most %d are supported", len(list), maxRank)
	}
	dims := make([]int, len(list))
	for i, d := range list {
		if d < 0 || d > math.MaxInt32 {
			n.failf("dimension %d of a shape is %d", i, d)
		}
		dims[i] = int(d)
	}
	return dims
}

func runShape(r *run, n *node, in []*value) []*value {
	dims := in[0].dims
	lo, hi := clampRange(n.intAttr("start", 0), n.intAttr("end", int64(len(dims))), len(dims))
	r.varies = false // shapes are those of the recording
	out := r.newInts(n, typeInt64, []int{hi - lo})
	for i := range out.ints {
		out.ints[i] = int64(dims[lo+i])
	}
	return one(out)
}

func clampRange(lo, hi int64, size int) (int, int) {
	clamp := func(i int64) int {
		if i < 0 {
			i += int64(size)
		}
		return int(min(max(i, 0), int64(size)))
	}
	l, h := clamp(lo), clamp(hi)
	return l, max(l, h)
}

func runSize(r *run, n *node, in []*value) []*value {
	r.varies = false
	out := r.newInts(n, typeInt64, []int{})
	out.ints[0] = int64(in[0].len())
	return one(out)
}

func runReshape(r *run, n *node, in []*value) []*value {
	want := r.fixed(n, in[1], "the shape")
	if len(want) > maxRank {
		n.failf("a shape of %d dimensions; at most %d are supported", len(want), maxRank)
	}
	dims := make([]int, len(want))
	open, known := -1, 1
	for i, d := range want {
		switch {
		case d == -1 && open < 0:
			open = i
			continue
		case d == 0 && n.intAttr("allowzero", 0) == 0:
			if i >= in[0].rank() {
				n.failf("dimension %d is to be copied from shape %s", i, shape(in[0].dims))
			}
			d = int64(in[0].dims[i])
		case d < 0 || d > math.MaxInt32:
			n.failf("dimension %d of the shape is %d", i, d)
		}
		dims[i] = int(d)
		if known *= int(d); known > math.MaxInt32 {
			n.failf("shape %v does not fit %s", want, shape(in[0].dims))
		}
	}
	size := in[0].len()
	if open >= 0 && known > 0 {
		dims[open] = size / known
		known *= dims[open]
	}
	if known != size {
		n.failf("shape %v does not fit %s", want, shape(in[0].dims))
	}
	return one(in[0].reshaped(dims))
}

func runFlatten(_ *run, n *node, in []*value) []*value {
	a := n.intAttr("axis", 1)
	if a != int64(in[0].rank()) { // the end is allowed too
		a = int64(n.axis(a, in[0].rank()))
	}
	return one(in[0].reshaped([]int{product(in[0].dims[:a]), product(in[0].dims[a:])}))
}

// axes returns an operator's list of axes: an input since an operator set, before
// that an attribute; nil if none is given.
func (r *run) axes(n *node, in []*value, at, since int) []int64 {
	if n.opset < since {
		return n.intsAttr("axes")
	}
	if at < len(in) && in[at] != nil {
		return r.fixed(n, in[at], "the axes")
	}
	return nil
}

func runSqueeze(r *run, n *node, in []*value) []*value {
	drop := make([]bool, in[0].rank())
	axes := r.axes(n, in, 1, 13)
	for _, a := range axes {
		i := n.axis(a, len(drop))
		if in[0].dims[i] != 1 {
			n.failf("axis %d of shape %s is not 1", a, shape(in[0].dims))
		}
		drop[i] = true
	}
	dims := []int{}
	for i, d := range in[0].dims {
		if !drop[i] && (axes != nil || d != 1) {
			dims = append(dims, d)
		}
	}
	return one(in[0].reshaped(dims))
}

func runUnsqueeze(r *run, n *node, in []*value) []*value {
	axes := r.axes(n, in, 1, 13)
	rank := in[0].rank() + len(axes)
	if rank > maxRank {
		n.failf("a result of %d dimensions; at most %d are supported", rank, maxRank)
	}
	dims := make([]int, rank)
	for _, a := range axes {
		i := n.axis(a, rank)
		if dims[i] == 1 {
			n.failf("axis %d is given twice", a)
		}
		dims[i] = 1
	}
	next := in[0].dims
	for i := range dims {
		if dims[i] == 0 {
			dims[i], next = next[0], next[1:]
		}
	}
	return one(in[0].reshaped(dims))
}

func runTranspose(r *run, n *node, in []*value) []*value {
	x := in[0]
	perm := n.intsAttr("perm")
	if perm == nil {
		for i := range x.rank() {
			perm = append(perm, int64(x.rank()-1-i))
		}
	}
	if len(perm) != x.rank() {
		n.failf("perm %v does not fit shape %s", perm, shape(x.dims))
	}
	dims, stride, from := make([]int, len(perm)), make([]int, len(perm)), strides(x.dims)
	seen := make([]bool, len(perm))
	moved := false
	for i, p := range perm {
		a := n.axis(p, len(perm))
		if seen[a] {
			n.failf("perm %v names an axis twice", perm)
		}
		seen[a] = true
		dims[i], stride[i] = x.dims[a], from[a]
		moved = moved || a != i
	}
	if !moved {
		return one(x.reshaped(dims))
	}
	return one(r.view(n, x, dims, stride, 0))
}

// broadcast returns the common shape of two, by the rules of NumPy.
func (n *node) broadcast(a, b []int) []int {
	out := make([]int, max(len(a), len(b)))
	for i := range out {
		da, db := 1, 1
		if j := i - len(out) + len(a); j >= 0 {
			da = a[j]
		}
		if j := i - len(out) + len(b); j >= 0 {
			db = b[j]
		}
		if da != db && da != 1 && db != 1 {
			n.failf("shapes %s and %s do not fit together", shape(a), shape(b))
		}
		out[i] = da
		if da == 1 {
			out[i] = db
		}
	}
	return out
}

// stretched returns the strides of a shape that is broadcast to a larger one.
func stretched(dims, to []int) []int {
	s := make([]int, len(to))
	own := strides(dims)
	for i := range dims {
		if dims[i] != 1 {
			s[len(to)-len(dims)+i] = own[i]
		}
	}
	return s
}

func runExpand(r *run, n *node, in []*value) []*value {
	dims := n.broadcast(in[0].dims, r.shapeFrom(n, in[1]))
	if slices.Equal(dims, in[0].dims) {
		return one(in[0].reshaped(dims))
	}
	return one(r.view(n, in[0], dims, stretched(in[0].dims, dims), 0))
}

func runTile(r *run, n *node, in []*value) []*value {
	times := r.shapeFrom(n, in[1])
	if len(times) != in[0].rank() {
		n.failf("%d repeats for shape %s", len(times), shape(in[0].dims))
	}
	v := in[0]
	for axis, k := range times { // one axis at a time: [before, k, size] from [before, size]
		before, size, after := around(v.dims, axis)
		if size > 0 && k > math.MaxInt32/size {
			n.failf("%d repeats of axis %d of shape %s", k, axis, shape(v.dims))
		}
		dims := slices.Clone(v.dims)
		dims[axis] = size * k
		v = r.view(n, v, []int{before, k, size * after}, []int{size * after, 0, 1}, 0).reshaped(dims)
	}
	return one(v.reshaped(v.dims))
}

func runConcat(r *run, n *node, in []*value) []*value {
	if n.attrs["axis"] == nil {
		n.failf("attribute axis is missing")
	}
	first := in[0]
	axis := n.axis(n.intAttr("axis", 0), first.rank())
	dims := slices.Clone(first.dims)
	dims[axis] = 0
	for _, v := range in {
		ok := v != nil && v.rank() == len(dims) && v.kind == first.kind
		for i := 0; ok && i < len(dims); i++ {
			ok = i == axis || v.dims[i] == dims[i]
		}
		if !ok {
			n.failf("its inputs differ in more than axis %d", axis)
		}
		dims[axis] += v.dims[axis]
	}
	out := r.newLike(n, first, dims)
	r.do(func() {
		if first.kind == floats {
			join(out.host, dims, axis, in, (*value).floats)
		} else {
			join(out.ints, dims, axis, in, func(v *value) []int64 { return v.ints })
		}
	})
	return one(out)
}

func join[T any](dst []T, dims []int, axis int, in []*value, data func(*value) []T) {
	before, size, after := around(dims, axis)
	at := 0
	for _, v := range in {
		n := v.dims[axis] * after
		for b := range before {
			copy(dst[b*size*after+at:], data(v)[b*n:(b+1)*n])
		}
		at += n
	}
}

// cut returns v[..., lo:hi, ...] along an axis.
func (r *run) cut(n *node, v *value, axis, lo, hi int) *value {
	dims := slices.Clone(v.dims)
	before, size, after := around(v.dims, axis)
	dims[axis] = hi - lo
	if lo == 0 && hi == size {
		return v.reshaped(dims)
	}
	if before == 1 {
		return v.part(dims, lo*after)
	}
	return r.view(n, v, []int{before, (hi - lo) * after}, []int{size * after, 1}, lo*after).reshaped(dims)
}

func runSplit(r *run, n *node, in []*value) []*value {
	v := in[0]
	axis := n.axis(n.intAttr("axis", 0), v.rank())
	size, parts := v.dims[axis], len(n.out)
	sizes := n.intsAttr("split")
	if n.opset >= 13 {
		sizes = nil
		if in[1] != nil {
			sizes = r.fixed(n, in[1], "the sizes")
		}
	}
	if sizes == nil {
		each := (size + parts - 1) / parts
		for i := range parts {
			sizes = append(sizes, int64(max(0, min(each, size-i*each))))
		}
	}
	if len(sizes) != parts {
		n.failf("%d sizes for %d outputs", len(sizes), parts)
	}
	out := make([]*value, parts)
	at := 0
	for i, s := range sizes {
		if s < 0 || s > int64(size-at) {
			n.failf("sizes %v do not fit axis %d of shape %s", sizes[:min(len(sizes), 16)], axis, shape(v.dims))
		}
		out[i] = r.cut(n, v, axis, at, at+int(s))
		at += int(s)
	}
	if at != size {
		n.failf("sizes %v do not fit axis %d of shape %s", sizes[:min(len(sizes), 16)], axis, shape(v.dims))
	}
	return out
}

func runSlice(r *run, n *node, in []*value) []*value {
	var starts, ends, axes, steps []int64
	if n.opset < 10 {
		starts, ends, axes = n.intsAttr("starts"), n.intsAttr("ends"), n.intsAttr("axes")
	} else {
		list := func(i int, what string) []int64 {
			if in[i] == nil {
				return nil
			}
			return r.fixed(n, in[i], what)
		}
		starts, ends, axes, steps = list(1, "starts"), list(2, "ends"), list(3, "axes"), list(4, "steps")
	}
	v := in[0]
	if len(ends) != len(starts) || axes != nil && len(axes) != len(starts) || steps != nil && len(steps) != len(starts) || len(starts) > v.rank() {
		n.failf("%d starts, %d ends, %d axes and %d steps for shape %s", len(starts), len(ends), len(axes), len(steps), shape(v.dims))
	}
	for i := range starts {
		axis, step := i, int64(1)
		if axes != nil {
			axis = n.axis(axes[i], v.rank())
		}
		if steps != nil {
			step = steps[i]
		}
		if step == 1 {
			lo, hi := clampRange(starts[i], ends[i], v.dims[axis])
			v = r.cut(n, v, axis, lo, hi)
			continue
		}
		v = r.stride(n, v, axis, starts[i], ends[i], step)
	}
	return one(v.reshaped(v.dims))
}

// stride returns a slice with a step other than 1, by the rules of NumPy.
func (r *run) stride(n *node, v *value, axis int, start, end, step int64) *value {
	size := int64(v.dims[axis])
	if step == 0 || step == math.MinInt64 {
		n.failf("a step of %d", step)
	}
	bound := func(i, lo, hi int64) int64 {
		if i < 0 {
			i += size
		}
		return min(max(i, lo), hi)
	}
	from, to := bound(start, 0, size), bound(end, 0, size)
	if step < 0 { // the standard clamps a start before the first element to it
		from, to = bound(start, 0, size-1), bound(end, -1, size-1)
	}
	count := int64(0)
	if step > 0 && to > from {
		count = (to-from-1)/step + 1
	} else if step < 0 && from > to {
		count = (from-to-1)/(-step) + 1
	}
	before, _, after := around(v.dims, axis)
	dims := slices.Clone(v.dims)
	dims[axis] = int(count)
	if count == 0 {
		from, step = 0, 0
	} else if count == 1 {
		step = 0
	}
	return r.view(n, v, []int{before, int(count), after}, []int{int(size) * after, int(step) * after, 1}, int(from)*after).reshaped(dims)
}
