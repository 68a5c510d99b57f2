package text

import (
	"bytes"
	"encoding/json"
	"iter"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// Kinds lists the kinds of tokenizer that TrainTokenizer knows.
//
//   - char: every character (code point) is a token
//   - word: words, numbers and punctuation are tokens; in Chinese, Japanese,
//     Thai, Lao, Khmer and Burmese, which put no spaces between words, characters are
//   - space: whatever stands between white space is a token, as in corpora whose
//     words were already separated
func Kinds() []string { return []string{"char", "word", "space"} }

// TokenizerOptions says how a tokenizer is trained. The zero value is usable.
type TokenizerOptions struct {
	VocabularySize int    // most tokens, the special ones included; 0: no limit for char, 50,000 otherwise
	MinCount       int    // tokens seen fewer times are left out; 0 and 1 keep all
	Lowercase      bool   // make text lower case, also when encoding
	Normalize      string // Unicode normal form of the text, also when encoding: "", "nfc" or "nfkc"

	// Extra lists special tokens beyond Pad, Unknown, Begin and End. They get the
	// ids from 4 on.
	Extra []string
}

// TrainTokenizer makes a tokenizer of one of the Kinds from texts. Equal texts
// and options give equal tokenizers. What it counts and learns is kept in
// memory, the texts are not.
func TrainTokenizer(kind string, texts iter.Seq[string], o *TokenizerOptions) (*Tokenizer, error) {
	if o == nil {
		o = &TokenizerOptions{}
	}
	special, err := o.check()
	if err != nil {
		return nil, err
	}
	j := &jsonTokenizer{Version: "1.0"}
	for i, s := range special {
		j.AddedTokens = append(j.AddedTokens, addedToken{ID: int32(i), Content: s, Special: true})
	}
	j.Normalizer = o.normalizer()
	size := o.VocabularySize
	switch kind {
	case "char":
		j.PreTokenizer = object("Split", "pattern", regex(characterPattern), "behavior", isolated, "invert", false)
		j.Decoder = object("Fuse")
	case "word":
		j.PreTokenizer = wordSplit()
		j.Decoder = object("WordPiece", "prefix", "##", "cleanup", true)
	case "space":
		j.PreTokenizer = object("WhitespaceSplit")
	default:
		return nil, data.Errorf("there is no tokenizer of the kind %s; the kinds are %s", quoted(kind), strings.Join(Kinds(), ", "))
	}
	if size == 0 && kind != "char" {
		size = 50000
	}
	counts, err := j.countPieces(special, texts)
	if err != nil {
		return nil, err
	}
	v := NewVocabulary(counts, &VocabularyOptions{MinCount: o.MinCount, MaxSize: size, Special: special})
	if v.Len() == len(special) {
		return nil, data.Errorf("the texts have no token to learn")
	}
	t, err := j.build(wordLevelModel(v.tokens))
	if err != nil {
		return nil, err
	}
	t.vocabulary.counts = v.counts
	return t, nil
}

// check gives the special tokens, or says what is wrong with the options.
func (o *TokenizerOptions) check() (special []string, err error) {
	special = append(Special(), o.Extra...)
	for i, s := range special {
		if s == "" || strings.TrimSpace(s) != s || slices.Contains(special[:i], s) {
			return nil, data.Errorf("the special token %s is empty, has spaces around it or stands twice", quoted(s))
		}
	}
	switch {
	case o.VocabularySize < 0 || o.VocabularySize > 0 && o.VocabularySize <= len(special):
		return nil, data.Errorf("a vocabulary of %d tokens has no room beside the %d special ones", o.VocabularySize, len(special))
	case o.MinCount < 0:
		return nil, data.Errorf("a token's least count is %d; it must not be negative", o.MinCount)
	case o.Normalize != "" && o.Normalize != "nfc" && o.Normalize != "nfkc":
		return nil, data.Errorf("there is no normal form %s; nfc and nfkc are known", quoted(o.Normalize))
	}
	return special, nil
}

func (o *TokenizerOptions) normalizer() json.RawMessage {
	var list []json.RawMessage
	if o.Normalize != "" {
		list = append(list, object(strings.ToUpper(o.Normalize)))
	}
	if o.Lowercase {
		list = append(list, object("Lowercase"))
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return object("Sequence", "normalizers", list)
}

// build makes the tokenizer that a reader of the finished file would make, so
// that a tokenizer just trained and one read back cannot differ.
func (j *jsonTokenizer) build(model json.RawMessage) (*Tokenizer, error) {
	j.Model = model
	return parseJSON(TokenizerFile, encodeJSON(j))
}

// countPieces counts the pieces that the normalizer and pre-tokenizer make of texts.
func (j *jsonTokenizer) countPieces(special []string, texts iter.Seq[string]) (map[string]int64, error) {
	t, err := j.build(wordLevelModel(special))
	if err != nil {
		return nil, err
	}
	counter := pieceCounter{}
	t.model = counter
	var w workspace
	for s := range texts {
		w.tokens = t.run(&w, w.tokens[:0], s, false)
	}
	counts := make(map[string]int64, len(counter))
	for word, n := range counter {
		counts[word] = *n
	}
	return counts, nil
}

// pieceCounter stands in a model's place to count the pieces.
type pieceCounter map[string]*int64

func (c pieceCounter) encode(dst []Token, word []byte, at int) []Token {
	if n, ok := c[string(word)]; ok {
		*n++
		return dst
	}
	n := int64(1)
	c[string(word)] = &n
	return dst
}

// wordLevelModel writes the model of a vocabulary of whole pieces.
func wordLevelModel(tokens []string) json.RawMessage {
	return object("WordLevel", "vocab", orderedVocabulary(tokens), "unk_token", Unknown)
}

func regex(expr string) patternSpec { return patternSpec{Regex: &expr} }

// orderedVocabulary is an object from tokens to ids, in the order of the ids.
type orderedVocabulary []string

func (v orderedVocabulary) MarshalJSON() ([]byte, error) {
	fields := make([]any, 0, 2*len(v))
	for id, token := range v {
		fields = append(fields, token, id)
	}
	return orderedObject(fields), nil
}

// object writes a component of tokenizer.json: its type and fields, which are
// names and values in turn.
func object(kind string, fields ...any) json.RawMessage {
	return orderedObject(append([]any{"type", kind}, fields...))
}

func orderedObject(fields []any) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i := 0; i < len(fields); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(encodeJSON(fields[i]))
		b.WriteByte(':')
		b.Write(encodeJSON(fields[i+1]))
	}
	b.WriteByte('}')
	return b.Bytes()
}

// encodeJSON writes a value that JSON can hold, without escapes for HTML.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("text: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
