package main

import (
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// probes writes the loops that measure the machine; see probe.go of package bench.
func (g *gen) probes() {
	g.probeFMA()
	g.probeRead()
}

// probeFMA keeps every multiply-add unit busy: three chains to each of the
// eight results that two units of latency four have under way, or half as many
// where there are half the registers. Out sums the first lanes of the chains.
func (g *gen) probeFMA() {
	a := g.function("probeFMA", "probeArgs", "is N rounds of x = Alpha*x + Alpha, from 0, in every chain.")
	rounds := g.fields(a, "N")[0]
	alpha := g.broadcast(a, "Alpha")
	chains := make([]VecVirtual, 3*len(g.isa.regs)/4)
	for i := range chains {
		chains[i] = g.vec()
		g.VXORPS(chains[i], chains[i], chains[i])
	}
	g.Label("round")
	for _, x := range chains {
		g.VFMADD213PS(alpha, alpha, x)
	}
	g.DECQ(rounds)
	g.JNE(LabelRef("round"))
	for _, x := range chains[1:] {
		g.VADDPS(x, chains[0], chains[0])
	}
	g.VMOVSS(chains[0].AsX(), address(a, "Out"))
	g.end()
}

// probeRead loads blocks of eight vectors. Out holds what exclusive or leaves
// of the first lanes, so that the loads can be checked.
func (g *gen) probeRead() {
	const vectors = 8
	a := g.function("probeRead", "probeArgs", "reads N elements at A, a positive multiple of 8 vectors.")
	p := g.fields(a, "A", "N")
	from, n := p[0], p[1]
	var accs [vectors]VecVirtual
	for i := range accs {
		accs[i] = g.vec()
		g.VXORPS(accs[i], accs[i], accs[i])
	}
	g.Label("block")
	for i, acc := range accs {
		g.VXORPS(Mem{Base: from, Disp: i * g.bytes()}, acc, acc)
	}
	g.ADDQ(I32(int32(vectors*g.bytes())), from)
	g.SUBQ(I32(int32(vectors*g.isa.lanes)), n)
	g.JNE(LabelRef("block"))
	for _, acc := range accs[1:] {
		g.VXORPS(acc, accs[0], accs[0])
	}
	g.VMOVSS(accs[0].AsX(), address(a, "Out"))
	g.end()
}
