package text

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern finds its first match in text from byte at on; from is -1 when there
// is none. Matches are never empty.
type pattern func(text []byte, at int) (from, to int)

// literalPattern matches s itself.
func literalPattern(s string) pattern {
	sep := []byte(s)
	return func(text []byte, at int) (int, int) {
		if i := bytes.Index(text[at:], sep); i >= 0 && len(sep) > 0 {
			return at + i, at + i + len(sep)
		}
		return -1, -1
	}
}

// runePattern matches each character for which is returns true.
func runePattern(is func(rune) bool) pattern {
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

// scanners implement common regular expressions, faster than package regexp.
var scanners = map[string]pattern{
	blankPattern:       blanks,
	punctuationPattern: punctuation,
}

const (
	blankPattern       = `\s+`
	punctuationPattern = metaspace + `?\p{P}` // a sign of punctuation, with the space before it
)

func blanks(text []byte, at int) (from, to int) {
	find := runePattern(unicode.IsSpace)
	if from, to = find(text, at); from < 0 {
		return -1, -1
	}
	return from, trimLeft(text, to)
}

func punctuation(text []byte, at int) (from, to int) {
	find := runePattern(unicode.IsPunct)
	if from, to = find(text, at); from < 0 {
		return -1, -1
	}
	if before := from - len(metaspace); before >= at && string(text[before:from]) == metaspace {
		from = before
	}
	return from, to
}

// trailing is the only lookahead that tokenizers commonly use: white space that
// no word follows, so that the last space stays with the word.
const trailing = `\s+(?!\S)`

// regexPattern compiles a regular expression of tokenizer.json, in Oniguruma
// syntax. Classes are those of Unicode. Of lookaround, only \s+(?!\S) as a
// whole alternative is supported; matching takes linear time.
func regexPattern(expr string) (pattern, error) {
	if find, ok := scanners[expr]; ok {
		return find, nil
	}
	alternatives := alternativesOf(expr)
	ahead := -1
	for i, a := range alternatives {
		if a == trailing {
			ahead = i
			alternatives[i] = `(?P<ahead>\s+)`
			break
		}
	}
	re, err := compile(strings.Join(alternatives, "|"), expr)
	if err != nil {
		return nil, err
	}
	if ahead < 0 {
		return func(text []byte, at int) (int, int) { return findNonEmpty(re, text, at) }, nil
	}
	var rest *regexp.Regexp // alternatives to try where the lookahead fails
	if ahead+1 < len(alternatives) {
		if rest, err = compile(`\A(?:`+strings.Join(alternatives[ahead+1:], "|")+`)`, expr); err != nil {
			return nil, err
		}
	}
	group := 2 * re.SubexpIndex("ahead")
	return func(text []byte, at int) (int, int) {
		for at < len(text) {
			m := re.FindSubmatchIndex(text[at:])
			if m == nil {
				return -1, -1
			}
			from, to := at+m[0], at+m[1]
			if m[group] >= 0 && to < len(text) {
				_, n := utf8.DecodeLastRune(text[from:to])
				to -= n
				if from == to && rest != nil {
					if m := rest.FindIndex(text[from:]); m != nil {
						to = from + m[1]
					}
				}
			}
			if from < to {
				return from, to
			}
			_, n := utf8.DecodeRune(text[from:])
			at = from + max(n, 1)
		}
		return -1, -1
	}, nil
}

// findNonEmpty returns the first non-empty match of re from at on.
func findNonEmpty(re *regexp.Regexp, text []byte, at int) (int, int) {
	for at < len(text) {
		m := re.FindIndex(text[at:])
		if m == nil {
			break
		}
		if m[0] < m[1] {
			return at + m[0], at + m[1]
		}
		_, n := utf8.DecodeRune(text[at+m[0]:])
		at += m[0] + max(n, 1)
	}
	return -1, -1
}

// compile translates an expression for package regexp; whole is for the
// message.
func compile(expr, whole string) (*regexp.Regexp, error) {
	var re *regexp.Regexp
	plain, err := translate(expr)
	if err == nil {
		re, err = regexp.Compile(plain)
	}
	if err != nil {
		return nil, fmt.Errorf("the regular expression %s is not supported: %w", quoted(whole), err)
	}
	return re, nil
}

// Unicode character classes, as written inside brackets. Package regexp has
// them for ASCII only.
var classes = map[byte]string{
	's': `\t-\r\x{85}\p{Z}`,
	'd': `\p{Nd}`,
	'w': `\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}`,
}

// translate writes classes and escapes in the syntax of package regexp. A class
// inside a class adds to it.
func translate(expr string) (string, error) {
	var b strings.Builder
	depth := 0 // of classes
	for i := 0; i < len(expr); i++ {
		rest := expr[i:]
		switch c := expr[i]; {
		case c == '\\' && len(rest) > 1:
			i += escape(&b, rest, depth > 0)
		case c == '[' && depth == 0:
			b.WriteByte(c)
			depth = 1
			for _, literal := range []string{"^", "]"} { // a bracket that comes first is a literal
				if strings.HasPrefix(expr[i+1:], literal) {
					b.WriteString(literal)
					i++
				}
			}
		case c == '[' && strings.HasPrefix(rest, "[:"):
			end := strings.Index(rest, ":]")
			if end < 0 {
				return "", fmt.Errorf("a class [: is not closed")
			}
			b.WriteString(rest[:end+2])
			i += end + 1
		case c == '[' && strings.HasPrefix(rest, "[^"), depth > 0 && strings.HasPrefix(rest, "&&"):
			return "", fmt.Errorf("complements and intersections inside a class are not supported")
		case c == '[':
			depth++
		case c == ']' && depth > 1:
			depth--
		case c == ']':
			depth = 0
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// escape translates the escape that expr begins with, and returns the number of
// bytes that it took after the first.
func escape(b *strings.Builder, expr string, inClass bool) int {
	c := expr[1]
	class, ok := classes[c|0x20]
	lower := c >= 'a'
	switch {
	case ok && inClass && lower:
		b.WriteString(class)
	case ok && c == 'S' && strings.HasSuffix(b.String(), "["+classes['s']): // [\s\S], anything
		b.WriteString(`\x{0}-\x{10FFFF}`)
	case ok && !inClass && lower:
		b.WriteString("[" + class + "]")
	case ok && !inClass:
		b.WriteString("[^" + class + "]")
	case c == 'u' && len(expr) >= 6:
		b.WriteString(`\x{` + expr[2:6] + "}")
		return 5
	case c < utf8.RuneSelf && strings.IndexByte("/'\"<>%#@&,;:=~`! ", c) >= 0:
		b.WriteString(regexp.QuoteMeta(string(rune(c))))
	default:
		b.WriteByte('\\')
		b.WriteByte(c)
	}
	return 1
}

// alternativesOf splits an expression at the bars outside groups and classes.
func alternativesOf(expr string) []string {
	var list []string
	depth, inClass, begin := 0, false, 0
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; {
		case c == '\\':
			i++
		case inClass:
			inClass = c != ']'
		case c == '[':
			inClass = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == '|' && depth == 0:
			list = append(list, expr[begin:i])
			begin = i + 1
		}
	}
	return append(list, expr[begin:])
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
			part := func(from, to int, match bool) {
				if from == to {
					return
				}
				match = match != invert
				last := len(f.newPieces) - 1
				switch {
				case how == removed && match:
				case last >= first && (how == withBefore && match && !matched ||
					how == withNext && matched && !match && f.newPieces[last].to == p.from+from ||
					how == contiguous && match == matched):
					f.newPieces[last].to = p.from + to
				default:
					f.add(p.from+from, p.from+to)
				}
				matched = match
			}
			at := 0
			for at < len(text) {
				from, to := find(text, at)
				if from < 0 {
					break
				}
				part(at, from, false)
				part(from, to, true)
				at = to
			}
			part(at, len(text), false)
		})
	}
}
