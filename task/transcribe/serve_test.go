package transcribe

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/speech/speechtest"
	"github.com/carousel-ml/carousel/task"
)

// Sound that comes in portions has partial texts, and in the end the transcript of
// the whole; the session then begins anew.
func TestSessionEqualsWhole(t *testing.T) {
	m := trainedModel(t)
	service, err := m.Serves()
	if err != nil {
		t.Fatal(err)
	}
	s := speechtest.Whistle(rand.New(rand.NewPCG(5, 5)), "ab dcb a")
	want, err := m.Transcribe(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := service.NewStream()
	for range 2 {
		partial := 0
		for at, size := 0, s.Rate/10; at < len(s.Samples); at += size {
			end := min(at+size, len(s.Samples))
			p := &task.Portion{Input: task.Input{Samples: s.Samples[at:end], Rate: s.Rate}, Last: end == len(s.Samples)}
			got, err := n.Feed(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			text := service.Outputs[0].Texts(got)[0]
			switch {
			case !p.Last && text != "":
				partial++
			case p.Last && !reflect.DeepEqual(got.(*Transcripts).Files[0].Transcript, want):
				t.Errorf("got %+v, the whole sound has %+v", got.(*Transcripts).Files[0], want)
			}
		}
		if partial < 3 {
			t.Errorf("%d partial texts", partial)
		}
	}
}

func TestSessionRefuses(t *testing.T) {
	m := trainedModel(t)
	s := speechtest.Whistle(rand.New(rand.NewPCG(5, 5)), "ab dcb a")
	n := &session{m: m}
	feed := func(samples []float32, rate int, o *PredictOptions, last bool) (string, error) {
		p := &task.Portion{Input: task.Input{Samples: samples, Rate: rate}, Last: last}
		if o != nil {
			p.Options = o
		}
		got, err := n.Feed(t.Context(), p)
		if err != nil {
			return "", err
		}
		return got.(*Transcripts).Files[0].Text, nil
	}
	if _, err := feed(nil, 8000, nil, true); err == nil {
		t.Error("the end of nothing is accepted")
	}
	if _, err := feed(s.Samples[:100], 1, nil, false); err == nil || !strings.Contains(err.Error(), "sample rate") {
		t.Errorf("a rate that is none: %v", err)
	}
	if _, err := feed(s.Samples[:1000], s.Rate, nil, false); err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func() (string, error){
		"another rate": func() (string, error) { return feed(s.Samples[1000:], s.Rate+1, nil, true) },
		"another beam": func() (string, error) { return feed(s.Samples[1000:], s.Rate, by(Decoding{Beam: 3}), true) },
		"not a number": func() (string, error) { return feed([]float32{0, float32(math.NaN())}, s.Rate, nil, false) },
		"an infinity":  func() (string, error) { return feed([]float32{float32(math.Inf(1))}, s.Rate, nil, false) },
	} {
		if _, err := call(); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	want, err := m.Transcribe(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := feed(s.Samples[1000:], s.Rate, nil, true); err != nil || got != want.Text {
		t.Errorf("after what was refused: %q %v, want %q", got, err, want.Text)
	}
	if n.Bytes() <= 0 {
		t.Error("the session takes no memory")
	}
}

// A session that is saved and restored in the middle of a sound, in each of its portions, has
// the texts of one that is not, to the bit: at rates that are resampled, with and without
// a search, a lexicon and hot words.
func TestSessionIsSaved(t *testing.T) {
	m := trainedModel(t)
	for name, o := range map[string]*PredictOptions{
		"greedy": nil, "beam": {EvaluateOptions: EvaluateOptions{Decoding: Decoding{Beam: 10}}, NBest: 3},
		"hot words": by(Decoding{Beam: 8, HotWords: []string{"dcb"}, HotWeight: 2}),
		"lexicon":   by(Decoding{Lexicon: NewLexicon([]string{"a", "ab", "dcb", "cd"})}),
	} {
		t.Run(name, func(t *testing.T) {
			own := *m
			if o != nil {
				own.decoding.Lexicon = o.Lexicon // as one that was trained with it
			}
			sound := speechtest.Whistle(rand.New(rand.NewPCG(5, 5)), "ab dcb a")
			for _, rate := range []int{sound.Rate, 11025} {
				s := sound.Resample(rate)
				whole, saved := &session{m: &own}, &session{m: &own}
				for at, size := 0, rate/23; at < len(s.Samples); at += size {
					end := min(at+size, len(s.Samples))
					p := &task.Portion{Input: task.Input{Samples: s.Samples[at:end], Rate: rate}, Last: end == len(s.Samples)}
					if o != nil {
						p.Options = o
					}
					want, err := whole.Feed(t.Context(), p)
					if err != nil {
						t.Fatal(err)
					}
					text, err := saved.MarshalBinary()
					if err != nil {
						t.Fatal(err)
					}
					saved = &session{m: &own}
					if err := saved.UnmarshalBinary(text); err != nil {
						t.Fatal(err)
					}
					if again, err := saved.MarshalBinary(); err != nil || string(again) != string(text) {
						t.Fatalf("written again: %s %v, before %s", again, err, text)
					}
					got, err := saved.Feed(t.Context(), p)
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Fatalf("sample %d at %d per second: %+v %v, want %+v", at, rate, got, err, want)
					}
				}
			}
		})
	}
}

// A state that is damaged is refused and changes nothing.
func TestSessionStateIsChecked(t *testing.T) {
	m := trainedModel(t)
	s := speechtest.Whistle(rand.New(rand.NewPCG(5, 5)), "ab dcb a")
	for _, o := range []*PredictOptions{by(Decoding{Beam: 4}), by(Decoding{})} {
		n := &session{m: m}
		if _, err := n.Feed(t.Context(), &task.Portion{Input: task.Input{Samples: s.Samples[:len(s.Samples)/2], Rate: s.Rate}, Options: o}); err != nil {
			t.Fatal(err)
		}
		text, err := n.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 300 {
			damaged := []byte(string(text))
			damaged[r.IntN(len(damaged))] ^= byte(1 << r.IntN(7))
			if err := n.UnmarshalBinary(damaged); err != nil {
				continue
			}
			// Names in JSON may have another case.
			if back, err := n.MarshalBinary(); err != nil || string(back) != string(text) {
				t.Fatalf("accepted: %s", damaged)
			}
		}
		for _, wrong := range []string{"", "{}", `{"version":2}`, `{"version":1,"rate":16000}`, `{"version":1,"rate":-1}`, strings.Replace(string(text), `"step":`, `"step":-`, 1)} {
			if err := n.UnmarshalBinary([]byte(wrong)); err == nil {
				t.Errorf("%.40q is accepted", wrong)
			}
		}
		if after, err := n.MarshalBinary(); err != nil || string(after) != string(text) {
			t.Error("what was refused has changed the session")
		}
	}
}
