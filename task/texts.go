package task

import (
	"encoding/csv"
	"io"
	"iter"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/data"
)

// EachRow iterates over the texts of an input with the rows in which they stand:
// those of a file as [data.ReadTexts] reads it with the options, or of a stream, as
// [data.ReadTextsFrom] does, or the texts, whose lines are their numbers. The errors are those of
// ReadTexts.
func (in Input) EachRow(o *data.ExampleOptions) iter.Seq2[data.TextRow, error] {
	if in.File != "" {
		return data.ReadTexts(in.File, o)
	}
	if in.Stream != nil {
		return data.ReadTextsFrom("standard input", in.Stream, o)
	}
	return func(yield func(data.TextRow, error) bool) {
		texts, err := in.EachText(o.Encoding, o.Note)
		if err != nil {
			yield(data.TextRow{}, err)
			return
		}
		for i, s := range texts {
			if !yield(data.TextRow{Line: i + 1, Text: s}, nil) {
				return
			}
		}
	}
}

// WriteRows writes a CSV table of predictions for texts: the columns of the rows,
// or line and text where these are all that a row has, and behind them the columns
// of the prediction, whose names are head. values returns the lines of the table for
// row i, with a value for each name of head. A name that the rows have too is
// prefixed with "predicted_". The errors are those of w.
func WriteRows(w io.Writer, rows []data.TextRow, head []string, values func(i int) [][]string) error {
	own, fieldsOf := ownColumns(rows)
	names := slices.Clone(own)
	for _, name := range head {
		for slices.Contains(names, name) {
			name = "predicted_" + name
		}
		names = append(names, name)
	}
	out := csv.NewWriter(w)
	_ = out.Write(names) // errors stay until Flush
	for i := range rows {
		fields := fieldsOf(&rows[i])
		for _, line := range values(i) {
			_ = out.Write(slices.Concat(fields, line))
		}
	}
	out.Flush()
	return out.Error()
}

// ownColumns returns the names of the rows' columns, and a function that returns a
// row's values of them. The objects of JSON lines may differ in their keys: a
// column is there for each, in the order in which they first appear.
func ownColumns(rows []data.TextRow) (names []string, values func(*data.TextRow) []string) {
	if !slices.ContainsFunc(rows, func(r data.TextRow) bool { return r.Fields != nil }) {
		return []string{"line", "text"}, func(r *data.TextRow) []string { return []string{strconv.Itoa(r.Line), r.Text} }
	}
	type column struct {
		name string
		nth  int // of the columns with this name in a row
	}
	places := map[column]int{}
	each := func(r *data.TextRow, f func(c column, text string)) {
		seen := map[string]int{}
		for _, one := range r.Fields {
			f(column{one.Name, seen[one.Name]}, one.Text)
			seen[one.Name]++
		}
	}
	for i := range rows {
		each(&rows[i], func(c column, _ string) {
			if _, known := places[c]; !known {
				places[c] = len(names)
				names = append(names, c.name)
			}
		})
	}
	return names, func(r *data.TextRow) []string {
		list := make([]string, len(names))
		each(r, func(c column, text string) { list[places[c]] = text })
		return list
	}
}
