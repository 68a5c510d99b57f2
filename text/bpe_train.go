package text

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxTrained is the maximum number of characters of one piece in training;
// longer pieces, as in scripts without spaces, are divided.
const maxTrained = 64

// bpeTrainer learns merges from counted words.
type bpeTrainer struct {
	tokens []string // by id
	ids    map[string]int32
	merges [][2]int32

	words  [][]int32 // the symbols of each word
	counts []int64   // of each word
	pairs  map[uint64]*pairUse
	queue  heap[pairCount]
}

// pairUse records the uses of a pair of neighbours: its count, and the words
// that contain or once contained it.
type pairUse struct {
	count int64
	words []int32
}

// pairCount orders pairs by falling count, then by ids.
type pairCount struct {
	count int64
	pair  uint64
}

func (p pairCount) Less(q pairCount) bool {
	return p.count > q.count || p.count == q.count && p.pair < q.pair
}

// trainBPE learns a vocabulary of at most size tokens: first, then the alphabet
// (those characters, and all characters of the words), then the results of
// merging. Only pairs seen minCount times are merged. Equal words and counts
// give equal merges. A cancelled ctx returns its error.
func trainBPE(ctx context.Context, first, alphabet []string, words map[string]int64, size int, minCount int64) (*bpeTrainer, error) {
	t := &bpeTrainer{ids: map[string]int32{}, pairs: map[uint64]*pairUse{}}
	for _, token := range first {
		t.add(token)
	}
	sorted := make([]string, 0, len(words))
	for w := range words {
		sorted = append(sorted, w)
	}
	slices.Sort(sorted)
	t.addAlphabet(alphabet, sorted, words, size, int(minCount))
	for i, w := range sorted {
		if err := cancelled(ctx, i); err != nil {
			return nil, err
		}
		t.addWord(w, words[w])
	}
	if err := t.countPairs(ctx); err != nil {
		return nil, err
	}
	minCount = max(minCount, 1)
	for len(t.tokens) < size && len(t.queue) > 0 {
		top := t.queue.pop()
		use := t.pairs[top.pair]
		if use == nil {
			continue
		}
		if use.count != top.count {
			if use.count >= minCount {
				t.queue.push(pairCount{use.count, top.pair})
			}
			continue
		}
		if top.count < minCount {
			break
		}
		if err := t.merge(ctx, top.pair); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *bpeTrainer) add(token string) int32 {
	id, ok := t.ids[token]
	if !ok {
		id = int32(len(t.tokens))
		t.ids[token] = id
		t.tokens = append(t.tokens, token)
	}
	return id
}

// addAlphabet adds the characters in order, except characters of words that are
// seen fewer than minCount times, and the rarest ones where they alone would
// exceed size.
func (t *bpeTrainer) addAlphabet(alphabet, sorted []string, words map[string]int64, size, minCount int) {
	seen := map[string]int64{}
	for _, w := range sorted {
		n := words[w]
		for i, r := range w {
			seen[w[i:i+utf8.RuneLen(r)]] += n
		}
	}
	const always = 1 << 62
	for _, c := range alphabet {
		seen[c] = always
	}
	characters := NewVocabulary(seen, &VocabularyOptions{MinCount: minCount, MaxSize: max(1, size-len(t.tokens))}).tokens
	slices.Sort(characters)
	for _, c := range characters {
		t.add(c)
	}
}

// addWord splits a word into characters. Those that are not in the alphabet
// divide it, as no token can contain them.
func (t *bpeTrainer) addWord(w string, count int64) {
	var part []int32
	flush := func() {
		if len(part) > 1 {
			t.words = append(t.words, part)
			t.counts = append(t.counts, count)
		}
		part = nil
	}
	for i, r := range w {
		id, ok := t.ids[w[i:i+utf8.RuneLen(r)]]
		if !ok {
			flush()
			continue
		}
		if part == nil {
			part = make([]int32, 0, min(len(w)-i, maxTrained))
		}
		if part = append(part, id); len(part) == maxTrained {
			flush()
		}
	}
	flush()
}

func (t *bpeTrainer) countPairs(ctx context.Context) error {
	for i, w := range t.words {
		if err := cancelled(ctx, i); err != nil {
			return err
		}
		for k := range len(w) - 1 {
			t.change(pairKey(w[k], w[k+1]), t.counts[i], int32(i))
		}
	}
	for pair, use := range t.pairs {
		t.queue.push(pairCount{use.count, pair})
	}
	return nil
}

// change adds the contribution of word to a pair's count.
func (t *bpeTrainer) change(pair uint64, by int64, word int32) *pairUse {
	use := t.pairs[pair]
	if use == nil {
		use = &pairUse{}
		t.pairs[pair] = use
	}
	use.count += by
	if n := len(use.words); by > 0 && (n == 0 || use.words[n-1] != word) {
		use.words = append(use.words, word)
	}
	return use
}

// merge makes a token of a pair, in all words that contain it. With a cancelled
// ctx it returns its error, and t cannot be used any more.
func (t *bpeTrainer) merge(ctx context.Context, pair uint64) error {
	a, b := int32(pair>>32), int32(uint32(pair))
	id := t.add(t.tokens[a] + t.tokens[b])
	t.merges = append(t.merges, [2]int32{a, b})
	places := t.pairs[pair].words
	delete(t.pairs, pair)
	made := map[uint64]bool{} // pairs whose count has grown
	for n, i := range places {
		if err := cancelled(ctx, n); err != nil {
			return err
		}
		w, count := t.words[i], t.counts[i]
		out := w[:0]
		for k := 0; k < len(w); k++ {
			if w[k] != a || k+1 == len(w) || w[k+1] != b {
				out = append(out, w[k])
				continue
			}
			if len(out) > 0 {
				before := out[len(out)-1]
				t.less(pairKey(before, a), count, pair)
				t.change(pairKey(before, id), count, i)
				made[pairKey(before, id)] = true
			}
			if k+2 < len(w) {
				after := w[k+2]
				t.less(pairKey(b, after), count, pair)
				t.change(pairKey(id, after), count, i)
				made[pairKey(id, after)] = true
			}
			out = append(out, id)
			k++
		}
		t.words[i] = out
	}
	for pair := range made {
		if use := t.pairs[pair]; use != nil && use.count > 0 {
			t.queue.push(pairCount{use.count, pair})
		}
	}
	return nil
}

// less subtracts from a pair's count, unless the pair is the one being merged.
func (t *bpeTrainer) less(pair uint64, by int64, merging uint64) {
	if pair == merging {
		return
	}
	if use := t.pairs[pair]; use != nil {
		use.count -= by
	}
}

// model writes what was learned as a model of tokenizer.json.
func (t *bpeTrainer) model(unknown any) json.RawMessage {
	pairs := make([][2]string, len(t.merges))
	for i, m := range t.merges {
		pairs[i] = [2]string{t.tokens[m[0]], t.tokens[m[1]]}
	}
	return object("BPE", "dropout", nil, "unk_token", unknown, "continuing_subword_prefix", nil, "end_of_word_suffix", nil,
		"fuse_unk", unknown != nil, "byte_fallback", false, "ignore_merges", false,
		"vocab", orderedVocabulary(t.tokens), "merges", pairs)
}

// byteAlphabet lists the characters that represent bytes.
func byteAlphabet() []string {
	return strings.Split(strings.Join(byteStrings[:], ""), "")
}
