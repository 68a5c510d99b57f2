package text

import (
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is recognised in the text as a whole, before the
// model is applied.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no letter or digit is adjacent
	LStrip     bool   `json:"lstrip"`      // also takes the spaces before it
	RStrip     bool   `json:"rstrip"`      // also takes the spaces after it
	Normalized bool   `json:"normalized"`  // searched for after the text is normalized
	Special    bool   `json:"special"`
}

// addedTokens holds the added tokens of one tokenizer.
type addedTokens struct {
	before, after matcher
	special       map[int32]bool
	normal        map[int32]string // the normalized form of the tokens in after
}

// matcher finds added tokens in a text.
type matcher struct {
	trie   *trie // maps to positions in tokens; nil when there are none
	tokens []addedToken
	starts [256]bool // whether a token begins with the byte
}

// match is an added token in a text, with the spaces that belong to it.
type match struct {
	span
	id int32
}

// newMatcher searches for each token as its content, in the form that the text
// has.
func newMatcher(tokens []addedToken, contents []string) matcher {
	m := matcher{tokens: tokens}
	keys := map[string]int32{}
	for i, s := range contents {
		if _, twice := keys[s]; s != "" && !twice { // of several with one normalized form, the first
			keys[s] = int32(i)
			m.starts[s[0]] = true
		}
	}
	if len(keys) > 0 {
		m.trie = newTrie(keys)
	}
	return m
}

// find returns the first added token in s from byte at on, the longest where
// several begin. The spaces that it takes before the token begin at at or
// later.
func (m *matcher) find(s string, at int) (match, bool) { return find(m, s, at) }

func find[T string | []byte](m *matcher, s T, at int) (match, bool) {
	if m.trie == nil {
		return match{}, false
	}
	for i := at; i < len(s); {
		if !m.starts[s[i]] {
			i++
			continue
		}
		k, end := longest(m.trie, s, i)
		if k < 0 {
			i++
			continue
		}
		token := &m.tokens[k]
		if token.SingleWord && (wordEnds(s[:i]) || wordBegins(s[end:])) {
			i = end
			continue
		}
		found := match{span{i, end}, token.ID}
		if token.LStrip {
			found.from = trimRight(s, at, i)
		}
		if token.RStrip {
			found.to = trimLeft(s, end)
		}
		return found, true
	}
	return match{}, false
}

// cut makes separate pieces of the added tokens in a flow.
func (m *matcher) cut(f *flow) {
	if m.trie == nil {
		return
	}
	f.cut(func(p span) {
		for at := p.from; ; {
			found, ok := find(m, f.text[:p.to], at)
			if !ok {
				f.add(at, p.to)
				return
			}
			f.add(at, found.from)
			f.newPieces = append(f.newPieces, piece(found))
			at = found.to
		}
	})
}

func wordEnds[T string | []byte](s T) bool {
	r, n := lastRune(s)
	return n > 0 && isWord(r)
}

func wordBegins[T string | []byte](s T) bool {
	r, n := firstRune(s)
	return n > 0 && isWord(r)
}

// trimRight returns where the spaces that end at to begin, not before from.
func trimRight[T string | []byte](s T, from, to int) int {
	for to > from {
		r, n := lastRune(s[from:to])
		if !unicode.IsSpace(r) {
			break
		}
		to -= n
	}
	return to
}

// trimLeft returns where the spaces that begin at from end.
func trimLeft[T string | []byte](s T, from int) int {
	for from < len(s) {
		r, n := firstRune(s[from:])
		if !unicode.IsSpace(r) {
			break
		}
		from += n
	}
	return from
}

func firstRune[T string | []byte](s T) (rune, int) {
	return utf8.DecodeRuneInString(string(s[:min(len(s), utf8.UTFMax)]))
}

func lastRune[T string | []byte](s T) (rune, int) {
	return utf8.DecodeLastRuneInString(string(s[max(0, len(s)-utf8.UTFMax):]))
}

// isWord reports whether r is a letter, a mark, a digit or a connector such as _.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}
