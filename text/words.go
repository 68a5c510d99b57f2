package text

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// The two steps that split words, as regular expressions. The first separates
// every character of the scripts that are written without spaces between words
// (Chinese, Japanese, Thai, Lao, Khmer, Burmese), with its marks. The second
// keeps numbers with their points and commas, words with the apostrophes in
// them, and any other character alone; white space is removed.
const (
	unspacedPattern = `[\u2E80-\u2FDF々〇\u3021-\u3029\u3041-\u30FF\u31F0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\uFF66-\uFF9F𠀀-𲎯\u0E01-\u0E5B\u0E81-\u0EDF\u1000-\u109F\u1780-\u17FF]\p{M}*`
	wordPattern     = `\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{M}\p{N}_]+(?:['’][\p{L}\p{M}\p{N}_]+)*|\S`
)

// class holds what the splitting of text needs to know about a character, as
// bits.
type class uint8

const (
	space class = 1 << iota
	letter
	mark
	number
	connector // the underscore
	unspaced  // of a script without spaces between words

	inWord = letter | mark | number | connector
)

// classTable holds the classes of the basic multilingual plane.
var classTable = sync.OnceValue(func() *[0x10000]class {
	var t [0x10000]class
	for r := range t {
		t[r] = classify(rune(r))
	}
	return &t
})

func classify(r rune) class {
	var c class
	switch {
	case unicode.IsSpace(r):
		c = space
	case unicode.IsLetter(r):
		c = letter
	case unicode.IsMark(r):
		c = mark
	case unicode.IsNumber(r):
		c = number
	case r == '_':
		c = connector
	}
	if isUnspaced(r) {
		c |= unspaced
	}
	return c
}

// classReader reads a text by the classes of its characters.
type classReader struct {
	text  []byte
	table *[0x10000]class
}

// at returns the class and the length of the character at byte i; the end of
// the text is a space of length 0.
func (t classReader) at(i int) (class, int) {
	if i >= len(t.text) {
		return space, 0
	}
	if c := t.text[i]; c < utf8.RuneSelf {
		return t.table[c], 1
	}
	r, n := utf8.DecodeRune(t.text[i:])
	if r < 0x10000 {
		return t.table[r], n
	}
	return classify(r), n
}

// run returns where the characters from byte i on end that are of one of the
// classes in of and of none in but.
func (t classReader) run(i int, of, but class) int {
	for {
		c, n := t.at(i)
		if n == 0 || c&of == 0 || c&but != 0 {
			return i
		}
		i += n
	}
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

// cutWords splits by unspacedPattern and then by wordPattern, in one pass.
var cutWords = wordCutter(nil)

// wordCutter returns a step that splits as cutWords does, but the letters of the scripts
// that there are segmenters for into their words.
func wordCutter(segmenters []*Segmenter) step {
	return func(f *flow) {
		table := classTable()
		var ends []int
		f.cut(func(p span) {
			t := classReader{f.text[p.from:p.to], table}
			for i := 0; i < len(t.text); {
				c, n := t.at(i)
				from := i
				i += n
				switch {
				case c&unspaced != 0:
					if s, end := t.segmented(from, segmenters); s != nil {
						ends = s.Segment(ends[:0], string(t.text[from:end]))
						word := from
						for _, at := range ends {
							f.add(p.from+word, p.from+from+at)
							word = from + at
						}
						i = end
						continue
					}
					i = t.run(i, mark, 0)
				case c&space != 0:
					continue
				case c&inWord != 0:
					i = t.word(from)
				}
				f.add(p.from+from, p.from+i)
			}
		})
	}
}

// segmented returns the segmenter that takes the character at byte i, and the end of the
// run that it takes.
func (t classReader) segmented(i int, segmenters []*Segmenter) (s *Segmenter, end int) {
	for _, s := range segmenters {
		end := i
		for end < len(t.text) {
			r, n := utf8.DecodeRune(t.text[end:])
			if !s.takes(r) {
				break
			}
			end += n
		}
		if end > i {
			return s, end
		}
	}
	return nil, i
}

// word returns where the number or word that begins at from ends.
func (t classReader) word(from int) int {
	end, joined := t.run(from, number, unspaced), false
	for end > from && end < len(t.text) && (t.text[end] == '.' || t.text[end] == ',') {
		next := t.run(end+1, number, unspaced)
		if next == end+1 {
			break
		}
		end, joined = next, true
	}
	if joined {
		return end
	}
	end = t.run(from, inWord, unspaced)
	for {
		n := apostrophe(t.text[end:])
		if n == 0 {
			return end
		}
		next := t.run(end+n, inWord, unspaced)
		if next == end+n {
			return end
		}
		end = next
	}
}

// apostrophe returns the length of the apostrophe that text begins with, or 0.
func apostrophe(text []byte) int {
	if len(text) > 0 && text[0] == '\'' {
		return 1
	}
	if r, n := utf8.DecodeRune(text); r == '’' {
		return n
	}
	return 0
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
