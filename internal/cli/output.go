package cli

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"golang.org/x/term"

	"github.com/carousel-ml/carousel/report"
)

// emit prints a result of the schema of that name: v as JSON with --json, else
// what human writes.
func (a *app) emit(schema string, v any, human func(w io.Writer)) error {
	return a.emitBeside(nil, schema, v, human)
}

// emitBeside is emit of a result that is not the whole, for which failed is the
// reason; nil is as emit.
func (a *app) emitBeside(failed error, schema string, v any, human func(w io.Writer)) error {
	if s := a.schemaOf(schema, v); failed != nil && !s.mayLack() { // what is not in the table is noticed either way
		panic(fmt.Sprintf("cli: a result of schema %q beside an error", schema))
	}
	if a.json {
		return a.printJSON(schema, v, failed)
	}
	human(a.stdout)
	return nil
}

// isTerminal reports whether a person watches w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printTable aligns rows below head: the first column to the left, the others,
// which hold numbers, to the right.
func printTable(w io.Writer, head []string, rows [][]string) {
	t := report.NewTable(head...)
	for _, row := range rows {
		t.Add(row...)
	}
	t.Print(w)
}

// number writes x for people: about four significant digits, no exponent in
// the usual range, "-" where there is no number.
func number(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "-"
	}
	switch size := math.Abs(x); {
	case size == 0:
		return "0"
	case size < 1e-4 || size >= 1e9:
		return strconv.FormatFloat(x, 'g', 4, 64)
	case size >= 1000:
		return strconv.FormatFloat(x, 'f', 0, 64)
	default:
		digits := 3 - int(math.Floor(math.Log10(size)))
		return strconv.FormatFloat(x, 'f', max(digits, 0), 64)
	}
}

// count writes a whole number with thousands apart.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is a count with its noun.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return count(n) + " " + noun
}
