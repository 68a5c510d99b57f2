package tensor

import "github.com/carousel-ml/carousel/internal/device"

// CRF returns the negative log-likelihood of tags [B,T] under a linear-chain
// conditional random field (Lafferty et al. 2001), the mean over all true steps, a
// tensor [1]:
//
//	score(y) = start[y₀] + Σ scores[t,y_t] + Σ trans[y_(t-1),y_t] + end[y_last]
//	loss = Σ_b (log Σ_y e^score(y) - score(tags_b)) / Σ_b length_b
//
// with scores [B,T,K], trans [K,K] from the row's tag to the column's, and start
// and end [K] or nil. It is computed in log space, with exact gradients. Without a
// step it is 0. Tags past the length of a row are not read. CRF panics with a
// [*ShapeError] if shapes do not fit or a tag is outside 0 to K-1.
func CRF(scores, trans, start, end *Tensor, tags *Ints) *Tensor {
	t := tapeOf("CRF", scores, trans, start, end)
	tags.check("CRF", t)
	checkBatch("CRF", scores)
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
	checkTags(scores, tags)
	value, grads := t.scalar(scores, trans, start, end)
	t.backend.CRF(t.specs.crf.put(device.CRFSpec{B: B, T: T, K: k, Scores: scores.value, Trans: trans.value, Start: start.memory(), End: end.memory(),
		Lens: scores.lens(), Tags: tags.on, Value: value.value, DScores: grads[0], DTrans: grads[1], DStart: grads[2], DEnd: grads[3]}))
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
