package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Additive computes the scores of s, each row of the batch independently.
func (b *Backend) Additive(s *device.AdditiveSpec) {
	par.Each(s.B, ceilDiv(moveGrain, max(s.Q*s.T*s.U, 1)), b, s, (*Backend).additiveRows)
}

func (b *Backend) additiveRows(s *device.AdditiveSpec, lo, hi int) {
	w, U := workspaces.Get(), s.U
	for i := lo; i < hi; i++ {
		n := lengthOf(s.Lens, i, s.T)
		for q := range s.Q {
			inner := additiveTanh(b.set, s, w.floats(n*U), i, q, n)
			score := s.Score.Host[(i*s.Q+q)*s.T:][:s.T]
			for t := range n {
				score[t] = b.set.Dot(inner[t*U:][:U], s.V.Host)
			}
			clear(score[n:])
		}
	}
	workspaces.Put(w)
}

// additiveTanh fills inner [n,U] for query q of row b and the first n keys, and returns it:
//
//	inner[t,u] = tanh(Query[b,q,u] + Key[b,t,u] + Cover[b,q,t]·W[u])
func additiveTanh(set *simd.Set, s *device.AdditiveSpec, inner []float32, b, q, n int) []float32 {
	U := s.U
	query, keys := s.Query.Host[(b*s.Q+q)*U:][:U], s.Key.Host[b*s.T*U:]
	for t := range n {
		line := inner[t*U:][:U]
		set.Add(line, keys[t*U:][:U], query)
		if !s.Cover.Zero() {
			set.Axpy(s.Cover.Host[(b*s.Q+q)*s.T+t], line, s.W.Host)
		}
	}
	set.Tanh(inner, inner)
	return inner
}

// AdditiveGrad is the backward pass of Additive: each row independently, then the
// sums over rows in ascending order.
func (b *Backend) AdditiveGrad(s *device.AdditiveSpec) {
	sums := workspaces.Get() // [B,2,U]: each row's part of the gradients of V and W
	sums.set = b.set
	clear(sums.floats(s.B * 2 * s.U))
	par.Each(s.B, ceilDiv(moveGrain, max(s.Q*s.T*s.U, 1)), sums, s, (*workspace).additiveRowsGrad)
	for i := range s.B {
		b.addTo(s.DV, sums.f[2*i*s.U:][:s.U])
		b.addTo(s.DW, sums.f[(2*i+1)*s.U:][:s.U])
	}
	workspaces.Put(sums)
}

func (w *workspace) additiveRowsGrad(s *device.AdditiveSpec, lo, hi int) {
	own, set, U := workspaces.Get(), w.set, s.U
	for b := lo; b < hi; b++ {
		n := lengthOf(s.Lens, b, s.T)
		dv, dw := w.f[2*b*U:][:U], w.f[(2*b+1)*U:][:U]
		for q := range s.Q {
			work := own.floats((n + 1) * U)
			all, slope := additiveTanh(set, s, work[:n*U], b, q, n), work[n*U:]
			at := (b*s.Q + q) * s.T
			for t := range n {
				d := s.DScore.Host[at+t]
				inner := all[t*U:][:U]
				set.Axpy(d, dv, inner)
				set.Mul(inner, inner, inner) // slope = v·(1 - tanh²)
				set.Mul(inner, inner, s.V.Host)
				copy(slope, s.V.Host)
				set.Axpy(-1, slope, inner)
				if !s.DQuery.Zero() {
					set.Axpy(d, s.DQuery.Host[(b*s.Q+q)*U:][:U], slope)
				}
				if !s.DKey.Zero() {
					set.Axpy(d, s.DKey.Host[(b*s.T+t)*U:][:U], slope)
				}
				if s.Cover.Zero() {
					continue
				}
				set.Axpy(simd.Narrow(float64(d)*float64(s.Cover.Host[at+t])), dw, slope)
				if !s.DCover.Zero() {
					dc := &s.DCover.Host[at+t]
					*dc = simd.Narrow(float64(*dc) + float64(simd.Narrow(float64(d)*float64(set.Dot(slope, s.W.Host)))))
				}
			}
		}
	}
	workspaces.Put(own)
}
