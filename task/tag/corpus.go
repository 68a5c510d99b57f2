package tag

import (
	"context"
	"fmt"
	"hash/fnv"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
)

// corpus is sentences as numbers. Each distinct word is stored once.
type corpus struct {
	words  []word
	index  map[string]int32
	tokens []int32 // words of all sentences, one after the other
	ends   []int   // where each sentence ends in tokens
	pieces []piece
	pairs  []int32 // by token: the numbers of its pairs with the token before and the token after, if pairs are used
	cut    int     // sentences cut into pieces

	kinds    []string // distinct tags as the files have them
	kindOf   map[string]int32
	tags     []int32 // by token: index in kinds; empty if the sentences have no tags
	gold     []int32 // by token: the number of its tag in the network; -1 if it does not occur in training
	schemes  census
	odd      string // the first tag that is not one of a span
	oddLine  int
	observed int // sentences with tags
}

// word is a distinct word and what the network reads of it.
type word struct {
	text    string
	letters int
	count   int
	id      int32   // in the vocabulary of words, 0: unknown
	affixes []int32 // numbers of its affixes and shape, 0: unknown
	chars   []int32 // numbers of its characters, with a boundary at both ends
}

// piece is the tokens [from, to) that the network reads together: a sentence, or
// a part of a long one.
type piece struct{ from, to int }

func (p piece) len() int { return p.to - p.from }

func newCorpus() *corpus {
	return &corpus{index: map[string]int32{}, kindOf: map[string]int32{}}
}

// sentence returns the range of sentence i in tokens.
func (d *corpus) sentence(i int) piece {
	if i == 0 {
		return piece{0, d.ends[0]}
	}
	return piece{d.ends[i-1], d.ends[i]}
}

// add appends a sentence, in pieces of at most limit tokens.
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

// addPieces adds the tokens from first on as pieces of at most limit tokens: cut
// after the last end of a sentence in the second half of what fits, or else at
// limit.
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

// isStop reports whether a token ends a sentence.
func isStop(token string) bool {
	switch token {
	case ".", "!", "?", "...", "…", "。", "！", "？", "؟", "।":
		return true
	}
	return false
}

// encode returns tagged sentences as numbers, in pieces of at most limit tokens.
// Sentences with a missing tag, and too many different tags, are a
// *data.InputError; a cancelled ctx returns its error.
func encode(ctx context.Context, list []data.Sentence, limit int) (*corpus, error) {
	d := newCorpus()
	for i := range list {
		s := &list[i]
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if len(s.Tags) != len(s.Tokens) {
			return nil, &data.InputError{Line: s.Line, Problem: fmt.Sprintf("a sentence of %d tokens has %d tags", len(s.Tokens), len(s.Tags)), Fix: "every token needs a tag"}
		}
		if d.add(s, limit); len(d.kinds) > maxKinds {
			return nil, &data.InputError{Line: s.Line, Problem: fmt.Sprintf("there are more than %d different tags", maxKinds), Fix: "name the column that has the tag with tag"}
		}
	}
	return d, nil
}

// maxKinds is the largest number of different tags: with more, the column is
// likely another one.
const maxKinds = 2000

func (d *corpus) lengths() []int {
	n := make([]int, len(d.pieces))
	for i, p := range d.pieces {
		n[i] = p.len()
	}
	return n
}

// tagsOf returns the tags of tokens as in the file.
func (d *corpus) tagsOf(p piece) []string {
	tags := make([]string, 0, p.len())
	for _, k := range d.tags[p.from:p.to] {
		tags = append(tags, d.kinds[k])
	}
	return tags
}

// number sets gold: the number of each token's tag among tags. With spans it is
// the number of the BIOES tag of its span, piece by piece.
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

// fingerprint returns a hash of the words and their tags.
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
