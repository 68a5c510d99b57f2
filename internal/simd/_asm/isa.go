package main

import (
	"fmt"
	"go/token"
	"go/types"
	"log"
	"math"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set.
type isa struct {
	name   string // of the Set
	suffix string // of its functions
	lanes  int    // float32 in a vector
	mr     int    // rows of the matrix tile, which is two vectors wide
	regs   []VecPhysical
}

var isas = []isa{
	{"avx512", "AVX512", 16, 12, []VecPhysical{
		Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31,
	}},
	{"avx2", "AVX2", 8, 6, []VecPhysical{
		Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15,
	}},
}

// gen writes the kernels of one file for the current isa.
type gen struct {
	*build.Context
	isa    isa
	pkg    *types.Package
	labels int
	tables map[string]bool // data symbols written to the file
	held   map[string]Op   // constants in registers, in the current function
	mxcsr  Op              // where the caller's MXCSR is kept, in a kernel that flushes
}

// kernel begins a function that computes: until its end, subnormal operands are
// taken for zeros and subnormal results are zeros, whatever the caller's setting.
// Go code never runs under that setting, because nothing can interrupt a kernel.
func (g *gen) kernel(name, args, doc string) gotypes.Component {
	a := g.function(name, args, doc)
	g.mxcsr = g.AllocLocal(8)
	g.STMXCSR(g.mxcsr)
	g.LDMXCSR(g.table("flush"))
	return a
}

// end leaves the function.
func (g *gen) end() {
	if g.mxcsr != nil {
		g.LDMXCSR(g.mxcsr)
	}
	g.VZEROUPPER()
	g.RET()
}

// function begins a function that takes a pointer to an argument struct of
// the package, and returns the struct. doc completes a sentence that begins with the name.
func (g *gen) function(name, args, doc string) gotypes.Component {
	g.mxcsr = nil
	g.Function(name + g.isa.suffix)
	g.Doc(name + g.isa.suffix + " " + doc)
	g.Pragma("noescape")
	g.Attributes(build.NOSPLIT)
	obj := g.pkg.Scope().Lookup(args)
	if obj == nil {
		log.Fatalf("%s: package %s has no type %s", name, g.pkg.Name(), args)
	}
	param := types.NewVar(token.NoPos, g.pkg, "a", types.NewPointer(obj.Type()))
	g.Signature(gotypes.NewSignature(g.pkg, types.NewSignatureType(nil, nil, nil, types.NewTuple(param), nil, false)))
	g.labels = 0
	return g.Dereference(g.Param("a"))
}

// offset is that of a field of such a struct.
func (g *gen) offset(name, field string) int {
	var fields []*types.Var
	for f := range g.pkg.Scope().Lookup(name).Type().Underlying().(*types.Struct).Fields() {
		if fields = append(fields, f); f.Name() == field {
			offsets := gotypes.Sizes.Offsetsof(fields)
			return int(offsets[len(offsets)-1])
		}
	}
	panic(name + " has no " + field)
}

// size is the bytes of an argument struct of package simd.
func (g *gen) size(name string) int64 {
	return gotypes.Sizes.Sizeof(g.pkg.Scope().Lookup(name).Type())
}

// label makes a label unique in the function.
func (g *gen) label(name string) string {
	g.labels++
	return fmt.Sprintf("%s%d", name, g.labels)
}

func (g *gen) wide() bool { return g.isa.lanes == 16 }

// bytes is the size of a vector.
func (g *gen) bytes() int { return 4 * g.isa.lanes }

// vec is a new vector register.
func (g *gen) vec() VecVirtual {
	if g.wide() {
		return g.ZMM()
	}
	return g.YMM()
}

func (g *gen) vecs(n int) []VecVirtual {
	vs := make([]VecVirtual, n)
	for i := range vs {
		vs[i] = g.vec()
	}
	return vs
}

// copyOf is a new register with the value of v.
func (g *gen) copyOf(v Op) VecVirtual {
	w := g.vec()
	g.VMOVAPS(v, w)
	return w
}

// constants of the kernels by name, as bits.
var constants = map[string]uint32{
	"log2e":   math.Float32bits(1.44269504088896341),
	"ln2hi":   math.Float32bits(0.693359375),
	"ln2lo":   math.Float32bits(-2.12194440e-4),
	"exp4":    math.Float32bits(1.3814540579915047e-3), // (e^r-1-r)/r² by the polynomial nearest to it for |r| <= ln 2 / 2,
	"exp3":    math.Float32bits(8.368745446205140e-3),  // within 4e-9 of e^r
	"exp2":    math.Float32bits(4.166838899254799e-2),
	"exp1":    math.Float32bits(1.666652113199234e-1),
	"exp0":    math.Float32bits(4.999999403953552e-1),
	"expmax":  math.Float32bits(89),
	"expmin":  math.Float32bits(-104),
	"tanhmax": math.Float32bits(9.125),
	"normal":  math.Float32bits(0x1p-126), // MinNormal
	"one":     math.Float32bits(1),
	"two":     math.Float32bits(2),
	"sign":    1 << 31,
	"abs":     1<<31 - 1,
	"bias":    127,
	"lsb":     1,
	"ones":    1<<16 | 1,
	"top":     math.Float32bits(127), // of a byte
	"faint":   math.Float32bits(0x1p-100),
	"below":   0x7fff, // just below half a unit of bfloat16
	"flush":   0x9fc0, // of MXCSR: flush to zero, denormals are zero, all exceptions masked, round to nearest
}

// table is the address of a constant repeated over a vector of 32 bytes.
func (g *gen) table(name string) Mem {
	bits, ok := constants[name]
	if !ok {
		panic("no constant " + name)
	}
	if !g.tables[name] {
		g.tables[name] = true
		g.StaticGlobal(name)
		g.DataAttributes(build.RODATA | build.NOPTR)
		for range 8 {
			g.AppendDatum(U32(bits))
		}
	}
	return NewDataAddr(NewStaticSymbol(name), 0)
}

// hold keeps constants in registers for the rest of the function, where there are registers enough.
func (g *gen) hold(names ...string) {
	g.held = map[string]Op{}
	if !g.wide() {
		return
	}
	for _, name := range names {
		v := g.vec()
		g.VBROADCASTSS(g.table(name), v)
		g.held[name] = v
	}
}

// konst is a constant as an operand that may be memory.
func (g *gen) konst(name string) Op {
	if v, ok := g.held[name]; ok {
		return v
	}
	if g.wide() {
		panic("constant " + name + " is not held")
	}
	return g.table(name)
}

// konstReg is a constant as a register.
func (g *gen) konstReg(name string) Op {
	if v, ok := g.held[name]; ok {
		return v
	}
	v := g.vec()
	g.VMOVUPS(g.table(name), v)
	return v
}

// mask selects the first lanes of a vector: a K register, or a vector of all-ones lanes.
// The zero mask selects all.
type mask struct{ op Op }

// firstLanes makes the mask of the first n lanes; n, of at most 63, may exceed the vector.
func (g *gen) firstLanes(n GPVirtual) mask {
	if g.wide() {
		bits, k := g.GP32(), g.K()
		g.MOVL(I32(-1), bits)
		g.BZHIL(n.As32(), bits, bits)
		g.KMOVW(bits, k)
		return mask{k}
	}
	at, limit := g.GP64(), g.GP64()
	g.MOVQ(I32(8), limit)
	g.MOVQ(n, at)
	g.CMPQ(at, limit)
	g.CMOVQGT(limit, at)
	g.SUBQ(at, limit) // 8-n
	table := g.GP64()
	g.LEAQ(g.maskTable(), table)
	v := g.YMM()
	g.VMOVUPS(Mem{Base: table, Index: limit, Scale: 4}, v)
	return mask{v}
}

// maskTable is 16 lanes of ones and 16 of zeros: reading m lanes before the zeros gives a mask of m.
func (g *gen) maskTable() Mem {
	const name = "lanes"
	if !g.tables[name] {
		g.tables[name] = true
		g.StaticGlobal(name)
		g.DataAttributes(build.RODATA | build.NOPTR)
		for i := range 32 {
			bits := uint32(0)
			if i < 16 {
				bits = 1<<32 - 1
			}
			g.AppendDatum(U32(bits))
		}
	}
	return NewDataAddr(NewStaticSymbol(name), 32) // 8 ones before the zeros
}

// load reads a vector; lanes outside the mask are 0 and not touched in memory.
func (g *gen) load(m mask, from Mem) VecVirtual {
	v := g.vec()
	switch {
	case m.op == nil:
		g.VMOVUPS(from, v)
	case g.wide():
		g.VMOVUPS_Z(from, m.op, v)
	default:
		g.VMASKMOVPS(from, m.op, v)
	}
	return v
}

// store writes the lanes of the mask.
func (g *gen) store(m mask, v Op, to Mem) {
	switch {
	case m.op == nil:
		g.VMOVUPS(v, to)
	case g.wide():
		g.VMOVUPS(v, m.op, to)
	default:
		g.VMASKMOVPS(v, m.op, to)
	}
}

// pow2 is 2^n for whole n in [-126, 127].
func (g *gen) pow2(ns []VecVirtual) []VecVirtual {
	powers := g.vecs(len(ns))
	for i, s := range powers {
		if g.wide() {
			g.VSCALEFPS(ns[i], g.konst("one"), s)
			continue
		}
		g.VCVTPS2DQ(ns[i], s)
		g.VPADDD(g.konst("bias"), s, s)
		g.VPSLLD(Imm(23), s, s)
	}
	return powers
}

// scale multiplies each v by 2^n for whole n in [-150, 129], rounding once.
func (g *gen) scale(vs, ns []VecVirtual) {
	if g.wide() {
		for i, v := range vs {
			g.VSCALEFPS(ns[i], v, v)
		}
		return
	}
	for i, v := range vs {
		whole, half := ns[i], g.vec()
		g.VCVTPS2DQ(whole, whole)
		g.VPSRAD(Imm(1), whole, half)
		g.VPSUBD(half, whole, whole)
		for _, part := range []VecVirtual{half, whole} {
			g.VPADDD(g.konst("bias"), part, part)
			g.VPSLLD(Imm(23), part, part)
			g.VMULPS(part, v, v)
		}
	}
}

// round rounds to the nearest whole number, ties to even.
func (g *gen) round(v VecVirtual) {
	if g.wide() {
		g.VRNDSCALEPS(Imm(8), v, v)
	} else {
		g.VROUNDPS(Imm(8), v, v)
	}
}
