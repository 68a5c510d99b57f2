package cpu

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

// actions are the functions of a cell's gates, of its input and of its state,
// with the values that the first two take at the ends of a clipped range.
type actions struct {
	gate, in, out    device.Activation
	gateEdge, inEdge [2]float32
}

// setActions fills in the cell's own where the options leave them.
func (e *scan) setActions() {
	pick := func(a, own device.Activation) device.Activation {
		if a == device.OwnAct {
			return own
		}
		return a
	}
	in := device.TanhAct
	if e.Cell == device.RNNReLU {
		in = device.ReLUAct
	}
	e.acts = actions{gate: pick(e.GateAct, device.SigmoidAct), in: pick(e.InAct, in), out: pick(e.OutAct, device.TanhAct)}
	if e.GateClip > 0 {
		a := &e.acts
		a.gateEdge = [2]float32{-e.GateClip, e.GateClip}
		a.inEdge = a.gateEdge
		activate(e.b.set, a.gate, a.gateEdge[:])
		activate(e.b.set, a.in, a.inEdge[:])
	}
}

// gate turns pre-activations into gates, in into candidates.

func (r *row) gate(v []float32) {
	clampTo(v, r.e.GateClip)
	activate(r.set, r.e.acts.gate, v)
}

func (r *row) in(v []float32) {
	clampTo(v, r.e.GateClip)
	activate(r.set, r.e.acts.in, v)
}

// gateGrad and inGrad turn activations y and their gradient d into gradients of
// the pre-activations, in y. What was clipped passes none: its activation is
// the one at an end of the range, and only those that rounding cannot tell from
// it are taken for it.

func (r *row) gateGrad(y, d []float32) {
	r.clippedGrad(r.e.acts.gate, y, d, &r.e.acts.gateEdge)
}
func (r *row) inGrad(y, d []float32) { r.clippedGrad(r.e.acts.in, y, d, &r.e.acts.inEdge) }

func (r *row) clippedGrad(a device.Activation, y, d []float32, edge *[2]float32) {
	if r.e.GateClip > 0 {
		for j, v := range y {
			if v == edge[0] || v == edge[1] {
				d[j] = 0
			}
		}
	}
	activationGrad(r.set, a, y, d)
}

// clampTo limits v to [-limit, limit]; a limit of 0 is none. NaN stays.
func clampTo(v []float32, limit float32) {
	if limit <= 0 {
		return
	}
	for j, x := range v {
		v[j] = max(min(x, limit), -limit)
	}
}

// activate is v = a(v).
func activate(set *simd.Set, a device.Activation, v []float32) {
	switch a {
	case device.SigmoidAct:
		set.Sigmoid(v, v)
	case device.TanhAct:
		set.Tanh(v, v)
	case device.ReLUAct:
		for j, x := range v {
			v[j] = max(x, 0)
		}
	case device.HardSigmoid:
		for j, x := range v {
			v[j] = float32(max(min(float64(0.2*float64(x))+0.5, 1), 0))
		}
	case device.HardTanh:
		clampTo(v, 1)
	case device.Softsign:
		for j, x := range v {
			v[j] = x / (1 + max(x, -x))
		}
	case device.LeakyReLU:
		for j, x := range v {
			if x < 0 {
				v[j] = simd.Narrow(leak * float64(x))
			}
		}
	case device.ELU:
		for j, x := range v {
			if x < 0 {
				v[j] = float32(math.Expm1(float64(x)))
			}
		}
	case device.SoftplusAct:
		for j, x := range v {
			v[j] = simd.Narrow(softplus(float64(x)))
		}
	}
}

const leak = 0.01 // of LeakyReLU

// activationGrad is y = d·a'(x), where y = a(x).
func activationGrad(set *simd.Set, a device.Activation, y, d []float32) {
	d = d[:len(y)]
	switch a {
	case device.SigmoidAct:
		set.SigmoidGrad(y, d)
	case device.TanhAct:
		set.TanhGrad(y, d)
	case device.ReLUAct:
		reluGrad(y, d, y)
	case device.Identity:
		copy(y, d)
	default:
		for j, v := range y {
			y[j] = simd.Narrow(float64(d[j]) * activationSlope(a, float64(v)))
		}
	}
}

// activationSlope is a'(x) where a(x) is y.
func activationSlope(a device.Activation, y float64) float64 {
	switch a {
	case device.HardSigmoid:
		return choose(y > 0 && y < 1, 0.2, 0)
	case device.HardTanh:
		return choose(y > -1 && y < 1, 1, 0)
	case device.Softsign:
		s := 1 - math.Abs(y)
		return s * s
	case device.LeakyReLU:
		return choose(y > 0, 1, leak)
	case device.ELU:
		return min(y, 0) + 1
	case device.SoftplusAct:
		return -math.Expm1(-y)
	}
	panic(fmt.Sprintf("cpu: unknown activation %d", a))
}

func choose(inside bool, a, b float64) float64 {
	if inside {
		return a
	}
	return b
}
