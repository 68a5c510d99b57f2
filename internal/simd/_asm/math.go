package main

import (
	. "github.com/mmcloughlin/avo/reg"
)

// The functions of generic.go, expf and its kin, on vectors, with fused multiply-adds.

// Constants that exp, sigmoid and tanh use from registers.
var (
	reduceConstants  = []string{"log2e", "ln2hi", "ln2lo", "exp4", "exp3", "exp2", "exp1", "exp0", "one"}
	expConstants     = append([]string{"expmax", "expmin"}, reduceConstants...)
	sigmoidConstants = append([]string{"expmin", "sign"}, reduceConstants...)
	tanhConstants    = append([]string{"tanhmax", "two", "abs", "sign"}, reduceConstants...)
)

// The functions take any number of vectors and go through them in step, because
// the chain of one is much longer than its work.

// reduce replaces each x by r and returns n and q, where e^x = 2^n · e^r and e^r = 1 + r + r²·q.
func (g *gen) reduce(xs ...VecVirtual) (ns, qs []VecVirtual) {
	ns, qs = g.vecs(len(xs)), g.vecs(len(xs))
	for i, n := range ns {
		g.VMULPS(g.konst("log2e"), xs[i], n)
	}
	for _, n := range ns {
		g.round(n)
	}
	for _, c := range []string{"ln2hi", "ln2lo"} {
		for i, n := range ns {
			g.VFNMADD231PS(g.konst(c), n, xs[i])
		}
	}
	for _, q := range qs {
		g.VMOVAPS(g.konst("exp4"), q)
	}
	for _, c := range []string{"exp3", "exp2", "exp1", "exp0"} {
		for i, q := range qs {
			g.VFMADD213PS(g.konst(c), xs[i], q)
		}
	}
	return ns, qs
}

// expReduced replaces each x by e^x for x within the clamps.
func (g *gen) expReduced(xs ...VecVirtual) {
	ns, qs := g.reduce(xs...)
	for i, q := range qs {
		g.VFMADD213PS(g.konst("one"), xs[i], q)
	}
	for i, q := range qs {
		g.VFMADD213PS(g.konst("one"), q, xs[i]) // 1 + r·(1 + r·q): the fewest roundings
	}
	g.scale(xs, ns)
}

// clampBelow and clampAbove limit each x; NaN stays NaN, which is why x is the second source.
func (g *gen) clampBelow(limit string, xs ...VecVirtual) {
	l := g.konstReg(limit)
	for _, x := range xs {
		g.VMAXPS(x, l, x)
	}
}

func (g *gen) clampAbove(limit string, xs ...VecVirtual) {
	l := g.konstReg(limit)
	for _, x := range xs {
		g.VMINPS(x, l, x)
	}
}

// exp replaces each x by e^x.
func (g *gen) exp(xs ...VecVirtual) {
	g.clampAbove("expmax", xs...)
	g.clampBelow("expmin", xs...)
	g.expReduced(xs...)
}

// sigmoid replaces each x by 1/(1+e^-x), as e/(1+e) or 1/(1+e) with e = e^-|x|.
func (g *gen) sigmoid(xs ...VecVirtual) {
	es := g.vecs(len(xs))
	for i, e := range es {
		g.VORPS(g.konst("sign"), xs[i], e) // -|x|
	}
	g.clampBelow("expmin", es...)
	g.expReduced(es...)
	one := g.konstReg("one")
	for i, x := range xs {
		if g.wide() {
			negative := g.K()
			g.VPMOVD2M(x, negative)
			g.VBLENDMPS(es[i], one, negative, x)
		} else {
			g.VBLENDVPS(x, es[i], one, x)
		}
		g.VADDPS(one, es[i], es[i])
	}
	for i, x := range xs {
		g.VDIVPS(es[i], x, x)
	}
}

// tanh replaces each x by tanh x = E/(E+2), E = e^2|x| - 1, with the sign of x.
func (g *gen) tanh(xs ...VecVirtual) {
	ys := g.vecs(len(xs))
	for i, y := range ys {
		g.VANDPS(g.konst("abs"), xs[i], y)
	}
	g.clampAbove("tanhmax", ys...)
	for _, y := range ys {
		g.VADDPS(y, y, y)
	}
	ns, qs := g.reduce(ys...)
	powers := g.pow2(ns)
	for i, y := range ys {
		s, q, less := powers[i], qs[i], ns[i]
		g.VMULPS(y, y, less)
		g.VFMADD231PS(less, q, y) // e^r - 1
		g.VSUBPS(g.konst("one"), s, less)
		g.VFMADD213PS(less, s, y) // E = s·(e^r - 1) + (s - 1)
		g.VADDPS(g.konst("two"), y, less)
		g.VDIVPS(less, y, y)
	}
	for i, x := range xs {
		g.VANDPS(g.konst("sign"), x, x)
		g.VORPS(ys[i], x, x)
	}
}
