package text

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// tokenModels parses each type of model in tokenizer.json, with its tokens by
// id.
var tokenModels = map[string]func(json.RawMessage) (tokenModel, []string, error){
	"BPE":       readBPE,
	"Unigram":   readUnigram,
	"WordLevel": readWordLevel,
	"WordPiece": readWordPiece,
}

// wordLevel has a token for every whole piece.
type wordLevel struct {
	ids     map[string]int32
	short   [utf8.RuneSelf]int32 // ids of single bytes, as looked up in ids
	unknown int32                // or -1: unknown pieces are dropped
	bytes   *[256]int32          // byte tokens that encode unknown pieces; nil: none
}

func readWordLevel(raw json.RawMessage) (tokenModel, []string, error) {
	var s struct {
		Vocab   map[string]int64 `json:"vocab"`
		Unknown string           `json:"unk_token"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, nil, err
	}
	tokens, ids, err := tokenTable(s.Vocab)
	if err != nil {
		return nil, nil, err
	}
	return newWordLevel(ids, lookup(ids, s.Unknown)), tokens, nil
}

func newWordLevel(ids map[string]int32, unknown int32) *wordLevel {
	m := &wordLevel{ids: ids, unknown: unknown}
	for b := range m.short {
		m.short[b] = unknown
		if id, ok := ids[string(rune(b))]; ok {
			m.short[b] = id
		}
	}
	return m
}

func (m *wordLevel) encode(dst []Token, word []byte, at int) []Token {
	id := m.unknown
	if len(word) == 1 {
		id = m.short[word[0]&(utf8.RuneSelf-1)]
	} else if known, ok := m.ids[string(word)]; ok {
		id = known
	}
	if id == m.unknown && fallback(m.bytes, word) {
		return appendBytes(dst, m.bytes, word, at)
	}
	if id < 0 {
		return dst
	}
	return append(dst, Token{id, at, at + len(word)})
}

func (m *wordLevel) unknownID() int32 { return m.unknown }

// wordPiece takes the longest token that a piece begins with, then the longest
// that the rest begins with, and so on (Schuster and Nakajima, 2012).
type wordPiece struct {
	begin, inside *trie // tokens at the beginning of a piece, and after it
	unknown       int32
	most          int // maximum characters of a piece; a longer one is unknown
}

func readWordPiece(raw json.RawMessage) (tokenModel, []string, error) {
	s := struct {
		Vocab   map[string]int64 `json:"vocab"`
		Unknown string           `json:"unk_token"`
		Prefix  string           `json:"continuing_subword_prefix"`
		Most    int              `json:"max_input_chars_per_word"`
	}{Unknown: "[UNK]", Prefix: "##", Most: 100}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, nil, err
	}
	tokens, ids, err := tokenTable(s.Vocab)
	if err != nil {
		return nil, nil, err
	}
	inside := map[string]int32{}
	for token, id := range ids {
		if len(token) >= len(s.Prefix) && token[:len(s.Prefix)] == s.Prefix {
			inside[token[len(s.Prefix):]] = id
		}
	}
	return &wordPiece{newTrie(ids), newTrie(inside), lookup(ids, s.Unknown), s.Most}, tokens, nil
}

func (m *wordPiece) encode(dst []Token, word []byte, at int) []Token {
	first := len(dst)
	known := utf8.RuneCount(word) <= m.most
	for i := 0; known && i < len(word); {
		t := m.inside
		if i == 0 {
			t = m.begin
		}
		id, end := longest(t, word, i)
		if known = id >= 0; known {
			dst = append(dst, Token{id, at + i, at + end})
			i = end
		}
	}
	if !known {
		dst = dst[:first]
		if m.unknown >= 0 {
			dst = append(dst, Token{m.unknown, at, at + len(word)})
		}
	}
	return dst
}

func (m *wordPiece) unknownID() int32 { return m.unknown }

// lookup returns the id of a token, or -1.
func lookup(ids map[string]int32, token string) int32 {
	if id, ok := ids[token]; ok {
		return id
	}
	return -1
}

// maxToken is the maximum length of a token in bytes. It bounds the time of a
// search for the tokens at a position in a text.
const maxToken = 4096

// tokenTable orders the tokens of a vocabulary by id. Ids may skip some
// numbers, but not so many that a small file makes a huge table.
func tokenTable(vocab map[string]int64) (tokens []string, ids map[string]int32, err error) {
	limit := int64(2*len(vocab) + 10000)
	top := int64(-1)
	ids = make(map[string]int32, len(vocab))
	for token, id := range vocab {
		if id < 0 || id >= limit {
			return nil, nil, fmt.Errorf("token %s has the id %d, of a vocabulary of %d", quoted(token), id, len(vocab))
		}
		if len(token) > maxToken {
			return nil, nil, fmt.Errorf("token %s has %d bytes, more than %d", quoted(token), len(token), maxToken)
		}
		top = max(top, id)
		ids[token] = int32(id)
	}
	tokens = make([]string, top+1)
	for token, id := range ids {
		if other := tokens[id]; other != "" {
			return nil, nil, fmt.Errorf("tokens %s and %s both have the id %d", quoted(min(token, other)), quoted(max(token, other)), id)
		}
		tokens[id] = token
	}
	return tokens, ids, nil
}
