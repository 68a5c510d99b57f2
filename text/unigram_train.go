package text

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// The settings of unigram training, as in SentencePiece where it has them.
const (
	seedFactor   = 30   // seed tokens per final token
	maxSeeds     = 1e6  // seed tokens in all
	longestToken = 16   // characters of a token
	longestPart  = 32   // characters of a piece that are processed together
	shrink       = 0.75 // share of the tokens kept in a round of pruning
	rounds       = 2    // rounds of expectation and maximisation between prunings
	headroom     = 1.1  // pruning ends at this multiple of the final number of tokens
	leastUse     = 0.5  // minimum expected count of a kept token
)

// unigramTrainer learns the tokens of a unigram model.
type unigramTrainer struct {
	words   []string // in order
	counts  []float64
	tokens  []string
	scores  []float64 // log probabilities
	trie    *trie
	forward []float64 // scratch: the total probability of all paths to a position
	back    []float64
}

// trainUnigram learns at most size tokens by expectation and maximisation
// (Kudo, 2018), starting from frequent and long substrings. All characters seen
// minCount times are kept, if there is room. A cancelled ctx returns its error.
func trainUnigram(ctx context.Context, words map[string]int64, size int, minCount int64) (*unigramTrainer, error) {
	t := &unigramTrainer{}
	parts := map[string]int64{}
	for w, n := range words {
		for w != "" {
			end := runesEnd(w, longestPart)
			parts[w[:end]] += n
			w = w[end:]
		}
	}
	for w := range parts {
		t.words = append(t.words, w)
	}
	slices.Sort(t.words)
	t.counts = make([]float64, len(t.words))
	for i, w := range t.words {
		t.counts[i] = float64(parts[w])
	}
	characters := t.characters(size, minCount)
	if err := t.seed(ctx, characters, min(maxSeeds, seedFactor*size)); err != nil {
		return nil, err
	}
	target := int(headroom * float64(size))
	for {
		for range rounds {
			expected, err := t.expect(ctx)
			if err != nil {
				return nil, err
			}
			t.maximise(expected, characters)
		}
		if len(t.tokens) <= target {
			break
		}
		if err := t.prune(ctx, characters, max(target, int(shrink*float64(len(t.tokens))))); err != nil {
			return nil, err
		}
	}
	t.finish(characters, size)
	return t, nil
}

// runesEnd returns where the first n characters of s end.
func runesEnd(s string, n int) int {
	if len(s) <= n {
		return len(s)
	}
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// characters lists the characters that become tokens regardless of their use,
// with their counts.
func (t *unigramTrainer) characters(size int, minCount int64) map[string]int64 {
	seen := map[string]int64{}
	for i, w := range t.words {
		for at, r := range w {
			seen[w[at:at+utf8.RuneLen(r)]] += int64(t.counts[i])
		}
	}
	v := NewVocabulary(seen, &VocabularyOptions{MinCount: int(minCount), MaxSize: size})
	for c := range seen {
		if _, ok := v.ids[c]; !ok {
			delete(seen, c)
		}
	}
	return seen
}

// substring is a seed token that is not a character, with the product of its
// count and length.
type substring struct {
	text  string
	score float64
}

// seed starts with the characters and the n substrings of the highest scores.
func (t *unigramTrainer) seed(ctx context.Context, characters map[string]int64, n int) error {
	list, err := t.substrings(ctx, characters)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b substring) int {
		if a.score != b.score {
			return sign(int64(b.score - a.score))
		}
		return strings.Compare(a.text, b.text)
	})
	for c := range characters {
		t.tokens = append(t.tokens, c)
	}
	slices.Sort(t.tokens)
	total := 0.0
	for _, c := range t.tokens {
		t.scores = append(t.scores, float64(characters[c]))
		total += float64(characters[c])
	}
	for _, s := range list[:min(len(list), max(0, n-len(characters)))] {
		t.tokens = append(t.tokens, s.text)
		t.scores = append(t.scores, s.score)
		total += s.score
	}
	for i := range t.scores {
		t.scores[i] = math.Log(t.scores[i] / total)
	}
	t.index()
	return nil
}

// substrings lists what is seen twice, of 2 to longestToken characters. It
// proceeds by length, and considers only substrings whose beginning and end,
// one character shorter, were both seen twice.
func (t *unigramTrainer) substrings(ctx context.Context, characters map[string]int64) ([]substring, error) {
	// names[i][k] is the number, or -1, of the substring of the current length
	// at character k of word i; two neighbours make a longer one.
	names := make([][]int32, len(t.words))
	for i, w := range t.words {
		names[i] = make([]int32, 0, utf8.RuneCountInString(w))
		for at, r := range w {
			name := int32(-1)
			if _, ok := characters[w[at:at+utf8.RuneLen(r)]]; ok {
				name = r
			}
			names[i] = append(names[i], name)
		}
	}
	var list []substring
	for length := 2; length <= longestToken; length++ {
		found, err := t.lengthen(ctx, names, length)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			break
		}
		list = append(list, found...)
	}
	return list, nil
}

// lengthen counts the substrings that two neighbours in names make, and numbers
// those that are seen twice.
func (t *unigramTrainer) lengthen(ctx context.Context, names [][]int32, length int) ([]substring, error) {
	type use struct {
		name     int32
		count    float64
		word, at int // position of the first occurrence
	}
	uses := map[uint64]*use{}
	var order []*use
	for i, row := range names {
		if err := cancelled(ctx, i); err != nil {
			return nil, err
		}
		for k := range max(0, len(row)-1) {
			if row[k] < 0 || row[k+1] < 0 {
				continue
			}
			u := uses[pairKey(row[k], row[k+1])]
			if u == nil {
				u = &use{int32(len(order)), 0, i, k}
				uses[pairKey(row[k], row[k+1])] = u
				order = append(order, u)
			}
			u.count += t.counts[i]
		}
	}
	for i, row := range names {
		for k := range max(0, len(row)-1) {
			name := int32(-1)
			if row[k] >= 0 && row[k+1] >= 0 {
				if u := uses[pairKey(row[k], row[k+1])]; u.count >= 2 {
					name = u.name
				}
			}
			row[k] = name
		}
		names[i] = row[:max(0, len(row)-1)]
	}
	var list []substring
	for _, u := range order {
		if u.count >= 2 {
			w := t.words[u.word]
			w = w[runesEnd(w, u.at):]
			list = append(list, substring{w[:runesEnd(w, length)], u.count * float64(length)})
		}
	}
	return list, nil
}

func (t *unigramTrainer) index() {
	ids := make(map[string]int32, len(t.tokens))
	for i, token := range t.tokens {
		ids[token] = int32(i)
	}
	t.trie = newTrie(ids)
}

// expect returns the expected count of each token, over all segmentations of
// the words weighted by their probabilities.
func (t *unigramTrainer) expect(ctx context.Context) ([]float64, error) {
	chance := make([]float64, len(t.scores))
	for i, s := range t.scores {
		chance[i] = math.Exp(s)
	}
	expected := make([]float64, len(t.tokens))
	for i, w := range t.words {
		if err := cancelled(ctx, i); err != nil {
			return nil, err
		}
		t.expectWord(w, t.counts[i], chance, expected)
	}
	return expected, nil
}

// expectWord works with probabilities, not logarithms: a part of at most
// longestPart characters keeps them within the range of float64.
func (t *unigramTrainer) expectWord(w string, count float64, chance, expected []float64) {
	t.forward = append(t.forward[:0], make([]float64, len(w)+1)...)
	t.back = append(t.back[:0], make([]float64, len(w)+1)...)
	t.forward[0], t.back[len(w)] = 1, 1
	for i := range len(w) {
		if p := t.forward[i]; p > 0 {
			t.edges(w, i, func(to int, id int32) { t.forward[to] += p * chance[id] })
		}
	}
	whole := t.forward[len(w)]
	if whole <= 0 {
		return // a character that is not a token
	}
	for i := len(w) - 1; i >= 0; i-- {
		p := t.forward[i]
		if p == 0 {
			continue
		}
		sum := 0.0
		t.edges(w, i, func(to int, id int32) {
			b := chance[id] * t.back[to]
			sum += b
			expected[id] += count * p * b / whole
		})
		t.back[i] = sum
	}
}

// edges calls fn for the tokens that w has at byte i.
func (t *unigramTrainer) edges(w string, i int, fn func(to int, id int32)) {
	for n, k := int32(0), i; k < len(w); k++ {
		if n = t.trie.step(n, w[k]); n < 0 {
			return
		}
		if id := t.trie.value[n]; id >= 0 {
			fn(k+1, id)
		}
	}
}

// maximise sets the probabilities from the expected counts and drops unused
// tokens. The digamma function instead of the logarithm favours few tokens, as
// the mean of a Dirichlet prior does.
func (t *unigramTrainer) maximise(expected []float64, characters map[string]int64) {
	kept, total := 0, 0.0
	for i, n := range expected {
		if _, always := characters[t.tokens[i]]; n < leastUse {
			if !always {
				continue
			}
			n = leastUse
		}
		t.tokens[kept], t.scores[kept] = t.tokens[i], n
		total += n
		kept++
	}
	changed := kept != len(t.tokens)
	t.tokens, t.scores = t.tokens[:kept], t.scores[:kept]
	logTotal := digamma(total)
	for i, n := range t.scores {
		t.scores[i] = digamma(n) - logTotal
	}
	if changed {
		t.index()
	}
}

// digamma is the derivative of the logarithm of the gamma function, for x > 0.
func digamma(x float64) float64 {
	result := 0.0
	for ; x < 7; x++ {
		result -= 1 / x
	}
	x -= 0.5
	xx := 1 / (x * x)
	return result + math.Log(x) + xx/24 - 7.0/960*xx*xx + 31.0/8064*xx*xx*xx - 127.0/30720*xx*xx*xx*xx
}

// prune keeps the n tokens whose removal would cost the most likelihood,
// estimated for each by replacing it with its best alternative segmentation.
func (t *unigramTrainer) prune(ctx context.Context, characters map[string]int64, n int) error {
	uses := make([]float64, len(t.tokens))
	var cut []int32
	for i, w := range t.words {
		if err := cancelled(ctx, i); err != nil {
			return err
		}
		cut = t.best(cut[:0], w, -1)
		for _, id := range cut {
			uses[id] += t.counts[i]
		}
	}
	total := 0.0
	for _, u := range uses {
		total += u
	}
	type loss struct {
		id   int32
		loss float64
	}
	var losses []loss
	var keep []int32
	for i, token := range t.tokens {
		id := int32(i)
		if _, always := characters[token]; always {
			keep = append(keep, id)
			continue
		}
		if uses[i] == 0 {
			continue
		}
		cut = t.best(cut[:0], token, id)
		if len(cut) == 0 {
			keep = append(keep, id) // there is no alternative
			continue
		}
		// Without the token, its uses move to the alternative.
		without := math.Log(total + uses[i]*float64(len(cut)-1))
		after := 0.0
		for _, other := range cut {
			after += math.Log(uses[other]+uses[i]) - without
		}
		losses = append(losses, loss{id, uses[i] / total * (math.Log(uses[i]) - math.Log(total) - after)})
	}
	slices.SortFunc(losses, func(a, b loss) int {
		switch {
		case a.loss > b.loss:
			return -1
		case a.loss < b.loss:
			return 1
		}
		return int(a.id - b.id)
	})
	for _, l := range losses[:max(0, min(len(losses), n-len(keep)))] {
		keep = append(keep, l.id)
	}
	slices.Sort(keep)
	for k, id := range keep {
		t.tokens[k], t.scores[k] = t.tokens[id], t.scores[id]
	}
	t.tokens, t.scores = t.tokens[:len(keep)], t.scores[:len(keep)]
	t.index()
	return nil
}

// best appends the tokens, last first, of the most probable segmentation of w
// that does not use the token but; none when there is no such segmentation.
func (t *unigramTrainer) best(dst []int32, w string, but int32) []int32 {
	var room [longestPart*utf8.UTFMax + 1]arrival
	best := room[:len(w)+1]
	for i := range best {
		best[i] = arrival{score: math.Inf(-1), from: -1}
	}
	best[0] = arrival{}
	for i := range len(w) {
		if i > 0 && best[i].from < 0 {
			continue
		}
		t.edges(w, i, func(to int, id int32) {
			if score := best[i].score + t.scores[id]; id != but && score > best[to].score {
				best[to] = arrival{score, int32(i), id}
			}
		})
	}
	if best[len(w)].from < 0 {
		return dst
	}
	for end := int32(len(w)); end > 0; end = best[end].from {
		dst = append(dst, best[end].id)
	}
	return dst
}

// finish keeps the characters and the most probable tokens, size in all,
// ordered by falling probability.
func (t *unigramTrainer) finish(characters map[string]int64, size int) {
	order := make([]int, len(t.tokens))
	for i := range order {
		order[i] = i
	}
	fewer := func(a, b int) int {
		switch {
		case t.scores[a] > t.scores[b]:
			return -1
		case t.scores[a] < t.scores[b]:
			return 1
		}
		return strings.Compare(t.tokens[a], t.tokens[b])
	}
	slices.SortFunc(order, fewer)
	room := size - len(characters)
	kept := order[:0]
	for _, i := range order {
		_, always := characters[t.tokens[i]]
		if !always {
			room--
		}
		if always || room >= 0 {
			kept = append(kept, i)
		}
	}
	tokens, scores := make([]string, len(kept)), make([]float64, len(kept))
	for k, i := range kept {
		tokens[k], scores[k] = t.tokens[i], t.scores[i]
	}
	t.tokens, t.scores = tokens, scores
}

// model writes what was learned as a model of tokenizer.json, after the special
// tokens, which have the score 0, as in SentencePiece.
func (t *unigramTrainer) model(special []string, unknown int) json.RawMessage {
	var vocab [][2]any
	for _, s := range special {
		vocab = append(vocab, [2]any{s, 0.0})
	}
	for i, token := range t.tokens {
		vocab = append(vocab, [2]any{token, t.scores[i]})
	}
	return object("Unigram", "unk_id", unknown, "vocab", vocab, "byte_fallback", false)
}
