package generate

import (
	"context"
	"iter"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/text"
)

// lineEnd is the token for the end of a line if tokens are words.
const lineEnd = "<eos>"

// codec converts text to a model's tokens and back.
type codec struct {
	tokens     *text.Tokenizer
	begin, end int32
	line       int32 // ends a line; -1 if line ends are not tokens of their own
}

// trainCodec learns the tokens of the training texts. A cancelled ctx returns its
// error.
func trainCodec(ctx context.Context, cfg *Config, docs []data.Document) (*codec, error) {
	kind := cfg.Tokens
	o := &text.TokenizerOptions{VocabularySize: cfg.VocabularySize, MinCount: cfg.MinCount}
	parts := literal
	if kind == "space" {
		parts, o.Extra = blocks, []string{lineEnd}
		if o.VocabularySize == 0 {
			o.VocabularySize = 2e6
		}
	}
	t, err := text.TrainTokenizer(ctx, kind, texts(docs, parts), o)
	if err != nil {
		return nil, err
	}
	return newCodec(t, cfg.Tokens)
}

func newCodec(t *text.Tokenizer, unit string) (*codec, error) {
	k := &codec{tokens: t, begin: t.Vocabulary().BeginID(), end: t.Vocabulary().EndID(), line: -1}
	if k.begin < 0 || k.end < 0 {
		return nil, data.Errorf("the tokenizer has no tokens that begin and end a text, %s and %s", text.Begin, text.End)
	}
	if unit == "space" {
		id, ok := t.Vocabulary().Lookup(lineEnd)
		if !ok {
			return nil, data.Errorf("the tokenizer has no token %s for the end of a line", lineEnd)
		}
		k.line = id
	}
	return k, nil
}

// special matches texts that look like special tokens.
var special = regexp.MustCompile(strings.Join(text.Special(), "|"))

// literal divides a text into blocks, and these within whatever looks like a
// special token, so that a tokenizer reads it as characters. (Corpora of words
// mark unknown ones as <unk>, and there it is the token.)
func literal(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for block := range blocks(s) {
			from := 0
			for _, at := range special.FindAllStringIndex(block, -1) {
				if !yield(block[from : at[0]+1]) {
					return
				}
				from = at[0] + 1
			}
			if !yield(block[from:]) {
				return
			}
		}
	}
}

// encode appends the tokens of a text to dst. It ends early when ctx does.
func (k *codec) encode(ctx context.Context, dst []int32, s string) []int32 {
	if k.line < 0 {
		for part := range literal(s) {
			if ctx.Err() != nil {
				break
			}
			dst = k.tokens.Encode(dst, part)
		}
		return dst
	}
	for {
		line, rest, more := strings.Cut(s, "\n")
		dst = k.tokens.Encode(dst, line)
		if ctx.Err() != nil || !more {
			return dst
		}
		dst, s = append(dst, k.line), rest
	}
}

// trace returns the tokens of a text with their byte ranges; the end of a line is
// one byte.
func (k *codec) trace(s string) iter.Seq[text.Token] {
	return func(yield func(text.Token) bool) {
		var tokens []text.Token // of one part
		at := 0
		each := func(part string) bool {
			tokens = k.tokens.Tokens(tokens[:0], part)
			for _, t := range tokens {
				t.Start += at
				t.End += at
				if !yield(t) {
					return false
				}
			}
			at += len(part)
			return true
		}
		if k.line < 0 {
			for part := range literal(s) {
				if !each(part) {
					return
				}
			}
			return
		}
		for {
			line, rest, more := strings.Cut(s, "\n")
			if !each(line) || !more || !yield(text.Token{ID: k.line, Start: at, End: at + 1}) {
				return
			}
			at++
			s = rest
		}
	}
}

// decode returns the text of tokens; words of a line are separated by one space.
func (k *codec) decode(ids []int32) string {
	if k.line < 0 {
		return k.tokens.Decode(ids)
	}
	var b strings.Builder
	from := 0
	for i, id := range ids {
		if id == k.line {
			b.WriteString(k.tokens.Decode(ids[from:i]))
			b.WriteByte('\n')
			from = i + 1
		}
	}
	b.WriteString(k.tokens.Decode(ids[from:]))
	return b.String()
}

// name returns a token for people.
func (k *codec) name(id int32) string {
	if id == k.line {
		return lineEnd
	}
	if s := k.tokens.Decode([]int32{id}); s != "" {
		return s
	}
	return k.tokens.Vocabulary().Token(id)
}

// said reports whether a text may hold the token.
func (k *codec) said(id int32) bool {
	return id == k.line || !k.tokens.IsSpecial(id) && k.tokens.Vocabulary().Token(id) != ""
}

// decoder converts a stream of tokens to text, in whole characters. It decodes
// from a few tokens back, because the text of a token may depend on the one
// before it.
type decoder struct {
	codec *codec
	ids   []int32 // the latest tokens
	said  int     // the number of these whose text was returned
}

// maxPending is the largest number of tokens that wait for the end of a
// character.
const maxPending = 16

// begin sets the context that generated text follows.
func (d *decoder) begin(context []int32) {
	d.ids = append(d.ids[:0], context[max(0, len(context)-maxPending):]...)
	d.said = len(d.ids)
}

// next returns the text that one more token completes; "" if a character is not
// complete yet.
func (d *decoder) next(id int32) string {
	d.ids = append(d.ids, id)
	return d.take(false)
}

// rest returns the text left at the end, with U+FFFD for incomplete characters.
func (d *decoder) rest() string { return d.take(true) }

func (d *decoder) take(all bool) string {
	before, now := d.codec.decode(d.ids[:d.said]), d.codec.decode(d.ids)
	if !all && len(d.ids)-d.said < maxPending && strings.HasSuffix(now, string(utf8.RuneError)) {
		return ""
	}
	if n := len(d.ids); n > 0 { // one token of context is enough, for the space before a word
		d.ids = append(d.ids[:0], d.ids[n-1])
	}
	d.said = len(d.ids)
	return strings.TrimPrefix(now, before)
}
