package text

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// randomWord is a word over a small alphabet, so that tokens overlap in many ways.
func randomWord(r *rand.Rand, most int) string {
	var b strings.Builder
	for range 1 + r.IntN(most) {
		b.WriteString([]string{"a", "b", "c", "é", "我"}[r.IntN(5)])
	}
	return b.String()
}

// cuts lists every way to cut word into tokens.
func cuts(word string, tokens map[string]int32) [][]int32 {
	if word == "" {
		return [][]int32{nil}
	}
	var all [][]int32
	for end := 1; end <= len(word); end++ {
		if id, ok := tokens[word[:end]]; ok {
			for _, rest := range cuts(word[end:], tokens) {
				all = append(all, append([]int32{id}, rest...))
			}
		}
	}
	return all
}

// A unigram model finds the best of all cuts, and its training expects what all
// cuts together make.
func TestUnigramAgainstEnumeration(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		ids := map[string]int32{}
		var scores []float64
		add := func(s string) {
			if _, ok := ids[s]; !ok {
				ids[s] = int32(len(scores))
				scores = append(scores, -1-5*r.Float64())
			}
		}
		for _, c := range []string{"a", "b", "c", "é", "我"} {
			add(c)
		}
		for range 20 {
			add(randomWord(r, 4))
		}
		word := randomWord(r, 9)
		best, sum := math.Inf(-1), 0.0
		var bestCut []int32
		expected := make([]float64, len(scores))
		for _, cut := range cuts(word, ids) {
			score := 0.0
			for _, id := range cut {
				score += scores[id]
			}
			if score > best {
				best, bestCut = score, cut
			}
			sum += math.Exp(score)
			for _, id := range cut {
				expected[id] += math.Exp(score)
			}
		}
		var got []int32
		for _, token := range newUnigram(ids, scores).encode(nil, []byte(word), 0) {
			got = append(got, token.ID)
		}
		if !slices.Equal(got, bestCut) {
			t.Errorf("%s is cut into %v, the best cut is %v", word, got, bestCut)
		}
		trainer := &unigramTrainer{words: []string{word}, counts: []float64{3}, tokens: make([]string, len(scores)), scores: scores}
		for s, id := range ids {
			trainer.tokens[id] = s
		}
		trainer.index()
		counts, err := trainer.expect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for id, n := range counts {
			if want := 3 * expected[id] / sum; math.Abs(n-want) > 1e-9 {
				t.Errorf("%s: token %s is expected %g times, not %g", word, trainer.tokens[id], n, want)
			}
		}
	}
}

// Byte pair encoding with a queue does what looking for the best pair again and
// again does.
func TestBPEAgainstSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		m := newBPE(map[string]int32{"a": 0, "b": 1, "c": 2, "é": 3, "我": 4})
		tokens := []string{"a", "b", "c", "é", "我"}
		for rank := range int32(12) {
			a, b := tokens[r.IntN(len(tokens))], tokens[r.IntN(len(tokens))]
			if _, ok := m.ids[a+b]; !ok {
				m.ids[a+b] = int32(len(tokens))
				tokens = append(tokens, a+b)
			}
			if _, ok := m.merges[pairKey(m.ids[a], m.ids[b])]; !ok {
				if err := m.addMerge(a, b, rank); err != nil {
					t.Fatal(err)
				}
			}
		}
		word := randomWord(r, 30)
		var want []string
		for _, c := range word {
			want = append(want, string(c))
		}
		for {
			at, best := -1, merge{rank: math.MaxInt32}
			for i := range len(want) - 1 {
				if to, ok := m.merges[pairKey(m.ids[want[i]], m.ids[want[i+1]])]; ok && to.rank < best.rank {
					at, best = i, to
				}
			}
			if at < 0 {
				break
			}
			want[at] += want[at+1]
			want = slices.Delete(want, at+1, at+2)
		}
		var got []string
		for _, token := range m.encode(nil, []byte(word), 0) {
			got = append(got, tokens[token.ID])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, not %q", word, got, want)
		}
	}
}

// Learning merges with counts kept up to date equals counting from scratch.
func TestBPETrainingAgainstCounting(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	words := map[string]int64{}
	for range 300 {
		words[randomWord(r, 12)] += 1 + int64(r.IntN(5))
	}
	trained, err := trainBPE(t.Context(), nil, nil, words, 60, 1)
	if err != nil {
		t.Fatal(err)
	}
	split := map[string][]string{}
	for w := range words {
		for _, c := range w {
			split[w] = append(split[w], string(c))
		}
	}
	for step, pair := range trained.merges {
		counts := map[[2]int32]int64{}
		for w, parts := range split {
			for i := range len(parts) - 1 {
				counts[[2]int32{trained.ids[parts[i]], trained.ids[parts[i+1]]}] += words[w]
			}
		}
		best := pair
		for other, n := range counts {
			if n > counts[best] || n == counts[best] && slices.Compare(other[:], best[:]) < 0 {
				best = other
			}
		}
		if best != pair {
			t.Fatalf("merge %d is of %v with a count of %d; %v has %d", step, pair, counts[pair], best, counts[best])
		}
		a, b := trained.tokens[pair[0]], trained.tokens[pair[1]]
		for w, parts := range split {
			for i := 0; i+1 < len(parts); i++ {
				if parts[i] == a && parts[i+1] == b {
					parts[i] += b
					parts = slices.Delete(parts, i+1, i+2)
				}
			}
			split[w] = parts
		}
	}
}

func TestDigamma(t *testing.T) {
	const euler = 0.57721566490153286
	for x, want := range map[float64]float64{1: -euler, 0.5: -euler - 2*math.Ln2, 2: 1 - euler, 100: 4.6001618527380874} {
		if got := digamma(x); math.Abs(got-want) > 1e-9 {
			t.Errorf("digamma(%g) is %.12g, not %.12g", x, got, want)
		}
	}
}

// A vocabulary that is smaller than the seeds is reached by pruning, and holds
// what the texts are made of.
func TestUnigramPruning(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	parts := []string{"inter", "nation", "al", "ly", "con", "struct", "ion", "re", "form", "able"}
	words := map[string]int64{}
	for range 2000 {
		w := "▁"
		for range 2 + r.IntN(3) {
			w += parts[r.IntN(len(parts))]
		}
		words[w]++
	}
	trained, err := trainUnigram(t.Context(), words, 30, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(trained.tokens) > 30 || !slices.IsSortedFunc(trained.scores, func(a, b float64) int { return cmp.Compare(b, a) }) {
		t.Errorf("%d tokens with the scores %v", len(trained.tokens), trained.scores)
	}
	for _, p := range append(parts[:6:6], "▁", "i", "n", "t") {
		if !slices.Contains(trained.tokens, p) {
			t.Errorf("%s is not among the tokens %q", p, trained.tokens)
		}
	}
	mass := 0.0
	for _, s := range trained.scores {
		mass += math.Exp(s)
	}
	if mass > 1.001 || mass < 0.9 {
		t.Errorf("the probabilities add up to %g", mass)
	}
}
