package cpu

import (
	"cmp"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/simd"
)

// actions is the activations of a cell's gates, of its candidate and of its state,
// and for the first two their values at the ends of a clipped range.
type actions struct {
	gate, in, out    cell.Activation
	gateEdge, inEdge [2]float32
}

// setActions sets the activations: those of the options or the cell's own.
func (e *scan) setActions() {
	e.acts = actions{gate: cmp.Or(e.GateAct, cell.Sigmoid), in: cmp.Or(e.InAct, e.Cell.Spec().Candidate()), out: cmp.Or(e.OutAct, cell.Tanh)}
	if e.GateClip > 0 {
		a := &e.acts
		a.gateEdge = [2]float32{-e.GateClip, e.GateClip}
		a.inEdge = a.gateEdge
		activate(e.b.set, a.gate, a.gateEdge[:])
		activate(e.b.set, a.in, a.inEdge[:])
	}
}

// gate and in compute gates and candidates from pre-activations v, in place.

func (r *row) gate(v []float32) {
	clampTo(v, r.e.GateClip)
	activate(r.set, r.e.acts.gate, v)
}

func (r *row) in(v []float32) {
	clampTo(v, r.e.GateClip)
	activate(r.set, r.e.acts.in, v)
}

// gateGrad and inGrad compute the gradients of the pre-activations from activations
// y and their gradients d, in y. Clipped pre-activations have the gradient 0. They
// are recognised by their activation, which is that of an end of the range; so are
// neighbours whose activation rounds to the same number.

func (r *row) gateGrad(y, d []float32) {
	r.clippedGrad(r.e.acts.gate, y, d, &r.e.acts.gateEdge)
}
func (r *row) inGrad(y, d []float32) { r.clippedGrad(r.e.acts.in, y, d, &r.e.acts.inEdge) }

func (r *row) clippedGrad(a cell.Activation, y, d []float32, edge *[2]float32) {
	if r.e.GateClip > 0 {
		for j, v := range y {
			if v == edge[0] || v == edge[1] {
				d[j] = 0
			}
		}
	}
	activationGrad(r.set, a, y, d)
}

// activate computes v = a(v).
func activate(set *simd.Set, a cell.Activation, v []float32) { functions[a].forward(set, v, v, 0) }

// activationGrad computes y = d·a'(x), where y = a(x).
func activationGrad(set *simd.Set, a cell.Activation, y, d []float32) {
	functions[a].fromY(set, y, d[:len(y)], y, 0)
}
