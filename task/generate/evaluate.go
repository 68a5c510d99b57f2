package generate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Metrics are the scores of a language model.
type Metrics struct {
	Nats        float64 `json:"nats"`          // mean of -log p (natural logarithm) per token
	BitsPerChar float64 `json:"bits_per_char"` // sum of -log₂ p, divided by the number of characters of the text
	Perplexity  float64 `json:"perplexity"`    // e^nats
}

// Evaluation is the scores of a language model on a text. Each token is predicted
// from all tokens before it in its document; the tokens for the end of documents
// are not scored.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Metrics    Metrics            `json:"metrics"`    // the model's scores
	Known      *Metrics           `json:"known"`      // the model's scores without the unknown tokens; null if there are none, or no others
	Baselines  map[string]Metrics `json:"baselines"`  // unigram: the frequency of each token in the training text
	Unit       string             `json:"unit"`       // kind of token: char, bpe or space
	Documents  int                `json:"documents"`  // number of documents scored
	Tokens     int                `json:"tokens"`     // number of tokens scored
	Characters int                `json:"characters"` // number of characters of the texts scored
	Unknown    int                `json:"unknown"`    // number of tokens that the vocabulary lacks; they are scored as the unknown token
	Vocabulary int                `json:"vocabulary"` // size of the vocabulary

	ByPosition  []Group    `json:"by_position"`     // by the position of the token in its document
	ByFrequency []Group    `json:"by_frequency"`    // by the count of the token in the training text
	Surprising  []Surprise `json:"surprising"`      // the words with the highest loss, each at its worst position
	Notes       []string   `json:"notes,omitempty"` // remarks on the result, a sentence each
}

// Group is the mean over the tokens whose position or count is in [From, To); To
// is 0 if there is no upper bound.
type Group struct {
	From       int     `json:"from"`         // the smallest position or count
	To         int     `json:"to,omitempty"` // the upper bound, exclusive; absent if there is none
	Tokens     int     `json:"tokens"`       // number of tokens
	Nats       float64 `json:"nats"`         // mean of -log p (natural logarithm) per token
	Perplexity float64 `json:"perplexity"`   // e^nats
}

// Surprise is a word with its loss.
type Surprise struct {
	Word   string  `json:"word"`   // the word
	Before string  `json:"before"` // the end of the text before it
	Nats   float64 `json:"nats"`   // -log p (natural logarithm) of all its tokens together
}

// Lower bounds of the groups.
var (
	positions   = []int{0, 10, 30, 100, 300, 1000, 3000, 10000, 100000}
	frequencies = []int{0, 1, 10, 100, 1000, 10000, 100000}
)

// evaluationRows is the largest number of documents or streams that are scored in
// parallel.
const evaluationRows = 16

// segment returns the number of steps that are computed together at inference.
func (m *Model) segment(rows int) int { return max(16, min(256, mostLogits/(rows*len(m.counts)))) }

// EvaluateOptions are the options of an evaluation; there are none yet.
type EvaluateOptions struct{}

// Evaluate scores the model on the documents of a part, each read from its
// beginning with the state carried through, beside the tokens' frequencies in
// training as a baseline. A part without tokens is a *data.InputError; a cancelled
// ctx returns its error.
func (m *Model) Evaluate(ctx context.Context, of *Data, part task.Part, _ *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(of, "generate: Evaluate")
	docs := of.Of(part)
	c, nats, err := m.scored(ctx, of, docs)
	if err != nil {
		return nil, err
	}
	defer c.close(false)
	defer nats.close()
	e, err := m.evaluation(ctx, docs, c, nats)
	if err != nil {
		return nil, err
	}
	e.Scored, err = of.Scored(ctx, part)
	return e, err
}

// tallied is the largest number of tokens of a row of a Tally: some sentences, so that
// rows depend little on each other and also one document of a few pages has dozens.
const tallied = 256

// Tally returns the perplexity of [Model.Evaluate] by stretches of at most 256 tokens of
// each document, in order: the sum of -log p and the number of tokens. Its errors are
// those of Evaluate.
func (m *Model) Tally(ctx context.Context, of *Data, part task.Part, _ *EvaluateOptions) (_ *task.Tally, err error) {
	defer tensor.Recover(&err)
	task.NeedData(of, "generate: Tally")
	c, nats, err := m.scored(ctx, of, of.Of(part))
	if err != nil {
		return nil, err
	}
	defer c.close(false)
	defer nats.close()
	t := &task.Tally{Name: "perplexity", Of: func(s []float64) float64 { return tally{s[0], int(s[1])}.metrics(0).Perplexity }}
	for _, d := range c.docs {
		for at := d.from + 1; at < d.to; at += tallied {
			piece, err := nats.get(at, min(tallied, d.to-at))
			if err != nil {
				return nil, err
			}
			var one tally
			for _, v := range piece {
				one.add(float64(v))
			}
			t.Rows = append(t.Rows, []float64{one.sum, float64(one.n)})
		}
	}
	return t, nil
}

// scored returns documents as a corpus, and -log p of each token but the first of each
// document.
func (m *Model) scored(ctx context.Context, of *Data, docs []data.Document) (*corpus, *losses, error) {
	c, err := newCorpus(ctx, m.codec, docs, true, "")
	if err != nil {
		return nil, nil, err
	}
	var nats *losses
	if c.Tokens == 0 {
		err = data.InFile(of.file, data.Errorf("the text to score has no tokens; give a file with some text"))
	} else {
		nats, err = m.nats(ctx, c)
	}
	if err != nil {
		c.close(false)
		return nil, nil, err
	}
	return c, nats, nil
}

// nats returns -log p of every token but the first of each document of c.
func (m *Model) nats(ctx context.Context, c *corpus) (_ *losses, err error) {
	nats, err := newLosses(c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			nats.close()
		}
	}()
	rows := min(len(c.docs), evaluationRows)
	s := newStreams(c, rows, m.segment(rows), true, 0)
	return nats, m.scoreStreams(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), s, func(_ int, p piece, v []float32) error {
		return nats.put(c.docs[p.doc].from+p.from+1, v)
	})
}

// tally sums -log p.
type tally struct {
	sum float64
	n   int
}

func (t *tally) add(nats float64) { t.sum, t.n = t.sum+nats, t.n+1 }

func (t tally) metrics(characters int) Metrics {
	nats := t.sum / float64(t.n)
	return Metrics{Nats: nats, BitsPerChar: t.sum / math.Ln2 / float64(max(characters, 1)), Perplexity: math.Exp(nats)}
}

// evaluation makes the scores of documents from -log p of their tokens. The texts are
// divided into tokens once more, so that only the parts at hand are in memory.
func (m *Model) evaluation(ctx context.Context, docs []data.Document, c *corpus, nats *losses) (*Evaluation, error) {
	e := &Evaluation{
		Task: Name, Unit: m.cfg.Tokens, Documents: len(docs), Tokens: c.Tokens, Characters: c.Characters, Vocabulary: len(m.counts),
	}
	var all, known, unigram tally
	lost := 0 // characters of the unknown tokens
	places, counts := make([]tally, len(positions)), make([]tally, len(frequencies))
	share := logShares(m.counts)
	unknown := m.codec.tokens.Vocabulary().UnknownID()
	var worst surprises
	r := &reading{ctx: ctx}
	for i, d := range docs {
		k, end := 0, 0 // of the tokens so far
		worst.begin()
		for part := range m.codec.trace(r.blocks(d)) {
			v, err := nats.get(c.docs[i].from+1+k, len(part.tokens))
			if err != nil {
				return nil, err
			}
			for j, t := range part.tokens {
				all.add(float64(v[j]))
				unigram.add(-share[t.ID])
				places[slot(positions, k)].add(float64(v[j]))
				counts[slot(frequencies, int(m.counts[t.ID]))].add(float64(v[j]))
				if t.ID == unknown {
					e.Unknown++
					lost += utf8.RuneCountInString(tokenText(part.text[max(end-part.at, 0) : t.End-part.at]))
				} else {
					known.add(float64(v[j]))
				}
				k, end = k+1, t.End
			}
			worst.add(part, v)
		}
		worst.end()
	}
	if r.err != nil {
		return nil, r.err
	}
	e.Metrics, e.Baselines = all.metrics(c.Characters), map[string]Metrics{"unigram": unigram.metrics(c.Characters)}
	if e.Unknown > 0 && known.n > 0 {
		without := known.metrics(c.Characters - lost)
		e.Known = &without
	}
	e.ByPosition, e.ByFrequency = groups(positions, places), groups(frequencies, counts)
	e.Surprising = worst.list
	if e.Unknown > 0 && m.codec.line < 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("%d of %d tokens were never seen in training and are scored as one unknown token", e.Unknown, e.Tokens))
	}
	return e, nil
}

// tokenText returns the text of a token, given the text from the end of the token before
// it; the space before a word is none of it.
func tokenText(text string) string {
	if word := strings.TrimLeft(text, " \t"); word != "" {
		return word
	}
	return text
}

// logShares returns the logarithm of each token's share of the counts; tokens
// without a count have one half.
func logShares(counts []int64) []float64 {
	total := 0.0
	for _, n := range counts {
		total += math.Max(float64(n), 0.5)
	}
	out := make([]float64, len(counts))
	for i, n := range counts {
		out[i] = math.Log(math.Max(float64(n), 0.5) / total)
	}
	return out
}

// slot returns the index of the last bound that is not above v.
func slot(bounds []int, v int) int {
	i, exact := slices.BinarySearch(bounds, v)
	if !exact {
		i--
	}
	return i
}

func groups(bounds []int, tallies []tally) []Group {
	var list []Group
	for i, t := range tallies {
		if t.n == 0 {
			continue
		}
		g := Group{From: bounds[i], Tokens: t.n, Nats: t.sum / float64(t.n)}
		if i+1 < len(bounds) {
			g.To = bounds[i+1]
		}
		g.Perplexity = math.Exp(g.Nats)
		list = append(list, g)
	}
	return list
}

// mostSurprising is the number of words in Evaluation.Surprising.
const mostSurprising = 20

// mostWord is the number of bytes from which on a word is taken for several.
const mostWord = 1 << 16

// surprises finds the words with the highest -log p of all their tokens; each distinct word
// at its worst position.
type surprises struct {
	list []Surprise // at most mostSurprising, the worst first

	text string // the end of a document, as far as it was read, with some bytes before it
	at   int    // where it begins in the document
	next int    // where the first word that was not looked at begins in it
	ends []int  // of the tokens since then
	nats []float32
}

// begin begins a document.
func (s *surprises) begin() { s.text, s.at, s.next, s.ends, s.nats = "", 0, 0, s.ends[:0], s.nats[:0] }

// add takes the next part of the document.
func (s *surprises) add(part traced, nats []float32) {
	s.text += part.text
	for _, t := range part.tokens {
		s.ends = append(s.ends, t.End)
	}
	s.nats = append(s.nats, nats...)
	s.look(false)
}

// end ends the document.
func (s *surprises) end() { s.look(true) }

// look looks at the words that are complete, or at all.
func (s *surprises) look(all bool) {
	k, next := 0, len(s.text)
	for from, to := range words(s.text[s.next:]) {
		from, to = from+s.next, to+s.next
		if to == len(s.text) && !all {
			next = from
			break
		}
		sum := 0.0
		for ; k < len(s.ends) && s.ends[k] <= s.at+to; k++ {
			if s.ends[k] > s.at+from {
				sum += float64(s.nats[k])
			}
		}
		s.note(s.text[from:to], s.text[:from], sum)
	}
	cut := max(0, next-2*mostBefore)
	s.text, s.at, s.next = s.text[cut:], s.at+cut, next-cut
	s.ends, s.nats = append(s.ends[:0], s.ends[k:]...), append(s.nats[:0], s.nats[k:]...)
}

// note adds a word if it is one of the worst.
func (s *surprises) note(word, text string, nats float64) {
	full := len(s.list) == mostSurprising
	if nats <= 0 || full && nats < s.list[len(s.list)-1].Nats {
		return
	}
	if i := slices.IndexFunc(s.list, func(o Surprise) bool { return o.Word == word }); i >= 0 {
		if nats <= s.list[i].Nats {
			return
		}
		s.list = slices.Delete(s.list, i, i+1)
	}
	i, _ := slices.BinarySearchFunc(s.list, Surprise{Word: word, Nats: nats}, func(a, b Surprise) int {
		return cmp.Or(cmp.Compare(b.Nats, a.Nats), strings.Compare(a.Word, b.Word))
	})
	s.list = slices.Insert(s.list, i, Surprise{strings.Clone(word), strings.Clone(before(text)), nats})
	s.list = s.list[:min(len(s.list), mostSurprising)]
}

// words iterates over the byte ranges of the text between white space.
func words(s string) func(yield func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		from := -1
		for i, r := range s {
			space := unicode.IsSpace(r)
			if from >= 0 && (space || i-from >= mostWord) {
				if !yield(from, i) {
					return
				}
				from = -1
			}
			if from < 0 && !space {
				from = i
			}
		}
		if from >= 0 {
			yield(from, len(s))
		}
	}
}

// mostBefore is the number of bytes of the text before a word that are told.
const mostBefore = 60

// before returns the end of a text on one line.
func before(s string) string {
	if len(s) > mostBefore {
		s = s[len(s)-mostBefore:]
		for len(s) > 0 && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return strings.Join(strings.Fields(s), " ")
}
