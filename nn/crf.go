package nn

import (
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// CRF is a linear-chain conditional random field over K tags (Lafferty et al.
// 2001): the score of a sequence of tags y is the sum of a layer's scores of the steps
// and of trained scores of the transitions,
//
//	score(y) = start[y₀] + Σ scores[t,y_t] + Σ transitions[y_(t-1),y_t] + end[y_last]
//
// and its probability is e^score(y) divided by the sum of that over all sequences.
// [CRF.Loss] is the loss; package task/tag finds the best sequences.
type CRF struct {
	Transitions *tensor.Param // transitions [K,K], from the row's tag to the column's, U(-0.1, 0.1)
	Start       *tensor.Param // start [K], likewise
	End         *tensor.Param // end [K], likewise

	tags      int
	forbidden forbidden
}

// CRFOptions changes a CRF; nil allows every sequence.
type CRFOptions struct {
	// Forbidden reports whether tag to must not follow tag from, which is -1 before the
	// first step; to is -1 after the last. Sequences with a forbidden transition have
	// probability 0, and an infinite loss in training. Of every length some sequence
	// must be allowed.
	Forbidden func(from, to int) bool
}

// forbidden holds 0 or -Inf for transitions, starts and ends; nil slices forbid nothing.
type forbidden struct{ trans, start, end []float32 }

// NewCRF returns a CRF over a number of tags; a number below 1 panics with a
// [*tensor.UseError].
func NewCRF(tags int, o *CRFOptions) *CRF {
	tensor.Check(tags > 0, "nn: CRF", "needs a tag, got %d", tags)
	init := Uniform(0.1)
	c := &CRF{tags: tags, Transitions: noDecay("transitions", init, tags, tags),
		Start: noDecay("start", init, tags), End: noDecay("end", init, tags)}
	if o != nil && o.Forbidden != nil {
		c.forbidden.trans, c.forbidden.start, c.forbidden.end = o.Costs(tags)
	}
	return c
}

// Costs returns 0 for each allowed and -Inf for each forbidden transition [K,K], start
// [K] and end [K] of a number of tags; zeros for nil.
func (o *CRFOptions) Costs(tags int) (trans, start, end []float32) {
	trans, start, end = make([]float32, tags*tags), make([]float32, tags), make([]float32, tags)
	if o == nil || o.Forbidden == nil {
		return trans, start, end
	}
	cost := func(from, to int) float32 {
		if o.Forbidden(from, to) {
			return float32(math.Inf(-1))
		}
		return 0
	}
	for i := range tags {
		start[i], end[i] = cost(-1, i), cost(i, -1)
		for j := range tags {
			trans[i*tags+j] = cost(i, j)
		}
	}
	return trans, start, end
}

// Tags returns K.
func (c *CRF) Tags() int { return c.tags }

// Loss returns the negative log-likelihood of tags [B,T] under scores [B,T,K], the
// mean over all true steps, a tensor [1]; see [tensor.CRF], also for panics.
func (c *CRF) Loss(scores *tensor.Tensor, tags *tensor.Ints) *tensor.Tensor {
	trans, start, end := c.Transitions.T(), c.Start.T(), c.End.T()
	if f := c.forbidden; f.trans != nil {
		t := scores.Tape()
		trans = tensor.Add(trans, t.Input(f.trans, c.tags, c.tags))
		start, end = tensor.Add(start, t.Input(f.start, c.tags)), tensor.Add(end, t.Input(f.end, c.tags))
	}
	return tensor.CRF(scores, trans, start, end, tags)
}

// Read waits for the device and returns copies of the current scores of transitions
// [K,K], starts [K] and ends [K], with -Inf for those that are forbidden. They are the
// arguments of task/tag's NewDecoder, which finds the best sequences.
func (c *CRF) Read() (trans, start, end []float32) {
	trans, start, end = c.Transitions.Read(), c.Start.Read(), c.End.Read()
	if f := c.forbidden; f.trans != nil {
		for i, v := range f.trans {
			trans[i] += v
		}
		for i := range f.start {
			start[i] += f.start[i]
			end[i] += f.end[i]
		}
	}
	return trans, start, end
}
