package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// transpose writes the kernel that transposes 8 rows in blocks of 8 columns.
// It moves data only, so one width of vector serves all sets.
func (g *gen) transpose() {
	a := g.function("transpose", "transposeArgs", "transposes 8 rows of 8*Blocks columns.")
	p := g.fields(a, "Dst", "Src", "Blocks", "LD", "Stride")
	dst, src, blocks, ld, stride := p[0], p[1], p[2], p[3], p[4]
	g.SHLQ(Imm(2), ld)
	g.SHLQ(Imm(2), stride)
	// rows returns the addresses of 8 lines that are step apart; those of the last four are relative to base+4·step.
	rows := func(base, step, third, middle Register) (m [8]Mem) {
		for i := range m {
			m[i] = Mem{Base: base}
			if i >= 4 {
				m[i].Base = middle
			}
			switch i % 4 {
			case 1:
				m[i].Index, m[i].Scale = step, 1
			case 2:
				m[i].Index, m[i].Scale = step, 2
			case 3:
				m[i].Index, m[i].Scale = third, 1
			}
		}
		return m
	}
	ld3, stride3, src4, dst4 := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, ld3)
	g.LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	g.LEAQ(Mem{Base: src, Index: ld, Scale: 4}, src4)
	g.LEAQ(Mem{Base: dst, Index: stride, Scale: 4}, dst4)

	g.Label("block")
	from, to := rows(src, ld, ld3, src4), rows(dst, stride, stride3, dst4)
	var in, pairs, quads [8]VecVirtual
	for i := range in {
		in[i] = g.vec()
		g.VMOVUPS(from[i], in[i])
	}
	for i := 0; i < 8; i += 2 {
		pairs[i], pairs[i+1] = g.vec(), g.vec()
		g.VUNPCKLPS(in[i+1], in[i], pairs[i])
		g.VUNPCKHPS(in[i+1], in[i], pairs[i+1])
	}
	// quads[4h+c] holds columns c and c+4 of rows 4h to 4h+3.
	for h := range 2 {
		for c := range 4 {
			quads[4*h+c] = g.vec()
			half := uint64(0x44) // the low pairs
			if c%2 == 1 {
				half = 0xee
			}
			g.VSHUFPS(Imm(half), pairs[4*h+2+c/2], pairs[4*h+c/2], quads[4*h+c])
		}
	}
	// In ascending order: where lines overlap the later one counts.
	for c, line := range to {
		half := uint64(0x20 + 0x11*(c/4))
		g.VPERM2F128(Imm(half), quads[4+c%4], quads[c%4], in[0])
		g.VMOVUPS(in[0], line)
	}
	for _, r := range []Register{src, src4} {
		g.ADDQ(Imm(32), r)
	}
	for _, r := range []Register{dst, dst4} {
		g.LEAQ(Mem{Base: r, Index: stride, Scale: 8}, r)
	}
	g.DECQ(blocks)
	g.JNE(LabelRef("block"))
	g.end()
}

// copyPanels writes the kernel that copies rows to panels. A row of a panel is
// written in whole vectors; what exceeds it is overwritten by the panel's next row.
func (g *gen) copyPanels() {
	a := g.function("copyPanels", "copyArgs", "copies Depth rows of Panels panels.")
	p := g.fields(a, "Dst", "Src", "Depth", "Panels", "LD", "Pitch", "Width")
	dst, src, depth, panels, ld, pitch, width := p[0], p[1], p[2], p[3], p[4], p[5], p[6]
	for _, stride := range []GPVirtual{ld, pitch, width} {
		g.SHLQ(Imm(2), stride)
	}
	const most = 4
	for vectors := 1; vectors < most; vectors++ {
		g.CMPQ(width, Imm(uint64(32*vectors)))
		g.JLE(LabelRef(fmt.Sprintf("row%d", vectors)))
	}
	for vectors := most; vectors > 0; vectors-- {
		row, panel := fmt.Sprintf("row%d", vectors), fmt.Sprintf("panel%d", vectors)
		g.Label(row)
		from, to, left := g.GP64(), g.GP64(), g.GP64()
		g.MOVQ(src, from)
		g.MOVQ(dst, to)
		g.MOVQ(panels, left)
		g.Label(panel)
		for line := 0; line < vectors; line += 2 {
			g.PREFETCHT0(Mem{Base: from, Index: ld, Scale: 4, Disp: 32 * line})
		}
		var v [most]VecVirtual
		for i := range vectors {
			v[i] = g.vec()
			g.VMOVUPS(Mem{Base: from, Disp: 32 * i}, v[i])
		}
		for i := range vectors {
			g.VMOVUPS(v[i], Mem{Base: to, Disp: 32 * i})
		}
		g.ADDQ(width, from)
		g.ADDQ(pitch, to)
		g.DECQ(left)
		g.JNE(LabelRef(panel))
		g.ADDQ(ld, src)
		g.ADDQ(width, dst)
		g.DECQ(depth)
		g.JNE(LabelRef(row))
		g.end()
	}
}
