package translate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/text"
)

// tokenizers are those of source and target; the same one if shared.
type tokenizers struct{ source, target *text.Tokenizer }

// makeTokenizers reads the tokenizers that the configuration names, or trains
// them on the pairs.
func makeTokenizers(ctx context.Context, pairs []data.Pair, cfg *Config) (t tokenizers, err error) {
	if cfg.Tokenizer != "" {
		if t.source, err = loadTokenizer(cfg.Tokenizer); err != nil || !cfg.Separate {
			t.target = t.source
			return t, err
		}
		t.target, err = loadTokenizer(cfg.TargetTokenizer)
		return t, err
	}
	o := &text.TokenizerOptions{VocabularySize: cfg.VocabularySize, MinCount: cfg.MinCount, Lowercase: cfg.Case == "lower"}
	if o.Segmenters, err = text.OpenSegmenters(cfg.Segmenter); err != nil {
		return t, err
	}
	learn := func(source, target bool) (*text.Tokenizer, error) {
		return text.TrainTokenizer(ctx, cfg.Tokens, func(yield func(string) bool) {
			for _, p := range pairs {
				if source && !yield(cfg.spaced(p.Source)) || target && !yield(cfg.spaced(p.Target)) {
					return
				}
			}
		}, o)
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

// loadTokenizer reads a tokenizer that has tokens for the beginning and end of a
// sentence. A file that cannot be used is a *data.InputError or a
// *model.FileError.
func loadTokenizer(path string) (*text.Tokenizer, error) {
	t, err := text.LoadTokenizer(path)
	if err == nil && (t.Vocabulary().BeginID() < 0 || t.Vocabulary().EndID() < 0) {
		err = &data.InputError{File: path, Problem: "has no tokens for the beginning and end of a sequence", Fix: "give one with tokens such as <s> and </s>"}
	}
	return t, err
}

// spaced returns a text as the tokenizer reads it: without white space around it
// and, for byte pairs learned here, with a space before it, so that a word has
// the same tokens at the beginning as elsewhere.
func (c *Config) spaced(s string) string {
	s = strings.TrimSpace(s)
	if c.Tokens == "bpe" && c.Tokenizer == "" && s != "" {
		s = " " + s
	}
	return s
}

// encode returns the tokens of a text. Special tokens written in it are removed,
// since they would begin or end the sequence.
func (c *Config) encode(tok *text.Tokenizer, s string) []int32 {
	unknown := tok.Vocabulary().UnknownID()
	return slices.DeleteFunc(tok.Encode(nil, c.spaced(s)), func(id int32) bool { return tok.IsSpecial(id) && id != unknown })
}

// sequences are token ids of many texts in one slice.
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

// corpus is pairs as token ids. A source ends with the end token; a target does
// not.
type corpus struct {
	source, target sequences
	kept           []int // indices of the pairs among all pairs
	empty, long    int   // numbers of pairs left out
}

// encodePairs encodes pairs. Those with a side without tokens or with more than
// MaxLength are left out. The error is that of ctx.
func encodePairs(ctx context.Context, pairs []data.Pair, cfg *Config, tok tokenizers) (*corpus, error) {
	c := &corpus{}
	end := tok.source.Vocabulary().EndID()
	for i, p := range pairs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, t := cfg.encode(tok.source, p.Source), cfg.encode(tok.target, p.Target)
		switch {
		case len(s) == 0 || len(t) == 0:
			c.empty++
			continue
		case len(s) > cfg.MaxLength || len(t) > cfg.MaxLength:
			c.long++
			continue
		}
		c.source.add(append(s, end))
		c.target.add(t)
		c.kept = append(c.kept, i)
	}
	return c, nil
}

// notes returns sentences on the pairs left out.
func (c *corpus) notes(what string, most int) (notes []string) {
	if c.empty > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d pairs with an empty side are left out", what, c.empty))
	}
	if c.long > 0 {
		notes = append(notes, fmt.Sprintf("%s: %d pairs with more than %d tokens on a side are left out; max_length sets the limit", what, c.long, most))
	}
	return notes
}

// targetLengths returns the lengths by which batches are formed, with the end
// token.
func (c *corpus) targetLengths() []int {
	n := make([]int, c.target.len())
	for i := range n {
		n[i] = len(c.target.at(i)) + 1
	}
	return n
}
