package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// Summary is a result for people: on a terminal, and on a page.
type Summary struct {
	Scored   string    // what was scored: "120 texts"
	Verdict  string    // comparison with the baselines, in a sentence; may be ""
	Tone     Tone      // of the verdict; "" is Neutral
	Facts    Facts     // key figures, for the page
	Tables   []*Table  // for terminal and page; the first compares methods
	Text     []string  // paragraphs after the tables
	Sections []Section // further sections of the page
	Notes    []string  // remarks on the result, a sentence each
}

// Add adds a section of the blocks that are not empty, if there are any; see
// [AddSection].
func (s *Summary) Add(title string, blocks ...Block) {
	s.Sections = AddSection(s.Sections, title, blocks...)
}

// AddSection appends a section of the blocks that are not nil and not a *Table
// without rows. If there are none it returns list unchanged.
func AddSection(list []Section, title string, blocks ...Block) []Section {
	var kept []Block
	for _, b := range blocks {
		switch b := b.(type) {
		case nil:
			continue
		case *Figure:
			if b == nil {
				continue
			}
		case *Table:
			if b == nil || len(b.Rows) == 0 {
				continue
			}
		}
		kept = append(kept, b)
	}
	if len(kept) == 0 {
		return list
	}
	return append(list, Section{Title: title, Blocks: kept})
}

// NewTable returns an empty table, in which all columns but the first hold
// numbers.
func NewTable(columns ...string) *Table {
	t := &Table{}
	for i, name := range columns {
		t.Columns = append(t.Columns, Column{Name: name, Number: i > 0})
	}
	return t
}

// Add appends a row and returns the table.
func (t *Table) Add(cells ...string) *Table {
	t.Rows = append(t.Rows, Row{Cells: cells})
	return t
}

// MarkBest marks the row with the highest score and returns the table. Of equal
// scores it marks the first, but not the first row, which is the model's: equal
// to a baseline is not better. Scores that are NaN are ignored.
func (t *Table) MarkBest() *Table {
	best := -1
	for i, r := range t.Rows {
		if math.IsNaN(r.Score) {
			continue
		}
		if best < 0 || r.Score > t.Rows[best].Score || r.Score == t.Rows[best].Score && best == 0 {
			best = i
		}
	}
	if best >= 0 {
		t.Rows[best].Best = true
	}
	return t
}

// Print writes the table as text with aligned columns. Errors of w are ignored.
func (t *Table) Print(w io.Writer) {
	widths := make([]int, len(t.Columns))
	head := Row{}
	for _, c := range t.Columns {
		head.Cells = append(head.Cells, c.Name)
	}
	rows := append([]Row{head}, t.Rows...)
	for _, r := range rows {
		for i, c := range t.cells(r) {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Text))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, c := range t.cells(r) {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text))
			if c.Number {
				line.WriteString("  " + pad + c.Text)
			} else {
				line.WriteString("  " + c.Text + pad)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// maxConfusion is the largest number of classes of a confusion matrix that is
// drawn.
const maxConfusion = 60

// Confusion draws a confusion matrix: counts[label][predicted label], or shares.
// It returns nil without counts or with more than 60 labels. legend is the label
// of the colour bar.
func Confusion[N int | float64](labels []string, counts [][]N, legend string) *Figure {
	if len(counts) == 0 || len(labels) > maxConfusion {
		return nil
	}
	values := make([][]float64, len(counts))
	for i, row := range counts {
		for _, n := range row {
			values[i] = append(values[i], float64(n))
		}
	}
	return &Figure{
		Title:   "Confusion matrix",
		Caption: "Rows are the true labels, columns the predicted ones; the diagonal is right.",
		Plot:    &Heat{X: Axis{Label: "Predicted"}, Y: Axis{Label: "Label"}, Columns: labels, Rows: labels, Values: values, Format: "%.0f", Legend: legend},
	}
}
