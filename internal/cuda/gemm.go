//go:build dl && linux

package cuda

import (
	"cmp"

	"github.com/carousel-ml/carousel/internal/device"
)

type gemmArgs struct {
	a, b, bias, c               uintptr
	m, n, k                     int32
	aRow, aCol, bRow, bCol, ldc int64
	aBatch, bBatch, cBatch      int64
	batch, acc                  int32
}

var gemmPlain = kernel{file: "gemm", name: "gemm_plain"}

// Gemm queues a product.
func (b *Backend) Gemm(s *device.GemmSpec) {
	b.enter()
	defer b.leave()
	b.gemm(s)
}

// gemm is Gemm; b is entered.
func (b *Backend) gemm(s *device.GemmSpec) {
	a := gemmArgs{a: s.A.Addr, b: s.B.Addr, bias: s.Bias.Addr, c: s.C.Addr, m: int32(s.M), n: int32(s.N), k: int32(s.K),
		aBatch: int64(s.StrideA), bBatch: int64(s.StrideB), cBatch: int64(s.StrideC), batch: int32(max(s.Batch, 1)), ldc: int64(cmp.Or(s.LDC, s.N))}
	if s.Acc {
		a.acc = 1
	}
	a.aRow, a.aCol = int64(cmp.Or(s.LDA, s.K)), 1
	if s.TransA {
		a.aRow, a.aCol = 1, int64(cmp.Or(s.LDA, s.M))
	}
	a.bRow, a.bCol = int64(cmp.Or(s.LDB, s.N)), 1
	if s.TransB {
		a.bRow, a.bCol = 1, int64(cmp.Or(s.LDB, s.K))
	}
	launch(b, gemmPlain, each(int(a.batch)*s.M*s.N), &a)
}
