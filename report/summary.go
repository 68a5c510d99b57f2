package report

// Summary is a result for people: on a terminal, and on a page.
type Summary struct {
	Scored   string    // what was scored: "120 texts"
	Verdict  string    // how the model compares, in a sentence; may be ""
	Tone     Tone      // of the verdict; "" is Neutral
	Facts    Facts     // key figures, for the page
	Tables   []*Table  // shown in both places; the first compares methods
	Text     []string  // paragraphs after the tables
	Sections []Section // further sections of the page
	Notes    []string  // what to know of the result, a sentence each
}

// Add adds a section of the blocks that are there; without any it adds none.
func (s *Summary) Add(title string, blocks ...Block) {
	s.Sections = AddSection(s.Sections, title, blocks...)
}

// AddSection appends a section of the blocks that are not nil, if there are any.
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

// NewTable is an empty table whose columns but the first hold numbers.
func NewTable(columns ...string) *Table {
	t := &Table{}
	for i, name := range columns {
		t.Columns = append(t.Columns, Column{Name: name, Number: i > 0})
	}
	return t
}

// Add appends a row, and returns the table.
func (t *Table) Add(cells ...string) *Table {
	t.Rows = append(t.Rows, Row{Cells: cells})
	return t
}

// MarkBest marks the row with the greatest score, the first of equal ones, and
// returns the table.
func (t *Table) MarkBest() *Table {
	best := 0
	for i, r := range t.Rows {
		if r.Score > t.Rows[best].Score {
			best = i
		}
	}
	if len(t.Rows) > 0 {
		t.Rows[best].Best = true
	}
	return t
}

// maxConfusion is the most classes whose confusions are drawn.
const maxConfusion = 60

// Confusion draws which label the model takes for which: counts[label][answer]. Nil
// without counts, or of too many labels.
func Confusion(labels []string, counts [][]int, legend string) *Figure {
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
		Title:   "Which label becomes which",
		Caption: "Rows are the labels, columns the model's answers; the diagonal is right.",
		Plot:    &Heat{X: Axis{Label: "Answer"}, Y: Axis{Label: "Label"}, Columns: labels, Rows: labels, Values: values, Format: "%.0f", Legend: legend},
	}
}
