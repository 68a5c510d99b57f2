package task

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// Part is a part of a data set.
type Part string

// The parts of a data set. Weights are learnt from Training; Validation chooses
// the epoch and everything else that is chosen; Test is only scored.
const (
	Training   Part = "train"
	Validation Part = "validation"
	Test       Part = "test"
	All        Part = "all"
)

// ParsePart returns the part of a name (train, validation, test or all), and
// otherwise for "". Any other name is a *data.InputError.
func ParsePart(s string, otherwise Part) (Part, error) {
	switch p := Part(s); p {
	case "":
		return otherwise, nil
	case Training, Validation, Test, All:
		return p, nil
	}
	return "", data.Errorf("want train, validation, test or all, got %q", s)
}

// Parts are the samples of a data set by part.
type Parts[T any] struct {
	Training, Validation, Test []T
	// Whole has all samples of the training file in its order, if parts were drawn
	// from it. If nil, the whole is the parts one after the other.
	Whole []T
	// Separate are the parts that are files of their own.
	Separate []Part

	repeated map[Part]int // samples that training has as well, after Recognise
}

// Of returns the samples of a part. The slice must not be changed.
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

// Has reports whether a part has at least one sample.
func (p *Parts[T]) Has(part Part) bool {
	if part == All {
		return len(p.Training)+len(p.Validation)+len(p.Test) > 0
	}
	return len(p.Of(part)) > 0
}

// sizes returns the number of samples in each part.
func (p *Parts[T]) sizes() string {
	return fmt.Sprintf("%s to train on, %s to validate on, %s to test on", report.Plural(len(p.Training), "sample"), report.Count(len(p.Validation)), report.Count(len(p.Test)))
}

// Holdout describes which samples of a file are kept from training.
type Holdout struct {
	Share float64 // of the samples, to validate on: 0 to 1
	Fold  string  // "K/N": part K of N equal ones is the test part; "": no test part
	Seed  uint64
}

// Deal divides the samples of a file by random draws: each goes to validation
// with probability Share, and with a Fold each N consecutive samples go to N
// different folds, so that folds have equal sizes. The result depends only on the
// seed and the number of samples. An invalid Fold is a *data.InputError.
func Deal[T any](list []T, h Holdout) (Parts[T], error) {
	fold, folds, err := ParseFold(h.Fold)
	if err != nil {
		return Parts[T]{}, err
	}
	p := Parts[T]{Whole: list}
	r := rand.New(rand.NewPCG(h.Seed^0x73706c6974, 0)) // not the streams that shuffle and initialise
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

// ReadParts reads the files of a training, each once: valid and test, unless they
// are the zero F, are parts of their own, and training is divided as h says, without
// a Share if there is a file to validate on. The errors are those of read and of
// [Deal].
func ReadParts[F comparable, T any](training, valid, test F, h Holdout, read func(F) ([]T, error)) (p Parts[T], err error) {
	var none F
	list, err := read(training)
	if err != nil {
		return p, err
	}
	if valid != none {
		h.Share = 0
	}
	if p, err = Deal(list, h); err != nil {
		return p, err
	}
	if valid != none {
		p.Separate = append(p.Separate, Validation)
		if p.Validation, err = read(valid); err != nil {
			return p, err
		}
	}
	if test != none {
		p.Separate = append(p.Separate, Test)
		p.Test, err = read(test)
	}
	return p, err
}

// Remember adds the samples of all parts to a model's memory.
func (p *Parts[T]) Remember(m *Memory) { p.RememberBy(m, sumOf) }

// RememberBy is Remember with a hash of samples.
func (p *Parts[T]) RememberBy(m *Memory, sum func(T) uint64) {
	for _, part := range memoryParts {
		m.Add(part, sums(p.Of(part), sum)...)
	}
}

// Recognise divides the samples of the file by a model's memory; parts that are files
// of their own stay as they are. The error is always nil.
func (p *Parts[T]) Recognise(_ context.Context, m *Memory) error {
	p.RecogniseBy(m, sumOf)
	return nil
}

// RecogniseBy is Recognise with the hash that the samples were remembered by.
func (p *Parts[T]) RecogniseBy(m *Memory, sum func(T) uint64) {
	p.Whole = p.Of(All)
	p.Divide(m.Divide(sums(p.Whole, sum)), p.Whole)
	p.repeated = map[Part]int{}
	for _, part := range []Part{Validation, Test} {
		for _, one := range p.Of(part) {
			if m.Has(Training, sum(one)) {
				p.repeated[part]++
			}
		}
	}
}

// Divide takes samples as those of the parts that are not files of their own; part i
// is that of sample i.
func (p *Parts[T]) Divide(parts []Part, list []T) {
	for part, to := range map[Part]*[]T{Training: &p.Training, Validation: &p.Validation, Test: &p.Test} {
		if slices.Contains(p.Separate, part) {
			continue
		}
		*to = nil
		for i, one := range list {
			if parts[i] == part {
				*to = append(*to, one)
			}
		}
	}
}

func sums[T any](list []T, sum func(T) uint64) []uint64 {
	all := make([]uint64, len(list))
	for i := range list {
		all[i] = sum(list[i])
	}
	return all
}

// Scored describes the scoring of a part. What is left out is that of the same file.
func (p *Parts[T]) Scored(part Part) Scored {
	return p.ScoredBy(part, func(T) int { return 1 })
}

// ScoredBy is Scored with a number of rows for each sample.
func (p *Parts[T]) ScoredBy(part Part, rows func(T) int) Scored {
	count := func(of Part) (n int) {
		if of != part && (slices.Contains(p.Separate, part) || slices.Contains(p.Separate, of)) {
			return 0
		}
		for _, one := range p.Of(of) {
			n += rows(one)
		}
		return n
	}
	s := NewScored(part, count(Training), count(Validation), count(Test), 0)
	s.Repeated = p.repeated[part]
	return s
}

// Collect returns the values of a sequence, up to its first error or the end of ctx.
func Collect[T any](ctx context.Context, seq iter.Seq2[T, error]) ([]T, error) {
	var list []T
	for v, err := range seq {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// ParseFold parses "K/N", with 1 <= K <= N and 2 <= N <= 1000; "" returns 0, 0.
// Anything else is a *data.InputError.
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

// NeedData panics with a [*tensor.UseError] if d is nil. op is the function of a task
// that needs it, such as "classify: Train"; it defers [tensor.Recover], which makes
// the panic its error.
func NeedData[D any](d *D, op string) {
	tensor.Check(d != nil, op, "needs data, got nil")
}

// Files are the files of a task that is trained on a single kind of file.
type Files struct {
	Data  string `json:"data" value:"file" group:"Files" help:"training data: a file, which may be gzipped"`
	Valid string `json:"valid" value:"file" group:"Files" help:"validation data: a file (empty: a share of the training data, see holdout)"`
	Test  string `json:"test" value:"file" group:"Files" help:"test data, on which the trained model is scored: a file (empty: it is scored on the validation part)"`
}

// Source collects what is known of the files that data were read from: a name and
// notes.
type Source struct {
	Name  string // of the file, for the report, such as "reviews.csv"
	notes []string
	more  int
}

// mostNotes is the largest number of notes that are kept: those on many files are
// usually alike.
const mostNotes = 5

// Note adds a note, one sentence. After the first five, notes are only counted.
func (s *Source) Note(note string) {
	if len(s.notes) == mostNotes {
		s.more++
		return
	}
	s.notes = append(s.notes, note)
}

// Notes returns the notes, and a sentence on the number of those left out. The
// slice must not be changed.
func (s *Source) Notes() []string {
	if s.more == 0 {
		return s.notes
	}
	return append(s.notes[:mostNotes:mostNotes], fmt.Sprintf("and %d notes like these", s.more))
}

// String returns the name.
func (s *Source) String() string { return s.Name }

// newTexts returns a reader of texts, each as one line.
func newTexts(texts []string) io.Reader {
	var lines strings.Builder
	for _, s := range texts {
		lines.WriteString(strings.Join(strings.Fields(s), " ") + "\n")
	}
	return strings.NewReader(lines.String())
}
