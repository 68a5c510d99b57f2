package text

import (
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"unicode/utf8"
)

// unigram gives each token a probability and segments a piece into the tokens
// with the greatest product (Kudo, 2018).
type unigram struct {
	trie    *trie
	ids     map[string]int32
	scores  []float64 // log probabilities, by id
	unknown int32
	penalty float64     // the score of a character without a token
	bytes   *[256]int32 // byte tokens that encode unknown characters; nil: none

	// SentencePiece rounds the sums along a path to float32, gives user-defined
	// tokens a bonus that makes them win, and treats unknown characters one by
	// one.
	single bool
	bonus  map[int32]float64 // of user-defined tokens, instead of their scores

	scratch sync.Pool
}

// unknownPenalty is the difference in log probability between the least likely
// token and a character without a token.
const unknownPenalty = 10

func readUnigram(raw json.RawMessage) (tokenModel, []string, error) {
	var s struct {
		Vocab        [][2]any `json:"vocab"`
		Unknown      *int     `json:"unk_id"`
		ByteFallback bool     `json:"byte_fallback"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, nil, err
	}
	vocab := make(map[string]int64, len(s.Vocab))
	scores := make([]float64, len(s.Vocab))
	tokens := make([]string, len(s.Vocab))
	for i, entry := range s.Vocab {
		token, ok := entry[0].(string)
		score, ok2 := entry[1].(float64)
		if !ok || !ok2 {
			return nil, nil, fmt.Errorf("entry %d of vocab is not a token and a number", i)
		}
		tokens[i], scores[i] = token, score
		if _, twice := vocab[token]; !twice || token == "" {
			vocab[token] = int64(i)
		}
	}
	_, ids, err := tokenTable(vocab)
	if err != nil {
		return nil, nil, err
	}
	m := newUnigram(ids, scores)
	if s.Unknown != nil {
		if *s.Unknown < 0 || *s.Unknown >= len(tokens) {
			return nil, nil, fmt.Errorf("unk_id is %d, of a vocabulary of %d", *s.Unknown, len(tokens))
		}
		m.unknown = int32(*s.Unknown)
	}
	if s.ByteFallback {
		m.bytes = byteTokens(ids)
	}
	return newCached(m), tokens, nil
}

func newUnigram(ids map[string]int32, scores []float64) *unigram {
	m := &unigram{trie: newTrie(ids), ids: ids, scores: scores, unknown: -1}
	least := math.Inf(1)
	for _, s := range scores {
		least = min(least, s)
	}
	m.penalty = least - unknownPenalty
	return m
}

func (m *unigram) unknownID() int32 { return m.unknown }

// arrival is the best path to a position in a piece: its last token and that
// token's beginning.
type arrival struct {
	score float64
	from  int32 // -1: no path leads here
	id    int32 // -1: a character without a token
}

// unigramScratch holds the buffers for encoding one piece.
type unigramScratch struct {
	best []arrival
	ends []int32
}

func (m *unigram) encode(dst []Token, word []byte, at int) []Token {
	s, ok := m.scratch.Get().(*unigramScratch)
	if !ok {
		s = &unigramScratch{}
	}
	m.search(s, word)
	s.ends = s.ends[:0]
	for end := int32(len(word)); end > 0; end = s.best[end].from {
		s.ends = append(s.ends, end)
	}
	for i := len(s.ends) - 1; i >= 0; i-- {
		end := s.ends[i]
		here := s.best[end]
		if here.id >= 0 {
			dst = append(dst, Token{here.id, at + int(here.from), at + int(end)})
			continue
		}
		from := here.from
		if !m.single { // together with the unknown characters that follow
			for ; i > 0 && s.best[s.ends[i-1]].id < 0; i-- {
				end = s.ends[i-1]
			}
		}
		dst = m.appendUnknown(dst, word[from:end], at+int(from))
	}
	m.scratch.Put(s)
	return dst
}

// search finds the best path to each position in word. Its time is proportional
// to the length of word and that of the longest token.
func (m *unigram) search(s *unigramScratch, word []byte) {
	s.best = s.best[:0]
	for range len(word) + 1 {
		s.best = append(s.best, arrival{from: -1})
	}
	reach := func(from, to int, id int32, score float64) {
		score += s.best[from].score
		if m.single {
			score = float64(float32(score))
		}
		if b := &s.best[to]; b.from < 0 || score > b.score {
			*b = arrival{score, int32(from), id}
		}
	}
	for from := 0; from < len(word); {
		_, width := utf8.DecodeRune(word[from:])
		alone := false
		for n, i := int32(0), from; i < len(word); i++ {
			if n = m.trie.step(n, word[i]); n < 0 {
				break
			}
			id := m.trie.value[n]
			if id < 0 {
				continue
			}
			score := m.scores[id]
			if bonus, ok := m.bonus[id]; ok {
				score = bonus
			}
			reach(from, i+1, id, score)
			alone = alone || i+1-from == width
		}
		if !alone {
			reach(from, from+width, -1, m.penalty)
		}
		from += width
	}
}

// appendUnknown appends the tokens of characters that have none in the
// vocabulary.
func (m *unigram) appendUnknown(dst []Token, word []byte, at int) []Token {
	if id, ok := m.ids[string(word)]; ok { // together they are a token
		return append(dst, Token{id, at, at + len(word)})
	}
	if fallback(m.bytes, word) {
		return appendBytes(dst, m.bytes, word, at)
	}
	if m.unknown < 0 {
		return dst
	}
	return append(dst, Token{m.unknown, at, at + len(word)})
}
