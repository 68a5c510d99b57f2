package data

import (
	"io"
	"iter"
)

// Record holds some fields of a row of a table of texts.
type Record struct {
	Line   int // line where it begins in the file, from 1
	Fields []string
}

// ReadRecords iterates over a table of texts (CSV or TSV with a header, plain
// or gzipped) and returns the named columns of each row, in the given order, in
// memory independent of the file's size. A name may also be the number of a
// column, from 1; "" means no column and gives "". note, if not nil, is called
// with a message about what was unusual. Any error is an
// [*InputError], which names the line where there is one, and ends the
// iteration.
func ReadRecords(path string, note func(string), columns ...string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r, err := OpenLines(path, EncodingAuto)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer r.Close()
		t, err := openTextTable(r)
		if err != nil {
			yield(Record{}, err)
			return
		}
		needed := make([]wanted, len(columns))
		for i, name := range columns {
			needed[i].name = name
		}
		places, err := t.places(needed...)
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
			return
		}
		for _, text := range []string{t.note, r.Note()} {
			if text != "" && note != nil {
				note(text)
			}
		}
	}
}
