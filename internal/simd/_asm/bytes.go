package main

import (
	"fmt"
	"math/bits"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// byteKernel is the products of bytes of one instruction set: tiles of up to rows rows by a panel of
// two vectors of sums. Few rows take several panels abreast, because memory answers several
// streams at twice the rate of one, and have several chains for each sum, whose order is free, to
// hide the latency of an instruction that multiplies and adds.
type byteKernel struct {
	suffix  string
	lanes   int // of the isa
	rows    int
	abreast []int // panels by rows, where not 1
	chains  []int // likewise
	wide    []int // chains of panels abreast
	ops     func(g *gen, rows int, free []VecPhysical) byteOps
}

// byteOps adds to each of 16 or 8 sums four products of a row's x and of a vector of B, of which two
// are held at a time. Between a vector's load and its last dot, x may change; takeX is called before.
type byteOps struct {
	takeX func(x VecPhysical)
	load  func(i int, from Mem)
	dot   func(i int, x, acc VecPhysical)
}

var byteKernels = []byteKernel{
	{"AVX2", 8, 4, []int{1: 4, 2: 2}, nil, nil, (*gen).signedOps},
	{"AVXVNNI", 8, 6, []int{1: 4, 2: 2}, []int{1: 4, 2: 2, 3: 2}, nil, (*gen).dotOps},
	{"AVX512", 16, 12, []int{1: 4}, nil, nil, (*gen).signedOps},
	{"VNNI", 16, 12, []int{1: 4, 2: 2, 3: 2}, []int{1: 4, 2: 4, 3: 2, 4: 2, 5: 2}, []int{1: 2, 2: 2}, (*gen).dotOps},
}

// byRows is an element of a list by rows, 1 past its end.
func byRows(list []int, rows int) int {
	if rows < len(list) {
		return list[rows]
	}
	return 1
}

const byteUnroll = 4 // fours of k

// byteProducts writes the kernels of simd.Bytes.
func (g *gen) byteProducts() {
	for _, k := range byteKernels {
		if k.lanes == g.isa.lanes {
			g.byteTiles(k)
		}
	}
	if !g.wide() {
		g.byteRows()
	}
}

// byteTiles writes one kernel, of which ByteArgs.run is the reference.
func (g *gen) byteTiles(k byteKernel) {
	isa := g.isa
	defer func() { g.isa = isa }()
	g.isa.suffix = k.suffix
	a := g.kernel("byteTiles", "byteArgs", "computes tiles of a product of bytes, panel after panel.")
	rows := g.GP64()
	g.Load(a.Field("Rows"), rows)
	for n := k.rows; n > 1; n-- {
		g.CMPQ(rows, Imm(uint64(n)))
		g.JEQ(LabelRef(fmt.Sprintf("rows%d", n)))
	}
	for n := 1; n <= k.rows; n++ {
		g.Label(fmt.Sprintf("rows%d", n))
		if wide := byRows(k.abreast, n); wide > 1 {
			g.byteTile(k, n, wide, byRows(k.wide, n), a)
			g.CMPQ(address(a, "Panels"), Imm(0))
			g.JEQ(LabelRef(fmt.Sprintf("end%d", n)))
		}
		g.byteTile(k, n, 1, byRows(k.chains, n), a)
		g.Label(fmt.Sprintf("end%d", n))
		g.end()
	}
}

// byteTile computes tiles while there are that many panels left.
func (g *gen) byteTile(k byteKernel, rows, panels, chains int, a gotypes.Component) {
	label := func(s string) string { return fmt.Sprintf("%s%dby%d", s, rows, panels) }
	jump := func(s string) LabelRef { return LabelRef(label(s)) }
	width := 2 * g.bytes()
	link, from, ld := g.GP64(), g.GP64(), g.GP64()
	field := func(name string) Mem { return Mem{Base: link, Disp: g.offset("byteOperands", name)} }
	fetch := func(m Mem) GPVirtual {
		r := g.GP64()
		g.MOVQ(m, r)
		return r
	}
	acc := func(chain, r, p, v int) VecPhysical { return g.isa.regs[2*((rows*chain+r)*panels+p)+v] }
	free := g.isa.regs[2*rows*panels*chains:]
	x := free[:1]
	if panels > 1 {
		x = free[:rows]
	}
	ops := k.ops(g, rows, free[len(x):])

	g.Label(label("panel"))
	g.CMPQ(address(a, "Panels"), Imm(uint64(panels)))
	g.JLT(jump("done"))
	g.LEAQ(address(a.Field("Links").Index(0), "A"), link)
	g.Load(a.Field("From"), from)
	g.Load(a.Field("LDFrom"), ld)

	g.Label(label("link"))
	b, base, stride, depth := fetch(field("B")), fetch(field("A")), fetch(field("RS")), fetch(field("Depth"))
	pitch, pitch3 := fetch(field("Pitch")), g.GP64()
	g.LEAQ(Mem{Base: pitch, Index: pitch, Scale: 2}, pitch3)
	at := func(p, disp int) Mem {
		m := Mem{Base: b, Disp: disp}
		switch p {
		case 1, 2:
			m.Index, m.Scale = pitch, uint8(p)
		case 3:
			m.Index, m.Scale = pitch3, 1
		}
		return m
	}
	bases := []GPVirtual{base}
	for r := 3; r < rows; r += 3 {
		next := g.GP64()
		g.LEAQ(Mem{Base: bases[len(bases)-1], Index: stride, Scale: 2}, next)
		g.ADDQ(stride, next)
		bases = append(bases, next)
	}
	element := func(r, i int, x VecPhysical) {
		from := Mem{Base: bases[r/3], Disp: 4 * i}
		if r%3 > 0 {
			from.Index, from.Scale = stride, uint8(r%3)
		}
		g.VPBROADCASTD(from, x)
		ops.takeX(x)
	}
	each := func(visit func(r, p, v int)) {
		for r := range rows {
			for p := range panels {
				visit(r, p, 0)
				visit(r, p, 1)
			}
		}
	}
	each(func(r, p, v int) {
		g.VMOVUPS(at(p, v*g.bytes()), acc(0, r, p, v))
		for c := 1; c < chains; c++ {
			g.VXORPS(acc(c, r, p, v), acc(c, r, p, v), acc(c, r, p, v))
		}
	})
	g.ADDQ(Imm(uint64(width)), b)
	g.Label(label("loop"))
	for i := range byteUnroll {
		if panels > 1 {
			for r := range rows {
				element(r, i, x[r])
			}
			for p := range panels {
				for v := range 2 {
					ops.load(0, at(p, width*i+v*g.bytes()))
					for r := range rows {
						ops.dot(0, x[r], acc(i%chains, r, p, v))
					}
				}
			}
			continue
		}
		for line := 0; line < width; line += 64 {
			g.PREFETCHT0(at(0, width*i+line+byteAhead))
		}
		for r := range rows {
			element(r, i, x[0])
			for v := range 2 {
				if r == 0 {
					ops.load(v, at(0, width*i+v*g.bytes()))
				}
				ops.dot(v, x[0], acc(i%chains, r, 0, v))
			}
		}
	}
	g.ADDQ(U32(width*byteUnroll), b)
	for _, r := range bases {
		g.ADDQ(Imm(4*byteUnroll), r)
	}
	g.DECQ(depth)
	g.JNE(jump("loop"))

	c, ldc := g.GP64(), g.GP64()
	g.Load(a.Field("C"), c)
	g.Load(a.Field("LDC"), ldc)
	scaleA, scaleB := fetch(field("ScaleA")), fetch(field("ScaleB"))
	each(func(r, p, v int) {
		scale, factor, sum := free[0], free[1], acc(0, r, p, v)
		disp := p*width + v*g.bytes()
		if disp == 0 {
			g.VBROADCASTSS(Mem{Base: scaleA, Disp: 4 * r}, scale)
		}
		for c := 1; c < chains; c++ {
			g.VPADDD(acc(c, r, p, v), sum, sum)
		}
		g.VMULPS(Mem{Base: scaleB, Disp: disp}, scale, factor)
		g.VCVTDQ2PS(sum, sum)
		g.VMULPS(factor, sum, sum)
		g.VADDPS(Mem{Base: from, Disp: disp}, sum, sum)
		g.VMOVUPS(sum, Mem{Base: c, Disp: disp})
		if disp == panels*width-g.bytes() {
			g.ADDQ(ld, from)
			g.ADDQ(ldc, c)
		}
	})
	step := func(by GPVirtual, to Mem) { // to += panels·by, and by is spent
		if panels > 1 {
			g.SHLQ(Imm(uint64(bits.TrailingZeros(uint(panels)))), by)
		}
		g.ADDQ(by, to)
	}
	step(pitch, field("B"))
	g.ADDQ(U32(panels*width), field("ScaleB"))

	g.ADDQ(Imm(uint64(g.size("byteOperands"))), link)
	end := g.GP64()
	g.LEAQ(address(a, "C"), end) // follows the links
	g.CMPQ(link, end)
	g.JEQ(jump("next"))
	g.CMPQ(field("Depth"), Imm(0))
	g.JEQ(jump("next"))
	g.Load(a.Field("C"), from)
	g.Load(a.Field("LDC"), ld)
	g.JMP(jump("link"))

	g.Label(label("next"))
	g.ADDQ(U32(panels*width), address(a, "C"))
	g.Load(a.Field("FromStep"), from)
	step(from, address(a, "From"))
	g.SUBQ(Imm(uint64(panels)), address(a, "Panels"))
	g.JMP(jump("panel"))
	g.Label(label("done"))
}

// byteAhead is the distance in bytes at which B is prefetched where one stream is read. On Zen 3 this
// doubles its rate from the shared cache, and costs nothing where B is in nearer ones.
const byteAhead = 4096

// signedOps are without an instruction for the sum of four: the magnitudes of one operand times
// the other with the signs of the first, of which two products fit 16 bits because no magnitude is
// above 127. The first is x for one row, since it is read once for many vectors of B, else B.
func (g *gen) signedOps(rows int, free []VecPhysical) byteOps {
	w, t, ones := free[:2], free[2], free[3]
	g.VPBROADCASTD(g.table("ones"), ones)
	sum := func(magnitude, acc VecPhysical) {
		g.VPMADDUBSW(t, magnitude, t)
		g.VPMADDWD(ones, t, t)
		g.VPADDD(t, acc, acc)
	}
	switch {
	case g.wide(): // VPSIGNB is a blend with the negative
		none, minus, negative := free[4], free[5], []Op{K1, K2}
		g.VPXORD(none, none, none)
		return byteOps{
			func(x VecPhysical) { g.VPSUBB(x, none, minus) },
			func(i int, from Mem) {
				g.VMOVDQU8(from, w[i])
				g.VPMOVB2M(w[i], negative[i])
				g.VPABSB(w[i], w[i])
			},
			func(i int, x, acc VecPhysical) {
				g.VPBLENDMB(minus, x, negative[i], t)
				sum(w[i], acc)
			},
		}
	case rows == 1:
		magnitude := free[4]
		return byteOps{
			func(x VecPhysical) { g.VPABSB(x, magnitude) },
			func(i int, from Mem) { g.VMOVDQU(from, w[i]) },
			func(i int, x, acc VecPhysical) {
				g.VPSIGNB(x, w[i], t)
				sum(magnitude, acc)
			},
		}
	}
	magnitude := free[4:]
	return byteOps{
		func(VecPhysical) {},
		func(i int, from Mem) {
			g.VMOVDQU(from, w[i])
			g.VPABSB(w[i], magnitude[i])
		},
		func(i int, x, acc VecPhysical) {
			g.VPSIGNB(w[i], x, t)
			sum(magnitude[i], acc)
		},
	}
}

// dotOps are with such an instruction, which takes x without sign.
func (g *gen) dotOps(_ int, w []VecPhysical) byteOps {
	return byteOps{
		func(VecPhysical) {},
		func(i int, from Mem) { g.VMOVUPS(from, w[i]) },
		func(i int, x, acc VecPhysical) {
			if g.wide() {
				g.VPDPBUSD(w[i], x, acc)
				return
			}
			// VEX.256.66.0F38.W0 50 /r; the assembler knows the encoding of AVX-512 only.
			reg := func(v VecPhysical) (low, above byte) { n := byte(v.PhysicalIndex()); return n & 7, n >> 3 }
			wLow, wAbove := reg(w[i])
			accLow, accAbove := reg(acc)
			xLow, xAbove := reg(x)
			g.Comment(fmt.Sprintf("VPDPBUSD %s, %s, %s", w[i].Asm(), x.Asm(), acc.Asm()))
			for _, b := range []byte{0xc4, 0xe2 &^ (accAbove<<7 | wAbove<<5), 0x7d &^ (xAbove<<6 | xLow<<3), 0x50, 0xc0 | accLow<<3 | wLow} {
				g.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{Imm(uint64(b))}})
			}
		},
	}
}

// byteRows writes the kernel of Bytes.Rows for rows whose elements follow each other.
func (g *gen) byteRows() {
	a := g.kernel("byteRows", "byteRowsArgs", "rounds rows to bytes.")
	p := g.fields(a, "Dst", "Scale", "Src", "Rows", "Depth", "Stride", "Pitch")
	dst, scale, src, rows, depth, stride, pitch := p[0], p[1], p[2], p[3], p[4], p[5], p[6]
	flip, order := g.YMM(), g.YMM()
	g.VPBROADCASTD(address(a, "Flip"), flip)
	g.VMOVDQU(g.packedOrder(), order)
	const block = 32 // elements
	from, left, to := g.GP64(), g.GP64(), g.GP64()
	// pass visits blocks of four vectors, and then single vectors of which the last may be a part.
	pass := func(name string, four func(), one func(v VecVirtual)) {
		g.MOVQ(src, from)
		g.MOVQ(depth, left)
		g.SUBQ(Imm(block), left)
		g.JLT(LabelRef(name + "Rest"))
		g.Label(name)
		four()
		g.ADDQ(Imm(4*block), from)
		g.SUBQ(Imm(block), left)
		g.JGE(LabelRef(name))
		g.Label(name + "Rest")
		g.ADDQ(Imm(block), left)
		g.JLE(LabelRef(name + "End"))
		g.Label(name + "One")
		one(g.load(g.firstLanes(left), Mem{Base: from}))
		g.ADDQ(Imm(32), from)
		g.SUBQ(Imm(8), left)
		g.JGT(LabelRef(name + "One"))
		g.Label(name + "End")
	}

	g.Label("row")
	most := g.vecs(4)
	for _, m := range most {
		g.VPXOR(m, m, m)
	}
	magnitude := func(v Op, m VecVirtual) {
		t := g.YMM()
		g.VMOVUPS(g.table("abs"), t)
		g.VPAND(v, t, t)
		g.VPMAXSD(t, m, m)
	}
	pass("greatest", func() {
		for i, m := range most {
			magnitude(Mem{Base: from, Disp: 32 * i}, m)
		}
	}, func(v VecVirtual) { magnitude(v, most[0]) })
	g.VPMAXSD(most[1], most[0], most[0])
	g.VPMAXSD(most[3], most[2], most[2])
	g.VPMAXSD(most[2], most[0], most[0])
	half, top := g.XMM(), most[0].AsX()
	g.VEXTRACTI128(Imm(1), most[0], half)
	g.VPMAXSD(half, top, top)
	for _, swap := range []uint64{0x4e, 0xb1} {
		g.VPSHUFD(Imm(swap), top, half)
		g.VPMAXSD(half, top, top)
	}

	g.MOVQ(dst, to)
	g.ADDQ(pitch, dst)
	greatest := g.GP32()
	g.VMOVD(top, greatest)
	g.CMPL(greatest, U32(0x7f800000))
	g.JAE(LabelRef("spoilt"))
	g.CMPL(greatest, U32(constants["faint"]))
	g.JB(LabelRef("faint"))
	limit, by := g.XMM(), g.YMM()
	g.VMOVSS(g.table("top"), limit)
	g.VDIVSS(limit, top, half)
	g.VMOVSS(half, Mem{Base: scale})
	g.VDIVSS(top, limit, limit)
	g.VBROADCASTSS(limit, by)
	pass("round", func() {
		q := g.vecs(4)
		for i, v := range q {
			g.VMULPS(Mem{Base: from, Disp: 32 * i}, by, v)
			g.VCVTPS2DQ(v, v)
		}
		g.VPACKSSDW(q[1], q[0], q[0])
		g.VPACKSSDW(q[3], q[2], q[2])
		g.VPACKSSWB(q[2], q[0], q[0])
		g.VPERMD(q[0], order, q[0])
		g.VPXOR(flip, q[0], q[0])
		g.VMOVDQU(q[0], Mem{Base: to})
		g.ADDQ(Imm(block), to)
	}, func(v VecVirtual) {
		g.VMULPS(by, v, v)
		g.VCVTPS2DQ(v, v)
		high, low := g.XMM(), v.AsX()
		g.VEXTRACTI128(Imm(1), v, high)
		g.VPACKSSDW(high, low, low)
		g.VPACKSSWB(low, low, low)
		g.VPXOR(flip.AsX(), low, low)
		g.VMOVQ(low, Mem{Base: to})
		g.ADDQ(Imm(8), to)
	})
	g.Label("fill")
	g.CMPQ(to, dst)
	g.JEQ(LabelRef("next"))
	g.VMOVQ(flip.AsX(), Mem{Base: to})
	g.ADDQ(Imm(8), to)
	g.JMP(LabelRef("fill"))
	g.Label("next")
	g.ADDQ(Imm(4), scale)
	g.ADDQ(stride, src)
	g.DECQ(rows)
	g.JNE(LabelRef("row"))
	g.end()

	g.Label("spoilt")
	g.MOVL(U32(0x7fc00000), Mem{Base: scale})
	g.JMP(LabelRef("fill"))
	g.Label("faint")
	g.MOVL(U32(0), Mem{Base: scale})
	g.JMP(LabelRef("fill"))
}

// packedOrder is where the fours of bytes of four vectors are after they have been packed half by half.
func (g *gen) packedOrder() Mem {
	const name = "packed"
	g.StaticGlobal(name)
	g.DataAttributes(build.RODATA | build.NOPTR)
	for _, i := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
		g.AppendDatum(U32(i))
	}
	return NewDataAddr(NewStaticSymbol(name), 0)
}
