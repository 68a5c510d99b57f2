package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/train"
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
	return a.humanly(human)
}

// humanly prints text for people on stdout.
func (a *app) humanly(print func(io.Writer)) error {
	out := &checked{w: a.stdout}
	print(out)
	return out.err
}

// outFlags are the flags of a file that a command writes.
var outFlags = []string{"out", "page", "timeline"}

// checkOut refuses an output that is the same file as an argument or the value of
// another flag, under any name: it would replace its own input.
func (a *app) checkOut(c *cobra.Command, args []string) (err error) {
	for _, name := range outFlags {
		flag, out := outFile(c, name)
		if out == nil {
			continue
		}
		check := func(what, path string) error {
			in, err := os.Stat(path)
			if f, ok := a.stdin.(*os.File); ok && path == data.Stdin {
				in, err = f.Stat()
			}
			if err == nil && os.SameFile(in, out) {
				return wrongFlag(name, "--%s %s is the file of %s, which it would replace; give another", name, flag.Value, what)
			}
			return nil
		}
		for _, path := range args {
			err = cmp.Or(err, check("the argument", path))
		}
		c.Flags().Visit(func(f *pflag.Flag) {
			paths := []string{f.Value.String()}
			if list, ok := f.Value.(pflag.SliceValue); ok {
				paths = nil
				for _, one := range list.GetSlice() { // FILE, or NAME=FILE
					_, file, _ := strings.Cut(one, "=")
					paths = append(paths, one, file)
				}
			}
			for _, path := range paths {
				if f != flag {
					err = cmp.Or(err, check("--"+f.Name, path))
				}
			}
		})
	}
	return err
}

// outFile returns the flag of an output and the file that it would replace; nil if
// there is none: it is new, a directory, or a device that is written to.
func outFile(c *cobra.Command, name string) (*pflag.Flag, os.FileInfo) {
	flag := c.Flags().Lookup(name)
	if flag == nil || !flag.Changed {
		return nil, nil
	}
	out, err := os.Stat(flag.Value.String())
	if err != nil || !out.Mode().IsRegular() {
		return nil, nil
	}
	return flag, out
}

// checkModelKept refuses an output that is a file of the model or of its training.
func checkModelKept(c *cobra.Command, dir *model.Dir) error {
	names := slices.Concat(dir.Names(), []string{model.ConfigFile}, train.Files)
	for _, one := range outFlags {
		flag, out := outFile(c, one)
		if out == nil {
			continue
		}
		for _, name := range names {
			if in, err := os.Stat(dir.File(name)); err == nil && os.SameFile(in, out) {
				return wrongFlag(one, "--%s %s is %s of the model in %s, which it would replace; give another", one, flag.Value, name, dir.Path)
			}
		}
	}
	return nil
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	if c, ok := w.(*checked); ok {
		w = c.w
	}
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

// closedOutput takes the place of a standard output that is closed.
type closedOutput struct{}

func (closedOutput) Write([]byte) (int, error) {
	return 0, errors.New("standard output is closed, so the result is lost; send it to a file, or to /dev/null if it is not needed")
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
