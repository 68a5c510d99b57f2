package data

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// InputError is a mistake in the user's input: a file, a column name, an
// option. It locates the mistake as closely as it can, states what was found
// and how to correct it, and prints as one line. Programs recognise it with
// errors.As; the carousel command exits with code 2 for it.
type InputError struct {
	File    string // path as the user gave it; empty when no file is at fault
	Line    int    // line of a text file, row of a Parquet file, both from 1; 0 when unknown
	Column  string // column's name; empty when no single column is at fault
	Problem string // what was expected and what was found
	Fix     string // how to correct it; may be empty

	rows  bool // Line counts rows, not lines
	cause error
}

// Error returns the whole message in one line:
//
//	FILE: line N: column "C": PROBLEM; FIX
func (e *InputError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		b.WriteString(": ")
	}
	if e.Line > 0 {
		unit := "line"
		if e.rows {
			unit = "row"
		}
		fmt.Fprintf(&b, "%s %d: ", unit, e.Line)
	}
	if e.Column != "" {
		fmt.Fprintf(&b, "column %s: ", quoted(e.Column))
	}
	b.WriteString(e.Problem)
	if e.Fix != "" {
		b.WriteString("; ")
		b.WriteString(e.Fix)
	}
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(b.String())
}

// Unwrap returns the underlying error, such as fs.ErrNotExist, or nil.
func (e *InputError) Unwrap() error { return e.cause }

// Errorf returns an InputError with only a Problem, for a mistake in no
// particular file or column. A %w verb keeps the wrapped error reachable by
// errors.Is and errors.As.
func Errorf(format string, args ...any) *InputError {
	err := fmt.Errorf(format, args...)
	e := &InputError{Problem: err.Error()}
	if u, ok := err.(interface{ Unwrap() error }); ok {
		e.cause = u.Unwrap()
	}
	return e
}

// quoted formats text from a file for a message: quoted, control characters
// escaped, long text cut.
func quoted(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%q...", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}

// unknownColumn returns the error for a column that the options name and the
// file lacks.
func unknownColumn(file, name string, columns []string) *InputError {
	e := &InputError{File: file, Problem: fmt.Sprintf("has no column %s", quoted(name))}
	if len(columns) > 0 && allData(columns) {
		e.Fix = "its first line looks like data: add a line of column names above it"
		return e
	}
	if best := closest(name, columns); best != "" {
		e.Fix = fmt.Sprintf("did you mean %s? ", quoted(best))
	}
	e.Fix += "its columns are " + list(columns)
	return e
}

// list joins names for a message: at most twelve, long ones cut.
func list(names []string) string {
	const most, longest = 12, 40
	names = slices.Clone(names)
	for i, name := range names {
		if r := []rune(name); len(r) > longest {
			names[i] = string(r[:longest]) + "..."
		}
	}
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// closest returns the candidate with the least edit distance to name, ignoring
// case, or "" if none is near enough to be a typing error.
func closest(name string, candidates []string) string {
	best, fewest := "", len(name)/3+1
	for _, c := range candidates {
		if d := edits(strings.ToLower(name), strings.ToLower(c), fewest); d <= fewest && (best == "" || d < fewest) {
			best, fewest = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance of a and b, or limit+1 when their lengths
// alone differ by more than limit.
func edits(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// InFile names the file in an *InputError that names none; other errors stay.
func InFile(path string, err error) error {
	var input *InputError
	if errors.As(err, &input) && input.File == "" {
		named := *input
		if named.File = path; path == Stdin {
			named.File = stdinName
		}
		return &named
	}
	return err
}
