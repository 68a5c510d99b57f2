package transcribe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/modeltest"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/speech/speechtest"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

func tunes(n int) []string {
	r := rand.New(rand.NewPCG(3, 3))
	var list []string
	for range n {
		var words []string
		for range 1 + r.IntN(2) {
			w := make([]byte, 1+r.IntN(3))
			for i := range w {
				w[i] = byte('a' + r.IntN(4))
			}
			words = append(words, string(w))
		}
		list = append(list, strings.Join(words, " "))
	}
	return list
}

func smallConfig() Config {
	c := Defaults()
	c.Hidden, c.Layers, c.RNNDropout, c.Dropout, c.Bidirectional = 32, 1, 0, 0, false
	c.Bands, c.Stack, c.Epochs, c.LR, c.Batch, c.Patience = 20, 2, 14, 0.01, 8, -1
	c.Holdout, c.Deltas, c.Speed = 0.15, 1, 0.05
	return c
}

// trained is one model for several tests.
var trained = sync.OnceValues(func() (*Model, error) {
	dir, err := os.MkdirTemp("", "speech")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var t testing.T
	cfg := smallConfig()
	d, err := Read(context.Background(), &Files{Data: speechtest.Manifest(&t, dir, tunes(160))}, cfg)
	if err != nil {
		return nil, err
	}
	m, r, err := Train(context.Background(), d, cfg, nil)
	if err == nil && !(r.Best != nil && r.Best.Val["cer"] < 0.1) {
		err = fmt.Errorf("validation gives %v", r.Best)
	}
	return m, err
})

// by is options that decode as d says.
func by(d Decoding) *PredictOptions {
	return &PredictOptions{EvaluateOptions: EvaluateOptions{Decoding: d}}
}

// textOf is the transcript of a file.
func textOf(t *testing.T, m *Model, path string, o *PredictOptions) *Transcript {
	t.Helper()
	list, err := m.Predict(t.Context(), task.Input{File: path}, o)
	if err != nil {
		t.Fatal(err)
	}
	return list.Files[0].Transcript
}

func trainedModel(t *testing.T) *Model {
	t.Helper()
	m, err := trained()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTrainAndTranscribe(t *testing.T) {
	m := trainedModel(t)
	if got := m.Config(); got.Rate != 8000 || got.Normalize != "running" || got.StackStride != 2 {
		t.Errorf("settled on rate %d, normalize %s, skip %d", got.Rate, got.Normalize, got.StackStride)
	}
	dir := t.TempDir()
	cfg := m.Config()
	d, err := Read(context.Background(), &Files{Data: speechtest.Manifest(t, dir, []string{"ab cd", "d", "ca", "bad cab", " "})}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), d, task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Task != Name || e.Metrics.CER > 0.2 || e.Utterances != 5 || e.Greedy != nil {
		t.Errorf("CER %v of %d utterances: %+v", e.Metrics.CER, e.Utterances, e.Confusions(5))
	}
	// One file alone says what it says in a batch.
	for i, u := range d.Of(task.All) {
		got := textOf(t, m, u.Audio, nil)
		if want := e.Results[i].Transcript.Text; got.Text != want {
			t.Errorf("%s: alone %q, in a batch %q", u.Audio, got.Text, want)
		}
	}
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	e2, err := again.Evaluate(t.Context(), d, task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e2.Metrics != e.Metrics {
		t.Errorf("saved and opened: %v, before %v", e2.Metrics, e.Metrics)
	}
}

// Pieces of words, and words as symbols, are spelled and saved like characters.
func TestOtherUnits(t *testing.T) {
	dir := t.TempDir()
	for _, units := range []string{"bpe", "space"} {
		cfg := smallConfig()
		cfg.Tokens, cfg.Epochs, cfg.VocabularySize = units, 2, 300
		d, err := Read(context.Background(), &Files{Data: speechtest.Manifest(t, dir, []string{"ab cd", "d ab", "cd", "d d"})}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := Train(context.Background(), d, cfg, &train.Run{Dir: filepath.Join(dir, units)})
		if err != nil {
			t.Fatal(err)
		}
		list := d.Of(task.All)
		for _, u := range list {
			classes, unknown := m.alphabet.encode(u.Text)
			if got := m.alphabet.decode(classes); got != u.Text || unknown != nil {
				t.Errorf("%s: %q is spelled %q, unknown %q", units, u.Text, got, unknown)
			}
		}
		again, err := Open(filepath.Join(dir, units))
		if err != nil {
			t.Fatal(err)
		}
		want, got := textOf(t, m, list[0].Audio, by(Decoding{Beam: 5})), textOf(t, again, list[0].Audio, by(Decoding{Beam: 5}))
		if got.Text != want.Text || got.Score != want.Score {
			t.Errorf("%s: opened %v, trained %v", units, got, want)
		}
		if _, unknown := again.alphabet.encode("x"); !slices.Contains(unknown, "x") {
			t.Errorf("%s: x has unknown units %q", units, unknown)
		}
	}
}

// Words are where they are whistled.
func TestWordTimes(t *testing.T) {
	m := trainedModel(t)
	s := &audio.Sound{Rate: 8000}
	r := rand.New(rand.NewPCG(1, 9))
	first := speechtest.Whistle(r, "cb")
	s.Samples = append(append(append(s.Samples, first.Samples...), speechtest.Whistle(r, "  ").Samples...), speechtest.Whistle(r, "ad").Samples...)
	got, err := m.Transcribe(t.Context(), s, &PredictOptions{EvaluateOptions{Decoding: Decoding{Beam: 20}}, 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Words) != 2 {
		t.Fatalf("words %v", got.Words)
	}
	a, b := got.Words[0], got.Words[1]
	if !(a.Start >= 0 && a.Start < a.End && a.End <= first.Seconds()+0.1 && b.Start > first.Seconds() && b.End <= s.Seconds()+1e-9) {
		t.Errorf("words at %.2f-%.2f and %.2f-%.2f of %.2f s, the first ends at %.2f", a.Start, a.End, b.Start, b.End, s.Seconds(), first.Seconds())
	}
	if !(a.Confidence > 0.3 && a.Confidence <= 1) || len(got.Alternatives) != 3 || got.Alternatives[0] != (Alternative{got.Text, got.Score}) {
		t.Errorf("confidence %v, alternatives %v", a.Confidence, got.Alternatives)
	}
	// A beam of 1 is greedy decoding, and holds one text.
	greedy, err := m.Transcribe(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err = m.Transcribe(t.Context(), s, &PredictOptions{EvaluateOptions{Decoding: Decoding{Beam: 1}}, 1})
	if err != nil || got.Text != greedy.Text || got.Score != greedy.Score || len(got.Alternatives) != 1 {
		t.Errorf("a beam of 1: %+v, %v; greedy: %+v", got, err, greedy)
	}
	if _, err := m.Transcribe(t.Context(), s, &PredictOptions{EvaluateOptions{Decoding: Decoding{Beam: 2}}, 3}); err == nil || !strings.Contains(err.Error(), "n_best: want a number up to the beam, 2, got 3") {
		t.Errorf("more texts than hypotheses: %v", err)
	}
}

// A stream in pieces of any size ends with the text of the whole sound, for
// every way of decoding, and from another sample rate.
func TestStreamEqualsWhole(t *testing.T) {
	m := trainedModel(t)
	s := speechtest.Whistle(rand.New(rand.NewPCG(5, 5)), "ab dcb a")
	for _, d := range []*PredictOptions{nil, by(Decoding{Beam: 10}), by(Decoding{Lexicon: NewLexicon([]string{"a", "ab", "dcb", "cd"})})} {
		for _, rate := range []int{8000, 11025} {
			s := s.Resample(rate)
			want, err := m.Transcribe(t.Context(), s, d)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := m.NewStream(t.Context(), rate, d)
			if err != nil {
				t.Fatal(err)
			}
			rest, partial := s.Samples, false
			for size := 1; len(rest) > 0; size = size*7%1013 + 1 {
				n := min(size, len(rest))
				stream.Write(rest[:n])
				rest = rest[n:]
				partial = partial || len(rest) > len(s.Samples)/3 && stream.Partial().Text != ""
			}
			got := stream.Finish()
			if got.Text != want.Text || got.Score != want.Score || !slices.Equal(got.Words, want.Words) {
				t.Errorf("rate %d: stream %q %v, whole %q %v", rate, got.Text, got.Score, want.Text, want.Score)
			}
			if !partial {
				t.Errorf("rate %d: no partial text in the first two thirds", rate)
			}
		}
	}
	if m, err := m.NewStream(t.Context(), 8000, nil); err != nil || m.Lag() > 0.1 {
		t.Errorf("lag %v, %v", m.Lag(), err)
	}
}

func TestHotWordsAndTuning(t *testing.T) {
	m := trainedModel(t)
	dir := t.TempDir()
	cfg := m.Config()
	d, err := Read(context.Background(), &Files{Data: speechtest.Manifest(t, dir, []string{"ab cd", "d a", "ca", "bad cab"})}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	decoding := &Decoding{WordBonus: -60, Lexicon: NewLexicon([]string{"ab", "cd", "d", "a", "ca", "bad", "cab"})}
	before, after, err := m.Tune(t.Context(), d, task.All, decoding)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), d, task.All, &EvaluateOptions{Decoding: Decoding{Lexicon: NewLexicon([]string{"ab", "cd", "a", "ca"})}})
	if err != nil || len(e.Notes) != 1 || e.Notes[0] != "the lexicon lacks 3 words of the texts: d, bad, cab" {
		t.Errorf("notes %v, %v", e.Notes, err)
	}
	if !(after.WER < before.WER) || decoding.WordBonus == -60 {
		t.Errorf("tuned from %v to %v, bonus %v", before, after, decoding.WordBonus)
	}
	list := d.Of(task.All)
	hot := textOf(t, m, list[2].Audio, by(Decoding{HotWords: []string{"cab"}, HotWeight: 12}))
	if hot.Text != "cab" {
		t.Errorf("with a hot word %q, want cab", hot.Text)
	}
	for _, c := range []struct {
		d    Decoding
		want string
	}{
		{Decoding{HotWords: []string{"a b"}}, `want single words, got "a b"`},
		{Decoding{HotWords: []string{"axe"}}, `"axe" has "x", which is not a token of the model`},
		{Decoding{Beam: -1}, "want a number from 0 to 10000"},
		{Decoding{LMWeight: math.NaN()}, "want a number from -1000 to 1000"},
	} {
		if _, err := m.TranscribeFiles(t.Context(), []string{list[0].Audio}, by(c.d)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestBadManifests(t *testing.T) {
	dir := t.TempDir()
	speechtest.Manifest(t, dir, []string{"abc", "b"})
	if err := os.WriteFile(filepath.Join(dir, "cut.wav"), []byte("RIFF\x24\x00\x00\x00WAVE"), 0o666); err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", 40, smallConfig().Bands)
	wide := append([]byte("\x93NUMPY\x01\x00"), byte(len(head)), 0)
	if err := os.WriteFile(filepath.Join(dir, "wide.npy"), append(append(wide, head...), make([]byte, 40*4*smallConfig().Bands)...), 0o666); err != nil {
		t.Fatal(err)
	}
	speechtest.Write(t, filepath.Join(dir, "short.wav"), &audio.Sound{Rate: 8000, Samples: make([]float32, 100)})
	for _, c := range []struct {
		text, want string
		set        func(*Config)
	}{
		{"audio,text\n", "lists no utterance", nil},
		{"sound,text\n000.wav,abc\n", `has no column "audio"`, nil},
		{"audio,text\n000.wav,abc\nx.wav,b\ny.wav,b\n", "2 files are missing: x.wav (line 3), y.wav (line 4)", nil},
		{"audio,text\n,abc\n", "line 2: column \"audio\": names no file", nil},
		{"audio,text\n000.wav,\n", "has no text in any row", nil},
		{"audio,text\n000.wav,abc\ncut.wav,b\n", "cut.wav: holds no samples", nil},
		{"audio,text\n000.wav,abc\ncut.wav,b\nshort.wav,b\nmanifest.csv,b\n", "2 files cannot be used", nil},
		{"audio,text\ncut.wav,b\n000.wav,abc\nmanifest.csv,b\n", "2 files cannot be used", nil},
		{"audio,text\ncut.wav,b\n", "m.csv: line 2: ", nil},
		{"audio,text,part\n000.wav,abc,train\ncut.wav,b,validation\nmanifest.csv,b,test\n", "2 files cannot be used", func(c *Config) { c.SplitColumn = "part" }},
		{"audio,text\nwide.npy,abc\n000.wav,abc\n", "line 3: " + filepath.Join(dir, "000.wav") + ": is a sound file; the model needs feature files", nil},
		{"audio,text\nshort.wav,abcabc\n", "1 utterance is too short for the text and left out", nil},
		{"audio,text,part\n000.wav,abc,train\n001.wav,bx,validation\n", `1 token is not in the alphabet, here and in later rows: "x"`, func(c *Config) { c.SplitColumn = "part" }},
		{"audio,text,part\n000.wav,abc,tain\n", `want train, validation or test, got "tain"`, func(c *Config) { c.SplitColumn = "part" }},
		{"audio,text,part\n000.wav,abc,test\n", "names no row train", func(c *Config) { c.SplitColumn = "part" }},
		{"audio,text,who\n000.wav,abc,a\n001.wav,b,a\n", "leaves nothing to train on", func(c *Config) { c.Speaker, c.Holdout = "who", 0.5 }},
	} {
		path := filepath.Join(dir, "m.csv")
		if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
			t.Fatal(err)
		}
		cfg := smallConfig()
		cfg.Holdout, cfg.Epochs = 0, 1
		if c.set != nil {
			c.set(&cfg)
		}
		d, err := Read(t.Context(), &Files{Data: path}, cfg)
		if err == nil {
			_, _, err = Train(context.Background(), d, cfg, nil)
		}
		var input *data.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.want)
		}
	}
}

// Settings that the defaults make, and those that have no effect.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		want string
		set  func(*Config)
	}{
		{"", func(c *Config) { c.Layers = 1 }},
		{"hop: want at most frame (25 ms)", func(c *Config) { c.Hop = 30 }},
		{"lm_tokens: needs a language model", func(c *Config) { c.LMTokens = true }},
	} {
		cfg := Defaults()
		c.set(&cfg)
		switch err := cfg.Validate(); {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// Validation utterances that are all too short are named, and training goes on without.
func TestShortValidation(t *testing.T) {
	dir := t.TempDir()
	cfg := smallConfig()
	d, err := Read(context.Background(), &Files{Data: speechtest.Manifest(t, dir, []string{"ab", "ba", "ab"})}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.SplitColumn, cfg.Epochs = "part", 1
	list := d.Of(task.All)
	list[0].Part, list[1].Part, list[2].Part, list[2].Text = "train", "train", "validation", strings.Repeat("ab", 99)
	if d, err = NewData(list, cfg); err != nil {
		t.Fatal(err)
	}
	m, _, err := Train(context.Background(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(m.Notes(), "; "); !strings.Contains(notes, "1 utterance is too short for the text and left out: "+list[2].Audio) {
		t.Errorf("notes %q", notes)
	}
}

// Files that cannot be used do not keep the others from being transcribed.
func TestTranscribeFiles(t *testing.T) {
	m := trainedModel(t)
	dir := t.TempDir()
	speechtest.Manifest(t, dir, []string{"ab", "cd"})
	path := func(name string) string { return filepath.Join(dir, name) }
	got, err := m.TranscribeFiles(context.Background(), []string{path("none.wav"), path("000.wav"), path("manifest.csv"), path("001.wav")}, nil)
	var input *data.InputError
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "2 files cannot be used: "+path("none.wav")+": there is no such file, "+path("manifest.csv")) {
		t.Errorf("got %v", err)
	}
	if len(got.Files) != 2 || got.Files[0].File != path("000.wav") || got.Files[1].File != path("001.wav") {
		t.Errorf("got %v", got)
	}
	sound, err := audio.Read(path("000.wav"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Files[0].Seconds != sound.Seconds() {
		t.Errorf("%v s, want %v", got.Files[0].Seconds, sound.Seconds())
	}
}

// A model directory that was edited is refused, and not believed.
func TestDamagedModels(t *testing.T) {
	m := trainedModel(t)
	dir := t.TempDir()
	for _, c := range []struct{ key, value, want string }{
		{"deviation", "0", "statistics: feature 1 has mean"},
		{"mean", "1e300", "statistics: feature 1 has mean 1e+300"},
		{"units", `"a"`, `alphabet: token 2, "a", is empty or repeated`},
		{"units", `""`, `alphabet: token 1, "", is empty`},
	} {
		first := regexp.MustCompile(`("` + c.key + `": ?\[\s*)[^,]+,`)
		if err := m.Save(dir); err != nil {
			t.Fatal(err)
		}
		modeltest.Edit(t, dir, model.ConfigFile, func(text string) string { return first.ReplaceAllString(text, "${1}"+c.value+",") })
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: got %v, want %q", c.key, c.value, err, c.want)
		}
	}
	cfg := m.Config()
	cfg.Rate = 0
	features := &Model{cfg: cfg, alphabet: m.alphabet, net: m.net, slab: m.slab}
	features.frontend = m.frontend.With(&features.cfg.Setup)
	speechtest.Manifest(t, dir, []string{"ab"})
	if _, err := features.TranscribeFiles(t.Context(), []string{filepath.Join(dir, "000.wav")}, nil); err == nil || !strings.Contains(err.Error(), "is a sound file; the model needs feature files") {
		t.Errorf("a model of features: %v", err)
	}
}

// The loss that a look into the network takes is that of the data.
func TestProbe(t *testing.T) {
	m := trainedModel(t)
	d, err := Read(t.Context(), &Files{Data: speechtest.Manifest(t, t.TempDir(), []string{"ab cd", "xx", "ca"})}, m.Config())
	if err != nil {
		t.Fatal(err)
	}
	loss, err := m.Probe(t.Context(), d, 2)
	if err != nil {
		t.Fatal(err)
	}
	tape := tensor.NewTape(m.Slab().Device(), tensor.Train)
	tape.Trace()
	l := loss(tape)
	l.Backward()
	r := tape.Traces()[0]
	dh, _ := r.Grads()
	if !(l.Item() > 0) || r.B != 2 || !slices.ContainsFunc(dh, func(v float32) bool { return v != 0 }) {
		t.Errorf("loss %v of %d rows", l.Item(), r.B)
	}
	list := d.Of(task.All)[1:2]
	d, err = NewData(list, Config{})
	if err != nil {
		t.Fatal(err)
	}
	var input *data.InputError
	if _, err := m.Probe(t.Context(), d, 2); !errors.As(err, &input) || !strings.Contains(err.Error(), "no utterance has only tokens of the model") {
		t.Errorf("nothing to spell: %v", err)
	}
}

// What options mean depends on which the user gives.
func TestOptions(t *testing.T) {
	m := &Model{alphabet: newAlphabet("char", []string{"a"}, nil), decoding: Decoding{Beam: 9, LMTokens: true, LMWeight: 3, WordBonus: 2, LM: &LM{}}}
	for _, c := range []struct {
		given string
		o     PredictOptions
		want  Decoding
		err   string
	}{
		{"", PredictOptions{}, m.decoding, ""},
		{"lm", PredictOptions{}, Decoding{Beam: 9, LMWeight: DefaultLMWeight, WordBonus: DefaultWordBonus, LM: m.decoding.LM}, ""},
		{"hot_words", PredictOptions{}, Decoding{Beam: 9, LMTokens: true, LMWeight: 3, WordBonus: 2, LM: m.decoding.LM, HotWeight: DefaultHotWeight}, ""},
		{"n_best", PredictOptions{EvaluateOptions: EvaluateOptions{Greedy: true}}, m.decoding, "--greedy and --n-best exclude each other"},
		{"beam", PredictOptions{EvaluateOptions: EvaluateOptions{Greedy: true}}, m.decoding, "--greedy and --beam exclude each other"},
	} {
		o := c.o
		o.Inherit(m, func(name string) bool { return name == c.given })
		err := o.Validate()
		if o.Decoding.LM != c.want.LM || fmt.Sprintf("%+v", o.Decoding) != fmt.Sprintf("%+v", c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("given %q: %+v, %v", c.given, o.Decoding, err)
		}
	}
}

// A run that was cut off and resumed has the bits of one that was not.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	cfg := smallConfig()
	cfg.Epochs, cfg.Hidden, cfg.Noise, cfg.EMA = 4, 8, 15, 0.9
	d, err := Read(context.Background(), &Files{Data: speechtest.Manifest(t, dir, tunes(30))}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	whole, _, err := Train(context.Background(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := &expiring{Context: context.Background()}
	ctx.left.Store(107) // most of which reading asks
	run := filepath.Join(dir, "run")
	_, r, err := Train(ctx, d, cfg, &train.Run{Dir: run})
	if err != nil || !r.Interrupted {
		t.Fatalf("not interrupted: %+v, %v", r, err)
	}
	again, r, err := Train(context.Background(), d, cfg, &train.Run{Dir: run, Resume: true})
	if err != nil || r.ResumedAt == 0 {
		t.Fatalf("not resumed: %+v, %v", r, err)
	}
	for i, p := range whole.Slab().Params {
		if !slices.Equal(p.Read(), again.Slab().Params[i].Read()) {
			t.Fatalf("%s differs", p.Name)
		}
	}
}

// expiring is cancelled after its Err has been asked for so many times.
type expiring struct {
	context.Context
	left atomic.Int64
}

func (c *expiring) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A long sound in pieces has the text that it has in one.
func TestLongSound(t *testing.T) {
	cfg := smallConfig()
	cfg.Bidirectional, cfg.Rate, cfg.Normalize = true, 8000, "utterance"
	m, err := newModel(cfg, newAlphabet("char", []string{"a", "b"}, nil), &speech.Frontend{Width: cfg.Bands}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(2, 8))
	frames := make([]float32, (2*mostSteps+600)*2*cfg.Bands)
	for i := range frames {
		frames[i] = float32(r.NormFloat64())
	}
	got, err := m.posteriors(t.Context(), frames)
	if err != nil {
		t.Fatal(err)
	}
	asked := func(times int64) context.Context {
		c := &expiring{Context: t.Context()}
		c.left.Store(times)
		return c
	}
	if _, err := m.posteriors(asked(2), frames); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled after two pieces: got %v", err)
	}
	if _, err := m.decode(asked(9), got, &Decoding{Beam: 5}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled within the search: got %v", err)
	}
	want := m.newReader().read(m.frontend.Steps(frames))
	if len(got) != len(want) {
		t.Fatalf("%d steps, want %d", len(got), len(want))
	}
	for i := range got {
		for c := range got[i] {
			if math.Abs(got[i][c]-want[i][c]) > 1e-5 {
				t.Fatalf("step %d: %v in pieces, %v at once", i, got[i], want[i])
			}
		}
	}
}

func TestAlignmentOfVeryLongTexts(t *testing.T) {
	a := make([]string, 6500)
	for i := range a {
		a[i] = string(rune('a' + i*i%23))
	}
	b := slices.Clone(a)
	b[10], b[6000] = "x", "y"
	pairs, e := Align(a, b)
	if e.Substitutions != 2 || e.Total() != 2 || len(pairs) != 6500 || pairs[10].Hypothesis != "x" {
		t.Errorf("%+v of %d pairs", e, len(pairs))
	}
}
