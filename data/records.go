package data

import (
	"io"
	"iter"
)

// Record is some fields of a row of a table of texts.
type Record struct {
	Line   int // where it begins in the file
	Fields []string
}

// ReadRecords goes through a table of texts (CSV or TSV with a line of column
// names, plain or gzipped) and gives the named columns of each row, in this
// order, in memory that does not grow with the file. A name may also be the
// number of a column, from 1; "" stands for a column that is not there and gives
// "". The first error, an *InputError that names the line, ends it.
func ReadRecords(path string, columns ...string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r, err := OpenLines(path, EncodingAuto)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer r.Close()
		t, err := openTextTable(r)
		places := make([]int, len(columns))
		for i, name := range columns {
			if places[i] = -1; name != "" && err == nil {
				places[i], err = t.column(name, "")
			}
		}
		for err == nil {
			var fields []string
			e := Record{Fields: make([]string, len(columns))}
			if fields, e.Line, err = t.next(); err != nil {
				break
			}
			for i, p := range places {
				if p >= 0 {
					e.Fields[i] = fields[p]
				}
			}
			if !yield(e, nil) {
				return
			}
		}
		if err != io.EOF {
			yield(Record{}, err)
		}
	}
}
