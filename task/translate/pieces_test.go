package translate

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/modeltest"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// untrained is a model of a few letters with random weights.
var untrained = sync.OnceValue(func() *Model {
	cfg := tiny()
	cfg.Hidden, cfg.Embedding, cfg.Epochs, cfg.Holdout = 8, 6, 1, 0
	m, _, err := Train(context.Background(), learn(copies(40, 1)), cfg, nil)
	if err != nil {
		panic(err)
	}
	return m
})

// learn is data of training pairs alone.
func learn(list []data.Pair) *Data {
	return &Data{Parts: task.Parts[data.Pair]{Training: list}}
}

func TestCut(t *testing.T) {
	pairs := []data.Pair{{Source: "a b", Target: "c d"}}
	cfg := Defaults()
	cfg.Tokens, cfg.MinCount = "word", 1
	tok, err := makeTokenizers(t.Context(), pairs, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text  string
		limit int
		want  string
	}{
		{"one two three", 5, "one two three"},
		{"one two. three four. five six.", 6, "one two. three four.|five six."},
		{"one, two three four five six", 6, "one, two three four five|six"}, // the clause ends in the first half
		{"one two three four, five six seven", 6, "one two three four,|five six seven"},
		{"he said \"go.\" she went away", 7, "he said \"go.\"|she went away"},
		{"3.14 is a number, 2.71 too", 5, "3.14 is a number,|2.71 too"},
		{"我爱你。你爱我。他爱她", 6, "我爱你。|你爱我。|他爱她"},
		{"a b c d e f g", 1, "a|b|c|d|e|f|g"},
	} {
		tokens := tok.source.Tokens(nil, c.text)
		var got []string
		at := 0
		for _, p := range cut(c.text, tokens, c.limit) {
			if p.from != at || p.to <= p.from || p.to-p.from > c.limit {
				t.Errorf("%q: a part of tokens %d to %d after %d", c.text, p.from, p.to, at)
			}
			at = p.to
			got = append(got, c.text[tokens[p.from].Start:tokens[p.to-1].End])
		}
		if at != len(tokens) || strings.Join(got, "|") != c.want {
			t.Errorf("%q in parts of %d: %q, want %q", c.text, c.limit, got, c.want)
		}
	}
}

func TestJoin(t *testing.T) {
	for want, parts := range map[string][]string{"a b c": {"a b", "", "c"}, "你好。再见": {"你好。", "再见"}, "": nil} {
		if got := join(parts); got != want {
			t.Errorf("%q joined: %q, want %q", parts, got, want)
		}
	}
}

// A text of any length and content has a translation, in bounded time.
func TestHugeText(t *testing.T) {
	m := untrained()
	o := &PredictOptions{SearchOptions: SearchOptions{Beam: 1}, PieceLength: 200}
	huge := strings.Repeat("a b, ", 50000)
	found, err := m.Translate(context.Background(), []string{huge, "a\x00\xff\xfe b </s> <s> <pad>", "\u2028\u00a0 "}, o)
	if err != nil {
		t.Fatal(err)
	}
	if found[0].Left != 90000 || found[0].Parts != mostTokens/200 {
		t.Errorf("of 100,000 tokens %d were left out, the others translated in %d parts", found[0].Left, found[0].Parts)
	}
	if found[2].Text != "" || found[2].Parts != 0 {
		t.Errorf("white space became %q", found[2].Text)
	}
	path := filepath.Join(t.TempDir(), "texts")
	if err := os.WriteFile(path, []byte("a b\n\n"+huge+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	lines, err := m.Predict(context.Background(), task.Input{File: path}, o)
	if err != nil || len(lines.List) != 3 || len(lines.Notes) != 2 || !strings.Contains(lines.Notes[1], "in line 3 (90000 tokens left out in total)") {
		t.Errorf("notes %q of %d lines, error %v", lines.Notes, len(lines.List), err)
	}
}

// A tokenizer that was given is used as it is, and saved with the model.
func TestGivenTokenizer(t *testing.T) {
	dir := t.TempDir()
	cfg := tiny()
	cfg.Hidden, cfg.Embedding, cfg.Epochs, cfg.Holdout = 8, 6, 1, 0
	cfg.Tokenizer, cfg.Tokens = "../../text/testdata/sp_bpe.model", "bpe"
	pairs := learn([]data.Pair{{Source: "hello world", Target: "world hello"}})
	m, _, err := Train(context.Background(), pairs, cfg, &train.Run{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Tokenizer = filepath.Join(dir, text.SentencePieceFile)
	if _, err := os.Stat(cfg.Tokenizer); err != nil {
		t.Error(err)
	}
	back, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := back.cfg.encode(back.tok.source, "hello world"), m.cfg.encode(m.tok.source, "hello world"); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("the saved model reads %v, not %v", got, want)
	}
	cfg.Tokenizer = "none.model"
	var wrong *model.FileError
	if _, _, err := Train(context.Background(), pairs, cfg, nil); !errors.As(err, &wrong) {
		t.Errorf("a file that there is not: %v", err)
	}
}

// An unknown token becomes the source word that it looked at most.
func TestUnknownWords(t *testing.T) {
	m := untrained()
	pieces, _ := m.pieces(0, "a Zürich b", 10)
	v := m.tok.target.Vocabulary()
	h := &hypothesis{}
	for i, token := range []int32{v.ID("b"), v.UnknownID(), v.EndID()} {
		h.last = &node{h.last, token, i + 1, []float32{0.1, 0.6, 0.2, 0.7}}
	}
	if got := m.write(h, pieces[0], false); got != "b Zürich" {
		t.Errorf("the unknown word became %q, want %q", got, "b Zürich")
	}
	if got := m.write(h, pieces[0], true); got != "b "+text.Unknown {
		t.Errorf("the unknown word became %q, want %q", got, "b "+text.Unknown)
	}
}

// The forward direction goes on from part to part as if they were one text, and
// the other begins anew.
func TestCarriedState(t *testing.T) {
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden = 6, 8
	n, err := newNetwork(&cfg, 9, 9)
	if err != nil {
		t.Fatal(err)
	}
	tensor.Pack(tensor.CPU(), n, 1)
	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	first, second := []int32{4, 5, 3}, []int32{6, 7, 3}
	values := func(e *encoded) []float32 {
		v := make([]float32, e.values.Width())
		e.values.Read(0, 0, v)
		return v
	}
	whole := values(n.encodeAll(tape, [][]int32{append(slices.Clone(first), second...)}, nil))
	state := n.encodeAll(tape, [][]int32{first}, nil).last
	n.forwardOnly(state)
	carried := values(n.encodeAll(tape, [][]int32{second}, state))
	alone := values(n.encodeAll(tape, [][]int32{second}, nil))
	const width, half = 8, 4
	for i := range second {
		if got, want := carried[i*width:][:half], whole[(len(first)+i)*width:][:half]; !slices.Equal(got, want) {
			t.Errorf("forward outputs of token %d are %v, of the whole text %v", i, got, want)
		}
		if got, want := carried[i*width+half:][:half], alone[i*width+half:][:half]; !slices.Equal(got, want) {
			t.Errorf("backward outputs of token %d are %v, of the part alone %v", i, got, want)
		}
	}
}

// stopAt cancels a run at a line of its progress.
type stopAt struct {
	lines  int
	cancel func()
}

func (s *stopAt) Write(b []byte) (int, error) {
	if s.lines--; s.lines == 0 {
		s.cancel()
	}
	return len(b), nil
}

// A run cut off and resumed gives the bits of one that was not.
func TestResume(t *testing.T) {
	cfg := tiny()
	cfg.Hidden, cfg.Embedding, cfg.Epochs, cfg.Dropout, cfg.EMA = 16, 8, 3, 0.2, 0.9
	cfg.ScheduledSampling, cfg.TokenDropout, cfg.CarryState, cfg.Coverage, cfg.CoverageLoss = 0.3, 0.1, true, true, 0.1
	d := &Data{Parts: task.Parts[data.Pair]{Training: copies(120, 1), Validation: copies(10, 2)}}
	want, _, err := Train(context.Background(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := &train.Run{Dir: dir, Progress: &train.Progress{W: &stopAt{7, cancel}, Every: time.Nanosecond}}
	_, r, err := Train(ctx, d, cfg, o)
	if err != nil || !r.Interrupted {
		t.Fatalf("the run was not interrupted: %+v, %v", r, err)
	}
	got, r, err := Train(context.Background(), d, cfg, &train.Run{Dir: dir, Resume: true})
	if err != nil || r.ResumedAt == 0 {
		t.Fatalf("the run was not resumed: %+v, %v", r, err)
	}
	for i, p := range want.slab.Params {
		if !reflect.DeepEqual(p.Read(), got.slab.Params[i].Read()) {
			t.Errorf("%s differs after the run was resumed at step %d", p.Name, r.ResumedAt)
		}
	}
}

// Lines are answered as they come, not when the last one is there.
func TestLinesFromPipe(t *testing.T) {
	m := untrained()
	in, out := io.Pipe()
	answers := make(chan int)
	lines := 0
	go func() {
		for part, err := range m.Parts(context.Background(), task.Input{Stream: in}, nil) {
			if err != nil {
				t.Error(err)
				break
			}
			if lines += len(part.List); len(part.List) > 0 {
				answers <- lines
			}
		}
		close(answers)
	}()
	for line := 1; line <= 3; line++ {
		if _, err := io.WriteString(out, "a b\n"); err != nil {
			t.Fatal(err)
		}
		if got := <-answers; got != line {
			t.Fatalf("an answer to %d lines came after %d", got, line)
		}
	}
	out.Close()
	for range answers {
	}
}

func TestTrainRefuses(t *testing.T) {
	bare := filepath.Join(t.TempDir(), "bare.json")
	if err := os.WriteFile(bare, []byte(`{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}`), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pairs []data.Pair
		set   func(c *Config)
		want  string
	}{
		"no pairs":       {nil, func(c *Config) {}, "no token to learn"},
		"rare words":     {[]data.Pair{{Source: "a b", Target: "c d"}}, func(c *Config) { c.Tokens, c.MinCount = "word", 2 }, "no token occurs in the texts 2 times; give more text, or a smaller min_count"},
		"no bounds":      {copies(3, 1), func(c *Config) { c.Tokenizer = bare }, "bare.json: has no tokens for the beginning and end of a sequence"},
		"all empty":      {[]data.Pair{{Source: "a", Target: " "}}, func(c *Config) {}, "no pair of sentences is left"},
		"bad setting":    {copies(3, 1), func(c *Config) { c.Dropout = 1 }, "dropout: want"},
		"bad word":       {copies(3, 1), func(c *Config) { c.Attention = "self" }, "attention: want dot, general, additive"},
		"bad cell":       {copies(3, 1), func(c *Config) { c.Cell = "slstm" }, "bridge: the state of an slstm"},
		"bad search":     {copies(3, 1), func(c *Config) { c.Beam = 0 }, "beam: want"},
		"loss on none":   {copies(3, 1), func(c *Config) { c.CoverageLoss = 1 }, "coverage_loss: needs coverage"},
		"small alphabet": {copies(3, 1), func(c *Config) { c.Tokens, c.VocabularySize = "bpe", 50 }, "vocabulary of 50 tokens is too small"},
	} {
		cfg := tiny()
		c.set(&cfg)
		_, _, err := Train(context.Background(), learn(c.pairs), cfg, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for old, new := range map[string]string{
		`"hidden": 8`: `"hidden": 10`, `"task": "translate"`: `"task": "tag"`, `"attention": "general"`: `"attention": "none"`,
		`"longest_source": `: `"longest_source": -`, `"embedding": 6`: `"embedding": 6, "surprise": 1`,
	} {
		if err := untrained().Save(dir); err != nil {
			t.Fatal(err)
		}
		modeltest.Edit(t, dir, model.ConfigFile, modeltest.Replace(old, new))
		if _, err := Open(dir); err == nil {
			t.Errorf("%s in config.json: no error", new)
		}
	}
}

// FuzzTranslate translates anything.
func FuzzTranslate(f *testing.F) {
	for _, s := range []string{"", "a b c", "a. b, c! 。", "\xff\xc0\x80", "</s><s><unk>", strings.Repeat("a ", 300)} {
		f.Add(s, uint8(3), true)
	}
	f.Fuzz(func(t *testing.T, s string, limit uint8, carry bool) {
		if len(s) > 1000 {
			s = s[:1000]
		}
		m := untrained()
		o := &PredictOptions{SearchOptions: SearchOptions{Beam: 2, LengthPenalty: 1}, PieceLength: int(limit)%50 + 1, CarryState: carry, NBest: 2}
		found, err := m.Translate(context.Background(), []string{s, "a"}, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 2 || found[0].Source != s || found[1].Parts != 1 {
			t.Errorf("%q: %+v", s, found)
		}
	})
}
