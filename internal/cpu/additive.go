package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// additive is the workspace of one goroutine.
type additive struct {
	set          *simd.Set
	inner, slope []float32
}

var additivePool par.Pool[additive]

// Additive computes the scores of s, each row of the batch independently.
func (b *Backend) Additive(s *device.AdditiveSpec) {
	par.Each(s.B, ceilDiv(moveGrain, max(s.Q*s.T*s.U, 1)), b, s, (*Backend).additiveRows)
}

func (b *Backend) additiveRows(s *device.AdditiveSpec, lo, hi int) {
	w, U := additivePool.Get(), s.U
	w.set = b.set
	for i := lo; i < hi; i++ {
		n := lengthOf(s.Lens, i, s.T)
		for q := range s.Q {
			w.tanh(s, i, q, n)
			score := s.Score.Host[(i*s.Q+q)*s.T:][:s.T]
			for t := range n {
				score[t] = w.set.Dot(w.inner[t*U:][:U], s.V.Host)
			}
			clear(score[n:])
		}
	}
	additivePool.Put(w)
}

// tanh fills w.inner [n,U] for query q of row b and the first n keys:
//
//	inner[t,u] = tanh(Query[b,q,u] + Key[b,t,u] + Cover[b,q,t]·W[u])
func (w *additive) tanh(s *device.AdditiveSpec, b, q, n int) {
	U := s.U
	w.inner = grow(w.inner, n*U)
	query, keys := s.Query.Host[(b*s.Q+q)*U:][:U], s.Key.Host[b*s.T*U:][:n*U]
	for t := range n {
		inner := w.inner[t*U:][:U]
		w.set.Add(inner, keys[t*U:][:U], query)
		if !s.Cover.Zero() {
			w.set.Axpy(s.Cover.Host[(b*s.Q+q)*s.T+t], inner, s.W.Host)
		}
	}
	w.set.Tanh(w.inner, w.inner)
}

// AdditiveGrad is the backward pass of Additive: each row independently, then the
// sums over rows in ascending order.
func (b *Backend) AdditiveGrad(s *device.AdditiveSpec) {
	sums := workspaces.Get() // [B,2,U]: each row's part of the gradients of V and W
	sums.set = b.set
	clear(sums.floats(s.B * 2 * s.U))
	par.Each(s.B, ceilDiv(moveGrain, max(s.Q*s.T*s.U, 1)), sums, s, (*workspace).additiveRowsGrad)
	for i := range s.B {
		addTo(b.set, s.DV, sums.f[2*i*s.U:][:s.U])
		addTo(b.set, s.DW, sums.f[(2*i+1)*s.U:][:s.U])
	}
	workspaces.Put(sums)
}

func (w *workspace) additiveRowsGrad(s *device.AdditiveSpec, lo, hi int) {
	a, set, U := additivePool.Get(), w.set, s.U
	a.set = set
	a.slope = grow(a.slope, U)
	for b := lo; b < hi; b++ {
		n := lengthOf(s.Lens, b, s.T)
		dv, dw := w.f[2*b*U:][:U], w.f[(2*b+1)*U:][:U]
		for q := range s.Q {
			a.tanh(s, b, q, n)
			at := (b*s.Q + q) * s.T
			for t := range n {
				d := s.DScore.Host[at+t]
				inner := a.inner[t*U:][:U]
				set.Axpy(d, dv, inner)
				set.Mul(inner, inner, inner) // slope = v·(1 - tanh²)
				set.Mul(inner, inner, s.V.Host)
				copy(a.slope, s.V.Host)
				set.Axpy(-1, a.slope, inner)
				if !s.DQuery.Zero() {
					set.Axpy(d, s.DQuery.Host[(b*s.Q+q)*U:][:U], a.slope)
				}
				if !s.DKey.Zero() {
					set.Axpy(d, s.DKey.Host[(b*s.T+t)*U:][:U], a.slope)
				}
				if s.Cover.Zero() {
					continue
				}
				set.Axpy(simd.Narrow(float64(d)*float64(s.Cover.Host[at+t])), dw, a.slope)
				if !s.DCover.Zero() {
					dc := &s.DCover.Host[at+t]
					*dc = simd.Narrow(float64(*dc) + float64(simd.Narrow(float64(d)*float64(set.Dot(a.slope, s.W.Host)))))
				}
			}
		}
	}
	additivePool.Put(a)
}
