package nn

import (
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// AttentionKind selects the score of a query and a key.
type AttentionKind int

const (
	// Dot is q·k/√d (Luong et al. 2015, scaled as in Vaswani et al. 2017); query and key sizes are equal.
	Dot AttentionKind = iota
	// General is q·(W k) (Luong et al. 2015).
	General
	// Additive is v·tanh(W q + U k + b) (Bahdanau et al. 2015).
	Additive
)

// Attention computes for each query the mean of a sequence of values, weighted by the
// softmax of the scores between the query and the values' keys.
type Attention struct {
	Key      *Linear // General: W [query,key] without bias. Additive: U [units,key] without bias
	Query    *Linear // Additive: W [units,query] with bias
	Score    *Linear // Additive: v [1,units] without bias
	Coverage *Linear // of [NewCoverageAttention]: Dot, General [1,query], Additive [units,1], without bias
	kind     AttentionKind
}

// NewAttention returns an attention for queries of size query and keys of size key.
// units is the inner size of Additive; the other kinds ignore it. It panics with a
// [*tensor.UseError] for a Dot of unequal sizes or an unknown kind.
func NewAttention(kind AttentionKind, query, key, units int) *Attention {
	a := &Attention{kind: kind}
	plain := &LinearOptions{NoBias: true}
	switch kind {
	case Dot:
		tensor.Check(query == key, "nn: Attention", "Dot needs equal sizes, got query %d and key %d", query, key)
	case General:
		a.Key = NewLinear(key, query, plain)
	case Additive:
		a.Key = NewLinear(key, units, plain)
		a.Query = NewLinear(query, units, nil)
		a.Score = NewLinear(units, 1, plain)
	default:
		tensor.Check(false, "nn: Attention", "unknown kind %d", kind)
	}
	return a
}

// NewCoverageAttention returns an attention whose scores also depend on the coverage c
// of a key, the sum of the weights that it has had before (Tu et al. 2016): with trained
// w, Dot and General add c·(w·q) to the score, Additive adds c·w inside the tanh (See et
// al. 2017). It panics as NewAttention does.
func NewCoverageAttention(kind AttentionKind, query, key, units int) *Attention {
	a := NewAttention(kind, query, key, units)
	in, out := query, 1
	if kind == Additive {
		in, out = 1, units
	}
	a.Coverage = NewLinear(in, out, &LinearOptions{NoBias: true})
	return a
}

// Forward attends from queries q [B,Q,query] to k [B,T,key], which are both the keys
// and the values, and returns the contexts [B,Q,key] and the weights [B,Q,T]. If k
// carries lengths, steps past them get weight zero; a row of length 0 gets a zero
// context. Shapes that do not fit panic with a [*tensor.ShapeError].
func (a *Attention) Forward(q, k *tensor.Tensor) (context, weights *tensor.Tensor) {
	return a.Attend(q, a.Keys(k), k, nil)
}

// Keys returns the transformed keys, [B,T,query] or for Additive [B,T,units], to
// compute once for many calls of [Attention.Attend].
func (a *Attention) Keys(k *tensor.Tensor) *tensor.Tensor {
	if a.kind == Dot {
		return k
	}
	return a.Key.Forward(k)
}

// Attend is [Attention.Forward] with the result of [Attention.Keys] and values
// [B,T,value], whose lengths are used. coverage [B,Q,T] is the sum of the earlier
// weights of the keys, for an attention of [NewCoverageAttention] only: otherwise it
// must be nil, or Attend panics with a [*tensor.ShapeError].
func (a *Attention) Attend(q, keys, values, coverage *tensor.Tensor) (context, weights *tensor.Tensor) {
	if (coverage == nil) != (a.Coverage == nil) {
		panic(&tensor.ShapeError{Op: "Attend", Msg: "an attention needs coverage if NewCoverageAttention made it, and only then"})
	}
	var scores *tensor.Tensor
	if a.kind == Additive {
		var gain *tensor.Tensor
		if coverage != nil {
			gain = a.Coverage.Weight.T()
		}
		scores = tensor.AdditiveScores(a.Query.Forward(q), keys, a.Score.Weight.T(), values.Lengths(), coverage, gain)
	} else {
		scores = tensor.MatMul(q, keys, true)
		if coverage != nil {
			gain := tensor.Reshape(a.Coverage.Forward(q), q.Dim(0), q.Dim(1))
			scores = tensor.Add(scores, tensor.Mul(coverage, tensor.Repeat(gain, 2, coverage.Dim(2))))
		}
		if a.kind == Dot {
			scores = tensor.MulScalar(scores, float32(1/math.Sqrt(float64(q.Dim(2)))))
		}
	}
	weights = tensor.Softmax(scores, values.Lengths())
	return tensor.MatMul(weights, values, false), weights
}
