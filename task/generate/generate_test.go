package generate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

func logs(p ...float64) []float32 {
	out := make([]float32, len(p))
	for i, v := range p {
		out[i] = float32(math.Log(v))
	}
	return out
}

// TestSampler draws many times and compares the shares with the probabilities
// that each setting leaves.
func TestSampler(t *testing.T) {
	p := []float64{0.05, 0.4, 0.1, 0.3, 0.15}
	for _, c := range []struct {
		name string
		s    sampler
		want []float64
	}{
		{"as it is", sampler{temperature: 1, topP: 1}, p},
		{"hot", sampler{temperature: 2, topP: 1}, []float64{.1054, .2981, .1491, .2582, .1826}},
		{"three", sampler{temperature: 1, topK: 3, topP: 1}, []float64{0, .4 / .85, 0, .3 / .85, .15 / .85}},
		{"nucleus", sampler{temperature: 1, topP: 0.6}, []float64{0, .4 / .7, 0, .3 / .7, 0}},
		{"exact nucleus", sampler{temperature: 1, topP: 0.3}, []float64{0, 1, 0, 0, 0}},
		{"nucleus of three", sampler{temperature: 1, topK: 3, topP: 0.8}, []float64{0, .4 / .7, 0, .3 / .7, 0}},
		{"unsaid", sampler{temperature: 1, topP: 1, unsaid: []int32{1}}, []float64{.05 / .6, 0, .1 / .6, .3 / .6, .15 / .6}},
		{"greedy", sampler{topP: 1}, []float64{0, 1, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const draws = 20000
			r := rand.New(rand.NewPCG(5, 5))
			n := make([]float64, len(p))
			for range draws {
				n[c.s.pick(logs(p...), r)]++
			}
			for i, want := range c.want {
				if tolerance := 4 * math.Sqrt(want*(1-want)/draws); math.Abs(n[i]/draws-want) > tolerance+1e-4 {
					t.Errorf("token %d: %v of the draws, want %v", i, n[i]/draws, want)
				}
			}
		})
	}
}

func TestSamplerBearsAnything(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, v := range [][]float32{{nan, nan}, {inf, inf}, {inf, 0}, {nan, -1}, {0}} {
		for _, s := range []sampler{{temperature: 1, topP: 1}, {temperature: 1e-9, topP: 0.5}, {topP: 1}, {temperature: 100, topK: 9, topP: 1}} {
			if id := s.pick(slices.Clone(v), rand.New(rand.NewPCG(1, 1))); id < 0 || int(id) >= len(v) {
				t.Errorf("%v: drew %d", v, id)
			}
		}
	}
}

// TestStopper feeds texts in random pieces: what comes out is the text before
// the first stop string, and nothing is given out too early.
func TestStopper(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	stops := []string{"aab", "ba", "cc\n"}
	for range 500 {
		var text strings.Builder
		for range r.IntN(20) {
			text.WriteByte("abc\n"[r.IntN(4)])
		}
		want, found := text.String(), false
		for end := range len(want) { // the first whose end comes first
			for _, stop := range stops {
				if !found && strings.HasSuffix(want[:end+1], stop) {
					found, want = true, want[:end+1-len(stop)]
				}
			}
			if found {
				break
			}
		}
		s, got, stopped := stopper{stops: stops}, "", false
		for _, c := range text.String() {
			var out string
			out, stopped = s.pass(string(c))
			got += out
			if stopped {
				break
			}
		}
		if !stopped {
			got += s.rest()
		}
		if got != want || stopped != found {
			t.Fatalf("%q: %q, stopped %v; want %q, %v", text.String(), got, stopped, want, found)
		}
	}
}

// TestDecoder: the parts of a stream are whole characters and make up the text.
func TestDecoder(t *testing.T) {
	text := "Ein Mädchen 🙂 sagte: 你好, wörld!\n\nNext line  here 👩‍👩‍👧 end"
	for _, unit := range units {
		t.Run(unit, func(t *testing.T) {
			cfg := small(unit)
			if unit == "bpe" {
				cfg.VocabularySize = 262 // next to no merges: characters in pieces
			}
			k, err := trainCodec(t.Context(), &cfg, docs(text))
			if err != nil {
				t.Fatal(err)
			}
			ids := k.encode(t.Context(), []int32{k.begin}, text)
			want := text
			if unit == "space" {
				want = strings.ReplaceAll(text, "  ", " ")
			}
			if got := k.decode(ids); got != want {
				t.Errorf("decoded %q", got)
			}
			for cut := 1; cut < len(ids); cut += 3 {
				d := decoder{codec: k}
				d.begin(ids[:cut])
				got := strings.ToValidUTF8(k.decode(ids[:cut]), "")
				if strings.ContainsRune(got, utf8.RuneError) {
					continue // the context itself ends within a character
				}
				for _, id := range ids[cut:] {
					part := d.next(id)
					if !utf8.ValidString(part) || strings.ContainsRune(part, utf8.RuneError) {
						t.Fatalf("part %q", part)
					}
					got += part
				}
				if got += d.rest(); got != want {
					t.Fatalf("from token %d on: %q", cut, got)
				}
			}
		})
	}
}

func TestDecoderEndsHalfCharacters(t *testing.T) {
	cfg := small("bpe")
	cfg.VocabularySize = 262
	k, err := trainCodec(t.Context(), &cfg, docs("🙂"))
	if err != nil {
		t.Fatal(err)
	}
	ids := k.encode(t.Context(), nil, "🙂")
	if len(ids) < 2 {
		t.Skip("the character is one token")
	}
	d := decoder{codec: k}
	if got := d.next(ids[0]); got != "" {
		t.Errorf("half a character came out: %q", got)
	}
	if got := d.rest(); !utf8.ValidString(got) || got == "" {
		t.Errorf("at the end: %q", got)
	}
	for range 100 { // an endless half never holds more than it may
		d.next(ids[0])
		if len(d.ids) > maxPending+1 {
			t.Fatalf("%d tokens wait", len(d.ids))
		}
	}
}

// TestSpecialTokensAreText: what reads like a special token is text like any
// other, but in a corpus of separated words.
func TestSpecialTokensAreText(t *testing.T) {
	text := "<s>struck</s> and <pad> <<unk>> </s"
	for _, unit := range []string{"char", "bpe"} {
		cfg := small(unit)
		if unit == "bpe" {
			cfg.VocabularySize = 262
		}
		k, err := trainCodec(t.Context(), &cfg, docs(text))
		if err != nil {
			t.Fatal(err)
		}
		ids := k.encode(t.Context(), nil, text)
		if got := k.decode(ids); got != text {
			t.Errorf("%s: %q", unit, got)
		}
		for _, id := range ids {
			if k.tokens.IsSpecial(id) {
				t.Errorf("%s: special token %d", unit, id)
			}
		}
	}
}

func TestTrace(t *testing.T) {
	text := "Größe: 5\n\n  zwei <s>Wörter "
	for _, unit := range units {
		cfg := small(unit)
		if unit == "bpe" {
			cfg.VocabularySize = 270
		}
		k, err := trainCodec(t.Context(), &cfg, docs(text))
		if err != nil {
			t.Fatal(err)
		}
		var ids []int32
		at := 0
		joined := ""
		for part := range k.trace(blocks(text)) {
			if part.at != len(joined) {
				t.Errorf("%s: a part at %d after %q", unit, part.at, joined)
			}
			joined += part.text
			for _, token := range part.tokens {
				ids = append(ids, token.ID)
				if token.Start < at || token.End < token.Start || token.End > len(joined) {
					t.Errorf("%s: token %+v after byte %d", unit, token, at)
				}
				at = token.Start
				if unit == "space" && text[token.Start:token.End] != "\n" && k.name(token.ID) != text[token.Start:token.End] {
					t.Errorf("token %q stands for %q", k.name(token.ID), text[token.Start:token.End])
				}
			}
		}
		if joined != text {
			t.Errorf("%s: parts make %q", unit, joined)
		}
		if want := k.encode(t.Context(), nil, text); !slices.Equal(ids, want) {
			t.Errorf("%s: traced %v, encoded %v", unit, ids, want)
		}
	}
}

func TestGenerate(t *testing.T) {
	m := trained(t, small("char"), story)
	ctx := context.Background()
	prompts := []string{"The cat", "", "The bird sang in the tree and flew away over the floor"}
	parts := map[int]string{}
	o := &PredictOptions{MaxTokens: 40, Samples: 3, Seed: 5, Temperature: 0.8, OnText: func(i int, part string) error {
		parts[i] += part
		return nil
	}}
	together, err := m.Generate(ctx, prompts, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(together) != 9 {
		t.Fatalf("%d texts", len(together))
	}
	for i, g := range together {
		if parts[i] != g.Text || g.Prompt != prompts[i/3] || g.Tokens > 40 || g.Ended == EndedByLength && utf8.RuneCountInString(g.Text) != 40 {
			t.Errorf("text %d: %+v, in parts %q", i, g, parts[i])
		}
	}
	if together[0].Text == together[1].Text {
		t.Error("two draws are equal")
	}
	// What a text is does not depend on those beside it, and its log p is the model's.
	alone, err := m.Generate(ctx, prompts[:1], &PredictOptions{MaxTokens: 40, Samples: 1, Seed: 5, Temperature: 0.8})
	if err != nil || alone[0] != together[0] {
		t.Errorf("alone %+v, together %+v (%v)", alone[0], together[0], err)
	}
	s, err := m.Score(t.Context(), "The cat", []string{together[0].Text}, true)
	if err != nil {
		t.Fatal(err)
	}
	if together[0].Ended == EndedByLength && math.Abs(s[0].LogProb-together[0].LogProb) > 1e-3 {
		t.Errorf("log p %v, scored %v", together[0].LogProb, s[0].LogProb)
	}
	failure := errors.New("no room")
	if _, err := m.Generate(ctx, prompts, &PredictOptions{OnText: func(int, string) error { return failure }}); err != failure {
		t.Errorf("error %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := m.Generate(cancelled, prompts, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestGenerateInBatches: more texts than fit side by side come in their order.
func TestGenerateInBatches(t *testing.T) {
	m := trained(t, small("char"), story)
	many, err := m.Generate(context.Background(), []string{"The", "A"}, &PredictOptions{MaxTokens: 2, Samples: generationRows + 3})
	if err != nil || len(many) != 2*(generationRows+3) {
		t.Fatalf("%d texts, %v", len(many), err)
	}
	var prompts []string
	for i := range generationRows + 7 {
		prompts = append(prompts, strings.Repeat("The cat ", i%5))
	}
	texts, err := m.Generate(context.Background(), prompts, &PredictOptions{MaxTokens: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range texts {
		if g.Prompt != prompts[i] {
			t.Fatalf("text %d follows %q", i, g.Prompt)
		}
	}
}

// TestGenerationIsStateful counts what a longer text costs: a thousand more
// tokens are a thousand more steps of one token, whatever came before, and the
// steps allocate nothing in the tensor layer.
func TestGenerationIsStateful(t *testing.T) {
	m := trained(t, small("char"), story)
	s := m.read([][]int32{m.codec.encode(t.Context(), []int32{m.codec.begin}, story)}, 4)
	ids, all := make([]int32, 4), []int32{0, 1, 2, 3}
	feed := func() {
		for i := range ids {
			ids[i] = (ids[i] + 1) % int32(m.net.vocabulary)
		}
		s.feed(all, ids)
	}
	feed()
	before := s.tape.Bytes()
	for range 1000 {
		feed()
	}
	if s.steps != 1001 {
		t.Errorf("%d steps for 1001 tokens", s.steps)
	}
	if n := s.tape.Bytes(); n != before {
		t.Errorf("the tape grew from %d to %d bytes", before, n)
	}
	if n := testing.AllocsPerRun(50, feed); n > 0 {
		t.Errorf("%v allocations a token", n)
	}
}

// A text that has ended is no longer computed, and the others' distributions are
// the same bits without it.
func TestEndedTextsLeave(t *testing.T) {
	m := trained(t, small("char"), story)
	prompt := m.codec.encode(t.Context(), []int32{m.codec.begin}, story[:20])
	a, b := m.read([][]int32{prompt}, 5), m.read([][]int32{prompt}, 5)
	defer a.close()
	defer b.close()
	n := int32(m.net.vocabulary)
	all := []int32{0, 1, 2, 3, 4}
	for step := range int32(20) {
		texts := []int32{0, 2, 3}
		if step > 10 {
			texts = []int32{2}
		}
		id := func(text int32) int32 { return (3*step + text) % n }
		var ids, some []int32
		for _, i := range all {
			ids = append(ids, id(i))
		}
		for _, i := range texts {
			some = append(some, id(i))
		}
		a.feed(all, ids)
		b.feed(texts, some)
		for k, i := range texts {
			if !slices.Equal(a.row(int(i)), b.row(k)) {
				t.Fatalf("step %d: text %d differs when others have left", step, i)
			}
		}
		if len(b.next) != len(texts)*m.net.vocabulary {
			t.Fatalf("%d numbers for %d texts", len(b.next), len(texts))
		}
	}
}

// Options that begin as the defaults are taken as they are: a temperature of 0 is
// always the likeliest token.
func TestDefaultPredict(t *testing.T) {
	m := trained(t, small("char"), story)
	o := DefaultPredict()
	o.Temperature, o.MaxTokens, o.Samples = 0, 20, 2
	cold, err := m.Generate(t.Context(), []string{"The"}, &o)
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := m.Generate(t.Context(), []string{"The"}, &PredictOptions{Greedy: true, MaxTokens: 20})
	if err != nil || cold[0].Text != cold[1].Text || cold[0].Text != greedy[0].Text {
		t.Errorf("at temperature 0 %q and %q, greedy %q (%v)", cold[0].Text, cold[1].Text, greedy[0].Text, err)
	}
	var input *data.InputError
	o.MaxTokens = 0
	if _, err := m.Generate(t.Context(), []string{""}, &o); !errors.As(err, &input) {
		t.Errorf("a length of 0: %v", err)
	}
}

func TestGenerateRefuses(t *testing.T) {
	m := trained(t, small("char"), story)
	for _, o := range []PredictOptions{
		{MaxTokens: -1}, {Samples: -1}, {Samples: 1e7}, {Temperature: -1}, {Temperature: math.NaN()}, {TopK: -1}, {TopP: 1.5}, {TopP: math.NaN()}, {Stop: []string{""}},
	} {
		var input *data.InputError
		if _, err := m.Generate(context.Background(), []string{""}, &o); !errors.As(err, &input) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// FuzzPrompt: no prompt, continuation or text makes anything but an answer or an error.
func FuzzPrompt(f *testing.F) {
	var models []*Model
	for _, unit := range units {
		cfg := small(unit)
		cfg.Epochs = 1
		if unit == "bpe" {
			cfg.VocabularySize = 280
		}
		models = append(models, trained(f, cfg, story))
	}
	for _, s := range []string{"", "The cat", "\xff\xfe", "</s><s><pad>", "\n\n\n", "🙂 你好", strings.Repeat("a", 600), "a\x00b", "<eos> <unk>"} {
		f.Add(s, "mat")
		f.Add("The", s)
	}
	f.Fuzz(func(t *testing.T, prompt, next string) {
		for _, m := range models {
			texts, err := m.Generate(context.Background(), []string{prompt, next}, &PredictOptions{MaxTokens: 5, Stop: []string{next + "x"}})
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range texts {
				if !utf8.ValidString(g.Text) || math.IsNaN(g.LogProb) {
					t.Fatalf("text %+v", g)
				}
			}
			var input *data.InputError
			if _, err := m.Score(t.Context(), prompt, []string{next, "mat"}, false); err != nil && !errors.As(err, &input) {
				t.Fatal(err)
			}
			if _, err := m.Evaluate(context.Background(), learnt(docs(prompt+next)), task.All, nil); err != nil && !errors.As(err, &input) {
				t.Fatal(err)
			}
		}
	})
}

func ExampleModel_Generate() {
	docs := []data.Document{{Text: strings.Repeat("one two three four five. ", 40)}}
	cfg := Defaults()
	cfg.Hidden, cfg.Epochs, cfg.LR, cfg.Split = 32, 20, 0.01, "1,0,0"
	d, err := NewData(docs, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	m, _, err := Train(context.Background(), d, cfg, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	texts, _ := m.Generate(context.Background(), []string{"one two"}, &PredictOptions{Greedy: true, MaxTokens: 100, Stop: []string{"."}})
	fmt.Println(texts[0].Text)
	// Output: three four five
}

// The tokens of a long text are not held together.
func TestTraceInBoundedMemory(t *testing.T) {
	cfg := Defaults()
	cfg.Tokens = "char"
	long := strings.Repeat("all the small things\n", 300_000)
	k, err := trainCodec(t.Context(), &cfg, docs(long[:1000]))
	if err != nil {
		t.Fatal(err)
	}
	most, n := uint64(0), 0
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	for part := range k.trace(blocks(long)) {
		n += len(part.tokens)
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}
	if n != len(long) {
		t.Errorf("%d tokens of %d characters", n, len(long))
	}
	if most > before+90<<20 { // what one block needs; all tokens would be 150 MB
		t.Errorf("%d bytes for %d tokens", most-before, n)
	}
}

// Encoding a long text ends with the context.
func TestEncodingCanBeCancelled(t *testing.T) {
	cfg := Defaults()
	text := docs(strings.Repeat("one two three\n", 100))
	cfg.settleText(characters(t, text), false)
	k, err := trainCodec(t.Context(), &cfg, text)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newCorpus(ctx, k, text, false, ""); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
