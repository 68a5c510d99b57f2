package text

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// The special tokens of tokenizers trained here, with ids 0 to 3 in this order.
const (
	Pad     = "<pad>" // fills rows up to a common length
	Unknown = "<unk>" // replaces what the vocabulary lacks
	Begin   = "<s>"   // begins a sequence
	End     = "</s>"  // ends a sequence
)

// Special lists the special tokens in the order of their ids.
func Special() []string { return []string{Pad, Unknown, Begin, End} }

// otherNames are the names of the special tokens in other systems.
var otherNames = map[string][]string{
	Pad:     {Pad, "[PAD]", "<|padding|>", "<|endoftext|>"},
	Unknown: {Unknown, "[UNK]", "<|unk|>"},
	Begin:   {Begin, "[CLS]", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"},
	End:     {End, "[SEP]", "<eos>", "<|end_of_text|>", "<|endoftext|>"},
}

// Vocabulary numbers tokens from 0. It is immutable and may be shared.
type Vocabulary struct {
	tokens []string // by id; "" where an id has no token
	counts []int64  // by id; nil when not known
	ids    map[string]int32

	pad, unknown, begin, end int32
}

// VocabularyOptions selects the tokens of a vocabulary.
type VocabularyOptions struct {
	MinCount int      // drop tokens seen fewer times; 0 and 1 keep all
	MaxSize  int      // maximum number of tokens, including the special ones; 0 is no limit
	Special  []string // tokens that get the first ids, in this order, regardless of their counts
}

// NewVocabulary numbers the counted tokens: the special ones first, then by
// falling count, and tokens with equal counts in byte order, so that equal
// counts give equal ids. The empty token is left out.
func NewVocabulary(counts map[string]int64, o *VocabularyOptions) *Vocabulary {
	if o == nil {
		o = &VocabularyOptions{}
	}
	tokens := slices.Clone(o.Special)
	special := map[string]bool{"": true}
	for _, s := range o.Special {
		special[s] = true
	}
	first := len(tokens)
	for token, n := range counts {
		if n >= int64(o.MinCount) && !special[token] {
			tokens = append(tokens, token)
		}
	}
	slices.SortFunc(tokens[first:], func(a, b string) int {
		if d := counts[b] - counts[a]; d != 0 {
			return sign(d)
		}
		return strings.Compare(a, b)
	})
	if o.MaxSize > 0 && len(tokens) > o.MaxSize {
		tokens = tokens[:max(o.MaxSize, first)]
	}
	v := &Vocabulary{tokens: tokens, counts: make([]int64, len(tokens))}
	for i, token := range tokens {
		v.counts[i] = counts[token]
	}
	v.index()
	return v
}

func sign(d int64) int {
	switch {
	case d < 0:
		return -1
	case d > 0:
		return 1
	}
	return 0
}

// index fills the map from tokens to ids; it reports a token that occurs twice.
func (v *Vocabulary) index() (twice string, ok bool) {
	v.ids = make(map[string]int32, len(v.tokens))
	ok = true
	for i, token := range v.tokens {
		if token == "" {
			continue
		}
		if _, known := v.ids[token]; known {
			twice, ok = token, false
			continue
		}
		v.ids[token] = int32(i)
	}
	v.pad, v.unknown = v.role(Pad), v.role(Unknown)
	v.begin, v.end = v.role(Begin), v.role(End)
	return twice, ok
}

func (v *Vocabulary) role(name string) int32 {
	for _, other := range otherNames[name] {
		if id, ok := v.ids[other]; ok {
			return id
		}
	}
	return -1
}

// Len is one more than the highest id: the number of rows of an embedding.
func (v *Vocabulary) Len() int { return len(v.tokens) }

// Lookup returns the id of a token, and whether it is in the vocabulary.
func (v *Vocabulary) Lookup(token string) (id int32, ok bool) {
	id, ok = v.ids[token]
	return id, ok
}

// ID returns the id of a token, or that of the unknown token, or -1 when the
// vocabulary has none.
func (v *Vocabulary) ID(token string) int32 {
	if id, ok := v.ids[token]; ok {
		return id
	}
	return v.unknown
}

// Token returns the token with that id, "" for an id without a token.
func (v *Vocabulary) Token(id int32) string {
	if id < 0 || int(id) >= len(v.tokens) {
		return ""
	}
	return v.tokens[id]
}

// Tokens lists the tokens by id; ids without a token hold "". The caller may
// change the list.
func (v *Vocabulary) Tokens() []string { return slices.Clone(v.tokens) }

// Count is how often the token was seen when the vocabulary was made, 0 if
// unknown.
func (v *Vocabulary) Count(id int32) int64 {
	if id < 0 || int(id) >= len(v.counts) {
		return 0
	}
	return v.counts[id]
}

// PadID is the id of the padding token, -1 if there is none. Like UnknownID,
// BeginID and EndID it also recognises the names of other systems, such as
// [PAD].
func (v *Vocabulary) PadID() int32 { return v.pad }

// UnknownID is the id of the token that replaces what the vocabulary lacks, or
// -1.
func (v *Vocabulary) UnknownID() int32 { return v.unknown }

// BeginID is the id of the token that begins a sequence, or -1.
func (v *Vocabulary) BeginID() int32 { return v.begin }

// EndID is the id of the token that ends a sequence, or -1.
func (v *Vocabulary) EndID() int32 { return v.end }

// vocabularyFile is a Vocabulary as JSON.
type vocabularyFile struct {
	Tokens []string `json:"tokens"`
	Counts []int64  `json:"counts,omitempty"`
}

// MarshalJSON writes the tokens ordered by id, and their counts. It returns no
// error.
func (v *Vocabulary) MarshalJSON() ([]byte, error) {
	return json.Marshal(vocabularyFile{v.tokens, v.counts})
}

// UnmarshalJSON reads what MarshalJSON wrote. It returns encoding/json's error
// if raw is of another form, and a [*data.InputError] if the counts do not
// match the tokens or a token occurs twice.
func (v *Vocabulary) UnmarshalJSON(raw []byte) error {
	var f vocabularyFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return err
	}
	if f.Counts != nil && len(f.Counts) != len(f.Tokens) {
		return data.Errorf("a vocabulary of %d tokens has %d counts", len(f.Tokens), len(f.Counts))
	}
	*v = Vocabulary{tokens: f.Tokens, counts: f.Counts}
	if twice, ok := v.index(); !ok {
		return data.Errorf("a vocabulary has the token %s twice", quoted(twice))
	}
	return nil
}

// quoted formats text from outside for a message: quoted, control characters
// escaped, long text cut.
func quoted(s string) string {
	const most = 40
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	short := []rune(s[:most])
	return fmt.Sprintf("%q...", string(short[:len(short)-1]))
}
