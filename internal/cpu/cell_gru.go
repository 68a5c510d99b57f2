package cpu

import "github.com/carousel-ml/carousel/internal/device"

// The GRU of torch.nn.GRU, reset after the recurrent product (v3 of Cho et al.
// 2014): n = tanh(W·x + b + r⊙(R·h + b')), h' = (1-z)⊙n + z⊙h. Side is R·h + b'.
//
// The first version, reset before: n = tanh(W·x + b + R·(r⊙h) + b'). Side is
// r⊙h, made between the two products of a step.

func gruForward(r *row) {
	H := r.h
	rz, n := r.gates[:2*H], r.gates[2*H:]
	if r.e.Cell == device.GRU {
		r.normalize()
		r.gate(rz)
		r.set.MulAdd(n, rz[:H], r.normalizedSide())
	}
	r.in(n)
	mixGRU(r.out, rz[H:], n, r.hOld)
}

// mixGRU is h' = n + z⊙(h-n).
func mixGRU(hNew, z, n, hOld []float32) {
	for i, n := range n {
		hNew[i] = n + float32(z[i]*(hOld[i]-n))
	}
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
	for i, dh := range r.dh {
		z, n := dz[i], dn[i]
		a[i] = dh * (1 - z)
		b[i] = dh * (r.hOld[i] - n)
		r.dh[i] = dh * z
	}
	r.inGrad(dn, a)
	r.gateGrad(dz, b)
	if r.e.Cell == device.GRUBefore {
		return
	}
	side, dside := r.normalizedSide(), r.side
	if !r.e.NormX.Zero() {
		dside = side
	}
	r.set.Mul(a, dn, side)
	r.set.Mul(dside, dn, dr) // dr is still r
	r.gateGrad(dr, a)
	r.normalizeGrad(dside)
}

// plainGRUBackward is gruBackward of the logistic and tanh GRU, in one loop.
func plainGRUBackward(r *row) {
	H := r.h
	dr, dz, dn, side, hOld := r.gates[:H], r.gates[H:2*H], r.gates[2*H:3*H], r.side[:H], r.hOld[:H]
	for i, dh := range r.dh[:H] {
		rt, z, n := dr[i], dz[i], dn[i]
		pre := dh * (1 - z) * (1 - float32(n*n)) // dL/d(W·x + b + r⊙side)
		dz[i] = dh * (hOld[i] - n) * z * (1 - z)
		dr[i] = pre * side[i] * rt * (1 - rt)
		dn[i] = pre
		side[i] = pre * rt
		r.dh[i] = dh * z
	}
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
