//go:build dl && linux

package cuda

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

// blas is cuBLASLt (cublasLt.h of 12 and 13): products of large matrices.
type blas struct {
	create                                             uintptr
	descCreate, descDestroy, descSet                   uintptr
	layoutCreate, layoutDestroy, layoutSet             uintptr
	preferenceCreate, preferenceDestroy, preferenceSet uintptr
	heuristic, matmul                                  uintptr

	handle  uintptr
	space   uintptr // blasSpace bytes for its algorithms
	plans   map[blasShape]*blasPlan
	made    uint64
	events  [2]uintptr // for timing
	version int
	choices choices // of the algorithms that the library proposes, by their number
}

// Values of cublasLt.h, cublas_api.h and library_types.h.
const (
	blasFloat32           = 0 // CUDA_R_32F
	blasFloat16           = 2
	blasBFloat16          = 14
	blasCompute32         = 68 // CUBLAS_COMPUTE_32F
	blasComputeTF32       = 77 // CUBLAS_COMPUTE_32F_FAST_TF32
	blasTransposed        = 1  // CUBLAS_OP_T
	blasDescTransA        = 3
	blasDescTransB        = 4
	blasDescEpilogue      = 7
	blasDescBias          = 8 // its pointer
	blasEpilogueBias      = 4
	blasLayoutBatch       = 5
	blasLayoutStride      = 6
	blasPreferSpace       = 1
	blasPreferReductions  = 3
	blasReductionsOutside = 2 | 4 // sums of parts of k in the workspace, and not in place
	blasPreferAlignment   = 5     // of A; then those of B, C and D
)

const (
	blasSpace     = 32 << 20  // bytes
	blasTries     = 4         // algorithms that are timed
	blasTimed     = 5         // runs of each
	blasTimedC    = 256 << 20 // bytes of C, up to which a second one is made for timing
	mostBlasPlans = 4096
	mostBlasTimed = 512 // plans with a timed algorithm; later ones take the library's first
)

// leastBlasWork is the multiply-adds below which own kernels are as fast, we think.
var leastBlasWork = 1 << 20

// blasShape is what an algorithm is chosen for.
type blasShape struct {
	m, n, k, batch            int
	lda, ldb, ldc             int
	strideA, strideB, strideC int
	transA, transB, acc, bias bool
	kind                      device.Kind
	alignA, alignB, alignC    uint32 // bytes
	alignBias                 uint32
}

// blasPlan is how products of a shape are computed.
type blasPlan struct {
	blasShape
	number     uint64
	desc       uintptr
	a, b, c    uintptr      // layouts; the library's A is B
	algorithms []blasResult // the one that is used is the first
	timed      bool
}

// blasResult is cublasLtMatmulHeuristicResult_t.
type blasResult struct {
	algo   [8]uint64
	space  uint64
	status int32
	waves  float32
	_      [4]int32
}

// bindBlas finds the functions of cuBLASLt, of which only heuristic and matmul need a handle.
func bindBlas(lib *dl.Library) (*blas, error) {
	l := &blas{plans: map[blasShape]*blasPlan{}, version: version(lib, "cublasLtGetVersion"), choices: choices{path: cached("products.json")}}
	return l, lib.Bind(map[string]*uintptr{
		"cublasLtCreate":                       &l.create,
		"cublasLtMatmulDescCreate":             &l.descCreate,
		"cublasLtMatmulDescDestroy":            &l.descDestroy,
		"cublasLtMatmulDescSetAttribute":       &l.descSet,
		"cublasLtMatrixLayoutCreate":           &l.layoutCreate,
		"cublasLtMatrixLayoutDestroy":          &l.layoutDestroy,
		"cublasLtMatrixLayoutSetAttribute":     &l.layoutSet,
		"cublasLtMatmulPreferenceCreate":       &l.preferenceCreate,
		"cublasLtMatmulPreferenceDestroy":      &l.preferenceDestroy,
		"cublasLtMatmulPreferenceSetAttribute": &l.preferenceSet,
		"cublasLtMatmulAlgoGetHeuristic":       &l.heuristic,
		"cublasLtMatmul":                       &l.matmul,
	})
}

// library returns cuBLASLt, opened when it is needed first; nil if there is none. b is entered.
func (b *Backend) library() *blas {
	if b.blas != nil || b.libs.blaslt == nil {
		return b.blas
	}
	l, err := bindBlas(b.libs.blaslt)
	if err == nil {
		if r := dl.Call(l.create, uintptr(unsafe.Pointer(&l.handle))); r != 0 {
			err = fmt.Errorf("cublasLtCreate: status %d", r)
		}
	}
	if err != nil {
		b.libs.blaslt = nil
		b.notes = append(b.notes, "cuBLASLt is not used: "+err.Error())
		return nil
	}
	l.space = b.allocate(blasSpace)
	for i := range l.events {
		b.must("cuEventCreate", dl.Call(b.d.eventCreate, uintptr(unsafe.Pointer(&l.events[i])), 0))
	}
	b.blas = l
	return l
}

// gemmByLibrary queues a product if cuBLASLt computes it, and reports whether it does.
func (b *Backend) gemmByLibrary(s *device.GemmSpec) bool {
	if b.Deterministic || s.Kind == device.INT8 || s.K == 0 || s.Batch*s.M*s.N*s.K < leastBlasWork {
		return false
	}
	l := b.library()
	if l == nil {
		return false
	}
	shape := blasShape{m: s.M, n: s.N, k: s.K, batch: s.Batch, lda: s.LDA, ldb: s.LDB, ldc: s.LDC, strideA: s.StrideA, strideB: s.StrideB, strideC: s.StrideC,
		transA: s.TransA, transB: s.TransB, acc: s.Acc, bias: !s.Bias.Zero(), kind: b.kindOf(s),
		alignA: alignment(s.A), alignB: alignment(s.B), alignC: alignment(s.C), alignBias: alignment(s.Bias)}
	var x, y halves
	if s.Kind.Half() {
		x, y = halvesOf(s.A, s.LDA, s.StrideA, s.M, s.K, s.TransA, s), halvesOf(s.B, s.LDB, s.StrideB, s.K, s.N, s.TransB, s)
		shape.lda, shape.strideA, shape.alignA = x.layout()
		shape.ldb, shape.strideB, shape.alignB = y.layout()
	}
	p := b.productPlan(shape)
	if len(p.algorithms) == 0 {
		return false
	}
	c := blasCall{plan: p, a: s.A.Addr, b: s.B.Addr, c: s.C.Addr, bias: s.Bias.Addr}
	if s.Kind.Half() {
		c.a, c.b = b.halve(s, &x, &y)
	}
	b.call("cublasLtMatmul", key("cublasLtMatmul", p.number, uint64(c.a), uint64(c.b), uint64(c.c), uint64(c.bias)), func(stream uintptr) int32 {
		if !p.timed && stream == b.stream {
			p.timed = true
			b.fastestProduct(&c)
		}
		return l.run(&c, 0, c.c, stream)
	})
	return true
}

// alignment returns the largest power of two up to 256 that divides an address.
func alignment(m device.Buffer) uint32 {
	v := uint32(m.Addr) | 256
	return v & -v
}

// blasCall is a product that is computed.
type blasCall struct {
	plan          *blasPlan
	a, b, c, bias uintptr
}

// run queues the product to d by one of the plan's algorithms.
func (l *blas) run(c *blasCall, algorithm int, d, stream uintptr) int32 {
	p := c.plan
	if p.bias {
		if r := dl.Call(l.descSet, p.desc, blasDescBias, uintptr(unsafe.Pointer(&c.bias)), 8); r != 0 {
			return r
		}
	}
	alpha, beta := float32(1), float32(0)
	if p.acc {
		beta = 1
	}
	how := &p.algorithms[algorithm]
	return dl.Call(l.matmul, l.handle, p.desc, uintptr(unsafe.Pointer(&alpha)), c.b, p.b, c.a, p.a, uintptr(unsafe.Pointer(&beta)), c.c, p.c, d, p.c,
		uintptr(unsafe.Pointer(&how.algo)), l.space, blasSpace, stream)
}

// productPlan returns the plan of a shape, which has no algorithm if the library has none. b is entered.
func (b *Backend) productPlan(s blasShape) *blasPlan {
	l := b.blas
	if p := l.plans[s]; p != nil {
		return p
	}
	if len(l.plans) >= mostBlasPlans {
		b.flush()
		for _, p := range l.plans {
			l.destroy(p)
		}
		clear(l.plans)
	}
	l.made++
	p := &blasPlan{blasShape: s, number: l.made}
	if r := l.describe(p); r != 0 {
		panic(b.libs.failure(b, "cublasLtMatmulDescSetAttribute", r))
	}
	if r := l.ask(p); r != 0 {
		p.algorithms = nil
	}
	p.timed = len(p.algorithms) < 2 || l.made > mostBlasTimed
	l.plans[s] = p
	return p
}

// describe makes the descriptors of a plan. The library's matrices are column-major, so ours are
// transposed to it, and Cᵀ = Bᵀ·Aᵀ.
func (l *blas) describe(p *blasPlan) int32 {
	compute, kind := uintptr(blasCompute32), uintptr(blasFloat32)
	switch p.kind {
	case device.BF16:
		kind = blasBFloat16
	case device.FP16:
		kind = blasFloat16
	case tf32:
		compute = blasComputeTF32
	}
	if r := dl.Call(l.descCreate, uintptr(unsafe.Pointer(&p.desc)), compute, blasFloat32); r != 0 {
		return r
	}
	transposed, epilogue := int32(blasTransposed), uint32(blasEpilogueBias)
	set := func(on bool, attribute uintptr, value unsafe.Pointer) int32 {
		if !on {
			return 0
		}
		return dl.Call(l.descSet, p.desc, attribute, uintptr(value), 4)
	}
	if r := set(p.transB, blasDescTransA, unsafe.Pointer(&transposed)); r != 0 {
		return r
	}
	if r := set(p.transA, blasDescTransB, unsafe.Pointer(&transposed)); r != 0 {
		return r
	}
	if r := set(p.bias, blasDescEpilogue, unsafe.Pointer(&epilogue)); r != 0 {
		return r
	}
	for _, m := range []struct {
		to         *uintptr
		kind       uintptr
		rows, cols int // ours
		ld, stride int
		turned     bool
	}{
		{&p.a, kind, p.m, p.k, p.lda, p.strideA, p.transA},
		{&p.b, kind, p.k, p.n, p.ldb, p.strideB, p.transB},
		{&p.c, blasFloat32, p.m, p.n, p.ldc, p.strideC, false},
	} {
		if m.turned {
			m.rows, m.cols = m.cols, m.rows
		}
		if r := dl.Call(l.layoutCreate, uintptr(unsafe.Pointer(m.to)), m.kind, uintptr(m.cols), uintptr(m.rows), uintptr(m.ld)); r != 0 {
			return r
		}
		if p.batch == 1 {
			continue
		}
		batch, stride := int32(p.batch), int64(m.stride)
		if r := dl.Call(l.layoutSet, *m.to, blasLayoutBatch, uintptr(unsafe.Pointer(&batch)), 4); r != 0 {
			return r
		}
		if r := dl.Call(l.layoutSet, *m.to, blasLayoutStride, uintptr(unsafe.Pointer(&stride)), 8); r != 0 {
			return r
		}
	}
	return 0
}

// ask sets the algorithms of a plan that the library expects to be fast, the best first.
func (l *blas) ask(p *blasPlan) int32 {
	var preference uintptr
	if r := dl.Call(l.preferenceCreate, uintptr(unsafe.Pointer(&preference))); r != 0 {
		return r
	}
	defer dl.Call(l.preferenceDestroy, preference)
	space, reductions := uint64(blasSpace), uint32(blasReductionsOutside)
	if r := dl.Call(l.preferenceSet, preference, blasPreferSpace, uintptr(unsafe.Pointer(&space)), 8); r != 0 {
		return r
	}
	if r := dl.Call(l.preferenceSet, preference, blasPreferReductions, uintptr(unsafe.Pointer(&reductions)), 4); r != 0 {
		return r
	}
	for i, bytes := range [...]uint32{p.alignB, p.alignA, p.alignC, p.alignC} {
		if r := dl.Call(l.preferenceSet, preference, uintptr(blasPreferAlignment+i), uintptr(unsafe.Pointer(&bytes)), 4); r != 0 {
			return r
		}
	}
	if p.bias { // an address of the same alignment: without one, no algorithm may be found
		address := uint64(p.alignBias)
		if r := dl.Call(l.descSet, p.desc, blasDescBias, uintptr(unsafe.Pointer(&address)), 8); r != 0 {
			return r
		}
	}
	var found int32
	results := make([]blasResult, blasTries)
	if r := dl.Call(l.heuristic, l.handle, p.desc, p.b, p.a, p.c, p.c, preference, blasTries, uintptr(unsafe.Pointer(&results[0])), uintptr(unsafe.Pointer(&found))); r != 0 {
		return r
	}
	for _, r := range results[:found] {
		if r.status == 0 && r.space <= blasSpace {
			p.algorithms = append(p.algorithms, r)
		}
	}
	return 0
}

func (l *blas) destroy(p *blasPlan) {
	dl.Call(l.descDestroy, p.desc)
	for _, layout := range []uintptr{p.a, p.b, p.c} {
		dl.Call(l.layoutDestroy, layout)
	}
}

// fastestProduct puts the plan's fastest algorithm first, by the device's clock, for which it
// waits, or by an earlier process.
func (b *Backend) fastestProduct(c *blasCall) {
	l, p, d := b.blas, c.plan, c.c
	first := func(i int) { p.algorithms[0], p.algorithms[i] = p.algorithms[i], p.algorithms[0] }
	key := fmt.Sprintf("%s %d.%d, cuBLASLt %d: %+v", b.name, b.limits.arch/10, b.limits.arch%10, l.version, p.blasShape)
	if i, ok := l.choices.get(key); ok && i >= 0 && int(i) < len(p.algorithms) {
		first(int(i))
		return
	}
	if p.acc { // C is needed as it is, so the results go elsewhere
		bytes := 4 * ((p.batch-1)*p.strideC + (p.m-1)*p.ldc + p.n)
		if bytes > blasTimedC || dl.Call(b.d.memAllocAsync, uintptr(unsafe.Pointer(&d)), uintptr(bytes), b.stream) != 0 {
			return
		}
		defer func() { b.must("cuMemFreeAsync", dl.Call(b.d.memFreeAsync, d, b.stream)) }()
	}
	best, least := 0, float32(math.Inf(1))
	for i := range p.algorithms {
		if l.run(c, i, d, b.stream) != 0 { // the first run loads its kernel
			continue
		}
		b.must("cuEventRecord", dl.Call(b.d.eventRecord, l.events[0], b.stream))
		for range blasTimed {
			l.run(c, i, d, b.stream)
		}
		b.must("cuEventRecord", dl.Call(b.d.eventRecord, l.events[1], b.stream))
		b.must("cuEventSynchronize", dl.Call(b.d.eventSynchronize, l.events[1]))
		var ms float32
		b.must("cuEventElapsedTime", dl.Call(b.d.eventElapsedTime, uintptr(unsafe.Pointer(&ms)), l.events[0], l.events[1]))
		if ms < least {
			best, least = i, ms
		}
	}
	l.choices.put(key, int32(best))
	first(best)
}

// halves is an operand that is rounded to 16 bits: halves_args of kernels/operands.cu.
type halves struct {
	x            uintptr
	to           uintptr
	xRow, xBatch int64
	batch, rows  int32
	cols, ld     int32 // ld is that of to
	fp16         int32
}

var roundToHalves = kernel{file: "operands", name: "halves_of"}

// halvesOf describes an operand of s, [rows,cols] or, turned, [cols,rows].
func halvesOf(m device.Buffer, ld, stride, rows, cols int, turned bool, s *device.GemmSpec) halves {
	if turned {
		rows, cols = cols, rows
	}
	h := halves{x: m.Addr, xRow: int64(ld), xBatch: int64(stride), batch: int32(s.Batch), rows: int32(rows), cols: int32(cols), ld: int32(ceilDiv(cols, 8) * 8), fp16: flag(s.Kind == device.FP16)}
	if stride == 0 {
		h.batch = 1 // one for all
	}
	return h
}

// layout returns what a plan knows of the rounded operand.
func (h *halves) layout() (ld, stride int, align uint32) {
	if h.batch > 1 {
		stride = int(h.rows) * int(h.ld)
	}
	return int(h.ld), stride, 256
}

// elements returns how many numbers are written.
func (h *halves) elements() int { return int(h.batch) * int(h.rows) * int(h.ld) }

// halve queues the rounding of both operands, of weights once for each version, and returns
// where they will be.
func (b *Backend) halve(s *device.GemmSpec, x, y *halves) (_, _ uintptr) {
	bytes := func(h *halves) int { return (2*h.elements() + 255) &^ 255 }
	need, known := bytes(x), false
	if s.Batch == 1 {
		y.to, known = b.derived(s, bytes(y))
	}
	if y.to == 0 {
		need += bytes(y)
	}
	x.to = b.grown(&b.products, need)
	if y.to == 0 {
		y.to = x.to + uintptr(bytes(x))
	}
	launch(b, roundToHalves, each(x.elements()/4), x)
	if !known {
		launch(b, roundToHalves, each(y.elements()/4), y)
	}
	return x.to, y.to
}
