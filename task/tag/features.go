package tag

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"io"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/text"
)

// vocabularies number the words, affixes, characters and pairs. Number 0 is the
// unknown in each; in Chars 1 is the boundary of a word.
type vocabularies struct {
	Words   *text.Vocabulary `json:"words"` // all words of training; those from number Known on have no vector
	Known   int              `json:"known"`
	Usual   []int32          `json:"usual"`   // by word: the number of its most frequent tag
	Letters float64          `json:"letters"` // mean length of the training tokens, in characters
	Affixes *text.Vocabulary `json:"affixes"`
	Chars   *text.Vocabulary `json:"chars"`
	Pairs   *text.Vocabulary `json:"pairs"`

	heads map[rune]bool // by sign, the result of joins
}

// oneLetter is the mean length below which tokens are taken to be characters.
const oneLetter = 2

const (
	unknown  = 0
	boundary = 1
)

// boundaryName is the entry of the boundary in the vocabulary of characters.
const boundaryName = text.Begin

// newVocabularies counts over the training sentences.
func newVocabularies(d *corpus, cfg *Config) *vocabularies {
	words, affixes, chars, pairs := map[string]int64{}, map[string]int64{}, map[string]int64{}, map[string]int64{}
	var list [affixCount]string
	for _, w := range d.words {
		words[wordKey(w.text, cfg)] += int64(w.count)
		for _, key := range affixKeys(&list, w.text) {
			affixes[key]++
		}
		for _, r := range w.text {
			chars[string(r)]++
		}
	}
	if cfg.Pairs == "on" {
		for i := range d.ends {
			for at := d.sentence(i).from; at <= d.sentence(i).to; at++ {
				pairs[d.pairKey(i, at, cfg)]++
			}
		}
	}
	of := func(counts map[string]int64, least int, special ...string) *text.Vocabulary {
		return text.NewVocabulary(counts, &text.VocabularyOptions{MinCount: least, MaxSize: cfg.VocabularySize, Special: append([]string{text.Unknown}, special...)})
	}
	v := &vocabularies{Words: of(words, 0), Affixes: of(affixes, 2), Pairs: of(pairs, cfg.MinCount), Chars: of(chars, 2, boundaryName)}
	for v.Known = 1; v.Known < v.Words.Len() && v.Words.Count(int32(v.Known)) >= int64(cfg.MinCount); v.Known++ {
	}
	v.Usual, v.Letters, v.heads = usualTags(d, v.Words, cfg), d.lettersPerToken(), headsOf(v.Words)
	return v
}

// usualTags returns the most frequent tag of each word, and for the unknown the
// most frequent of all. Of equally frequent tags it is the one with the smallest
// number.
func usualTags(d *corpus, words *text.Vocabulary, cfg *Config) []int32 {
	ids := make([]int32, len(d.words))
	for i := range d.words {
		ids[i] = words.ID(wordKey(d.words[i].text, cfg))
	}
	tags := int(slices.Max(d.gold)) + 1
	counts := make([]int32, words.Len()*tags)
	for i, w := range d.tokens {
		counts[int(ids[w])*tags+int(d.gold[i])]++
		if ids[w] != unknown {
			counts[d.gold[i]]++
		}
	}
	usual := make([]int32, words.Len())
	for w := range usual {
		list := counts[w*tags : (w+1)*tags]
		for k, n := range list {
			if n > list[usual[w]] {
				usual[w] = int32(k)
			}
		}
	}
	return usual
}

// wordKey returns the form of a word that selects its vector: digits are replaced
// by 0, and letters by lower case if Config.FoldCase is set.
func wordKey(s string, cfg *Config) string {
	if cfg.FoldCase {
		s = strings.ToLower(s)
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return '0'
		}
		return r
	}, s)
}

// pairKey returns the key of the pair of the tokens before and after the boundary
// at in sentence i.
func (d *corpus) pairKey(i, at int, cfg *Config) string {
	s := d.sentence(i)
	key := ""
	if at > s.from {
		key = wordKey(d.words[d.tokens[at-1]].text, cfg)
	}
	key += "\x00"
	if at < s.to {
		key += wordKey(d.words[d.tokens[at]].text, cfg)
	}
	return key
}

// affixCount is the number of affix features of a word: three prefixes, four
// suffixes and the shape.
const affixCount = 8

// affixKeys writes a word's affixes to dst, "" if the word is not longer than the
// affix, and returns them.
func affixKeys(dst *[affixCount]string, s string) []string {
	lower := strings.ToLower(s)
	starts := make([]int, 0, 32)
	for i := range lower {
		starts = append(starts, i)
	}
	clear(dst[:])
	for n := 1; n <= 3 && n < len(starts); n++ {
		dst[n-1] = string(rune('0'+n)) + "<" + lower[:starts[n]]
	}
	for n := 1; n <= 4 && n < len(starts); n++ {
		dst[n+2] = string(rune('0'+n)) + ">" + lower[starts[len(starts)-n]:]
	}
	dst[7] = "=" + shape(s)
	return dst[:]
}

// shape returns a word with its letters and digits replaced by their kind, at
// most three of a kind in sequence.
func shape(s string) string {
	var b strings.Builder
	var before rune
	run := 0
	for _, r := range s {
		switch {
		case unicode.IsUpper(r):
			r = 'X'
		case unicode.IsLower(r):
			r = 'x'
		case unicode.IsLetter(r):
			r = 'c'
		case unicode.IsDigit(r):
			r = 'd'
		}
		if r != before {
			before, run = r, 0
		}
		if run++; run <= 3 && b.Len() < 24 {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// mostChars is the number of characters that are read of a word: of a longer one
// the first and the last half of them.
const mostChars = 32

// apply sets the numbers of the words and pairs of d.
func (v *vocabularies) apply(d *corpus, cfg *Config) {
	var list [affixCount]string
	for i := range d.words {
		w := &d.words[i]
		if w.id = v.Words.ID(wordKey(w.text, cfg)); int(w.id) >= v.Known {
			w.id = unknown
		}
		if cfg.Affixes > 0 {
			w.affixes = w.affixes[:0]
			for _, key := range affixKeys(&list, w.text) {
				w.affixes = append(w.affixes, v.Affixes.ID(key))
			}
		}
		if cfg.Chars != "none" {
			w.chars = v.charsOf(w.text)
		}
	}
	if cfg.Pairs != "on" {
		return
	}
	d.pairs = make([]int32, 0, 2*len(d.tokens))
	for i := range d.ends {
		s := d.sentence(i)
		next := v.Pairs.ID(d.pairKey(i, s.from, cfg))
		for at := s.from; at < s.to; at++ {
			before := next
			next = v.Pairs.ID(d.pairKey(i, at+1, cfg))
			d.pairs = append(d.pairs, before, next)
		}
	}
}

func (v *vocabularies) charsOf(s string) []int32 {
	n := utf8.RuneCountInString(s)
	ids := make([]int32, 0, min(n, mostChars)+2)
	ids = append(ids, boundary)
	at := 0
	for _, r := range s {
		if at < mostChars/2 || at >= n-mostChars/2 {
			ids = append(ids, v.Chars.ID(string(r)))
		}
		at++
	}
	return append(ids, boundary)
}

// vocabularyFile holds the vocabularies in a model directory.
const vocabularyFile = "vocabulary.json"

func (v *vocabularies) part() model.Part {
	return model.Part{Name: vocabularyFile, Write: func(w io.Writer) error { return json.NewEncoder(w).Encode(v) }}
}

func openVocabularies(d *model.Dir) (*vocabularies, error) {
	broken := func(problem string, err error) error {
		return &model.FileError{File: d.File(vocabularyFile), Problem: problem, Fix: "train the model again", Err: err}
	}
	content, err := d.Read(vocabularyFile)
	if err != nil {
		return nil, err
	}
	v := &vocabularies{}
	if err := json.Unmarshal(content, v); err != nil {
		return nil, broken("expected the vocabularies of a tagger: "+err.Error(), err)
	}
	for _, one := range []*text.Vocabulary{v.Words, v.Affixes, v.Chars, v.Pairs} {
		if one == nil || one.UnknownID() != unknown {
			return nil, broken("expected four vocabularies that begin with "+text.Unknown, nil)
		}
	}
	if v.Known < 1 || v.Known > v.Words.Len() || len(v.Usual) != v.Words.Len() {
		return nil, broken("expected a most frequent tag for each word", nil)
	}
	if id, ok := v.Chars.Lookup(boundaryName); !ok || id != boundary {
		return nil, broken("expected characters that begin with "+text.Unknown+" and "+boundaryName, nil)
	}
	v.heads = headsOf(v.Words)
	return v, nil
}
