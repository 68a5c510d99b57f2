package cpu

import (
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
	activationGrad(a, y, d)
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
			v[j] = max(min(float32(0.2*x)+0.5, 1), 0)
		}
	case device.HardTanh:
		clampTo(v, 1)
	case device.Softsign:
		for j, x := range v {
			v[j] = x / (1 + max(x, -x))
		}
	case device.LeakyReLU:
		for j, x := range v {
			v[j] = max(x, 0.01*x)
		}
	case device.ELU:
		for j, x := range v {
			if x < 0 {
				v[j] = expm1(x)
			}
		}
	case device.SoftplusAct:
		for j, x := range v {
			v[j] = softplus(x)
		}
	}
}

// activationGrad is y = d·a'(x), where y = a(x).
func activationGrad(a device.Activation, y, d []float32) {
	d = d[:len(y)]
	switch a {
	case device.SigmoidAct:
		for j, v := range y {
			y[j] = d[j] * float32(v*(1-v))
		}
	case device.TanhAct:
		for j, v := range y {
			y[j] = d[j] * (1 - float32(v*v))
		}
	case device.ReLUAct:
		reluGrad(y, d, y)
	case device.HardSigmoid:
		for j, v := range y {
			y[j] = choose(v > 0 && v < 1, 0.2, 0) * d[j]
		}
	case device.HardTanh:
		for j, v := range y {
			y[j] = choose(v > -1 && v < 1, 1, 0) * d[j]
		}
	case device.Softsign:
		for j, v := range y {
			s := 1 - max(v, -v)
			y[j] = float32(s*s) * d[j]
		}
	case device.Identity:
		copy(y, d)
	case device.LeakyReLU:
		for j, v := range y {
			y[j] = choose(v > 0, 1, 0.01) * d[j]
		}
	case device.ELU:
		for j, v := range y {
			y[j] = d[j] * (min(v, 0) + 1)
		}
	case device.SoftplusAct:
		for j, v := range y {
			y[j] = -d[j] * expm1(-v)
		}
	}
}

func choose(inside bool, a, b float32) float32 {
	if inside {
		return a
	}
	return b
}

func expm1(x float32) float32 { return float32(math.Expm1(float64(x))) }
