package generate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/modeltest"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// units are the kinds of tokens.
var units = []string{"char", "bpe", "space"}

// story is a text that says more than once where whom one finds.
var story = strings.Repeat("The cat sat on the mat. The dog lay on the floor, and the cat sat on the mat.\nThe bird sang in the tree. ", 12)

func docs(texts ...string) []data.Document {
	var list []data.Document
	for i, s := range texts {
		list = append(list, data.Document{File: fmt.Sprintf("%d.txt", i), Text: s})
	}
	return list
}

// both are documents to learn from and to validate on.
func both(learn, valid []data.Document) *Data {
	return &Data{Parts: task.Parts[data.Document]{Training: learn, Validation: valid}}
}

// learnt are documents to learn from alone.
func learnt(docs []data.Document) *Data { return both(docs, nil) }

// small is a configuration that trains in a moment.
func small(unit string) Config {
	cfg := Defaults()
	cfg.Tokens, cfg.Hidden, cfg.Embedding, cfg.Batch, cfg.BPTT, cfg.Epochs, cfg.Dropout = unit, 16, 8, 2, 16, 2, 0.1
	return cfg
}

func trained(t testing.TB, cfg Config, texts ...string) *Model {
	t.Helper()
	m, _, err := Train(context.Background(), learnt(docs(texts...)), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLearns: after a text that says so, "mat" outranks "floor", whatever the unit.
func TestLearns(t *testing.T) {
	for _, unit := range units {
		t.Run(unit, func(t *testing.T) {
			cfg := small(unit)
			cfg.Hidden, cfg.Embedding, cfg.Epochs, cfg.LR = 32, 16, 30, 0.01
			if unit == "bpe" {
				cfg.VocabularySize = 300
			}
			m := trained(t, cfg, story)
			ranking, err := m.Score(t.Context(), "The cat sat on the", []string{"floor.", "tree.", "mat."}, false)
			if err != nil {
				t.Fatal(err)
			}
			if ranking[0].Continuation != "mat." {
				t.Errorf("ranking %+v", ranking)
			}
			texts, err := m.Generate(context.Background(), []string{"The bird sang in the"}, &PredictOptions{Greedy: true, MaxTokens: 30, Stop: []string{"."}})
			if err != nil {
				t.Fatal(err)
			}
			if texts[0].Text != " tree" || texts[0].Ended != EndedByStop {
				t.Errorf("the text goes on %+v", texts[0])
			}
		})
	}
}

// TestEvaluate holds the scores of segments with a carried state to one pass
// over each document, documents of unlike lengths side by side.
func TestEvaluate(t *testing.T) {
	for _, softmax := range []string{"full", "adaptive"} {
		t.Run(softmax, func(t *testing.T) {
			cfg := small("char")
			if cfg.Softmax = softmax; softmax == "adaptive" {
				cfg.Cutoffs, cfg.Output = []int{6, 12}, "tied"
			}
			m := trained(t, cfg, story)
			texts := []string{story[:700], "The cat", story[10:300]}
			e, err := m.Evaluate(context.Background(), learnt(docs(texts...)), task.All, nil)
			if err != nil {
				t.Fatal(err)
			}
			sum, n := 0.0, 0
			for _, s := range texts {
				ids := m.codec.encode(t.Context(), []int32{m.codec.begin}, s)
				tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
				x, _, _, _ := m.net.steps(tape, tape.IDs(ids[:len(ids)-1], nil, 1, len(ids)-1), nil)
				p := m.net.logProb(x).Data()
				for i, id := range ids[1:] {
					sum -= float64(p[i*m.net.vocabulary+int(id)])
					n++
				}
			}
			if got, want := e.Metrics.Nats, sum/float64(n); math.Abs(got-want) > 1e-5 {
				t.Errorf("%v nats, want %v", got, want)
			}
			if e.Tokens != n || e.Characters != n || e.Documents != 3 {
				t.Errorf("%d tokens, %d characters of %d documents; want %d of 3", e.Tokens, e.Characters, e.Documents, n)
			}
			if d := e.Metrics.BitsPerChar - e.Metrics.Nats/math.Ln2; math.Abs(d) > 1e-9 {
				t.Errorf("bits per character are off by %v", d)
			}
			for _, list := range [][]Group{e.ByPosition, e.ByFrequency} {
				sum, total := 0.0, 0
				for _, g := range list {
					sum, total = sum+g.Nats*float64(g.Tokens), total+g.Tokens
				}
				if total != n || math.Abs(sum/float64(n)-e.Metrics.Nats) > 1e-9 {
					t.Errorf("groups %+v", list)
				}
			}
		})
	}
}

// TestWordProtocol: words stand between white space, a line's end is a token,
// <unk> is one like others, and what does not occur in training is scored as it.
func TestWordProtocol(t *testing.T) {
	text := strings.Repeat(" = The <unk> = \n \n a b , <unk> c\n", 20)
	m := trained(t, small("space"), text)
	e, err := m.Evaluate(context.Background(), learnt(docs("a b zebra\n<unk> c\n")), task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Tokens != 7 || e.Unknown != 2 || m.cfg.MinCount != 1 {
		t.Errorf("%d tokens, %d unknown, least count %d; want 7, 2 and 1", e.Tokens, e.Unknown, m.cfg.MinCount)
	}
	if n := m.codec.tokens.Vocabulary().Len(); n != 4+1+6 { // special, line end, = The a b , c
		t.Errorf("vocabulary of %d: %q", n, m.codec.tokens.Vocabulary().Tokens())
	}
	if e.ByFrequency[0].From != 10 {
		t.Errorf("<unk> in the text is counted as it stands: %+v", e.ByFrequency)
	}
}

func TestScoreIsTheDifference(t *testing.T) {
	for _, unit := range units {
		t.Run(unit, func(t *testing.T) {
			cfg := small(unit)
			if unit == "bpe" {
				cfg.VocabularySize = 300
			}
			m := trained(t, cfg, story)
			logp := func(s string) float64 {
				e, err := m.Evaluate(context.Background(), learnt(docs(s)), task.All, nil)
				if err != nil {
					t.Fatal(err)
				}
				return -e.Metrics.Nats * float64(e.Tokens)
			}
			prompt := "The dog lay on the"
			list := []string{" mat", " floor, and the cat", " x"}
			for range 40 { // more than one batch
				list = append(list, " tree")
			}
			ranking, err := m.Score(t.Context(), prompt, list, true)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range ranking {
				if want := logp(prompt+s.Continuation) - logp(prompt); math.Abs(s.LogProb-want) > 1e-3 {
					t.Errorf("%q: log p %v, want %v", s.Continuation, s.LogProb, want)
				}
				if i > 0 && s.LogProb > ranking[i-1].LogProb {
					t.Errorf("ranking %d is above the one before", i)
				}
			}
			if _, err := m.Score(t.Context(), prompt, []string{"a", ""}, false); err == nil {
				t.Error("an empty continuation is scored")
			}
			if _, err := m.Score(&stopAfter{t.Context(), len(list) + 3}, prompt, list, true); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled after its first batch: got %v", err)
			}
		})
	}
}

func TestJoin(t *testing.T) {
	for _, c := range []struct {
		prompt, next string
		exactly      bool
		want         string
	}{
		{"on the", "mat", false, "on the mat"}, {"on the ", "mat", false, "on the mat"}, {"on the", " mat", false, "on the mat"},
		{"on the", ", mat", false, "on the, mat"}, {"on th", "e", true, "on the"}, {"", "mat", false, "mat"},
		{"貓坐在", "墊子上", false, "貓坐在墊子上"}, {"x = ", "1", false, "x = 1"}, {"no 1", "2", false, "no 1 2"},
	} {
		if got := join(c.prompt, c.next, c.exactly); got != c.want {
			t.Errorf("join %q and %q: %q", c.prompt, c.next, got)
		}
	}
}

func TestSaveOpen(t *testing.T) {
	for _, unit := range units {
		cfg := small(unit)
		if unit == "bpe" {
			cfg.VocabularySize = 280
		}
		if unit == "char" {
			cfg.Cutoffs, cfg.Output = []int{6, 12}, "tied"
		}
		dir := t.TempDir()
		m, _, err := Train(context.Background(), both(docs(story), docs(story[:300])), cfg, &train.Run{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := m.Evaluate(context.Background(), learnt(docs(story[:500])), task.All, nil)
		b, err := again.Evaluate(context.Background(), learnt(docs(story[:500])), task.All, nil)
		if err != nil || a.Metrics != b.Metrics {
			t.Errorf("%s: %v after reading back, %v before (%v)", unit, b.Metrics, a.Metrics, err)
		}
		if unit != "char" {
			continue
		}
		for _, change := range [][2]string{{`"cutoffs": [`, `"cutoffs": [900, `}, {`"softmax": "adaptive"`, `"softmax": "full"`}, {`"hidden": 16`, `"hidden": 17`},
			{`"counts": [`, `"counts": [1, `}, {`"tokens": "char"`, `"tokens": "space"`}, {`"embedding": 8`, `"embedding": 0`}} {
			if err := m.Save(dir); err != nil {
				t.Fatal(err)
			}
			modeltest.Edit(t, dir, model.ConfigFile, modeltest.Replace(change[0], change[1]))
			var file *model.FileError
			if _, err := Open(dir); !errors.As(err, &file) {
				t.Errorf("%s: %v", change[1], err)
			}
		}
	}
}

// stopAfter is a context that is cancelled once it has been asked n times.
type stopAfter struct {
	context.Context
	n int
}

func (c *stopAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestResume: a run cut off in the middle of an epoch, with the state of its
// streams, ends in the same bits as one that was not.
func TestResume(t *testing.T) {
	cfg := small("char")
	cfg.WeightDrop, cfg.AR, cfg.TAR, cfg.EmbeddingDropout, cfg.Layers = 0.2, 1, 1, 0.1, 2
	d := both(docs(story, story[:99], "a short one"), docs(story[:200])) // of all trainings: none changes it
	want, _, err := Train(context.Background(), d, cfg, &train.Run{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, r, err := Train(&stopAfter{context.Background(), 20}, d, cfg, &train.Run{Dir: dir})
	if err != nil || !r.Interrupted || r.Steps == 0 {
		t.Fatalf("result %+v, %v", r, err)
	}
	got, r, err := Train(context.Background(), d, cfg, &train.Run{Dir: dir, Resume: true})
	if err != nil || r.ResumedAt == 0 {
		t.Fatalf("result %+v, %v", r, err)
	}
	for i, p := range want.slab.Params {
		if !slices.Equal(p.Read(), got.slab.Params[i].Read()) {
			t.Errorf("%s differs", p.Name)
		}
	}
}

// TestPenalties: with AR and TAR the network drops its output itself, by the
// same masks in each step of a row, and the penalties are what they say.
func TestPenalties(t *testing.T) {
	cfg := small("char")
	cfg.TAR, cfg.AR, cfg.OutputDropout, cfg.Dropout = 1e-9, 1e-9, 0.5, 0
	net, err := newNetwork(&cfg, 20)
	if err != nil {
		t.Fatal(err)
	}
	tensor.Pack(tensor.CPU(), net, 1)
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	_, raw, dropped, _ := net.steps(tape, tape.IDs(make([]int32, 6), nil, 2, 3), nil)
	a, b := raw.Data(), dropped.Data()
	zeros := 0
	for row := range 2 {
		for k := range 16 {
			for step := range 3 {
				i := (row*3+step)*16 + k
				first := b[(row*3)*16+k] == 0
				if (b[i] == 0) != first || b[i] != 0 && math.Abs(float64(b[i]-2*a[i])) > 1e-6 {
					t.Fatalf("row %d, step %d, unit %d: %v becomes %v", row, step, k, a[i], b[i])
				}
				if b[i] == 0 {
					zeros++
				}
			}
		}
	}
	if zeros < 20 || zeros > 76 {
		t.Errorf("%d of 96 dropped", zeros)
	}
}

// TestEmbeddingDropout: a token is dropped everywhere in the batch or nowhere.
func TestEmbeddingDropout(t *testing.T) {
	cfg := small("char")
	cfg.EmbeddingDropout = 0.4
	net, err := newNetwork(&cfg, 30)
	if err != nil {
		t.Fatal(err)
	}
	tensor.Pack(tensor.CPU(), net, 1)
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	var ids []int32
	for i := range 60 {
		ids = append(ids, int32(i%30))
	}
	in := tape.IDs(ids, nil, 2, 30)
	plain := net.Embedding.Forward(in)
	e, p := net.dropTokens(tape, plain, in).Data(), plain.Data()
	zeros := 0
	for i := range e {
		if e[i] != e[i%(30*8)] || e[i] != 0 && math.Abs(float64(e[i]-p[i]/0.6)) > 1e-6 {
			t.Fatalf("number %d: %v of %v", i, e[i], p[i])
		}
		if e[i] == 0 {
			zeros++
		}
	}
	if zeros%16 != 0 || zeros < 3*16 || zeros > 25*16 {
		t.Errorf("%d of %d numbers dropped", zeros, len(e))
	}
}

// TestStepAllocatesNothing holds the tensor layer and the laying out of streams to it.
func TestStepAllocatesNothing(t *testing.T) {
	for name, set := range map[string]func(*Config){
		"full":     func(c *Config) { c.Softmax, c.EmbeddingDropout, c.AR, c.TAR = "full", 0.1, 1, 1 },
		"adaptive": func(c *Config) { c.Cutoffs, c.Output = []int{50, 200}, "tied" },
	} {
		cfg := small("char")
		set(&cfg)
		step := stepper(t, cfg, 1000)
		for range 8 {
			step()
		}
		if n := testing.AllocsPerRun(20, step); n > 4 {
			t.Errorf("%s: %v allocations a step", name, n)
		}
	}
}

func TestBadTexts(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*Config)
		text string
		want string
	}{
		"too short":     {func(*Config) {}, "too short", "at least 64 are needed"},
		"only spaces":   {func(c *Config) { c.Tokens = "space" }, strings.Repeat(" ", 500), "no token"},
		"many streams":  {func(c *Config) { c.Batch = 4000 }, story, "batch: want at most the number of tokens"},
		"cutoffs":       {func(c *Config) { c.Cutoffs = []int{10, 5000} }, story, "below the vocabulary's size"},
		"bidirectional": {func(c *Config) { c.Bidirectional = true }, story, "predicts the next token"},
		"full clusters": {func(c *Config) { c.Softmax, c.Cutoffs = "full", []int{3} }, story, "has no clusters"},
		"tokens":        {func(c *Config) { c.Tokens = "sentence" }, story, "want char, bpe, space"},
		"small bpe":     {func(c *Config) { c.Tokens, c.VocabularySize = "bpe", 100 }, story, "too small"},
	} {
		cfg := small("char")
		c.set(&cfg)
		_, _, err := Train(context.Background(), learnt(docs(c.text)), cfg, nil)
		var input *data.InputError
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &input) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
