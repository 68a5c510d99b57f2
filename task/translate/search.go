package translate

import (
	"cmp"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
)

// SearchOptions are the options of the beam search. Those of a model's
// configuration are its defaults.
type SearchOptions struct {
	Beam            int     `json:"beam" range:"1..1e4" group:"Search" help:"hypotheses kept by the beam search (1: greedy)"`
	LengthPenalty   float64 `json:"length_penalty" range:"0..10" group:"Search" help:"power of the length normalisation: log-probabilities are divided by ((5+length)/6) to this power"`
	CoveragePenalty float64 `json:"coverage_penalty" range:"0..100" group:"Search" help:"weight of the penalty for source tokens with little attention"`
	NGramBlock      int     `json:"ngram_block" range:"0..100" group:"Search" help:"size of n-grams that must not repeat in a translation (0: none)"`
	KeepUnknown     bool    `json:"keep_unknown" group:"Search" help:"write <unk> instead of the source word with the highest attention"`
}

// DefaultSearch returns a beam of 5 with a length penalty of 1.
func DefaultSearch() SearchOptions { return SearchOptions{Beam: 5, LengthPenalty: 1} }

// Validate returns the first option that is out of its range as a
// *data.InputError of one line, or nil.
func (o *SearchOptions) Validate() error { return data.Setting(settings.Check(o)) }

// node is the last token of a hypothesis, linked to the tokens before.
type node struct {
	before    *node // nil at the beginning
	token     int32
	steps     int       // number of tokens up to this one
	attention []float32 // over the source at this step
}

// path returns the nodes from the beginning to this one.
func (n *node) path() []*node {
	out := make([]*node, n.length())
	for i := n; i != nil; i = i.before {
		out[i.steps-1] = i
	}
	return out
}

// tokens returns the tokens from the beginning to this one.
func (n *node) tokens() []int32 {
	out := make([]int32, n.length())
	for i := n; i != nil; i = i.before {
		out[i.steps-1] = i.token
	}
	return out
}

func (n *node) length() int {
	if n == nil {
		return 0
	}
	return n.steps
}

// hypothesis is a partial or finished translation.
type hypothesis struct {
	last     *node
	logProb  float64
	score    float64   // of a finished one
	coverage []float64 // sum of the attention of each source token; nil without a coverage penalty
	row      int       // of the previous hypothesis in its step
}

// appendHypotheses appends finished hypotheses as ranks send them to each other: their
// number, and of each its score and tokens, with the attention of those that are shown.
func appendHypotheses(x []float64, list []hypothesis, shown func(token int32) bool) []float64 {
	x = append(x, float64(len(list)))
	for i := range list {
		x = append(x, list[i].score, float64(list[i].last.length()))
		for _, n := range list[i].last.path() {
			var attention []float32
			if shown(n.token) {
				attention = n.attention
			}
			x = append(x, float64(n.token), float64(len(attention)))
			x = appendNumbers(x, attention)
		}
	}
	return x
}

func appendNumbers(x []float64, numbers []float32) []float64 {
	for _, v := range numbers {
		x = append(x, float64(v))
	}
	return x
}

// takeHypotheses is the inverse of appendHypotheses; it also returns the numbers after
// them.
func takeHypotheses(x []float64) (list []hypothesis, rest []float64) {
	list, x = make([]hypothesis, int(x[0])), x[1:]
	for i := range list {
		h, steps := &list[i], int(x[1])
		h.score, x = x[0], x[2:]
		for step := range steps {
			n := &node{before: h.last, token: int32(x[0]), steps: step + 1}
			looked := int(x[1])
			x = x[2:]
			for _, v := range x[:looked] {
				n.attention = append(n.attention, float32(v))
			}
			h.last, x = n, x[looked:]
		}
	}
	return list, x
}

// search is the beam of one sentence.
type search struct {
	o        *SearchOptions
	best     int // number of finished hypotheses requested
	limit    int // most tokens of a translation, with the end token
	end      int32
	banned   []int32 // tokens that are not allowed in a translation
	source   int     // number of tokens of the source
	live     []hypothesis
	finished []hypothesis
	pool     []candidate
}

// candidate is a hypothesis with one more token.
type candidate struct {
	logProb float64
	from    int32 // the live hypothesis
	token   int32
}

func (c candidate) compare(d candidate) int {
	return cmp.Or(cmp.Compare(d.logProb, c.logProb), cmp.Compare(c.from, d.from), cmp.Compare(c.token, d.token))
}

func newSearch(o *SearchOptions, best, limit, source int, end int32, banned []int32) *search {
	s := &search{o: o, best: best, limit: limit, end: end, banned: banned, source: source}
	first := hypothesis{}
	if o.CoveragePenalty > 0 {
		first.coverage = make([]float64, source)
	}
	s.live = append(s.live, first)
	return s
}

// step continues the live hypotheses. logProbs[i] are the log-probabilities of
// the next token of hypothesis i, attention[i] its attention over the source
// (nil: not needed). It reports whether the search continues; then live has the
// new hypotheses, each with the index of the previous one in row.
func (s *search) step(logProbs, attention [][]float32) (more bool) {
	keep := 2 * s.o.Beam
	s.pool = s.pool[:0]
	for i := range s.live {
		s.ban(&s.live[i], logProbs[i])
		s.offer(i, logProbs[i], keep)
	}
	slices.SortFunc(s.pool, candidate.compare)
	s.pool = s.pool[:min(keep, len(s.pool))]
	var next []hypothesis
	for rank, c := range s.pool {
		if c.token == s.end && rank >= s.o.Beam || len(next) == s.o.Beam {
			continue
		}
		h := s.extend(c, attention[c.from])
		if c.token == s.end {
			s.finish(h)
		} else {
			next = append(next, h)
		}
	}
	s.live = next
	return len(s.live) > 0 && !s.settled()
}

// ban sets the log-probabilities of tokens that are not allowed next to -Inf.
func (s *search) ban(h *hypothesis, logProbs []float32) {
	never := float32(math.Inf(-1))
	for _, id := range s.banned {
		logProbs[id] = never
	}
	if h.last.length() == s.limit-1 { // only an end is left
		p := logProbs[s.end]
		for i := range logProbs {
			logProbs[i] = never
		}
		logProbs[s.end] = p
	}
	n := s.o.NGramBlock
	if n == 0 || h.last.length() < n {
		return
	}
	tokens := h.last.tokens()
	recent := tokens[len(tokens)-n+1:]
	for i := 0; i+n <= len(tokens); i++ {
		if slices.Equal(tokens[i:i+n-1], recent) {
			logProbs[tokens[i+n-1]] = never
		}
	}
}

// offer adds the keep best continuations of live hypothesis i to the pool, which
// it reduces to those that can be among the best of all.
func (s *search) offer(i int, logProbs []float32, keep int) {
	before := s.live[i].logProb
	bar := math.Inf(-1) // candidates must be above it
	for token, p := range logProbs {
		total := before + float64(p)
		if !(total > bar) {
			continue
		}
		s.pool = append(s.pool, candidate{total, int32(i), int32(token)})
		if len(s.pool) >= 4*keep {
			bar = s.prune(keep)
		}
	}
	s.prune(keep)
}

// prune keeps the best of the pool and returns the log-probability of the last of
// them, -Inf if all are kept.
func (s *search) prune(keep int) float64 {
	if len(s.pool) <= keep {
		return math.Inf(-1)
	}
	slices.SortFunc(s.pool, candidate.compare)
	s.pool = s.pool[:keep]
	return s.pool[keep-1].logProb
}

// extend returns the hypothesis of a candidate.
func (s *search) extend(c candidate, attention []float32) hypothesis {
	from := &s.live[c.from]
	h := hypothesis{
		last:    &node{from.last, c.token, from.last.length() + 1, slices.Clone(attention)},
		logProb: c.logProb, row: int(c.from),
	}
	if from.coverage != nil {
		h.coverage = slices.Clone(from.coverage)
		for i, a := range h.last.attention {
			h.coverage[i] += float64(a)
		}
	}
	return h
}

// finish scores a hypothesis and inserts it in the sorted list of finished ones.
func (s *search) finish(h hypothesis) {
	h.score = h.logProb/s.o.penalty(h.last.length()) + s.o.covered(h.coverage)
	at, _ := slices.BinarySearchFunc(s.finished, h, func(a, b hypothesis) int {
		if a.score >= b.score {
			return -1
		}
		return 1
	})
	s.finished = slices.Insert(s.finished, at, h)
}

// settled reports whether no better hypothesis is possible, or enough are
// finished.
func (s *search) settled() bool {
	if len(s.finished) >= s.o.Beam {
		return true
	}
	if len(s.finished) < s.best {
		return false
	}
	// Log-probabilities only decrease, and the largest length has the largest divisor.
	top := s.live[0].logProb / s.o.penalty(s.limit)
	return top <= s.finished[s.best-1].score
}

// penalty returns the divisor of the log-probability of a translation of n tokens
// (Wu et al. 2016).
func (o *SearchOptions) penalty(n int) float64 {
	return math.Pow((5+float64(n))/6, o.LengthPenalty)
}

// covered returns the coverage penalty (Wu et al. 2016), 0 if the attention of
// every source token sums to 1.
func (o *SearchOptions) covered(coverage []float64) float64 {
	sum := 0.0
	for _, c := range coverage {
		sum += math.Log(min(max(c, 1e-10), 1))
	}
	return o.CoveragePenalty * sum
}
