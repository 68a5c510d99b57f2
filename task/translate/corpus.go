package translate

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/text"
)

// Pairs is where sentences and their translations come from; it can be gone
// through several times.
type Pairs func() iter.Seq2[data.Pair, error]

// Files are the pairs of two files whose lines belong together, read anew each
// time. What is unusual about them is told to note, if not nil, the first time.
func Files(source, target string, cfg *Config, note func(string)) Pairs {
	return func() iter.Seq2[data.Pair, error] {
		once := note
		note = nil
		return data.ReadPairs(source, target, cfg.Encoding, once)
	}
}

// Table are the pairs of a table that has both languages in columns; else as [Files].
func Table(path string, cfg *Config, note func(string)) Pairs {
	source, target := cfg.SourceColumn, cfg.TargetColumn
	if source == "" {
		source = "source"
	}
	if target == "" {
		target = "target"
	}
	return func() iter.Seq2[data.Pair, error] {
		once := note
		note = nil
		return data.ReadPairTable(path, source, target, cfg.Encoding, once)
	}
}

// List are pairs in memory.
func List(pairs []data.Pair) Pairs {
	return func() iter.Seq2[data.Pair, error] {
		return func(yield func(data.Pair, error) bool) {
			for _, p := range pairs {
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}

// Split divides pairs, each by a draw from the seed: share of them are for
// validation, the others for training. It is what [Train] does without
// validation pairs.
func (p Pairs) Split(share float64, seed uint64) (training, validation Pairs) {
	return p.held(share, seed, false), p.held(share, seed, true)
}

// held draws anew in each pass, so that passes agree without a list.
func (p Pairs) held(share float64, seed uint64, validation bool) Pairs {
	return func() iter.Seq2[data.Pair, error] {
		return func(yield func(data.Pair, error) bool) {
			r := rand.New(rand.NewPCG(seed^0x686f6c64, 0)) // apart from the streams that shuffle and initialise
			for pair, err := range p() {
				if (err != nil || (r.Float64() < share) == validation) && !yield(pair, err) || err != nil {
					return
				}
			}
		}
	}
}

// Whole are the pairs with both sides, the only ones that teach or score.
func (p Pairs) Whole() Pairs {
	return func() iter.Seq2[data.Pair, error] {
		return func(yield func(data.Pair, error) bool) {
			for pair, err := range p() {
				if err == nil && (strings.TrimSpace(pair.Source) == "" || strings.TrimSpace(pair.Target) == "") {
					continue
				}
				if !yield(pair, err) || err != nil {
					return
				}
			}
		}
	}
}

// tokenizers are those of source and target, the same one if shared.
type tokenizers struct{ source, target *text.Tokenizer }

// makeTokenizers reads the tokenizers that were given, or trains them on training pairs.
func makeTokenizers(pairs Pairs, cfg *Config) (t tokenizers, err error) {
	if cfg.Tokenizer != "" {
		if t.source, err = loadTokenizer(cfg.Tokenizer); err != nil || !cfg.Separate {
			t.target = t.source
			return t, err
		}
		t.target, err = loadTokenizer(cfg.TargetTokenizer)
		return t, err
	}
	o := &text.TokenizerOptions{VocabularySize: cfg.VocabularySize, MinCount: cfg.MinCount, Lowercase: cfg.Lowercase}
	learn := func(source, target bool) (*text.Tokenizer, error) {
		var failed error
		tok, err := text.TrainTokenizer(cfg.Tokens, func(yield func(string) bool) {
			for p, err := range pairs() {
				if failed = err; err != nil {
					return
				}
				if source && !yield(cfg.spaced(p.Source)) || target && !yield(cfg.spaced(p.Target)) {
					return
				}
			}
		}, o)
		if failed != nil {
			return nil, failed
		}
		return tok, err
	}
	if !cfg.Separate {
		t.source, err = learn(true, true)
		t.target = t.source
		return t, err
	}
	if t.source, err = learn(true, false); err == nil {
		t.target, err = learn(false, true)
	}
	return t, err
}

// loadTokenizer reads a file of a tokenizer that can mark where a sentence begins and ends.
func loadTokenizer(path string) (*text.Tokenizer, error) {
	t, err := text.LoadTokenizer(path)
	if err == nil && (t.Vocabulary().BeginID() < 0 || t.Vocabulary().EndID() < 0) {
		err = &data.InputError{File: path, Problem: "has no tokens that begin and end a sequence", Fix: "give one with such as <s> and </s>"}
	}
	return t, err
}

// spaced is a text as the tokenizer sees it: without white space around it, and
// for byte pairs learned here with a space before it, so that a word is the same
// token at the beginning as elsewhere.
func (c *Config) spaced(s string) string {
	s = strings.TrimSpace(s)
	if c.Tokens == "bpe" && c.Tokenizer == "" && s != "" {
		s = " " + s
	}
	return s
}

// encode is the tokens of a text. Special tokens written out in it are left out,
// since they would begin or end what they must not.
func (c *Config) encode(tok *text.Tokenizer, s string) []int32 {
	unknown := tok.Vocabulary().UnknownID()
	return slices.DeleteFunc(tok.Encode(nil, c.spaced(s)), func(id int32) bool { return tok.IsSpecial(id) && id != unknown })
}

// sequences are token ids of many texts in one piece of memory.
type sequences struct {
	ids  []int32
	ends []int
}

func (s *sequences) add(ids []int32) {
	s.ids = append(s.ids, ids...)
	s.ends = append(s.ends, len(s.ids))
}

func (s *sequences) len() int { return len(s.ends) }

func (s *sequences) at(i int) []int32 {
	if i == 0 {
		return s.ids[:s.ends[0]]
	}
	return s.ids[s.ends[i-1]:s.ends[i]]
}

// corpus is pairs as token ids. A source ends with the token that ends
// sequences; a target has none.
type corpus struct {
	source, target sequences
	texts          []data.Pair // of the pairs kept, if wanted
	empty, long    int         // pairs left out
}

// readCorpus takes in pairs: those without words on one side or the other are
// left out, and those of more than most tokens (0: none).
func readCorpus(pairs Pairs, cfg *Config, tok tokenizers, most int, texts bool) (*corpus, error) {
	c := &corpus{}
	end := tok.source.Vocabulary().EndID()
	for p, err := range pairs() {
		if err != nil {
			return nil, err
		}
		s, t := cfg.encode(tok.source, p.Source), cfg.encode(tok.target, p.Target)
		switch {
		case len(s) == 0 || len(t) == 0:
			c.empty++
			continue
		case most > 0 && (len(s) > most || len(t) > most):
			c.long++
			continue
		}
		c.source.add(append(s, end))
		c.target.add(t)
		if texts {
			c.texts = append(c.texts, p)
		}
	}
	return c, nil
}

// notes say what was left out.
func (c *corpus) notes(what string, most int) (notes []string) {
	if c.empty > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d pairs with an empty side are left out", what, c.empty))
	}
	if c.long > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d pairs with more than %d tokens on a side are left out; max_length sets the limit", what, c.long, most))
	}
	return notes
}

// targetLengths are the lengths that batches go by, with the ending token.
func (c *corpus) targetLengths() []int {
	n := make([]int, c.target.len())
	for i := range n {
		n[i] = len(c.target.at(i)) + 1
	}
	return n
}
