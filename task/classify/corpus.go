package classify

import (
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/text"
)

// corpus is texts as token ids, in one piece of memory, with their labels.
type corpus struct {
	ids    []int32
	ends   []int     // where each text ends in ids
	labels [][]int32 // class numbers of each text; empty where the label is not among the classes
	cut    int       // texts longer than the limit
	unseen map[string]int
	odd    map[int]bool // texts with a label that is not among the classes
}

func (c *corpus) len() int { return len(c.ends) }

// text is the ids of text i.
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

// add takes in one text.
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

// Source is where examples come from; it can be gone through several times.
type Source func() iter.Seq2[data.Example, error]

// Files are the examples of a file, read anew each time. What is unusual about
// the file is told to note, if not nil, the first time.
func Files(path string, cfg *Config, note func(string)) Source {
	return func() iter.Seq2[data.Example, error] {
		o := cfg.examples(false, note)
		note = nil
		return data.ReadExamples(path, o)
	}
}

// Examples are examples in memory.
func Examples(list []data.Example) Source {
	return func() iter.Seq2[data.Example, error] {
		return func(yield func(data.Example, error) bool) {
			for _, e := range list {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// part says which share of a source's examples is meant; all of them are dealt
// out by a draw from the seed, so that passes agree without a list.
type part struct {
	seed   uint64
	fold   int // of folds, 1 for the first; 0: none is kept for the test
	folds  int
	hold   float64
	inside func(fold int, held bool) bool
}

// of goes through the examples of the part.
func (p part) of(source Source) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		r := rand.New(rand.NewPCG(p.seed^0x73706c6974, 0)) // apart from the streams that shuffle and initialise
		fold, held := p.dealer(r)
		for e, err := range source() {
			if err != nil {
				yield(e, err)
				return
			}
			if p.inside(fold(), held()) && !yield(e, nil) {
				return
			}
		}
	}
}

// dealer gives each example in turn its fold, and says whether it validates.
// Folds are dealt like cards, so that they are of equal size.
func (p part) dealer(r *rand.Rand) (fold func() int, held func() bool) {
	deck := []int{}
	fold = func() int {
		if p.folds == 0 {
			return 0
		}
		if len(deck) == 0 {
			deck = r.Perm(p.folds)
		}
		k := deck[0]
		deck = deck[1:]
		return k + 1
	}
	return fold, func() bool { return r.Float64() < p.hold }
}

// parts are the training, validation and test examples of a source.
func (c *Config) parts(validate bool) (training, validation, test part) {
	k, n, _ := c.fold() // checked by Validate
	base := part{seed: c.Seed, fold: k, folds: n}
	if validate {
		base.hold = c.Holdout
	}
	training, validation, test = base, base, base
	training.inside = func(fold int, held bool) bool { return (n == 0 || fold != k) && !held }
	validation.inside = func(fold int, held bool) bool { return (n == 0 || fold != k) && held }
	test.inside = func(fold int, _ bool) bool { return n != 0 && fold == k }
	return training, validation, test
}

// Held are the examples of a training source that validate where no source is
// given for it.
func (c *Config) Held(training Source) Source {
	_, validation, _ := c.parts(true)
	return func() iter.Seq2[data.Example, error] { return validation.of(training) }
}

// textsOf are the texts alone; an error ends them and is kept in err.
func textsOf(examples iter.Seq2[data.Example, error], err *error) iter.Seq[string] {
	return func(yield func(string) bool) {
		for e, fault := range examples {
			if fault != nil {
				*err = fault
				return
			}
			if !yield(e.Text) {
				return
			}
		}
	}
}

// countLabels counts the labels of the examples.
func countLabels(examples iter.Seq2[data.Example, error]) (counts map[string]int, texts int, err error) {
	counts = map[string]int{}
	for e, err := range examples {
		if err != nil {
			return nil, 0, err
		}
		texts++
		for _, label := range e.Labels {
			if counts[label]++; len(counts) > maxClasses {
				return nil, 0, &data.InputError{Line: e.Line, Problem: fmt.Sprintf("there are more than %d labels", maxClasses), Fix: "name the column that has the label"}
			}
		}
	}
	return counts, texts, nil
}

// maxClasses bounds the labels: beyond, the column is likely another one.
const maxClasses = 10000

// sortedLabels are the classes in the order of their names, numbers by value.
func sortedLabels(counts map[string]int) []string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, compareLabels)
	return names
}

// encode reads examples as token ids.
func encode(examples iter.Seq2[data.Example, error], tok *text.Tokenizer, limit int, classes map[string]int32) (*corpus, error) {
	c := &corpus{}
	for e, err := range examples {
		if err != nil {
			return nil, err
		}
		c.add(&e, tok, limit, classes)
	}
	return c, nil
}

// fingerprint changes with the texts and the labels.
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
