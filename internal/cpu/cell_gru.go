package cpu

import (
	"github.com/carousel-ml/carousel/cell"
)

// The GRU of torch.nn.GRU, reset after the recurrent product (v3 of Cho et al.
// 2014): n = tanh(W·x + b + r⊙(R·h + b')), h' = (1-z)⊙n + z⊙h. Side is R·h + b'.
//
// The first version, reset before: n = tanh(W·x + b + R·(r⊙h) + b'). Side is
// r⊙h, made between the two products of a step.

func gruForward(r *row) {
	H := r.h
	rz, n := r.gates[:2*H], r.gates[2*H:]
	if r.e.Cell == cell.GRU {
		r.normalize()
		r.gate(rz)
		r.set.MulAdd(n, rz[:H], r.normalizedSide())
	}
	r.in(n)
	r.set.Lerp(r.out, n, r.hOld, rz[H:])
}

// resets is the first half of a step that resets before the product.
func (e *scan) resets(r *row, t, lo, hi int) {
	n := e.inside(t, lo, hi)
	e.enter(r, t)
	for b := lo; b < lo+n; b++ {
		e.bind(r, b)
		r.gate(r.gates[:2*e.H])
		e.b.set.Mul(r.side, r.gates[:e.H], r.hIn)
	}
}

func gruBackward(r *row) {
	H := r.h
	dr, dz, dn := r.gates[:H], r.gates[H:2*H], r.gates[2*H:3*H]
	a, b := r.scratch(gradWork, H), r.scratch(gradWork2, H)
	oneMinus(a, dz) // dz is still z
	r.set.Mul(a, a, r.dh)
	r.set.Sub(b, r.hOld, dn)
	r.set.Mul(b, b, r.dh)
	r.set.Mul(r.dh, r.dh, dz)
	r.inGrad(dn, a)
	r.gateGrad(dz, b)
	if r.e.Cell == cell.GRUBefore {
		return
	}
	side, dside := r.normalizedSide(), r.side
	if r.e.Has(cell.NormX) {
		dside = side
	}
	r.set.Mul(a, dn, side)
	r.set.Mul(dside, dn, dr) // dr is still r
	r.gateGrad(dr, a)
	r.normalizeGrad(dside)
}

// resetGrads is the last half of a step back: dmid is dL/d(r⊙h).
func (e *scan) resetGrads(r *row, t, lo, hi int) {
	n := e.inside(t, lo, hi)
	e.enter(r, t)
	for b := lo; b < lo+n; b++ {
		e.bind(r, b)
		reset, d, a := r.gates[:e.H], e.dmid[b*e.H:(b+1)*e.H], r.scratch(gradWork, e.H)
		r.set.Mul(a, d, r.hIn)
		if e.HDrop > 0 {
			r.set.Mul(e.dr[b*e.H:(b+1)*e.H], d, reset)
		} else {
			r.set.MulAdd(e.dh[b*e.H:(b+1)*e.H], d, reset)
		}
		r.gateGrad(reset, a)
	}
}
