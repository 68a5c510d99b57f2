package generate

import (
	"cmp"
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
// error, and a text that cannot be read a *data.InputError.
func trainCodec(ctx context.Context, cfg *Config, docs []data.Document) (*codec, error) {
	kind := cfg.Tokens
	o := &text.TokenizerOptions{VocabularySize: cfg.VocabularySize, MinCount: cfg.MinCount}
	parts := literal
	if kind == "space" {
		parts, o.Extra = whole, []string{lineEnd}
		if o.VocabularySize == 0 {
			o.VocabularySize = 2e6
		}
	}
	r := &reading{ctx: ctx}
	t, err := text.TrainTokenizer(ctx, kind, r.texts(docs, parts), o)
	if err := cmp.Or(r.err, err); err != nil {
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

// literal divides a block of a text within whatever looks like a special token, so that a
// tokenizer reads it as characters. (Corpora of words mark unknown ones as <unk>, and
// there it is the token.)
func literal(block string) iter.Seq[string] {
	return func(yield func(string) bool) {
		from := 0
		for _, at := range special.FindAllStringIndex(block, -1) {
			if !yield(block[from : at[0]+1]) {
				return
			}
			from = at[0] + 1
		}
		yield(block[from:])
	}
}

// whole is a block as it is.
func whole(block string) iter.Seq[string] { return func(yield func(string) bool) { yield(block) } }

// parts iterates over what the tokenizer reads at once of a text in blocks: lines without
// their ends, if tokens are words, with whether the token for a line's end follows.
func (k *codec) parts(blocks iter.Seq[string]) iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		if k.line >= 0 {
			for line := range lines(blocks) {
				if !yield(strings.CutSuffix(line, "\n")) {
					return
				}
			}
			return
		}
		for block := range blocks {
			for part := range literal(block) {
				if !yield(part, false) {
					return
				}
			}
		}
	}
}

// encode appends the tokens of a text to dst. It ends early when ctx does.
func (k *codec) encode(ctx context.Context, dst []int32, s string) []int32 {
	for part, ends := range k.parts(blocks(s)) {
		if ctx.Err() != nil {
			break
		}
		if dst = k.tokens.Encode(dst, part); ends {
			dst = append(dst, k.line)
		}
	}
	return dst
}

// traced is a part of a text, where it begins, in bytes, and its tokens with their byte
// ranges in the text.
type traced struct {
	text   string
	at     int
	tokens []text.Token
}

// trace iterates over the parts of a text in blocks; the end of a line, one byte, belongs
// to the line. A part is valid until the next.
func (k *codec) trace(blocks iter.Seq[string]) iter.Seq[traced] {
	return func(yield func(traced) bool) {
		var p traced
		for part, ends := range k.parts(blocks) {
			p.text, p.tokens = part, k.tokens.Tokens(p.tokens[:0], part)
			for i := range p.tokens {
				p.tokens[i].Start += p.at
				p.tokens[i].End += p.at
			}
			if ends {
				p.tokens = append(p.tokens, text.Token{ID: k.line, Start: p.at + len(part), End: p.at + len(part) + 1})
				p.text += "\n"
			}
			if !yield(p) {
				return
			}
			p.at += len(p.text)
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
