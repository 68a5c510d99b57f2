package cli

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
)

// anything reports whether a source has something to give, be it an error.
func anything[T any](source iter.Seq2[T, error]) bool {
	for range source {
		return true
	}
	return false
}

// beginning reads the beginning of a source, so that what is wrong with it is
// known before a training and not after.
func beginning[T any](source iter.Seq2[T, error]) error {
	for _, err := range source {
		return err
	}
	return nil
}

// inFile names the file in an error that names none.
func inFile(path string, err error) error {
	var input *data.InputError
	if errors.As(err, &input) && input.File == "" {
		named := *input
		named.File = path
		return &named
	}
	return err
}

// lines are those of a file, of standard input (-), or texts given as they are.
func (a *app) lines(path string, texts []string, encoding string) (*data.LineReader, error) {
	switch {
	case path != "" && len(texts) > 0:
		return nil, misusef("--data and --input are two ways to give texts; give one")
	case len(texts) > 0:
		for i, s := range texts {
			texts[i] = strings.Join(strings.Fields(s), " ")
		}
		return data.NewLineReader("--input", strings.NewReader(strings.Join(texts, "\n")+"\n"), encoding)
	case path == "-":
		return data.NewLineReader("standard input", a.stdin, encoding)
	case path != "":
		return data.OpenLines(path, encoding)
	}
	return nil, misusef("--data is needed: a file of texts, or - for lines of standard input; or --input, a text")
}

// readLines reads the lines of a stream that are not blank.
func readLines(name string, in io.Reader) ([]string, error) {
	r, err := data.NewLineReader(name, in, data.EncodingAuto)
	if err != nil {
		return nil, err
	}
	var lines []string
	for {
		line, err := r.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
}

// percent writes a share.
func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

type scoredMethod struct {
	name  string
	cells []string
	score float64
}

// scoreTable sets methods side by side, the model first; the best is highlighted.
func scoreTable(list []scoredMethod, metrics ...string) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: "Method"}}}
	for _, name := range metrics {
		t.Columns = append(t.Columns, report.Column{Name: name, Number: true})
	}
	best := 0
	for i, m := range list {
		if m.score > list[best].score {
			best = i
		}
		t.Rows = append(t.Rows, report.Row{Cells: append([]string{m.name}, m.cells...)})
	}
	t.Rows[best].Best = true
	return t
}

// maxConfusion is the most classes whose confusions are drawn.
const maxConfusion = 60

// shorten cuts a text to n characters.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
