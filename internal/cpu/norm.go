package cpu

import (
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Norm computes Y = (X-mean)/√(var+Eps)·Gamma + Beta for each row. Gamma, Beta, Mean and RStd may be absent.
func (b *Backend) Norm(s *device.NormSpec) {
	if s.Cols == 0 {
		return
	}
	par.Each(s.Rows, rowGrain(s.Cols), b, s, (*Backend).normRows)
}

func (b *Backend) normRows(s *device.NormSpec, lo, hi int) {
	cols := s.Cols
	for r := lo; r < hi; r++ {
		x, y := s.X.Host[r*cols:(r+1)*cols], s.Y.Host[r*cols:(r+1)*cols]
		center, rstd := standardize(b.set, y, x, float64(s.Eps))
		if !s.Gamma.Zero() {
			b.set.Mul(y, y, s.Gamma.Host[:cols])
		}
		if !s.Beta.Zero() {
			b.set.Add(y, y, s.Beta.Host[:cols])
		}
		if !s.Mean.Zero() {
			s.Mean.Host[r], s.RStd.Host[r] = center, rstd
		}
	}
}

// standardize computes y = (x-center)·rstd, where center is the mean of x and rstd is 1/√(variance+eps).
func standardize(set *simd.Set, y, x []float32, eps float64) (center, rstd float32) {
	center = mean(set.Sum(x), len(x))
	set.Shift(-center, y, x)
	variance := mean(set.SumSq(y), len(x)) // of centred values: no cancellation
	rstd = float32(1 / math.Sqrt(float64(variance)+eps))
	set.Scale(rstd, y)
	return center, rstd
}

// mean returns sum/n.
func mean(sum float32, n int) float32 { return simd.Narrow(float64(sum) / float64(n)) }

// NormGrad computes DX, DGamma and DBeta, which may be absent, from X, Mean, RStd, Gamma and DY.
func (b *Backend) NormGrad(s *device.NormSpec) {
	if s.Rows == 0 || s.Cols == 0 {
		return
	}
	w := workspaces.Get() // [blocks,2*Cols] partial DGamma, then DBeta
	blocks := ceilDiv(s.Rows, rowBlock(s.Cols))
	w.set = b.set
	parts := w.floats(blocks * 2 * s.Cols)
	par.Each(blocks, 1, w, s, (*workspace).normGradBlocks)
	foldRows(b.set, parts, blocks, 2*s.Cols)
	b.addTo(s.DGamma, parts[:s.Cols])
	b.addTo(s.DBeta, parts[s.Cols:2*s.Cols])
	workspaces.Put(w)
}

// normGradBlocks computes, with xhat = (x-mean)·rstd and g = dy·gamma,
// dx = rstd·(g - mean(g) - xhat·mean(g·xhat)).
func (w *workspace) normGradBlocks(s *device.NormSpec, lo, hi int) {
	set, cols, block := w.set, s.Cols, rowBlock(s.Cols)
	own := workspaces.Get()
	defer workspaces.Put(own)
	tmp := own.floats(2 * cols)
	xhat, g := tmp[:cols], tmp[cols:]
	for k := lo; k < hi; k++ {
		part := w.f[k*2*cols : (k+1)*2*cols]
		clear(part)
		for r := k * block; r < min((k+1)*block, s.Rows); r++ {
			x, dy := s.X.Host[r*cols:(r+1)*cols], s.DY.Host[r*cols:(r+1)*cols]
			center, rstd := s.Mean.Host[r], s.RStd.Host[r]
			set.Shift(-center, xhat, x)
			set.Scale(rstd, xhat)
			set.MulAdd(part[:cols], dy, xhat)
			set.Add(part[cols:], part[cols:], dy)
			if s.DX.Zero() {
				continue
			}
			if s.Gamma.Zero() {
				copy(g, dy)
			} else {
				set.Mul(g, dy, s.Gamma.Host[:cols])
			}
			m1, m2 := mean(set.Sum(g), cols), mean(set.Dot(g, xhat), cols)
			set.Shift(-m1, g, g)
			set.Axpy(-m2, g, xhat)
			set.Scale(rstd, g)
			store(set, s.DX.Host[r*cols:(r+1)*cols], g, s.AccX)
		}
	}
}
