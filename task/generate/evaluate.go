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
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// Metrics tell how well a text was foreseen.
type Metrics struct {
	Nats        float64 `json:"nats"`          // mean of -log p, natural logarithm, a token
	BitsPerChar float64 `json:"bits_per_char"` // sum of -log₂ p by the text's characters
	Perplexity  float64 `json:"perplexity"`    // e^nats
}

// Evaluation is a model scored on a text. Every token is predicted from all that
// stands before it in its document; the tokens that end documents do not count.
type Evaluation struct {
	Task       string             `json:"task"`       // the task of the model
	Metrics    Metrics            `json:"metrics"`    // the model's scores
	Baselines  map[string]Metrics `json:"baselines"`  // unigram: each token's share of the training text, without context
	Unit       string             `json:"unit"`       // what a token is: char, bpe or word
	Documents  int                `json:"documents"`  // how many were scored
	Tokens     int                `json:"tokens"`     // how many were scored
	Characters int                `json:"characters"` // of the texts scored
	Unknown    int                `json:"unknown"`    // tokens that the vocabulary lacks; they are scored as the token for such
	Vocabulary int                `json:"vocabulary"` // tokens that the model knows

	ByPosition  []Group    `json:"by_position"`     // by the token's place in its document
	ByFrequency []Group    `json:"by_frequency"`    // by the token's count in the training text
	Surprising  []Surprise `json:"surprising"`      // the words foreseen worst, one place each
	Notes       []string   `json:"notes,omitempty"` // what to know of the result, a sentence each
}

// Group is a mean over some of the tokens: those whose place or count is from
// From to To, To not included; To is 0 where there is no end.
type Group struct {
	From       int     `json:"from"`         // the smallest place or count of the group
	To         int     `json:"to,omitempty"` // its end, not included; absent where there is none
	Tokens     int     `json:"tokens"`       // how many
	Nats       float64 `json:"nats"`         // mean of -log p, natural logarithm, a token
	Perplexity float64 `json:"perplexity"`   // e^nats
}

// Surprise is a word and how it came.
type Surprise struct {
	Word   string  `json:"word"`   // the word
	Before string  `json:"before"` // the text that it follows, as far as a line shows it
	Nats   float64 `json:"nats"`   // -log p of the word, all its tokens together
}

// Bounds of the groups.
var (
	positions   = []int{0, 10, 30, 100, 300, 1000, 3000, 10000, 100000}
	frequencies = []int{0, 1, 10, 100, 1000, 10000, 100000}
)

// evaluationRows is the most documents, or streams, that are scored side by side.
const evaluationRows = 16

// segment is how many steps are computed at once where nothing is trained.
func (m *Model) segment(rows int) int { return max(16, min(256, mostLogits/(rows*len(m.counts)))) }

// EvaluateOptions are the options of an evaluation; there are none yet.
type EvaluateOptions struct{}

// Evaluate scores the model on the documents of a part, each read from its
// beginning with the state carried through, beside the tokens' frequencies in
// training as a baseline. A part without tokens is a *data.InputError; a cancelled
// ctx returns its error.
func (m *Model) Evaluate(ctx context.Context, of *Data, part task.Part, _ *EvaluateOptions) (*Evaluation, error) {
	docs := of.Of(part)
	traces := make([][]text.Token, len(docs))
	c := &corpus{characters: characters(docs)}
	for i, d := range docs {
		traces[i] = m.codec.trace(d.Text)
		ids := []int32{m.codec.begin}
		for _, t := range traces[i] {
			ids = append(ids, t.ID)
		}
		c.docs = append(c.docs, ids)
		c.tokens += len(ids) - 1
	}
	if c.tokens == 0 {
		return nil, data.InFile(of.file, data.Errorf("the text to score has no tokens; give a file with some text"))
	}
	nats, err := m.nats(ctx, c)
	if err != nil {
		return nil, err
	}
	return m.evaluation(docs, traces, nats, c), nil
}

// nats is -log p of every token but the first of each document of c.
func (m *Model) nats(ctx context.Context, c *corpus) (nats [][]float32, err error) {
	rows := min(len(c.docs), evaluationRows)
	s := newStreams(c, rows, m.segment(rows), true, 0)
	for _, d := range c.docs {
		nats = append(nats, make([]float32, len(d)-1))
	}
	shape := tensor.Catch(func() {
		tape, carry := tensor.NewTape(m.slab.Device(), tensor.Infer), nn.NewCarry(m.net.RNN, rows)
		b := &batch{}
		var scores []float32
		for i := range s.batches {
			if err = ctx.Err(); err != nil {
				return
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
	})
	return nats, cmp.Or(shape, err)
}

// tally sums up -log p.
type tally struct {
	sum float64
	n   int
}

func (t *tally) add(nats float64) { t.sum, t.n = t.sum+nats, t.n+1 }

func (t tally) metrics(characters int) Metrics {
	nats := t.sum / float64(t.n)
	return Metrics{Nats: nats, BitsPerChar: t.sum / math.Ln2 / float64(max(characters, 1)), Perplexity: math.Exp(nats)}
}

func (m *Model) evaluation(docs []data.Document, traces [][]text.Token, nats [][]float32, c *corpus) *Evaluation {
	e := &Evaluation{
		Task: Name, Unit: m.cfg.Tokens, Documents: len(docs), Tokens: c.tokens, Characters: c.characters, Vocabulary: len(m.counts),
	}
	var all, unigram tally
	places, counts := make([]tally, len(positions)), make([]tally, len(frequencies))
	share := logShares(m.counts)
	unknown := m.codec.tokens.Vocabulary().UnknownID()
	for i, trace := range traces {
		for k, t := range trace {
			v := float64(nats[i][k])
			all.add(v)
			unigram.add(-share[t.ID])
			places[slot(positions, k)].add(v)
			counts[slot(frequencies, int(m.counts[t.ID]))].add(v)
			if t.ID == unknown {
				e.Unknown++
			}
		}
	}
	e.Metrics, e.Baselines = all.metrics(c.characters), map[string]Metrics{"unigram": unigram.metrics(c.characters)}
	e.ByPosition, e.ByFrequency = groups(positions, places), groups(frequencies, counts)
	e.Surprising = surprising(docs, traces, nats)
	if e.Unknown > 0 && m.codec.line < 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("%d of %d tokens were never seen in training and are scored as one unknown token", e.Unknown, e.Tokens))
	}
	return e
}

// logShares is log p of each token by its count, tokens never seen counted half.
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

// slot is the last bound that is not above v.
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

// mostSurprising is how many words an evaluation lists.
const mostSurprising = 20

// surprising finds the words with the highest -log p: of a word that occurs
// often the worst place alone.
func surprising(docs []data.Document, traces [][]text.Token, nats [][]float32) []Surprise {
	worst := map[string]Surprise{}
	for i, d := range docs {
		k := 0
		for from, to := range words(d.Text) {
			sum := 0.0
			for ; k < len(traces[i]) && traces[i][k].End <= to; k++ {
				if traces[i][k].End > from {
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

// words goes through what stands between white space, by its bytes.
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

// before is the end of a text, on one line.
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
