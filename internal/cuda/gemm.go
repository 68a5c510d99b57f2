//go:build dl && linux

package cuda

import (
	"cmp"
	"fmt"
	"runtime"

	"github.com/carousel-ml/carousel/internal/device"
)

// Gemm queues a product. Its sums keep the law of kernels/gemm.cu, in which no bit depends on
// other rows, unless cuBLASLt computes it: that repeats its bits for a product of the same sizes,
// options and alignments, on the same device with the same file of choices.
func (b *Backend) Gemm(s *device.GemmSpec) {
	b.enter()
	defer b.leave()
	b.gemm(s)
}

// gemm is Gemm; b is entered. Its temporary memory is not that of b.work.
func (b *Backend) gemm(s *device.GemmSpec) {
	if s.M == 0 || s.N == 0 {
		return
	}
	full := *s
	full.LDA, full.LDB, full.LDC = cmp.Or(s.LDA, s.K), cmp.Or(s.LDB, s.N), cmp.Or(s.LDC, s.N)
	if s.TransA {
		full.LDA = cmp.Or(s.LDA, s.M)
	}
	if s.TransB {
		full.LDB = cmp.Or(s.LDB, s.K)
	}
	full.Batch = max(s.Batch, 1)
	if b.gemmByLibrary(&full) {
		return
	}
	b.gemmByKernels(&full)
}

// gemmArgs is gemm_args of kernels/gemm.cu.
type gemmArgs struct {
	a, b                   uintptr
	aScale, bScale         uintptr
	bias                   uintptr
	c, parts               uintptr
	aRow, aDeep            int64
	bRow, bDeep            int64
	ldc                    int64
	aBatch, bBatch, cBatch int64
	m, n, k, batch         int32
	block, splits          int32
	acc                    int32
	aWide, bWide, cWide    int32
}

type gemmSumArgs struct {
	parts, bias        uintptr
	c                  uintptr
	ldc, cBatch        int64
	m, n               int32
	batch, splits, acc int32
}

type bytesArgs struct {
	x              uintptr
	bytes          uintptr
	scale          uintptr
	row, deep      int64
	rows, k        int32
	words, weights int32
}

var (
	gemmSum     = kernel{file: "operands", name: "gemm_sum"}
	bytesOfRows = kernel{file: "operands", name: "bytes_of_rows"}
)

// tf32 is the kind, in kernels/gemm.cu, of float32 on tensor cores.
const tf32 = device.NumKinds

// kindOf returns what the operands of a product are rounded to.
func (b *Backend) kindOf(s *device.GemmSpec) device.Kind {
	if s.Kind == device.F32 && b.TF32 {
		return tf32
	}
	return s.Kind
}

// tile is a size of the tiles of C that blocks of threads compute.
type tile struct {
	m, n    int
	shared  int                         // bytes
	kernels [device.NumKinds + 1]kernel // by the kind
}

// plainTile is a tile for float32 and INT8: a thread has eachM x eachN elements, and shared
// memory depth k at a time.
func plainTile(m, n, eachM, eachN, depth int) tile {
	t := tile{m: m, n: n, shared: 2 * depth * ((m+n+3)/8*8 + 4) * 4}
	return t.with(fmt.Sprintf("EACH_M=%d EACH_N=%d DEPTH=%d", eachM, eachN, depth), device.F32, device.INT8)
}

// tensorTile is a tile for the kinds of tensor cores: warps of the 8 are above each other.
func tensorTile(m, n, warps int) tile {
	t := tile{m: m, n: n, shared: 2 * (m + n) * 64}
	return t.with(fmt.Sprintf("WARPS_M=%d", warps), device.BF16, device.FP16, tf32)
}

func (t tile) with(macros string, kinds ...device.Kind) tile {
	for _, kind := range kinds {
		t.kernels[kind] = kernel{file: "gemm", name: "gemm", macros: fmt.Sprintf("KIND=%d TILE_M=%d TILE_N=%d %s", kind, t.m, t.n, macros)}
	}
	return t
}

// tileSet is tiles for products of any size, the largest first, and those for few rows and few
// columns, the smallest first.
type tileSet struct{ any, rows, columns []tile }

var (
	plainTiles = tileSet{
		any:     []tile{plainTile(128, 128, 8, 8, 16), plainTile(64, 64, 4, 4, 16)},
		rows:    []tile{plainTile(4, 64, 1, 1, 64), plainTile(16, 64, 1, 4, 32)},
		columns: []tile{plainTile(64, 4, 1, 1, 64), plainTile(64, 16, 4, 1, 32)},
	}
	tensorTiles = tileSet{
		any:     []tile{tensorTile(128, 128, 2), tensorTile(64, 64, 2)},
		rows:    []tile{tensorTile(16, 64, 1)},
		columns: []tile{tensorTile(128, 8, 8)},
	}
)

// tileFor chooses a tile. No bit depends on it.
func (b *Backend) tileFor(kind device.Kind, m, n, batch int) *tile {
	set := &plainTiles
	if kind.Half() || kind == tf32 {
		set = &tensorTiles
	}
	if m > n {
		for i := range set.columns {
			if t := &set.columns[i]; n <= t.n {
				return t
			}
		}
	}
	for i := range set.rows {
		if t := &set.rows[i]; m <= t.m {
			return t
		}
	}
	if t := &set.any[0]; t.count(m, n, batch) >= b.limits.sms {
		return t
	}
	return &set.any[1]
}

// count returns how many tiles a batch of products has.
func (t *tile) count(m, n, batch int) int {
	return ceilDiv(m, t.m) * ceilDiv(n, t.n) * batch
}

// leastBlock is the fewest k of a block of sums, and mostBlocks the most blocks of a sum.
const (
	leastBlock = 256
	mostBlocks = 32
)

// blockOf returns the k of a block, a multiple of leastBlock that depends on the depth alone.
func blockOf(k int) int {
	return leastBlock * max(ceilDiv(k, leastBlock*mostBlocks), 1)
}

// mostParts is the most memory for the sums of blocks that are computed apart.
const mostParts = 64 << 20

func (b *Backend) gemmByKernels(s *device.GemmSpec) {
	kind := b.kindOf(s)
	a := gemmArgs{a: s.A.Addr, b: s.B.Addr, bias: s.Bias.Addr, c: s.C.Addr, aRow: int64(s.LDA), aDeep: 1, bRow: 1, bDeep: int64(s.LDB), ldc: int64(s.LDC),
		aBatch: int64(s.StrideA), bBatch: int64(s.StrideB), cBatch: int64(s.StrideC), m: int32(s.M), n: int32(s.N), k: int32(s.K), batch: int32(s.Batch),
		block: int32(blockOf(s.K)), splits: 1, acc: flag(s.Acc)}
	if s.TransA {
		a.aRow, a.aDeep = a.aDeep, a.aRow
	}
	if s.TransB {
		a.bRow, a.bDeep = a.bDeep, a.bRow
	}
	a.aWide, a.bWide, a.cWide = wide(s.A, s.LDA, s.StrideA), wide(s.B, s.LDB, s.StrideB), wide(s.C, s.LDC, s.StrideC)
	t := b.tileFor(kind, s.M, s.N, s.Batch)
	n := t.count(s.M, s.N, s.Batch)
	if kind == device.INT8 {
		b.roundToBytes(s, &a)
	} else if parts := ceilDiv(s.K, int(a.block)); parts > 1 && n < 2*b.limits.sms && parts*s.Batch*s.M*s.N <= mostParts/4 {
		a.splits = int32(parts)
		a.parts = b.grown(&b.products, 4*parts*s.Batch*s.M*s.N)
		a.cWide = flag(s.N%4 == 0)
	}
	launch(b, t.kernels[kind], blocks(n*int(a.splits), t.shared), &a)
	if a.splits > 1 {
		launch(b, gemmSum, each(s.Batch*s.M*s.N), &gemmSumArgs{a.parts, a.bias, a.c, a.ldc, a.cBatch, a.m, a.n, a.batch, a.splits, a.acc})
	}
}

// wide reports, as 1 or 0, whether four adjacent numbers of a matrix are read at once.
func wide(m device.Buffer, ld, stride int) int32 {
	return flag(m.Addr%16 == 0 && ld%4 == 0 && stride%4 == 0)
}

// roundToBytes queues the rounding of both operands to integers of 8 bits, and makes them the
// operands of a. It is done for B once for each version of the weights.
func (b *Backend) roundToBytes(s *device.GemmSpec, a *gemmArgs) {
	if s.Batch > 1 {
		panic("cuda: a batch of products of 8 bits")
	}
	words := ceilDiv(s.K, 16) * 4
	memory := func(rows int) int { return (4*rows*(words+1) + 15) &^ 15 } // the scales after the integers
	need := memory(s.M)
	addr, known := b.derived(s, memory(s.N))
	if addr == 0 {
		need += memory(s.N)
	}
	work := b.grown(&b.products, need)
	if addr == 0 {
		addr = work + uintptr(memory(s.M))
	}
	rounded := func(x device.Buffer, to uintptr, row, deep int64, rows, weights int) (scale uintptr) {
		scale = to + uintptr(4*rows*words)
		if weights == 0 || !known {
			launch(b, bytesOfRows, warps(rows), &bytesArgs{x.Addr, to, scale, row, deep, int32(rows), int32(s.K), int32(words), int32(weights)})
		}
		return scale
	}
	a.aScale = rounded(s.A, work, a.aRow, a.aDeep, s.M, 0)
	a.bScale = rounded(s.B, addr, a.bRow, a.bDeep, s.N, 1)
	a.a, a.b, a.aRow, a.aDeep, a.bRow, a.bDeep, a.aWide, a.bWide = work, addr, int64(words), 1, int64(words), 1, 1, 1
	a.k = int32(words)
}

// weights is what a device.Cache has: B of a product in another form.
type weights struct {
	owner *Backend
	kind  device.Kind
	block
}

// derived returns memory of the cache for B in the form of the kind, and whether it has it
// already; 0 without a cache. b is entered.
func (b *Backend) derived(s *device.GemmSpec, bytes int) (addr uintptr, known bool) {
	if s.Cache == nil {
		return 0, false
	}
	fits := func(v any) (*weights, bool) {
		w, ok := v.(*weights)
		return w, ok && w.owner == b && w.kind == s.Kind && w.bytes == bytes
	}
	if w, ok := fits(s.Cache.Load(s.Version)); ok {
		return w.addr, true
	}
	w, ok := fits(s.Cache.Stale(s.Version))
	if !ok {
		w = &weights{b, s.Kind, block{b.allocate(bytes), bytes}}
		runtime.AddCleanup(w, b.dropped.add, w.addr)
	}
	s.Cache.Store(s.Version, w)
	return w.addr, false
}
