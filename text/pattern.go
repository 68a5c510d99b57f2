package text

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/rangetable"
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

// maxExpression is the maximum length in bytes of a translated expression, in which
// classes are written out. Time and memory of matching are proportional to it.
const maxExpression = 512 << 10

// regexPattern compiles a regular expression of tokenizer.json, in Oniguruma
// syntax. Classes are those of Unicode. Of lookaround, only \s+(?!\S) as a
// whole alternative is supported, and \b is not; matching takes linear time.
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

// A set is character ranges, from first to last, in ascending order.
type set [][2]rune

// setOf joins the characters of Unicode's tables.
func setOf(tables ...*unicode.RangeTable) set {
	var s set
	rangetable.Visit(rangetable.Merge(tables...), func(r rune) {
		if n := len(s); n > 0 && s[n-1][1] == r-1 {
			s[n-1][1] = r
		} else {
			s = append(s, [2]rune{r, r})
		}
	})
	return s
}

// not returns the other characters.
func (s set) not() set {
	var out set
	next := rune(0)
	for _, r := range s {
		if r[0] > next {
			out = append(out, [2]rune{next, r[0] - 1})
		}
		next = r[1] + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, [2]rune{next, unicode.MaxRune})
	}
	return out
}

// String writes the set as it stands inside brackets.
func (s set) String() string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\x{%X}-\x{%X}`, r[0], r[1])
	}
	return b.String()
}

// namedClasses are the classes that Oniguruma knows by name, which are those of
// Unicode; package regexp has them for ASCII only.
var namedClasses = sync.OnceValue(func() map[string]set {
	alpha := []*unicode.RangeTable{unicode.L, unicode.Nl, unicode.Other_Alphabetic}
	graph := []*unicode.RangeTable{unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Cf, unicode.Co}
	return map[string]set{
		"alpha":  setOf(alpha...),
		"alnum":  setOf(append(alpha, unicode.Nd)...),
		"ascii":  {{0, unicode.MaxASCII}},
		"blank":  setOf(unicode.Zs, rangetable.New('\t')),
		"cntrl":  setOf(unicode.Cc),
		"digit":  setOf(unicode.Nd),
		"graph":  setOf(graph...),
		"lower":  setOf(unicode.Ll, unicode.Other_Lowercase),
		"print":  setOf(append(graph, unicode.Zs)...),
		"punct":  setOf(unicode.P, unicode.S),
		"space":  setOf(unicode.White_Space),
		"upper":  setOf(unicode.Lu, unicode.Other_Uppercase),
		"xdigit": {{'0', '9'}, {'A', 'F'}, {'a', 'f'}},
		"word":   setOf(append(alpha, unicode.M, unicode.Nd, unicode.Pc)...),
	}
})

// translate writes classes and escapes in the syntax of package regexp. A class
// inside a class adds to it.
func translate(expr string) (string, error) {
	var b strings.Builder
	depth := 0 // of classes
	for i := 0; i < len(expr); i++ {
		if b.Len() > maxExpression {
			return "", fmt.Errorf("it is too large: with its classes written out it has more than %d bytes", maxExpression)
		}
		rest := expr[i:]
		switch c := expr[i]; {
		case c == '\\' && len(rest) > 1:
			n, err := escape(&b, rest, depth > 0)
			if err != nil {
				return "", err
			}
			i += n
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
			name, _, closed := strings.Cut(rest[2:], ":]")
			class, known := namedClasses()[strings.TrimPrefix(name, "^")]
			if !closed || !known {
				return "", fmt.Errorf("the class %s is not closed, or not known", quoted(rest))
			}
			if name[0] == '^' {
				class = class.not()
			}
			b.WriteString(class.String())
			i += len(name) + 3
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

// classes are the escapes that stand for a class of characters.
var classes = map[byte]string{'s': "space", 'd': "digit", 'w': "word", 'h': "xdigit"}

// latin is what \w also matches where it stands outside brackets: Oniguruma has a
// table of its own for Latin-1, in which these digits and fractions are of words.
var latin = set{{'²', '³'}, {'¹', '¹'}, {'¼', '¾'}}

// escape translates the escape that expr begins with, and returns the number of
// bytes that it took after the first.
func escape(b *strings.Builder, expr string, inClass bool) (int, error) {
	c := expr[1]
	name, ok := classes[c|0x20]
	switch {
	case ok:
		class := namedClasses()[name].String()
		if name == "word" && !inClass {
			class += latin.String()
		}
		switch lower := c >= 'a'; {
		case inClass && lower:
			b.WriteString(class)
		case inClass:
			b.WriteString(namedClasses()[name].not().String())
		case lower:
			b.WriteString("[" + class + "]")
		default:
			b.WriteString("[^" + class + "]")
		}
	case (c == 'b' || c == 'B') && !inClass:
		return 0, fmt.Errorf(`the boundary of words \%c is not known here; write what stands on both sides of it`, c)
	case c == 'u' && len(expr) >= 6:
		b.WriteString(`\x{` + expr[2:6] + "}")
		return 5, nil
	case c < utf8.RuneSelf && strings.IndexByte("/'\"<>%#@&,;:=~`! ", c) >= 0:
		b.WriteString(regexp.QuoteMeta(string(rune(c))))
	default:
		b.WriteByte('\\')
		b.WriteByte(c)
	}
	return 1, nil
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
