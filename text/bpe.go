package text

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// bpe is byte pair encoding (Sennrich et al., 2016): a piece starts as its
// characters, and of all mergeable pairs of neighbours the one with the lowest
// rank is merged, the leftmost first, until there is none left.
type bpe struct {
	ids     map[string]int32
	merges  map[uint64]merge // by pairKey
	unknown int32            // id for characters without a token; -1: they are dropped
	fuse    bool             // adjacent unknown characters become one token
	bytes   *[256]int32      // byte tokens that encode unknown characters; nil: none
	prefix  string           // before every token but a piece's first
	suffix  string           // after a piece's last token
	units   *trie            // tokens that are initial symbols instead of their characters; nil: none
	whole   bool             // a piece that is a token is not divided
	scratch sync.Pool
}

// merge is the token that a pair becomes.
type merge struct{ rank, id int32 }

func pairKey(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

func readBPE(raw json.RawMessage) (tokenModel, []string, error) {
	var s struct {
		Vocab        map[string]int64  `json:"vocab"`
		Merges       []json.RawMessage `json:"merges"`
		Unknown      *string           `json:"unk_token"`
		Prefix       *string           `json:"continuing_subword_prefix"`
		Suffix       *string           `json:"end_of_word_suffix"`
		Fuse         bool              `json:"fuse_unk"`
		ByteFallback bool              `json:"byte_fallback"`
		IgnoreMerges bool              `json:"ignore_merges"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, nil, err
	}
	tokens, ids, err := tokenTable(s.Vocab)
	if err != nil {
		return nil, nil, err
	}
	m := newBPE(ids)
	m.fuse, m.whole = s.Fuse, s.IgnoreMerges
	if s.Unknown != nil {
		m.unknown = lookup(ids, *s.Unknown)
	}
	if s.Prefix != nil {
		m.prefix = *s.Prefix
	}
	if s.Suffix != nil {
		m.suffix = *s.Suffix
	}
	if s.ByteFallback {
		m.bytes = byteTokens(ids)
	}
	for rank, raw := range s.Merges {
		a, b, err := readMerge(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("merge %d: %w", rank+1, err)
		}
		if err := m.addMerge(a, b, int32(rank)); err != nil {
			return nil, nil, fmt.Errorf("merge %d: %w", rank+1, err)
		}
	}
	return newCached(m), tokens, nil
}

func newBPE(ids map[string]int32) *bpe {
	return &bpe{ids: ids, merges: map[uint64]merge{}, unknown: -1}
}

func (m *bpe) unknownID() int32 { return m.unknown }

// readMerge parses a pair of tokens: a list of two, or both separated by a
// space.
func readMerge(raw json.RawMessage) (a, b string, err error) {
	var line string
	if json.Unmarshal(raw, &line) == nil {
		a, b, ok := strings.Cut(line, " ")
		if !ok || strings.Contains(b, " ") {
			return "", "", fmt.Errorf("%s is not two tokens with a space between", quoted(line))
		}
		return a, b, nil
	}
	var pair []string
	if err := json.Unmarshal(raw, &pair); err != nil || len(pair) != 2 {
		return "", "", fmt.Errorf("is not a pair of tokens")
	}
	return pair[0], pair[1], nil
}

// addMerge allows two tokens to merge into one.
func (m *bpe) addMerge(a, b string, rank int32) error {
	var parts [3]int32
	for i, s := range []string{a, b, a + strings.TrimPrefix(b, m.prefix)} {
		id, ok := m.ids[s]
		if !ok {
			return fmt.Errorf("%s is not in the vocabulary", quoted(s))
		}
		parts[i] = id
	}
	m.merges[pairKey(parts[0], parts[1])] = merge{rank, parts[2]}
	return nil
}

// byteTokens finds the tokens <0x00> to <0xFF>; -1 for those that are missing.
func byteTokens(ids map[string]int32) *[256]int32 {
	var table [256]int32
	for b := range table {
		table[b] = -1
		if id, ok := ids[fmt.Sprintf("<0x%02X>", b)]; ok {
			table[b] = id
		}
	}
	return &table
}

// fallback reports whether there are tokens for all bytes of s.
func fallback(table *[256]int32, s []byte) bool {
	if table == nil {
		return false
	}
	for _, b := range s {
		if table[b] < 0 {
			return false
		}
	}
	return true
}

// appendBytes appends the tokens of the bytes of word, which begins at byte at.
func appendBytes(dst []Token, table *[256]int32, word []byte, at int) []Token {
	for i, b := range word {
		dst = append(dst, Token{table[b], at + i, at + i + 1})
	}
	return dst
}

// symbol is a token of a piece during encoding, in a list from left to right.
type symbol struct {
	Token
	before, next int32 // positions in the list, -1 at its ends
}

// candidate is a mergeable pair: the symbol at a position, and the next.
type candidate struct {
	merge
	at int32
}

func (c candidate) Less(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.at < d.at
}

// bpeScratch holds the buffers for encoding one piece.
type bpeScratch struct {
	symbols []symbol
	queue   heap[candidate]
	long    []byte
}

// encode takes time O(n log n) in the length n of the piece.
func (m *bpe) encode(dst []Token, word []byte, at int) []Token {
	if m.whole {
		if id, ok := m.ids[string(word)]; ok {
			return append(dst, Token{id, at, at + len(word)})
		}
	}
	s, ok := m.scratch.Get().(*bpeScratch)
	if !ok {
		s = &bpeScratch{}
	}
	m.characters(s, word, at)
	symbols := s.symbols
	consider := func(i int32) {
		if i < 0 || symbols[i].next < 0 {
			return
		}
		if to, ok := m.merges[pairKey(symbols[i].ID, symbols[symbols[i].next].ID)]; ok {
			s.queue.push(candidate{to, i})
		}
	}
	for i := range symbols {
		consider(int32(i))
	}
	for len(s.queue) > 0 {
		c := s.queue.pop()
		left := &symbols[c.at]
		if left.ID < 0 || left.next < 0 {
			continue // one of the two has become part of another
		}
		right := &symbols[left.next]
		if to, ok := m.merges[pairKey(left.ID, right.ID)]; !ok || to.id != c.id {
			continue
		}
		left.ID, left.End, left.next = c.id, right.End, right.next
		right.ID = -1
		if left.next >= 0 {
			symbols[left.next].before = c.at
		}
		consider(left.before)
		consider(c.at)
	}
	for i := range symbols {
		if symbols[i].ID >= 0 {
			dst = append(dst, symbols[i].Token)
		}
	}
	m.scratch.Put(s)
	return dst
}

// characters makes the initial symbols of a piece.
func (m *bpe) characters(s *bpeScratch, word []byte, at int) {
	s.symbols, s.queue = s.symbols[:0], s.queue[:0]
	add := func(id int32, from, to int) {
		n := int32(len(s.symbols))
		if n > 0 {
			s.symbols[n-1].next = n
		}
		s.symbols = append(s.symbols, symbol{Token{id, at + from, at + to}, n - 1, -1})
	}
	lost := span{-1, -1} // unknown characters not yet added
	flush := func() {
		if lost.from >= 0 {
			add(m.unknown, lost.from, lost.to)
			lost.from = -1
		}
	}
	for i := 0; i < len(word); {
		if m.units != nil {
			if id, end := longest(m.units, word, i); id >= 0 {
				flush()
				add(id, i, end)
				i = end
				continue
			}
		}
		_, n := utf8.DecodeRune(word[i:])
		end := i + n
		name := word[i:end]
		if m.prefix != "" && i > 0 || m.suffix != "" && end == len(word) {
			s.long = s.long[:0]
			if i > 0 {
				s.long = append(s.long, m.prefix...)
			}
			s.long = append(s.long, name...)
			if end == len(word) {
				s.long = append(s.long, m.suffix...)
			}
			name = s.long
		}
		if id, ok := m.ids[string(name)]; ok {
			flush()
			add(id, i, end)
		} else if fallback(m.bytes, name) {
			flush()
			for k, b := range name { // includes a prefix and a suffix, which have bytes too
				add(m.bytes[b], min(i+k, end-1), min(i+k+1, end))
			}
		} else if m.unknown >= 0 {
			if !m.fuse {
				flush()
			}
			if lost.from < 0 {
				lost.from = i
			}
			lost.to = end
		}
		i = end
	}
	flush()
}
