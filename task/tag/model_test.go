package tag

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model/modeltest"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

var (
	people = []string{"Ada", "Grace Hopper", "Alan Turing", "Edsger W. Dijkstra", "Barbara", "Donald Knuth"}
	places = []string{"Paris", "New York", "São Paulo", "Vienna", "Hong Kong"}
	plain  = strings.Fields("the a of walked lives in near talks to often never sees old new house and river")
)

// made is n sentences with names of people and places, in a scheme.
func made(seed uint64, n int, scheme Scheme) []data.Sentence {
	r := rand.New(rand.NewPCG(seed, 1))
	list := make([]data.Sentence, n)
	for i := range list {
		s := &list[i]
		s.Line = i + 1
		var spans []Span
		for range 3 + r.IntN(6) {
			switch r.IntN(5) {
			case 0, 1:
				label, names := "PER", people
				if r.IntN(2) == 0 {
					label, names = "LOC", places
				}
				words := strings.Fields(names[r.IntN(len(names))])
				spans = append(spans, Span{len(s.Tokens), len(s.Tokens) + len(words), label})
				s.Tokens = append(s.Tokens, words...)
			default:
				s.Tokens = append(s.Tokens, plain[r.IntN(len(plain))])
			}
		}
		s.Tags = scheme.Tags(spans, len(s.Tokens))
	}
	return list
}

// dealt is sentences in memory, divided as cfg says.
func dealt(list []data.Sentence, cfg Config) *Data {
	d, err := NewData(list, cfg)
	if err != nil {
		panic(err)
	}
	return d
}

// both are sentences to learn from and to validate on.
func both(learn, valid []data.Sentence) *Data {
	return &Data{Parts: task.Parts[data.Sentence]{Training: learn, Validation: valid}}
}

// small is a configuration that learns made in moments.
func small() Config {
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden, cfg.CharHidden, cfg.Affixes, cfg.Dropout = 16, 12, 8, 4, 0.2
	cfg.Epochs, cfg.LR, cfg.MinCount, cfg.Batch = 6, 0.02, 1, 8
	return cfg
}

// trained is a small model of names.
func trained(t *testing.T, scheme Scheme, change func(*Config)) *Model {
	t.Helper()
	cfg := small()
	if change != nil {
		change(&cfg)
	}
	m, _, err := Train(context.Background(), both(made(1, 150, scheme), made(2, 40, scheme)), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Every scheme and way to read words learns names that it has seen.
func TestTrainLearns(t *testing.T) {
	for _, c := range []struct {
		scheme Scheme
		change func(*Config)
	}{
		{IOB2, nil},
		{IOB1, func(c *Config) { c.Chars, c.Affixes = "lstm", 0 }},
		{BMES, func(c *Config) { c.Decoder, c.Chars, c.Pairs = "softmax", "none", "on" }},
	} {
		m := trained(t, c.scheme, c.change)
		if m.Scheme() != c.scheme || !slices.Equal(m.Labels(), []string{"LOC", "PER"}) {
			t.Fatalf("scheme %s and labels %q", m.Scheme(), m.Labels())
		}
		e, err := m.Evaluate(context.Background(), both(made(3, 60, c.scheme), nil), task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.Metrics.F1 < 0.95 || e.Metrics.F1 <= e.Baselines["usual"].F1 || e.Metrics.Accuracy < 0.97 || e.Sentences != 60 {
			t.Errorf("%s: %+v, usual %+v", c.scheme, e.Metrics, e.Baselines)
		}
		// Another scheme of the same spans scores the same.
		other, err := m.Evaluate(context.Background(), both(made(3, 60, BILOU), nil), task.All, nil)
		if err != nil || other.Metrics.F1 != e.Metrics.F1 || other.Scheme != BILOU {
			t.Errorf("%s against bilou: %+v, %v", c.scheme, other.Metrics, err)
		}
	}
}

// Labels are parts of speech here: a token's label follows from its spelling.
func TestTrainLabels(t *testing.T) {
	sentences := func(seed uint64) (list []data.Sentence) {
		r := rand.New(rand.NewPCG(seed, 2))
		for i := range 120 {
			s := data.Sentence{Line: i + 1}
			for range 4 + r.IntN(4) {
				k := r.IntN(3)
				s.Tokens = append(s.Tokens, fmt.Sprintf("%c%c%s", 'a'+rune(r.IntN(26)), 'a'+rune(r.IntN(26)), []string{"ing", "ly", "tion"}[k]))
				s.Tags = append(s.Tags, []string{"VERB", "ADV", "NOUN"}[k])
			}
			list = append(list, s)
		}
		return list
	}
	m, _, err := Train(context.Background(), dealt(sentences(1), small()), small(), nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(context.Background(), both(append(sentences(2), data.Sentence{Line: 9, Tokens: []string{"wow"}, Tags: []string{"INTJ"}}), nil), task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Scheme() != Labels || e.Metrics.Accuracy < 0.98 || e.Metrics.F1 != e.Metrics.Accuracy || e.Baselines["usual"].Accuracy > 0.8 {
		t.Errorf("%s %+v %+v", m.Scheme(), e.Metrics, e.Baselines)
	}
	if e.Unseen["INTJ"] != 1 || len(e.Notes) != 1 || !strings.Contains(e.Notes[0], `1 token with a label that does not occur in training ("INTJ")`) {
		t.Errorf("unseen %v, notes %q", e.Unseen, e.Notes)
	}
	if e.Confusion.Labels[1] != "INTJ" || e.Labels[1].Recall != 0 {
		t.Errorf("%+v %+v", e.Confusion, e.Labels)
	}
}

func TestSaveOpenTag(t *testing.T) {
	dir := t.TempDir()
	cfg := small()
	m, _, err := Train(context.Background(), both(made(1, 150, IOB2), made(2, 40, IOB2)), cfg, &train.Run{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	back, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	sentences := [][]string{strings.Fields("Grace Hopper lives in New York"), nil, strings.Fields("the old river"), {"Zürich"}}
	want, err := m.Tag(context.Background(), sentences, &PredictOptions{NBest: 3})
	if err != nil {
		t.Fatal(err)
	}
	got, err := back.Tag(context.Background(), sentences, &PredictOptions{NBest: 3})
	if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("opened again: %+v, %v\nwant %+v", got, err, want)
	}
	first := got[0]
	if !slices.Equal(first.Tags, strings.Fields("B-PER I-PER O O B-LOC I-LOC")) || len(first.Spans) != 2 || first.Spans[1].Text != "New York" || first.Spans[1].From != 4 {
		t.Errorf("%+v", first)
	}
	if p := first.Spans[0].Probability; !(p > 0.5 && p <= 1) || first.Alternatives[0].Probability > p || len(first.Alternatives) != 3 {
		t.Errorf("probability %v, alternatives %+v", p, first.Alternatives)
	}
	if !slices.Equal(first.Alternatives[0].Tags, first.Tags) || first.Alternatives[1].Probability > first.Alternatives[0].Probability {
		t.Errorf("alternatives %+v", first.Alternatives)
	}
	if len(got[1].Tags) != 0 || got[1].Spans != nil {
		t.Errorf("a sentence without tokens: %+v", got[1])
	}
	// Alone and among others, a sentence gets the same bits.
	alone, err := m.Tag(context.Background(), sentences[2:3], nil)
	if err != nil || !slices.Equal(alone[0].Probabilities, got[2].Probabilities) {
		t.Errorf("alone %v, among others %v", alone[0].Probabilities, got[2].Probabilities)
	}
	if _, err := m.Tag(context.Background(), sentences, &PredictOptions{NBest: -1}); err == nil {
		t.Error("n_best -1 is accepted")
	}
}

func TestTagText(t *testing.T) {
	m := trained(t, IOB2, nil)
	text := "Often, Grace Hopper sees\tSão Paulo."
	got, err := m.TagText(context.Background(), []string{text, "", "  ", "\xff Ada"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got[0].Spans) != 2 {
		t.Fatalf("%+v", got[0])
	}
	for i, want := range []string{"Grace Hopper", "São Paulo"} {
		s := got[0].Spans[i]
		if s.Text != want || text[s.Start:s.End] != want || string([]rune(text)[s.RuneStart:s.RuneEnd]) != want {
			t.Errorf("%+v, want %q", s, want)
		}
	}
	if len(got[1].Tokens)+len(got[2].Tokens) != 0 || got[3].Tokens[0] != "\uFFFD" || got[3].Offsets[1] != (Offset{2, 5, 2, 5}) {
		t.Errorf("%+v", got[1:])
	}
	for kind, want := range map[string]int{"space": 6, "char": len([]rune(text)) - 5, "word": 8} {
		if got, err := m.TagText(context.Background(), []string{text}, &PredictOptions{Tokens: kind}); err != nil || len(got[0].Tokens) != want {
			t.Errorf("%s: %q, %v; want %d tokens", kind, got[0].Tokens, err, want)
		}
	}
}

// Words are cut as the training file has them.
func TestCutLikeTraining(t *testing.T) {
	s := data.Sentence{Tokens: strings.Fields("@ada @bob do n't it 's U.S. \" quoted \" ' single '"), Tags: strings.Fields("N N V A P V N . A . . A .")}
	cfg := small()
	cfg.Epochs = 1
	m, _, err := Train(context.Background(), dealt(slices.Repeat([]data.Sentence{s}, 10), cfg), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	cut, err := m.cutter(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"@eve don't!":          "@eve do n't !",
		"Don’t. It's":          "Do n’t . It 's",
		"U.S. \"so\" 'it'":     "U.S. \" so \" ' it '",
		"x#y @ home@work.com":  "x # y @ home @work . com",
		"a,b 3,000.50 rock'n'": "a , b 3,000.50 rock'n '",
	} {
		var got []string
		for _, p := range cut(text) {
			got = append(got, text[p.from:p.to])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A sentence longer than the limit is read in pieces, and every token gets its tag.
func TestLongSentences(t *testing.T) {
	m := trained(t, IOB2, func(c *Config) { c.PieceLength = 20 })
	var s data.Sentence
	for _, one := range made(9, 2000, IOB2) {
		s.Tokens, s.Tags = append(append(s.Tokens, one.Tokens...), "."), append(append(s.Tags, one.Tags...), "O")
	}
	e, err := m.Evaluate(context.Background(), both([]data.Sentence{s}, nil), task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Tokens != len(s.Tokens) || e.Metrics.F1 < 0.9 || !strings.Contains(strings.Join(e.Notes, "\n"), "1 sentence is longer than 20 tokens") {
		t.Errorf("%d tokens, %+v, %q", e.Tokens, e.Metrics, e.Notes)
	}
	d := newCorpus()
	d.add(&s, 20)
	at := 0
	for _, p := range d.pieces {
		if p.from != at || p.len() < 1 || p.len() > 20 {
			t.Fatalf("piece %v after %d", p, at)
		}
		if at = p.to; at < len(s.Tokens) && p.len() < 20 && s.Tokens[at-1] != "." {
			t.Fatalf("piece %v ends in %q", p, s.Tokens[at-1])
		}
	}
	if at != len(s.Tokens) {
		t.Fatalf("pieces end at %d of %d", at, len(s.Tokens))
	}
}

// Training the same twice, on any number of threads, and resuming give the same bits.
func TestTrainingRepeats(t *testing.T) {
	read := func(m *Model) (w []float32) {
		for _, p := range m.Slab().Params {
			w = append(w, p.Read()...)
		}
		return w
	}
	cfg := small()
	cfg.Epochs, cfg.EMA = 3, 0.9
	d := both(made(1, 60, IOB2), made(2, 20, IOB2)) // of all trainings: none changes it
	run := func(ctx context.Context, o *train.Run) *Model {
		m, _, err := Train(ctx, d, cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	want := read(run(context.Background(), nil))
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	run(ctx, &train.Run{Dir: dir, Hooks: train.Hooks{OnEpoch: func(train.Record) error { cancel(); return nil }}})
	if got := read(run(context.Background(), &train.Run{Dir: dir, Resume: true})); !slices.Equal(got, want) {
		t.Error("a resumed run ends elsewhere")
	}
}

// A step in its steady state allocates nothing below the loop.
func TestStepAllocatesNothing(t *testing.T) {
	cfg := small()
	m, learn, _, err := prepare(t.Context(), both(made(1, 32, IOB2), made(2, 8, IOB2)), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b batch
	list := []int{0, 1, 2, 3, 4, 5, 6, 7}
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	opt := optim.NewAdamW(m.slab, nil)
	step := func() {
		b.load(learn, list)
		tape.Reset()
		m.net.loss(tape, &b).Backward()
		opt.ClipNorm(1)
		opt.Step(1e-3)
	}
	for range 3 {
		step()
	}
	if n := testing.AllocsPerRun(10, step); n > 0 {
		t.Errorf("a step allocates %v times", n)
	}
}

func TestWrongInput(t *testing.T) {
	o := func(tags string) []data.Sentence {
		return []data.Sentence{{Line: 3, Tokens: strings.Fields(strings.Repeat("x ", len(strings.Fields(tags)))), Tags: strings.Fields(tags)}}
	}
	for _, c := range []struct {
		sentences []data.Sentence
		change    func(*Config)
		want      string
	}{
		{nil, nil, "there is no tagged sentence"},
		{[]data.Sentence{{Line: 7, Tokens: []string{"a", "b"}, Tags: []string{"X"}}}, nil, "line 7: a sentence of 2 tokens has 1 tags; every token needs a tag"},
		{o("O O O"), nil, `all 3 tokens have the tag "O"`},
		{o("B-A I-A O Bad"), nil, `line 6: the tag is "Bad", but the other tags mark spans`},
		{o("B-A I-A O"), func(c *Config) { c.Scheme = "labels" }, ""},
		{o("N V N"), func(c *Config) { c.Scheme = "iob2" }, `line 3: the tag is "N", but scheme iob2 needs tags such as B-PER and O`},
		{o("N V N"), func(c *Config) { c.Chars = "cnnn" }, `chars: want auto, cnn, lstm or none`},
		{o("N V N"), func(c *Config) { c.Dropout = math.NaN() }, "dropout: want a number from 0 to 0.99"},
		{o("N V N"), func(c *Config) { c.Tag = "none" }, "tag: training needs tags"},
	} {
		cfg := small()
		cfg.Epochs, cfg.Holdout = 1, 0
		if c.change != nil {
			c.change(&cfg)
		}
		_, _, err := Train(context.Background(), dealt(c.sentences, cfg), cfg, nil)
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), strings.Split(c.want, ", cnn")[0]) {
			t.Errorf("%v: %v, want %s", c.sentences, err, c.want)
		}
	}
}

func TestVectors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.vec")
	if err := os.WriteFile(path, []byte("2 3\nriver 1 2 3\nrare 4 5 6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := small()
	cfg.Vectors, cfg.MinCount = path, 2
	list := append(made(1, 20, IOB2), data.Sentence{Line: 21, Tokens: []string{"Rare", "River"}, Tags: []string{"O", "O"}})
	m, learn, _, err := prepare(t.Context(), both(list, made(2, 5, IOB2)), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	table := m.net.Words.Weight.Read()
	for word, want := range map[string][]float32{"River": {1, 2, 3}, "Rare": {4, 5, 6}} {
		id := int(learn.words[learn.index[word]].id)
		if id == unknown || !slices.Equal(table[id*3:id*3+3], want) {
			t.Errorf("%s, number %d: %v, want %v", word, id, table[id*3:id*3+3], want)
		}
	}
	if notes := m.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "2 of ") {
		t.Errorf("notes %q", notes)
	}
}

func TestOpenRefusesWhatItDidNotWrite(t *testing.T) {
	dir := t.TempDir()
	m := trained(t, IOB2, func(c *Config) { c.Epochs = 1 })
	for _, c := range []struct{ file, old, with, want string }{
		{"config.json", `"S-PER"`, `"X-PER"`, "expected tags in BIOES"},
		{"config.json", `"chars": "cnn"`, `"chars": "auto"`, "not settled"},
		{"vocabulary.json", `"known":`, `"known":9`, "most frequent tag"},
		{"vocabulary.json", `"usual":[`, `"usual":[99,`, "most frequent tag"},
		{"vocabulary.json", `{"words"`, `{"word"`, "four vocabularies"},
		{"vocabulary.json", `"usual"`, `"usual`, "vocabularies of a tagger"},
	} {
		if err := m.Save(dir); err != nil {
			t.Fatal(err)
		}
		modeltest.Edit(t, dir, c.file, modeltest.Replace(c.old, c.with))
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: %v, want %s", c.file, c.with, err, c.want)
		}
	}
}

func FuzzTagText(f *testing.F) {
	cfg := small()
	cfg.Epochs, cfg.PieceLength = 1, 8
	m, _, err := Train(context.Background(), dealt(made(1, 30, IOB2), cfg), cfg, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"Grace Hopper lives in New York.", "don't\xff\x00 @é ’s", "纽约 ไทย 🇦🇹", strings.Repeat("a.", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := m.TagText(context.Background(), []string{s}, &PredictOptions{NBest: 2})
		if err != nil {
			t.Fatal(err)
		}
		end := 0
		for i, p := range got[0].Offsets {
			if p.Start < end || p.End <= p.Start || p.End > len(s) || p.RuneEnd <= p.RuneStart {
				t.Fatalf("%q: token %d at %+v", s, i, p)
			}
			end = p.End
		}
	})
}

// A probe is the loss of the first sentences whose tags are known.
func TestProbe(t *testing.T) {
	m := trained(t, IOB2, func(c *Config) { c.Epochs = 1 })
	list := made(3, 6, IOB2)
	list[1].Tags = slices.Clone(list[1].Tags)
	list[1].Tags[0] = "B-NEVER"
	loss, err := m.Probe(t.Context(), both(list, nil), 4)
	if err != nil {
		t.Fatal(err)
	}
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.Trace()
	l := loss(tape)
	l.Backward()
	r := tape.Traces()[0]
	dh, _ := r.Grads()
	if !(l.Item() > 0) || r.B != 3 || !slices.ContainsFunc(dh, func(v float32) bool { return v != 0 }) {
		t.Errorf("loss %v of %d rows, gradient %v", l.Item(), r.B, dh)
	}
	var input *data.InputError
	if _, err := m.Probe(t.Context(), both(list[1:2], nil), 4); !errors.As(err, &input) {
		t.Errorf("sentences of unknown tags give %v", err)
	}
}

// A file is divided as sentences in memory are, and given back with a column more.
func TestFiles(t *testing.T) {
	cfg := small()
	cfg.Holdout, cfg.Epochs = 0.3, 1
	list := made(1, 50, IOB2)
	var text strings.Builder
	for _, s := range list {
		for i, token := range s.Tokens {
			fmt.Fprintf(&text, "%s\t%s\n", token, s.Tags[i])
		}
		text.WriteByte('\n')
	}
	path := filepath.Join(t.TempDir(), "names.conll")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Read(t.Context(), &task.Files{Data: path}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := dealt(list, cfg)
	if n := len(d.Validation); n < 5 || n != len(want.Validation) || !slices.Equal(d.Validation[n-1].Tokens, want.Validation[n-1].Tokens) || len(d.Of(task.All)) != 50 {
		t.Errorf("%d sentences held of the file, %d in memory", n, len(want.Validation))
	}
	if d, err = Read(t.Context(), &task.Files{Data: path, Valid: path}, cfg); err != nil || len(d.Training) != 50 || len(d.Validation) != 50 {
		t.Errorf("with a file to validate on: %d and %d, %v", len(d.Training), len(d.Validation), err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(cancelled, &task.Files{Data: path}, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	m, _, err := Train(t.Context(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Predict(t.Context(), task.Input{File: path}, nil)
	if err != nil || len(p.Sentences) != 50 {
		t.Fatalf("%d sentences, %v", len(p.Sentences), err)
	}
	var copied strings.Builder
	for part, err := range m.Parts(t.Context(), task.Input{File: path}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if err := part.Write(&copied); err != nil {
			t.Fatal(err)
		}
	}
	first, _, _ := strings.Cut(copied.String(), "\n")
	if want := list[0].Tokens[0] + "\t" + list[0].Tags[0] + "\t" + p.Sentences[0].Tags[0]; first != want {
		t.Errorf("the first line is %q, want %q", first, want)
	}
	var input *data.InputError
	if _, err := m.Predict(t.Context(), task.Input{Stream: strings.NewReader("a")}, &PredictOptions{Format: data.FormatCoNLL}); !errors.As(err, &input) {
		t.Errorf("a stream of tokens: %v", err)
	}
}

// Counting the words of many sentences ends with the context.
func TestEncodingCanBeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := encode(ctx, []data.Sentence{{Tokens: []string{"a"}, Tags: []string{"O"}}}, 10); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Lines are tagged while others are still to come.
func TestPartsOfStream(t *testing.T) {
	m := trained(t, IOB2, nil)
	in, out := io.Pipe()
	go io.WriteString(out, strings.Repeat("Ada in Oslo\n", 3000)) // ends when the reader is closed
	sentences, text := 0, ""
	for p, err := range m.Parts(t.Context(), task.Input{Stream: in}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		text += b.String()
		if sentences += len(p.Sentences); sentences >= 2*1024 {
			break
		}
	}
	in.Close()
	if sentences != 2*1024 {
		t.Errorf("%d sentences of an input that has not ended", sentences)
	}
	whole, err := m.Predict(t.Context(), task.Input{Texts: slices.Repeat([]string{"Ada in Oslo"}, sentences)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	if err := whole.Write(&want); err != nil || text != want.String() {
		t.Errorf("the parts differ from the whole: %v", err)
	}
}
