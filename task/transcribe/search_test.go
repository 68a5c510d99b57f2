package transcribe

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// said is what a path of classes spells.
func said(path []int32) (classes []int32) {
	for t, c := range path {
		if c != 0 && (t == 0 || c != path[t-1]) {
			classes = append(classes, c)
		}
	}
	return classes
}

// byText sums the probability of every path by the text it spells.
func byText(a *alphabet, rows [][]float64) map[string]float64 {
	texts := map[string]float64{}
	path := make([]int32, len(rows))
	for {
		var p float64
		for t, c := range path {
			p += rows[t][c]
		}
		var b strings.Builder
		for _, c := range said(path) {
			b.WriteString(a.unit(c))
		}
		texts[b.String()] += math.Exp(p)
		t := 0
		for ; t < len(path); t++ {
			if path[t]++; int(path[t]) < a.classes() {
				break
			}
			path[t] = 0
		}
		if t == len(path) {
			return texts
		}
	}
}

// randomRows are log probabilities of steps.
func randomRows(r *rand.Rand, steps, classes int, sharp float64) [][]float64 {
	rows := make([][]float64, steps)
	for t := range rows {
		rows[t] = make([]float64, classes)
		var sum float64
		for c := range rows[t] {
			rows[t][c] = sharp * r.NormFloat64()
			sum += math.Exp(rows[t][c])
		}
		for c := range rows[t] {
			rows[t][c] -= math.Log(sum)
		}
	}
	return rows
}

func run(a *alphabet, d *Decoding, rows [][]float64, n int) []hypothesis {
	s := newSearch(a, d)
	for _, row := range rows {
		s.push(row)
	}
	return s.best(n, true)
}

// spoken sums the probabilities of texts that are the same words, of those that a
// search may find: it begins none with a space, and has none twice.
func spoken(texts map[string]float64) map[string]float64 {
	sums := map[string]float64{}
	for text, p := range texts {
		if words := strings.Join(strings.Fields(text), " "); text == words || text == words+" " && words != "" {
			sums[words] += p
		}
	}
	return sums
}

// A wide enough beam finds the likeliest texts of all paths, and their exact
// probabilities.
func TestBeamFindsTheLikeliestTexts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, units := range [][]string{{"a", "b", "c"}, {" ", "a", "b"}} {
		a := newAlphabet("char", units, nil)
		for range 20 {
			rows := randomRows(r, 6, a.classes(), 1)
			texts := spoken(byText(a, rows))
			order := slices.SortedFunc(maps.Keys(texts), func(x, y string) int { return cmp.Compare(texts[y], texts[x]) })
			for i, h := range run(a, &Decoding{Beam: 2000, nBest: 5}, rows, 5) {
				got := a.decode(h.classes)
				if got != order[i] || math.Abs(h.score-math.Log(texts[got])) > 1e-9 {
					t.Fatalf("%q, place %d: %q with %v, want %q with %v", units, i, got, h.score, order[i], math.Log(texts[order[i]]))
				}
			}
		}
	}
}

// writeLM is a small model of words: a b and ba, the bigram "a ba" likely.
func writeLM(t *testing.T) *LM {
	path := filepath.Join(t.TempDir(), "lm.arpa")
	text := `a comment
\data\
ngram 1=6
ngram 2=4

\1-grams:
-99 <s> -0.3
-1.0 </s>
-1.2 <unk>
-0.5 a -0.2
-0.7 b -0.1
-0.9 ba

\2-grams:
-0.2 <s> a
-0.1 a ba
-0.8 b a
-0.3 ba </s>

\end\
`
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	lm, err := ReadLM(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return lm
}

func TestLMScores(t *testing.T) {
	lm := writeLM(t)
	for _, c := range []struct {
		text string
		want float64 // log10
	}{
		{"a", -0.2 - 0.2 - 1.0},                    // <s> a; a </s> backs off
		{"a ba", -0.2 - 0.1 - 0.3},                 // all bigrams
		{"b b", (-0.3 - 0.7) + (-0.1 - 0.7) - 1.1}, // all back off
		{"x a", (-0.3 - 1.2) - 0.5 - 0.2 - 1.0},    // unknown: <s> backs off; no context after it
		{"a x", -0.2 + (-0.2 - 1.2) - 1.0},         // likewise a
		{"", -0.3 - 1.0},
	} {
		s, got := lm.start(), 0.0
		for _, w := range strings.Fields(c.text) {
			p, next := lm.score(s, w)
			got, s = got+p, next
		}
		got += lm.finish(s)
		if math.Abs(got/math.Ln10-c.want) > 1e-6 {
			t.Errorf("%q: %v, want %v", c.text, got/math.Ln10, c.want)
		}
	}
	if lm.Order() != 2 || !lm.Has("ba") || lm.Has("x") {
		t.Errorf("order %d, ba %v, x %v", lm.Order(), lm.Has("ba"), lm.Has("x"))
	}
}

// With a language model, a lexicon, a bonus and hot words the wide beam agrees
// with scoring every text in full.
func TestBeamWithLexiconAndLM(t *testing.T) {
	lm := writeLM(t)
	a := newAlphabet("char", []string{" ", "a", "b"}, nil)
	r := rand.New(rand.NewPCG(2, 2))
	for trial := range 24 {
		d := &Decoding{Beam: 5000}
		if trial%2 == 0 {
			d.LM, d.LMWeight = lm, 0.8
		}
		if trial%3 == 0 {
			d.Lexicon = NewLexicon([]string{"a", "ba", "bb"})
		}
		if trial%4 == 0 {
			d.HotWords, d.HotWeight = []string{"bb"}, 1.5
		}
		d.WordBonus = 0.4
		rows := randomRows(r, 6, a.classes(), 1.5)
		best, bestText := never, ""
		for text, p := range spoken(byText(a, rows)) {
			words := strings.Fields(text)
			score := math.Log(p) + 0.4*float64(len(words))
			state := lm.start()
			allowed := true
			for _, w := range words {
				if d.LM != nil {
					q, next := lm.score(state, w)
					score, state = score+0.8*q, next
				}
				allowed = allowed && (d.Lexicon == nil || w == "a" || w == "ba" || w == "bb")
				if d.HotWords != nil && w == "bb" {
					score += 1.5
				}
			}
			if d.LM != nil {
				score += 0.8 * lm.finish(state)
			}
			if allowed && score > best {
				best, bestText = score, text
			}
		}
		h := run(a, d, rows, 1)[0]
		if got := a.decode(h.classes); got != strings.TrimSpace(bestText) || math.Abs(h.score-best) > 1e-9 {
			t.Errorf("trial %d: %q with %v, want %q with %v", trial, got, h.score, bestText, best)
		}
	}
}

// A text has only words of the lexicon, even where no hypothesis that the search
// kept ends in one.
func TestNoUnfinishedWord(t *testing.T) {
	a := newAlphabet("char", []string{" ", "a", "b"}, nil)
	lexicon := NewLexicon([]string{"a", "abba"})
	r := rand.New(rand.NewPCG(4, 4))
	cut := 0
	for range 200 {
		rows := randomRows(r, 7, a.classes(), 4)
		s := newSearch(a, &Decoding{Beam: 1, Lexicon: lexicon})
		for _, row := range rows {
			s.push(row)
		}
		before, after := a.decode(s.best(1, false)[0].classes), a.decode(s.best(1, true)[0].classes)
		for _, w := range strings.Fields(after) {
			if w != "a" && w != "abba" {
				t.Fatalf("%q has %q", after, w)
			}
		}
		if before != after {
			cut++
		}
	}
	if cut == 0 {
		t.Error("no trial ended inside a word")
	}
}

// A lexicon or language model that shares no letter with the model is a mistake, such as of case.
func TestDecodingOfAnotherAlphabet(t *testing.T) {
	lm := writeLM(t)
	a, upper, pieces := newAlphabet("char", []string{" ", "a", "b"}, nil), newAlphabet("char", []string{" ", "A", "B"}, nil), newAlphabet("space", []string{"x", "y"}, nil)
	for _, c := range []struct {
		a    *alphabet
		d    Decoding
		want string
	}{
		{a, Decoding{LM: lm}, ""},
		{a, Decoding{LM: lm, LMTokens: true}, ""},
		{a, Decoding{Lexicon: NewLexicon([]string{"x", "xa", "ab"})}, ""},
		{a, Decoding{Lexicon: NewLexicon([]string{"x", "ax"})}, "lexicon: the model has the tokens for none of its words"},
		{upper, Decoding{LM: lm}, `language model: the model has the tokens for none of its words; it has " ", "A", "B"`},
		{pieces, Decoding{LM: lm}, "language model: the model has the tokens for none of its words"},
	} {
		switch err := c.d.check(c.a); {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.a.Units, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: got %v, want %q", c.a.Units, err, c.want)
		}
	}
}

// Pieces of words go through the same search as characters.
func TestBeamOfPieces(t *testing.T) {
	lm := writeLM(t)
	a := newAlphabet("bpe", []string{" a", " b", "a", "b"}, nil)
	r := rand.New(rand.NewPCG(6, 6))
	for trial := range 12 {
		rows := randomRows(r, 5, a.classes(), 1.5)
		d := &Decoding{Beam: 5000, LM: lm, LMWeight: 0.8, WordBonus: 0.4}
		if trial%2 == 0 {
			d.Lexicon = NewLexicon([]string{"a", "ba", "bb"})
		}
		best, bestText := never, ""
		for text, p := range byText(a, rows) {
			score := math.Log(p)
			state, allowed := lm.start(), true
			for _, w := range strings.Fields(text) {
				q, next := lm.score(state, w)
				score, state = score+0.8*q+0.4, next
				allowed = allowed && (d.Lexicon == nil || w == "a" || w == "ba" || w == "bb")
			}
			if score += 0.8 * lm.finish(state); allowed && score > best {
				best, bestText = score, text
			}
		}
		h := run(a, d, rows, 1)[0]
		if got := a.decode(h.classes); got != strings.TrimSpace(bestText) || math.Abs(h.score-best) > 1e-9 {
			t.Errorf("trial %d: %q with %v, want %q with %v", trial, got, h.score, bestText, best)
		}
	}
}

// A model of characters scores each of them.
func TestBeamWithAModelOfUnits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lm.arpa")
	text := "\\data\\\nngram 1=4\n\\1-grams:\n-2 a\n-0.1 b\n-1 <space>\n-1 </s>\n\\end\\\n"
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	lm, err := ReadLM(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	a := newAlphabet("char", []string{" ", "a", "b"}, nil)
	rows := [][]float64{{-5, -5, -0.6, -0.8}, {-0.01, -6, -6, -6}, {-5, -5, -0.6, -0.8}}
	if got := a.decode(run(a, &Decoding{Beam: 50}, rows, 1)[0].classes); got != "aa" {
		t.Errorf("without the model %q, want aa", got)
	}
	if got := a.decode(run(a, &Decoding{LM: lm, LMTokens: true, LMWeight: 1}, rows, 1)[0].classes); got != "bb" {
		t.Errorf("with the model %q, want bb", got)
	}
}

func TestGreedy(t *testing.T) {
	a := newAlphabet("char", []string{" ", "a", "b"}, nil)
	const hi, lo = -0.05, -6
	rows := [][]float64{{hi, lo, lo, lo}, {lo, lo, -0.3, lo}, {lo, lo, hi, lo}, {hi, lo, lo, lo}, {lo, lo, hi, lo}, {lo, hi, lo, lo}, {lo, lo, lo, hi}}
	h := run(a, &Decoding{}, rows, 1)[0]
	if got := a.decode(h.classes); got != "aa b" {
		t.Fatalf("text %q", got)
	}
	if want := []int{2, 4, 5, 6}; !slices.Equal(h.steps, want) {
		t.Errorf("steps %v, want %v", h.steps, want)
	}
	m := &Model{alphabet: a}
	m.cfg.Hop, m.cfg.Stack = 10, 2
	words := m.words(&h, 0.14)
	if got, want := fmt.Sprintf("%.3v", words), "[{aa 0.04 0.1 0.951} {b 0.12 0.14 0.951}]"; got != want {
		t.Errorf("words %s, want %s", got, want)
	}
	beam := run(a, &Decoding{Beam: 30}, rows, 1)[0]
	if !slices.Equal(beam.steps, []int{1, 4, 5, 6}) || a.decode(beam.classes) != "aa b" {
		t.Errorf("beam: %q at %v", a.decode(beam.classes), beam.steps)
	}
}
