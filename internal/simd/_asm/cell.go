package main

import (
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// cells writes the recurrent cells. Their reference loops are those of generic.go.
func (g *gen) cells() {
	g.lstm()
	g.lstmGrad()
	g.gru()
	g.gruGrad()
}

var cellConstants = append([]string{"expmin"}, tanhConstants...)

// gates returns the addresses of n gate vectors, h elements apart.
func (g *gen) gates(n int, first, h GPVirtual) []GPVirtual {
	p := []GPVirtual{first}
	for i := 1; i < n; i++ {
		p = append(p, g.GP64())
		g.LEAQ(Mem{Base: p[i-1], Index: h, Scale: 4}, p[i])
	}
	return p
}

// rows writes a loop of body over rows rows, at least one, and the end of the
// function. After each row the arrays advance by n elements, the gates by n each.
func (g *gen) rows(rows, n GPVirtual, gates, arrays []GPVirtual, body func()) {
	next := g.label("row")
	g.Label(next)
	body()
	for _, p := range arrays {
		g.LEAQ(Mem{Base: p, Index: n, Scale: 4}, p)
	}
	bytes := g.GP64()
	g.IMUL3Q(Imm(uint64(4*len(gates))), n, bytes)
	for _, p := range gates {
		g.ADDQ(bytes, p)
	}
	g.DECQ(rows)
	g.JNZ(LabelRef(next))
	g.end()
}

// lstm passes over each row twice: with tanh(c) in the same pass, at the end of the
// chain of the gates, too few instructions would be independent of each other.
func (g *gen) lstm() {
	a := g.kernel("lstm", "CellArgs", "is one LSTM step of some rows.")
	p := g.fields(a, "H", "Gates", "CPrev", "C", "Hid", "Rows", "Units", "Out")
	n, cPrev, c, hid, units, out := p[0], p[2], p[3], p[4], p[6], p[7]
	gates := g.gates(4, p[1], n)
	g.hold(cellConstants...)
	g.rows(p[5], n, gates, p[2:5], func() {
		g.lstmRow(units, cPrev, c, hid, out, gates)
		ld := g.GP64()
		g.Load(a.Field("LDOut"), ld)
		g.LEAQ(Mem{Base: out, Index: ld, Scale: 4}, out)
	})
}

func (g *gen) lstmRow(n, cPrev, c, hid, out GPVirtual, gates []GPVirtual) {
	g.pass(n, func(off Register, m mask) {
		var x [4]VecVirtual // i, f, g, o
		for gate := range x {
			x[gate] = g.load(m, at(gates[gate], off))
		}
		in, cell, cand := x[0], x[1], x[2]
		g.sigmoid(in, cell, x[3])
		g.tanh(cand)
		for gate := range x {
			g.store(m, x[gate], at(gates[gate], off))
		}
		g.VMULPS(in, cand, in)
		g.VFMADD213PS(in, g.load(m, at(cPrev, off)), cell)
		g.store(m, cell, at(c, off))
	})
	g.pass(n, func(off Register, m mask) {
		cell := g.load(m, at(c, off))
		g.tanh(cell)
		g.VMULPS(g.load(m, at(gates[3], off)), cell, cell)
		g.store(m, cell, at(hid, off))
		g.store(m, cell, at(out, off))
	})
}

func (g *gen) lstmGrad() {
	a := g.kernel("lstmGrad", "CellArgs", "is the backward pass of lstm.")
	p := g.fields(a, "H", "Gates", "CPrev", "C", "DHid", "DC", "Rows", "Units")
	n, cPrev, c, dHid, dC, units := p[0], p[2], p[3], p[4], p[5], p[7]
	gates := g.gates(4, p[1], n)
	g.hold(tanhConstants...)
	g.rows(p[6], n, gates, p[2:6], func() { g.lstmGradRow(units, cPrev, c, dHid, dC, gates) })
}

func (g *gen) lstmGradRow(n, cPrev, c, dHid, dC GPVirtual, gates []GPVirtual) {
	g.pass(n, func(off Register, m mask) {
		load := func(p Register) VecVirtual { return g.load(m, at(p, off)) }
		// store writes d·y·(1-y), the gradient of the argument of a sigmoid of value y.
		store := func(gate int, d, y VecVirtual) {
			g.slopes(d, y)
			g.store(m, d, at(gates[gate], off))
		}
		tanhC, dh := load(c), load(dHid)
		g.tanh(tanhC)
		out := load(gates[3])
		dc := load(dC)
		slope, t := g.copyOf(g.konst("one")), g.vec()
		g.VFNMADD231PS(tanhC, tanhC, slope)
		g.VMULPS(out, dh, t)
		g.VFMADD231PS(slope, t, dc) // dc += dh·o·(1 - tanh²c)
		g.VMULPS(tanhC, dh, dh)
		store(3, dh, out)

		forget, d := load(gates[1]), g.vec()
		g.VMULPS(forget, dc, d)
		g.store(m, d, at(dC, off))
		prev := load(cPrev)
		g.VMULPS(dc, prev, prev)
		store(1, prev, forget)

		in, cand := load(gates[0]), load(gates[2])
		g.VMULPS(in, dc, d)
		g.VMULPS(cand, dc, dc)
		store(0, dc, in)
		slope = g.copyOf(g.konst("one"))
		g.VFNMADD231PS(cand, cand, slope)
		g.VMULPS(slope, d, d)
		g.store(m, d, at(gates[2], off))
	})
}

// gru is the step of CellArgs: side goes into the candidate, which is mixed with the old state.
func (g *gen) gru() {
	a := g.kernel("gru", "CellArgs", "is one GRU step of some rows.")
	p := g.fields(a, "H", "Gates", "Side", "HPrev", "Hid", "Rows", "Units", "Out")
	n, side, hPrev, hid, units, out := p[0], p[2], p[3], p[4], p[6], p[7]
	gates := g.gates(3, p[1], n)
	g.hold(cellConstants...)
	g.rows(p[5], n, gates, p[2:5], func() {
		g.pass(units, func(off Register, m mask) {
			load := func(p Register) VecVirtual { return g.load(m, at(p, off)) }
			reset, update := load(gates[0]), load(gates[1])
			g.sigmoid(reset, update)
			g.store(m, reset, at(gates[0], off))
			g.store(m, update, at(gates[1], off))
			cand := load(gates[2])
			g.VFMADD231PS(load(side), reset, cand)
			g.tanh(cand)
			g.store(m, cand, at(gates[2], off))
			old := load(hPrev)
			g.VSUBPS(cand, old, old)
			g.VFMADD231PS(old, update, cand) // n + z·(h-n)
			g.store(m, cand, at(hid, off))
			g.store(m, cand, at(out, off))
		})
		ld := g.GP64()
		g.Load(a.Field("LDOut"), ld)
		g.LEAQ(Mem{Base: out, Index: ld, Scale: 4}, out)
	})
}

func (g *gen) gruGrad() {
	a := g.kernel("gruGrad", "CellArgs", "is the backward pass of gru.")
	p := g.fields(a, "H", "Gates", "Side", "HPrev", "DHid", "Rows", "Units")
	n, side, hPrev, dHid, units := p[0], p[2], p[3], p[4], p[6]
	gates := g.gates(3, p[1], n)
	g.hold("one")
	g.rows(p[5], n, gates, p[2:5], func() {
		g.pass(units, func(off Register, m mask) {
			load := func(p Register) VecVirtual { return g.load(m, at(p, off)) }
			dh, update, cand := load(dHid), load(gates[1]), load(gates[2])
			d := g.vec()
			g.VMULPS(update, dh, d)
			g.store(m, d, at(dHid, off))
			pre := g.copyOf(g.konst("one")) // dL/d(W·x + b + r·side)
			g.VSUBPS(update, pre, pre)
			g.VMULPS(pre, dh, pre)
			d = load(hPrev)
			g.VSUBPS(cand, d, d)
			g.VMULPS(dh, d, d)
			g.slopes(d, update)
			g.store(m, d, at(gates[1], off))

			slope := g.copyOf(g.konst("one"))
			g.VFNMADD231PS(cand, cand, slope)
			g.VMULPS(slope, pre, pre)
			g.store(m, pre, at(gates[2], off))
			reset, s := load(gates[0]), load(side)
			g.VMULPS(pre, s, s)
			g.slopes(s, reset)
			g.store(m, s, at(gates[0], off))
			g.VMULPS(reset, pre, pre)
			g.store(m, pre, at(side, off))
		})
	})
}
