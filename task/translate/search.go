package translate

import (
	"cmp"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
)

// SearchOptions say how translations are searched for. Those of a model's
// configuration are what it does by itself.
type SearchOptions struct {
	Beam            int     `json:"beam" range:"1..1000" group:"Search" help:"hypotheses kept of each sentence (1: the likeliest token at each step)"`
	LengthPenalty   float64 `json:"length_penalty" range:"0..10" group:"Search" help:"how much longer translations are favoured: log-probabilities are divided by ((5+length)/6) to this power"`
	CoveragePenalty float64 `json:"coverage_penalty" range:"0..100" group:"Search" help:"how much a translation loses for source words that it looked at too little"`
	NGramBlock      int     `json:"ngram_block" range:"0..100" group:"Search" help:"no run of so many tokens stands twice in a translation (0: any may)"`
	KeepUnknown     bool    `json:"keep_unknown" group:"Search" help:"write <unk>, not the source word that it stands for by the attention"`
}

// DefaultSearch is a beam of 5.
func DefaultSearch() SearchOptions { return SearchOptions{Beam: 5, LengthPenalty: 1} }

// Validate reports in one line the first option that is out of its range.
func (o *SearchOptions) Validate() error { return data.Setting(settings.Check(o)) }

// node is the last token of a hypothesis, which goes back to its beginning.
type node struct {
	before    *node // nil at the beginning
	token     int32
	steps     int       // tokens up to here
	attention []float32 // over the source at this step
}

// tokens lists the tokens from the beginning to here.
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

// hypothesis is a translation under way, or a finished one.
type hypothesis struct {
	last     *node
	logProb  float64
	score    float64   // once finished
	coverage []float64 // weight that each source token has had; nil without a penalty on it
	row      int       // of the step that it came from
}

// search is the beam of one sentence.
type search struct {
	o        *SearchOptions
	best     int // finished hypotheses wanted
	limit    int // most tokens of a translation, the ending one included
	end      int32
	banned   []int32 // tokens that never stand in a translation
	source   int     // tokens of the source
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

// step continues the live hypotheses, of which i has the log-probabilities
// logProbs[i] of its next token and the attention over the source that came with
// them (nil: not asked for). It reports
// whether the search goes on; then live is what to continue next, each with the
// place of the hypothesis it came from in row.
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

// ban makes impossible what must not come next.
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

// offer adds the keep best continuations of live hypothesis i to the pool,
// which it cuts back to what can still be among the best of all.
func (s *search) offer(i int, logProbs []float32, keep int) {
	before := s.live[i].logProb
	bar := math.Inf(-1) // what a candidate must beat
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

// prune keeps the best of the pool and gives the log-probability of the last of
// them, minus infinity if all are kept.
func (s *search) prune(keep int) float64 {
	if len(s.pool) <= keep {
		return math.Inf(-1)
	}
	slices.SortFunc(s.pool, candidate.compare)
	s.pool = s.pool[:keep]
	return s.pool[keep-1].logProb
}

// extend is the hypothesis that a candidate stands for.
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

// finish scores a hypothesis and puts it in its place among the finished ones.
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

// settled says that nothing better can come, or that enough has.
func (s *search) settled() bool {
	if len(s.finished) >= s.o.Beam {
		return true
	}
	if len(s.finished) < s.best {
		return false
	}
	// Log-probabilities only fall, and no length favours one more than the limit's.
	top := s.live[0].logProb / s.o.penalty(s.limit)
	return top <= s.finished[s.best-1].score
}

// penalty is what the log-probability of a translation of n tokens is divided by
// (Wu et al. 2016).
func (o *SearchOptions) penalty(n int) float64 {
	return math.Pow((5+float64(n))/6, o.LengthPenalty)
}

// covered is the coverage penalty (Wu et al. 2016), 0 where every source token
// has had a weight of 1.
func (o *SearchOptions) covered(coverage []float64) float64 {
	sum := 0.0
	for _, c := range coverage {
		sum += math.Log(min(max(c, 1e-10), 1))
	}
	return o.CoveragePenalty * sum
}
