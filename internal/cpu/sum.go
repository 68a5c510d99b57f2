package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// unit is the left operand of column sums: a row of ones, as a matrix with strides of 0.
var unit = []float32{1}

// SumRows computes dst[j] (+)= Σ_i src[i*ld+j] as the product of a row of ones
// with src. Each column is one sum with i ascending.
func (b *Backend) SumRows(dst, src device.Buffer, rows, cols, ld int, acc bool) {
	if ld == 0 {
		ld = cols
	}
	g := gemmPool.Get()
	g.p = product{set: b.set, m: 1, n: cols, k: rows, a: unit, b: src.Host, ldb: ld, c: dst.Host, acc: acc}
	grain := ceilDiv(moveGrain, max(rows*b.set.NR, 1))
	par.For(g.p.columns(), grain, &g.p, func(p *product, lo, hi int) { p.part(0, 1, lo, hi) })
	g.put()
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
func (b *Backend) addTo(dst device.Buffer, src []float32) {
	if !dst.Zero() {
		b.Copy(dst, device.HostBuffer(src), true)
	}
}
