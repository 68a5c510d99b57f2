package classify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"weak"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

// reviews are made-up texts whose label is told by one word among others,
// which a "not" before it turns round.
func reviews(n int, seed uint64) []data.Example {
	r := rand.New(rand.NewPCG(seed, 1))
	filler := strings.Fields("the film was a story of people who go by train and then some of it is in the night")
	good, bad := []string{"fine", "lovely", "great"}, []string{"dull", "poor", "awful"}
	list := make([]data.Example, n)
	for i := range list {
		words := make([]string, 3+r.IntN(8))
		for j := range words {
			words[j] = filler[r.IntN(len(filler))]
		}
		at, positive := 1+r.IntN(len(words)-1), r.IntN(2) == 0
		label := positive
		if r.IntN(3) == 0 {
			words[at-1], label = "not", !positive
		}
		words[at] = map[bool][]string{true: good, false: bad}[positive][r.IntN(3)]
		list[i] = data.Example{Line: i + 1, Text: strings.Join(words, " "), Labels: []string{map[bool]string{true: "good", false: "bad"}[label]}}
	}
	return list
}

// dealt is texts in memory, divided as cfg says.
func dealt(list []data.Example, cfg Config) *Data {
	d, err := NewData(list, cfg)
	if err != nil {
		panic(err)
	}
	return d
}

func small() Config {
	c := Defaults()
	c.Embedding, c.Hidden, c.Epochs, c.Batch, c.LR = 16, 16, 12, 16, 1e-2
	return c
}

func fitted(t *testing.T, cfg Config, list []data.Example, o *train.Run) (*Model, *train.Result) {
	t.Helper()
	m, r, err := Train(t.Context(), dealt(list, cfg), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

func TestLearns(t *testing.T) {
	m, _ := fitted(t, small(), reviews(600, 1), nil)
	e, err := m.Evaluate(t.Context(), dealt(reviews(200, 2), Config{}), task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Metrics.Accuracy < 0.95 || e.Metrics.Accuracy <= e.Baselines["majority"].Accuracy+0.3 {
		t.Errorf("accuracy %v, majority %v", e.Metrics.Accuracy, e.Baselines["majority"].Accuracy)
	}
	sum := 0
	for _, row := range e.Confusion {
		for _, n := range row {
			sum += n
		}
	}
	if sum != 200 || e.Task != "classify" {
		t.Errorf("confusion of %d texts, task %q", sum, e.Task)
	}
}

func TestExplain(t *testing.T) {
	for _, pool := range []string{"max", "mean", "attention"} {
		cfg := small()
		cfg.Pool, cfg.Linear = pool, false
		m, _ := fitted(t, cfg, reviews(400, 1), nil)
		texts := []string{"The train was lovely", "it was a dull night", ""}
		list, err := m.Classify(t.Context(), texts, &PredictOptions{Explain: true})
		if err != nil {
			t.Fatal(err)
		}
		if p := list[2]; p.Label != "" || p.Probability != 0 || p.Probabilities != nil || p.Words != nil {
			t.Errorf("a text without tokens: %+v", p)
		}
		for i, p := range list[:2] {
			// The shares and the class's bias are the score.
			c := &corpus{}
			c.add(&data.Example{Text: texts[i]}, m.tokenizer, 100, nil)
			class := slices.Index(m.classes, p.Label)
			sum := float64(m.net.Head.Bias.Read()[class])
			for _, w := range p.Words {
				sum += w.Share
				if texts[i][w.Start:w.End] != w.Text {
					t.Errorf("%q is not at %d:%d of %q", w.Text, w.Start, w.End, texts[i])
				}
			}
			other := 1 - class
			want := math.Log(p.Probabilities[class] / p.Probabilities[other])
			again := m.explain(texts[i], c, 0, other)
			rest := float64(m.net.Head.Bias.Read()[other])
			for _, w := range again {
				rest += w.Share
			}
			if math.Abs(sum-rest-want) > 1e-3 {
				t.Errorf("%s %q: the shares say %v, the probabilities %v", pool, texts[i], sum-rest, want)
			}
		}
		if pool == "max" {
			best := slices.MaxFunc(list[1].Words, func(a, b WordShare) int { return int(1e6 * (a.Share - b.Share)) })
			if best.Text != "dull" {
				t.Errorf("%q is said to have decided %q", best.Text, texts[1])
			}
		}
	}
	// Of the linear method alone the shares are the difference to the other class.
	m, _ := fitted(t, small(), reviews(400, 1), nil)
	m.share = 1
	c := &corpus{}
	c.add(&data.Example{Text: "it was a dull dull night"}, m.tokenizer, 100, nil)
	p := m.linear.logProbabilities(c)[0]
	want := p[1] - p[0] - float64(m.linear.bias[1]-m.linear.bias[0])
	for class, sign := range []float64{-0.5, 0.5} {
		sum := 0.0
		for _, w := range m.explain("it was a dull dull night", c, 0, class) {
			sum += w.Share
		}
		if math.Abs(sum-sign*want) > 1e-4 {
			t.Errorf("class %d: the shares of the linear method are %v, want %v", class, sum, sign*want)
		}
	}
	cfg := small()
	cfg.Pool, cfg.Epochs = "last", 1
	m, _ = fitted(t, cfg, reviews(50, 1), nil)
	if _, err := m.Classify(t.Context(), []string{"x"}, &PredictOptions{Explain: true}); err == nil {
		t.Error("pooling by the last step was explained")
	}
}

// TestAlone wants an answer not to depend on the other texts.
func TestAlone(t *testing.T) {
	m, _ := fitted(t, small(), reviews(100, 1), nil)
	texts := []string{"a great night", "", "it was not awful", strings.Repeat("the train ", 200)}
	together, err := m.Classify(t.Context(), texts, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range texts {
		alone, err := m.Classify(t.Context(), []string{s}, nil)
		if err != nil || !reflect.DeepEqual(alone[0], together[i]) {
			t.Errorf("%q: %+v alone, %+v together, %v", s, alone, together[i], err)
		}
	}
}

func TestSeveralLabels(t *testing.T) {
	var list []data.Example
	for i, e := range reviews(400, 3) {
		if i%2 == 0 {
			e.Text += " again"
			e.Labels = append(e.Labels, "repeated")
		}
		list = append(list, e)
	}
	cfg := small()
	cfg.Separator, cfg.Epochs = "|", 20
	m, _ := fitted(t, cfg, list, nil)
	p, err := m.Classify(t.Context(), []string{"it was lovely again", "the people was dull"}, nil)
	if err != nil || !reflect.DeepEqual(p[0].Labels, []string{"good", "repeated"}) || !reflect.DeepEqual(p[1].Labels, []string{"bad"}) {
		t.Errorf("%+v, %v", p, err)
	}
	e, err := m.Evaluate(t.Context(), dealt(list, Config{}), task.All, nil)
	if err != nil || e.Metrics.MicroF1 < 0.9 || e.Confusion != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestSaveOpen(t *testing.T) {
	dir := t.TempDir()
	m, _ := fitted(t, small(), reviews(100, 1), &train.Run{Dir: dir})
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"a great night", "not poor", "unheard-of wörds"}
	want, _ := m.Classify(t.Context(), texts, &PredictOptions{Explain: true})
	got, err := again.Classify(t.Context(), texts, &PredictOptions{Explain: true})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	file := filepath.Join(dir, "texts.txt")
	if err := os.WriteFile(file, []byte(strings.Join(texts, "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	if p, err := again.Predict(t.Context(), task.Input{File: file}, nil); err != nil || len(p.List) != len(texts) || p.List[0].Probability != want[0].Probability {
		t.Errorf("of a file: %+v, %v", p, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := again.Predict(cancelled, task.Input{File: file}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, linearFile), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), linearFile) {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestResume wants an interrupted run to end as one that was not.
func TestResume(t *testing.T) {
	cfg := small()
	cfg.Epochs = 3
	whole, _ := fitted(t, cfg, reviews(120, 1), nil)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(*tensor.Slab) { cancel() } // in the first step
	_, r, err := Train(ctx, dealt(reviews(120, 1), cfg), cfg, &train.Run{Dir: dir, Hooks: train.Hooks{OnGradients: stop}})
	if err != nil || !r.Interrupted {
		t.Fatalf("%+v, %v", r, err)
	}
	m, _ := fitted(t, cfg, reviews(120, 1), &train.Run{Dir: dir, Resume: true})
	for i, p := range whole.slab.Params {
		if !slices.Equal(p.Read(), m.slab.Params[i].Read()) {
			t.Errorf("%s differs", p.Name)
		}
	}
	if _, _, err := Train(t.Context(), dealt(reviews(120, 9), cfg), cfg, &train.Run{Dir: dir, Resume: true}); err == nil || !strings.Contains(err.Error(), "other training texts") {
		t.Errorf("other texts were taken: %v", err)
	}
}

func TestParts(t *testing.T) {
	list := reviews(1000, 1)
	cfg := Defaults()
	seen := map[int]int{}
	for k := 1; k <= 5; k++ {
		cfg.Fold = fmt.Sprintf("%d/5", k)
		d := dealt(list, cfg)
		sizes := [3]int{len(d.Training), len(d.Validation), len(d.Test)}
		for _, e := range d.Test {
			seen[e.Line]++
		}
		if sizes[0]+sizes[1]+sizes[2] != 1000 || sizes[2] != 200 || sizes[1] < 50 || sizes[1] > 110 {
			t.Errorf("fold %d: %v", k, sizes)
		}
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 texts are tested on", len(seen))
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		list   []data.Example
		change func(*Config)
		want   string
	}{
		{"one class", []data.Example{{Text: "a", Labels: []string{"x"}}, {Text: "b", Labels: []string{"x"}}}, nil, `all 2 texts have the label "x"`},
		{"no labels", []data.Example{{Text: "a"}}, nil, "1 text and no label"},
		{"pool", nil, func(c *Config) { c.Pool = "sum" }, `pool: want max, mean, last, attention, got "sum"`},
		{"fold", nil, func(c *Config) { c.Fold = "6/5" }, "fold: want K/N"},
		{"cell", nil, func(c *Config) { c.Cell = "lstn" }, "cell: want lstm"},
		{"dropout between layers", nil, func(c *Config) { c.RNNDropout = 0.2 }, "rnn_dropout"},
		{"learning rate", nil, func(c *Config) { c.LR = math.NaN() }, "lr: want a number"},
	} {
		cfg := small()
		if c.change != nil {
			c.change(&cfg)
		}
		d, err := NewData(c.list, cfg)
		if err == nil {
			_, _, err = Train(t.Context(), d, cfg, nil)
		}
		var input *data.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestVectors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vectors.txt")
	if err := os.WriteFile(path, []byte("lovely 1 2 3\nnowhere 4 5 6\ndull -1 -2 -3\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	cfg := small()
	cfg.Vectors, cfg.Epochs = path, 1
	m, learn, valid, err := prepare(t.Context(), dealt(reviews(100, 1), cfg), cfg, nil)
	if err != nil || learn.len()+valid.len() != 100 || m.cfg.Embedding != 3 {
		t.Fatalf("%d + %d texts, width %d, %v", learn.len(), valid.len(), m.cfg.Embedding, err)
	}
	id := m.tokenizer.Vocabulary().ID("dull")
	if got := m.net.Embedding.Weight.Read()[3*id : 3*id+3]; !slices.Equal(got, []float32{-1, -2, -3}) {
		t.Errorf("dull is %v", got)
	}
}

func TestUnseenAndLong(t *testing.T) {
	m, _ := fitted(t, small(), reviews(100, 1), nil)
	list := append(reviews(10, 5), data.Example{Line: 11, Text: strings.Repeat("train ", 100000), Labels: []string{"odd"}})
	e, err := m.Evaluate(t.Context(), dealt(list, Config{}), task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Unseen["odd"] != 1 || e.Metrics.Accuracy > 10.0/11 {
		t.Errorf("unseen %v, accuracy %v", e.Unseen, e.Metrics.Accuracy)
	}
	notes := strings.Join(e.Notes, "; ")
	if !strings.Contains(notes, "1 text is longer than 1000 tokens") || !strings.Contains(notes, `does not occur in training ("odd")`) {
		t.Errorf("notes: %s", notes)
	}
	p, err := m.Predict(t.Context(), task.Input{Texts: []string{"train", list[10].Text}}, nil)
	if err != nil || p.List[0].Cut || !p.List[1].Cut {
		t.Fatalf("cut texts are not marked: %v", err)
	}
	if notes := p.Remarks(); len(notes) != 1 || notes[0] != "1 text is longer than 1000 tokens and cut there" {
		t.Errorf("notes: %q", notes)
	}
}

// TestScore checks the counting by hand.
func TestScore(t *testing.T) {
	truth, answers := []int32{0, 0, 1, 1, 2, 2}, []int32{0, 1, 1, 1, 0, 1}
	var p [][]float64
	var labels [][]int32
	for i, k := range answers {
		row := []float64{-5, -5, -5}
		row[k] = -0.01
		p = append(p, row)
		labels = append(labels, truth[i:i+1])
	}
	s := score(p, &corpus{labels: labels}, 3, false)
	// By hand: F1 of class 0 is 2·1/(2+2), of class 1 2·2/(4+2), of class 2 0.
	if math.Abs(s.Accuracy-0.5) > 1e-12 || math.Abs(s.MacroF1-(0.5+2.0/3)/3) > 1e-12 || math.Abs(s.MicroF1-0.5) > 1e-12 {
		t.Errorf("%+v", s)
	}
}

// A label that does not occur in training is a miss by every measure.
func TestScoreUnseen(t *testing.T) {
	numbers := map[string]int32{"a": 0, "b": 1}
	tok, err := text.TrainTokenizer(t.Context(), "word", slices.Values([]string{"x"}), &text.TokenizerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := &corpus{}
	for _, labels := range [][]string{{"a"}, {"b"}, {"new"}, {"a", "new"}} {
		c.add(&data.Example{Text: "x", Labels: labels}, tok, 10, numbers)
	}
	yes, no := -0.01, -5.0
	s := score([][]float64{{yes, no}, {no, yes}, {yes, no}, {yes, no}}, c, 2, false)
	// By hand: a has 2 right of 2, 3 given; b 1 of 1, 1 given; new 0 of 2.
	if math.Abs(s.Accuracy-0.5) > 1e-12 || math.Abs(s.MacroF1-(0.8+1+0)/3) > 1e-12 || math.Abs(s.MicroF1-2*3.0/(4+5)) > 1e-12 {
		t.Errorf("one label: %+v", s)
	}
	s = score([][]float64{{yes, no}, {no, yes}, {no, no}, {yes, no}}, c, 2, true)
	if math.Abs(s.Accuracy-0.5) > 1e-12 || math.Abs(s.MacroF1-(1.0+1+0)/3) > 1e-12 || math.Abs(s.MicroF1-2*3.0/(3+5)) > 1e-12 {
		t.Errorf("several: %+v", s)
	}
}

// Where no validation text has a label that training knew, the model is whole
// all the same, and the scores have a JSON form.
func TestValidationUnseen(t *testing.T) {
	dir := t.TempDir()
	odd := []data.Example{{Text: "a fine film", Labels: []string{"new"}}}
	cfg := small()
	cfg.Epochs = 1
	cfg.Holdout = 0
	d := dealt(reviews(60, 1), cfg)
	d.Validation = odd
	if _, _, err := Train(t.Context(), d, cfg, &train.Run{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), dealt(odd, Config{}), task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(e); err != nil || e.Unseen["new"] != 1 {
		t.Errorf("%v, %+v", err, e)
	}
}

// Any way round, labels have one order.
func TestLabelOrder(t *testing.T) {
	want := []string{"-1", "9", "10", "inf", "1a", "joy", "nan?"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		got := slices.Clone(want)
		r.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		if slices.SortFunc(got, compareLabels); !slices.Equal(got, want) {
			t.Fatalf("%q", got)
		}
	}
}

// long are texts that one word of many tells apart.
func long() *corpus {
	c := &corpus{}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 200 {
		for range 5 + i {
			c.ids = append(c.ids, int32(i%2*500+r.IntN(500)), int32(1000+r.IntN(100_000))) // one word of the class, one of its own
		}
		c.ends, c.labels = append(c.ends, len(c.ids)), append(c.labels, []int32{int32(i % 2)})
	}
	return c
}

// TestLinearSure: of long texts the linear method soon is so sure that squares of
// gradients vanish in 32 bits.
func TestLinearSure(t *testing.T) {
	c := long()
	l, err := fitLinear(t.Context(), c, c, 2, false, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.logProbabilities(c) {
		if math.IsNaN(p[0]) || math.IsNaN(p[1]) {
			t.Fatal("the method lost itself in numbers that are none")
		}
	}
	if loss := meanLoss(l.logProbabilities(c), c.labels, false); loss > 0.01 {
		t.Errorf("loss %g on texts that a single word tells apart", loss)
	}
}

// TestLinearVanishing: these gradients are zero before they are subnormal.
func TestLinearVanishing(t *testing.T) {
	c := long()
	for _, several := range []bool{false, true} {
		read, made := simdtest.Subnormals(t, func() { _, _ = fitLinear(t.Context(), c, c, 2, several, 1) })
		if read || made {
			t.Errorf("several labels %v: subnormal numbers: read %v, made %v", several, read, made)
		}
	}
}

// TestLinear checks the regression against one class that a word decides.
func TestLinear(t *testing.T) {
	m, _ := fitted(t, small(), reviews(600, 1), nil)
	e, err := m.Evaluate(t.Context(), dealt(reviews(300, 7), Config{}), task.All, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Pairs with "not" let a linear method solve this too.
	if e.Baselines["linear"].Accuracy < 0.9 {
		t.Errorf("linear accuracy %v", e.Baselines["linear"].Accuracy)
	}
}

func FuzzPredict(f *testing.F) {
	cfg := small()
	cfg.Epochs = 1
	m, _, err := Train(context.Background(), dealt(reviews(50, 1), cfg), cfg, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a great night")
	f.Add("\xff\x00 漢字 \u200b")
	f.Add(" ")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := m.Classify(context.Background(), []string{s}, &PredictOptions{Explain: true})
		if err == nil && p[0].Label == "" && len(m.tokenizer.Tokens(nil, s)) == 0 && p[0].Probability == 0 {
			return // no tokens, no answer
		}
		if err != nil || !(p[0].Probability > 0 && p[0].Probability <= 1.0001) {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// Two ranks train the classifier that one process makes of twice the batches to a
// step, from the one directory that rank 0 writes.
func TestRanks(t *testing.T) {
	bits := func(m *Model) (all []float32) {
		for _, p := range m.Slab().Params {
			all = append(all, p.Read()...)
		}
		return all
	}
	cfg := small()
	cfg.Epochs, cfg.Accumulate = 2, 2
	alone, _ := fitted(t, cfg, reviews(100, 1), nil)
	cfg.Accumulate = 1
	dir, second := t.TempDir(), filepath.Join(t.TempDir(), "second")
	var all sync.WaitGroup
	for rank, w := range traintest.Worlds(2) {
		all.Go(func() {
			run := &train.Run{Dir: dir, World: w}
			if rank == 1 {
				run.Dir = second
			}
			m, _, err := Train(t.Context(), dealt(reviews(100, 1), cfg), cfg, run)
			if err != nil {
				t.Error(err)
				return
			}
			if !slices.Equal(bits(m), bits(alone)) {
				t.Errorf("rank %d has other weights than one process", rank)
			}
		})
	}
	all.Wait()
	if m, err := Open(dir); err != nil || !slices.Equal(bits(m), bits(alone)) {
		t.Errorf("rank 0 saved another model: %v", err)
	}
	if _, err := os.Stat(second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rank 1 writes: %v", err)
	}
}

// A prediction in parts holds no part but the current one, and is that of the whole; what
// only the last row shows counts for all.
func TestPredictionInParts(t *testing.T) {
	m, _ := fitted(t, small(), reviews(60, 1), nil)
	const n = 2500
	for name, last := range map[string]string{"lines": "a dull night\n", "labels": "__label__0 a dull night\n"} {
		in := func() task.Input {
			return task.Input{Stream: strings.NewReader(strings.Repeat("a lovely night\n", n) + last)}
		}
		whole, err := m.Predict(t.Context(), in(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var want, got bytes.Buffer
		if err := whole.Write(&want); err != nil {
			t.Fatal(err)
		}
		rows := 0
		var before, current weak.Pointer[Predictions]
		for p, err := range m.Parts(t.Context(), in(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			if rows += len(p.List); len(p.List) > 1024 {
				t.Errorf("%s: a part of %d rows", name, len(p.List))
			}
			if err := p.Write(&got); err != nil {
				t.Fatal(err)
			}
			before, current = current, weak.Make(p)
			runtime.GC()
			if before.Value() != nil {
				t.Errorf("%s: after %d rows the part before is still in memory", name, rows)
			}
		}
		if rows != n+1 || got.String() != want.String() {
			t.Errorf("%s: the parts have %d rows and differ from the whole", name, rows)
		}
		if head := map[string]string{"lines": "line,text,label,", "labels": "label,text,predicted_label,"}[name]; !strings.HasPrefix(got.String(), head) {
			t.Errorf("%s: begins %.40q, want %q", name, got.String(), head)
		}
	}
	objects := strings.Repeat(`{"text": "a lovely night"}`+"\n", n) + `{"text": "a dull night", "id": 7}` + "\n"
	p, err := m.Predict(t.Context(), task.Input{Stream: strings.NewReader(objects)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := p.Write(&b); err != nil || !strings.HasPrefix(b.String(), "text,id,label,") {
		t.Errorf("%.40q, %v: a key of the last object is no column", b.String(), err)
	}
}
