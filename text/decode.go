package text

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decodeStep transforms the tokens of a text on the way to the decoded text,
// one by one or all together.
type decodeStep func(tokens []string) []string

// decoders makes the steps of each type of decoder in tokenizer.json.
var decoders map[string]func(json.RawMessage) ([]decodeStep, error)

func init() {
	decoders = map[string]func(json.RawMessage) ([]decodeStep, error){
		"Sequence": func(raw json.RawMessage) ([]decodeStep, error) {
			return sequence(raw, "decoders", decoders)
		},
		"BPEDecoder":   suffixDecoder,
		"ByteFallback": func(json.RawMessage) ([]decodeStep, error) { return []decodeStep{joinBytes(replacements)}, nil },
		"ByteLevel":    func(json.RawMessage) ([]decodeStep, error) { return []decodeStep{byteLevelDecoder}, nil },
		"Fuse":         func(json.RawMessage) ([]decodeStep, error) { return []decodeStep{fuse}, nil },
		"Metaspace":    metaspaceDecoder,
		"Replace":      replaceDecoder,
		"Strip":        stripDecoder,
		"WordPiece":    wordPieceDecoder,
	}
}

func fuse(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// eachToken is a decoder that maps each token, given its position.
func eachToken(fn func(i int, token string) string) []decodeStep {
	return []decodeStep{func(tokens []string) []string {
		for i, token := range tokens {
			tokens[i] = fn(i, token)
		}
		return tokens
	}}
}

// wordPieceDecoder joins the pieces of words, which begin with the prefix, and
// puts spaces between words. Cleaning up removes the spaces before punctuation
// and within English contractions.
func wordPieceDecoder(raw json.RawMessage) ([]decodeStep, error) {
	s := struct {
		Prefix  string `json:"prefix"`
		Cleanup bool   `json:"cleanup"`
	}{"##", true}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	return eachToken(func(i int, token string) string {
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
		return token
	}), nil
}

// cleanup removes unwanted spaces in English text, in this order.
func cleanup(s string) string {
	for _, r := range [][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"},
		{" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// metaspaceDecoder turns the sign into spaces, except at the beginning of a
// text that had one prepended.
func metaspaceDecoder(raw json.RawMessage) ([]decodeStep, error) {
	var s metaspaceSpec
	if err := s.read(raw); err != nil {
		return nil, err
	}
	return eachToken(func(i int, token string) string {
		if i == 0 && s.Scheme != "never" {
			return strings.ReplaceAll(token, s.Replacement, "")
		}
		return strings.ReplaceAll(token, s.Replacement, " ")
	}), nil
}

// suffixDecoder turns the end-of-word sign into spaces, except the last.
func suffixDecoder(raw json.RawMessage) ([]decodeStep, error) {
	s := struct {
		Suffix string `json:"suffix"`
	}{"</w>"}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	return []decodeStep{func(tokens []string) []string {
		for i, token := range tokens {
			space := " "
			if i == len(tokens)-1 {
				space = ""
			}
			tokens[i] = strings.ReplaceAll(token, s.Suffix, space)
		}
		return tokens
	}}, nil
}

func replaceDecoder(raw json.RawMessage) ([]decodeStep, error) {
	var s replaceSpec
	find, err := s.read(raw)
	if err != nil {
		return nil, err
	}
	return eachToken(func(_ int, token string) string {
		text := []byte(token)
		var b strings.Builder
		at := 0
		for _, m := range find(nil, text) {
			b.Write(text[at:m.from])
			b.WriteString(s.Content)
			at = m.to
		}
		b.Write(text[at:])
		return b.String()
	}), nil
}

// stripDecoder removes up to the given numbers of a character from the ends of
// each token.
func stripDecoder(raw json.RawMessage) ([]decodeStep, error) {
	var s struct {
		Content string `json:"content"`
		Start   int    `json:"start"`
		Stop    int    `json:"stop"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	return eachToken(func(_ int, token string) string {
		if s.Content == "" {
			return token
		}
		for i := 0; i < s.Start && strings.HasPrefix(token, s.Content); i++ {
			token = token[len(s.Content):]
		}
		for i := 0; i < s.Stop && strings.HasSuffix(token, s.Content); i++ {
			token = token[:len(token)-len(s.Content)]
		}
		return token
	}), nil
}

// joinBytes joins tokens that are single bytes, such as <0xE4>, into text;
// broken returns the replacement of bytes that are not all UTF-8.
func joinBytes(broken func(run []byte) string) decodeStep {
	return func(tokens []string) []string {
		var out []string
		var run []byte
		flush := func() {
			switch {
			case len(run) == 0:
				return
			case utf8.Valid(run):
				out = append(out, string(run))
			default:
				out = append(out, broken(run))
			}
			run = run[:0]
		}
		for _, token := range tokens {
			if b, ok := byteOf(token); ok {
				run = append(run, b)
				continue
			}
			flush()
			out = append(out, token)
		}
		flush()
		return out
	}
}

// replacements returns one U+FFFD for each byte.
func replacements(run []byte) string { return strings.Repeat(string(utf8.RuneError), len(run)) }

// byteOf parses a token such as <0xE4>.
func byteOf(token string) (byte, bool) {
	if len(token) != 6 || token[:3] != "<0x" || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(token[3:5], 16, 8)
	return byte(b), err == nil
}
