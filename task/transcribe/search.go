package transcribe

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
)

// defaultBeam is the width of a search if none is given.
const defaultBeam = 64

// hypothesis is a sequence of classes with the step and the log-probability at
// which each is emitted.
type hypothesis struct {
	classes []int32
	steps   []int
	peaks   []float64
	score   float64
}

// numbers returns a hypothesis as ranks send it to each other; hypothesisOf is the inverse.
func (h *hypothesis) numbers() []float64 {
	x := []float64{h.score}
	for i, c := range h.classes {
		x = append(x, float64(c), float64(h.steps[i]), h.peaks[i])
	}
	return x
}

func hypothesisOf(x []float64) hypothesis {
	h := hypothesis{score: x[0]}
	for x = x[1:]; len(x) > 0; x = x[3:] {
		h.classes, h.steps, h.peaks = append(h.classes, int32(x[0])), append(h.steps, int(x[1])), append(h.peaks, x[2])
	}
	return h
}

// search decodes step by step.
type search interface {
	// push adds the log-probabilities of the classes at the next step.
	push(row []float64)
	// best returns up to n of the best hypotheses so far, at least one. end
	// reports whether the text is complete.
	best(n int, end bool) []hypothesis
	// save writes the search to the state of a session, and restore reads it into a new
	// search of the same decoding; false if it is not of one.
	save(w *sessionState)
	restore(w *sessionState) bool
}

// pushAll adds rows one after the other. The error is that of ctx.
func pushAll(ctx context.Context, s search, rows [][]float64) error {
	for _, row := range rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.push(row)
	}
	return nil
}

func newSearch(a *alphabet, d *Decoding) search {
	if !d.searches() {
		return &greedySearch{}
	}
	return newBeam(a, d)
}

// greedySearch chooses the most probable class of each step.
type greedySearch struct {
	found hypothesis
	step  int
	last  int
}

func (g *greedySearch) push(row []float64) {
	c := 0
	for i, v := range row {
		if v > row[c] {
			c = i
		}
	}
	h := &g.found
	h.score += row[c]
	switch n := len(h.classes) - 1; {
	case c == 0:
	case c != g.last:
		h.classes, h.steps, h.peaks = append(h.classes, int32(c)), append(h.steps, g.step), append(h.peaks, row[c])
	case row[c] > h.peaks[n]:
		h.steps[n], h.peaks[n] = g.step, row[c]
	}
	g.last = c
	g.step++
}

func (g *greedySearch) best(int, bool) []hypothesis { return []hypothesis{g.found} }

// beam is a prefix beam search (Graves and Jaitly 2014; Hannun et al. 2014): the
// probability of a prefix is the sum over the paths that spell it, separately for
// those that end in a blank.
type beam struct {
	a     *alphabet
	d     *Decoding
	width int
	hot   map[string]float64 // share of the bonus by prefix of a hot word
	live  []*prefix
	index map[child]*prefix // those of live, and those added by this step
	next  []*prefix
	step  int
	picks []int32
}

type child struct {
	parent *prefix
	class  int32
}

// prefix is the beginning of a text.
type prefix struct {
	parent *prefix
	class  int32
	depth  int

	blank, label float64 // log-probability of the paths so far that end in a blank, or in class
	carried      float64 // at this step: of paths that had this prefix before and end in class
	arrived      float64 // likewise of paths from the parent
	rested       float64 // likewise of paths that end in a blank
	step         int     // at which the largest probability arrived
	peak         float64 // log-probability of class at that step

	word  string // that is not complete yet
	lex   *lexNode
	lm    lmState
	fixed float64 // score of language model and bonuses, of the complete words
	extra float64 // the same with the word in progress
	score float64 // total score
}

var never = math.Inf(-1)

func newBeam(a *alphabet, d *Decoding) *beam {
	b := &beam{a: a, d: d, width: d.Beam, index: map[child]*prefix{}}
	if b.width == 0 {
		b.width = defaultBeam
	}
	b.width = max(b.width, d.nBest)
	if len(d.HotWords) > 0 {
		b.hot = map[string]float64{}
	}
	for _, w := range d.HotWords {
		for i := range w {
			if i > 0 {
				b.hot[w[:i]] = max(b.hot[w[:i]], float64(i)/float64(len(w)))
			}
		}
		b.hot[w] = 1
	}
	root := &prefix{label: never, carried: never, arrived: never, rested: never}
	if d.Lexicon != nil {
		root.lex = d.Lexicon.root
	}
	if d.LM != nil {
		root.lm = d.LM.start()
	}
	b.live = []*prefix{root}
	return b
}

// At each step, only the mostExtended most probable classes extend prefixes, and
// only those with a log-probability above leastLikely.
const (
	leastLikely  = -9.5 // e^-9.5 is 1 in 13,000
	mostExtended = 48
)

func (b *beam) push(row []float64) {
	b.pick(row)
	b.next = append(b.next[:0], b.live...)
	clear(b.index)
	for _, p := range b.live {
		b.index[child{p.parent, p.class}] = p
	}
	for _, p := range b.live {
		total := logAdd(p.blank, p.label)
		p.rested = total + row[0]
		if p.parent != nil {
			p.carried = p.label + row[p.class]
		}
		for _, c := range b.picks {
			from := total
			if c == p.class && p.parent != nil {
				from = p.blank
			}
			if from > never {
				b.extend(p, c, from+row[c])
			}
		}
	}
	for _, p := range b.next {
		if p.arrived > logAdd(p.carried, p.rested) {
			p.step, p.peak = b.step, row[p.class]
		}
		p.blank, p.label = p.rested, logAdd(p.carried, p.arrived)
		p.rested, p.carried, p.arrived = never, never, never
		p.score = logAdd(p.blank, p.label) + p.extra
	}
	b.prune()
	b.step++
}

// pick sets the classes that may extend a prefix at this step.
func (b *beam) pick(row []float64) {
	b.picks = b.picks[:0]
	for c, v := range row {
		if c > 0 && v > leastLikely {
			b.picks = append(b.picks, int32(c))
		}
	}
	if len(b.picks) > mostExtended {
		slices.SortStableFunc(b.picks, func(i, j int32) int { return cmp.Compare(row[j], row[i]) })
		b.picks = b.picks[:mostExtended]
	}
}

// extend adds the probability of paths from p to its child of class c.
func (b *beam) extend(p *prefix, c int32, probability float64) {
	key := child{p, c}
	q := b.index[key]
	if q == nil {
		q = b.grow(p, c)
		b.index[key] = q // nil if it is not allowed
		if q == nil {
			return
		}
		b.next = append(b.next, q)
	}
	q.arrived = logAdd(q.arrived, probability)
}

// grow makes p's child of class c; nil if the lexicon has no such word.
func (b *beam) grow(p *prefix, c int32) *prefix {
	q := &prefix{parent: p, class: c, depth: p.depth + 1, blank: never, label: never, carried: never, arrived: never, rested: never,
		word: p.word, lex: p.lex, lm: p.lm, fixed: p.fixed}
	unit := b.a.unit(c)
	rest, begins := strings.CutPrefix(unit, space)
	switch {
	case b.a.Kind == "space":
		q.word = unit
		b.complete(q)
		rest = ""
	case begins && (q.word != "" || rest == ""):
		if q.word == "" || q.lex != nil && !q.lex.word {
			return nil
		}
		b.complete(q)
	}
	q.word += rest
	if q.lex != nil {
		if q.lex = q.lex.follow(rest); q.lex == nil {
			return nil
		}
	}
	if b.d.LM != nil && b.d.LMTokens {
		b.judge(q, unit)
	}
	q.extra = q.fixed + b.d.HotWeight*b.hot[q.word]
	return q
}

// complete ends the word in progress.
func (b *beam) complete(q *prefix) {
	q.fixed += b.d.HotWeight * b.wholeHot(q.word)
	if b.d.LM != nil && !b.d.LMTokens {
		b.judge(q, q.word)
	} else if b.d.LM == nil {
		q.fixed += b.d.WordBonus
	}
	q.word = ""
	if b.d.Lexicon != nil {
		q.lex = b.d.Lexicon.root
	}
}

func (b *beam) wholeHot(word string) float64 {
	if b.hot[word] == 1 {
		return 1
	}
	return 0
}

// judge adds the language model's score of a word or token.
func (b *beam) judge(q *prefix, text string) {
	p, next := b.d.LM.score(q.lm, lmName(text))
	q.fixed += b.d.LMWeight*p + b.d.WordBonus
	q.lm = next
}

// prune keeps the best prefixes. Equal ones keep their order.
func (b *beam) prune() {
	kept := b.next[:0]
	for _, p := range b.next {
		if p.blank > never || p.label > never {
			kept = append(kept, p)
		}
	}
	slices.SortStableFunc(kept, func(p, q *prefix) int { return cmp.Compare(q.score, p.score) })
	b.live = append(b.live[:0], kept[:min(len(kept), b.width)]...)
}

// unfinished is the score of ending with a word that the lexicon lacks. If all
// hypotheses do, allowed removes that word.
const unfinished = -1e4

// allowed returns p, or the longest beginning of it that ends in a word of the
// lexicon.
func (p *prefix) allowed() *prefix {
	for p.word != "" && p.lex != nil && !p.lex.word {
		p = p.parent
	}
	return p
}

// final returns a prefix's score if the text ends there.
func (b *beam) final(p *prefix) float64 {
	q := *p
	if q.word != "" {
		if q.lex != nil && !q.lex.word {
			q.fixed += unfinished
		}
		b.complete(&q)
	}
	if b.d.LM != nil {
		q.fixed += b.d.LMWeight * b.d.LM.finish(q.lm)
	}
	return logAdd(q.blank, q.label) + q.fixed
}

func (b *beam) best(n int, end bool) []hypothesis {
	type ranked struct {
		p     *prefix
		score float64
	}
	var list []ranked
	at := map[*prefix]int{} // in list
	for _, p := range b.live {
		r := ranked{p, p.score}
		if end {
			r = ranked{p.allowed(), b.final(p)}
			if r.p.class > 0 && b.a.Kind != "space" && b.a.unit(r.p.class) == space {
				r.p = r.p.parent // a space at the end makes no other text
			}
		}
		if i, there := at[r.p]; there {
			list[i].score = logAdd(list[i].score, r.score)
			continue
		}
		at[r.p] = len(list)
		list = append(list, r)
	}
	slices.SortStableFunc(list, func(p, q ranked) int { return cmp.Compare(q.score, p.score) })
	var out []hypothesis
	for _, r := range list[:min(max(n, 1), len(list))] {
		h := hypothesis{classes: make([]int32, r.p.depth), steps: make([]int, r.p.depth), peaks: make([]float64, r.p.depth), score: r.score}
		for p := r.p; p.parent != nil; p = p.parent {
			h.classes[p.depth-1], h.steps[p.depth-1], h.peaks[p.depth-1] = p.class, p.step, p.peak
		}
		out = append(out, h)
	}
	return out
}

// logAdd returns log(e^a + e^b).
func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if b == never {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}
