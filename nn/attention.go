package nn

import (
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// AttentionKind is how a query is compared with a key.
type AttentionKind int

const (
	// Dot is q·k/√d (Luong et al. 2015, scaled as in Vaswani et al. 2017); query and key sizes are equal.
	Dot AttentionKind = iota
	// General is q·(W k) (Luong et al. 2015).
	General
	// Additive is v·tanh(W q + U k + b) (Bahdanau et al. 2015).
	Additive
)

// Attention lets each query look at a sequence of keys and take a weighted mean
// of the values that belong to them.
type Attention struct {
	Key      *Linear // General: W [query,key] without bias. Additive: U [units,key] without bias
	Query    *Linear // Additive: W [units,query] with bias
	Score    *Linear // Additive: v [1,units] without bias
	Coverage *Linear // of [NewCoverageAttention], without bias. Dot, General: [1,query]. Additive: [units,1]
	kind     AttentionKind
}

// NewAttention compares queries of size query with keys of size key; units is
// the inner size of the additive kind and unused by the others.
func NewAttention(kind AttentionKind, query, key, units int) *Attention {
	a := &Attention{kind: kind}
	plain := &LinearOptions{NoBias: true}
	switch kind {
	case Dot:
		tensor.Check(query == key, "nn: Attention", "dot needs equal sizes, got query %d and key %d", query, key)
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

// NewCoverageAttention is an attention that knows how much weight each key has
// had already (Tu et al. 2016): with g that sum and w trained, Dot and General
// add g·(w·q) to the score, Additive adds g·w inside its tanh (See et al. 2017).
func NewCoverageAttention(kind AttentionKind, query, key, units int) *Attention {
	a := NewAttention(kind, query, key, units)
	if kind == Additive {
		a.Coverage = NewLinear(1, units, &LinearOptions{NoBias: true})
	} else {
		a.Coverage = NewLinear(query, 1, &LinearOptions{NoBias: true})
	}
	return a
}

// Forward attends from queries q [B,Q,query] to keys k [B,T,key] and returns
// the contexts [B,Q,key] and the weights [B,Q,T]. Where k knows its lengths,
// steps past them get weight zero; a row without steps gets a zero context.
func (a *Attention) Forward(q, k *tensor.Tensor) (context, weights *tensor.Tensor) {
	return a.Attend(q, a.Keys(k), k, nil)
}

// Keys is what queries are compared with, [B,T,query] or for Additive
// [B,T,units]: to be computed once where many queries come one after the other.
func (a *Attention) Keys(k *tensor.Tensor) *tensor.Tensor {
	if a.kind == Dot {
		return k
	}
	return a.Key.Forward(k)
}

// Attend is [Attention.Forward] with the keys of [Attention.Keys] and the values
// [B,T,value], which know the lengths. coverage [B,Q,T] is the sum of the weights
// that the keys had before; nil for an attention that does not look at it.
func (a *Attention) Attend(q, keys, values, coverage *tensor.Tensor) (context, weights *tensor.Tensor) {
	if (coverage == nil) != (a.Coverage == nil) {
		panic(&tensor.ShapeError{Op: "Attend", Msg: "coverage is for the attention of NewCoverageAttention, and needed there"})
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
