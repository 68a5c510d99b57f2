package cpu

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// The LSTM (Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al.
// 2000) with its options:
//
//	i, f = σ(pre + p⊙c)   g = tanh(pre)      peepholes; with coupled gates f = 1-i
//	c̃ = clip(f⊙c + i⊙g)
//	o = σ(pre + p⊙c̃)      h = o⊙tanh(LN(c̃))
//	c' = zoneout(c, c̃)
//
// Without options the cell is one kernel: plainLSTM.

// lstmGates returns the four gates; a coupled forget gate is in a workspace.
func (r *row) lstmGates() (i, f, g, o []float32) {
	H := r.h
	if r.e.Cell == cell.CoupledLSTM {
		return r.gates[:H], r.scratch(forgetWork, H), r.gates[H : 2*H], r.gates[2*H:]
	}
	return r.gates[:H], r.gates[H : 2*H], r.gates[2*H : 3*H], r.gates[3*H:]
}

// peep adds p⊙c to a gate, if there is the peephole p.
func (r *row) peep(p cell.Param, gate, c []float32) {
	if r.e.Has(p) {
		r.set.MulAdd(gate, r.e.Params[p].Host, c)
	}
}

// peepGrad adds the gradient of such a gate to those of c and of the peephole.
func (r *row) peepGrad(p cell.Param, gate, dc, c []float32) {
	if r.e.Has(p) {
		r.set.MulAdd(dc, r.e.Params[p].Host, gate)
		r.set.MulAdd(r.collect(p, r.h), gate, c)
	}
}

func lstmForward(r *row) {
	e, set := r.e, r.set
	coupled := e.Cell == cell.CoupledLSTM
	r.normalize()
	i, f, g, o := r.lstmGates()
	r.peep(cell.PeepI, i, r.cOld)
	r.peep(cell.PeepF, f, r.cOld)
	r.gate(i)
	if coupled {
		oneMinus(f, i)
	} else {
		r.gate(f)
	}
	r.in(g)
	c := r.cNew
	if e.ZoneC > 0 {
		c = r.scratch(cellWorks, r.h)
	}
	r.newCell(c, i, f, g)
	r.peep(cell.PeepO, o, c)
	r.gate(o)
	set.Mul(r.out, o, r.shown(c))
	if e.ZoneC > 0 {
		mixZone(r.cNew, r.fresh(device.ZoneC, r.h), c, r.cOld)
	}
}

// newCell computes c = clip(f⊙cOld + i⊙g). With zoneout, the backward pass computes it again.
func (r *row) newCell(c, i, f, g []float32) {
	r.set.Mul(c, f, r.cOld)
	r.set.MulAdd(c, i, g)
	clampTo(c, r.e.CellClip)
}

// shown returns the activation of c, after its normalisation if there is one.
func (r *row) shown(c []float32) []float32 {
	e := r.e
	u := r.scratch(outWork, r.h)
	if !e.Has(cell.NormC) {
		copy(u, c)
	} else {
		xhat := r.scratch(normWork, r.h)
		copy(xhat, c)
		r.cStat = r.standardize(xhat)
		r.set.Mul(u, e.Params[cell.NormC].Host, xhat)
		if e.Has(cell.BiasC) {
			r.set.Add(u, u, e.Params[cell.BiasC].Host)
		}
	}
	activate(r.set, e.acts.out, u)
	return u
}

func lstmBackward(r *row) {
	e, set, H := r.e, r.set, r.h
	i, f, g, o := r.lstmGates()
	if e.Cell == cell.CoupledLSTM {
		oneMinus(f, i)
	}
	c, dc := r.cNew, r.dc
	if e.ZoneC > 0 {
		c, dc = r.scratch(cellWorks, H), r.scratch(gradWork3, H)
		r.newCell(c, i, f, g)
		splitZone(dc, r.dc, r.fresh(device.ZoneC, H))
	}
	u, d, k := r.shown(c), r.scratch(gradWork, H), r.scratch(gradWork2, H)
	set.Mul(d, r.dh, u)
	set.Mul(k, r.dh, o)
	r.gateGrad(o, d)
	activationGrad(set, e.acts.out, u, k)
	set.Add(dc, dc, r.shownGrad(u))
	r.peepGrad(cell.PeepO, o, dc, c)
	if e.CellClip > 0 {
		for j, v := range c {
			if v == e.CellClip || v == -e.CellClip {
				dc[j] = 0
			}
		}
	}
	r.lstmInputGrads(dc, i, f, g)
	r.normalizeGrad(nil)
}

// shownGrad returns the gradient of c from that of the normalised c.
func (r *row) shownGrad(du []float32) []float32 {
	e, set, H := r.e, r.set, r.h
	if !e.Has(cell.NormC) {
		return du
	}
	xhat := r.work[normWork][:H]
	set.MulAdd(r.collect(cell.NormC, H), du, xhat)
	if e.Has(cell.BiasC) {
		acc := r.collect(cell.BiasC, H)
		set.Add(acc, acc, du)
	}
	set.Mul(du, du, e.Params[cell.NormC].Host)
	r.standardizeGrad(xhat, du, r.cStat)
	return xhat
}

// lstmInputGrads computes the gradients of the pre-activations of i, f and g in place, and that of cOld in r.dc.
func (r *row) lstmInputGrads(dc, i, f, g []float32) {
	e, set, H := r.e, r.set, r.h
	di, dg := r.scratch(gradWork, H), r.scratch(gradWork2, H)
	set.Mul(di, dc, g)
	set.Mul(dg, dc, i)
	df := r.scratch(dfWork, H)
	set.Mul(df, dc, r.cOld)
	if e.ZoneC > 0 {
		set.MulAdd(r.dc, dc, f)
	} else {
		set.Mul(r.dc, dc, f)
	}
	if e.Cell == cell.CoupledLSTM {
		set.Axpy(-1, di, df)
	} else {
		r.gateGrad(f, df)
	}
	r.gateGrad(i, di)
	r.inGrad(g, dg)
	r.peepGrad(cell.PeepI, i, r.dc, r.cOld)
	r.peepGrad(cell.PeepF, f, r.dc, r.cOld)
}

func oneMinus(dst, src []float32) {
	dst = dst[:len(src)]
	for j, v := range src {
		dst[j] = 1 - v
	}
}
