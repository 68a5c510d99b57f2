package tag

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/text"
)

// place is the range of a token in a text, in bytes.
type place struct{ from, to int }

// cutter returns a function that divides plain text into tokens like those of the
// training file. An unknown kind and files of segmenters that cannot be used are errors;
// a cancelled ctx returns its error.
func (m *Model) cutter(ctx context.Context, kind string, segmenters []string) (func(string) []place, error) {
	if kind == "" {
		kind = "word"
		if m.vocabularies.Letters < oneLetter {
			kind = "char"
		}
	}
	o := &text.TokenizerOptions{}
	var err error
	if o.Segmenters, err = text.OpenSegmenters(segmenters); err != nil {
		return nil, err
	}
	tokenizer, err := text.TrainTokenizer(ctx, kind, slices.Values([]string{"."}), o)
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

// cutChunk divides text without white space into tokens. A chunk that is a word
// of the training data is one token. A sign at the beginning of a word, as in
// @name, belongs to it if the training data have such words; the part after an
// apostrophe, or n't, is a token if it is one in the training data.
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

// joins reports whether the training data have words that begin with this sign
// more often than they have the sign as a token. It is never true for apostrophes
// and quotes.
func (m *Model) joins(sign string) bool {
	r, n := utf8.DecodeRuneInString(sign)
	return n == len(sign) && m.vocabularies.heads[r]
}

// headsOf computes the result of joins for all signs.
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

// clitic returns the byte at which a word such as "it's" or "don't" is divided,
// or 0.
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
