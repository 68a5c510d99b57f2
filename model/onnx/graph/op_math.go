package graph

import (
	"math"

	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/internal/simd"
)

// binaryOp is an arithmetic operator.
type binaryOp struct {
	rows    func(s *simd.Set, z, x, y []float32)         // of rows; nil: element by element
	row     func(s *simd.Set, z, x []float32, y float32) // of a row and a number; nil likewise
	commute bool
	floats  func(n *node, x, y float64) float64 // of two float32; the result is flushed and narrowed
	ints    func(n *node, x, y int64) int64
}

var binaryOps = map[string]*binaryOp{
	"Add": {func(s *simd.Set, z, x, y []float32) { s.Add(z, x, y) }, func(s *simd.Set, z, x []float32, y float32) { s.Shift(y, z, x) }, true,
		func(_ *node, x, y float64) float64 { return x + y }, func(_ *node, x, y int64) int64 { return x + y }},
	"Sub": {func(s *simd.Set, z, x, y []float32) { s.Sub(z, x, y) }, func(s *simd.Set, z, x []float32, y float32) { s.Shift(-y, z, x) }, false,
		func(_ *node, x, y float64) float64 { return x - y }, func(_ *node, x, y int64) int64 { return x - y }},
	"Mul": {func(s *simd.Set, z, x, y []float32) { s.Mul(z, x, y) }, times, true,
		func(_ *node, x, y float64) float64 { return x * y }, func(_ *node, x, y int64) int64 { return x * y }},
	"Div": {func(s *simd.Set, z, x, y []float32) { s.Div(z, x, y) }, nil, false,
		func(_ *node, x, y float64) float64 { return x / y }, divide},
	"Mod": {nil, nil, false, modulo, moduloInts},
	"Pow": {nil, squared, false, func(_ *node, x, y float64) float64 { return power(x, y) }, func(_ *node, x, y int64) int64 { return int64(math.Pow(float64(x), float64(y))) }},
}

// times computes z = x·y.
func times(s *simd.Set, z, x []float32, y float32) {
	copy(z, x)
	s.Scale(y, z)
}

// squared computes z = x^y, quickly for y = 2.
func squared(s *simd.Set, z, x []float32, y float32) {
	if y == 2 {
		s.Mul(z, x, x)
		return
	}
	for i, v := range x {
		z[i] = simd.Narrow(power(float64(v), float64(y)))
	}
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
	walk(dims, func(row int, at offsets) {
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
	out := r.newLike(n, x, dims)
	dims, s := joined(dims, stretched(x.dims, dims), stretched(y.dims, dims))
	if x.kind == ints {
		f := func(a, b int64) int64 { return narrow(x.dtype, op.ints(n, a, b)) }
		r.do(func() { zip(out.ints, dims, x.ints, s[0], y.ints, s[1], f) })
		return one(out)
	}
	size, sx := last(dims, s[0])
	_, sy := last(dims, s[1])
	if op.commute && sx == 0 {
		x, y, sx, sy = y, x, sy, sx
		s[0], s[1] = s[1], s[0]
	}
	set := simd.Best()
	switch {
	case sx == 1 && sy == 1 && op.rows != nil:
		r.do(func() {
			walk(dims, func(row int, at offsets) {
				op.rows(set, out.host[row*size:][:size], x.host[at[0]:][:size], y.host[at[1]:][:size])
			}, s[0], s[1])
		})
	case sx == 1 && sy == 0 && op.row != nil:
		r.do(func() {
			walk(dims, func(row int, at offsets) {
				op.row(set, out.host[row*size:][:size], x.host[at[0]:][:size], y.host[at[1]])
			}, s[0], s[1])
		})
	default:
		f := func(a, b float32) float32 { return simd.Narrow(op.floats(n, float64(a), float64(b))) }
		r.do(func() { zip(out.host, dims, x.host, s[0], y.host, s[1], f) })
	}
	return one(out)
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
	out := r.newInts(n, typeBool, dims)
	dims, s := joined(dims, stretched(x.dims, dims), stretched(y.dims, dims))
	r.do(func() {
		if x.kind == floats {
			zip(out.ints, dims, x.host, s[0], y.host, s[1], func(a, b float32) int64 { return truth(op.floats(a, b)) })
		} else {
			zip(out.ints, dims, x.ints, s[0], y.ints, s[1], func(a, b int64) int64 { return truth(op.ints(a, b)) })
		}
	})
	return one(out)
}

func runNot(r *run, n *node, in []*value) []*value {
	if in[0].kind != bools {
		n.failf("its operand is %s", in[0].kind)
	}
	out := r.newInts(n, typeBool, in[0].dims)
	r.do(func() {
		for i, x := range in[0].ints {
			out.ints[i] = 1 - x
		}
	})
	return one(out)
}

func runWhere(r *run, n *node, in []*value) []*value {
	c, x, y := in[0], in[1], in[2]
	if c.kind != bools || x.kind != y.kind {
		n.failf("operands are %s, %s and %s", c.kind, x.kind, y.kind)
	}
	dims := n.broadcast(n.broadcast(c.dims, x.dims), y.dims)
	out := r.newLike(n, x, dims)
	dims, s := joined(dims, stretched(c.dims, dims), stretched(x.dims, dims), stretched(y.dims, dims))
	r.do(func() {
		if x.kind == floats {
			choose(out.host, dims, c.ints, x.host, y.host, s)
		} else {
			choose(out.ints, dims, c.ints, x.ints, y.ints, s)
		}
	})
	return one(out)
}

// choose takes elements of x where c is not 0, and of y elsewhere.
func choose[T any](dst []T, dims []int, c []int64, x, y []T, s [][]int) {
	n, sc := last(dims, s[0])
	_, sx := last(dims, s[1])
	_, sy := last(dims, s[2])
	walk(dims, func(row int, at offsets) {
		for k := range dst[row*n : row*n+n] {
			if c[at[0]+k*sc] != 0 {
				dst[row*n+k] = x[at[1]+k*sx]
			} else {
				dst[row*n+k] = y[at[2]+k*sy]
			}
		}
	}, s...)
}

// unaryOps are elementwise functions: of a row, or of one number.
var unaryOps = map[string]struct {
	row  func(n *node, s *simd.Set, y, x []float32)
	host func(n *node, x float64) float64
}{
	"Relu":    {row: rectify},
	"Sigmoid": {row: func(_ *node, s *simd.Set, y, x []float32) { s.Sigmoid(y, x) }},
	"Tanh":    {row: func(_ *node, s *simd.Set, y, x []float32) { s.Tanh(y, x) }},
	"Exp":     {row: func(_ *node, s *simd.Set, y, x []float32) { s.Exp(y, x) }},
	"Neg": {row: func(_ *node, _ *simd.Set, y, x []float32) {
		y = y[:len(x)]
		for i, v := range x {
			y[i] = -v
		}
	}},
	"Log":      {host: func(_ *node, x float64) float64 { return math.Log(x) }},
	"Softplus": {host: func(_ *node, x float64) float64 { return math.Max(x, 0) + math.Log1p(exp(-math.Abs(x))) }},
	"Abs":      {host: func(_ *node, x float64) float64 { return math.Abs(x) }},
	"Sqrt": {row: func(_ *node, _ *simd.Set, y, x []float32) {
		y = y[:len(x)]
		for i, v := range x {
			y[i] = float32(math.Sqrt(float64(v))) // of a normal number it is one
		}
	}},
	"Reciprocal": {host: func(_ *node, x float64) float64 { return 1 / x }},
	"Floor":      {host: func(_ *node, x float64) float64 { return math.Floor(x) }},
	"Ceil":       {host: func(_ *node, x float64) float64 { return math.Ceil(x) }},
	"Erf":        {host: func(_ *node, x float64) float64 { return math.Erf(x) }},
	"Softsign":   {host: func(_ *node, x float64) float64 { return softsign(x, 0, 0) }},
	"Elu":        {host: func(n *node, x float64) float64 { return elu(x, n.alpha(1), 0) }},
	"LeakyRelu":  {row: leaky},
	"HardSigmoid": {host: func(n *node, x float64) float64 {
		return hardSigmoid(x, n.alpha(0.2), float64(n.floatAttr("beta", 0.5)))
	}},
}

var zeros [chunk]float32

// rectify computes y = max(x, 0); y may be x.
func rectify(_ *node, s *simd.Set, y, x []float32) {
	for len(x) > 0 {
		n := min(len(x), len(zeros))
		s.Max(y[:n], x[:n], zeros[:n])
		s.Shift(0, y[:n], y[:n]) // no -0
		x, y = x[n:], y[n:]
	}
}

// leaky computes y = x, and alpha·x of negative numbers.
func leaky(n *node, s *simd.Set, y, x []float32) {
	alpha := n.floatAttr("alpha", 0.01)
	for len(x) > 0 { // pieces that stay in the cache
		k := min(len(x), chunk)
		times(s, y[:k], x[:k], alpha)
		if alpha > 0 && alpha <= 1 {
			s.Max(y[:k], x[:k], y[:k])
		} else {
			for i, v := range x[:k] {
				if !(v < 0) {
					y[i] = v
				}
			}
		}
		x, y = x[k:], y[k:]
	}
}

func (n *node) alpha(def float32) float64 { return float64(n.floatAttr("alpha", def)) }

func runUnary(r *run, n *node, in []*value) []*value {
	op, x := unaryOps[n.op], in[0]
	switch {
	case x.kind == ints && (n.op == "Neg" || n.op == "Abs"):
		out := r.newInts(n, x.dtype, x.dims)
		r.do(func() {
			for i, v := range x.ints {
				if n.op == "Neg" || v < 0 {
					v = narrow(x.dtype, -v)
				}
				out.ints[i] = v
			}
		})
		return one(out)
	case x.kind != floats:
		n.failf("its operand is %s", x.kind)
	}
	out, set := r.newFloats(n, x.dims), simd.Best()
	r.do(func() {
		if op.row != nil {
			op.row(n, set, out.host, x.host)
			return
		}
		for i, v := range x.host {
			out.host[i] = simd.Narrow(op.host(n, float64(v)))
		}
	})
	return one(out)
}

func runMinMax(r *run, n *node, in []*value) []*value {
	acc := in[0]
	for _, v := range in[1:] {
		if v == nil || v.kind != acc.kind || v.kind == bools {
			n.failf("operands are of different types")
		}
		dims := n.broadcast(acc.dims, v.dims)
		x, out := acc, r.newLike(n, acc, dims)
		dims, s := joined(dims, stretched(x.dims, dims), stretched(v.dims, dims))
		var bound []float32
		if v.kind == floats && n.op == "Max" && v.len() == 1 {
			bound = r.newFloats(n, []int{chunk}).host
		}
		r.do(func() {
			switch {
			case bound != nil:
				for i := range bound {
					bound[i] = v.host[0]
				}
				for i := 0; i < len(x.host); i += chunk {
					y := out.host[i:min(i+chunk, len(x.host))]
					simd.Best().Max(y, x.host[i:][:len(y)], bound[:len(y)])
				}
			case v.kind == floats:
				zipExtremes(out.host, dims, x.host, v.host, s, n.op == "Max")
			default:
				zipExtremes(out.ints, dims, x.ints, v.ints, s, n.op == "Max")
			}
		})
		acc = out
	}
	return one(acc.reshaped(acc.dims))
}

// zipExtremes is zip with the larger or the smaller one.
func zipExtremes[T float32 | int64](dst []T, dims []int, x, y []T, s [][]int, largest bool) {
	n, sx := last(dims, s[0])
	_, sy := last(dims, s[1])
	walk(dims, func(row int, at offsets) {
		i, j, out := at[0], at[1], dst[row*n:row*n+n]
		if largest {
			for k := range out {
				out[k] = max(x[i+k*sx], y[j+k*sy])
			}
			return
		}
		for k := range out {
			out[k] = min(x[i+k*sx], y[j+k*sy])
		}
	}, s...)
}

func runClip(r *run, n *node, in []*value) []*value {
	x := in[0]
	for _, v := range in[1:] {
		if v != nil && (v.kind != x.kind || v.len() != 1) {
			n.failf("a bound must be one number of the type of its operand")
		}
	}
	out := r.newLike(n, x, x.dims)
	switch x.kind {
	case floats:
		lo, hi := n.floatAttr("min", -math.MaxFloat32), n.floatAttr("max", math.MaxFloat32)
		r.do(func() { clamp(out.host, x.host, in, (*value).floats, lo, hi) })
	case ints:
		lo, hi := limits(x.dtype)
		r.do(func() { clamp(out.ints, x.ints, in, (*value).integers, lo, hi) })
	default:
		n.failf("its operand is %s", x.kind)
	}
	return one(out)
}

// clamp bounds src by inputs 1 and 2 where they are given, otherwise by lo and hi.
func clamp[T int64 | float32](dst, src []T, in []*value, data func(*value) []T, lo, hi T) {
	if in[1] != nil {
		lo = data(in[1])[0]
	}
	if in[2] != nil {
		hi = data(in[2])[0]
	}
	for i, v := range src {
		dst[i] = min(max(v, lo), hi)
	}
}

// rounding returns the function that rounds to the precision of a type; nil where
// that is float32 or more.
func rounding(dtype int64) func(x float32) float32 {
	switch dtype {
	case typeFloat16:
		return func(x float32) float32 { return half.FromFloat16(half.ToFloat16(x)) }
	case typeBFloat16:
		return func(x float32) float32 { return half.FromBFloat16(half.ToBFloat16(x)) }
	}
	return nil
}

// cast changes the kind; dtype says to which width of integers, or to the precision of
// which floats.
func (r *run) cast(n *node, v *value, dtype int64) *value {
	to, _ := kindOf(dtype)
	if to == floats {
		round := rounding(dtype)
		if v.kind == floats && round == nil {
			return v.reshaped(v.dims)
		}
		out := r.newFloats(n, v.dims)
		r.do(func() {
			copy(out.host, v.host)
			for i, x := range v.ints {
				out.host[i] = float32(x)
				if v.dtype == typeUint64 {
					out.host[i] = float32(uint64(x))
				}
			}
			if round != nil {
				for i, x := range out.host {
					out.host[i] = round(x)
				}
			}
		})
		return out
	}
	out := r.newInts(n, dtype, v.dims)
	r.do(func() {
		for i := range out.ints {
			switch {
			case v.kind == floats && to == bools:
				out.ints[i] = truth(v.host[i] != 0)
			case v.kind == floats:
				out.ints[i] = narrow(dtype, int64(v.host[i]))
			case to == bools:
				out.ints[i] = truth(v.ints[i] != 0)
			default:
				out.ints[i] = narrow(dtype, v.ints[i])
			}
		}
	})
	return out
}

func runCast(r *run, n *node, in []*value) []*value {
	return one(r.cast(n, in[0], n.intAttr("to", 0)))
}

func runCastLike(r *run, n *node, in []*value) []*value {
	return one(r.cast(n, in[0], in[1].elementType()))
}

func runRange(r *run, n *node, in []*value) []*value {
	var bounds [3]float64
	for i, v := range in {
		if v.kind != in[0].kind || v.kind == bools || v.len() != 1 {
			n.failf("needs three numbers of one type")
		}
		in[i] = r.pinned(v)
		if v.kind == floats {
			bounds[i] = float64(v.host[0])
		} else {
			bounds[i] = float64(v.ints[0])
		}
	}
	r.varies = false // all that it depends on is pinned
	count := math.Max(0, math.Ceil((bounds[1]-bounds[0])/bounds[2]))
	if bounds[2] == 0 || !(count <= math.MaxInt32) {
		n.failf("from %v to %v in steps of %v", bounds[0], bounds[1], bounds[2])
	}
	out := r.newLike(n, in[0], []int{int(count)})
	for i := range out.host {
		out.host[i] = simd.Narrow(bounds[0] + float64(i)*bounds[2])
	}
	for i := range out.ints {
		out.ints[i] = in[0].ints[0] + int64(i)*in[2].ints[0]
	}
	return one(out)
}
