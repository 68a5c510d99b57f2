package data

import (
	"fmt"
	"io"
	"iter"
)

// Pair is a sentence and its translation.
type Pair struct {
	Line           int
	Source, Target string
}

// Content returns what the pair is without its place in a file.
func (p Pair) Content() []string { return []string{p.Source, p.Target} }

// ReadPairs iterates over two files in which line n of one is the translation
// of line n of the other, in memory independent of their size. note, if not
// nil, is called with a message about unusual lines.
//
// Any error is an [*InputError] and ends the iteration. Files with different
// numbers of lines are an error that gives both counts, after the last common
// pair.
func ReadPairs(source, target, encoding string, note func(string)) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		var files [2]*LineReader
		for i, path := range []string{source, target} {
			r, err := OpenLines(path, encoding)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			defer r.Close()
			files[i] = r
		}
		for {
			s, errS := files[0].Next()
			t, errT := files[1].Next()
			for _, err := range []error{errS, errT} {
				if err != nil && err != io.EOF {
					yield(Pair{}, err)
					return
				}
			}
			if errS == io.EOF && errT == io.EOF {
				break
			}
			if errS == io.EOF || errT == io.EOF {
				yield(Pair{}, unequal(files, errS != io.EOF))
				return
			}
			if !yield(Pair{files[0].Line, s, t}, nil) {
				return
			}
		}
		if files[0].Line == 0 {
			yield(Pair{}, &InputError{File: files[0].File, Problem: "is empty", Fix: "give a sentence on each line"})
		}
		for _, r := range files {
			if text := r.Note(); text != "" && note != nil {
				note(text)
			}
		}
	}
}

// unequal counts the lines of the longer file to its end.
func unequal(files [2]*LineReader, sourceLonger bool) error {
	longer := files[1]
	if sourceLonger {
		longer = files[0]
	}
	for {
		if _, err := longer.Next(); err != nil {
			break
		}
	}
	return &InputError{
		File:    files[0].File,
		Problem: fmt.Sprintf("has %s, %s has %d", count(files[0].Line, "line"), files[1].File, files[1].Line),
		Fix:     "line n of one must be the translation of line n of the other",
	}
}

// ReadPairTable iterates over a table (CSV or TSV with a header) that has
// sentence and translation in two columns, given by name or by number from 1.
// Any error is an [*InputError], which names the line where there is one, and
// ends the iteration.
func ReadPairTable(path, source, target, encoding string, note func(string)) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		r, err := OpenLines(path, encoding)
		if err != nil {
			yield(Pair{}, err)
			return
		}
		defer r.Close()
		t, err := openTextTable(r)
		if err != nil {
			yield(Pair{}, err)
			return
		}
		usual := []string{"source", "target"}
		at, err := t.places(wanted{source, usual[0]}, wanted{target, usual[1]})
		for i := range at {
			if at[i] < 0 && err == nil {
				err = &InputError{File: r.File, Problem: fmt.Sprintf("has no column %q", usual[i]), Fix: "name it; the columns are " + list(t.columns)}
			}
		}
		if err != nil {
			yield(Pair{}, err)
			return
		}
		if at[0] == at[1] {
			yield(Pair{}, &InputError{File: r.File, Column: t.columns[at[0]], Problem: "is named for both source and target", Fix: "its columns are " + list(t.columns)})
			return
		}
		for {
			fields, line, err := t.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				yield(Pair{}, err)
				return
			}
			if !yield(Pair{line, fields[at[0]], fields[at[1]]}, nil) {
				return
			}
		}
		for _, text := range []string{t.note, r.Note()} {
			if text != "" && note != nil {
				note(text)
			}
		}
	}
}
