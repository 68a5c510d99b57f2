// Package report draws plots and writes them, with tables and text, into HTML
// pages of a single file: without network access or scripts, readable on small
// screens, in light and dark themes and on paper.
//
// A Page is a list of Sections, a Section a list of Blocks: Text, Notice, Facts,
// Pairs, Passage, *Table and *Figure. All strings are plain text and are escaped.
// Equal pages give equal bytes.
package report

import (
	"bytes"
	_ "embed" // the template and the style sheet
	"fmt"
	"html/template"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/model"
)

// Page is a report.
type Page struct {
	Title    string
	Subtitle string
	// Version is the version of the program, and Time when the page was made; both
	// are shown at its end. A zero Time is not shown.
	Version  string
	Time     time.Time
	Sections []Section
	// Items are what figures and tables refer to by their numbers, from 0.
	Items []Item
}

// Section is a part of a page. Without a title it has no heading.
type Section struct {
	Title  string
	Blocks []Block
}

// Block is an element of a section: Text, Notice, Facts, Pairs, Passage, *Table
// or *Figure.
type Block interface {
	kind() string // the name of its template
}

// Text is prose. A blank line begins a new paragraph.
type Text string

// Tone is the colour of a Notice.
type Tone string

// The tones of a notice. "" is Neutral.
const (
	Neutral Tone = "neutral"
	Good    Tone = "good"
	Caution Tone = "caution"
)

// Notice is a highlighted sentence, such as a verdict.
type Notice struct {
	Tone Tone
	Text string
}

// Facts is a row of key figures.
type Facts []Fact

// Fact is a key figure with its name, and a remark in small print.
type Fact struct{ Name, Value, Note string }

// Pairs is a list of names and values, such as a configuration, in columns.
type Pairs []Pair

// Pair is a name and its value.
type Pair struct{ Name, Value string }

// Passage is a text that is shown with its line breaks.
type Passage struct {
	Title string
	Lead  string // what precedes Text, in a paler colour
	Text  string
}

// Table has a header and rows. Cells that a row lacks are empty; cells beyond the
// columns are not shown.
type Table struct {
	Caption string
	Columns []Column
	Rows    []Row
	Items   []int // of each row the number of the page's item that it is about; nil: none
}

// Column is a column of a table. Numbers are aligned to the right.
type Column struct {
	Name    string
	Number  bool
	Literal bool // the name is shown as it is, without a capital letter
}

// Row is a row of a table. The best row is highlighted.
type Row struct {
	Cells []string
	Best  bool
	Score float64 // by which MarkBest compares rows: higher is better
}

func (Text) kind() string    { return "text" }
func (Notice) kind() string  { return "notice" }
func (Facts) kind() string   { return "facts" }
func (Pairs) kind() string   { return "pairs" }
func (Passage) kind() string { return "passage" }
func (*Table) kind() string  { return "table" }
func (*Figure) kind() string { return "figure" }

// Paragraphs returns the parts of a text between blank lines.
func (t Text) Paragraphs() []string {
	var ps []string
	for p := range strings.SplitSeq(strings.ReplaceAll(string(t), "\r\n", "\n"), "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			ps = append(ps, p)
		}
	}
	return ps
}

// cell is a cell of a table with the alignment of its column.
type cell struct {
	Text   string
	Number bool
}

// cells pads or cuts a row to the columns of the table.
func (t *Table) cells(r Row) []cell {
	out := make([]cell, len(t.Columns))
	for i, c := range t.Columns {
		out[i].Number = c.Number
		if i < len(r.Cells) {
			out[i].Text = r.Cells[i]
		}
	}
	return out
}

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	pageTemplate = newPageTemplate()
)

func newPageTemplate() *template.Template {
	t := template.New("page")
	t.Funcs(template.FuncMap{
		"css":     func() template.CSS { return template.CSS(pageCSS) },
		"cells":   func(t *Table, r Row) []cell { return t.cells(r) },
		"heading": heading,
		"stand":   itemRules,
		"rowClass": func(t *Table, i int) string {
			class := ""
			if i < len(t.Items) {
				class = fmt.Sprintf("i i%d", t.Items[i])
			}
			if t.Rows[i].Best {
				class = strings.TrimSpace(class + " best")
			}
			return class
		},
		"scores": func(t *Table) bool {
			return len(t.Columns) > 1 && !slices.ContainsFunc(t.Columns[1:], func(c Column) bool { return !c.Number })
		},
		"svg": func(f *Figure) (template.HTML, error) { return f.svg() },
		"panels": func(f *Figure) []*Figure {
			g, ok := f.Plot.(*Grid)
			if !ok {
				return nil
			}
			panels := make([]*Figure, len(g.Figures))
			for i, f := range g.Figures {
				panels[i] = g.panel(f)
			}
			return panels
		},
		"perRow": func(f *Figure) int { return min(f.Plot.(*Grid).columns(), 4) },
		"show": func(b Block) (template.HTML, error) {
			var buf strings.Builder
			err := t.ExecuteTemplate(&buf, b.kind(), b)
			return template.HTML(buf.String()), err
		},
	})
	return template.Must(t.Parse(pageHTML))
}

// WriteHTML writes the page as HTML with everything inlined. The errors are those
// of w, and of a Heat's Format or an image that cannot be encoded.
func (p *Page) WriteHTML(w io.Writer) error {
	var buf bytes.Buffer // nothing is written if the page cannot be made
	if err := pageTemplate.Execute(&buf, p); err != nil {
		return fmt.Errorf("report: page %q: %w", p.Title, err)
	}
	_, err := w.Write(bytes.ReplaceAll(buf.Bytes(), []byte(" %"), []byte("\u00a0%"))) // which do not part at the end of a line
	return err
}

// heading begins the name of a column with a capital letter, unless it has one
// elsewhere: "method", but sMAPE.
func heading(name string) string {
	if word, _, _ := strings.Cut(name, " "); word != strings.ToLower(word) {
		return name
	}
	first, n := utf8.DecodeRuneInString(name)
	return string(unicode.ToUpper(first)) + name[n:]
}

// Add adds a section of the blocks that are not empty, if there are any; see
// [AddSection].
func (p *Page) Add(title string, blocks ...Block) {
	p.Sections = AddSection(p.Sections, title, blocks...)
}

// PageFile is the file name of the page in WriteDir.
const PageFile = "report.html"

// WriteDir writes the page to [PageFile] in an existing directory, and each
// figure that has a File as a PNG beside it. Each file is replaced as a whole.
// The errors are those of [model.WriteFileAtomic] and [Page.WriteHTML]; files
// written before an error remain.
func (p *Page) WriteDir(dir string) error {
	for _, s := range p.Sections {
		for _, b := range s.Blocks {
			if f, ok := b.(*Figure); ok && f.File != "" {
				if err := model.WriteFileAtomic(filepath.Join(dir, f.File), f.WritePNG); err != nil {
					return err
				}
			}
		}
	}
	return p.WriteFile(filepath.Join(dir, PageFile))
}

// WriteFile writes the page to a file. An older file is kept until the new one is
// complete. The errors are those of [model.WriteFileAtomic] and [Page.WriteHTML].
func (p *Page) WriteFile(path string) error { return model.WriteFileAtomic(path, p.WriteHTML) }
