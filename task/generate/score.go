package generate

import (
	"cmp"
	"context"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Scored is a continuation of a prompt with its probability.
type Scored struct {
	Continuation string  `json:"continuation"`       // the text
	LogProb      float64 `json:"log_prob"`           // log-probability of all its tokens, given the prompt
	Tokens       int     `json:"tokens"`             // number of its tokens
	PerToken     float64 `json:"log_prob_per_token"` // mean log-probability of its tokens
}

// Score ranks continuations of a prompt by log-probability, highest first. A
// space is inserted before a continuation that begins with a letter or digit if
// the prompt ends with one, unless exactly is set or the script has no spaces
// between words.
//
// If a token covers the end of the prompt and the beginning of a continuation,
// the tokens that differ are scored, for all continuations from the same
// position. A continuation that adds no token is a *data.InputError; a cancelled
// ctx returns its error.
func (m *Model) Score(ctx context.Context, prompt string, continuations []string, exactly bool) (_ []Scored, err error) {
	defer tensor.Recover(&err)
	begin := []int32{m.codec.begin}
	first := m.codec.encode(ctx, begin, prompt)
	common := len(first)
	var texts [][]int32
	for _, c := range continuations {
		ids := m.codec.encode(ctx, slices.Clone(begin), join(prompt, c, exactly))
		texts = append(texts, ids)
		common = min(common, shared(first, ids))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var scores []Scored
	for i, c := range continuations {
		if len(texts[i]) <= common {
			return nil, data.Errorf("the continuation %q adds no token to the prompt", c)
		}
		scores = append(scores, Scored{Continuation: c, Tokens: len(texts[i]) - common})
	}
	state := m.net.RNN.NewSavedState(1)
	if common > 1 {
		s := m.read([][]int32{first[:common-1]}, 1)
		s.states.Get(0, state, 0)
		s.close()
	}
	for lo := 0; lo < len(texts); lo += evaluationRows {
		hi := min(lo+evaluationRows, len(texts))
		if err := m.scoreAfter(ctx, state, texts[lo:hi], common, scores[lo:hi]); err != nil {
			return nil, err
		}
	}
	for i := range scores {
		scores[i].PerToken = scores[i].LogProb / float64(scores[i].Tokens)
	}
	slices.SortStableFunc(scores, func(a, b Scored) int { return cmp.Compare(b.LogProb, a.LogProb) })
	return scores, nil
}

// scoreAfter adds log p of the tokens from common on to each text's score, from
// the state after the tokens before common-1. The texts are read in parallel.
func (m *Model) scoreAfter(ctx context.Context, state *nn.SavedState, texts [][]int32, common int, scores []Scored) error {
	var rest [][]int32
	for _, ids := range texts {
		rest = append(rest, ids[common-1:])
	}
	carry := nn.NewCarry(m.net.RNN, len(texts))
	s := newStreams(corpusOf(rest...), len(texts), m.segment(len(texts)), true, 0)
	tape, b := tensor.NewTape(m.slab.Device(), tensor.Infer), &batch{}
	var logp []float32
	for i := range s.batches {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.load(b, 0, i, 0, len(texts)); err != nil {
			return err
		}
		if i == 0 {
			for r := range texts {
				carry.CopyRow(r, state, 0)
			}
			clear(b.begins)
		}
		tape.Reset()
		x, _, _, to := m.net.steps(tape, b.input(tape), carry.Begin(tape, b.begins))
		logp = train.Resize(logp, b.B*b.T)
		m.net.score(logp, x, b.targets)
		carry.End(to)
		for r, p := range b.parts {
			for k := range p.steps() {
				scores[p.doc].LogProb += float64(logp[r*b.T+k])
			}
		}
	}
	return nil
}

// shared returns the length of the common beginning of two texts.
func shared(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// join appends a continuation to a prompt.
func join(prompt, continuation string, exactly bool) string {
	last, _ := utf8.DecodeLastRuneInString(prompt)
	next, _ := utf8.DecodeRuneInString(continuation)
	if !exactly && spaced(last) && spaced(next) && prompt != "" && continuation != "" {
		return prompt + " " + continuation
	}
	return prompt + continuation
}

// spaced reports whether a character belongs to a word of a script with spaces
// between words.
func spaced(r rune) bool {
	return (unicode.IsLetter(r) || unicode.IsDigit(r)) &&
		!unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}
