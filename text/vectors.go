package text

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// maxDim is the maximum number of dimensions of a word vector.
const maxDim = 1 << 16

// Vectors are pretrained word vectors for the tokens of a vocabulary.
type Vectors struct {
	Dim       int // dimensions of each vector
	Read      int // vectors in the file
	Found     int // tokens with a vector
	Lowercase int // of Found, tokens with the vector of their lower-case form

	note  string
	rows  [][]float32 // by id; nil for a token without a vector
	match []matched   // by id
}

// matched is how a token was found among the words of a file.
type matched uint8

const (
	missing matched = iota
	lowercased
	exact
)

// ReadVectors reads the vectors of a vocabulary's tokens from a file in the
// text format of word2vec and fastText (.vec; a first line with the numbers of
// words and of dimensions) or of GloVe (without), plain or gzipped. A token
// that the file lacks gets the vector of its lower-case form. If a word occurs
// twice, the first one counts.
//
// Memory grows with the vocabulary, not with the file. A file that cannot be
// read, a line that is not a word and its Dim finite numbers, or a file shorter
// than its first line says is a [*data.InputError] that names the line; a
// cancelled ctx returns its error.
func ReadVectors(ctx context.Context, path string, v *Vocabulary) (*Vectors, error) {
	lines, err := data.OpenLines(path, data.EncodingAuto)
	if err != nil {
		return nil, err
	}
	defer lines.Close()
	r := &vectorReader{lines: lines, vocabulary: v, lower: map[string][]int32{}}
	for id, token := range v.tokens {
		if l := strings.ToLower(token); l != token {
			r.lower[l] = append(r.lower[l], int32(id))
		}
	}
	return r.read(ctx)
}

// Has reports whether a token has a vector.
func (w *Vectors) Has(id int32) bool {
	return id >= 0 && int(id) < len(w.match) && w.match[id] != missing
}

// Vector returns the vector of a token, of length Dim, nil when it has none.
// The caller must not change it.
func (w *Vectors) Vector(id int32) []float32 {
	if !w.Has(id) {
		return nil
	}
	return w.rows[id]
}

// Fill copies the vectors into the rows of an embedding, of shape [tokens,
// Dim], and leaves the rows of tokens without a vector unchanged. It panics if
// rows has another size.
func (w *Vectors) Fill(rows []float32) {
	if len(rows) != len(w.rows)*w.Dim {
		panic(fmt.Sprintf("text: %d word vectors of %d numbers do not fit into %d numbers", len(w.rows), w.Dim, len(rows)))
	}
	for id, vector := range w.rows {
		copy(rows[id*w.Dim:], vector)
	}
}

// Note returns what was unusual about the file's lines, or "".
func (w *Vectors) Note() string { return w.note }

// String reports how much of the vocabulary was found.
func (w *Vectors) String() string {
	return fmt.Sprintf("%d of %d tokens have vectors of %d numbers, %d by their lower-case form; the file has %d",
		w.Found, len(w.match), w.Dim, w.Lowercase, w.Read)
}

// vectorReader reads a file of vectors line by line.
type vectorReader struct {
	lines      *data.LineReader
	vocabulary *Vocabulary
	lower      map[string][]int32 // tokens that are not lower-case, by their lower-case form
	announced  int                // number of vectors by the first line, 0 without such a line
	out        *Vectors
	row        []float32
}

func (r *vectorReader) read(ctx context.Context) (*Vectors, error) {
	first, err := r.lines.Next()
	if err == io.EOF {
		return nil, &data.InputError{File: r.lines.File, Problem: "is empty", Fix: "a file of word vectors has a word and its numbers on each line"}
	}
	if err != nil {
		return nil, err
	}
	dim, header, err := r.dimensions(first)
	if err != nil {
		return nil, err
	}
	n := r.vocabulary.Len()
	r.out = &Vectors{Dim: dim, rows: make([][]float32, n), match: make([]matched, n)}
	r.row = make([]float32, dim)
	if !header {
		if err := r.line(first); err != nil {
			return nil, err
		}
	}
	for i := 0; ; i++ {
		if err := cancelled(ctx, i); err != nil {
			return nil, err
		}
		line, err := r.lines.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if line == "" {
			continue
		}
		if err := r.line(line); err != nil {
			return nil, err
		}
	}
	if r.out.Read < r.announced {
		return nil, &data.InputError{
			File:    r.lines.File,
			Problem: fmt.Sprintf("has %d vectors, and its first line says %d", r.out.Read, r.announced),
			Fix:     "it may be cut short: get a new copy",
		}
	}
	for _, m := range r.out.match {
		switch m {
		case lowercased:
			r.out.Lowercase++
			r.out.Found++
		case exact:
			r.out.Found++
		}
	}
	r.out.note = r.lines.Note()
	return r.out, nil
}

// dimensions determines the size of the vectors from the first line, and
// whether that line is the header of word2vec: two whole numbers.
func (r *vectorReader) dimensions(line string) (dim int, header bool, err error) {
	fields := strings.Fields(line)
	if len(fields) == 2 {
		words, err1 := strconv.Atoi(fields[0])
		d, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil && words >= 0 {
			if d < 1 || d > maxDim {
				return 0, false, r.bad(fmt.Sprintf("vectors of %d numbers; 1 to %d are read", d, maxDim), "")
			}
			r.announced = words
			return d, true, nil
		}
	}
	dim = len(fields) - 1
	if dim < 1 || dim > maxDim {
		return 0, false, r.bad("no word vector", "a line is a word and its numbers, with spaces between")
	}
	return dim, false, nil
}

func (r *vectorReader) bad(problem, fix string) error {
	return &data.InputError{File: r.lines.File, Line: r.lines.Line, Problem: problem, Fix: fix}
}

// line parses a word and its vector. The word may contain spaces, as some of
// GloVe's do, so the numbers are counted from the end.
func (r *vectorReader) line(line string) error {
	line = strings.TrimRight(line, " \t")
	start := len(line)
	for range r.out.Dim {
		if start < 0 {
			break
		}
		start = strings.LastIndexAny(line[:start], " \t")
	}
	if start < 0 {
		got := len(strings.Fields(line)) - 1
		return r.bad(fmt.Sprintf("want a word and %d numbers, got %d numbers after %s", r.out.Dim, got, quoted(firstField(line))),
			"the file may be cut short or mixed of several")
	}
	r.out.Read++
	word := line[:start]
	ids := r.lower[word]
	id, known := r.vocabulary.Lookup(word)
	if !known && ids == nil {
		return nil
	}
	numbers := line[start+1:]
	for i := range r.row {
		field := firstField(numbers)
		x, err := strconv.ParseFloat(field, 32)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			return r.bad(fmt.Sprintf("number %d of the vector of %s is %s, which is not a finite number", i+1, quoted(word), quoted(field)), "")
		}
		r.row[i] = float32(x)
		numbers = strings.TrimLeft(numbers[len(field):], " \t")
	}
	if known {
		r.put(id, exact)
	}
	for _, id := range ids {
		r.put(id, lowercased)
	}
	return nil
}

// put assigns a token the vector just read, unless it has one from an equally
// good match.
func (r *vectorReader) put(id int32, how matched) {
	if r.out.match[id] < how {
		r.out.match[id] = how
		r.out.rows[id] = append(r.out.rows[id][:0], r.row...)
	}
}

// firstField returns the text before the first space or tab.
func firstField(s string) string {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i]
	}
	return s
}
