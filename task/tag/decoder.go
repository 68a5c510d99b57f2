package tag

import (
	"math"
	"slices"
)

// Decoder finds sequences of tags for the scores [n,K] of one row, n at least 0, under
// a conditional random field (nn.CRF). It does not change, so several goroutines may
// use it.
type Decoder struct {
	tags              int
	trans, start, end []float32
}

// NewDecoder returns a decoder with the scores of transitions [K,K] from the row's tag
// to the column's, starts [K] and ends [K], such as those of nn.CRF.Read or, without a
// trained field, of nn.CRFOptions.Costs; -Inf forbids.
func NewDecoder(trans, start, end []float32) *Decoder {
	return &Decoder{len(start), trans, start, end}
}

// Decoded is a sequence of tags [n] with its score and the logarithm of its
// probability.
type Decoded struct {
	Tags    []int32
	Score   float64
	LogProb float64
}

// Viterbi returns the most probable sequence of tags [n]; among equal ones that with
// the smaller last tags. Without steps it is nil.
func (c *Decoder) Viterbi(scores []float32) []int32 {
	best := c.search(scores, 1)
	if len(best) == 0 {
		return nil
	}
	return best[0].Tags
}

// NBest returns the n most probable sequences, best first, or all allowed ones if
// these are fewer; none for a row without steps.
func (c *Decoder) NBest(scores []float32, n int) []Decoded {
	best := c.search(scores, n)
	if len(best) > 0 {
		total := c.Marginals(scores).LogZ
		for i := range best {
			best[i].LogProb = best[i].Score - total
		}
	}
	return best
}

// Score returns the score of tags [n], each 0 to K-1; -Inf if they are forbidden.
func (c *Decoder) Score(scores []float32, tags []int32) float64 {
	if len(tags) == 0 {
		return 0
	}
	sum := float64(c.start[tags[0]]) + float64(c.end[tags[len(tags)-1]])
	for t, j := range tags {
		sum += float64(scores[t*c.tags+int(j)])
		if t > 0 {
			sum += float64(c.trans[int(tags[t-1])*c.tags+int(j)])
		}
	}
	return sum
}

// hypothesis is one of the best partial sequences that end in a tag: its score, and
// the tag and rank of the partial sequence that it extends.
type hypothesis struct {
	score float64
	tag   int32
	rank  int32
}

// search is Viterbi's algorithm with the n best partial sequences for each tag
// (Seshadri and Sundberg 1994).
func (c *Decoder) search(scores []float32, n int) []Decoded {
	k := c.tags
	steps := len(scores) / k
	if steps == 0 || n < 1 {
		return nil
	}
	// Those of step t that end in j are at [(t*k+j)*n, +n), best first; after the last step is one more list.
	kept := slices.Repeat([]hypothesis{{score: math.Inf(-1)}}, (steps*k+1)*n)
	for j := range k {
		kept[j*n] = hypothesis{float64(c.start[j]) + float64(scores[j]), -1, 0}
	}
	for t := 1; t < steps; t++ {
		before, now := kept[(t-1)*k*n:t*k*n], kept[t*k*n:(t+1)*k*n]
		for j := range k {
			list := now[j*n : (j+1)*n]
			for i := range k {
				extend(list, before[i*n:(i+1)*n], float64(c.trans[i*k+j]), int32(i))
			}
			for r := range list {
				list[r].score += float64(scores[t*k+j])
			}
		}
	}
	ends := kept[steps*k*n:]
	for i := range k {
		extend(ends, kept[((steps-1)*k+i)*n:((steps-1)*k+i+1)*n], float64(c.end[i]), int32(i))
	}
	var best []Decoded
	for r, e := range ends {
		if math.IsInf(e.score, -1) && r > 0 {
			break
		}
		d := Decoded{Tags: make([]int32, steps), Score: e.score}
		tag, rank := e.tag, e.rank
		for t := steps - 1; t >= 0; t-- {
			d.Tags[t] = tag
			h := kept[(t*k+int(tag))*n+int(rank)]
			tag, rank = h.tag, h.rank
		}
		best = append(best, d)
	}
	return best
}

// extend inserts the partial sequences of tag, extended at a cost, into a list that is
// sorted best first.
func extend(list, from []hypothesis, cost float64, tag int32) {
	for rank, h := range from {
		s := h.score + cost
		at := len(list)
		for at > 0 && s > list[at-1].score {
			at--
		}
		if at == len(list) {
			return // those after it are not better
		}
		copy(list[at+1:], list[at:])
		list[at] = hypothesis{s, tag, int32(rank)}
	}
}

// Marginals holds the probabilities of tags and of runs of tags in one row.
type Marginals struct {
	LogZ float64 // log Σ e^score over all sequences

	decoder     *Decoder
	scores      []float32
	alpha, beta []float64 // [n,K]: log Σ e^score over the sequences up to a step, and over those after it
}

// Marginals runs the forward and the backward algorithm over the scores [n,K] of a row,
// which the result keeps: do not change them.
func (c *Decoder) Marginals(scores []float32) *Marginals {
	k := c.tags
	n := len(scores) / k
	m := &Marginals{decoder: c, scores: scores, alpha: make([]float64, n*k), beta: make([]float64, n*k)}
	if n == 0 {
		return m
	}
	e := make([]float64, k)
	for j := range k {
		m.alpha[j] = float64(c.start[j]) + float64(scores[j])
		m.beta[(n-1)*k+j] = float64(c.end[j])
	}
	for t := 1; t < n; t++ {
		for j := range k {
			for i := range k {
				e[i] = m.alpha[(t-1)*k+i] + float64(c.trans[i*k+j])
			}
			m.alpha[t*k+j] = logSumExp(e) + float64(scores[t*k+j])
		}
	}
	for t := n - 2; t >= 0; t-- {
		for i := range k {
			for j := range k {
				e[j] = float64(c.trans[i*k+j]) + float64(scores[(t+1)*k+j]) + m.beta[(t+1)*k+j]
			}
			m.beta[t*k+i] = logSumExp(e)
		}
	}
	for j := range k {
		e[j] = m.alpha[(n-1)*k+j] + m.beta[(n-1)*k+j]
	}
	m.LogZ = logSumExp(e)
	return m
}

func logSumExp(x []float64) float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = math.Max(top, v)
	}
	if math.IsInf(top, -1) {
		return top
	}
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum)
}

// Prob returns the probability of a run of tags from step t on; of one tag it is the
// marginal.
func (m *Marginals) Prob(t int, tags ...int32) float64 {
	if len(tags) == 0 {
		return 1
	}
	k := m.decoder.tags
	log := m.alpha[t*k+int(tags[0])]
	for i := 1; i < len(tags); i++ {
		log += float64(m.decoder.trans[int(tags[i-1])*k+int(tags[i])]) + float64(m.scores[(t+i)*k+int(tags[i])])
	}
	last := t + len(tags) - 1
	return math.Exp(log + m.beta[last*k+int(tags[len(tags)-1])] - m.LogZ)
}
