package tag

import (
	"fmt"
	"hash/fnv"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
)

// corpus is sentences as numbers. Each distinct word is kept once.
type corpus struct {
	words  []word
	index  map[string]int32
	tokens []int32 // words of all sentences, one after the other
	ends   []int   // where each sentence ends in tokens
	pieces []piece
	pairs  []int32 // by token: the numbers of its pair with the token before and with that after, where pairs are used
	cut    int     // sentences cut into pieces

	kinds    []string // distinct tags as the files have them
	kindOf   map[string]int32
	tags     []int32 // by token: its kind of tag; none where sentences have none
	gold     []int32 // by token: the number of its tag for the network; -1 where training knows none
	schemes  census
	odd      string // the first tag that marks no span
	oddLine  int
	observed int // sentences with tags
}

// word is a distinct word and what the network reads of it.
type word struct {
	text    string
	letters int
	count   int
	id      int32   // in the vocabulary of words, 0: unknown
	affixes []int32 // numbers of its spellings, 0: unknown
	chars   []int32 // numbers of its characters, a boundary at either end
}

// piece is the tokens [from, to) that the network reads at once: a sentence, or
// a part of a long one.
type piece struct{ from, to int }

func (p piece) len() int { return p.to - p.from }

func newCorpus() *corpus {
	return &corpus{index: map[string]int32{}, kindOf: map[string]int32{}}
}

// sentence is where sentence i lies in tokens.
func (d *corpus) sentence(i int) piece {
	if i == 0 {
		return piece{0, d.ends[0]}
	}
	return piece{d.ends[i-1], d.ends[i]}
}

// add takes in a sentence, in pieces of at most limit tokens.
func (d *corpus) add(s *data.Sentence, limit int) {
	first := len(d.tokens)
	for _, text := range s.Tokens {
		id, known := d.index[text]
		if !known {
			id = int32(len(d.words))
			d.index[text] = id
			d.words = append(d.words, word{text: text, letters: utf8.RuneCountInString(text)})
		}
		d.words[id].count++
		d.tokens = append(d.tokens, id)
	}
	d.ends = append(d.ends, len(d.tokens))
	d.addPieces(first, limit)
	if s.Tags == nil {
		return
	}
	d.observed++
	d.schemes.add(s.Tags)
	for i, tag := range s.Tags {
		kind, known := d.kindOf[tag]
		if !known {
			kind = int32(len(d.kinds))
			d.kindOf[tag] = kind
			d.kinds = append(d.kinds, tag)
			if _, _, ok := split(tag); !ok && d.odd == "" {
				d.odd, d.oddLine = tag, s.Line+i
			}
		}
		d.tags = append(d.tags, kind)
	}
}

// addPieces cuts the tokens from first on where there are more than limit: behind
// the last end of a sentence in the second half of what fits, or else at limit.
func (d *corpus) addPieces(first, limit int) {
	if len(d.tokens)-first > limit {
		d.cut++
	}
	for len(d.tokens)-first > limit {
		end := first + limit
		for i := end - 1; i >= first+limit/2; i-- {
			if isStop(d.words[d.tokens[i]].text) {
				end = i + 1
				break
			}
		}
		d.pieces = append(d.pieces, piece{first, end})
		first = end
	}
	if first < len(d.tokens) {
		d.pieces = append(d.pieces, piece{first, len(d.tokens)})
	}
}

// isStop tells the tokens that end sentences.
func isStop(token string) bool {
	switch token {
	case ".", "!", "?", "...", "…", "。", "！", "？", "؟", "।":
		return true
	}
	return false
}

// encode is tagged sentences as numbers, in pieces of at most limit tokens. What
// is wrong with their tags is a *data.InputError.
func encode(list []data.Sentence, limit int) (*corpus, error) {
	d := newCorpus()
	for i := range list {
		s := &list[i]
		if len(s.Tags) != len(s.Tokens) {
			return nil, &data.InputError{Line: s.Line, Problem: fmt.Sprintf("a sentence of %d tokens has %d tags", len(s.Tokens), len(s.Tags)), Fix: "every token needs a tag"}
		}
		if d.add(s, limit); len(d.kinds) > maxKinds {
			return nil, &data.InputError{Line: s.Line, Problem: fmt.Sprintf("there are more than %d different tags", maxKinds), Fix: "name the column that has the tag with tag_column"}
		}
	}
	return d, nil
}

// maxKinds bounds the tags: beyond, the column is likely another one.
const maxKinds = 2000

func (d *corpus) lengths() []int {
	n := make([]int, len(d.pieces))
	for i, p := range d.pieces {
		n[i] = p.len()
	}
	return n
}

// tagsOf are the tags of tokens as the file has them.
func (d *corpus) tagsOf(p piece) []string {
	tags := make([]string, 0, p.len())
	for _, k := range d.tags[p.from:p.to] {
		tags = append(tags, d.kinds[k])
	}
	return tags
}

// number gives each token the number of its tag among tags: of the label itself,
// or of what its span makes of it in BIOES, piece by piece.
func (d *corpus) number(tags []string, spans bool) {
	numbers := map[string]int32{}
	for i, tag := range tags {
		numbers[tag] = int32(i)
	}
	of := func(tag string) int32 {
		if id, ok := numbers[tag]; ok {
			return id
		}
		return -1
	}
	d.gold = d.gold[:0]
	for _, p := range d.pieces {
		list := d.tagsOf(p)
		if spans {
			list = BIOES.Tags(Spans(list), p.len())
		}
		for _, tag := range list {
			d.gold = append(d.gold, of(tag))
		}
	}
}

// fingerprint changes with the words and their tags.
func (d *corpus) fingerprint() uint64 {
	h := fnv.New64a()
	for _, w := range d.words {
		h.Write([]byte(w.text))
		h.Write([]byte{0})
	}
	for _, kind := range d.kinds {
		h.Write([]byte(kind))
		h.Write([]byte{0})
	}
	var b [4]byte
	for _, list := range [][]int32{d.tokens, d.tags} {
		for _, v := range list {
			b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
			h.Write(b[:])
		}
	}
	for _, end := range d.ends {
		b[0], b[1], b[2], b[3] = byte(end), byte(end>>8), byte(end>>16), byte(end>>24)
		h.Write(b[:])
	}
	return h.Sum64()
}
