package cpu

import (
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Softmax computes y = e^x/Σe^x, or its logarithm, over each row's valid columns.
func (b *Backend) Softmax(s *device.SoftmaxSpec) {
	par.Each(s.Rows, rowGrain(s.Cols), b, s, (*Backend).softmaxRows)
}

// SoftmaxGrad computes DX from Y and DY, over the valid columns:
//
//	dx (+)= y·(dy - Σ y·dy), or with Log dx (+)= dy - e^y·Σ dy
func (b *Backend) SoftmaxGrad(s *device.SoftmaxSpec) {
	par.Each(s.Rows, rowGrain(s.Cols), b, s, (*Backend).softmaxGradRows)
}

func (b *Backend) softmaxRows(s *device.SoftmaxSpec, lo, hi int) {
	for r := lo; r < hi; r++ {
		n := lengthOf(s.Lens, r/max(s.RowsPerLen, 1), s.Cols)
		x, y := s.X.Host[r*s.Cols:], s.Y.Host[r*s.Cols:(r+1)*s.Cols]
		clear(y[n:])
		if n == 0 {
			continue
		}
		x, y = x[:n], y[:n]
		top := rowMax(x)
		if s.Log {
			b.set.Shift(-top, y, x) // first, so that large logits keep their digits
			b.set.Shift(-float32(math.Log(float64(expSum(b.set, nil, x, top)))), y, y)
			continue
		}
		b.set.Scale(1/expSum(b.set, y, x, top), y)
	}
}

func (b *Backend) softmaxGradRows(s *device.SoftmaxSpec, lo, hi int) {
	tmp := chunks.Get()
	defer chunks.Put(tmp)
	for r := lo; r < hi; r++ {
		n := lengthOf(s.Lens, r/max(s.RowsPerLen, 1), s.Cols)
		at := r * s.Cols
		y, dy, dx := s.Y.Host[at:at+n], s.DY.Host[at:at+n], s.DX.Host[at:at+s.Cols]
		if !s.AccX {
			clear(dx[n:])
		}
		var total float32
		if s.Log {
			total = b.set.Sum(dy)
		} else {
			total = b.set.Dot(y, dy)
		}
		for i := 0; i < n; i += len(tmp) {
			m := min(len(tmp), n-i)
			g, y, dy := tmp[:m], y[i:i+m], dy[i:i+m]
			if s.Log {
				b.set.Exp(g, y)
				b.set.Scale(-total, g)
				b.set.Add(g, g, dy)
			} else {
				b.set.Shift(-total, g, dy)
				b.set.Mul(g, g, y)
			}
			store(b.set, dx[i:i+m], g, s.AccX)
		}
	}
}

// rowMax returns the largest element. NaN counts as the smallest, because the
// exponentials that follow are NaN again.
func rowMax(x []float32) float32 {
	inf := float32(math.Inf(-1))
	m0, m1, m2, m3 := inf, inf, inf, inf
	for ; len(x) >= 4; x = x[4:] {
		if x[0] > m0 {
			m0 = x[0]
		}
		if x[1] > m1 {
			m1 = x[1]
		}
		if x[2] > m2 {
			m2 = x[2]
		}
		if x[3] > m3 {
			m3 = x[3]
		}
	}
	for _, v := range x {
		if v > m0 {
			m0 = v
		}
	}
	return max(m0, m1, m2, m3)
}

// expSum returns Σ e^(x-top), summed in chunks, and writes the terms to e unless e is nil.
func expSum(set *simd.Set, e, x []float32, top float32) float32 {
	tmp := chunks.Get()
	defer chunks.Put(tmp)
	var sum float32
	for i := 0; i < len(x); i += len(tmp) {
		part := x[i:min(i+len(tmp), len(x))]
		out := tmp[:len(part)]
		if e != nil {
			out = e[i : i+len(part)]
		}
		set.Shift(-top, out, part)
		set.Exp(out, out)
		sum += set.Sum(out)
	}
	return sum
}
