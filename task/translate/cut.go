package translate

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/text"
)

// mostTokens is the largest number of tokens of a source that are translated; the
// rest is left out.
const mostTokens = 10000

// part is a section of a source: tokens [from,to).
type part struct{ from, to int }

// cut divides the tokens of a text into parts of at most limit tokens. Each but
// the last ends at the best position in its second half: after a sentence, else
// after a clause, else after a word, else at the limit.
func cut(s string, tokens []text.Token, limit int) []part {
	var parts []part
	for from := 0; from < len(tokens); {
		to := len(tokens)
		if to-from > limit {
			to = border(s, tokens, from+(limit+1)/2, from+limit)
		}
		parts = append(parts, part{from, to})
		from = to
	}
	return parts
}

// border returns the best end of a part after lo to hi tokens, the later of
// equally good ones.
func border(s string, tokens []text.Token, lo, hi int) int {
	best, rank := hi, 0
	for at := hi; at >= max(lo, 1); at-- {
		if r := borderRank(s, tokens[at-1].End, tokens[at].Start); r > rank {
			best, rank = at, r
		}
	}
	return best
}

// borderRank returns the quality of a cut between two tokens: 3 after a sentence,
// 2 after a clause, 1 between words, 0 within a word.
func borderRank(s string, end, next int) int {
	before := strings.TrimRightFunc(s[:end], unicode.IsSpace)
	spaced := startsWithSpace(s[next:]) || len(before) < end || next > end
	last, _ := utf8.DecodeLastRuneInString(strings.TrimRight(before, `"'”’»)]`))
	switch {
	case strings.ContainsRune("。！？", last), spaced && strings.ContainsRune(".!?…", last):
		return 3
	case strings.ContainsRune("，；：、", last), spaced && strings.ContainsRune(",;:–—", last):
		return 2
	case spaced:
		return 1
	}
	return 0
}

func startsWithSpace(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && unicode.IsSpace(r)
}

// join joins the translations of parts: with a space between them, except between
// characters of scripts without spaces.
func join(parts []string) string {
	var b strings.Builder
	var before rune
	for _, p := range parts {
		if p == "" {
			continue
		}
		if first, _ := utf8.DecodeRuneInString(p); b.Len() > 0 && !(unspaced(before) || unspaced(first)) {
			b.WriteByte(' ')
		}
		b.WriteString(p)
		before, _ = utf8.DecodeLastRuneInString(p)
	}
	return b.String()
}

func unspaced(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar) ||
		r >= 0x3000 && r <= 0x303f || r >= 0xff00 && r <= 0xff65
}
