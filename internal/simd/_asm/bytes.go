package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// byteKernel is the products of bytes of one instruction set: tiles of up to rows rows by two
// vectors of sums. Sums of integers have no order, so few rows have several chains, which
// hides the latency of an instruction that multiplies and adds.
type byteKernel struct {
	suffix string
	lanes  int // of the isa
	rows   int
	chains []int // by rows, where not 1
	// products returns the function that adds, to each of 16 or 8 sums, four products of x and of
	// vector v of B that begins at from. It is called for all rows of the same B, in order.
	products func(g *gen, rows int, free []VecPhysical) func(first bool, v int, from Mem, x, acc VecPhysical)
}

var byteKernels = []byteKernel{
	{"AVX2", 8, 4, nil, (*gen).signedProducts},
	{"AVXVNNI", 8, 6, []int{1: 4, 2: 2, 3: 2}, (*gen).dotProducts},
	{"AVX512", 16, 12, nil, (*gen).signedProducts},
	{"VNNI", 16, 12, []int{1: 4, 2: 4, 3: 2, 4: 2, 5: 2}, (*gen).dotProducts},
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
		g.byteTile(k, n, a)
		g.end()
	}
}

func (g *gen) byteTile(k byteKernel, rows int, a gotypes.Component) {
	label := func(s string) string { return fmt.Sprintf("%s%d", s, rows) }
	jump := func(s string) LabelRef { return LabelRef(label(s)) }
	width := 2 * g.bytes()
	link, from, ld := g.GP64(), g.GP64(), g.GP64()
	field := func(name string) Mem { return Mem{Base: link, Disp: g.offset("byteOperands", name)} }
	fetch := func(m Mem) GPVirtual {
		r := g.GP64()
		g.MOVQ(m, r)
		return r
	}

	chains := 1
	if rows < len(k.chains) {
		chains = k.chains[rows]
	}
	acc := func(chain, r, v int) VecPhysical { return g.isa.regs[2*(rows*chain+r)+v] }
	free := g.isa.regs[2*rows*chains:]
	x, multiply := free[0], k.products(g, rows, free[1:])

	g.Label(label("panel"))
	g.LEAQ(address(a.Field("Links").Index(0), "A"), link)
	g.Load(a.Field("From"), from)
	g.Load(a.Field("LDFrom"), ld)

	g.Label(label("link"))
	b, base, stride, depth := fetch(field("B")), fetch(field("A")), fetch(field("RS")), fetch(field("Depth"))
	bases := []GPVirtual{base}
	for r := 3; r < rows; r += 3 {
		next := g.GP64()
		g.LEAQ(Mem{Base: bases[len(bases)-1], Index: stride, Scale: 2}, next)
		g.ADDQ(stride, next)
		bases = append(bases, next)
	}
	for r := range rows {
		for v := range 2 {
			g.VMOVUPS(Mem{Base: b, Disp: v * g.bytes()}, acc(0, r, v))
			for c := 1; c < chains; c++ {
				g.VXORPS(acc(c, r, v), acc(c, r, v), acc(c, r, v))
			}
		}
	}
	g.ADDQ(Imm(uint64(width)), b)
	g.Label(label("loop"))
	for i := range byteUnroll {
		for line := 0; line < width; line += 64 {
			g.PREFETCHT0(Mem{Base: b, Disp: width*i + line + byteAhead})
		}
		for r := range rows {
			at := Mem{Base: bases[r/3], Disp: 4 * i}
			if r%3 > 0 {
				at.Index, at.Scale = stride, uint8(r%3)
			}
			g.VPBROADCASTD(at, x)
			for v := range 2 {
				multiply(r == 0, v, Mem{Base: b, Disp: width*i + v*g.bytes()}, x, acc(i%chains, r, v))
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
	var scales [2]VecPhysical
	for v := range scales {
		scales[v] = free[1+v]
		g.VMOVUPS(Mem{Base: scaleB, Disp: v * g.bytes()}, scales[v])
	}
	for r := range rows {
		g.VBROADCASTSS(Mem{Base: scaleA, Disp: 4 * r}, x)
		for v := range 2 {
			sum, factor := acc(0, r, v), free[3]
			for c := 1; c < chains; c++ {
				g.VPADDD(acc(c, r, v), sum, sum)
			}
			g.VMULPS(scales[v], x, factor)
			g.VCVTDQ2PS(sum, sum)
			g.VMULPS(factor, sum, sum)
			g.VADDPS(Mem{Base: from, Disp: v * g.bytes()}, sum, sum)
			g.VMOVUPS(sum, Mem{Base: c, Disp: v * g.bytes()})
		}
		g.ADDQ(ld, from)
		g.ADDQ(ldc, c)
	}
	g.MOVQ(field("Pitch"), ld)
	g.ADDQ(ld, field("B"))
	g.ADDQ(Imm(uint64(width)), field("ScaleB"))

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
	g.ADDQ(Imm(uint64(width)), address(a, "C"))
	g.Load(a.Field("FromStep"), from)
	g.ADDQ(from, address(a, "From"))
	g.DECQ(address(a, "Panels"))
	g.JNE(jump("panel"))
}

// byteAhead is the distance in bytes at which B is prefetched. On Zen 3 this doubles the rate of one
// row from the shared cache, and costs nothing where B is in nearer ones.
const byteAhead = 4096

// signedProducts is without an instruction for the sum of four: the magnitudes of B times x with
// the signs of B, of which two products fit 16 bits because no magnitude is above 127.
func (g *gen) signedProducts(rows int, free []VecPhysical) func(first bool, v int, from Mem, x, acc VecPhysical) {
	w, t, ones := free[:2], free[2], free[3]
	g.VPBROADCASTD(g.table("ones"), ones)
	sum := func(magnitude, acc VecPhysical) {
		g.VPMADDUBSW(t, magnitude, t)
		g.VPMADDWD(ones, t, t)
		g.VPADDD(t, acc, acc)
	}
	switch magnitude := free[4:6]; {
	case g.wide():
	case rows == 1: // the magnitudes of x times B with the signs of x: one operation less
		return func(_ bool, v int, from Mem, x, acc VecPhysical) {
			if v == 0 {
				g.VPABSB(x, magnitude[0])
			}
			g.VMOVDQU(from, w[v])
			g.VPSIGNB(x, w[v], t)
			sum(magnitude[0], acc)
		}
	default:
		return func(first bool, v int, from Mem, x, acc VecPhysical) {
			if first {
				g.VMOVDQU(from, w[v])
				g.VPABSB(w[v], magnitude[v])
			}
			g.VPSIGNB(w[v], x, t)
			sum(magnitude[v], acc)
		}
	}
	none, minus := free[4], free[5]
	g.VPXORD(none, none, none)
	return func(first bool, v int, from Mem, x, acc VecPhysical) {
		negative := []Op{K1, K2}[v]
		if first {
			g.VMOVDQU8(from, w[v])
			g.VPMOVB2M(w[v], negative)
			g.VPABSB(w[v], w[v])
		}
		if v == 0 {
			g.VPSUBB(x, none, minus)
		}
		g.VPBLENDMB(minus, x, negative, t)
		sum(w[v], acc)
	}
}

// dotProducts is with such an instruction, which takes x without sign.
func (g *gen) dotProducts(_ int, free []VecPhysical) func(first bool, v int, from Mem, x, acc VecPhysical) {
	return func(first bool, v int, from Mem, x, acc VecPhysical) {
		w := free[v]
		if first {
			g.VMOVUPS(from, w)
		}
		if g.wide() {
			g.VPDPBUSD(w, x, acc)
			return
		}
		// VEX.256.66.0F38.W0 50 /r; the assembler knows the encoding of AVX-512 only.
		reg := func(v VecPhysical) (low, above byte) { i := byte(v.PhysicalIndex()); return i & 7, i >> 3 }
		wLow, wAbove := reg(w)
		accLow, accAbove := reg(acc)
		xLow, xAbove := reg(x)
		g.Comment(fmt.Sprintf("VPDPBUSD %s, %s, %s", w.Asm(), x.Asm(), acc.Asm()))
		for _, b := range []byte{0xc4, 0xe2 &^ (accAbove<<7 | wAbove<<5), 0x7d &^ (xAbove<<6 | xLow<<3), 0x50, 0xc0 | accLow<<3 | wLow} {
			g.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{Imm(uint64(b))}})
		}
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
	bits := g.GP32()
	g.VMOVD(top, bits)
	g.CMPL(bits, U32(0x7f800000))
	g.JAE(LabelRef("spoilt"))
	g.CMPL(bits, U32(constants["faint"]))
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
