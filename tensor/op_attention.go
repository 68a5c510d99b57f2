package tensor

import "github.com/carousel-ml/carousel/internal/device"

// AdditiveScores compares queries [B,Q,U] with keys [B,T,U] as additive attention
// does (Bahdanau et al. 2015): Σ_u v[u]·tanh(query[b,q,u] + key[b,t,u]), as
// [B,Q,T]. v has U elements. With lengths (nil: none), one for each b, scores of
// keys past them are zero. With cover [B,Q,T] and gain, U elements, cover·gain is
// added inside the tanh (See et al. 2017). What lies inside the tanh is never
// stored, so memory grows with Q·T, not with Q·T·U.
func AdditiveScores(query, key, v *Tensor, lengths []int32, cover, gain *Tensor) *Tensor {
	t := tapeOf("AdditiveScores", query, key, v, cover, gain)
	if query.rank != 3 || key.rank != 3 || query.dims[0] != key.dims[0] || query.dims[2] != key.dims[2] || v.Len() != query.dims[2] {
		failf("AdditiveScores", "needs queries [B,Q,U], keys [B,T,U] and a vector of U elements, got %s, %s and %s", describe(query), describe(key), describe(v))
	}
	s := t.specs.additive.put(device.AdditiveSpec{B: query.dims[0], Q: query.dims[1], T: key.dims[1], U: query.dims[2], Query: query.value, Key: key.value, V: v.value})
	if (cover == nil) != (gain == nil) || cover != nil && (cover.Len() != s.B*s.Q*s.T || gain.Len() != s.U) {
		failf("AdditiveScores", "needs a cover [%d,%d,%d] with a gain of %d elements, or neither, got %s and %s", s.B, s.Q, s.T, s.U, describe(cover), describe(gain))
	}
	if lengths != nil {
		if len(lengths) != s.B {
			failf("AdditiveScores", "%d rows need %d lengths, got %d", s.B, s.B, len(lengths))
		}
		s.Lens = t.lengths(lengths)
	}
	if cover != nil {
		s.Cover, s.W = cover.value, gain.value
	}
	y := t.Empty(s.B, s.Q, s.T)
	s.Score = y.value
	t.backend.Additive(s)
	if n := t.record(additiveGrad, y, query, key, v, cover, gain); n != nil {
		n.spec, n.state[0] = s, gain
	}
	return y
}

func additiveGrad(t *Tape, n *node) {
	s := n.spec.(*device.AdditiveSpec)
	s.DScore, s.DQuery, s.DKey, s.DV = n.out.grad, n.in[0].intoZeroed(), n.in[1].intoZeroed(), n.in[2].intoZeroed()
	s.DCover, s.DW = n.in[3].intoZeroed(), n.state[0].intoZeroed()
	t.backend.AdditiveGrad(s)
}
