//go:build dl && linux

package cuda

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

// TestPermuteBits: random blocks, with every option, are the CPU's to the bit, since elements of one
// destination are added in one order.
func TestPermuteBits(t *testing.T) {
	host, gpu := cpu.New(simd.Best()), emulated(t, Options{})
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 400 {
		var s device.PermuteSpec
		for k := range s.Dims {
			s.Dims[k] = 1 + r.IntN(9)
		}
		if round%50 == 0 {
			s.Dims[r.IntN(4)] = 300 // more than a block
		}
		s.Acc = r.IntN(2) == 0
		s.RowDim, s.TimeDim = r.IntN(3), r.IntN(4)
		var dstN, srcN int
		s.DstStride, dstN = strides(r, s.Dims)
		s.SrcStride, srcN = strides(r, s.Dims)
		for k := range s.Dims {
			if r.IntN(5) == 0 { // broadcasting
				s.SrcStride[k] = 0
			}
			if s.Acc && r.IntN(5) == 0 { // its gradient
				s.DstStride[k] = 0
			}
		}
		s.DstOff, s.SrcOff = offset(s.Dims, s.DstStride), offset(s.Dims, s.SrcStride)
		var rows, lens []int32
		if r.IntN(2) == 0 {
			s.RowsDst = r.IntN(2) == 0
			for _, i := range r.Perm(s.Dims[s.RowDim]) {
				rows = append(rows, int32(i))
			}
		}
		if s.TimeDim != s.RowDim && r.IntN(2) == 0 {
			for range s.Dims[s.RowDim] {
				lens = append(lens, int32(r.IntN(s.Dims[s.TimeDim]+1)))
			}
		}
		src, dst := make([]float32, srcN), make([]float32, dstN)
		for _, v := range [][]float32{src, dst} {
			for i := range v {
				v[i] = float32(r.NormFloat64())
			}
		}
		var got [2][]float32
		for i, b := range []device.Backend{host, gpu} {
			s := s
			s.Src, s.Dst = b.Alloc(srcN), b.Alloc(dstN)
			b.Upload(s.Src, src)
			b.Upload(s.Dst, dst)
			if rows != nil {
				s.Rows = putInts(b, rows)
			}
			if lens != nil {
				s.Lens = putInts(b, lens)
			}
			b.Permute(&s)
			got[i] = get(b, s.Dst)
		}
		if !slices.Equal(got[0], got[1]) {
			t.Fatalf("round %d: %+v, rows %v, lens %v: another result than the CPU's", round, s, rows, lens)
		}
	}
}

// strides returns the strides of a block whose dimensions are in a random order, some
// backwards and some with a gap, and how many elements it spans.
func strides(r *rand.Rand, dims [4]int) (stride [4]int, n int) {
	n = 1
	for _, k := range r.Perm(4) {
		stride[k] = n
		n *= dims[k] + r.IntN(2)
		if r.IntN(4) == 0 {
			stride[k] = -stride[k]
		}
	}
	return stride, n
}

// offset returns that of a block whose first element in memory is number 0.
func offset(dims, stride [4]int) (off int) {
	for k, s := range stride {
		off += max(-s, 0) * (dims[k] - 1)
	}
	return off
}
