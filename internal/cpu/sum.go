package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// sumBlock is the most rows that one kernel call adds.
const sumBlock = 2048

// unit is the left operand of column sums: a row of ones, as a matrix with strides of 0.
var unit = [1]float32{1}

// SumRows computes dst[j] (+)= Σ_i src[i*ld+j] as the product of a row of ones
// with src. Each column is one sum with i ascending.
func (b *Backend) SumRows(dst, src device.Buffer, rows, cols, ld int, acc bool) {
	if ld == 0 {
		ld = cols
	}
	g := gemmPool.Get()
	g.spec = device.GemmSpec{N: cols, K: rows, B: src, LDB: ld, C: dst, Acc: acc}
	grain := ceilDiv(moveGrain, max(rows*b.set.NR, 1))
	par.Each(ceilDiv(cols, b.set.NR), grain, b, &g.spec, (*Backend).sumPanels)
	g.put()
}

func (b *Backend) sumPanels(s *device.GemmSpec, lo, hi int) {
	w := workerPool.Get()
	nr := b.set.NR
	for p := lo; p < hi; p++ {
		j := p * nr
		n := min(nr, s.N-j)
		c := s.C.Host[j : j+n]
		if !s.Acc {
			clear(c)
		}
		for i := 0; i < s.K; i += sumBlock {
			rows, src, ld := min(sumBlock, s.K-i), s.B.Host[i*s.LDB+j:], s.LDB
			if n < nr { // the kernel reads whole panels
				w.packB = grow(w.packB, max(stripSize, sumBlock*nr))
				b.set.Pack(w.packB[:rows*nr], src, rows, n, ld, nr)
				src, ld = w.packB, nr
			}
			w.tiles[0] = simd.Tile{M: 1, N: n, A: &unit[0], B: &src[0], C: &c[0], From: &c[0]}
			w.call = simd.Tiles{First: &w.tiles[0], Count: 1, LDB: ld, K: rows}
			b.set.Weights[device.F32].Tiles(&w.call)
		}
	}
	w.put()
}

// squaresBlock is the number of squares in one partial sum, for any number of workers.
const squaresBlock = 4096

// SumSquares computes dst[0] = Σ src², in blocks of squaresBlock that are added in order.
func (b *Backend) SumSquares(dst, src device.Buffer) {
	w := workspaces.Get()
	w.set, w.x = b.set, src.Host
	blocks := ceilDiv(src.N, squaresBlock)
	w.sums = resize(w.sums, blocks)
	par.For(blocks, moveGrain/squaresBlock, w, func(w *workspace, lo, hi int) {
		for k := lo; k < hi; k++ {
			w.sums[k] = float64(w.set.SumSq(w.x[k*squaresBlock : min((k+1)*squaresBlock, len(w.x))]))
		}
	})
	dst.Host[0] = float32(sumOf(w.sums))
	w.x = nil
	workspaces.Put(w)
}

// sumOf returns the sum of v, added in order.
func sumOf(v []float64) (sum float64) {
	for _, x := range v {
		sum += x
	}
	return sum
}

// foldRows adds rows 1.. of x [rows,cols] to row 0, in ascending order.
func foldRows(set *simd.Set, x []float32, rows, cols int) {
	for r := 1; r < rows; r++ {
		set.Add(x[:cols], x[:cols], x[r*cols:(r+1)*cols])
	}
}

// addTo adds src to dst, unless dst is absent.
func addTo(set *simd.Set, dst device.Buffer, src []float32) {
	if !dst.Zero() {
		set.Add(dst.Host, dst.Host, src)
	}
}
