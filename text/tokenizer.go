// Package text provides what all tasks on text share: vocabularies, tokenizers
// and pretrained word vectors.
//
// A [Tokenizer] turns text into ids and back. It comes from [TrainTokenizer],
// or from a file by [LoadTokenizer]: the tokenizer.json of Hugging Face's
// tokenizers library, which [Tokenizer.Save] writes too, or the .model of
// SentencePiece. All of them are one pipeline: normalizers rewrite the text,
// splitters cut it into pieces, a model finds the tokens of each piece, and
// decoders join tokens into text.
package text

import (
	"strings"
	"sync"
)

// Token is one token of a text.
type Token struct {
	ID         int32
	Start, End int // byte offsets in the text: text[Start:End]
}

// Tokenizer turns text into tokens and back. It is immutable, and safe for use
// by several goroutines at once.
type Tokenizer struct {
	vocabulary *Vocabulary
	added      *addedTokens
	normalize  []step
	split      []step
	model      tokenModel
	decode     []decodeStep

	joinUnknown bool // adjacent unknown tokens become one

	file    string // its name: TokenizerFile or SentencePieceFile
	content []byte // of that file
	pool    sync.Pool
}

// tokenModel finds the tokens of a piece.
type tokenModel interface {
	// encode appends the tokens of word, a piece of text that begins at byte at
	// and holds valid UTF-8; their spans have the same origin as at.
	encode(dst []Token, word []byte, at int) []Token
	// unknownID returns the id of the unknown token, or -1.
	unknownID() int32
}

// workspace holds the buffers of one call.
type workspace struct {
	flow   flow
	tokens []Token
}

// Encode appends the ids of the tokens of s to dst. It adds no tokens that do
// not represent text: a task adds Begin and End itself. A special token written
// out in s becomes that token. Bytes that are not UTF-8 are read as U+FFFD, one
// each.
func (t *Tokenizer) Encode(dst []int32, s string) []int32 {
	w := t.workspace()
	w.tokens = t.run(w, w.tokens[:0], s, false)
	for _, token := range w.tokens {
		dst = append(dst, token.ID)
	}
	t.pool.Put(w)
	return dst
}

// Tokens appends the tokens of s to dst, with the ids that Encode gives and
// each token's byte range in s. A token may cover part of a character
// (byte-level models), or no bytes at all (a space that the tokenizer
// inserted); the starts never decrease.
func (t *Tokenizer) Tokens(dst []Token, s string) []Token {
	w := t.workspace()
	dst = t.run(w, dst, s, true)
	t.pool.Put(w)
	return dst
}

func (t *Tokenizer) workspace() *workspace {
	if w, ok := t.pool.Get().(*workspace); ok {
		return w
	}
	return &workspace{}
}

// run appends the tokens of s, with their spans in s if traced. Added tokens
// that are matched before normalization divide s into stretches.
func (t *Tokenizer) run(w *workspace, dst []Token, s string, traced bool) []Token {
	at := 0
	for {
		m, found := t.added.before.find(s, at)
		if !found {
			return t.stretch(w, dst, s, span{at, len(s)}, traced)
		}
		dst = t.stretch(w, dst, s, span{at, m.from}, traced)
		dst = append(dst, Token{m.id, m.from, m.to})
		at = m.to
	}
}

// stretch appends the tokens of a part of s.
func (t *Tokenizer) stretch(w *workspace, dst []Token, s string, part span, traced bool) []Token {
	if part.from == part.to {
		return dst
	}
	f := &w.flow
	f.reset(s[part.from:part.to], part.from, traced)
	for _, step := range t.normalize {
		step(f)
	}
	f.cut(func(p span) { f.add(p.from, p.to) }) // an empty text has no pieces
	t.added.after.cut(f)
	for _, step := range t.split {
		step(f)
	}
	first := len(dst)
	for _, p := range f.pieces {
		switch {
		case p.id != notAdded:
			dst = append(dst, Token{p.id, p.from, p.to})
		case p.from < p.to:
			dst = t.model.encode(dst, f.text[p.from:p.to], p.from)
		}
	}
	if t.joinUnknown {
		dst = t.joined(dst, first)
	}
	if traced {
		for i := first; i < len(dst); i++ {
			from := f.source(dst[i].Start, dst[i].End)
			dst[i].Start, dst[i].End = from.from, from.to
		}
	}
	return dst
}

// joined merges adjacent unknown tokens into one, from position first on.
func (t *Tokenizer) joined(tokens []Token, first int) []Token {
	unknown, n := t.vocabulary.unknown, first
	for _, token := range tokens[first:] {
		if n > first && token.ID == unknown && tokens[n-1].ID == unknown {
			tokens[n-1].End = token.End
			continue
		}
		tokens[n] = token
		n++
	}
	return tokens[:n]
}

// Decode joins tokens into text. Special tokens, including the unknown one, and
// ids that the vocabulary does not have, are left out. An added token that is
// searched for in normalized text appears in its normalized form.
func (t *Tokenizer) Decode(ids []int32) string { return t.DecodeWith(ids, nil) }

// DecodeWith is [Tokenizer.Decode], except that where words (nil: none) has a
// word for position i, it replaces token i: for example the source word of an
// unknown token.
func (t *Tokenizer) DecodeWith(ids []int32, words map[int]string) string {
	tokens := make([]string, 0, len(ids))
	for i, id := range ids {
		s := t.vocabulary.Token(id)
		if normal, ok := t.added.normal[id]; ok && normal != s {
			s = normal // as Hugging Face's library does, even where the token is special
		} else if t.added.special[id] {
			s = ""
		}
		if word, ok := words[i]; ok {
			s = word
		}
		if s != "" {
			tokens = append(tokens, s)
		}
	}
	if len(t.decode) == 0 {
		return strings.Join(tokens, " ")
	}
	limit := growth*length(tokens) + growthRoom
	for _, step := range t.decode {
		if tokens = step(tokens); length(tokens) > limit {
			break
		}
	}
	return strings.Join(tokens, "")
}

// length returns the total length of the tokens.
func length(tokens []string) int {
	n := 0
	for _, token := range tokens {
		n += len(token)
	}
	return n
}

// Vocabulary returns all tokens, including the special ones.
func (t *Tokenizer) Vocabulary() *Vocabulary { return t.vocabulary }

// IsSpecial reports whether the token represents no text, as Pad and End do.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.added.special[id] }
