package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The matrix tile is M rows of two vectors, all in registers over the whole
// depth. Each M has its own straight-line loop. Registers are assigned by hand:
//
//	accumulators first, then two for B, then the broadcast elements of A.
//	AX, BX, CX, DX: rows 0, 3, 6, 9 of A; rows between by index with SI = row stride.
//	R12: At, if the elements of a row are not evenly spaced; then R8 is no constant.
const unroll = 4

// abreast is package simd's Abreast where that is more than one.
var abreast = [...]int{1: 4, 2: 3, 3: 2}

var rowBase = []GPPhysical{RAX, RBX, RCX, RDX}

// gemm writes the Tiles of float32, whose reference loop is gemmTilesGeneric, and the kernels of Pack and PackT.
func (g *gen) gemm() {
	a := g.kernel("gemmTiles", "Tiles", "computes tiles of a matrix product one after the other.")
	tile := g.Dereference(a.Field("First"))
	left := g.AllocLocal(8)
	load := func(field string, r GPPhysical) GPPhysical {
		if of := tile.Field(field); perTile(of) {
			g.Load(of, r)
		} else {
			g.Load(a.Field(field), r)
		}
		return r
	}
	g.MOVQ(load("Count", RCX), left)
	g.Label("tile")
	next := func() { // the next tile, or the end
		g.ADDQ(Imm(uint64(g.size("Tile"))), address(tile, "M").Base)
		g.DECQ(left)
		g.JNE(LabelRef("tile"))
		g.end()
	}
	if g.wide() {
		g.columnMasks(load("N", RCX))
	}
	m := load("M", R8)
	for rows := g.isa.mr; rows > 1; rows-- {
		g.CMPQ(m, Imm(uint64(rows)))
		g.JEQ(LabelRef(fmt.Sprintf("rows%d", rows)))
	}
	for rows := 1; rows <= g.isa.mr; rows++ {
		g.Label(fmt.Sprintf("rows%d", rows))
		if rows < len(abreast) {
			g.CMPQ(load("N", RCX), Imm(uint64(2*g.isa.lanes)))
			g.JGT(LabelRef(fmt.Sprintf("abreast%d", rows)))
		}
		g.gemmRows(rows, load)
		next()
	}
	for rows := 1; rows < len(abreast); rows++ {
		g.Label(fmt.Sprintf("abreast%d", rows))
		g.gemmAbreast(rows, abreast[rows], load)
		next()
	}
	if !g.wide() {
		g.transpose()
		g.copyPanels()
	}
}

// perTile says whether a field is one of Tile, and not of Tiles.
func perTile(field gotypes.Component) bool {
	_, err := field.Resolve()
	return err == nil
}

// columnMasks sets K1 and K2 to the first n of 32 lanes.
func (g *gen) columnMasks(n GPPhysical) {
	g.MOVL(I32(-1), EBX)
	g.BZHIL(n.As32(), EBX, EBX)
	g.KMOVW(EBX, K1)
	g.SHRL(Imm(16), EBX)
	g.KMOVW(EBX, K2)
}

// acc is accumulator v, 0 or 1, of row r.
func (g *gen) acc(r, v int) VecPhysical { return g.isa.regs[2*r+v] }

func (g *gen) gemmRows(rows int, load func(string, GPPhysical) GPPhysical) {
	name := func(s string) string { return fmt.Sprintf("%s%d", s, rows) }
	ref := func(s string) LabelRef { return LabelRef(name(s)) }

	// Start from zero or from From.
	from := load("From", R8)
	g.TESTQ(from, from)
	g.JNE(ref("from"))
	for r := range rows {
		for v := range 2 {
			g.VXORPS(g.acc(r, v), g.acc(r, v), g.acc(r, v))
		}
	}
	g.JMP(ref("start"))
	g.Label(name("from"))
	g.eachRow(rows, from, load("LDFrom", R9), name("from"), load, func(r, v int, m mask, at Mem) {
		switch {
		case m.op == nil:
			g.VMOVUPS(at, g.acc(r, v))
		case g.wide():
			g.VMOVUPS_Z(at, m.op, g.acc(r, v))
		default:
			g.VMASKMOVPS(at, m.op, g.acc(r, v))
		}
	})

	g.Label(name("start"))
	g.fetchNext(rows, name("fetched"), load)
	depth := load("K", R11)
	load("A", RAX)
	load("RS", RSI)
	load("CS", R8)
	load("B", R9)
	load("LDB", R10)
	for _, stride := range []GPPhysical{R8, R10} {
		g.SHLQ(Imm(2), stride)
	}
	fetch := load("NextB", R13)
	g.TESTQ(fetch, fetch)
	g.CMOVQEQ(R9, fetch)
	further := load("K2", R15) // what is left to do after these
	places := load("At", R12)
	g.Label(name("product"))
	g.SHLQ(Imm(2), RSI)
	for b := 1; 3*b < rows; b++ {
		g.LEAQ(Mem{Base: rowBase[b-1], Index: RSI, Scale: 2}, rowBase[b])
		g.ADDQ(RSI, rowBase[b])
	}
	g.TESTQ(places, places)
	g.JNE(ref("scattered"))
	g.SUBQ(Imm(unroll), depth)
	g.JLT(ref("rest"))
	g.Label(name("loop"))
	for range unroll {
		g.gemmStep(rows)
	}
	g.PREFETCHT1(Mem{Base: fetch}) // a line of 16 elements: FetchPerK for each of four k
	g.ADDQ(Imm(64), fetch)
	g.SUBQ(Imm(unroll), depth)
	g.JGE(ref("loop"))
	g.Label(name("rest"))
	g.ADDQ(Imm(unroll), depth)
	g.JEQ(ref("next"))
	g.Label(name("single"))
	g.gemmStep(rows)
	g.DECQ(depth)
	g.JNE(ref("single"))

	g.Label(name("next"))
	g.TESTQ(further, further)
	g.JEQ(ref("store"))
	g.XORQ(places, places)
	load("A2", RAX)
	load("RS2", RSI)
	load("B2", R9)
	g.MOVQ(further, depth)
	g.XORQ(further, further)
	g.SHLQ(Imm(2), load("CS", R8))
	g.JMP(ref("product"))

	g.Label(name("scattered"))
	g.TESTQ(depth, depth)
	g.JEQ(ref("next"))
	g.Label(name("place"))
	g.nextPlace(places)
	g.gemmStep(rows)
	g.DECQ(depth)
	g.JNE(ref("place"))
	g.JMP(ref("next"))

	g.Label(name("store"))
	g.eachRow(rows, load("C", R8), load("LDC", R9), name("store"), load, func(r, v int, m mask, at Mem) {
		g.store(m, g.acc(r, v), at)
	})
}

// nextPlace sets R8 to the distance in bytes from the element of A at the current k to the next one.
func (g *gen) nextPlace(places GPPhysical) {
	g.MOVQ(Mem{Base: places, Disp: 8}, R8)
	g.SUBQ(Mem{Base: places}, R8)
	g.ADDQ(Imm(8), places)
	g.SHLQ(Imm(2), R8)
}

// fetchNext prefetches the C of the next tile while this tile is computed. Its lines
// may be a page apart and in memory.
func (g *gen) fetchNext(rows int, done string, load func(string, GPPhysical) GPPhysical) {
	next := load("NextC", R8)
	g.TESTQ(next, next)
	g.JEQ(LabelRef(done))
	ld := load("LDC", R9)
	for r := range rows {
		for line := 0; line < 2*g.bytes(); line += 64 {
			g.PREFETCHT0(Mem{Base: next, Disp: line})
		}
		g.PREFETCHT0(Mem{Base: next, Disp: 2*g.bytes() - 4})
		if r < rows-1 {
			g.LEAQ(Mem{Base: next, Index: ld, Scale: 4}, next)
		}
	}
	g.Label(done)
}

// gemmAbreast is gemmRows for few rows and several whole panels. It does not prefetch
// B: the hardware recognises the streams, and on Zen 4 software prefetch costs a fifth
// of the rate from L2 and from memory.
//
//	AX: A; SI: its row stride; R8: its stride by k
//	R9: B; R10: its row stride; BX: Pitch, CX: three times that
func (g *gen) gemmAbreast(rows, panels int, load func(string, GPPhysical) GPPhysical) {
	name := func(s string) string { return fmt.Sprintf("%sAbreast%d", s, rows) }
	regs := g.isa.regs
	acc := func(r, v int) VecPhysical { return regs[2*panels*r+v] }
	vectors := func(p, ld GPPhysical, visit func(r, v int, at Mem)) {
		g.SHLQ(Imm(2), ld)
		for r := range rows {
			for v := range 2 * panels {
				visit(r, v, Mem{Base: p, Disp: v * g.bytes()})
			}
			g.ADDQ(ld, p)
		}
	}
	from := load("From", R8)
	g.TESTQ(from, from)
	g.JNE(LabelRef(name("from")))
	for i := range 2 * panels * rows {
		g.VXORPS(regs[i], regs[i], regs[i])
	}
	g.JMP(LabelRef(name("start")))
	g.Label(name("from"))
	vectors(from, load("LDFrom", R9), func(r, v int, at Mem) { g.VMOVUPS(at, acc(r, v)) })

	g.Label(name("start"))
	depth := load("K", R11)
	load("A", RAX)
	load("B", R9)
	for _, f := range []struct {
		name string
		r    GPPhysical
	}{{"RS", RSI}, {"CS", R8}, {"LDB", R10}, {"Pitch", RBX}} {
		g.SHLQ(Imm(2), load(f.name, f.r))
	}
	g.LEAQ(Mem{Base: RBX, Index: RBX, Scale: 2}, RCX)
	g.TESTQ(depth, depth)
	g.JEQ(LabelRef(name("store")))
	panel := func(base GPPhysical, p, disp int) Mem {
		m := Mem{Base: base, Disp: disp}
		switch p {
		case 1, 2:
			m.Index, m.Scale = RBX, uint8(p)
		case 3:
			m.Index, m.Scale = RCX, 1
		}
		return m
	}
	free := regs[2*panels*rows:]
	x, b := free[:rows], free[rows]
	places := load("At", R13)
	step := func() {
		for r := range rows {
			at := Mem{Base: RAX}
			if r > 0 {
				at.Index, at.Scale = RSI, uint8(r)
			}
			g.VBROADCASTSS(at, x[r])
		}
		for p := range panels {
			for v := range 2 {
				from := panel(R9, p, v*g.bytes())
				if rows == 1 {
					g.VFMADD231PS(from, x[0], acc(0, 2*p+v))
					continue
				}
				g.VMOVUPS(from, b)
				for r := range rows {
					g.VFMADD231PS(b, x[r], acc(r, 2*p+v))
				}
			}
		}
		g.ADDQ(R8, RAX)
		g.ADDQ(R10, R9)
	}
	g.TESTQ(places, places)
	g.JNE(LabelRef(name("scattered")))
	g.Label(name("loop"))
	step()
	g.DECQ(depth)
	g.JNE(LabelRef(name("loop")))
	g.JMP(LabelRef(name("store")))
	g.Label(name("scattered"))
	g.nextPlace(places)
	step()
	g.DECQ(depth)
	g.JNE(LabelRef(name("scattered")))
	g.Label(name("store"))
	vectors(load("C", R8), load("LDC", R9), func(r, v int, at Mem) { g.VMOVUPS(acc(r, v), at) })
}

// gemmStep adds one k to all accumulators.
func (g *gen) gemmStep(rows int) {
	regs := g.isa.regs
	free := regs[2*g.isa.mr:] // two for B, the others for A
	b, bcast := free[:2], free[2:]
	for v := range b {
		g.VMOVUPS(Mem{Base: R9, Disp: v * g.bytes()}, b[v])
	}
	// Eight rows on, which is right for panels and harmless elsewhere.
	for line := 0; line < 2*g.bytes(); line += 64 {
		g.PREFETCHT0(Mem{Base: R9, Index: R10, Scale: 8, Disp: line})
	}
	for r := range rows {
		at := Mem{Base: rowBase[r/3]}
		if r%3 > 0 {
			at.Index, at.Scale = RSI, uint8(r%3)
		}
		x := bcast[r%len(bcast)]
		g.VBROADCASTSS(at, x)
		for v := range b {
			g.VFMADD231PS(b[v], x, g.acc(r, v))
		}
	}
	g.ADDQ(R10, R9)
	for i := 0; 3*i < rows; i++ {
		g.ADDQ(R8, rowBase[i])
	}
}

// eachRow visits the vectors of a tile in memory that begins at p with row
// stride ld: with masks, or on AVX2, whose masked stores are slow, without
// them when the tile is full or a half.
func (g *gen) eachRow(rows int, p, ld GPPhysical, name string, load func(string, GPPhysical) GPPhysical, visit func(r, v int, m mask, at Mem)) {
	g.SHLQ(Imm(2), ld)
	walk := func(masks ...mask) {
		for r := range rows {
			for v, m := range masks {
				visit(r, v, m, Mem{Base: p, Disp: v * g.bytes()})
			}
			if r < rows-1 {
				g.ADDQ(ld, p)
			}
		}
	}
	if g.wide() {
		walk(mask{K1}, mask{K2})
		return
	}
	n := load("N", R10)
	g.CMPQ(n, Imm(16))
	g.JEQ(LabelRef(name + "full"))
	g.CMPQ(n, Imm(8))
	g.JEQ(LabelRef(name + "half"))
	g.SHLQ(Imm(2), n)
	g.LEAQ(g.maskTable(), R11)
	g.ADDQ(Imm(32), R11) // the first zero
	g.SUBQ(n, R11)
	masks := []mask{{Y14}, {Y15}}
	for v, m := range masks {
		g.VMOVUPS(Mem{Base: R11, Disp: v * 32}, m.op)
	}
	walk(masks...)
	g.JMP(LabelRef(name + "done"))
	g.Label(name + "full")
	walk(mask{}, mask{})
	g.JMP(LabelRef(name + "done"))
	g.Label(name + "half")
	walk(mask{})
	g.Label(name + "done")
}
