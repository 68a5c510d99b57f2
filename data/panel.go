// Package data reads training and input data from files: tables of time series
// (CSV, Parquet, the Monash .tsf format), labelled texts, tagged sentences,
// sentence pairs and documents. Time series become a [Panel]: named numeric
// columns of one or many series, on a regular time grid.
//
// Readers report every fault. A column that does not exist, text among numbers,
// a duplicate, unsorted or missing time, an infinite number: each is an
// [*InputError] that names the file, the line and the column and how to correct
// it.
package data

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Missing selects how to handle missing values, which are empty cells and NA,
// N/A, NaN, NaT, null, none and "?" in any case, and times that are missing
// from a regular grid.
type Missing int

const (
	MissingError Missing = iota // report the first one as an InputError
	Interpolate                 // linear interpolation in time; the ends repeat the nearest value
	Mask                        // keep as NaN
)

var missingNames = []string{"error", "interpolate", "mask"}

// String returns the name that ParseMissing reads.
func (m Missing) String() string {
	if m < 0 || int(m) >= len(missingNames) {
		return fmt.Sprintf("Missing(%d)", int(m))
	}
	return missingNames[m]
}

// ParseMissing parses "error", "interpolate" or "mask"; "" is error. Any other
// name is an [*InputError].
func ParseMissing(s string) (Missing, error) {
	if s == "" {
		return MissingError, nil
	}
	for i, name := range missingNames {
		if s == name {
			return Missing(i), nil
		}
	}
	return 0, Errorf("missing: want %s, got %s", strings.Join(missingNames, ", "), quoted(s))
}

// Layouts of a file, for ReadOptions.Layout.
const (
	// LayoutLong has one row per time, or with an ID column one row per time
	// and series. Values are the columns of every series.
	LayoutLong = ""
	// LayoutColumns has one row per time, and each of Values is a separate
	// series.
	LayoutColumns = "columns"
	// LayoutRows has one series per row: its id, then its values from the
	// oldest on; shorter rows may be padded with empty cells. The files of the
	// M4 competition have this layout.
	LayoutRows = "rows"
	// LayoutTSF is the Monash forecasting repository's format, the default for
	// files with its name or content.
	LayoutTSF = "tsf"
)

// ValueColumn is the name of the only column of a Panel whose file does not
// name it: LayoutColumns, LayoutRows and LayoutTSF.
const ValueColumn = "value"

// ReadOptions assigns the columns of a file to their roles. Every column named
// must exist. The zero value reads all columns as numbers, with rows numbered
// instead of timed.
type ReadOptions struct {
	// Time is the column of times; "" when rows have none and are consecutive.
	// ReadPanel lists the formats.
	Time string
	// ID is the column that identifies the series, for LayoutLong.
	ID string
	// Values are the numeric columns to read, in the order of Panel.Columns;
	// nil means every column not named in another field. For LayoutColumns each
	// is a series; for LayoutRows and LayoutTSF use nil or ValueColumn.
	Values []string
	// Shared are, for LayoutColumns only, numeric columns that belong to every
	// series, such as temperature; they follow ValueColumn in Panel.Columns.
	Shared []string
	// OpenEnded are those of Panel.Columns that may be missing at the end of a
	// series, or in all its rows, regardless of Missing, and stay NaN there: the
	// target in rows that hold only covariates known ahead.
	OpenEnded []string
	// Sparse are those of Panel.Columns that may be missing in any row, regardless
	// of Missing, and stay NaN there. A file with named columns may lack them: values
	// that are only compared with what a model computes.
	Sparse []string
	// Static are columns with one value per series. For LayoutTSF they are
	// attributes, and nil means all of them.
	Static []string
	// Delimiter separates fields; 0 means that it is detected.
	Delimiter rune
	// Decimal is the decimal separator of numbers, '.' or ','; the other one may
	// separate thousands. 0 means that it is detected: by numbers that show it,
	// in any column of the file. Numbers such as 1.234 beside whole ones, in a
	// file that does not show it, are an error.
	Decimal rune
	// Encoding is that of a file of text, as for [OpenLines].
	Encoding string
	// Zone is the time zone of timestamps without an offset, and that in which
	// others are shown. nil means UTC offset 0 without daylight saving time,
	// and others keep their offset.
	Zone *time.Location
	// DayFirst and MonthFirst decide how to read dates such as 03/04/2021 in a
	// column that is ambiguous.
	DayFirst, MonthFirst bool
	// Missing selects how to handle missing values and times.
	Missing Missing
	// Layout is one of the Layout constants.
	Layout string
	// Freq is the grid that the times must lie on, and the spacing assigned to
	// rows without times; the zero Freq means that it is inferred from the
	// times.
	Freq Freq
	// Note, if not nil, is called with a message about what was unusual in the
	// file, such as lines that are not UTF-8.
	Note func(string)
}

func (o *ReadOptions) note(text string) {
	if text != "" && o.Note != nil {
		o.Note(text)
	}
}

// Panel is the content of a file: one or more series with the same columns.
type Panel struct {
	Columns []string   // names of the numeric columns
	Series  []*Series  // in the order of first appearance in the file
	Freq    Freq       // spacing of the rows of every series; zero if there are no times and the options give none
	HasTime bool       // false: Series.Time is nil and rows are identified by number
	Decimal rune       // the decimal separator of the file's numbers if some have separators of thousands; 0 otherwise
	Text    Separators // how a file of text separates fields and decimals; zero for others
	Style   TimeStyle  // how the file writes the times; the zero TimeStyle without times
	Notes   []string   // what a user might not expect of the reading, a sentence each
	Hints   []string   // columns that the options do not name and that look like times or series, a sentence each
}

// Separators are what stands between the fields of a line and in a number.
type Separators struct {
	Field   rune // such as ';'
	Decimal rune // '.' or ','
}

// Series is one series of a Panel: consecutive rows on the panel's grid without
// gaps.
type Series struct {
	ID     string
	Time   []time.Time   // shape [row], ascending; nil if the panel has no times
	Count  []int64       // shape [row]: the numbers that a column of times without dates counts, in equal steps; nil otherwise
	Line   []int         // shape [row]: line in the file (row of a Parquet file), from 1; 0 for a row inserted into a gap
	Values [][]float64   // shape [column][row], in the file's units; NaN is missing, under Mask or in an open end
	Filled [][]bool      // shape [column][row]: values that Interpolate, or MarkFilled's caller, made; nil, or nil for a column, if there are none
	Static []StaticValue // in the order of ReadOptions.Static

	file  string // that it was read from; "" if it was made in memory
	byRow bool   // Line counts rows
}

// Len returns the number of rows.
func (s *Series) Len() int { return len(s.Line) }

// Fault returns the error for a value of the series, with the place in the file
// where it is: of a row, or of the series as a whole if row is negative. In layouts
// with a series on one line, the number of the value there is named.
func (s *Series) Fault(row int, column, problem, fix string) *InputError {
	e := &InputError{File: s.file, Column: column, Problem: problem, Fix: fix, rows: s.byRow}
	switch n := len(s.Line); {
	case row >= n || n == 0:
	case row < 0:
		e.Line = s.Line[0]
	case s.Line[row] == 0:
		e.Problem = fmt.Sprintf("row %d, which the file lacks: %s", row+1, problem)
	case n > 1 && s.Line[0] == s.Line[n-1]:
		e.Line, e.Problem = s.Line[row], fmt.Sprintf("value %d: %s", row+1, problem)
	default:
		e.Line = s.Line[row]
	}
	return e
}

// Made returns which values of a column Interpolate made, or nil if it made none.
func (s *Series) Made(column int) []bool {
	if s.Filled == nil {
		return nil
	}
	return s.Filled[column]
}

// Head returns the first n rows, which share the memory of s.
func (s *Series) Head(n int) *Series {
	h := *s
	h.Line, h.Values = s.Line[:n:n], make([][]float64, len(s.Values))
	if s.Time != nil {
		h.Time = s.Time[:n:n]
	}
	if s.Count != nil {
		h.Count = s.Count[:n:n]
	}
	if s.Filled != nil {
		h.Filled = make([][]bool, len(s.Filled))
	}
	for c, v := range s.Values {
		h.Values[c] = v[:n:n]
		if made := s.Made(c); made != nil {
			h.Filled[c] = made[:n:n]
		}
	}
	return &h
}

// StaticValue is the value of a static column for one series.
type StaticValue struct {
	Name    string
	Text    string  // as in the file
	Number  float64 // its value if Numeric
	Numeric bool    // whether every series' text in this column is a number
}

// Column returns the index of a name in Columns, or -1.
func (p *Panel) Column(name string) int {
	for i, c := range p.Columns {
		if c == name {
			return i
		}
	}
	return -1
}

// ReadPanel reads a file of series. It detects the format from the content: CSV
// with any delimiter, quoted or not, Parquet, or Monash .tsf, each plain or
// gzipped. CSV needs a header; a byte order mark and CRLF line ends are
// accepted.
//
// Times may be written as RFC 3339, as 2006-01-02 with or without a time of day
// to the nanosecond and an offset (which is kept, so that hours are those of
// local time), with slashes or dots, with months' English names, as 20060102
// and 200601021504, as months (2006-01, Jan 2006), quarters (2006Q1), ISO weeks
// (2006-W01, its Monday), years, decimal years (1949.25, moved to the first of
// the month where they are monthly or quarterly; any even division of the year,
// such as by 52, is a spacing), as day numbers of spreadsheets from 30000 to
// 60000 (with a note), or as seconds, milliseconds, microseconds or nanoseconds
// since 1970. Other whole numbers only number the rows, and the panel then has no
// times.
//
// Columns are named by their names or, where none has it as a name, by numbers
// from 1. A file of text whose columns are all given by number, and whose first
// line holds numbers where the values are, has no line of names. Panel.Columns has
// the names as the options give them.
//
// Every series must ascend in time, lie on one grid, and have no gaps unless
// Missing says how to fill them; see [Freq] for business days. Rows without times
// are counted, so that a blank line between them is a row of missing values.
// Every error is an [*InputError], but for ctx's own when it is cancelled.
func ReadPanel(ctx context.Context, path string, o *ReadOptions) (*Panel, error) {
	return readPanel(ctx, o, func() (*source, error) { return open(path) })
}

// ReadPanelFrom is [ReadPanel] for a stream, such as standard input, which
// messages call name.
func ReadPanelFrom(ctx context.Context, name string, in io.Reader, o *ReadOptions) (*Panel, error) {
	return readPanel(ctx, o, func() (*source, error) { return openStream(name, in, true) })
}

func readPanel(ctx context.Context, o *ReadOptions, open func() (*source, error)) (*Panel, error) {
	if o == nil {
		o = &ReadOptions{}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	src, err := open()
	if err != nil {
		return nil, err
	}
	defer src.close()
	src.under(ctx)
	p, err := src.panel(o)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return p, err
}

// panel reads the whole of an open input.
func (s *source) panel(o *ReadOptions) (*Panel, error) {
	if s.kind == kindParquet {
		if o.Layout != LayoutLong && o.Layout != LayoutColumns {
			return nil, &InputError{File: s.name, Problem: "is a Parquet file, which cannot have the layout " + o.Layout, Fix: "leave the layout out"}
		}
		t, err := readParquet(s, o)
		if err != nil {
			return nil, err
		}
		return t.panel(o)
	}
	in := s.lines(o.Encoding)
	p, err := s.series(in, o)
	if err == nil {
		o.note(in.Note())
	}
	return p, err
}

// series reads the series of lines.
func (s *source) series(in *LineReader, o *ReadOptions) (*Panel, error) {
	switch {
	case o.Layout == LayoutTSF || s.kind == kindTSF && o.Layout == LayoutLong:
		return readTSF(in, o)
	case o.Layout == LayoutRows:
		return readRows(in, o)
	}
	t, err := readCSV(in, o)
	if err != nil {
		return nil, err
	}
	return t.panel(o)
}

// check returns an error for options that are wrong for any file.
func (o *ReadOptions) check() error {
	switch o.Layout {
	case LayoutLong, LayoutColumns, LayoutRows, LayoutTSF:
	default:
		return Errorf("layout: want columns, rows or tsf, or none, got %s", quoted(o.Layout))
	}
	switch {
	case o.Layout == LayoutColumns && o.ID != "":
		return Errorf("layout: with layout columns there is no column of ids, got %s", quoted(o.ID))
	case o.Layout != LayoutColumns && len(o.Shared) > 0:
		return Errorf("layout: columns shared by all series, such as %s, need the layout columns", quoted(o.Shared[0]))
	case o.Decimal != 0 && o.Decimal != '.' && o.Decimal != ',':
		return Errorf("decimal: want a point or a comma, got %q", o.Decimal)
	case o.DayFirst && o.MonthFirst:
		return Errorf("dates: day first and month first exclude each other")
	case o.Missing < MissingError || o.Missing > Mask:
		return Errorf("missing: there is no %v", o.Missing)
	case o.Freq != (Freq{}) && (o.Freq.Unit == NoUnit || o.Freq.Unit > YearPart || o.Freq.N <= 0):
		return Errorf("frequency: %d units of kind %d is not a frequency", o.Freq.N, o.Freq.Unit)
	}
	return checkEncoding(o.Encoding)
}

// Header returns the names of a file's columns, as ReadPanel knows them: of a
// .tsf file, its attributes and ValueColumn. A delimiter of 0 is detected.
// Every error, such as a file that cannot be read or is empty, is an
// [*InputError].
func Header(path string, delimiter rune) (columns []string, err error) {
	src, err := open(path)
	if err != nil {
		return nil, err
	}
	defer src.close()
	switch src.kind {
	case kindParquet:
		defer guardParquet(path, &err)
		p, err := openParquet(src)
		if err != nil {
			return nil, err
		}
		return p.names, nil
	case kindTSF:
		f, err := openTSF(src.lines(EncodingAuto))
		if err != nil {
			return nil, err
		}
		return append(f.attributes, ValueColumn), nil
	}
	r, err := openRows(src.lines(EncodingAuto), delimiter)
	if err != nil {
		return nil, err
	}
	return r.columns, nil
}
