// Package device is the interface between the tape and what computes: Backend, its
// memory, the specs of its operations, and functions of a spec alone. It does no
// arithmetic on device memory.
//
// A Backend enqueues work on Buffers and Ints; only Download, DownloadInts and
// Sync wait, and no method returns a number computed on the device. Matrices are
// row-major float32. Dimensions: B batch, T time, I input, H hidden, G gates.
//
// Operations read and write device memory only: a spec holds shapes, options and
// device memory, and no slice of the caller but ScanSpec.Lengths. Only Upload and UploadInts read host
// memory, and have finished reading when they return; a backend that runs later
// copies it then. Work is done in the order of the calls, so the caller may use
// device memory for other data as soon as it has made the calls that need it, and a
// tape's memory may be rewound before the device has finished.
//
// Programming errors (a buffer too short for its spec) may panic: package tensor
// checks every shape that a user can reach before it enqueues.
package device

import (
	"math"
	"sync"
)

// Memory is a vector of numbers on a device. The zero Memory means "absent". On the
// CPU it is a slice of ordinary memory; on another device Addr is its address.
type Memory[T float32 | int32] struct {
	Host []T     // CPU memory; nil on other devices
	Addr uintptr // device address; 0 on the CPU
	N    int     // length in elements
	// Keeper, where Addr is set, is what a backend ties the memory's life to: parts share it, and
	// memory that nobody frees may be given back when no one has it any more, as the host's is.
	Keeper any
}

// Buffer holds numbers to compute with; Ints holds lengths, row numbers, ids, classes.
type (
	Buffer = Memory[float32]
	Ints   = Memory[int32]
)

// Admit is called by a backend with the number of bytes before it allocates a buffer in
// the host's memory. A program may set it once, at its start, to end where that much
// cannot be had.
var Admit = func(bytes int) {}

// HostBuffer returns s as a CPU buffer, which shares its memory.
func HostBuffer(s []float32) Buffer { return Buffer{Host: s, N: len(s)} }

// HostInts returns s as CPU memory, which it shares.
func HostInts(s []int32) Ints { return Ints{Host: s, N: len(s)} }

// Slice returns the part [lo, hi) of m, which shares its memory. It panics if m has no such part.
func (m Memory[T]) Slice(lo, hi int) Memory[T] {
	if lo < 0 || hi < lo || hi > m.N {
		panic("device: slice out of range")
	}
	s := Memory[T]{N: hi - lo}
	if m.Host != nil {
		s.Host = m.Host[lo:hi:hi]
	} else if m.Addr != 0 {
		s.Addr, s.Keeper = m.Addr+uintptr(lo)*4, m.Keeper
	}
	return s
}

// InHost reports whether m is ordinary memory of the host.
func (m Memory[T]) InHost() bool { return m.Host != nil }

// View returns m's own memory for code that moves numbers and computes nothing; nil
// where the host cannot see it.
func (m Memory[T]) View() []T { return m.Host }

// Zero reports whether m is absent.
func (m Memory[T]) Zero() bool { return m.N == 0 }

// Error is the panic of a backend whose device failed: out of memory, lost, or with
// a library that refused. What was computed is not to be trusted, but nothing that the
// host has is lost.
type Error struct {
	Device string // such as "cuda:0 (NVIDIA H200)"
	Memory bool   // out of memory
	Text   string // what failed and what can be done
}

// Error returns one line.
func (e *Error) Error() string { return e.Device + ": " + e.Text }

// Backend computes. Methods enqueue in order and may return before the work is
// done. Specs are passed by pointer and not used after the call returns (a backend
// that runs later copies them). Several goroutines may call methods at the same time
// if their buffers are distinct.
type Backend interface {
	Name() string       // such as "cpu/avx512"
	RunsAhead() bool    // whether methods may return before their work is done, so that reading a number costs a wait
	Alloc(n int) Buffer // n zeroed elements, 64-byte aligned
	Free(Buffer)        // ends the use of an Alloc'ed buffer; without it, it ends some time after the last Memory that has it
	Upload(dst Buffer, src []float32)
	Download(dst []float32, src Buffer) // waits
	AllocInts(n int) Ints               // as Alloc
	FreeInts(Ints)
	UploadInts(dst Ints, src []int32)
	DownloadInts(dst []int32, src Ints) // waits
	Sync()                              // waits for all enqueued work

	// Moves.
	Fill(dst Buffer, v float32)
	Copy(dst, src Buffer, acc bool) // dst = src, or dst += src
	Permute(s *PermuteSpec)

	// Dense algebra.
	Gemm(s *GemmSpec)
	SumRows(dst, src Buffer, rows, cols, ld int, acc bool) // dst[j] (+)= sum_i src[i*ld+j], i ascending in fixed blocks

	// The recurrent core.
	ScanWork(s *ScanSpec) int // the length of s.Work: depends on the shape, the options and which parameters are present
	Scan(s *ScanSpec)         // forward
	ScanGrad(s *ScanSpec)     // backward, after Scan with Keep of the same spec

	// Elementwise.
	Unary(f Function, y, x Buffer, alpha float32)                       // y = f(x)
	UnaryGrad(f Function, dx, dy, x, y Buffer, alpha float32, acc bool) // dx (+)= dy * f'(x), computed from x or y, as each function needs
	Binary(s *BinarySpec)
	BinaryGrad(s *BinarySpec)
	Dropout(s *DropoutSpec) // the same call, with Acc, is its own backward

	// Layers.
	Norm(s *NormSpec) // layer normalisation over the last dimension
	NormGrad(s *NormSpec)
	Softmax(s *SoftmaxSpec)
	SoftmaxGrad(s *SoftmaxSpec)
	Embed(s *EmbedSpec)
	EmbedGrad(s *EmbedSpec)
	Pool(s *PoolSpec)
	PoolGrad(s *PoolSpec)
	Conv(s *ConvSpec)
	ConvGrad(s *ConvSpec)
	WindowPool(s *WindowPoolSpec)
	WindowPoolGrad(s *WindowPoolSpec)
	Additive(s *AdditiveSpec)
	AdditiveGrad(s *AdditiveSpec)
	Loss(s *LossSpec) // the value and, with DPred, the gradient, in one pass
	CTC(s *CTCSpec)   // the value and, with DLogits, the gradient, in one pass
	CRF(s *CRFSpec)   // likewise

	// The optimizer's vectors.
	SumSquares(dst, src Buffer)                   // dst[0] = sum src², in one fixed order
	ClipFactor(factor, sumsq Buffer, max float32) // factor[0] = min(1, max/(sqrt(sumsq[0])+1e-6)); NaN and Inf pass through
	ScaleBy(x, factor Buffer)                     // x *= factor[0]
	AddScaled(dst, src, factor Buffer, acc bool)  // dst (+)= factor[0]*src
	Clamp(x Buffer, lo, hi float32)               // NaN stays NaN
	Lerp(dst, src Buffer, w float32)              // dst += w*(src-dst)
	Step(s *StepSpec)
}

// Kind is what the operands of a product are rounded to, and how it is summed. Masters,
// states, sums and gradients are float32 for every kind.
//
// The law of summation, for any number of threads, other rows in the batch and
// chunks of time: an output is one chain of additions that starts at its bias, its C
// or zero and takes k in ascending order, in links. Each kind below defines its
// link. So no bit depends on how work is divided, and kinds differ only in links.
type Kind uint8

const (
	// F32 does not change values. A link is one multiply-add, rounded once if the
	// kernels fuse it.
	F32 Kind = iota
	// BF16 rounds both operands to bfloat16, to nearest, ties to even; subnormal numbers
	// are zero. A link is one multiply-add as in F32, except on two kernel sets. On "amx" it is
	// 32 k: those of even k and those of odd k are a chain of multiply-adds each, from zero, and
	// the sum of both is added. On "avx512bf16" it is two k: a multiply-add of the odd one, then
	// one of the even one.
	BF16
	// FP16 likewise rounds to IEEE half precision, with its subnormal numbers.
	FP16
	// INT8 rounds each row of the left operand and each column of the weights to integers of at
	// most 127 in magnitude times a scale of its own; see simd.Bytes. A link is the whole depth of a
	// product, of which the sum of integers is exact, so that all kernel sets have the same bits.
	// The weights are a matrix in panels, or one B of Gemm. Convolutions round twice; see ConvSpec.
	INT8
	NumKinds
)

// Half reports whether the kind's numbers have 16 bits.
func (k Kind) Half() bool { return k == BF16 || k == FP16 }

// Backward returns the kind of the products of the backward pass of products of this kind: gradients
// are not rounded to 8 bits, but pass as if the operands were not either.
func (k Kind) Backward() Kind {
	if k == INT8 {
		return F32
	}
	return k
}

// Kinds is the names of the kinds.
var Kinds = [NumKinds]string{"float32", "bfloat16", "float16", "int8"}

// Cache holds what a backend derives from weights, such as panels, for one version
// of the weights. The zero Cache is empty. Several goroutines may use it.
type Cache struct {
	mu      sync.Mutex
	version uint64
	value   any
}

// Load returns the value stored for this version, or nil. The value must not be changed.
func (c *Cache) Load(version uint64) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != version {
		return nil
	}
	return c.value
}

// Stale removes and returns the value stored for another version, or nil. It is no
// longer used, so the caller may change it and store it again.
func (c *Cache) Stale(version uint64) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == version {
		return nil
	}
	v := c.value
	c.value = nil
	return v
}

// Store replaces the value by that of a version. It must not be changed until Stale returns it.
func (c *Cache) Store(version uint64, value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version, c.value = version, value
}

// PermuteSpec copies a strided 4-D block:
// Dst[DstOff + Σ i_k·DstStride[k]] (+)= Src[SrcOff + Σ i_k·SrcStride[k]], 0 <= i_k < Dims[k].
// It is used for transposes, concatenation, slicing, reversal and broadcasting (a stride of 0).
// Rows and Lens, both optional, are for batches sorted by length: index Rows[i_RowDim] is used in the
// source (or, with RowsDst, in the destination) instead of i_RowDim; elements whose i_TimeDim is not
// below Lens[i_RowDim] are written as zero (with Acc: not changed).
type PermuteSpec struct {
	Dst, Src             Buffer
	Dims                 [4]int
	DstOff, SrcOff       int
	DstStride, SrcStride [4]int
	Rows                 Ints
	RowsDst              bool
	Lens                 Ints
	RowDim, TimeDim      int
	Acc                  bool
}

// GemmSpec is C (+)= A·B (+ Bias on each row), batched if Batch > 1 (elements between batches: strides).
// A is [M,K] (or [K,M] with TransA), B is [K,N] (or [N,K] with TransB), C is [M,N]; ld are row strides, 0 for dense.
// Each element is one sum over k in ascending order (in fixed blocks): no bit depends on the thread count or on M. NaN propagates.
type GemmSpec struct {
	M, N, K                   int
	A, B, C                   Buffer
	LDA, LDB, LDC             int
	TransA, TransB            bool
	Bias                      Buffer // [N] or absent
	Acc                       bool
	Kind                      Kind // that A and B are rounded to
	Batch                     int
	StrideA, StrideB, StrideC int

	Cache   *Cache // for what is derived from B for this kind and version; nil: not cached
	Version uint64
}

// BinaryOp combines two tensors.
type BinaryOp uint8

const (
	Add BinaryOp = iota
	Sub
	Mul
	Div
)

// BinarySpec is Z = X op Y over N elements; Y may be a shorter vector of YN elements repeated: Y[i % YN].
// Backward: DX (+)= .., DY (+)= .. (summed over repeats in ascending order); an absent one is not computed.
type BinarySpec struct {
	Op         BinaryOp
	N, YN      int
	X, Y, Z    Buffer
	DZ, DX, DY Buffer
	AccX, AccY bool
}

// DropoutSpec is Y (+)= X ⊙ mask/(1-P), the mask from a counter-based generator keyed by (Seed, Step, Node)
// and the element index, so it depends on no thread count and is recomputed, never stored.
type DropoutSpec struct {
	Y, X             Buffer
	N                int
	P                float32 // 0 <= P < 1, the probability of zero
	Seed, Step, Node uint64
	Acc              bool
}

// NormSpec is layer normalisation of Rows x Cols: Y = (X-mean)/sqrt(var+Eps)*Gamma + Beta (biased variance, PyTorch).
type NormSpec struct {
	Rows, Cols        int
	X, Y, Gamma, Beta Buffer
	Eps               float32
	Mean, RStd        Buffer // [Rows], for backward
	DY, DX            Buffer
	AccX              bool
	DGamma, DBeta     Buffer // accumulate
}

// SoftmaxSpec is a row softmax of Rows x Cols; with Lens, row r covers only its first Lens[r/RowsPerLen] columns
// and is zero past them; a row of length 0 is all zeros.
type SoftmaxSpec struct {
	Rows, Cols int
	X, Y       Buffer
	Lens       Ints
	RowsPerLen int  // rows sharing one length; 0 means 1
	Log        bool // log-softmax
	DY, DX     Buffer
	AccX       bool
}

// EmbedSpec gathers rows: Y[n] = Table[IDs[n]]. Padding (or -1 for none) is an id whose row gets no gradient.
type EmbedSpec struct {
	Table   Buffer // [V,D]
	V, D    int
	IDs     Ints
	Padding int32
	Y       Buffer // [IDs.N,D]
	DY      Buffer
	DTable  Buffer // accumulates, in ascending n
}

// PoolKind chooses how a sequence becomes one vector.
type PoolKind uint8

const (
	PoolLast PoolKind = iota // each row's last valid step
	PoolMean
	PoolMax // ties go to the earliest step
)

// PoolSpec pools X [B,T,F] over each row's first Lens[b] steps (absent: T) to Y [B,F]. An empty row gives zeros.
type PoolSpec struct {
	Kind    PoolKind
	B, T, F int
	X, Y    Buffer
	Lens    Ints
	Arg     Ints // [B*F], PoolMax: the step with the maximum (-1: none), for backward
	DY, DX  Buffer
	AccX    bool
}

// AdditiveSpec is the scores of additive attention (Bahdanau et al. 2015),
// Score[b,q,t] = Σ_u V[u]·tanh(Query[b,q,u] + Key[b,t,u] + Cover[b,q,t]·W[u]) for t below Lens[b] (absent: T), otherwise zero.
// Cover and W are absent together. Backward, from DScore: all gradients accumulate, absent ones are not computed;
// those of V and W are sums over b in ascending order.
type AdditiveSpec struct {
	B, Q, T, U       int
	Query, Key, V    Buffer // [B,Q,U], [B,T,U], [U]
	Cover, W         Buffer // [B,Q,T], [U]
	Lens             Ints
	Score            Buffer // [B,Q,T]
	DScore           Buffer
	DQuery, DKey, DV Buffer
	DCover, DW       Buffer
}

// LossKind names a loss.
type LossKind uint8

const (
	MSE LossKind = iota
	MAE
	Huber        // Param: delta
	Quantile     // pinball; Pred [N,V], Target [N]
	Gaussian     // Pred [N,2]: mean, pre-softplus scale. Here and below 1e-6 is added to the softplus of a scale, count mean or dispersion, to keep it from 0
	StudentT     // Pred [N,3]: location, pre-softplus scale, pre-softplus degrees of freedom (df = 2 + softplus)
	NegBinomial  // Pred [N,2]: pre-softplus mean, pre-softplus dispersion alpha; Target counts
	CrossEntropy // Pred logits [N,V], Classes [N]
	BCE          // with logits; Target in [0,1]
)

// LossSpec is a mean loss over N items. Weighted: Σ w·l / Σ w, over items whose weight is not 0
// (no weight at all gives 0). CrossEntropy: ClassWeight [V] and Smoothing follow PyTorch; Ignore is a class that does not count.
// Value is [1]. DPred, if present, gets dValue/dPred (overwritten).
type LossSpec struct {
	Kind        LossKind
	N, V        int    // items; outputs per item (V=1 for MSE, MAE, Huber, BCE)
	Pred        Buffer // [N,V]
	Target      Buffer // [N]
	Classes     Ints   // [N], CrossEntropy
	Weight      Buffer // [N] or absent
	ClassWeight Buffer // [V] or absent
	Ignore      int32  // a negative number such as -100
	Smoothing   float32
	Param       float32
	Quantiles   Buffer // [V], Quantile
	Value       Buffer
	DPred       Buffer
}

// CTCSpec is connectionist temporal classification (Graves et al. 2006): -log of the probability that a
// row's steps, each drawn from its softmax, spell the row's labels once repeats are merged and blanks dropped.
// Value [1] is the mean over the B rows; with PerLabel each row counts by its loss divided by its number of
// labels (1 for none), torch's reduction "mean". A row whose labels need more steps than it has (see CTCSteps)
// counts as 0 and its gradient is 0. Steps past a row's length are not read and their gradient is exactly 0.
// Sums over paths are computed as logarithms in double precision.
type CTCSpec struct {
	B, T, V, L int
	Logits     Buffer // [B,T,V]
	Lens       Ints   // [B], steps of each row; absent: T
	Labels     Ints   // [B,L], classes 0..V-1 other than Blank
	LabelLens  Ints   // [B], labels of each row; absent: L
	Blank      int32
	PerLabel   bool
	Value      Buffer
	DLogits    Buffer // [B,T,V] or absent; overwritten
}

// CTCSteps returns the fewest steps that can spell these labels: their number, and one more between equal neighbours.
func CTCSteps(labels []int32) int {
	n := len(labels)
	for i := 1; i < len(labels); i++ {
		if labels[i] == labels[i-1] {
			n++
		}
	}
	return n
}

// CRFSpec is the negative log-likelihood of tag sequences under a linear-chain
// conditional random field (Lafferty et al. 2001), a mean over all steps of all rows:
//
//	Σ_b (log Σ_y e^score(y) - score(Tags[b])) / Σ_b Lens[b],
//	score(y) = Start[y_0] + Σ_t Scores[t,y_t] + Σ_t Trans[y_(t-1),y_t] + End[y_last]
//
// with y over all sequences of Lens[b] tags. -Inf in Trans, Start or End forbids a transition or tag. Rows of
// length 0 do not count; if there is no step at all, the value is 0. Nothing past a row's length is read.
// Gradients are overwritten, DScores with zeros past the lengths; an absent one is not computed.
type CRFSpec struct {
	B, T, K                       int
	Scores                        Buffer // [B,T,K]
	Trans                         Buffer // [K,K], from the row's tag to the column's
	Start, End                    Buffer // [K] or absent
	Lens                          Ints   // [B]; absent: all T
	Tags                          Ints   // [B,T], 0 to K-1
	Value                         Buffer // [1]
	DScores, DTrans, DStart, DEnd Buffer
}

// StepKind names an update rule.
type StepKind uint8

const (
	SGD StepKind = iota
	Adam
	RMSprop
)

// StepSpec updates a vector of parameters, with PyTorch's arithmetic, and clears the gradient in the same pass.
// The gradient is first multiplied by Scale[0] if present (clipping). When *Scale is not finite the step is skipped but the gradient still cleared.
type StepSpec struct {
	Kind              StepKind
	W, G              Buffer
	M, V              Buffer // moments: SGD momentum in M; Adam M, V; RMSprop V (and M with momentum)
	Scale             Buffer // [1] or absent
	LR                float32
	Beta1, Beta2, Eps float32 // Adam; RMSprop's alpha is Beta2
	Momentum          float32
	Dampening         float32
	Nesterov          bool
	Decay             float32 // weight decay
	Decoupled         bool    // AdamW: W -= LR*Decay*W; else L2: G += Decay*W
	T                 int     // step number from 1, for Adam's bias correction and SGD's first momentum step
}

// Constants are what a step's arithmetic needs beside its spec, computed in float64 and rounded
// once, as PyTorch's scalars are: the gradient is Scale·g + L2·w, the weight is first multiplied
// by Keep, and a buffer of SGD is Momentum·buffer + Fresh·gradient.
type Constants struct {
	L2, Keep, Fresh              float32
	OneMinusBeta1, OneMinusBeta2 float32
	StepSize, SqrtBias2          float32 // Adam's rate with its first correction, and the root of the second
}

// Constants returns those of s.
func (s *StepSpec) Constants() Constants {
	beta1, beta2 := decimal(s.Beta1), decimal(s.Beta2)
	c := Constants{L2: s.Decay, Keep: 1, Fresh: float32(1 - decimal(s.Dampening)), OneMinusBeta1: float32(1 - beta1), OneMinusBeta2: float32(1 - beta2)}
	if s.Decoupled {
		c.L2, c.Keep = 0, float32(1-float64(s.LR)*float64(s.Decay))
	}
	if s.Kind == Adam {
		t := float64(s.T)
		c.StepSize, c.SqrtBias2 = float32(float64(s.LR)/(1-math.Pow(beta1, t))), float32(math.Sqrt(1-math.Pow(beta2, t)))
	}
	return c
}

// decimal returns the decimal number, in [0,1] and such as 0.999, of which x is the
// float32. PyTorch computes 1-0.999 in double precision; computed from x it would be
// wrong in the fifth digit.
func decimal(x float32) float64 { return math.Round(float64(x)*1e7) / 1e7 }
