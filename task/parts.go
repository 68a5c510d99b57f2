package task

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// Part is a part of a data set.
type Part string

// The parts of a data set. Weights are learnt from Training; Validation chooses
// the epoch and what else is chosen; Test only scores.
const (
	Training   Part = "train"
	Validation Part = "validation"
	Test       Part = "test"
	All        Part = "all"
)

// ParsePart checks the name of a part; "" is otherwise.
func ParsePart(s string, otherwise Part) (Part, error) {
	switch p := Part(s); p {
	case "":
		return otherwise, nil
	case Training, Validation, Test, All:
		return p, nil
	}
	return "", data.Errorf("want train, validation, test or all, got %q", s)
}

// Parts are samples by part.
type Parts[T any] struct {
	Training, Validation, Test []T
	// Whole are all of one file, in its order, where the parts were drawn from it;
	// nil: those of the parts, one after the other.
	Whole []T
}

// Of are the samples of a part.
func (p *Parts[T]) Of(part Part) []T {
	switch part {
	case Training:
		return p.Training
	case Validation:
		return p.Validation
	case Test:
		return p.Test
	}
	if p.Whole != nil {
		return p.Whole
	}
	var all []T
	return append(append(append(all, p.Training...), p.Validation...), p.Test...)
}

// Has reports whether a part has a sample.
func (p *Parts[T]) Has(part Part) bool {
	if part == All {
		return len(p.Training)+len(p.Validation)+len(p.Test) > 0
	}
	return len(p.Of(part)) > 0
}

// Holdout says which samples of one file are kept from training.
type Holdout struct {
	Share float64 // of the samples, to validate on
	Fold  string  // K/N: part K of N equal ones is the test; "" keeps none
	Seed  uint64
}

// Deal divides the samples of one file by draws from the seed: each goes to
// validation with probability Share; folds are dealt like cards, so that they are
// of equal size. It depends on nothing but the seed and the number of samples.
func Deal[T any](list []T, h Holdout) (Parts[T], error) {
	fold, folds, err := ParseFold(h.Fold)
	if err != nil {
		return Parts[T]{}, err
	}
	p := Parts[T]{Whole: list}
	r := rand.New(rand.NewPCG(h.Seed^0x73706c6974, 0)) // apart from the streams that shuffle and initialise
	var deck []int
	for _, one := range list {
		k := -1
		if folds > 0 {
			if len(deck) == 0 {
				deck = r.Perm(folds)
			}
			k, deck = deck[0]+1, deck[1:]
		}
		held := r.Float64() < h.Share
		switch {
		case k == fold && folds > 0:
			p.Test = append(p.Test, one)
		case held:
			p.Validation = append(p.Validation, one)
		default:
			p.Training = append(p.Training, one)
		}
	}
	return p, nil
}

// ParseFold reads K/N; "" is 0, 0. It is a *data.InputError if it is no such thing.
func ParseFold(s string) (k, n int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	a, b, ok := strings.Cut(s, "/")
	k, errK := strconv.Atoi(a)
	n, errN := strconv.Atoi(b)
	if !ok || errK != nil || errN != nil || n < 2 || n > 1000 || k < 1 || k > n {
		return 0, 0, data.Errorf("fold: want K/N with 1 <= K <= N, such as 1/5, got %q", s)
	}
	return k, n, nil
}

// Files are the files of a training that learns from one kind of file.
type Files struct {
	Data  string `json:"data" value:"file" group:"Files" help:"file to learn from; may be gzipped"`
	Valid string `json:"valid" value:"file" group:"Files" help:"file to validate on (none: a part of the training data)"`
	Test  string `json:"test" value:"file" group:"Files" help:"file to score the finished model on (none: the validation part)"`
}

// Source collects what is read from files: notes, and the names of the files.
type Source struct {
	Name  string // for the page: "reviews.csv"
	notes []string
	more  int
}

// mostNotes is how many notes on files are kept; of very many files all would say alike.
const mostNotes = 5

// Note keeps a note; of many the first ones, and their number.
func (s *Source) Note(note string) {
	if len(s.notes) == mostNotes {
		s.more++
		return
	}
	s.notes = append(s.notes, note)
}

// Notes are the notes.
func (s *Source) Notes() []string {
	if s.more == 0 {
		return s.notes
	}
	return append(s.notes[:mostNotes:mostNotes], fmt.Sprintf("and %d notes like these", s.more))
}

// String is the name.
func (s *Source) String() string { return s.Name }

// newTexts reads texts as lines, each on one line.
func newTexts(texts []string) io.Reader {
	var lines strings.Builder
	for _, s := range texts {
		lines.WriteString(strings.Join(strings.Fields(s), " ") + "\n")
	}
	return strings.NewReader(lines.String())
}
