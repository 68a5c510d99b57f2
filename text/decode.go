package text

import (
	"encoding/json"
	"strings"
)

// decodeStep works on the tokens that become a text, one by one or all together.
type decodeStep func(tokens []string) []string

// decoders makes the steps of each type of decoder in tokenizer.json.
var decoders map[string]func(json.RawMessage) ([]decodeStep, error)

func init() {
	decoders = map[string]func(json.RawMessage) ([]decodeStep, error){
		"Sequence": func(raw json.RawMessage) ([]decodeStep, error) {
			return sequence(raw, "decoders", decoders)
		},
		"ByteLevel": func(json.RawMessage) ([]decodeStep, error) { return []decodeStep{byteLevelDecoder}, nil },
		"Fuse":      func(json.RawMessage) ([]decodeStep, error) { return []decodeStep{fuse}, nil },
		"WordPiece": wordPieceDecoder,
	}
}

func fuse(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// wordPieceDecoder joins the pieces of words, which begin with the prefix, and
// puts spaces between words. Cleaning up takes the spaces before punctuation and
// within English contractions away.
func wordPieceDecoder(raw json.RawMessage) ([]decodeStep, error) {
	s := struct {
		Prefix  string `json:"prefix"`
		Cleanup bool   `json:"cleanup"`
	}{"##", true}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	return []decodeStep{func(tokens []string) []string {
		for i, token := range tokens {
			if i > 0 {
				if rest, ok := strings.CutPrefix(token, s.Prefix); ok {
					token = rest
				} else {
					token = " " + token
				}
			}
			if s.Cleanup {
				token = cleanup(token)
			}
			tokens[i] = token
		}
		return tokens
	}}, nil
}

// cleanup mends the spaces of English, in this order.
func cleanup(s string) string {
	for _, r := range [][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"},
		{" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}
