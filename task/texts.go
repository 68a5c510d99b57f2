package task

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/data"
)

// EachRow iterates over the texts of an input with the rows in which they stand:
// those of a file as [data.ReadTexts] reads it with the options, or of a stream, as
// [data.ReadTextsFrom] does, or the texts, whose lines are their numbers. The errors are those of
// ReadTexts.
func (in Input) EachRow(o *data.ExampleOptions) iter.Seq2[data.TextRow, error] {
	switch {
	case in.kept != nil:
		return in.kept.eachRow(cmp.Or(in.File, "standard input"), o)
	case in.File != "":
		return data.ReadTexts(in.File, o)
	case in.Stream != nil:
		return data.ReadTextsFrom("standard input", in.Stream, o)
	}
	return func(yield func(data.TextRow, error) bool) {
		for i, s := range in.Texts {
			if !yield(data.TextRow{Line: in.Number(i), Text: s}, nil) {
				return
			}
		}
	}
}

// Again returns an input whose rows can be read more than once: a stream, or a file
// that is a pipe or a device, is read to its end into a temporary file, as it may not
// fit into memory. done removes that file. The error is that of writing it; those of
// reading the input come from EachRow.
func (in Input) Again() (again Input, done func(), err error) {
	done = func() {}
	source := in.Stream
	if in.File != "" {
		info, err := os.Stat(in.File)
		if err != nil || info.Mode().IsRegular() {
			return in, done, nil
		}
		f, err := os.Open(in.File)
		if err != nil {
			return in, done, nil
		}
		defer f.Close()
		source = f
	}
	if source == nil {
		return in, done, nil
	}
	k := &kept{}
	if k.file, err = os.CreateTemp("", "carousel-input-*"); err != nil {
		return in, done, fmt.Errorf("the input is read twice and needs a temporary file: %w", err)
	}
	remove := func() error { return os.Remove(k.file.Name()) }
	removed := remove() == nil // at once where the system allows it, so that a kill leaves nothing
	done = func() {
		k.file.Close()
		if !removed {
			_ = remove()
		}
	}
	failing := &firstError{r: source}
	_, err = io.Copy(k.file, failing)
	if k.err = failing.err; err != nil && k.err == nil {
		done()
		return in, func() {}, fmt.Errorf("the input is read twice and does not fit into a temporary file: %w", err)
	}
	in.kept = k
	return in, done, nil
}

// kept is a copy of an input in a file, and the error that ended it.
type kept struct {
	file *os.File
	err  error // nil at the end of the input
}

func (k *kept) eachRow(name string, o *data.ExampleOptions) iter.Seq2[data.TextRow, error] {
	if _, err := k.file.Seek(0, io.SeekStart); err != nil {
		return func(yield func(data.TextRow, error) bool) { yield(data.TextRow{}, err) }
	}
	return data.ReadTextsFrom(name, io.MultiReader(k.file, &firstError{err: cmp.Or(k.err, io.EOF)}), o)
}

// firstError is a reader that keeps the first error of another, but not its end.
type firstError struct {
	r   io.Reader
	err error
}

func (f *firstError) Read(p []byte) (n int, err error) {
	if f.err != nil {
		return 0, f.err
	}
	if n, err = f.r.Read(p); err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// A group holds at most so many rows, and no further one once it has so many bytes.
const (
	groupRows  = 1024
	groupBytes = 1 << 20
)

// Groups iterates over a sequence in groups, in order, so that a prediction can be
// computed in memory that does not grow with its input. size returns how many bytes a
// value takes. The first error of the sequence, or
// the end of ctx, ends the iteration with that error, after the group of the values before it.
func Groups[T any](ctx context.Context, seq iter.Seq2[T, error], size func(T) int) iter.Seq2[[]T, error] {
	return func(yield func([]T, error) bool) {
		var group []T
		bytes := 0
		for v, err := range seq {
			if err = cmp.Or(err, ctx.Err()); err != nil {
				if len(group) == 0 || yield(group, nil) {
					yield(nil, err)
				}
				return
			}
			group = append(group, v)
			if bytes += size(v); len(group) < groupRows && bytes < groupBytes {
				continue
			}
			if !yield(group, nil) {
				return
			}
			group, bytes = nil, 0
		}
		if len(group) > 0 {
			yield(group, nil)
		}
	}
}

// Guarded returns a sequence whose panics with a programmer's mistake
// (*tensor.ShapeError, *tensor.UseError) are errors that end it. Those of the loop over
// it stay panics.
func Guarded[P any](seq iter.Seq2[P, error]) iter.Seq2[P, error] {
	return func(yield func(P, error) bool) {
		next, stop := iter.Pull2(seq)
		defer stop()
		for {
			more := false
			p, err := guard(func() (p P, err error) {
				p, err, more = next()
				return p, err
			})
			if !more && err == nil || !yield(p, err) || !more {
				return
			}
		}
	}
}

// InParts makes a [Guarded] sequence of the parts that each gives, one after the other,
// up to the error that it returns.
func InParts[P any](each func(give func(P) error) error) iter.Seq2[P, error] {
	return Guarded(func(yield func(P, error) bool) {
		enough := errors.New("no further part is wanted")
		err := each(func(p P) error {
			if !yield(p, nil) {
				return enough
			}
			return nil
		})
		if err != nil && err != enough {
			var none P
			yield(none, err)
		}
	})
}

// Joined joins the parts of a sequence: join adds a further part to the first.
func Joined[P any](parts iter.Seq2[*P, error], join func(whole, part *P)) (whole *P, err error) {
	for p, err := range parts {
		switch {
		case err != nil:
			return nil, err
		case whole == nil:
			whole = p
		default:
			join(whole, p)
		}
	}
	return whole, nil
}

// WriteRows writes a CSV table of predictions for texts as [Columns.Write] does, with
// the columns of these rows.
func WriteRows(w io.Writer, rows []data.TextRow, head []string, values func(i int) [][]string) error {
	var c Columns
	for i := range rows {
		c.Add(&rows[i])
	}
	return c.Write(w, true, rows, head, values)
}

// Columns are the columns of rows of texts. The objects of JSON lines may differ in
// their keys: a column is there for each, in the order in which they first appear.
type Columns struct {
	names  []string
	places map[column]int
}

type column struct {
	name string
	nth  int // of the columns with this name in a row
}

// Add adds the columns of a row.
func (c *Columns) Add(r *data.TextRow) {
	each(r, func(one column, _ string) {
		if _, known := c.places[one]; !known {
			if c.places == nil {
				c.places = map[column]int{}
			}
			c.places[one] = len(c.names)
			c.names = append(c.names, one.name)
		}
	})
}

// each calls f with the columns of a row and its values.
func each(r *data.TextRow, f func(c column, text string)) {
	if len(r.Fields) == 0 {
		return
	}
	seen := map[string]int{}
	for _, one := range r.Fields {
		f(column{one.Name, seen[one.Name]}, one.Text)
		seen[one.Name]++
	}
}

// values returns a row's values of the columns.
func (c *Columns) values(r *data.TextRow) []string {
	if c.places == nil {
		return []string{strconv.Itoa(r.Line), r.Text}
	}
	list := make([]string, len(c.names))
	each(r, func(one column, text string) {
		if at, known := c.places[one]; known {
			list[at] = text
		}
	})
	return list
}

// Write writes a CSV table of predictions for texts: these columns of the rows, or line
// and text where these are all that a row has, and behind them the columns of the
// prediction, whose names are head. values returns the lines of the table for row i,
// with a value for each name of head. A name that the rows have too is prefixed with
// "predicted_". Without begin the line of names is left out, as for further rows of the
// same table. The errors are those of w.
func (c *Columns) Write(w io.Writer, begin bool, rows []data.TextRow, head []string, values func(i int) [][]string) error {
	out := csv.NewWriter(w)
	if begin {
		names := slices.Clone(c.names)
		if c.places == nil {
			names = []string{"line", "text"}
		}
		for _, name := range head {
			for slices.Contains(names, name) {
				name = "predicted_" + name
			}
			names = append(names, name)
		}
		_ = out.Write(names) // errors stay until Flush
	}
	for i := range rows {
		fields := c.values(&rows[i])
		for _, line := range values(i) {
			_ = out.Write(slices.Concat(fields, line))
		}
	}
	out.Flush()
	return out.Error()
}
