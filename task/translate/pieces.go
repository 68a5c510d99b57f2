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
		_, err := m.run(ctx, tape, slices.Concat(pieces...), nil, o)
		return err
	}
	states := make([]*nn.SavedState, len(pieces)) // of each text's encoder
	for wave := range longest {
		var list []*piece
		for _, of := range pieces {
			if wave < len(of) {
				list = append(list, of[wave])
			}
		}
		if _, err := m.run(ctx, tape, list, states, o); err != nil {
			return err
		}
	}
	return nil
}

// run translates pieces in batches of similar length. states, if not nil, is the
// encoder's initial state for the piece of each text, and is set to the state
// after it.
func (m *Model) run(ctx context.Context, tape *tensor.Tape, pieces []*piece, states []*nn.SavedState, o *PredictOptions) (batches int, err error) {
	lengths := make([]int, len(pieces))
	for i, p := range pieces {
		lengths[i] = len(p.ids)
	}
	list := train.NewBuckets(lengths, batchSources, max(1, batchRows/o.Beam), 0).InOrder()
	for _, batch := range list {
		some := make([]*piece, len(batch))
		for i, k := range batch {
			some[i] = pieces[k]
		}
		if err := m.translateBatch(ctx, tape, some, states, o); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// translateBatch translates a few pieces together.
func (m *Model) translateBatch(ctx context.Context, tape *tensor.Tape, batch []*piece, states []*nn.SavedState, o *PredictOptions) error {
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
	for _, p := range batch {
		d.all = append(d.all, newSearch(&o.SearchOptions, min(max(o.NBest, 1), o.Beam), 2*len(p.ids)+20, len(p.ids), v.EndID(), banned))
	}
	if err := d.run(ctx); err != nil {
		return err
	}
	for i, p := range batch {
		p.found = d.all[i].finished
		if states != nil {
			states[p.text] = m.net.Encoder.NewSavedState(1)
			states[p.text].CopyRow(0, e.last, i)
		}
	}
	return nil
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
