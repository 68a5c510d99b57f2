// Package simd holds the vector and matrix micro-kernels and picks among them at run time.
//
// A Set is a struct of functions. The "generic" set is plain Go and is the
// reference; the others are assembly generated from the templates in _asm and
// tested against it. No kernel allocates, blocks or starts goroutines, and no
// single assembly call runs for longer than about 100 microseconds, because Go
// cannot preempt assembly.
//
// Elementwise kernels give an element the same bits wherever it stands in the
// slice. Reductions add in one fixed order of lanes that depends on the length
// alone. Bits may differ between sets: those with fused multiply-add use it.
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
	Name   string // "avx512", "avx2" or "generic"
	MR, NR int    // the matrix tile: at most MR rows, exactly NR columns of B

	// Flushes says that each instruction of the kernels takes subnormal operands for
	// zeros and flushes its result. Without it operands must not be subnormal, and
	// where the depth of a product is cut shows in sums that come below MinNormal,
	// so that the cuts must follow from the shape.
	Flushes bool

	Weights []Weights // by device.Kind, the first those of float32

	// Pack cuts a matrix into panels of width columns, each lying [depth][width]:
	// dst[(p*depth+k)*width+j] = src[k*ld+p*width+j] for k < depth, and 0 for
	// columns from cols on.
	Pack func(dst, src []float32, depth, cols, ld, width int)
	// PackT transposes a strip of a matrix: dst[k*stride+j] = src[j*ld+k]
	// for k < depth, j < cols, and 0 for cols <= j < stride.
	PackT func(dst, src []float32, depth, cols, ld, stride int)

	Exp     func(dst, src []float32) // within 1 ulp; exp of large is +Inf, of very negative 0
	Sigmoid func(dst, src []float32) // within 3 ulp; not zero before exp underflows
	Tanh    func(dst, src []float32) // within 5 ulp; exactly odd

	LSTM     func(a *LSTMArgs)     // one step of some rows
	LSTMGrad func(a *LSTMGradArgs) // its backward

	GRU     func(a *GRUArgs)     // one step of some rows
	GRUGrad func(a *GRUGradArgs) // its backward

	SigmoidGrad func(dst, d []float32) // dst = d * dst*(1-dst), where dst is a sigmoid's value
	TanhGrad    func(dst, d []float32) // dst = d * (1-dst*dst), where dst is a tanh's value

	Add    func(dst, a, b []float32)               // dst = a + b
	Sub    func(dst, a, b []float32)               // dst = a - b
	Mul    func(dst, a, b []float32)               // dst = a * b
	Div    func(dst, a, b []float32)               // dst = a / b
	Lerp   func(dst, a, b, w []float32)            // dst = a + w*(b-a)
	MulAdd func(dst, a, b []float32)               // dst += a * b
	Axpy   func(alpha float32, dst, src []float32) // dst += alpha * src
	Scale  func(alpha float32, dst []float32)      // dst *= alpha
	Shift  func(alpha float32, dst, src []float32) // dst = src + alpha
	Flush  func(dst, src []float32)                // dst = src, with 0 for subnormal numbers
	Sum    func(x []float32) float32
	SumSq  func(x []float32) float32
	Dot    func(x, y []float32) float32

	Adam func(a *AdamArgs)
}

// Weights is what a set does with one kind of weights at rest. They lie in panels
// of NR columns as [depth/Group][NR] groups, the last filled up with zeros.
type Weights struct {
	Name   string // of the kind
	Group  int    // so many values of a column, one k after the other, lie side by side and are summed together
	Bytes  int    // of a group; those of NR groups are a multiple of 4
	Scales bool   // each column of a panel has a scale

	// Encode makes a panel of the kind from one of float32, [depth][NR], and gives each column its
	// scale. nil, for float32: the panel is taken as it is. It may be as slow as it likes to be exact.
	Encode func(dst []byte, scale, panel []float32)
	// Tiles computes tiles of a matrix product with such panels; see Tiles.
	Tiles func(t *Tiles)
}

// Tiles is tiles of C = From + A·B that have depth and strides in common,
// computed one after the other. In elements, for each of them,
//
//	C[r*LDC+c] = From[r*LDFrom+c] + Σ_k A[r*RS+k*CS] * B[k*LDB+c]
//
// for r < M and c < N. Each element is a single chain of multiply-adds that
// starts at From (nil: zero) and takes k in ascending order, whatever M and N
// are, so splitting K over calls that continue from C changes no bit; see Flushes.
// That is float32's law. With other kinds of weights the links of the chain are
// groups of k, and what a link adds is the kind's own affair (device.Kind says
// it): so K is split between groups only, and is no multiple of Group but at the
// end of the whole product. There LDB and Pitch count words of 4 bytes.
// From = C accumulates; a bias row is From = bias with LDFrom = 0.
//
// 1 <= M <= MR, 1 <= N <= NR, K >= 0. B must be readable for NR columns in
// each of its K rows whatever N is; C and From are touched for N columns only.
//
// Few rows leave most of the processor waiting for the end of their chains, so
// they take panels side by side: N may also be NR·Abreast(M), and then columns
// from j·NR on are those of the matrix at B + j·Pitch.
//
// A second product may go on where the first ends, for N of one panel only:
// + Σ_k A2[r*RS2+k*CS] * B2[k*LDB+c] over K2 values of k.
type Tiles struct {
	First       *Tile // of Count that lie one after the other
	Count       int   // at least 1
	RS          int   // stride of A by row, not negative; A transposed is RS = 1
	LDB, Pitch  int
	LDC, LDFrom int
	K           int
	RS2, K2     int // K2 is 0 for no second product
}

// Tile is one of Tiles.
type Tile struct {
	M, N int
	CS   int      // stride of A by k
	A, B *float32 // B and B2 point at a panel, whatever its kind
	C    *float32
	From *float32
	A2   *float32
	B2   *float32

	Scale, Scale2 *float32 // those of the N columns of B and B2, for a kind that has scales; else of no meaning

	// What later tiles use, fetched into the caches meanwhile; nil for none.
	NextC *float32 // where the C of the next tile begins: M rows LDC apart
	NextB *float32 // FetchPerK elements with every k
}

// Abreast is how many panels a tile of m rows may take side by side.
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

// FetchPerK is how many elements at NextB a kernel fetches for every k.
const FetchPerK = 4

// LSTMArgs is one LSTM step of some batch rows of H units, or of Units units next
// to each other: the pointers are then at the first of them.
//
//	i,f,o = sigmoid, g = tanh of the gates;  C = f*CPrev + i*g;  Hid = o*tanh(C)
//
// C may be CPrev.
type LSTMArgs struct {
	Rows, H int      // at least 1
	Units   int      // at least 1, at most H
	Gates   *float32 // [Rows,4H] in the order i,f,g,o: pre-activations in, activations out
	CPrev   *float32 // [Rows,H]
	C       *float32 // [Rows,H] out
	Hid     *float32 // [Rows,H] out
	Out     *float32 // a copy of Hid, in rows LDOut apart
	LDOut   int
}

// LSTMGradArgs is the backward pass of LSTMArgs; tanh(C) is computed again.
type LSTMGradArgs struct {
	Rows, H int      // at least 1
	Units   int      // at least 1, at most H
	Gates   *float32 // [Rows,4H] activations in, gradients of the pre-activations out
	CPrev   *float32 // [Rows,H]
	C       *float32 // [Rows,H]
	DHid    *float32 // [Rows,H] dL/dh of this step
	DC      *float32 // [Rows,H] in: dL/dc carried from the next step; out: for the step before
}

// GRUArgs is one step of a GRU that resets after the recurrent product, of some
// batch rows of H units, or of Units units next to each other: the pointers are
// then at the first of them.
//
//	r,z = sigmoid of the gates;  n = tanh(gate + r*Side);  Hid = n + z*(HPrev-n)
type GRUArgs struct {
	Rows, H int      // at least 1
	Units   int      // at least 1, at most H
	Gates   *float32 // [Rows,3H] in the order r,z,n: pre-activations in, activations out
	Side    *float32 // [Rows,H]
	HPrev   *float32 // [Rows,H]
	Hid     *float32 // [Rows,H] out
	Out     *float32 // a copy of Hid, in rows LDOut apart
	LDOut   int
}

// GRUGradArgs is the backward pass of GRUArgs.
type GRUGradArgs struct {
	Rows, H int      // at least 1
	Units   int      // at least 1, at most H
	Gates   *float32 // [Rows,3H] activations in, gradients of the pre-activations out
	Side    *float32 // [Rows,H] in: Side; out: its gradient
	HPrev   *float32 // [Rows,H]
	DHid    *float32 // [Rows,H] in: dL/dh of this step; out: the direct part of that of the step before
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

// Sets lists the sets that run on this machine, best first. The last is always "generic".
func Sets() []*Set { return available() }

var available = sync.OnceValue(func() []*Set {
	return append(machineSets(), &generic)
})

// Named finds a set by name. The empty name means the environment's choice
// (CAROUSEL_SIMD) or, without one, the best set.
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

// Best is Named(""), decided once. It panics with Named's error if the
// environment asks for a set that does not run here; programs that want to
// report that call Named first.
func Best() *Set {
	s, err := best()
	if err != nil {
		panic(err)
	}
	return s
}

var best = sync.OnceValues(func() (*Set, error) { return Named("") })
