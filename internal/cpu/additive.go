package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

type additiveArgs struct {
	set  *simd.Set
	s    *device.AdditiveSpec
	sums []float32 // [B,2,U]: each row's part of the gradients of V and W
}

var additivePool par.Pool[additiveArgs]

// additiveWork is the workspace of one goroutine.
type additiveWork struct{ inner, slope []float32 }

var additiveWorkPool par.Pool[additiveWork]

// Additive computes the scores of each row of the batch by itself.
func (b *Backend) Additive(s *device.AdditiveSpec) {
	a := additivePool.Get()
	a.set, a.s = b.set, s
	par.For(s.B, ceilDiv(moveGrain, max(s.Q*s.T*s.U, 1)), a, additiveRows)
	a.s = nil
	additivePool.Put(a)
}

// length is how many keys row b has.
func (a *additiveArgs) length(b int) int {
	if a.s.Lens.Zero() {
		return a.s.T
	}
	return int(a.s.Lens.Host[b])
}

func additiveRows(a *additiveArgs, lo, hi int) {
	w := additiveWorkPool.Get()
	s, U := a.s, a.s.U
	for b := lo; b < hi; b++ {
		n := a.length(b)
		for q := range s.Q {
			a.tanh(w, b, q, n)
			score := s.Score.Host[(b*s.Q+q)*s.T:][:s.T]
			for t := range n {
				score[t] = a.set.Dot(w.inner[t*U:][:U], s.V.Host)
			}
			clear(score[n:])
		}
	}
	additiveWorkPool.Put(w)
}

// tanh fills w.inner [n,U] for one query and the first n keys.
func (a *additiveArgs) tanh(w *additiveWork, b, q, n int) {
	s, U := a.s, a.s.U
	w.inner = grow(w.inner, n*U)
	query, keys := s.Query.Host[(b*s.Q+q)*U:][:U], s.Key.Host[b*s.T*U:][:n*U]
	for t := range n {
		inner := w.inner[t*U:][:U]
		a.set.Add(inner, keys[t*U:][:U], query)
		if !s.Cover.Zero() {
			a.set.Axpy(s.Cover.Host[(b*s.Q+q)*s.T+t], inner, s.W.Host)
		}
	}
	a.set.Tanh(w.inner, w.inner)
}

// AdditiveGrad is the backward pass: rows by themselves, then the sums over them
// in order.
func (b *Backend) AdditiveGrad(s *device.AdditiveSpec) {
	a := additivePool.Get()
	a.set, a.s = b.set, s
	a.sums = grow(a.sums, s.B*2*s.U)
	clear(a.sums)
	par.For(s.B, ceilDiv(moveGrain, max(s.Q*s.T*s.U, 1)), a, additiveRowsGrad)
	for i := range s.B {
		if !s.DV.Zero() {
			b.set.Axpy(1, s.DV.Host, a.sums[2*i*s.U:][:s.U])
		}
		if !s.DW.Zero() {
			b.set.Axpy(1, s.DW.Host, a.sums[(2*i+1)*s.U:][:s.U])
		}
	}
	a.s = nil
	additivePool.Put(a)
}

func additiveRowsGrad(a *additiveArgs, lo, hi int) {
	w := additiveWorkPool.Get()
	s, set, U := a.s, a.set, a.s.U
	w.slope = grow(w.slope, U)
	for b := lo; b < hi; b++ {
		n := a.length(b)
		dv, dw := a.sums[2*b*U:][:U], a.sums[(2*b+1)*U:][:U]
		for q := range s.Q {
			a.tanh(w, b, q, n)
			at := (b*s.Q + q) * s.T
			for t := range n {
				d := s.DScore.Host[at+t]
				inner := w.inner[t*U:][:U]
				set.Axpy(d, dv, inner)
				set.Mul(inner, inner, inner) // slope = v·(1 - tanh²)
				set.Mul(inner, inner, s.V.Host)
				copy(w.slope, s.V.Host)
				set.Axpy(-1, w.slope, inner)
				if !s.DQuery.Zero() {
					set.Axpy(d, s.DQuery.Host[(b*s.Q+q)*U:][:U], w.slope)
				}
				if !s.DKey.Zero() {
					set.Axpy(d, s.DKey.Host[(b*s.T+t)*U:][:U], w.slope)
				}
				if s.Cover.Zero() {
					continue
				}
				set.Axpy(simd.Narrow(float64(d)*float64(s.Cover.Host[at+t])), dw, w.slope)
				if !s.DCover.Zero() {
					dc := &s.DCover.Host[at+t]
					*dc = simd.Narrow(float64(*dc) + float64(simd.Narrow(float64(d)*float64(set.Dot(w.slope, s.W.Host)))))
				}
			}
		}
	}
	additiveWorkPool.Put(w)
}
