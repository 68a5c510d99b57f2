package classify

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/text"
)

// corpus is texts as token ids, in one slice, with their labels.
type corpus struct {
	ids    []int32
	ends   []int          // where each text ends in ids
	labels [][]int32      // class numbers of each text; empty where the label is not among the classes
	cut    int            // texts longer than the limit
	unseen map[string]int // texts by label, for labels that are not among the classes
	odd    map[int]bool   // texts with a label that is not among the classes
}

func (c *corpus) len() int { return len(c.ends) }

// text returns the token ids of text i.
func (c *corpus) text(i int) []int32 {
	if i == 0 {
		return c.ids[:c.ends[0]]
	}
	return c.ids[c.ends[i-1]:c.ends[i]]
}

func (c *corpus) lengths() []int {
	n := make([]int, c.len())
	for i := range n {
		n[i] = len(c.text(i))
	}
	return n
}

// add encodes and appends one text.
func (c *corpus) add(e *data.Example, tok *text.Tokenizer, limit int, classes map[string]int32) {
	first := len(c.ids)
	c.ids = tok.Encode(c.ids, e.Text)
	if len(c.ids)-first > limit {
		c.ids = c.ids[:first+limit]
		c.cut++
	}
	c.ends = append(c.ends, len(c.ids))
	var list []int32
	for _, label := range e.Labels {
		if k, ok := classes[label]; ok {
			list = append(list, k)
		} else {
			if c.unseen == nil {
				c.unseen, c.odd = map[string]int{}, map[int]bool{}
			}
			c.unseen[label]++
			c.odd[len(c.labels)] = true
		}
	}
	c.labels = append(c.labels, list)
}

// textsOf returns the texts of the examples.
func textsOf(examples []data.Example) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range examples {
			if !yield(examples[i].Text) {
				return
			}
		}
	}
}

// countLabels counts the labels of the examples.
func countLabels(examples []data.Example) (map[string]int, error) {
	counts := map[string]int{}
	for _, e := range examples {
		for _, label := range e.Labels {
			if counts[label]++; len(counts) > maxClasses {
				return nil, &data.InputError{Line: e.Line, Problem: fmt.Sprintf("there are more than %d labels", maxClasses), Fix: "name the column that has the label"}
			}
		}
	}
	return counts, nil
}

// maxClasses is the largest number of labels: with more, the column is likely
// another one.
const maxClasses = 10000

// sortedLabels returns the labels sorted by compareLabels.
func sortedLabels(counts map[string]int) []string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, compareLabels)
	return names
}

// encode returns examples as token ids. It ends early when ctx does.
func encode(ctx context.Context, examples []data.Example, tok *text.Tokenizer, limit int, classes map[string]int32) *corpus {
	c := &corpus{}
	for i := range examples {
		if ctx.Err() != nil {
			break
		}
		c.add(&examples[i], tok, limit, classes)
	}
	return c
}

// fingerprint returns a hash of the texts and the labels.
func (c *corpus) fingerprint() uint64 {
	h := fnv.New64a()
	var b [4]byte
	put := func(v int32) {
		b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		h.Write(b[:])
	}
	for _, id := range c.ids {
		put(id)
	}
	for i, list := range c.labels {
		put(int32(c.ends[i]))
		for _, k := range list {
			put(k)
		}
	}
	return h.Sum64()
}
