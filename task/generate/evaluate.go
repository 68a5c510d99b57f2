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
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
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
	c, ends, nats, err := m.scored(ctx, of, docs)
	if err != nil {
		return nil, err
	}
	e := m.evaluation(docs, ends, nats, c)
	e.Scored = of.Scored(part)
	return e, nil
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
	_, _, nats, err := m.scored(ctx, of, of.Of(part))
	if err != nil {
		return nil, err
	}
	t := &task.Tally{Name: "perplexity", Of: func(s []float64) float64 { return tally{s[0], int(s[1])}.metrics(0).Perplexity }}
	for _, document := range nats {
		for piece := range slices.Chunk(document, tallied) {
			var one tally
			for _, v := range piece {
				one.add(float64(v))
			}
			t.Rows = append(t.Rows, []float64{one.sum, float64(one.n)})
		}
	}
	return t, nil
}

// scored returns documents as a corpus, where each token ends in its document, in bytes,
// and -log p of each token.
func (m *Model) scored(ctx context.Context, of *Data, docs []data.Document) (c *corpus, ends [][]int32, nats [][]float32, err error) {
	ends = make([][]int32, len(docs))
	c = &corpus{characters: characters(docs)}
	for i, d := range docs {
		ids := []int32{m.codec.begin}
		for t := range m.codec.trace(d.Text) {
			ids, ends[i] = append(ids, t.ID), append(ends[i], int32(t.End))
		}
		c.docs = append(c.docs, ids)
		c.tokens += len(ids) - 1
	}
	if c.tokens == 0 {
		return nil, nil, nil, data.InFile(of.file, data.Errorf("the text to score has no tokens; give a file with some text"))
	}
	nats, err = m.nats(ctx, c)
	return c, ends, nats, err
}

// nats returns -log p of every token but the first of each document of c.
func (m *Model) nats(ctx context.Context, c *corpus) (nats [][]float32, err error) {
	rows := min(len(c.docs), evaluationRows)
	s := newStreams(c, rows, m.segment(rows), true, 0)
	for _, d := range c.docs {
		nats = append(nats, make([]float32, len(d)-1))
	}
	tape, carry := tensor.NewTape(m.slab.Device(), tensor.Infer), nn.NewCarry(m.net.RNN, rows)
	b := &batch{}
	var scores []float32
	for i := range s.batches {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.load(b, 0, i)
		tape.Reset()
		x, _, _, to := m.net.steps(tape, b.input(tape), carry.Begin(tape, b.begins))
		scores = train.Resize(scores, b.B*b.T)
		m.net.score(scores, x, b.targets)
		carry.End(to)
		for r, p := range b.parts {
			for k := range p.steps() {
				nats[p.doc][p.from+k] = -scores[r*b.T+k]
			}
		}
	}
	return nats, nil
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

func (m *Model) evaluation(docs []data.Document, ends [][]int32, nats [][]float32, c *corpus) *Evaluation {
	e := &Evaluation{
		Task: Name, Unit: m.cfg.Tokens, Documents: len(docs), Tokens: c.tokens, Characters: c.characters, Vocabulary: len(m.counts),
	}
	var all, known, unigram tally
	lost := 0 // characters of the unknown tokens
	places, counts := make([]tally, len(positions)), make([]tally, len(frequencies))
	share := logShares(m.counts)
	unknown := m.codec.tokens.Vocabulary().UnknownID()
	for i, ids := range c.docs {
		for k, id := range ids[1:] { // the first begins the document
			v := float64(nats[i][k])
			all.add(v)
			unigram.add(-share[id])
			places[slot(positions, k)].add(v)
			counts[slot(frequencies, int(m.counts[id]))].add(v)
			if id == unknown {
				e.Unknown++
				lost += utf8.RuneCountInString(tokenText(docs[i].Text, ends[i], k))
			} else {
				known.add(v)
			}
		}
	}
	e.Metrics, e.Baselines = all.metrics(c.characters), map[string]Metrics{"unigram": unigram.metrics(c.characters)}
	if e.Unknown > 0 && known.n > 0 {
		without := known.metrics(c.characters - lost)
		e.Known = &without
	}
	e.ByPosition, e.ByFrequency = groups(positions, places), groups(frequencies, counts)
	e.Surprising = surprising(docs, ends, nats)
	if e.Unknown > 0 && m.codec.line < 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("%d of %d tokens were never seen in training and are scored as one unknown token", e.Unknown, e.Tokens))
	}
	return e
}

// tokenText returns the text of token k, given where each token ends; the space before
// a word is none of it.
func tokenText(text string, ends []int32, k int) string {
	begin := int32(0)
	if k > 0 {
		begin = ends[k-1]
	}
	text = text[begin:ends[k]]
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

// surprising returns the words with the highest -log p; each distinct word at its
// worst position.
func surprising(docs []data.Document, ends [][]int32, nats [][]float32) []Surprise {
	worst := map[string]Surprise{}
	for i, d := range docs {
		k := 0
		for from, to := range words(d.Text) {
			sum := 0.0
			for ; k < len(ends[i]) && int(ends[i][k]) <= to; k++ {
				if int(ends[i][k]) > from {
					sum += float64(nats[i][k])
				}
			}
			if w := d.Text[from:to]; sum > worst[w].Nats {
				worst[w] = Surprise{w, before(d.Text[:from]), sum}
			}
		}
	}
	list := make([]Surprise, 0, len(worst))
	for _, s := range worst {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Surprise) int { return cmp.Or(cmp.Compare(b.Nats, a.Nats), strings.Compare(a.Word, b.Word)) })
	return list[:min(len(list), mostSurprising)]
}

// words iterates over the byte ranges of the text between white space.
func words(s string) func(yield func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		from := -1
		for i, r := range s {
			switch space := unicode.IsSpace(r); {
			case space && from >= 0:
				if !yield(from, i) {
					return
				}
				from = -1
			case !space && from < 0:
				from = i
			}
		}
		if from >= 0 {
			yield(from, len(s))
		}
	}
}

// before returns the end of a text on one line.
func before(s string) string {
	const most = 60
	if len(s) > most {
		s = s[len(s)-most:]
		for len(s) > 0 && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return strings.Join(strings.Fields(s), " ")
}
