package text

import (
	"encoding/json"
	"fmt"
)

// tokenModels reads each type of model in tokenizer.json, with its tokens by id.
var tokenModels = map[string]func(json.RawMessage) (tokenModel, []string, error){
	"BPE":       readBPE,
	"WordLevel": readWordLevel,
}

// wordLevel has a token for every whole piece.
type wordLevel struct {
	ids     map[string]int32
	unknown int32 // or -1: unknown pieces are left out
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
	m := &wordLevel{ids: ids, unknown: -1}
	if id, ok := ids[s.Unknown]; ok {
		m.unknown = id
	}
	return m, tokens, nil
}

func (m *wordLevel) encode(dst []Token, word []byte, at int) []Token {
	id, ok := m.ids[string(word)]
	if !ok {
		if id = m.unknown; id < 0 {
			return dst
		}
	}
	return append(dst, Token{id, at, at + len(word)})
}

// tokenTable orders the tokens of a vocabulary by their ids. Ids may leave some
// numbers out, but not so many that a small file makes a huge table.
func tokenTable(vocab map[string]int64) (tokens []string, ids map[string]int32, err error) {
	limit := int64(2*len(vocab) + 10000)
	top := int64(-1)
	ids = make(map[string]int32, len(vocab))
	for token, id := range vocab {
		if id < 0 || id >= limit {
			return nil, nil, fmt.Errorf("token %s has the id %d, of a vocabulary of %d", quoted(token), id, len(vocab))
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
