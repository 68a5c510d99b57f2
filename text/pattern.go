package text

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/internal/oniguruma"
)

// pattern appends its matches in text, in ascending order.
type pattern func(matches []span, text []byte) []span

// finder finds the first match in text from byte at on; from is -1 when there is
// none. Matches are never empty.
type finder func(text []byte, at int) (from, to int)

// all returns the pattern that find looks for.
func (find finder) all(matches []span, text []byte) []span {
	for at := 0; at < len(text); {
		from, to := find(text, at)
		if from < 0 {
			break
		}
		matches = append(matches, span{from, to})
		at = to
	}
	return matches
}

// literalPattern matches s itself.
func literalPattern(s string) pattern {
	sep := []byte(s)
	return finder(func(text []byte, at int) (int, int) {
		if i := bytes.Index(text[at:], sep); i >= 0 && len(sep) > 0 {
			return at + i, at + i + len(sep)
		}
		return -1, -1
	}).all
}

// runePattern matches each character for which is returns true.
func runePattern(is func(rune) bool) pattern { return findRune(is).all }

func findRune(is func(rune) bool) finder {
	return func(text []byte, at int) (int, int) {
		for i := at; i < len(text); {
			r, n := utf8.DecodeRune(text[i:])
			if is(r) {
				return i, i + n
			}
			i += n
		}
		return -1, -1
	}
}

// scanners implement common regular expressions, faster than a general matcher.
var scanners = map[string]finder{
	blankPattern:       blanks,
	punctuationPattern: punctuation,
}

const (
	blankPattern       = `\s+`
	punctuationPattern = metaspace + `?\p{P}` // a sign of punctuation, with the space before it
)

func blanks(text []byte, at int) (from, to int) {
	find := findRune(unicode.IsSpace)
	if from, to = find(text, at); from < 0 {
		return -1, -1
	}
	return from, trimLeft(text, to)
}

func punctuation(text []byte, at int) (from, to int) {
	find := findRune(unicode.IsPunct)
	if from, to = find(text, at); from < 0 {
		return -1, -1
	}
	if before := from - len(metaspace); before >= at && string(text[before:from]) == metaspace {
		from = before
	}
	return from, to
}

// regexPattern compiles a regular expression of tokenizer.json, which is in the
// syntax of Oniguruma.
func regexPattern(expr string) (pattern, error) {
	if find, ok := scanners[expr]; ok {
		return find.all, nil
	}
	re, err := oniguruma.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("the regular expression %s is not supported: %w", quoted(expr), err)
	}
	return func(matches []span, text []byte) []span {
		if len(text) == 0 { // Hugging Face's library asks for none
			return matches
		}
		for from, to := range re.All(text) {
			matches = append(matches, span{from, to})
		}
		return matches
	}, nil
}

// behavior is the treatment of the matches of a pattern that splits a text.
type behavior string

const (
	removed    behavior = "Removed"
	isolated   behavior = "Isolated"
	withBefore behavior = "MergedWithPrevious"
	withNext   behavior = "MergedWithNext"
	contiguous behavior = "Contiguous"
)

func (b behavior) check() error {
	switch b {
	case removed, isolated, withBefore, withNext, contiguous:
		return nil
	}
	return fmt.Errorf("a split has the unknown behavior %s", quoted(string(b)))
}

// splitter cuts pieces at the matches of a pattern. Inverted, matches and the
// text between them change roles.
func splitter(find pattern, how behavior, invert bool) step {
	return func(f *flow) {
		f.cut(func(p span) {
			text, first := f.text[p.from:p.to], len(f.newPieces)
			matched := false // whether the previous part was a match
			apart := false   // whether it was empty, so that nothing merges with it
			part := func(from, to int, match bool) {
				if from == to {
					apart = true
					return
				}
				match = match != invert
				last := len(f.newPieces) - 1
				switch {
				case how == removed && match:
				case last >= first && !apart && (how == withBefore && match && !matched ||
					how == withNext && matched && !match && f.newPieces[last].to == p.from+from ||
					how == contiguous && match == matched):
					f.newPieces[last].to = p.from + to
				default:
					f.add(p.from+from, p.from+to)
				}
				matched, apart = match, false
			}
			at := 0
			f.matches = find(f.matches[:0], text)
			for _, m := range f.matches {
				if at < m.from {
					part(at, m.from, false)
				}
				part(m.from, m.to, true)
				at = m.to
			}
			part(at, len(text), false)
		})
	}
}
