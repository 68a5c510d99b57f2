package cpu

import (
	"github.com/carousel-ml/carousel/cell"
)

// The GRU of torch.nn.GRU, reset after the recurrent product (v3 of Cho et al.
// 2014): n = tanh(W·x + b + r⊙(R·h + b')), h' = (1-z)⊙n + z⊙h. Side is R·h + b'.
//
// GRUBefore is the first version, reset before the product:
// n = tanh(W·x + b + R·(r⊙h) + b'). Side is r⊙h, computed between the two products
// of a step.

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

// reset computes r, z and Side, the first half of a step that resets before the product.
func (r *row) reset() {
	r.gate(r.gates[:2*r.h])
	r.set.Mul(r.side, r.gates[:r.h], r.hIn)
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

// resetGrad is the backward pass of reset. dmid is dL/d(r⊙h).
func (r *row) resetGrad() {
	e, H := r.e, r.h
	reset, d, a := r.gates[:H], e.dmid[r.b*H:(r.b+1)*H], r.scratch(gradWork, H)
	r.set.Mul(a, d, r.hIn)
	if e.HDrop > 0 {
		r.set.Mul(e.dr[r.b*H:(r.b+1)*H], d, reset)
	} else {
		r.set.MulAdd(e.dh[r.b*H:(r.b+1)*H], d, reset)
	}
	r.gateGrad(reset, a)
}
