// Package simd is the vector and matrix kernels, of which it chooses a set at run time.
//
// A Set is a struct of functions. The "generic" set is plain Go and is the
// reference; the others are assembly generated from the templates in _asm and
// tested against it. No kernel allocates, blocks or starts goroutines, and no
// single assembly call runs for longer than about 100 microseconds, because Go
// cannot preempt assembly.
//
// The bits of an element of an elementwise kernel do not depend on its position in
// the slice. Reductions add in one fixed order of lanes that depends on the length
// alone. Bits may differ between sets, because some use fused multiply-add.
package simd

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// EnvVar names the environment variable that forces a set, for tests and bug reports.
const EnvVar = "CAROUSEL_SIMD"

// Set is one implementation of every kernel. Slices of one call have the same
// length unless said otherwise; dst may be the same slice as a source, but
// must not overlap one partially.
type Set struct {
	Name   string // "amx", "avx512bf16", "avx512", "avx2" or "generic"
	MR, NR int    // the matrix tile: at most MR rows, exactly NR columns of B

	// Flushes means that each instruction of the kernels treats subnormal operands as
	// zeros and flushes its result. Otherwise operands must not be subnormal, and sums
	// below MinNormal depend on where the depth of a product is divided, so that must
	// depend on the shape alone.
	Flushes bool

	Weights []Weights // by device.Kind, the first those of float32

	// NarrowUnit and WidenUnit convert numbers from 0 to 1 to and from float16. Of those above one
	// half it is the distance from 1, with a sign: a gate of 0.9999 keeps its digits.
	NarrowUnit func(dst []uint16, src []float32)
	WidenUnit  func(dst []float32, src []uint16)

	// Pack divides a matrix into panels of width columns, each [depth][width]:
	// dst[(p*depth+k)*width+j] = src[k*ld+p*width+j] for k < depth, and 0 for
	// columns from cols on.
	Pack func(dst, src []float32, depth, cols, ld, width int)
	// PackT transposes a strip of a matrix: dst[k*stride+j] = src[j*ld+k]
	// for k < depth, j < cols, and 0 for cols <= j < stride.
	PackT func(dst, src []float32, depth, cols, ld, stride int)

	Exp     func(dst, src []float32) // within 1 ulp; exp of large is +Inf, of very negative 0
	Sigmoid func(dst, src []float32) // within 3 ulp; not zero before exp underflows
	Tanh    func(dst, src []float32) // within 5 ulp; exactly odd

	LSTM, GRU         func(a *CellArgs) // one step of some rows
	LSTMGrad, GRUGrad func(a *CellArgs) // their backward

	SigmoidGrad func(dst, d []float32) // dst = d * dst*(1-dst), where dst is a sigmoid's value
	TanhGrad    func(dst, d []float32) // dst = d * (1-dst*dst), where dst is a tanh's value

	Add    func(dst, a, b []float32)               // dst = a + b
	Sub    func(dst, a, b []float32)               // dst = a - b
	Mul    func(dst, a, b []float32)               // dst = a * b
	Div    func(dst, a, b []float32)               // dst = a / b
	Max    func(dst, a, b []float32)               // dst = max(a, b), NaN if one is; of zeros with different signs, either
	Lerp   func(dst, a, b, w []float32)            // dst = a + w*(b-a)
	MulAdd func(dst, a, b []float32)               // dst += a * b
	Axpy   func(alpha float32, dst, src []float32) // dst += alpha * src
	EMA    func(alpha float32, dst, src []float32) // dst += alpha * (src-dst), in float64 and rounded once, so with the same bits in all sets
	Scale  func(alpha float32, dst []float32)      // dst *= alpha
	Shift  func(alpha float32, dst, src []float32) // dst = src + alpha
	Flush  func(dst, src []float32)                // dst = src, with 0 for subnormal numbers
	Sum    func(x []float32) float32
	SumSq  func(x []float32) float32
	Dot    func(x, y []float32) float32

	Adam func(a *AdamArgs)
}

// Weights is a set's functions for one kind of weights. A panel of NR columns is
// [depth/Group][NR] groups, the last one filled up with zeros.
type Weights struct {
	Name   string // of the kind
	Group  int    // number of values of a column, with consecutive k, that are stored together and summed in one link
	Bytes  int    // of a group; NR groups have a multiple of 4
	Head   int    // bytes of a column at the beginning of a panel, before its groups
	Scales bool   // each column of a panel has a scale

	// Encode converts a float32 panel, [depth][NR], to one of the kind and computes the scale of
	// each column. nil, for float32: no conversion. It need not be fast.
	Encode func(dst []byte, scale, panel []float32)
	// Tiles computes tiles of a matrix product with such panels; see Tiles.
	Tiles func(t *Tiles)

	// Narrow and Widen convert to and from the 16 bits of a value, for a kind that has such:
	// it rounds both operands of a product. Round does both, dst may be src. Tiles are then
	// given an A of rounded values.
	Round  func(dst, src []float32)
	Narrow func(dst []uint16, src []float32)
	Widen  func(dst []float32, src []uint16)
	Blocks *Blocks // the products, in place of Tiles, if they take both operands in 16 bits

	Products *Bytes // the products, in place of Tiles, if they take both operands in 8 bits
}

// Blocks is products of which both operands are packed in 16 bits.
type Blocks struct {
	Link int // k of a link, or of several; operands are divided at multiples and filled up with zeros to one
	Rows int // of a tile of A

	// PackA packs A[r,k] = src[r*rs+k*cs], of which one is 1, and PackB B[k,j] = src[k*ld+j] or,
	// with trans, src[j*ld+k]. Packed, rows are a multiple of Rows, and columns of NR. Tiles of
	// A are pitch numbers apart.
	PackA func(dst []uint16, src []float32, rows, depth, rs, cs, pitch int)
	PackB func(dst []uint16, src []float32, depth, cols, ld int, trans bool)
	Run   func(a *BlockArgs)
}

// BlockArgs is C[r*LDC+j] = From[r*LDFrom+j] + Σ_k A[r,k] * B[k,j] for r < M, j < N, k < K, and
// then + Σ_k A2[r,k] * B2[k,j] for k < K2, which may be 0. A nil From is zeros. Other sizes are at
// least 1. Operands are packed: a tile of A and, after it, the one of A2; panels of B Pitch numbers apart.
type BlockArgs struct {
	A, B, B2    []uint16
	Pitch, K2   int
	Pitch2      int
	C, From     []float32
	LDC, LDFrom int
	M, N, K     int
}

// Tiles is tiles of C = From + A·B with the same depth and strides, computed one
// after the other. For each of them,
//
//	C[r*LDC+c] = From[r*LDFrom+c] + Σ_k A[r*RS+k*CS] * B[k*LDB+c]
//
// for r < M and c < N. Each element is a single chain of multiply-adds that starts
// at From (nil: zero) and takes k in ascending order for all M and N, so dividing K
// into calls that continue from C changes no bit; see Flushes.
// This is the law of float32. For other kinds the links of the chain are groups of
// k, and device.Kind defines what a link adds; K is divided between groups only, so
// it is a multiple of Group except at the end of the product. LDB and Pitch then
// count words of 4 bytes.
// With At, the elements of a row of A are A[r*RS+At[k]-At[0]] instead. From = C accumulates; a bias row is From = bias with LDFrom = 0.
//
// 1 <= M <= MR, 1 <= N <= NR, K >= 0. B must be readable for NR columns in each of
// its K rows for any N; C and From are accessed in N columns only.
//
// With few rows a tile is bound by the latency of its chains, so it may take several
// panels: N may also be NR·Abreast(M), and then columns from j·NR on are those of
// the matrix at B + j·Pitch.
//
// A second product may follow, for N of one panel only:
// + Σ_k A2[r*RS2+k*CS] * B2[k*LDB+c] over K2 values of k.
type Tiles struct {
	First       *Tile // of an array of Count
	Count       int   // at least 1
	RS          int   // stride of A by row, not negative; A transposed is RS = 1
	LDB, Pitch  int
	LDC, LDFrom int
	K           int
	RS2, K2     int  // K2 is 0 without a second product
	At          *int // [K+1], of which the last may be any, for float32 only; nil: CS
}

// Tile is one of Tiles.
type Tile struct {
	M, N int
	CS   int      // stride of A by k
	A, B *float32 // B and B2 point to a panel, of any kind
	C    *float32
	From *float32
	A2   *float32
	B2   *float32

	Scale, Scale2 *float32 // the scales of the N columns of B and B2, for a kind that has scales

	// Memory to prefetch for later tiles; nil for none.
	NextC *float32 // where the C of the next tile begins: M rows LDC apart
	NextB *float32 // FetchPerK elements per k
}

// Abreast returns the number of panels that a tile of m rows may take.
func Abreast(m int) int {
	switch m {
	case 1:
		return 4
	case 2:
		return 3
	case 3:
		return 2
	}
	return 1
}

// FetchPerK is the number of elements at NextB that a kernel prefetches per k.
const FetchPerK = 4

// CellArgs is the arguments of the kernels of cells, for one step of Rows batch rows
// of H units, of which they compute Units adjacent ones. The pointers are to the
// first of these; a kernel reads and writes only those that its equations name.
//
//	LSTM      i,f,o = sigmoid, g = tanh of the gates;  C = f*CPrev + i*g;  Hid = o*tanh(C)
//	GRU       r,z = sigmoid of the gates;  n = tanh(gate + r*Side);  Hid = n + z*(HPrev-n)
//
// The GRU resets after the recurrent product. C may be CPrev. Backward, LSTMGrad
// computes tanh(C) again. The gradients are, with dc = DC + DHid*o*(1-tanh(C)²) and
// dn = DHid*(1-z)*(1-n²),
//
//	LSTMGrad  i: dc*g*i*(1-i)  f: dc*CPrev*f*(1-f)  g: dc*i*(1-g²)  o: DHid*tanh(C)*o*(1-o);  DC = dc*f
//	GRUGrad   r: dn*Side*r*(1-r)  z: DHid*(HPrev-n)*z*(1-z)  n: dn;  Side = dn*r;  DHid = DHid*z
type CellArgs struct {
	Rows, H int      // at least 1
	Units   int      // at least 1, at most H
	Gates   *float32 // [Rows,4H] in the order i,f,g,o or [Rows,3H] r,z,n. Forward: pre-activations in, activations out; backward: these in, gradients of the pre-activations out
	CPrev   *float32 // [Rows,H]
	C       *float32 // [Rows,H] out; backward in
	Side    *float32 // [Rows,H]; backward its gradient out
	HPrev   *float32 // [Rows,H]
	Hid     *float32 // [Rows,H] out
	Out     *float32 // a copy of Hid, in rows LDOut apart
	LDOut   int
	DHid    *float32 // [Rows,H] dL/dh of this step; of a GRU, out: the direct part of that of the step before
	DC      *float32 // [Rows,H] in: dL/dc carried from the next step; out: for the step before
}

// AdamArgs is one step of Adam over N parameters, in PyTorch's arithmetic:
//
//	g = GScale*G + L2*W;  W *= Keep
//	M += OneMinusBeta1*(g-M);  V = Beta2*V + OneMinusBeta2*g*g
//	W -= StepSize * M / (sqrt(V)/SqrtBias2 + Eps);  G = 0
type AdamArgs struct {
	N             int
	W, G, M, V    *float32 // [N] each
	GScale        float32  // 1 for none
	L2            float32  // weight decay added to the gradient; 0 for AdamW
	Keep          float32  // 1 - lr*decay for AdamW; 1 for none
	OneMinusBeta1 float32
	Beta2         float32
	OneMinusBeta2 float32
	StepSize      float32 // lr / (1 - beta1^t)
	SqrtBias2     float32 // sqrt(1 - beta2^t)
	Eps           float32
}

// Sets returns the sets that run on this machine, best first. The last is always "generic".
// The slice must not be changed.
func Sets() []*Set { return available() }

var available = sync.OnceValue(func() []*Set {
	return append(machineSets(), &generic)
})

// Named returns the set of a name. The empty name means the set named by the
// environment variable EnvVar or, without one, the best set. The error is a plain
// one that lists the sets of this machine.
func Named(name string) (*Set, error) {
	from := "kernel set"
	if name == "" {
		if name = os.Getenv(EnvVar); name == "" {
			return Sets()[0], nil
		}
		from = EnvVar
	}
	var names []string
	for _, s := range Sets() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("%s: %q is not available here; choose one of %s", from, name, strings.Join(names, ", "))
}

// Best returns Named(""), evaluated once. It panics with Named's error if the
// environment names a set that does not run here; a program that reports this error
// calls Named first.
func Best() *Set {
	s, err := best()
	if err != nil {
		panic(err)
	}
	return s
}

var best = sync.OnceValues(func() (*Set, error) { return Named("") })
