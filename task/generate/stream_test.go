package generate

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/task"
)

// awkward is text with characters of several bytes, what looks like special tokens, and
// white space of all kinds.
const awkward = "the quick  brown fox, don't; naïve 世界 <unk> and <pad>\n\n\t the  lazy dog's 12 3456 days\u00a0gone  \nover the quick brown fox "

func feed(t *testing.T, s *stream, p *task.Portion) *Predictions {
	t.Helper()
	got, err := s.Feed(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return got.(*Predictions)
}

// A text that comes in portions, cut anywhere, has the tokens of the whole, and after each
// portion the generated texts and next tokens are those after the text so far, bit for bit,
// also when the stream was written and read in between.
func TestStreamIsTheWholeText(t *testing.T) {
	for _, unit := range []string{"char", "bpe", "space"} {
		t.Run(unit, func(t *testing.T) {
			t.Parallel()
			cfg := small(unit)
			if unit == "bpe" {
				cfg.VocabularySize = 300
			}
			m := trained(t, cfg, strings.Repeat(awkward, 20))
			whole := feed(t, m.emptyStream(), &task.Portion{Input: task.Input{Texts: []string{awkward}}, Last: true})
			o := DefaultPredict()
			o.MaxTokens, o.Samples, o.Seed = 6, 2, 1
			for seed := range uint64(6) {
				r := rand.New(rand.NewPCG(seed, 1))
				s := m.emptyStream()
				tokens, logProb := 0, 0.0
				for at := 0; at < len(awkward); {
					n := min(len(awkward)-at, r.IntN(2+int(seed)*6))
					part := awkward[at : at+n]
					at += n
					last := at == len(awkward)
					got := feed(t, s, &task.Portion{Input: task.Input{Texts: []string{part}}, Options: &o, Last: last})
					tokens, logProb = tokens+got.Fed.Tokens, logProb+got.Fed.LogProb
					if got.Fed.Held > len(awkward) || last && got.Fed.Held > 0 {
						t.Fatalf("%d bytes are held", got.Fed.Held)
					}
					if r.IntN(4) == 0 && !last {
						s = again(t, m, s)
					}
					if r.IntN(5) > 0 && !last {
						continue
					}
					want, err := m.Predict(t.Context(), task.Input{Texts: []string{awkward[:at]}}, &o)
					if err != nil {
						t.Fatal(err)
					}
					for i := range want.List {
						want.List[i].Prompt, got.List[i].Prompt = "", ""
					}
					if !reflect.DeepEqual(got.List, want.List) {
						t.Fatalf("after %q: %+v, the whole prompt: %+v", awkward[:at], got.List, want.List)
					}
					if last && !reflect.DeepEqual(got.Fed.Next, whole.Fed.Next) {
						t.Errorf("next: %v, after the whole %v", got.Fed.Next, whole.Fed.Next)
					}
				}
				if tokens != whole.Fed.Tokens || math.Abs(logProb-whole.Fed.LogProb) > 1e-9*math.Abs(logProb) {
					t.Errorf("%d tokens with log-probability %v in portions, %d with %v as a whole", tokens, logProb, whole.Fed.Tokens, whole.Fed.LogProb)
				}
			}
			if ids := m.codec.encode(t.Context(), nil, awkward); whole.Fed.Tokens != len(ids) {
				t.Errorf("%d tokens, the text has %d", whole.Fed.Tokens, len(ids))
			}
		})
	}
}

// What a stream says of a text is what Score says.
func TestStreamScores(t *testing.T) {
	m := trained(t, small("char"), strings.Repeat(awkward, 20))
	s := m.emptyStream()
	wants := func(string) bool { return false }
	feed(t, s, &task.Portion{Input: task.Input{Texts: []string{"the quick"}}, Wants: wants})
	got := feed(t, s, &task.Portion{Input: task.Input{Texts: []string{" brown fox"}}, Wants: wants})
	want, err := m.Score(t.Context(), "the quick", []string{" brown fox"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if got.Fed.LogProb != want[0].LogProb || got.Fed.Tokens != want[0].Tokens || len(got.List) > 0 || len(got.Fed.Next) > 0 {
		t.Errorf("got %+v and %d texts, Score says %+v", got.Fed, len(got.List), want[0])
	}
}

func again(t *testing.T, m *Model, s *stream) *stream {
	t.Helper()
	text, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	other := m.emptyStream()
	if err := other.UnmarshalBinary(text); err != nil {
		t.Fatal(err)
	}
	if back, err := other.MarshalBinary(); err != nil || !bytes.Equal(back, text) {
		t.Fatalf("written again: %s %v, before %s", back, err, text)
	}
	return other
}

// What is wrong changes nothing.
func TestStreamRefuses(t *testing.T) {
	m := trained(t, small("space"), strings.Repeat(awkward, 20))
	s := m.emptyStream()
	feed(t, s, &task.Portion{Input: task.Input{Texts: []string{"the quick brown"}}})
	before, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	bad := DefaultPredict()
	bad.TopP = 2
	for what, p := range map[string]*task.Portion{
		"a long word": {Input: task.Input{Texts: []string{strings.Repeat("a", mostHeld+1)}}},
		"an option":   {Input: task.Input{Texts: []string{" fox"}}, Options: &bad},
	} {
		if _, err := s.Feed(t.Context(), p); err == nil {
			t.Errorf("%s is accepted", what)
		}
		if after, err := s.MarshalBinary(); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s has changed the stream", what)
		}
	}
	for _, text := range []string{"", "{}", `{"version":9}`, `{"version":1,"state":"AAAA"}`,
		strings.Replace(string(before), `"context":[`, `"context":[1000000,`, 1), strings.Replace(string(before), `"context":[`, `"context":[-1,`, 1)} {
		if err := s.UnmarshalBinary([]byte(text)); err == nil {
			t.Errorf("the state %.60q is accepted", text)
		}
	}
	if after, err := s.MarshalBinary(); err != nil || !bytes.Equal(after, before) {
		t.Error("a damaged state has changed the stream")
	}
}
