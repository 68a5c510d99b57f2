package tag

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/text"
)

// place is where a token lies in a text, in bytes.
type place struct{ from, to int }

// cutter cuts plain text into tokens that are like those of the training file.
func (m *Model) cutter(kind string) (func(string) []place, error) {
	if kind == "" {
		kind = "word"
		if m.vocabularies.Letters < oneLetter {
			kind = "char"
		}
	}
	tokenizer, err := text.TrainTokenizer(kind, slices.Values([]string{"."}), nil)
	if err != nil {
		return nil, err
	}
	tokens := func(s string, at int, dst []place) []place {
		for _, t := range tokenizer.Tokens(nil, s) {
			if strings.TrimSpace(s[t.Start:t.End]) != "" {
				dst = append(dst, place{at + t.Start, at + t.End})
			}
		}
		return dst
	}
	if kind != "word" {
		return func(s string) []place { return tokens(s, 0, nil) }, nil
	}
	return func(s string) (list []place) {
		for at := 0; at < len(s); {
			n := strings.IndexFunc(s[at:], unicode.IsSpace)
			if n < 0 {
				n = len(s) - at
			}
			if n > 0 {
				list = m.cutChunk(s[at:at+n], at, list, tokens)
			}
			_, space := utf8.DecodeRuneInString(s[at+n:])
			at += n + space
		}
		return list
	}, nil
}

// cutChunk cuts what stands between white space. Training knows best what a
// word is: a chunk that is one of its words stays whole; so does the sign at the
// head of a word, as in @name, where training has words with it; and what follows
// an apostrophe, or n't, is a word where training has it as one.
func (m *Model) cutChunk(s string, at int, list []place, cut func(string, int, []place) []place) []place {
	known := func(word string) bool {
		_, ok := m.vocabularies.Words.Lookup(wordKey(word, &m.cfg))
		return ok && word != ""
	}
	if known(s) {
		return append(list, place{at, at + len(s)})
	}
	first := len(list)
	list = cut(s, at, list)
	var out []place
	for i := first; i < len(list); i++ {
		p := list[i]
		word := s[p.from-at : p.to-at]
		if i+1 < len(list) && list[i+1].from == p.to && m.joins(word) {
			list[i+1].from = p.from
			continue
		}
		if k := clitic(word, known); k > 0 {
			out = append(out, place{p.from, p.from + k})
			p.from += k
		}
		out = append(out, p)
	}
	return append(list[:first], out...)
}

// joins says whether training has words that begin with this sign, more often
// than it has the sign alone. Apostrophes and quotes are another matter.
func (m *Model) joins(sign string) bool {
	r, n := utf8.DecodeRuneInString(sign)
	return n == len(sign) && m.vocabularies.heads[r]
}

// headsOf finds the signs that joins is about.
func headsOf(words *text.Vocabulary) map[rune]bool {
	counts := map[rune]int64{}
	for id, word := range words.Tokens() {
		r, n := utf8.DecodeRuneInString(word)
		if unicode.IsLetter(r) || unicode.IsDigit(r) || !unicode.In(r, unicode.S, unicode.P) || strings.ContainsRune("'’\"“”‘«»", r) {
			continue
		}
		next, _ := utf8.DecodeRuneInString(word[n:])
		switch {
		case n == len(word):
			counts[r] -= words.Count(int32(id))
		case unicode.IsLetter(next):
			counts[r] += words.Count(int32(id))
		}
	}
	heads := map[rune]bool{}
	for r, n := range counts {
		heads[r] = n > 0
	}
	return heads
}

// clitic is where a word such as "it's" or "don't" comes apart, or 0.
func clitic(word string, known func(string) bool) int {
	for i, r := range word {
		if i == 0 || r != '\'' && r != '’' {
			continue
		}
		if k := i - 1; k > 0 && (word[k] == 'n' || word[k] == 'N') && known(strings.ReplaceAll(word[k:], "’", "'")) {
			return k
		}
		if known(word[i:]) || known(strings.ReplaceAll(word[i:], "’", "'")) {
			return i
		}
	}
	return 0
}
