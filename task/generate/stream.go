package generate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Fed is a portion of text that a stream has read: its tokens with their probability, and
// those that may follow.
type Fed struct {
	Tokens  int     `json:"tokens"`   // number of tokens that the portion completed
	LogProb float64 `json:"log_prob"` // log-probability of these, each given all text before it
	Held    int     `json:"held"`     // bytes at the end whose tokens depend on the text that follows; they count when it is there
	Next    []Next  `json:"next"`     // the most probable next tokens after the tokens that count, best first; at most 10
}

// Next is a token that may follow.
type Next struct {
	Token   string  `json:"token"`    // its text
	LogProb float64 `json:"log_prob"` // its log-probability
}

// mostNext is the number of next tokens that are told.
const mostNext = 10

// stream reads a text that arrives in portions. Their tokens, and the bits of
// probabilities and of generated texts, are those of the whole text, up to 1 MiB, beyond
// which a whole text is read in blocks: the end of a portion waits until its
// tokens do not depend on what follows, in bytes the rest of a character, and for tokens
// larger than that all behind the last white space. A portion costs nothing for the text
// before it.
type stream struct {
	m       *Model
	state   *nn.SavedState // after all tokens but the last
	context []int32        // the last tokens, at most maxPending
	held    string
}

// mostHeld is the most text without white space that waits.
const mostHeld = 1 << 16

// newStream returns a stream of an empty text.
func (m *Model) newStream() task.Stream { return m.emptyStream() }

func (m *Model) emptyStream() *stream {
	return &stream{m: m, state: m.net.RNN.NewSavedState(1), context: []int32{m.codec.begin}}
}

// settled returns the length of the beginning of a text whose tokens do not depend on what
// follows it.
func (m *Model) settled(s string) int {
	if m.cfg.Tokens == "char" {
		for n := len(s) - 1; n >= max(0, len(s)-utf8.UTFMax); n-- {
			if utf8.RuneStart(s[n]) {
				if !utf8.FullRuneInString(s[n:]) {
					return n
				}
				break
			}
		}
		return len(s)
	}
	// No token has white space behind other characters: bpe cuts before it, as GPT-2, and
	// other tokens are between it.
	for n := len(s); n > 0; {
		r, size := utf8.DecodeLastRuneInString(s[:n])
		n -= size
		before, _ := utf8.DecodeLastRuneInString(s[:n])
		if n > 0 && unicode.IsSpace(r) && !unicode.IsSpace(before) {
			return n
		}
	}
	return 0
}

// Feed reads the text of in.Texts, none or one. The prediction is the text that continues
// all that was fed, as for a prompt, if the output text is wanted, and Fed.
func (s *stream) Feed(ctx context.Context, p *task.Portion) (_ task.Prediction, err error) {
	defer tensor.Recover(&err)
	o, _ := p.Options.(*PredictOptions)
	text := s.held + strings.Join(p.Texts, "")
	n := s.m.settled(text)
	if p.Last {
		n = len(text)
	}
	if len(text)-n > mostHeld {
		return nil, data.Errorf("the text has %d bytes without white space, and its tokens are known only there; give at most %d", len(text)-n, mostHeld)
	}
	to := &stream{m: s.m, held: text[n:], state: s.m.net.RNN.NewSavedState(1), context: s.context}
	to.state.CopyRow(0, s.state, 0)
	fed := &Fed{Held: len(to.held), Next: []Next{}}
	ids := s.m.codec.encode(ctx, nil, text[:n])
	if err := ctx.Err(); err != nil { // the tokens may be cut
		return nil, err
	}
	if err := to.read(ctx, ids, fed); err != nil {
		return nil, err
	}
	if p.Wants == nil || p.Wants("next") {
		to.next(fed)
	}
	out := &Predictions{Task: Name, List: []Generated{}, Fed: fed}
	if p.Wants == nil || p.Wants("text") {
		if out.List, err = to.write(ctx, o); err != nil {
			return nil, err
		}
		for i := range out.List {
			out.List[i].Prompt = text
		}
	}
	if p.Last {
		to = s.m.emptyStream()
	}
	*s = *to
	return out, nil
}

// read reads tokens and adds their probability to fed.
func (s *stream) read(ctx context.Context, ids []int32, fed *Fed) error {
	tape := tensor.NewTape(s.m.slab.Device(), tensor.Infer)
	last := s.context[len(s.context)-1]
	logp := make([]float32, s.m.segment(1))
	for rest := ids; len(rest) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		targets := rest[:min(len(rest), len(logp))]
		in := append([]int32{last}, targets[:len(targets)-1]...)
		tape.Reset()
		x, _, _, to := s.m.net.steps(tape, tape.IDs(in, nil, 1, len(in)), s.state.On(tape))
		s.m.net.score(logp[:len(targets)], x, targets)
		s.state.Save(to)
		for _, v := range logp[:len(targets)] {
			fed.LogProb += float64(v)
		}
		last, rest = targets[len(targets)-1], rest[len(targets):]
	}
	fed.Tokens += len(ids)
	context := slices.Concat(s.context, ids)
	s.context = context[max(0, len(context)-maxPending):]
	return nil
}

// next sets the most probable next tokens.
func (s *stream) next(fed *Fed) {
	tape := tensor.NewTape(s.m.slab.Device(), tensor.Infer)
	x, _, _, _ := s.m.net.steps(tape, tape.IDs(s.context[len(s.context)-1:], nil, 1, 1), s.state.On(tape))
	logp := s.m.net.logProb(x).Data()
	ids := make([]int32, len(logp))
	for i := range ids {
		ids[i] = int32(i)
	}
	slices.SortStableFunc(ids, func(a, b int32) int { return cmp.Compare(logp[b], logp[a]) })
	for _, id := range ids[:min(mostNext, len(ids))] {
		fed.Next = append(fed.Next, Next{s.m.codec.name(id), float64(logp[id])})
	}
}

// write returns texts that continue all that was fed.
func (s *stream) write(ctx context.Context, o *PredictOptions) ([]Generated, error) {
	o, err := o.settled()
	if err != nil {
		return nil, err
	}
	m := s.m
	in := m.codec.encode(ctx, []int32{s.context[len(s.context)-1]}, s.held)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	state := m.net.RNN.NewSavedState(1)
	prompt := slices.Concat(s.context, in[1:])
	rows := m.generationRows()
	var list []Generated
	for len(list) < o.Samples {
		copies := min(rows, o.Samples-len(list))
		next := m.newSession(copies)
		more, err := func() ([]Generated, error) {
			defer next.close()
			next.tape.Reset()
			x, _, _, to := m.net.steps(next.tape, next.tape.IDs(in, nil, 1, len(in)), s.state.On(next.tape))
			state.Save(to)
			next.begin(0, copies, x, len(in)-1, state, 0)
			var writers []*writer
			for i := range copies {
				writers = append(writers, newWriter(m.codec, o, len(list)+i, prompt))
			}
			return m.write(ctx, next, writers, o)
		}()
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// Bytes returns the memory of the state.
func (s *stream) Bytes() int {
	return 256 + 4*(len(s.state.H())+len(s.state.C())+len(s.context)) + len(s.held)
}

// streamState is a stream as it is written.
type streamState struct {
	Version int     `json:"version"`
	State   []byte  `json:"state"`
	Context []int32 `json:"context"`
	Held    []byte  `json:"held"`
}

const streamVersion = 1

// MarshalBinary returns the state of the network, the last tokens and the text that waits.
func (s *stream) MarshalBinary() ([]byte, error) {
	state, err := s.state.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return json.Marshal(streamState{streamVersion, state, s.context, []byte(s.held)})
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (s *stream) UnmarshalBinary(text []byte) error {
	var w streamState
	if err := json.Unmarshal(text, &w); err != nil {
		return fmt.Errorf("the state of a text session: %w", err)
	}
	if w.Version != streamVersion {
		return fmt.Errorf("the state of a text session is of version %d, this program reads %d", w.Version, streamVersion)
	}
	state := s.m.net.RNN.NewSavedState(1)
	if err := state.UnmarshalBinary(w.State); err != nil {
		return fmt.Errorf("the state of a text session: %w", err)
	}
	if state.Rows() != 1 || len(w.Context) < 1 || len(w.Context) > maxPending || len(w.Held) > mostHeld ||
		slices.ContainsFunc(w.Context, func(id int32) bool { return id < 0 || int(id) >= s.m.net.vocabulary }) {
		return errors.New("the state of a text session is damaged; begin another session")
	}
	*s = stream{m: s.m, state: state, context: w.Context, held: string(w.Held)}
	return nil
}

// fedOutputs are the columns of a stream's prediction besides the texts.
func fedOutputs() []task.Output {
	number := func(of func(f *Fed) float64) func(task.Prediction) []float64 {
		return func(p task.Prediction) []float64 {
			if f := p.(*Predictions).Fed; f != nil {
				return []float64{of(f)}
			}
			return nil
		}
	}
	return []task.Output{
		{Name: "log_prob", Numbers: number(func(f *Fed) float64 { return f.LogProb })},
		{Name: "tokens", Numbers: number(func(f *Fed) float64 { return float64(f.Tokens) })},
		{Name: "held", Numbers: number(func(f *Fed) float64 { return float64(f.Held) })},
		{Name: "next", Texts: func(p task.Prediction) []string {
			f := p.(*Predictions).Fed
			if f == nil {
				return nil
			}
			text, _ := result.JSON(f.Next) // texts and numbers always have a JSON form
			return []string{string(text)}
		}},
	}
}
