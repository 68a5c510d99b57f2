package text

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// The two steps that cut words, as regular expressions. The first sets apart
// every character of the scripts that are written without spaces between words
// (Chinese, Japanese, Thai, Lao, Khmer, Burmese), with its marks. The second
// keeps numbers with their points and commas, words with the apostrophes in
// them, and any other character alone; white space goes.
const (
	unspacedPattern = `[\u2E80-\u2FDF々〇\u3021-\u3029\u3041-\u30FF\u31F0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\uFF66-\uFF9F𠀀-𲎯\u0E01-\u0E5B\u0E81-\u0EDF\u1000-\u109F\u1780-\u17FF]\p{M}*`
	wordPattern     = `\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{M}\p{N}_]+(?:['’][\p{L}\p{M}\p{N}_]+)*|\S`
)

// class is what the cutting of words needs to know of a character.
type class uint8

const (
	other class = iota
	space
	letter // or mark, or underscore
	mark
	number
	unspaced // of a script without spaces
)

// classTable holds the classes of the basic plane.
var classTable = sync.OnceValue(func() *[0x10000]class {
	var t [0x10000]class
	for r := range t {
		t[r] = classify(rune(r))
	}
	return &t
})

func classify(r rune) class {
	switch {
	case isUnspaced(r):
		return unspaced
	case unicode.IsSpace(r):
		return space
	case unicode.IsMark(r):
		return mark
	case unicode.IsNumber(r):
		return number
	case unicode.IsLetter(r) || r == '_':
		return letter
	}
	return other
}

func isUnspaced(r rune) bool {
	switch {
	case r < 0x0e01:
		return false
	case r <= 0x0eff:
		return r <= 0x0e5b || 0x0e81 <= r && r <= 0x0edf
	case r <= 0x109f:
		return r >= 0x1000
	case r <= 0x17ff:
		return r >= 0x1780
	case r <= 0x30ff:
		return 0x2e80 <= r && r <= 0x2fdf || r == '々' || r == '〇' || 0x3021 <= r && r <= 0x3029 || r >= 0x3041
	case r <= 0xffff:
		return 0x31f0 <= r && r <= 0x31ff || 0x3400 <= r && r <= 0x4dbf || 0x4e00 <= r && r <= 0x9fff ||
			0xf900 <= r && r <= 0xfaff || 0xff66 <= r && r <= 0xff9f
	}
	return 0x20000 <= r && r <= 0x323af
}

// cutWords does what splitting by unspacedPattern and then wordPattern does, in
// one pass.
func cutWords(f *flow) {
	table := classTable()
	f.cut(func(p span) {
		text := f.text[p.from:p.to]
		classAt := func(i int) (class, int) {
			if i >= len(text) {
				return space, 0
			}
			if c := text[i]; c < utf8.RuneSelf {
				return table[c], 1
			}
			r, n := utf8.DecodeRune(text[i:])
			if r < 0x10000 {
				return table[r], n
			}
			return classify(r), n
		}
		for i := 0; i < len(text); {
			c, n := classAt(i)
			from := i
			i += n
			switch c {
			case space:
				continue
			case unspaced:
				for c, n = classAt(i); c == mark || c == unspaced && isMarkAt(text, i); c, n = classAt(i) {
					i += n
				}
			case letter, mark, number:
				i = endOfWord(text, from, classAt)
			}
			f.add(p.from+from, p.from+i)
		}
	})
}

// isMarkAt reports whether the character at byte i is a mark, as the vowel signs
// of Thai are.
func isMarkAt(text []byte, i int) bool {
	r, _ := utf8.DecodeRune(text[i:])
	return unicode.IsMark(r)
}

// endOfWord is where the number or word that begins at from ends.
func endOfWord(text []byte, from int, classAt func(int) (class, int)) int {
	digits := func(i int) int {
		for c, n := classAt(i); c == number; c, n = classAt(i) {
			i += n
		}
		return i
	}
	end, joined := digits(from), false
	for end > from && end < len(text) && (text[end] == '.' || text[end] == ',') {
		next := digits(end + 1)
		if next == end+1 {
			break
		}
		end, joined = next, true
	}
	if joined {
		return end
	}
	run := func(i int) int {
		for c, n := classAt(i); c == letter || c == mark || c == number; c, n = classAt(i) {
			i += n
		}
		return i
	}
	end = run(from)
	for end < len(text) {
		n := 0
		if text[end] == '\'' {
			n = 1
		} else if r, size := utf8.DecodeRune(text[end:]); r == '’' {
			n = size
		}
		if n == 0 {
			break
		}
		next := run(end + n)
		if next == end+n {
			break
		}
		end = next
	}
	return end
}

// joinWords writes words as a text: with a space between two of them, but none
// inside brackets and quotes, before punctuation, or between characters of
// scripts without spaces.
func joinWords(tokens []string) []string {
	var b strings.Builder
	var before rune // the last character so far
	tight := true   // no space comes next
	quoted := false // inside a pair of "
	for _, token := range tokens {
		r, size := utf8.DecodeRuneInString(token)
		alone := size == len(token)
		opening := alone && (unicode.In(r, unicode.Ps, unicode.Pi) || r == '$' || r == '#' || r == '"' && !quoted)
		closing := alone && (strings.ContainsRune(".,!?;:%…", r) || unicode.In(r, unicode.Pe, unicode.Pf) || r == '"' && quoted)
		middle := alone && strings.ContainsRune("-/'’@", r)
		if !tight && !closing && !middle && !isWide(r) && !isWide(before) && !(isUnspaced(r) && isUnspaced(before)) {
			b.WriteByte(' ')
		}
		b.WriteString(token)
		if alone && r == '"' {
			quoted = !quoted
		}
		tight = opening || middle
		before, _ = utf8.DecodeLastRuneInString(token)
	}
	return []string{b.String()}
}

// isWide reports whether r is punctuation of East Asia, which brings its own space.
func isWide(r rune) bool {
	return 0x3000 <= r && r <= 0x303f && unicode.IsPunct(r) || 0xff01 <= r && r <= 0xff65 && unicode.IsPunct(r)
}
