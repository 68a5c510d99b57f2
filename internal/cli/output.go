package cli

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/carousel-ml/carousel/report"
)

// emit prints a result of the schema of that name: v as JSON with --json, else
// what human writes.
func (a *app) emit(schema string, v any, human func(w io.Writer)) error {
	return a.emitBeside(nil, schema, v, human)
}

// emitBeside is emit for an incomplete result: failed is the reason; nil means that
// it is complete.
func (a *app) emitBeside(failed error, schema string, v any, human func(w io.Writer)) error {
	if s := a.schemaOf(schema, v); failed != nil && !s.mayLack() { // schemaOf panics if the table lacks it
		panic(fmt.Sprintf("cli: a result of schema %q beside an error", schema))
	}
	if a.json {
		return a.printJSON(schema, v, failed)
	}
	out := &checked{w: a.stdout}
	human(out)
	return out.err
}

// isTerminal reports whether w is a terminal.
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

// checked is a writer that keeps its first error, for text that is written in
// many pieces.
type checked struct {
	w   io.Writer
	err error
}

func (c *checked) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	var n int
	n, c.err = c.w.Write(p)
	return n, c.err
}
