package nn

import (
	"fmt"
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
// of them.
type Attention struct {
	Key   *Linear // General: W [query,key] without bias. Additive: U [units,key] without bias
	Query *Linear // Additive: W [units,query] with bias
	Score *Linear // Additive: v [1,units] without bias
	kind  AttentionKind
}

// NewAttention compares queries of size query with keys of size key; units is
// the inner size of the additive kind and unused by the others.
func NewAttention(kind AttentionKind, query, key, units int) *Attention {
	a := &Attention{kind: kind}
	plain := &LinearOptions{NoBias: true}
	switch kind {
	case Dot:
		if query != key {
			panic(fmt.Sprintf("nn: Attention: dot needs equal sizes, got query %d and key %d", query, key))
		}
	case General:
		a.Key = NewLinear(key, query, plain)
	case Additive:
		a.Key = NewLinear(key, units, plain)
		a.Query = NewLinear(query, units, nil)
		a.Score = NewLinear(units, 1, plain)
	default:
		panic(fmt.Sprintf("nn: Attention: unknown kind %d", kind))
	}
	return a
}

// Forward attends from queries q [B,Q,query] to keys k [B,T,key] and returns
// the contexts [B,Q,key] and the weights [B,Q,T]. Where k knows its lengths,
// steps past them get weight zero; a row without steps gets a zero context.
func (a *Attention) Forward(q, k *tensor.Tensor) (context, weights *tensor.Tensor) {
	var scores *tensor.Tensor
	switch a.kind {
	case Dot:
		scores = tensor.Scale(tensor.MatMul(q, k, true), float32(1/math.Sqrt(float64(q.Dim(2)))))
	case General:
		scores = tensor.MatMul(q, a.Key.Forward(k), true)
	case Additive:
		B, Q, T := q.Dim(0), q.Dim(1), k.Dim(1)
		keys := tensor.Repeat(a.Key.Forward(k), 1, Q)      // [B,Q,T,units]
		queries := tensor.Repeat(a.Query.Forward(q), 2, T) // [B,Q,T,units]
		scores = tensor.Reshape(a.Score.Forward(tensor.Tanh(tensor.Add(queries, keys))), B, Q, T)
	}
	weights = tensor.Softmax(scores, k.Lengths())
	return tensor.MatMul(weights, k, false), weights
}
