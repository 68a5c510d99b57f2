package graph

import (
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// function is an operator of one operand, element by element. Its functions are made
// once per node, from the attributes; nil for a type that it does not take. Floats
// are flushed and narrowed, integers narrowed.
type function struct {
	floats func(n *node) func(x float64) float64
	ints   func(n *node) func(x int64) int64
}

// simple is a function without attributes.
func simple(f func(x float64) float64) function {
	return function{floats: func(*node) func(float64) float64 { return f }}
}

var functions = map[string]function{
	"Sign":  {func(*node) func(float64) float64 { return sign }, func(*node) func(int64) int64 { return signInt }},
	"Round": simple(math.RoundToEven),
	"Sin":   simple(math.Sin),
	"Cos":   simple(math.Cos),
	"Tan":   simple(math.Tan),
	"Asin":  simple(math.Asin),
	"Acos":  simple(math.Acos),
	"Atan":  simple(math.Atan),
	"Sinh":  simple(math.Sinh),
	"Cosh":  simple(math.Cosh),
	"Asinh": simple(math.Asinh),
	"Acosh": simple(math.Acosh),
	"Atanh": simple(math.Atanh),

	"HardSwish": simple(func(x float64) float64 { return x * hardSigmoid(x, 1./6, 0.5) }),
	"Mish":      simple(func(x float64) float64 { return x * math.Tanh(math.Max(x, 0)+math.Log1p(exp(-math.Abs(x)))) }),
	"Swish":     {floats: func(n *node) func(float64) float64 { return swish(n.alpha(1)) }},
	"Gelu": {floats: func(n *node) func(float64) float64 {
		if n.stringAttr("approximate", "none") == "tanh" {
			return geluTanh
		}
		return gelu
	}},
	"Selu": {floats: func(n *node) func(float64) float64 {
		alpha, gamma := n.alpha(1.67326319217681884765625), float64(n.floatAttr("gamma", 1.05070102214813232421875))
		return func(x float64) float64 { return gamma * elu(x, alpha, 0) }
	}},
	"Celu": {floats: func(n *node) func(float64) float64 {
		alpha := n.alpha(1)
		return func(x float64) float64 { return elu(x/alpha, alpha, 0) + math.Max(0, x) - math.Max(0, x/alpha) }
	}},
	"ThresholdedRelu": {floats: func(n *node) func(float64) float64 {
		alpha := n.alpha(1)
		return func(x float64) float64 { return thresholdedReLU(x, alpha, 0) }
	}},
	"Shrink": {
		func(n *node) func(float64) float64 {
			bias, bound := float64(n.floatAttr("bias", 0)), float64(n.floatAttr("lambd", 0.5))
			return func(x float64) float64 { return shrink(x, bias, bound) }
		},
		func(n *node) func(int64) int64 {
			bias, bound := float64(n.floatAttr("bias", 0)), float64(n.floatAttr("lambd", 0.5))
			return func(x int64) int64 { return int64(shrink(float64(x), bias, bound)) }
		},
	},
	"BitwiseNot": {ints: func(*node) func(int64) int64 { return func(x int64) int64 { return ^x } }},

	"com.microsoft.Gelu":      simple(gelu),
	"com.microsoft.QuickGelu": {floats: func(n *node) func(float64) float64 { return swish(n.alpha(1.702)) }},
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x
}

func signInt(x int64) int64 { return int64(sign(float64(x))) }

// shrink moves numbers towards zero by bias; those within the bound become zero.
func shrink(x, bias, bound float64) float64 {
	switch {
	case x < -bound:
		return x + bias
	case x > bound:
		return x - bias
	}
	return 0
}

func gelu(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }

func geluTanh(x float64) float64 {
	return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

func swish(alpha float64) func(x float64) float64 {
	return func(x float64) float64 { return x / (1 + exp(-alpha*x)) }
}

func runFunction(r *run, n *node, in []*value) []*value {
	f, x := functions[n.op], in[0]
	out := r.newLike(n, x, x.dims)
	switch {
	case x.kind == floats && f.floats != nil:
		of := f.floats(n)
		r.do(func() {
			for i, v := range x.host {
				out.host[i] = simd.Narrow(of(float64(v)))
			}
		})
	case x.kind == ints && f.ints != nil:
		of := f.ints(n)
		r.do(func() {
			for i, v := range x.ints {
				out.ints[i] = narrow(x.dtype, of(v))
			}
		})
	default:
		n.failf("its operand is %s", x.kind)
	}
	return one(out)
}

// runIs is IsNaN and IsInf.
func runIs(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind != floats {
		n.failf("its operand is %s", x.kind)
	}
	above, below := n.intAttr("detect_positive", 1) != 0, n.intAttr("detect_negative", 1) != 0
	is := func(x float64) bool { return math.IsInf(x, 1) && above || math.IsInf(x, -1) && below }
	if n.op == "IsNaN" {
		is = math.IsNaN
	}
	out := r.newInts(n, typeBool, x.dims)
	r.do(func() {
		for i, v := range x.host {
			out.ints[i] = truth(is(float64(v)))
		}
	})
	return one(out)
}

func runPRelu(r *run, n *node, in []*value) []*value {
	x, slope := in[0], in[1]
	if x.kind != floats || slope.kind != floats {
		n.failf("operands are %s and %s", x.kind, slope.kind)
	}
	dims := n.broadcast(x.dims, slope.dims)
	out := r.newFloats(n, dims)
	xs, ys := stretched(x.dims, dims), stretched(slope.dims, dims)
	r.do(func() {
		zip(out.host, dims, x.host, xs, slope.host, ys, func(x, slope float32) float32 {
			return simd.Narrow(leakyReLU(float64(x), float64(slope), 0))
		})
	})
	return one(out)
}

// bitOps are of the bits of two integers.
var bitOps = map[string]func(x, y int64) int64{
	"BitwiseAnd": func(x, y int64) int64 { return x & y },
	"BitwiseOr":  func(x, y int64) int64 { return x | y },
	"BitwiseXor": func(x, y int64) int64 { return x ^ y },
	"BitShift":   nil,
}

func runBits(r *run, n *node, in []*value) []*value {
	x, y := in[0], in[1]
	if x.kind != ints || y.kind != ints {
		n.failf("operands are %s and %s", x.kind, y.kind)
	}
	op := bitOps[n.op]
	if n.op == "BitShift" {
		left := n.stringAttr("direction", "") == "LEFT"
		op = func(x, y int64) int64 {
			switch { // a negative number of bits is more than all
			case left:
				return x << uint64(y)
			case in[0].dtype == typeUint64:
				return int64(uint64(x) >> uint64(y))
			}
			return x >> uint64(y)
		}
	}
	dims := n.broadcast(x.dims, y.dims)
	out := r.newInts(n, x.dtype, dims)
	xs, ys := stretched(x.dims, dims), stretched(y.dims, dims)
	r.do(func() {
		zip(out.ints, dims, x.ints, xs, y.ints, ys, func(a, b int64) int64 { return narrow(x.dtype, op(a, b)) })
	})
	return one(out)
}

// runSum is the sum or the mean of any number of operands.
func runSum(r *run, n *node, in []*value) []*value {
	dims := []int{}
	for _, v := range in {
		if v == nil || v.kind != floats {
			n.failf("its operands must be floats")
		}
		dims = n.broadcast(dims, v.dims)
	}
	out := r.newFloats(n, dims)
	to := strides(dims)
	from := make([][]int, len(in))
	for i, v := range in {
		from[i] = stretched(v.dims, dims)
	}
	sums := make([]float64, out.len())
	over := 1.0
	if n.op == "Mean" {
		over = float64(len(in))
	}
	r.do(func() {
		clear(sums)
		for i, v := range in {
			zip(sums, dims, sums, to, v.host, from[i], func(a float64, b float32) float64 { return a + float64(b) })
		}
		for i, s := range sums {
			out.host[i] = simd.Narrow(s / over)
		}
	})
	return one(out)
}

// runCumulative is CumSum and CumProd: along an axis, each element with all before
// it, or in reverse behind it, without itself if exclusive.
func runCumulative(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind == bools || in[1].len() != 1 {
		n.failf("needs numbers and one axis")
	}
	before, size, after := around(x.dims, n.axis(r.fixed(n, in[1], "the axis")[0], x.rank()))
	c := cumulation{before, size, after, n.intAttr("exclusive", 0) != 0, n.intAttr("reverse", 0) != 0, n.op == "CumProd"}
	out := r.newLike(n, x, x.dims)
	if out.len() == 0 {
		return one(out)
	}
	r.do(func() {
		if x.kind == floats {
			cumulate(out.host, x.host, c, simd.Narrow)
		} else {
			cumulate(out.ints, x.ints, c, func(x int64) int64 { return narrow(in[0].dtype, x) })
		}
	})
	return one(out)
}

type cumulation struct {
	before, size, after         int
	exclusive, reverse, product bool
}

func cumulate[A int64 | float64, B int64 | float32](dst, src []B, c cumulation, end func(A) B) {
	for b := range c.before {
		for a := range c.after {
			var sum A
			if c.product {
				sum = 1
			}
			for k := range c.size {
				i := (b*c.size+turn(k, c.size, c.reverse))*c.after + a
				if c.exclusive {
					dst[i] = end(sum)
				}
				if c.product {
					sum = A(end(sum * A(src[i])))
				} else {
					sum += A(src[i])
				}
				if !c.exclusive {
					dst[i] = end(sum)
				}
			}
		}
	}
}

// runHardmax sets the first maximum along an axis to 1 and all else to 0; before
// operator set 13 over all axes from the given one on.
func runHardmax(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind != floats {
		n.failf("its operand is %s", x.kind)
	}
	def := int64(-1)
	if n.opset < 13 {
		def = 1
	}
	before, size, after := around(x.dims, n.axis(n.intAttr("axis", def), x.rank()))
	if n.opset < 13 {
		size, after = size*after, 1
	}
	out := r.newFloats(n, x.dims)
	if out.len() == 0 {
		return one(out)
	}
	r.do(func() {
		clear(out.host)
		data := x.host
		for b := range before {
			for a := range after {
				best := b*size*after + a
				for i := 1; i < size; i++ {
					if at := (b*size+i)*after + a; data[at] > data[best] {
						best = at
					}
				}
				out.host[best] = 1
			}
		}
	})
	return one(out)
}
