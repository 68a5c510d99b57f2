package text

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// kind is a type of tokenizer: how to split text, how to join tokens, and how
// to learn a model from the pieces.
type kind struct {
	name     string
	splitter json.RawMessage
	decoder  json.RawMessage
	blanks   bool // white space of any kind and length is one space, none at the ends
	size     int  // of the vocabulary, where the options give none; 0: no limit
	least    int  // minimum number of tokens besides the special ones
	learn    func(ctx context.Context, special []string, counts map[string]int64, size int, minCount int64) (model json.RawMessage, counted []int64, err error)
}

var kinds = []kind{
	{
		"char",
		object("Split", "pattern", regex(characterPattern), "behavior", isolated, "invert", false),
		object("Fuse"), false, 0, 1, learnWords,
	},
	{"word", wordSplit(), object("WordPiece", "prefix", "##", "cleanup", true), false, 50000, 1, learnWords},
	{"space", object("WhitespaceSplit"), nil, false, 50000, 1, learnWords},
	{
		"bpe",
		object("ByteLevel", "add_prefix_space", false, "trim_offsets", false, "use_regex", true),
		object("ByteLevel", "add_prefix_space", false, "trim_offsets", false, "use_regex", true),
		false, 8000, 256, learnBPE,
	},
	{"charbpe", subwordSplit(), metaspaces(), true, 8000, 1, learnCharacterBPE},
	{"unigram", subwordSplit(), metaspaces(), true, 8000, 1, learnUnigram},
}

// Kinds lists the kinds of tokenizer that TrainTokenizer accepts.
//
//   - char: every character (code point) is a token
//   - word: words, numbers and punctuation are tokens; in Chinese, Japanese,
//     Thai, Lao, Khmer and Burmese, which put no spaces between words, characters are,
//     or with a [Segmenter] words of the last four
//   - space: whatever is between white space is a token, as in corpora whose
//     words are already separated
//   - bpe: byte pair encoding over bytes, as in GPT-2; nothing is unknown, and
//     decoding restores the text exactly
//   - charbpe: byte pair encoding over characters, within words and between
//     punctuation; characters not seen in training are unknown, and white space becomes
//     single spaces
//   - unigram: the tokens of a unigram language model, as in SentencePiece, split
//     as for charbpe
func Kinds() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// TokenizerOptions sets how a tokenizer is trained. The zero value is usable.
type TokenizerOptions struct {
	VocabularySize int    // maximum number of tokens, including the special ones; 0: no limit for char, 50,000 for word and space, otherwise 8,000
	MinCount       int    // tokens seen fewer times (in byte pair encoding, pairs) are left out; 0 and 1 keep all
	Lowercase      bool   // make text lower case, also when encoding
	Normalize      string // Unicode normal form of the text, also when encoding: "", "nfc" or "nfkc"

	// Segmenters find the words of the scripts of Thai, Lao, Khmer and Burmese; at most
	// one for each, and for the kind word only. They become a part of the tokenizer's
	// file, which Hugging Face's library then cannot read.
	Segmenters []*Segmenter

	// Extra lists special tokens besides Pad, Unknown, Begin and End. They get
	// the ids from 4 on.
	Extra []string
}

// TrainTokenizer trains a tokenizer of one of the [Kinds] on texts. Equal texts
// and options give equal tokenizers. Counts and statistics are kept in memory,
// the texts are not. Above four million different pieces (words, for most kinds) the rarest
// are forgotten while they are counted, so that memory is bounded.
//
// It returns a [*data.InputError] if the kind or an option is invalid, the
// vocabulary is too small for the special tokens, or the texts have no token to
// learn. A cancelled ctx ends the training and returns its error.
func TrainTokenizer(ctx context.Context, name string, texts iter.Seq[string], o *TokenizerOptions) (*Tokenizer, error) {
	if o == nil {
		o = &TokenizerOptions{}
	}
	special, err := o.check()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return nil, data.Errorf("unknown kind of tokenizer %s; the kinds are %s", quoted(name), strings.Join(Kinds(), ", "))
	}
	k := kinds[i]
	if n := o.VocabularySize; n > 0 && n < len(special)+k.least {
		return nil, data.Errorf("a vocabulary of %d tokens is too small: a %s tokenizer with %d special tokens needs %d", n, name, len(special), len(special)+k.least)
	}
	j := &jsonTokenizer{Version: "1.0", Normalizer: o.normalizer(k.blanks), PreTokenizer: k.splitter, Decoder: k.decoder}
	for i, s := range special {
		j.AddedTokens = append(j.AddedTokens, addedToken{ID: int32(i), Content: s, Special: true})
	}
	if len(o.Segmenters) > 0 {
		if name != "word" {
			return nil, data.Errorf("a segmenter finds words, and the kind of tokenizer is %s; want word", quoted(name))
		}
		j.PreTokenizer = segmentedSplit(o.Segmenters)
	}
	counts, err := j.countPieces(ctx, special, texts)
	if err != nil {
		return nil, err
	}
	size := o.VocabularySize
	if size == 0 {
		size = k.size
	}
	model, counted, err := k.learn(ctx, special, counts, size, int64(o.MinCount))
	if err != nil {
		return nil, err
	}
	t, err := j.build(model)
	if err != nil {
		return nil, err
	}
	if t.vocabulary.Len() == len(special) {
		e := data.Errorf("the texts have no token to learn")
		if len(counts) > 0 {
			e.Problem, e.Fix = fmt.Sprintf("no token occurs in the texts %d times", o.MinCount), "give more text, or a smaller min_count"
		}
		return nil, e
	}
	t.vocabulary.counts = counted
	return t, nil
}

// learnWords makes every piece a token, except those longer than a token may
// be.
func learnWords(_ context.Context, special []string, counts map[string]int64, size int, minCount int64) (json.RawMessage, []int64, error) {
	maps.DeleteFunc(counts, func(token string, _ int64) bool { return len(token) > maxToken })
	v := NewVocabulary(counts, &VocabularyOptions{MinCount: int(minCount), MaxSize: size, Special: special})
	return wordLevelModel(v.tokens), v.counts, nil
}

// learnBPE merges bytes. All bytes have tokens, so nothing is unknown.
func learnBPE(ctx context.Context, special []string, counts map[string]int64, size int, minCount int64) (json.RawMessage, []int64, error) {
	t, err := trainBPE(ctx, special, byteAlphabet(), counts, size, minCount)
	if err != nil {
		return nil, nil, err
	}
	return t.model(nil), nil, nil
}

// learnCharacterBPE merges characters.
func learnCharacterBPE(ctx context.Context, special []string, counts map[string]int64, size int, minCount int64) (json.RawMessage, []int64, error) {
	t, err := trainBPE(ctx, special, nil, counts, size, minCount)
	if err != nil {
		return nil, nil, err
	}
	return t.model(Unknown), nil, nil
}

// learnUnigram finds the tokens that make the pieces most probable.
func learnUnigram(ctx context.Context, special []string, counts map[string]int64, size int, minCount int64) (json.RawMessage, []int64, error) {
	t, err := trainUnigram(ctx, counts, size-len(special), minCount)
	if err != nil {
		return nil, nil, err
	}
	return t.model(special, slices.Index(special, Unknown)), nil, nil
}

// subwordSplit writes spaces as signs that begin words and separates
// punctuation.
func subwordSplit() json.RawMessage {
	return object("Sequence", "pretokenizers", []json.RawMessage{
		metaspaces(),
		object("Split", "pattern", regex(punctuationPattern), "behavior", isolated, "invert", false),
	})
}

// metaspaces returns the pre-tokenizer and the decoder that write and read
// spaces as signs.
func metaspaces() json.RawMessage {
	return object("Metaspace", "replacement", metaspace, "prepend_scheme", "always", "split", true)
}

// check returns the special tokens, or an error for invalid options.
func (o *TokenizerOptions) check() (special []string, err error) {
	special = append(Special(), o.Extra...)
	for i, s := range special {
		if s == "" || strings.TrimSpace(s) != s || slices.Contains(special[:i], s) {
			return nil, data.Errorf("the special token %s is empty, has spaces around it or occurs twice", quoted(s))
		}
	}
	if err := checkSegmenters(o.Segmenters); err != nil {
		return nil, err
	}
	switch {
	case o.VocabularySize < 0:
		return nil, data.Errorf("the vocabulary's size is %d; it must not be negative", o.VocabularySize)
	case o.MinCount < 0:
		return nil, data.Errorf("a token's minimum count is %d; it must not be negative", o.MinCount)
	case o.Normalize != "" && o.Normalize != "nfc" && o.Normalize != "nfkc":
		return nil, data.Errorf("unknown normal form %s; the normal forms are nfc and nfkc", quoted(o.Normalize))
	}
	return special, nil
}

func (o *TokenizerOptions) normalizer(blanks bool) json.RawMessage {
	var list []json.RawMessage
	if o.Normalize != "" {
		list = append(list, object(strings.ToUpper(o.Normalize)))
	}
	if o.Lowercase {
		list = append(list, object("Lowercase"))
	}
	if blanks {
		list = append(list, object("Replace", "pattern", regex(blankPattern), "content", " "), object("Strip", "strip_left", true, "strip_right", true))
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return object("Sequence", "normalizers", list)
}

// build makes the tokenizer through the reader of the finished file, so that a
// trained tokenizer and one read from the file cannot differ.
func (j *jsonTokenizer) build(model json.RawMessage) (*Tokenizer, error) {
	j.Model = model
	return parseJSON(TokenizerFile, encodeJSON(j))
}

// checkEvery is the number of iterations of a loop over texts, words, merges or
// lines after which it checks whether its context is cancelled.
const checkEvery = 1 << 10

// cancelled returns the error of ctx in every checkEvery-th iteration, 0 included,
// and nil in the others.
func cancelled(ctx context.Context, iteration int) error {
	if iteration%checkEvery != 0 {
		return nil
	}
	return ctx.Err()
}

// countPieces counts the pieces that the normalizer and pre-tokenizer make of
// texts. A cancelled ctx returns its error.
func (j *jsonTokenizer) countPieces(ctx context.Context, special []string, texts iter.Seq[string]) (map[string]int64, error) {
	t, err := j.build(wordLevelModel(special))
	if err != nil {
		return nil, err
	}
	counter := pieceCounter{}
	t.model = counter
	var w workspace
	for s := range texts {
		if err := ctx.Err(); err != nil { // a text may be long
			return nil, err
		}
		w.tokens = t.run(&w, w.tokens[:0], s, false)
		counter.bound(mostPieces)
	}
	counts := make(map[string]int64, len(counter))
	for word, n := range counter {
		counts[word] = *n
	}
	return counts, nil
}

// pieceCounter replaces a model to count the pieces.
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

func (c pieceCounter) unknownID() int32 { return -1 }

// mostPieces is the number of different pieces that are counted at a time; some hundred
// bytes are needed for each.
var mostPieces = 1 << 22

// bound forgets the rarest pieces if there are more than most, so that memory does not grow
// with the texts: at least half of them, by a number of occurrences up to which all are
// forgotten. One that comes again is counted anew.
func (c pieceCounter) bound(most int) {
	for rare := int64(1); len(c) > most || rare > 1 && len(c) > most/2; rare *= 2 {
		maps.DeleteFunc(c, func(_ string, n *int64) bool { return *n <= rare })
	}
}

// wordLevelModel writes the model of a vocabulary of whole pieces.
func wordLevelModel(tokens []string) json.RawMessage {
	return object("WordLevel", "vocab", orderedVocabulary(tokens), "unk_token", Unknown)
}

func regex(expr string) patternSpec { return patternSpec{Regex: &expr} }

// orderedVocabulary is a JSON object from tokens to ids, ordered by id.
type orderedVocabulary []string

func (v orderedVocabulary) MarshalJSON() ([]byte, error) {
	fields := make([]any, 0, 2*len(v))
	for id, token := range v {
		fields = append(fields, token, id)
	}
	return orderedObject(fields), nil
}

// object writes a component of tokenizer.json: its type and fields, which are
// alternating names and values.
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

// encodeJSON writes a value that JSON can represent, without escapes for HTML.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("text: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
