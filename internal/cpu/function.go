package cpu

import (
	"math"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

// function is a row of the table of elementwise functions. They take slices, since
// a call per element would cost as much as most of them.
type function struct {
	forward func(set *simd.Set, y, x []float32, alpha float32) // y = f(x); y may be x
	// g = d·f'(x), computed from y = f(x) or from x; g may be that slice. One of the
	// two is enough; an activation has fromY.
	fromY func(set *simd.Set, g, d, y []float32, alpha float32)
	fromX func(set *simd.Set, g, d, x []float32, alpha float32)
}

var functions = [device.NumFunctions]function{
	cell.Sigmoid: {
		forward: func(set *simd.Set, y, x []float32, _ float32) { set.Sigmoid(y, x) },
		fromY: func(set *simd.Set, g, d, y []float32, _ float32) {
			copy(g, y)
			set.SigmoidGrad(g, d)
		},
	},
	cell.Tanh: {
		forward: func(set *simd.Set, y, x []float32, _ float32) { set.Tanh(y, x) },
		fromY: func(set *simd.Set, g, d, y []float32, _ float32) {
			copy(g, y)
			set.TanhGrad(g, d)
		},
	},
	cell.ReLU: {
		forward: func(set *simd.Set, y, x []float32, _ float32) {
			for len(x) > 0 {
				n := min(len(x), len(zeros))
				set.Max(y[:n], x[:n], zeros[:n])
				set.Shift(0, y[:n], y[:n]) // no -0
				x, y = x[n:], y[n:]
			}
		},
		fromY: reluGrad,
	},
	cell.HardSigmoid: {
		forward: func(_ *simd.Set, y, x []float32, _ float32) {
			for i, v := range x {
				y[i] = float32(max(min(float64(0.2*float64(v))+0.5, 1), 0))
			}
		},
		fromY: eachSlope(func(y float64) float64 { return choose(y > 0 && y < 1, 0.2, 0) }),
	},
	cell.HardTanh: {
		forward: func(_ *simd.Set, y, x []float32, _ float32) {
			copy(y, x)
			clampTo(y, 1)
		},
		fromY: eachSlope(func(y float64) float64 { return choose(y > -1 && y < 1, 1, 0) }),
	},
	cell.Softsign: {
		forward: func(_ *simd.Set, y, x []float32, _ float32) {
			for i, v := range x {
				y[i] = v / (1 + max(v, -v))
			}
		},
		fromY: eachSlope(func(y float64) float64 { return (1 - math.Abs(y)) * (1 - math.Abs(y)) }),
	},
	cell.Identity: {
		forward: func(_ *simd.Set, y, x []float32, _ float32) { copy(y, x) },
		fromY:   func(_ *simd.Set, g, d, _ []float32, _ float32) { copy(g, d) },
	},
	cell.LeakyReLU: {
		forward: func(_ *simd.Set, y, x []float32, _ float32) {
			for i, v := range x {
				if y[i] = v; v < 0 {
					y[i] = simd.Narrow(leak * float64(v))
				}
			}
		},
		fromY: eachSlope(func(y float64) float64 { return choose(y > 0, 1, leak) }),
	},
	cell.ELU: {
		forward: each(func(x float64) float64 {
			if x < 0 {
				return math.Expm1(x)
			}
			return x
		}),
		fromY: eachSlope(func(y float64) float64 { return min(y, 0) + 1 }),
	},
	cell.Softplus: {
		forward: each(softplus),
		fromY:   eachSlope(func(y float64) float64 { return -math.Expm1(-y) }),
		fromX: func(set *simd.Set, g, d, x []float32, _ float32) {
			set.Sigmoid(g, x)
			set.Mul(g, g, d)
		},
	},
	device.Exp: {
		forward: func(set *simd.Set, y, x []float32, _ float32) { set.Exp(y, x) },
		fromY:   func(set *simd.Set, g, d, y []float32, _ float32) { set.Mul(g, d, y) },
	},
	device.Log: {
		forward: each(math.Log),
		fromX:   func(set *simd.Set, g, d, x []float32, _ float32) { set.Div(g, d, x) },
	},
	device.Square: {
		forward: func(set *simd.Set, y, x []float32, _ float32) { set.Mul(y, x, x) },
		fromX: func(set *simd.Set, g, d, x []float32, _ float32) {
			set.Mul(g, d, x)
			set.Scale(2, g)
		},
	},
	device.RSqrt: {
		forward: func(_ *simd.Set, y, x []float32, alpha float32) {
			for i, v := range x {
				y[i] = simd.Narrow(1 / math.Sqrt(float64(v)+float64(alpha)))
			}
		},
		fromY: eachSlope(func(y float64) float64 { return -0.5 * y * y * y }),
	},
	device.Scale: {forward: scaled, fromY: func(set *simd.Set, g, d, _ []float32, alpha float32) { scaled(set, g, d, alpha) }},
	device.Shift: {
		forward: func(set *simd.Set, y, x []float32, alpha float32) { set.Shift(alpha, y, x) },
		fromY:   func(_ *simd.Set, g, d, _ []float32, _ float32) { copy(g, d) },
	},
}

const leak = 0.01 // of LeakyReLU

var zeros chunk

// scaled computes y = alpha·x.
func scaled(set *simd.Set, y, x []float32, alpha float32) {
	copy(y, x)
	set.Scale(alpha, y)
}

// each returns a forward function that applies f to each value, for an f that costs more than a call.
func each(f func(x float64) float64) func(set *simd.Set, y, x []float32, alpha float32) {
	return func(_ *simd.Set, y, x []float32, _ float32) {
		for i, v := range x {
			y[i] = simd.Narrow(f(float64(v)))
		}
	}
}

// eachSlope returns a fromY for the derivative of, which is given y.
func eachSlope(of func(y float64) float64) func(set *simd.Set, g, d, y []float32, alpha float32) {
	return func(_ *simd.Set, g, d, y []float32, _ float32) {
		d = d[:len(y)]
		for i, v := range y {
			g[i] = simd.Narrow(float64(d[i]) * of(float64(v)))
		}
	}
}

// reluGrad computes g = d where y is not 0, and 0 elsewhere. It has no branch, which
// would often be mispredicted: y is +0, positive or NaN, and only +0 has no bit set.
func reluGrad(_ *simd.Set, g, d, y []float32, _ float32) {
	g, y = g[:len(d)], y[:len(d)]
	for i, d := range d {
		bits := int32(math.Float32bits(y[i]))
		passes := (bits | -bits) >> 31 // all ones unless bits is 0
		g[i] = math.Float32frombits(math.Float32bits(d) & uint32(passes))
	}
}

// clampTo limits v to [-limit, limit]; a limit of 0 means none. NaN stays NaN.
func clampTo(v []float32, limit float32) {
	if limit <= 0 {
		return
	}
	for j, x := range v {
		v[j] = max(min(x, limit), -limit)
	}
}

func choose(inside bool, a, b float64) float64 {
	if inside {
		return a
	}
	return b
}

// exp returns e^x for x <= 0; below -300, where float64 may become subnormal and slow, 0.
func exp(x float64) float64 {
	if x < -300 {
		return 0
	}
	return math.Exp(x)
}

// softplus returns log(1+e^x) without overflow.
func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(exp(-math.Abs(x))) }

// logistic returns 1/(1+e^-x), the derivative of softplus.
func logistic(x float64) float64 {
	e := exp(-math.Abs(x))
	if x < 0 {
		return e / (1 + e)
	}
	return 1 / (1 + e)
}
