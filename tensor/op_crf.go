package tensor

import "github.com/carousel-ml/carousel/internal/device"

// CRF is the negative log-likelihood of tags [B,T] under a linear-chain
// conditional random field (Lafferty et al. 2001), a mean over all true steps:
//
//	score(y) = start[y₀] + Σ scores[t,y_t] + Σ trans[y_(t-1),y_t] + end[y_last]
//	loss = Σ_b (log Σ_y e^score(y) - score(tags_b)) / Σ_b length_b
//
// with scores [B,T,K], trans [K,K] from the row's tag to the column's, and start
// and end [K] or nil. It is computed in log space, with exact gradients. Rows of
// length 0 do not count; no step at all gives 0. Tags past a row's length are
// not looked at.
func CRF(scores, trans, start, end *Tensor, tags *Ints) *Tensor {
	t := tapeOf("CRF", scores, trans, start, end)
	if tags.tapeOf("CRF") != t {
		failf("CRF", "scores and tags live on different tapes")
	}
	if scores.rank != 3 || scores.seq != nil && scores.seq.timeMajor {
		failf("CRF", "needs scores [B,T,K], got %s", describe(scores))
	}
	B, T, k := scores.dims[0], scores.dims[1], scores.dims[2]
	if trans.rank != 2 || trans.dims[0] != k || trans.dims[1] != k {
		failf("CRF", "scores %s need transitions [%d,%d], got %s", describe(scores), k, k, describe(trans))
	}
	for _, v := range [...]*Tensor{start, end} {
		if v != nil && (v.rank != 1 || v.dims[0] != k) {
			failf("CRF", "scores %s need start and end [%d], got %s", describe(scores), k, describe(v))
		}
	}
	if len(tags.v) != B*T {
		failf("CRF", "scores %s need %d tags, got %d", describe(scores), B*T, len(tags.v))
	}
	s := t.specs.crf.put(device.CRFSpec{B: B, T: T, K: k, Scores: scores.value, Trans: trans.value, Lens: scores.lens(), Tags: tags.on})
	checkTags(scores, tags)
	value := t.Empty(1)
	s.Value = value.value
	if start != nil {
		s.Start = start.value
	}
	if end != nil {
		s.End = end.value
	}
	if n := t.record(crfGrad, value, scores, trans, start, end); n != nil {
		n.spec = s
		s.DScores = t.arena.alloc(scores.Len())
		for i, d := range [...]*device.Buffer{&s.DTrans, &s.DStart, &s.DEnd} {
			if x := n.in[i+1]; x != nil {
				*d = t.arena.alloc(x.Len())
			}
		}
	}
	t.backend.CRF(s)
	return value
}

func checkTags(scores *Tensor, tags *Ints) {
	T, k := scores.dims[1], scores.dims[2]
	for b := range scores.dims[0] {
		for i, y := range tags.v[b*T : b*T+scores.seq.length(b, T)] {
			if y < 0 || int(y) >= k {
				failf("CRF", "tag %d at step %d of row %d is outside 0..%d", y, i, b, k-1)
			}
		}
	}
}

func crfGrad(t *Tape, n *node) {
	s := n.spec.(*device.CRFSpec)
	for i, from := range [...]device.Buffer{s.DScores, s.DTrans, s.DStart, s.DEnd} {
		if d, acc := n.in[i].into(); !d.Zero() {
			t.backend.AddScaled(d, from, n.out.grad, acc)
		}
	}
}
