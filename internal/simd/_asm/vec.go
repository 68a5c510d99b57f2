package main

import (
	"log"

	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vectors writes the elementwise kernels and the reductions. Their reference
// loops are those of generic.go.
func (g *gen) vectors() {
	g.mapping("exp", "is Dst = e^A.", expConstants, g.exp)
	g.mapping("sigmoid", "is Dst = 1/(1+e^-A).", sigmoidConstants, g.sigmoid)
	g.mapping("tanh", "is Dst = tanh A.", tanhConstants, g.tanh)

	g.elementwise("add", "is Dst = A + B.", []string{"A", "B"}, func(_ Op, x []VecVirtual) {
		g.VADDPS(x[1], x[0], x[0])
	})
	g.elementwise("mul", "is Dst = A * B.", []string{"A", "B"}, func(_ Op, x []VecVirtual) {
		g.VMULPS(x[1], x[0], x[0])
	})
	g.elementwise("mulAdd", "is Dst += A * B.", []string{"Dst", "A", "B"}, func(_ Op, x []VecVirtual) {
		g.VFMADD231PS(x[1], x[2], x[0])
	})
	g.elementwise("sub", "is Dst = A - B.", []string{"A", "B"}, func(_ Op, x []VecVirtual) {
		g.VSUBPS(x[1], x[0], x[0])
	})
	g.elementwise("div", "is Dst = A / B.", []string{"A", "B"}, func(_ Op, x []VecVirtual) {
		g.VDIVPS(x[1], x[0], x[0])
	})
	g.elementwise("max", "is Dst = max(A, B), NaN if one is.", []string{"A", "B"}, func(_ Op, x []VecVirtual) {
		// Of a NaN and a number, the instruction takes the second operand.
		second := g.copyOf(x[0])
		g.VMAXPS(x[1], second, second)
		g.VMAXPS(x[0], x[1], x[0])
		g.VORPS(second, x[0], x[0])
	})
	g.elementwise("lerp", "is Dst = A + C * (B-A).", []string{"A", "B", "C"}, func(_ Op, x []VecVirtual) {
		g.VSUBPS(x[0], x[1], x[1])
		g.VFMADD231PS(x[1], x[2], x[0])
	})
	g.elementwise("sigmoidGrad", "is Dst = A * Dst*(1-Dst).", []string{"Dst", "A"}, func(_ Op, x []VecVirtual) {
		g.slopes(x[1], x[0])
		g.VMOVAPS(x[1], x[0])
	})
	g.elementwise("tanhGrad", "is Dst = A * (1-Dst²).", []string{"Dst", "A"}, func(_ Op, x []VecVirtual) {
		slope := g.copyOf(g.konst("one"))
		g.VFNMADD231PS(x[0], x[0], slope)
		g.VMULPS(slope, x[1], x[0])
	})
	g.elementwise("flush", "is Dst = A without subnormal numbers.", []string{"A"}, func(_ Op, x []VecVirtual) {
		g.VMULPS(g.konst("one"), x[0], x[0])
	})
	g.elementwise("shift", "is Dst = A + Alpha.", []string{"A"}, func(alpha Op, x []VecVirtual) {
		g.VADDPS(alpha, x[0], x[0])
	})
	g.elementwise("axpy", "is Dst += Alpha * A.", []string{"Dst", "A"}, func(alpha Op, x []VecVirtual) {
		g.VFMADD231PS(x[1], alpha, x[0])
	})
	g.elementwise("scale", "is Dst *= Alpha.", []string{"Dst"}, func(alpha Op, x []VecVirtual) {
		g.VMULPS(alpha, x[0], x[0])
	})

	g.ema()
	g.flushFar()
	g.halves()
	g.reduction("sum", "is Out = Σ A.", []string{"A"}, func(acc Op, x []VecVirtual) {
		g.VADDPS(x[0], acc, acc)
	})
	g.reduction("dot", "is Out = Σ A * B.", []string{"A", "B"}, func(acc Op, x []VecVirtual) {
		g.VFMADD231PS(x[0], x[1], acc)
	})
	g.adam()
}

// slopes multiplies d by y·(1-y), the slope of a logistic function of value y.
func (g *gen) slopes(d, y VecVirtual) {
	rest := g.copyOf(g.konst("one"))
	g.VSUBPS(y, rest, rest)
	g.VMULPS(y, rest, rest)
	g.VMULPS(rest, d, d)
}

// loop is pass, after which the function returns.
func (g *gen) loop(n GPVirtual, body func(off Register, m mask)) {
	g.pass(n, body)
	g.end()
}

// pass writes a loop of body over length elements, a vector at a time, the last one
// with a mask if necessary, so that an element's bits do not depend on its position.
// The current vectors are at byte offset off in the arrays.
func (g *gen) pass(length GPVirtual, body func(off Register, m mask)) {
	n := g.GP64()
	g.MOVQ(length, n)
	head, tail, done := g.label("vector"), g.label("tail"), g.label("done")
	off := g.GP64()
	g.XORQ(off, off)
	g.SUBQ(Imm(uint64(g.isa.lanes)), n)
	g.JLT(LabelRef(tail))
	g.Label(head)
	body(off, mask{})
	g.ADDQ(Imm(uint64(g.bytes())), off)
	g.SUBQ(Imm(uint64(g.isa.lanes)), n)
	g.JGE(LabelRef(head))
	g.Label(tail)
	g.ADDQ(Imm(uint64(g.isa.lanes)), n)
	g.JEQ(LabelRef(done))
	body(off, g.firstLanes(n))
	g.Label(done)
}

// at addresses the vector at byte offset off of an array.
func at(array, off Register) Mem { return Mem{Base: array, Index: off, Scale: 1} }

// fields loads integer or pointer fields of the argument struct into new registers.
func (g *gen) fields(a gotypes.Component, names ...string) []GPVirtual {
	var rs []GPVirtual
	for _, name := range names {
		r := g.GP64()
		g.Load(a.Field(name), r)
		rs = append(rs, r)
	}
	return rs
}

// address is where a field of the argument struct lies.
func address(a gotypes.Component, name string) Mem {
	b, err := a.Field(name).Resolve()
	if err != nil {
		log.Fatal(name, ": ", err)
	}
	return b.Addr
}

// broadcast is a float32 field in every lane.
func (g *gen) broadcast(a gotypes.Component, name string) VecVirtual {
	v := g.vec()
	g.VBROADCASTSS(address(a, name), v)
	return v
}

// mapping writes a function of one argument.
func (g *gen) mapping(name, doc string, constants []string, f func(xs ...VecVirtual)) {
	a := g.kernel(name, "vecArgs", doc)
	p := g.fields(a, "Dst", "A", "N")
	g.hold(constants...)
	g.loop(p[2], func(off Register, m mask) {
		x := g.load(m, at(p[1], off))
		f(x)
		g.store(m, x, at(p[0], off))
	})
}

// elementwise writes a kernel that loads vectors of some arrays and stores the first of them, as f left it, to Dst.
func (g *gen) elementwise(name, doc string, arrays []string, f func(alpha Op, x []VecVirtual)) {
	a := g.kernel(name, "vecArgs", doc)
	p := g.fields(a, arrays...)
	dst, n := g.fields(a, "Dst")[0], g.fields(a, "N")[0]
	alpha := g.broadcast(a, "Alpha")
	g.hold("one")
	g.loop(n, func(off Register, m mask) {
		var x []VecVirtual
		for _, array := range p {
			x = append(x, g.load(m, at(array, off)))
		}
		f(alpha, x)
		g.store(m, x[0], at(dst, off))
	})
}

// ema writes the step of a moving average, as emaGeneric does it: in float64, because a
// change that is small beside the average would else be lost, and without fused
// multiply-adds.
func (g *gen) ema() {
	a := g.kernel("ema", "vecArgs", "is Dst += Alpha * (A-Dst), in float64 and rounded once.")
	p := g.fields(a, "Dst", "A", "N")
	alpha, _ := g.widen(g.broadcast(a, "Alpha"))
	least, sign := g.double("normal"), g.double("sign")
	g.loop(p[2], func(off Register, m mask) {
		dst, src := at(p[0], off), at(p[1], off)
		var sums [2]VecVirtual
		sums[0], sums[1] = g.widen(g.load(m, dst))
		low, high := g.widen(g.load(m, src))
		for i, change := range []VecVirtual{low, high} {
			g.VSUBPD(sums[i], change, change)
			g.VMULPD(alpha, change, change)
			g.VADDPD(change, sums[i], sums[i])
			g.flushDoubles(sums[i], least, sign)
		}
		g.store(m, g.narrow(sums[0], sums[1]), dst)
	})
}

// flushDoubles leaves zeros with their signs of what is below least. Flush to zero would not
// do: it rounds to 24 bits first, which may lift a number to least.
func (g *gen) flushDoubles(x, least, sign VecVirtual) {
	size := g.vec()
	g.VANDNPD(x, sign, size)
	if g.wide() {
		low := g.K()
		g.VCMPPD(Imm(0x11), least, size, low)
		g.VANDPD(sign, x, low, x)
		return
	}
	g.VCMPPD(Imm(0x11), least, size, size)
	g.VANDNPD(size, sign, size)
	g.VANDNPD(x, size, x)
}

// double is a constant, of 32 bits, as float64 in every lane.
func (g *gen) double(name string) VecVirtual {
	v := g.vec()
	g.VBROADCASTSS(g.table(name), v)
	v, _ = g.widen(v)
	return v
}

// widen converts the lower and the upper half of a vector to float64.
func (g *gen) widen(x VecVirtual) (low, high VecVirtual) {
	low, high = g.vec(), g.vec()
	if g.wide() {
		g.VCVTPS2PD(x.AsY(), low)
		g.VEXTRACTF64X4(Imm(1), x, high.AsY())
		g.VCVTPS2PD(high.AsY(), high)
		return low, high
	}
	g.VCVTPS2PD(x.AsX(), low)
	g.VEXTRACTF128(Imm(1), x, high.AsX())
	g.VCVTPS2PD(high.AsX(), high)
	return low, high
}

// narrow is the inverse of widen, with rounding.
func (g *gen) narrow(low, high VecVirtual) VecVirtual {
	if g.wide() {
		g.VCVTPD2PS(low, low.AsY())
		g.VCVTPD2PS(high, high.AsY())
		g.VINSERTF64X4(Imm(1), high.AsY(), low, low)
		return low
	}
	g.VCVTPD2PSY(low, low.AsX())
	g.VCVTPD2PSY(high, high.AsX())
	g.VINSERTF128(Imm(1), high.AsX(), low, low)
	return low
}

// flushFar writes flush past the caches, for more elements than they hold: the
// processor need not read lines before it writes them, and nothing is displaced from
// the caches. Dst begins on a vector, and N is a positive multiple of 64.
func (g *gen) flushFar() {
	a := g.kernel("flushFar", "vecArgs", "is flush past the caches.")
	p := g.fields(a, "Dst", "A", "N")
	dst, src, n := p[0], p[1], p[2]
	g.hold("one")
	g.Label("block")
	for i := range 64 / g.isa.lanes {
		x := g.load(mask{}, Mem{Base: src, Disp: i * g.bytes()})
		g.VMULPS(g.konst("one"), x, x)
		g.VMOVNTPS(x, Mem{Base: dst, Disp: i * g.bytes()})
	}
	g.ADDQ(I32(256), src)
	g.ADDQ(I32(256), dst)
	g.SUBQ(Imm(64), n)
	g.JNE(LabelRef("block"))
	g.SFENCE()
	g.end()
}

// halves writes the conversions to and from 16 bits, for whole vectors.
func (g *gen) halves() {
	from := func(name, doc string, widen func(src Mem, x VecVirtual)) {
		a := g.kernel("fromHalf"+name, "halfArgs", doc)
		p := g.fields(a, "Half", "Wide", "N")
		g.hold("one")
		g.eachVector(p[2], p[0], p[1], func() {
			x := g.vec()
			widen(Mem{Base: p[0]}, x)
			g.VMOVUPS(x, Mem{Base: p[1]})
		})
	}
	to := func(name, doc string, constants []string, narrow func(x VecVirtual, dst Mem)) {
		a := g.kernel("toHalf"+name, "halfArgs", doc)
		p := g.fields(a, "Half", "Wide", "N")
		g.hold(constants...)
		g.eachVector(p[2], p[0], p[1], func() {
			x := g.vec()
			g.VMOVUPS(Mem{Base: p[1]}, x)
			narrow(x, Mem{Base: p[0]})
		})
	}
	from("BF16", "is Wide = Half.", func(src Mem, x VecVirtual) {
		g.VPMOVZXWD(src, x)
		g.VPSLLD(Imm(16), x, x)
	})
	from("FP16", "is Wide = Half.", func(src Mem, x VecVirtual) { g.VCVTPH2PS(src, x) })
	from("Unit", "is Wide = Half, with a sign its distance from 1.", func(src Mem, x VecVirtual) {
		one := g.vec()
		g.VCVTPH2PS(src, x)
		g.VPSRAD(Imm(31), x, one)
		g.both(g.konstReg("one"), one, one)
		g.VADDPS(one, x, x)
	})
	to("Unit", "is Half = Wide or, with a sign, its distance from 1, the smaller one, rounded.", []string{"one", "sign"}, func(x VecVirtual, dst Mem) {
		near := g.copyOf(x)
		g.round(near) // 0 or 1
		g.VSUBPS(near, x, x)
		g.VPSLLD(Imm(2), near, near) // a sign if it is 1
		sign := g.vec()
		g.both(g.konst("sign"), near, sign)
		g.VORPS(sign, x, x)
		g.VCVTPS2PH(Imm(0), x, dst)
	})
	to("FP16", "is Half = Wide, rounded.", nil, func(x VecVirtual, dst Mem) { g.VCVTPS2PH(Imm(0), x, dst) })
	to("BF16", "is Half = Wide, rounded.", []string{"one", "lsb", "below", "abs"}, func(x VecVirtual, dst Mem) {
		g.VMULPS(g.konst("one"), x, x) // without subnormal numbers, and NaNs quiet
		sign, odd := g.vec(), g.vec()
		and, or := g.both, g.VPOR
		if g.wide() {
			or = func(a, b, to Op) { g.VPORD(a, b, to) }
		}
		g.VPSRLD(Imm(16), x, odd)
		and(g.konst("lsb"), odd, odd)
		g.VPADDD(g.konst("below"), odd, odd)
		and(g.konst("abs"), x, sign)
		g.VPADDD(sign, odd, odd)
		g.VPMINUD(g.konst("abs"), odd, odd) // the greatest NaN stays one
		g.VPSRLD(Imm(16), odd, odd)
		g.VPSRLD(Imm(31), x, x)
		g.VPSLLD(Imm(15), x, x)
		or(odd, x, x)
		if g.wide() {
			g.VPMOVDW(x, dst)
			return
		}
		g.VPACKUSDW(x, x, x)
		g.VPERMQ(Imm(0x08), x, x)
		g.VMOVUPS(x.AsX(), dst)
	})
}

// both is to = a and b, bit by bit.
func (g *gen) both(a, b, to Op) {
	if g.wide() {
		g.VPANDD(a, b, to)
		return
	}
	g.VPAND(a, b, to)
}

// eachVector writes a loop over n elements, a positive multiple of a vector's, of a 16-bit and a float32 array.
func (g *gen) eachVector(n, half, wide GPVirtual, body func()) {
	g.Label("vector")
	body()
	g.ADDQ(Imm(uint64(g.bytes()/2)), half)
	g.ADDQ(Imm(uint64(g.bytes())), wide)
	g.SUBQ(Imm(uint64(g.isa.lanes)), n)
	g.JNE(LabelRef("vector"))
	g.end()
}

// reduction writes a sum over 64 lanes: element i goes to lane i mod 64, and
// the lanes are folded in halves, 32 onto 32, 16 onto 16 and so on, which is
// the same order for both instruction sets.
func (g *gen) reduction(name, doc string, arrays []string, f func(acc Op, x []VecVirtual)) {
	a := g.kernel(name, "vecArgs", doc)
	p := g.fields(a, arrays...)
	n := g.fields(a, "N")[0]
	accs := make([]VecVirtual, 64/g.isa.lanes)
	for i := range accs {
		accs[i] = g.vec()
		g.VXORPS(accs[i], accs[i], accs[i])
	}
	step := func(i int, off Register, m mask) {
		var x []VecVirtual
		for _, array := range p {
			from := at(array, off)
			from.Disp = i * g.bytes()
			x = append(x, g.load(m, from))
		}
		f(accs[i], x)
	}
	head, tail, fold := g.label("block"), g.label("tail"), g.label("fold")
	off := g.GP64()
	g.XORQ(off, off)
	g.SUBQ(Imm(64), n)
	g.JLT(LabelRef(tail))
	g.Label(head)
	for i := range accs {
		step(i, off, mask{})
	}
	g.ADDQ(I32(256), off)
	g.SUBQ(Imm(64), n)
	g.JGE(LabelRef(head))
	g.Label(tail)
	g.ADDQ(Imm(64), n)
	for i := range accs {
		g.CMPQ(n, Imm(0))
		g.JLE(LabelRef(fold))
		step(i, off, g.firstLanes(n))
		g.SUBQ(Imm(uint64(g.isa.lanes)), n)
	}
	g.Label(fold)
	g.foldLanes(accs, address(a, "Out"))
	g.end()
}

// foldLanes adds vectors and then lanes in halves and stores the sum.
func (g *gen) foldLanes(accs []VecVirtual, out Mem) {
	for half := len(accs) / 2; half > 0; half /= 2 {
		for i := range half {
			g.VADDPS(accs[i+half], accs[i], accs[i])
		}
	}
	acc, other := accs[0], g.vec()
	if g.wide() {
		g.VEXTRACTF64X4(Imm(1), acc, other.AsY())
		g.VADDPS(other.AsY(), acc.AsY(), acc.AsY())
	}
	g.VEXTRACTF128(Imm(1), acc.AsY(), other.AsX())
	g.VADDPS(other.AsX(), acc.AsX(), acc.AsX())
	g.VPERMILPS(Imm(0b01_00_11_10), acc.AsX(), other.AsX())
	g.VADDPS(other.AsX(), acc.AsX(), acc.AsX())
	g.VMOVSHDUP(acc.AsX(), other.AsX())
	g.VADDSS(other.AsX(), acc.AsX(), acc.AsX())
	g.VMOVSS(acc.AsX(), out)
}

// adam writes the optimizer step of AdamArgs.
func (g *gen) adam() {
	a := g.kernel("adam", "AdamArgs", "is one step of Adam.")
	p := g.fields(a, "W", "G", "M", "V", "N")
	scale, l2, keep := g.broadcast(a, "GScale"), g.broadcast(a, "L2"), g.broadcast(a, "Keep")
	w1, beta2, w2 := g.broadcast(a, "OneMinusBeta1"), g.broadcast(a, "Beta2"), g.broadcast(a, "OneMinusBeta2")
	step, root2, eps := g.broadcast(a, "StepSize"), g.broadcast(a, "SqrtBias2"), g.broadcast(a, "Eps")
	g.loop(p[4], func(off Register, m mask) {
		weight, grad := g.load(m, at(p[0], off)), g.load(m, at(p[1], off))
		g.VMULPS(scale, grad, grad)
		g.VFMADD231PS(l2, weight, grad)

		x := g.load(m, at(p[2], off))
		change := g.vec()
		g.VSUBPS(x, grad, change)
		g.VFMADD231PS(w1, change, x)
		g.store(m, x, at(p[2], off))
		g.VMULPS(step, x, x)

		v := g.load(m, at(p[3], off))
		g.VMULPS(beta2, v, v)
		g.VMULPS(w2, grad, change)
		g.VFMADD231PS(change, grad, v)
		g.store(m, v, at(p[3], off))

		g.VSQRTPS(v, v)
		g.VDIVPS(root2, v, v)
		g.VADDPS(eps, v, v)
		g.VDIVPS(v, x, x)
		g.VFMSUB213PS(x, keep, weight)
		g.store(m, weight, at(p[0], off))
		g.VXORPS(v, v, v)
		g.store(m, v, at(p[1], off))
	})
}
