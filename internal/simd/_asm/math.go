package main

import (
	. "github.com/mmcloughlin/avo/reg"
)

// The functions of generic.go, expf and its kin, on vectors, with fused multiply-adds.

// Constants that exp, sigmoid and tanh want held in registers.
var (
	reduceConstants  = []string{"log2e", "ln2hi", "ln2lo", "exp5", "exp4", "exp3", "exp2", "exp1", "exp0", "one"}
	expConstants     = append([]string{"expmax", "expmin"}, reduceConstants...)
	sigmoidConstants = append([]string{"expmin", "sign"}, reduceConstants...)
	tanhConstants    = append([]string{"tanhmax", "two", "abs", "sign"}, reduceConstants...)
)

// reduce replaces x by r and gives n and q, where e^x = 2^n · e^r and e^r = 1 + r + r²·q.
func (g *gen) reduce(x VecVirtual) (n, q VecVirtual) {
	n = g.vec()
	g.VMULPS(g.konst("log2e"), x, n)
	g.round(n)
	g.VFNMADD231PS(g.konst("ln2hi"), n, x)
	g.VFNMADD231PS(g.konst("ln2lo"), n, x)
	q = g.copyOf(g.konst("exp5"))
	for _, c := range []string{"exp4", "exp3", "exp2", "exp1", "exp0"} {
		g.VFMADD213PS(g.konst(c), x, q)
	}
	return n, q
}

// expReduced replaces x by e^x for x within the clamps.
func (g *gen) expReduced(x VecVirtual) {
	n, q := g.reduce(x)
	g.VFMADD213PS(g.konst("one"), x, q)
	g.VFMADD213PS(g.konst("one"), q, x) // 1 + r·(1 + r·q): the fewest roundings
	g.scale(x, n)
}

// clampBelow and clampAbove limit x; NaN stays NaN, which is why x is the second source.
func (g *gen) clampBelow(x VecVirtual, limit string) { g.VMAXPS(x, g.konstReg(limit), x) }
func (g *gen) clampAbove(x VecVirtual, limit string) { g.VMINPS(x, g.konstReg(limit), x) }

// exp replaces x by e^x.
func (g *gen) exp(x VecVirtual) {
	g.clampAbove(x, "expmax")
	g.clampBelow(x, "expmin")
	g.expReduced(x)
}

// sigmoid replaces x by 1/(1+e^-x), as e/(1+e) or 1/(1+e) with e = e^-|x|.
func (g *gen) sigmoid(x VecVirtual) {
	e := g.vec()
	g.VORPS(g.konst("sign"), x, e) // -|x|
	g.clampBelow(e, "expmin")
	g.expReduced(e)
	below, one := g.vec(), g.konstReg("one")
	g.VADDPS(one, e, below)
	if g.wide() {
		negative := g.K()
		g.VPMOVD2M(x, negative)
		g.VBLENDMPS(e, one, negative, x)
	} else {
		g.VBLENDVPS(x, e, one, x)
	}
	g.VDIVPS(below, x, x)
}

// tanh replaces x by tanh x = E/(E+2), E = e^2|x| - 1, with the sign of x.
func (g *gen) tanh(x VecVirtual) {
	y, sign := g.vec(), g.vec()
	g.VANDPS(g.konst("sign"), x, sign)
	g.VANDPS(g.konst("abs"), x, y)
	g.clampAbove(y, "tanhmax")
	g.VADDPS(y, y, y)
	n, q := g.reduce(y)
	s, less := g.pow2(n), g.vec()
	g.VMULPS(y, y, less)
	g.VFMADD231PS(less, q, y) // e^r - 1
	g.VSUBPS(g.konst("one"), s, less)
	g.VFMADD213PS(less, s, y) // E = s·(e^r - 1) + (s - 1)
	g.VADDPS(g.konst("two"), y, less)
	g.VDIVPS(less, y, x)
	g.VORPS(sign, x, x)
}
