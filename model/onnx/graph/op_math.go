package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// binaryOp is an arithmetic operator: on the tape if the second shape is the end
// of the first, otherwise on the host.
type binaryOp struct {
	tensor  func(x, y *tensor.Tensor) *tensor.Tensor // nil: none
	commute bool
	floats  func(n *node, x, y float64) float64 // of two float32; the result is flushed and narrowed
	ints    func(n *node, x, y int64) int64
}

var binaryOps = map[string]*binaryOp{
	"Add": {tensor.Add, true, func(_ *node, x, y float64) float64 { return x + y }, func(_ *node, x, y int64) int64 { return x + y }},
	"Sub": {tensor.Sub, false, func(_ *node, x, y float64) float64 { return x - y }, func(_ *node, x, y int64) int64 { return x - y }},
	"Mul": {tensor.Mul, true, func(_ *node, x, y float64) float64 { return x * y }, func(_ *node, x, y int64) int64 { return x * y }},
	"Div": {tensor.Div, false, func(_ *node, x, y float64) float64 { return x / y }, divide},
	"Mod": {nil, false, modulo, moduloInts},
	"Pow": {nil, false, func(_ *node, x, y float64) float64 { return power(x, y) }, func(_ *node, x, y int64) int64 { return int64(math.Pow(float64(x), float64(y))) }},
}

func divide(n *node, x, y int64) int64 {
	if y == 0 {
		n.failf("division of integers by zero")
	}
	return x / y
}

// power is math.Pow, with a zero of its sign for results that are subnormal in
// float64.
func power(x, y float64) float64 {
	if e := y * math.Log2(math.Abs(x)); e < -200 && !math.IsInf(e, -1) {
		return 0 * math.Pow(math.Copysign(1, x), y) // not a number for a root of a negative one
	}
	return math.Pow(x, y)
}

// modulo and moduloInts have the sign of the divisor, as in Python, or with fmod
// that of the dividend, as in C.
func modulo(n *node, x, y float64) float64 {
	m := math.Mod(x, y)
	if n.intAttr("fmod", 0) == 0 && m != 0 && (m < 0) != (y < 0) {
		m += y
	}
	return m
}

func moduloInts(n *node, x, y int64) int64 {
	if y == 0 {
		n.failf("division of integers by zero")
	}
	m := x % y
	if n.intAttr("fmod", 0) == 0 && m != 0 && (m < 0) != (y < 0) {
		m += y
	}
	return m
}

// zip combines two operands, broadcast to shape dims, element by element.
func zip[A, B, C any](dst []C, dims []int, x []A, xs []int, y []B, ys []int, f func(A, B) C) {
	n, sx := last(dims, xs)
	_, sy := last(dims, ys)
	walk(dims, func(row int, at []int) {
		i, j := at[0], at[1]
		for k := range dst[row*n : row*n+n] {
			dst[row*n+k] = f(x[i], y[j])
			i, j = i+sx, j+sy
		}
	}, xs, ys)
}

func runBinary(r *run, n *node, in []*value) []*value {
	op := binaryOps[n.op]
	x, y := in[0], in[1]
	if x.kind != y.kind && n.op == "Pow" { // the exponent may be of another type
		y = r.cast(n, y, x.elementType())
	}
	if x.kind != y.kind || x.kind == bools {
		n.failf("operands are %s and %s", x.kind, y.kind)
	}
	dims := n.broadcast(x.dims, y.dims)
	xs, ys := stretched(x.dims, dims), stretched(y.dims, dims)
	if x.kind == ints {
		out := r.newInts(n, x.dtype, dims)
		zip(out.ints, dims, x.ints, xs, y.ints, ys, func(a, b int64) int64 { return op.ints(n, a, b) })
		return one(out)
	}
	if op.commute && x.len() < y.len() {
		x, y, xs, ys = y, x, ys, xs
	}
	if size := y.len(); op.tensor != nil && size > 0 && x.len() == product(dims) && ends(dims, y.dims) {
		r.spend(n, dims)
		return one(result(op.tensor(r.tensor(x, x.len()/size, size), r.tensor(y, size)), dims))
	}
	out := r.newFloats(n, dims)
	zip(out.host, dims, x.floats(), xs, y.floats(), ys, func(a, b float32) float32 {
		return simd.Narrow(op.floats(n, float64(a), float64(b)))
	})
	return one(out)
}

// ends reports whether a shape without its leading ones is the end of another.
func ends(dims, tail []int) bool {
	for len(tail) > 0 && tail[0] == 1 {
		tail = tail[1:]
	}
	return len(tail) <= len(dims) && slices.Equal(dims[len(dims)-len(tail):], tail)
}

// compareOps are on three-way comparisons; NaN compares false.
var compareOps = map[string]struct {
	floats func(x, y float32) bool
	ints   func(x, y int64) bool
}{
	"Equal":          {func(x, y float32) bool { return x == y }, func(x, y int64) bool { return x == y }},
	"Greater":        {func(x, y float32) bool { return x > y }, func(x, y int64) bool { return x > y }},
	"GreaterOrEqual": {func(x, y float32) bool { return x >= y }, func(x, y int64) bool { return x >= y }},
	"Less":           {func(x, y float32) bool { return x < y }, func(x, y int64) bool { return x < y }},
	"LessOrEqual":    {func(x, y float32) bool { return x <= y }, func(x, y int64) bool { return x <= y }},
	"And":            {nil, func(x, y int64) bool { return x&y != 0 }},
	"Or":             {nil, func(x, y int64) bool { return x|y != 0 }},
	"Xor":            {nil, func(x, y int64) bool { return x != y }},
}

func runCompare(r *run, n *node, in []*value) []*value {
	op := compareOps[n.op]
	x, y := in[0], in[1]
	if x.kind != y.kind || op.floats == nil && x.kind != bools {
		n.failf("operands are %s and %s", x.kind, y.kind)
	}
	dims := n.broadcast(x.dims, y.dims)
	xs, ys := stretched(x.dims, dims), stretched(y.dims, dims)
	out := r.newInts(n, typeBool, dims)
	if x.kind == floats {
		zip(out.ints, dims, x.floats(), xs, y.floats(), ys, func(a, b float32) int64 { return truth(op.floats(a, b)) })
	} else {
		zip(out.ints, dims, x.ints, xs, y.ints, ys, func(a, b int64) int64 { return truth(op.ints(a, b)) })
	}
	return one(out)
}

func runNot(r *run, n *node, in []*value) []*value {
	if in[0].kind != bools {
		n.failf("its operand is %s", in[0].kind)
	}
	out := r.newInts(n, typeBool, in[0].dims)
	for i, x := range in[0].ints {
		out.ints[i] = 1 - x
	}
	return one(out)
}

func runWhere(r *run, n *node, in []*value) []*value {
	c, x, y := in[0], in[1], in[2]
	if c.kind != bools || x.kind != y.kind {
		n.failf("operands are %s, %s and %s", c.kind, x.kind, y.kind)
	}
	dims := n.broadcast(n.broadcast(c.dims, x.dims), y.dims)
	mask := r.view(n, c, dims, stretched(c.dims, dims), 0)
	out := r.view(n, x, dims, stretched(x.dims, dims), 0)
	other := r.view(n, y, dims, stretched(y.dims, dims), 0)
	for i, take := range mask.ints {
		if take != 0 {
			continue
		}
		if x.kind == floats {
			out.host[i] = other.host[i]
		} else {
			out.ints[i] = other.ints[i]
		}
	}
	return one(out)
}

// unaryOps are elementwise functions of one number: on the tape, or on the host.
var unaryOps = map[string]struct {
	tensor func(x *tensor.Tensor) *tensor.Tensor
	host   func(n *node, x float64) float64
}{
	"Relu":       {tensor: tensor.ReLU},
	"Sigmoid":    {tensor: tensor.Sigmoid},
	"Tanh":       {tensor: tensor.Tanh},
	"Exp":        {tensor: tensor.Exp},
	"Log":        {tensor: tensor.Log},
	"Softplus":   {tensor: tensor.Softplus},
	"Neg":        {tensor: func(x *tensor.Tensor) *tensor.Tensor { return tensor.MulScalar(x, -1) }},
	"Abs":        {host: func(_ *node, x float64) float64 { return math.Abs(x) }},
	"Sqrt":       {host: func(_ *node, x float64) float64 { return math.Sqrt(x) }},
	"Reciprocal": {host: func(_ *node, x float64) float64 { return 1 / x }},
	"Floor":      {host: func(_ *node, x float64) float64 { return math.Floor(x) }},
	"Ceil":       {host: func(_ *node, x float64) float64 { return math.Ceil(x) }},
	"Erf":        {host: func(_ *node, x float64) float64 { return math.Erf(x) }},
	"Softsign":   {host: func(_ *node, x float64) float64 { return softsign(x, 0, 0) }},
	"Elu":        {host: func(n *node, x float64) float64 { return elu(x, n.alpha(1), 0) }},
	"LeakyRelu":  {host: func(n *node, x float64) float64 { return leakyReLU(x, n.alpha(0.01), 0) }},
	"HardSigmoid": {host: func(n *node, x float64) float64 {
		return hardSigmoid(x, n.alpha(0.2), float64(n.floatAttr("beta", 0.5)))
	}},
}

func (n *node) alpha(def float32) float64 { return float64(n.floatAttr("alpha", def)) }

func runUnary(r *run, n *node, in []*value) []*value {
	op, x := unaryOps[n.op], in[0]
	switch {
	case x.kind == ints && (n.op == "Neg" || n.op == "Abs"):
		out := r.newInts(n, x.dtype, x.dims)
		for i, v := range x.ints {
			if n.op == "Neg" || v < 0 {
				v = -v
			}
			out.ints[i] = v
		}
		return one(out)
	case x.kind != floats:
		n.failf("its operand is %s", x.kind)
	case x.len() == 0:
		return one(x.reshaped(x.dims))
	case op.tensor != nil:
		r.spend(n, x.dims)
		return one(result(op.tensor(r.tensor(x, x.len())), x.dims))
	}
	out := r.newFloats(n, x.dims)
	for i, v := range x.floats() {
		out.host[i] = simd.Narrow(op.host(n, float64(v)))
	}
	return one(out)
}

func runMinMax(r *run, n *node, in []*value) []*value {
	acc := in[0]
	for _, v := range in[1:] {
		if v == nil || v.kind != acc.kind || v.kind == bools {
			n.failf("operands are of different types")
		}
		dims := n.broadcast(acc.dims, v.dims)
		xs, ys := stretched(acc.dims, dims), stretched(v.dims, dims)
		if v.kind == floats {
			out := r.newFloats(n, dims)
			zip(out.host, dims, acc.floats(), xs, v.floats(), ys, func(a, b float32) float32 {
				if n.op == "Max" {
					return max(a, b)
				}
				return min(a, b)
			})
			acc = out
			continue
		}
		out := r.newInts(n, acc.dtype, dims)
		zip(out.ints, dims, acc.ints, xs, v.ints, ys, func(a, b int64) int64 {
			if n.op == "Max" {
				return max(a, b)
			}
			return min(a, b)
		})
		acc = out
	}
	return one(acc.reshaped(acc.dims))
}

func runClip(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind != floats {
		n.failf("its operand is %s", x.kind)
	}
	lo, hi := n.floatAttr("min", -math.MaxFloat32), n.floatAttr("max", math.MaxFloat32)
	for i, bound := range []*float32{&lo, &hi} {
		if v := in[1+i]; v != nil {
			if v.kind != floats || v.len() != 1 {
				n.failf("a bound must be one float")
			}
			*bound = v.floats()[0]
		}
	}
	out := r.newFloats(n, x.dims)
	for i, v := range x.floats() {
		out.host[i] = min(max(v, lo), hi)
	}
	return one(out)
}

// cast changes the kind; dtype says to which width of integers.
func (r *run) cast(n *node, v *value, dtype int64) *value {
	to, _ := kindOf(dtype)
	if to == floats {
		if v.kind == floats {
			return v.reshaped(v.dims)
		}
		out := r.newFloats(n, v.dims)
		for i, x := range v.ints {
			out.host[i] = float32(x)
		}
		return out
	}
	out := r.newInts(n, dtype, v.dims)
	for i := range out.ints {
		switch {
		case v.kind == floats && to == bools:
			out.ints[i] = truth(v.floats()[i] != 0)
		case v.kind == floats:
			out.ints[i] = narrow(dtype, int64(v.floats()[i]))
		case to == bools:
			out.ints[i] = truth(v.ints[i] != 0)
		default:
			out.ints[i] = narrow(dtype, v.ints[i])
		}
	}
	return out
}

func runCast(r *run, n *node, in []*value) []*value {
	to := n.intAttr("to", 0)
	if _, ok := kindOf(to); !ok {
		n.failf("to %s is not supported", typeName(to))
	}
	return one(r.cast(n, in[0], to))
}

func runCastLike(r *run, n *node, in []*value) []*value {
	return one(r.cast(n, in[0], in[1].elementType()))
}

func runRange(r *run, n *node, in []*value) []*value {
	var bounds [3]float64
	for i, v := range in {
		switch {
		case v.kind != in[0].kind || v.kind == bools || v.len() != 1:
			n.failf("needs three numbers of one type")
		case v.kind == floats:
			bounds[i] = float64(v.floats()[0])
		default:
			bounds[i] = float64(v.ints[0])
		}
	}
	count := math.Max(0, math.Ceil((bounds[1]-bounds[0])/bounds[2]))
	if bounds[2] == 0 || !(count <= math.MaxInt32) {
		n.failf("from %v to %v in steps of %v", bounds[0], bounds[1], bounds[2])
	}
	if in[0].kind == floats {
		out := r.newFloats(n, []int{int(count)})
		for i := range out.host {
			out.host[i] = simd.Narrow(bounds[0] + float64(i)*bounds[2])
		}
		return one(out)
	}
	out := r.newInts(n, in[0].dtype, []int{int(count)})
	for i := range out.ints {
		out.ints[i] = in[0].ints[0] + int64(i)*in[2].ints[0]
	}
	return one(out)
}

// runReduce is the mean, sum, maximum or minimum over axes.
func runReduce(r *run, n *node, in []*value) []*value {
	since := 18
	if n.op == "ReduceSum" {
		since = 13
	}
	x, axes := in[0], n.axes(in, 1, since)
	if len(axes) == 0 && n.intAttr("noop_with_empty_axes", 0) != 0 {
		return one(x.reshaped(x.dims))
	}
	over := make([]bool, x.rank())
	for _, a := range axes {
		over[n.axis(a, x.rank())] = true
	}
	dims, kept, to := []int{}, []int{}, make([]int, x.rank())
	count := 1
	for i, d := range x.dims {
		if over[i] || len(axes) == 0 {
			over[i] = true
			count *= d
			kept = append(kept, 1)
		} else {
			dims, kept = append(dims, d), append(kept, d)
		}
	}
	if n.intAttr("keepdims", 1) != 0 {
		dims = kept
	}
	for i, s := range strides(kept) {
		if !over[i] {
			to[i] = s
		}
	}
	if count == 0 && n.op != "ReduceSum" {
		n.failf("over no elements of shape %s", shape(x.dims))
	}
	if x.kind != floats {
		return one(r.reduceInts(n, x, dims, to, count))
	}
	out := r.newFloats(n, dims)
	sums := make([]float64, len(out.host))
	fold(sums, x.floats(), x.dims, to, n.op)
	for i, s := range sums {
		if n.op == "ReduceMean" {
			s /= float64(count)
		}
		out.host[i] = simd.Narrow(s)
	}
	return one(out)
}

func (r *run) reduceInts(n *node, x *value, dims, to []int, count int) *value {
	out := r.newInts(n, x.dtype, dims)
	fold(out.ints, x.ints, x.dims, to, n.op)
	if n.op == "ReduceMean" {
		for i := range out.ints {
			out.ints[i] /= int64(count)
		}
	}
	return out
}

// fold combines the elements of src into dst at the places that the strides to give.
func fold[A int64 | float64, B int64 | float32](dst []A, src []B, dims, to []int, op string) {
	begun := make([]bool, len(dst))
	n, step := last(dims, to)
	walk(dims, func(row int, at []int) {
		p := at[0]
		for _, v := range src[row*n : row*n+n] {
			x := A(v)
			switch {
			case !begun[p]:
				dst[p], begun[p] = x, true
			case op == "ReduceMax":
				dst[p] = max(dst[p], x)
			case op == "ReduceMin":
				dst[p] = min(dst[p], x)
			default:
				dst[p] += x
			}
			p += step
		}
	}, to)
}

// runArg returns the index of the maximum or minimum along an axis: the first of
// equal ones by default.
func runArg(r *run, n *node, in []*value) []*value {
	x := in[0]
	axis := n.axis(n.intAttr("axis", 0), x.rank())
	before, size, after := around(x.dims, axis)
	dims := slices.Clone(x.dims)
	dims[axis] = 1
	if n.intAttr("keepdims", 1) == 0 {
		dims = slices.Delete(dims, axis, axis+1)
	}
	if size == 0 {
		n.failf("over no elements of shape %s", shape(x.dims))
	}
	at := func(i int) float64 { return float64(x.ints[i]) }
	if x.kind == floats {
		data := x.floats()
		at = func(i int) float64 { return float64(data[i]) }
	}
	final := n.intAttr("select_last_index", 0) != 0
	out := r.newInts(n, typeInt64, dims)
	for b := range before {
		for a := range after {
			best, where := at(b*size*after+a), 0
			for i := 1; i < size; i++ {
				v := at((b*size+i)*after + a)
				if n.op == "ArgMin" && v < best || n.op == "ArgMax" && v > best || final && v == best {
					best, where = v, i
				}
			}
			out.ints[b*after+a] = int64(where)
		}
	}
	return one(out)
}
