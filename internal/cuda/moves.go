//go:build dl && linux

package cuda

import (
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

// Fill queues dst = v.
func (b *Backend) Fill(dst device.Buffer, v float32) {
	b.enter()
	defer b.leave()
	launch(b, fillWords, each(dst.N), &fillArgs{dst.Addr, int64(dst.N), math.Float32bits(v)})
}

// Copy queues dst (+)= src.
func (b *Backend) Copy(dst, src device.Buffer, acc bool) {
	b.enter()
	defer b.leave()
	k := copyWords
	if acc {
		k.name = "add_to"
	}
	launch(b, k, each(src.N), &copyArgs{dst.Addr, src.Addr, int64(src.N)})
}

type permuteArgs struct {
	dst, src, rows, lens               uintptr
	dstOff, srcOff                     int64
	dstStride, srcStride, outer, inner [4]int64
	n                                  int64
	rowsDst, rowDim, timeDim, acc      int32
}

// Permute queues a strided copy.
func (b *Backend) Permute(s *device.PermuteSpec) {
	a := permuteArgs{dst: s.Dst.Addr, src: s.Src.Addr, rows: s.Rows.Addr, lens: s.Lens.Addr, dstOff: int64(s.DstOff), srcOff: int64(s.SrcOff), n: 1,
		rowsDst: flag(s.RowsDst), rowDim: int32(s.RowDim), timeDim: int32(s.TimeDim), acc: flag(s.Acc)}
	all := 1
	for k, n := range s.Dims {
		all *= n
		a.dstStride[k], a.srcStride[k], a.outer[k], a.inner[k] = int64(s.DstStride[k]), int64(s.SrcStride[k]), int64(n), 1
		if s.DstStride[k] == 0 {
			a.outer[k], a.inner[k] = 1, int64(n)
		}
		a.n *= a.outer[k]
	}
	if all == 0 {
		return
	}
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "moves", name: "permute"}, each(int(a.n)), &a)
}
