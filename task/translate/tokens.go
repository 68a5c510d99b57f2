package translate

import (
	"iter"
	"regexp"
	"strings"
	"unicode"
)

// bleuTokenizers separate the tokens of a sentence by white space, as the
// tokenizers of sacreBLEU with the same names do.
var bleuTokenizers = map[string]func(string) string{
	"13a": tokenize13a, "intl": tokenizeIntl, "zh": tokenizeZh, "char": tokenizeChar, "none": func(s string) string { return s },
}

// BLEUTokenizer returns the tokenizer for scoring sentences of the script that
// most of the texts are in: "zh" for Chinese, "char" for Japanese and for the
// scripts of South-East Asia and Tibet that separate no words, otherwise "13a".
func BLEUTokenizer(texts iter.Seq[string]) string {
	var chinese, japanese, unspaced, spaced int
	for s := range texts {
		for _, r := range s {
			switch {
			case r < 0x80 && !unicode.IsLetter(r):
			case unicode.Is(unicode.Han, r):
				chinese++
			case unicode.In(r, unicode.Hiragana, unicode.Katakana):
				japanese++
			case unicode.In(r, unspacedScripts...):
				unspaced++
			case unicode.IsLetter(r):
				spaced++
			}
		}
	}
	switch {
	case lettersPerSign*(chinese+japanese+unspaced) < spaced || chinese+japanese+unspaced == 0:
		return "13a"
	case unspaced > chinese+japanese || 20*japanese > chinese: // Japanese text without kana is rare
		return "char"
	}
	return "zh"
}

// lettersPerSign is roughly the number of letters that a character of these
// scripts stands for, so that Latin names and terms in a text do not outweigh it.
const lettersPerSign = 3

var unspacedScripts = []*unicode.RangeTable{unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Tibetan, unicode.Tai_Tham, unicode.New_Tai_Lue, unicode.Tai_Viet, unicode.Javanese, unicode.Balinese, unicode.Yi}

// words divides at white space as Python's str.split does.
func words(s string) []string { return strings.FieldsFunc(s, isSpace) }

// isSpace reports whether r is white space for Python's str.split.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

// rules are replacements that are made one after the other.
type rules []struct {
	find *regexp.Regexp
	with string
}

func (list rules) apply(s string) string {
	for _, r := range list {
		s = r.find.ReplaceAllString(s, r.with)
	}
	return s
}

var (
	western = rules{
		{regexp.MustCompile("([{-~[-` -&(-+:-@/])"), " $1 "}, // all punctuation of ASCII but ' , - .
		{regexp.MustCompile(`([^0-9])([.,])`), "$1 $2 "},
		{regexp.MustCompile(`([.,])([^0-9])`), " $1 $2"},
		{regexp.MustCompile(`([0-9])(-)`), "$1 $2 "},
	}
	international = rules{
		{regexp.MustCompile(`(\P{N})(\p{P})`), "$1 $2 "},
		{regexp.MustCompile(`(\p{P})(\P{N})`), " $1 $2"},
		{regexp.MustCompile(`(\p{S})`), " $1 "},
	}
)

// tokenize13a separates punctuation by the rules of mteval-v13a.pl.
func tokenize13a(s string) string {
	s = strings.ReplaceAll(s, "<skipped>", "")
	s = strings.ReplaceAll(s, "-\n", "")
	s = strings.ReplaceAll(s, "\n", " ")
	if strings.Contains(s, "&") {
		for _, e := range [][2]string{{"&quot;", `"`}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}} {
			s = strings.ReplaceAll(s, e[0], e[1]) // one after the other: &amp;lt; becomes <
		}
	}
	return western.apply(" " + s + " ")
}

// tokenizeIntl separates the punctuation and the symbols of all scripts by the
// rules of mteval-v14.pl.
func tokenizeIntl(s string) string { return international.apply(s) }

// tokenizeZh separates Chinese characters, and the rest as 13a does, but without
// its treatment of entities and of the ends of a line.
func tokenizeZh(s string) string {
	var b strings.Builder
	for _, r := range strings.TrimFunc(s, isSpace) {
		if unicode.Is(chinese, r) {
			b.WriteString(" " + string(r) + " ")
		} else {
			b.WriteRune(r)
		}
	}
	return western.apply(b.String())
}

// chinese is what sacreBLEU takes for Chinese characters. Its range of Extension B
// is written "\u20000" to "\u2a6d6", which Python reads as U+2000 to U+2A6D with a
// digit behind it; so the range is U+2001 to U+2A6D, which has quotation marks and
// dashes, and the characters of Extension B are not separated. Likewise for
// "\u2f800".
var chinese = &unicode.RangeTable{R16: []unicode.Range16{
	{0x2001, 0x2a6d, 1}, {0x2e80, 0x2fdf, 1}, {0x2ff0, 0x2fff, 1}, {0x3000, 0x303f, 1}, {0x3100, 0x312f, 1}, {0x31a0, 0x31bf, 1}, {0x31c0, 0x31ef, 1},
	{0x3200, 0x33ff, 1}, {0x3400, 0x4db5, 1}, {0x4e00, 0x9fbb, 1}, {0xf900, 0xfa2d, 1}, {0xfa30, 0xfa6a, 1}, {0xfa70, 0xfad9, 1},
	{0xfe10, 0xfe1f, 1}, {0xfe30, 0xfe4f, 1}, {0xff00, 0xffef, 1},
}}

// tokenizeChar makes a token of each character.
func tokenizeChar(s string) string { return strings.Join(strings.Split(s, ""), " ") }
