package translate

import (
	"context"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// piece is a part of a text that is being translated.
type piece struct {
	text   int
	ids    []int32  // with the end token
	tokens []string // of the source, as in the text
	found  []hypothesis
}

// Limits on what is computed in parallel.
const (
	batchSources = 4096 // padded source tokens
	batchRows    = 256  // hypotheses
)

// pieces divides a text into pieces, and returns the number of tokens left out.
func (m *Model) pieces(i int, s string, limit int) (list []*piece, left int) {
	s = m.cfg.spaced(s)
	v := m.tok.source.Vocabulary()
	tokens := slices.DeleteFunc(m.tok.source.Tokens(nil, s), func(t text.Token) bool {
		return m.tok.source.IsSpecial(t.ID) && t.ID != v.UnknownID()
	})
	if n := len(tokens) - mostTokens; n > 0 {
		tokens, left = tokens[:mostTokens], n
	}
	for _, c := range cut(s, tokens, limit) {
		p := &piece{text: i}
		for _, t := range tokens[c.from:c.to] {
			p.ids = append(p.ids, t.ID)
			p.tokens = append(p.tokens, s[t.Start:t.End])
		}
		p.ids = append(p.ids, v.EndID())
		p.tokens = append(p.tokens, text.End)
		list = append(list, p)
	}
	return list, left
}

// runAll translates all pieces: together or, if the state is carried, first those
// at the beginning of a text, then the next ones.
func (m *Model) runAll(ctx context.Context, pieces [][]*piece, longest int, o *PredictOptions) error {
	tape := tensor.NewTape(m.slab.Device(), tensor.Infer)
	if !o.CarryState {
		return m.run(ctx, tape, slices.Concat(pieces...), nil, o)
	}
	states := make([]*nn.SavedState, len(pieces)) // of each text's encoder
	for wave := range longest {
		var list []*piece
		for _, of := range pieces {
			if wave < len(of) {
				list = append(list, of[wave])
			}
		}
		if err := m.run(ctx, tape, list, states, o); err != nil {
			return err
		}
	}
	return nil
}

// run translates pieces in batches of similar length, which the context's ranks share.
// states, if not nil, is the encoder's initial state for the piece of each text, and is
// set to the state after it.
func (m *Model) run(ctx context.Context, tape *tensor.Tape, pieces []*piece, states []*nn.SavedState, o *PredictOptions) error {
	lengths := make([]int, len(pieces))
	for i, p := range pieces {
		lengths[i] = len(p.ids)
	}
	batches := train.NewBuckets(lengths, batchSources, max(1, batchRows/o.Beam), 0).InOrder()
	some := func(i int) []*piece { return chosen(pieces, batches[i]) }
	return train.Share(ctx, len(batches), func(ctx context.Context, i int) ([]float64, error) {
		return m.translateBatch(ctx, tape, some(i), states, o)
	}, func(i int, result []float64) error {
		for _, p := range some(i) {
			p.found, result = takeHypotheses(result)
			if states != nil {
				states[p.text], result = m.takeState(result)
			}
		}
		return nil
	})
}

// chosen returns the items of a list at some places.
func chosen[T any](list []T, places []int) []T {
	x := make([]T, len(places))
	for i, at := range places {
		x[i] = list[at]
	}
	return x
}

// translateBatch translates a few pieces together. It returns the hypotheses of each,
// and the state after it if that is carried, as takeHypotheses and takeState read them.
func (m *Model) translateBatch(ctx context.Context, tape *tensor.Tape, batch []*piece, states []*nn.SavedState, o *PredictOptions) ([]float64, error) {
	sources := make([][]int32, len(batch))
	for i, p := range batch {
		sources[i] = p.ids
	}
	e := m.net.encodeAll(tape, sources, m.gatherStates(batch, states))
	v := m.tok.target.Vocabulary()
	banned := []int32{v.BeginID()}
	if id := v.PadID(); id >= 0 {
		banned = append(banned, id)
	}
	banned = slices.DeleteFunc(banned, func(id int32) bool { return id == v.EndID() })
	d := &decoding{n: m.net, tape: tape, e: e, beam: o.Beam, begin: v.BeginID(),
		looks: o.Attention || o.CoveragePenalty > 0 || !o.KeepUnknown && v.UnknownID() >= 0}
	best := min(max(o.NBest, 1), o.Beam)
	for _, p := range batch {
		d.all = append(d.all, newSearch(&o.SearchOptions, best, 2*len(p.ids)+20, len(p.ids), v.EndID(), banned))
	}
	if err := d.run(ctx); err != nil {
		return nil, err
	}
	shown := func(token int32) bool { return o.Attention || token == v.UnknownID() } // whose attention is looked at
	var result []float64
	state := m.net.Encoder.NewSavedState(1)
	for i := range batch {
		found := d.all[i].finished
		result = appendHypotheses(result, found[:min(best, len(found))], shown)
		if states != nil {
			state.CopyRow(0, e.last, i)
			result = appendNumbers(appendNumbers(result, state.H()), state.C())
		}
	}
	return result, nil
}

// takeState reads the encoder's state after a piece, and returns the numbers after it.
func (m *Model) takeState(x []float64) (*nn.SavedState, []float64) {
	s := m.net.Encoder.NewSavedState(1)
	for _, part := range [][]float32{s.H(), s.C()} {
		for i := range part {
			part[i] = float32(x[i])
		}
		x = x[len(part):]
	}
	return s, x
}

// gatherStates returns the initial states of the encoder for the pieces; nil for
// the default.
func (m *Model) gatherStates(batch []*piece, states []*nn.SavedState) *nn.SavedState {
	if states == nil || states[batch[0].text] == nil { // the first pieces
		return nil
	}
	all := m.net.Encoder.NewSavedState(len(batch))
	for i, p := range batch {
		all.CopyRow(i, states[p.text], 0)
	}
	m.net.forwardOnly(all)
	return all
}

// assemble joins a text's translation from its pieces.
func (m *Model) assemble(t *Translation, pieces []*piece, o *PredictOptions) {
	nbest := 0
	for _, p := range pieces {
		nbest = max(nbest, min(o.NBest, len(p.found)))
	}
	for k := range max(nbest, 1) {
		var texts []string
		score := 0.0
		for _, p := range pieces {
			if len(p.found) == 0 { // the network's outputs are not finite
				continue
			}
			h := &p.found[min(k, len(p.found)-1)]
			texts = append(texts, m.write(h, p, o.KeepUnknown))
			score += h.score
		}
		one := Alternative{join(texts), score}
		if k == 0 {
			t.Text, t.Score = one.Text, one.Score
		}
		if o.NBest > 0 {
			t.Alternatives = append(t.Alternatives, one)
		}
	}
	if o.Attention && len(pieces) > 0 && len(pieces[0].found) > 0 {
		t.Attention = m.attention(&pieces[0].found[0], pieces[0])
	}
}

// write returns the text of a hypothesis. An unknown token is replaced by the
// source word with the highest attention, unless keep is set.
func (m *Model) write(h *hypothesis, p *piece, keep bool) string {
	ids := h.last.tokens()
	ids = ids[:len(ids)-1]
	unknown := m.tok.target.Vocabulary().UnknownID()
	var words map[int]string
	for i := h.last; i != nil; i = i.before {
		if i.token != unknown || i.steps > len(ids) {
			continue
		}
		if words == nil {
			words = map[int]string{}
		}
		words[i.steps-1] = text.Unknown
		if !keep {
			words[i.steps-1] = p.tokens[largest(i.attention[:len(p.tokens)-1])]
		}
	}
	return strings.TrimSpace(m.tok.target.DecodeWith(ids, words))
}

// largest returns the index of the largest number, the first of equal ones.
func largest(x []float32) int {
	at := 0
	for i, v := range x {
		if v > x[at] {
			at = i
		}
	}
	return at
}

func (m *Model) attention(h *hypothesis, p *piece) *Attention {
	a := &Attention{Source: p.tokens, Weights: make([][]float32, h.last.steps)}
	for _, id := range h.last.tokens() {
		name := strings.TrimSpace(m.tok.target.Decode([]int32{id}))
		if name == "" {
			name = m.tok.target.Vocabulary().Token(id)
		}
		a.Target = append(a.Target, name)
	}
	for i := h.last; i != nil; i = i.before {
		a.Weights[i.steps-1] = i.attention
	}
	return a
}
