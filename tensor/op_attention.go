package tensor

import "github.com/carousel-ml/carousel/internal/device"

// AdditiveScores returns the scores of additive attention (Bahdanau et al. 2015)
// between queries [B,Q,U] and keys [B,T,U]:
//
//	score[b,q,t] = Σ_u v[u]·tanh(query[b,q,u] + key[b,t,u])
//
// v has U elements. With lengths [B], each 0 to T, scores of keys past them are
// zero; nil means T. With cover [B,Q,T] and gain, of U elements, cover[b,q,t]·gain[u]
// is added inside the tanh (See et al. 2017); both may be nil. The arguments of tanh
// are not stored, so memory grows with Q·T, not with Q·T·U. Shapes that do not fit
// panic with a [*ShapeError].
func AdditiveScores(query, key, v *Tensor, lengths []int32, cover, gain *Tensor) *Tensor {
	t := tapeOf("AdditiveScores", query, key, v, cover, gain)
	if query.rank != 3 || key.rank != 3 || query.dims[0] != key.dims[0] || query.dims[2] != key.dims[2] || v.Len() != query.dims[2] {
		failf("AdditiveScores", "needs queries [B,Q,U], keys [B,T,U] and a vector of U elements, got %s, %s and %s", describe(query), describe(key), describe(v))
	}
	s := t.specs.additive.put(device.AdditiveSpec{B: query.dims[0], Q: query.dims[1], T: key.dims[1], U: query.dims[2],
		Query: query.value, Key: key.value, V: v.value, Cover: cover.memory(), W: gain.memory(), Lens: t.lengths("AdditiveScores", lengths, query.dims[0])})
	if (cover == nil) != (gain == nil) || cover != nil && (cover.Len() != s.B*s.Q*s.T || gain.Len() != s.U) {
		failf("AdditiveScores", "needs a cover [%d,%d,%d] with a gain of %d elements, or neither, got %s and %s", s.B, s.Q, s.T, s.U, describe(cover), describe(gain))
	}
	y := t.Empty(s.B, s.Q, s.T)
	s.Score = y.value
	t.backend.Additive(s)
	t.record(additiveGrad, y, query, key, v, cover, gain).keeps(s)
	return y
}

func additiveGrad(t *Tape, n *node) {
	s := n.spec.(*device.AdditiveSpec)
	s.DScore, s.DQuery, s.DKey, s.DV = n.out.grad, n.in[0].intoZeroed(), n.in[1].intoZeroed(), n.in[2].intoZeroed()
	s.DCover, s.DW = n.in[3].intoZeroed(), n.in[4].intoZeroed()
	t.backend.AdditiveGrad(s)
}
