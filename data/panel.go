// Package data reads time series from files: CSV and its kin, Parquet, and the
// Monash .tsf format. It turns them into a Panel: named numeric columns of one
// or many series, on a regular grid of times.
//
// A reader never passes over a fault in silence. A column that does not exist,
// text among numbers, a duplicate, unsorted or missing time, an infinite
// number: each is an *InputError that names the file, the line and the column
// and says how to mend it.
package data

import (
	"fmt"
	"strings"
	"time"
)

// Missing says what to do about missing values, which are empty cells and NA,
// N/A, NaN, NaT, null, none and "?" in any case, and about times that are
// missing from a regular grid.
type Missing int

const (
	MissingError Missing = iota // report the first one as an InputError
	Interpolate                 // fill by straight lines in time, holding the ends
	Mask                        // keep as NaN
)

var missingNames = []string{"error", "interpolate", "mask"}

// String gives the name that ParseMissing reads.
func (m Missing) String() string {
	if m < 0 || int(m) >= len(missingNames) {
		return fmt.Sprintf("Missing(%d)", int(m))
	}
	return missingNames[m]
}

// ParseMissing reads "error", "interpolate" or "mask"; "" is error.
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
	// LayoutLong is one row a time, or with an ID column one row a time and
	// series. Values are the columns of every series.
	LayoutLong = ""
	// LayoutColumns is one row a time, and each of Values a series of its own.
	LayoutColumns = "columns"
	// LayoutRows is one series a row: its id, then its values from the oldest
	// on, rows of different lengths padded with empty cells or not at all. The
	// files of the M4 competition are so.
	LayoutRows = "rows"
	// LayoutTSF is the Monash forecasting repository's format, assumed for
	// files whose name or content says so.
	LayoutTSF = "tsf"
)

// ValueColumn is the name of the only column of a Panel whose file names none:
// LayoutColumns, LayoutRows and LayoutTSF.
const ValueColumn = "value"

// ReadOptions says which columns of a file mean what. Every column named must
// exist. The zero value reads all columns as numbers, rows numbered instead of
// timed.
type ReadOptions struct {
	// Time is the column of times; "" when the rows have none and just follow
	// each other. See ReadPanel for the formats.
	Time string
	// ID is the column that tells series apart, for LayoutLong.
	ID string
	// Values are the numeric columns wanted, in the order of Panel.Columns;
	// nil means all that have no other part to play. For LayoutColumns each is
	// a series; for LayoutRows and LayoutTSF leave it empty or say ValueColumn.
	Values []string
	// Shared are, for LayoutColumns only, numeric columns that belong to every
	// series, such as temperature; they follow ValueColumn in Panel.Columns.
	Shared []string
	// OpenEnded are those of Values that may be missing at the end of a
	// series whatever Missing says, and stay NaN there: a target in rows that
	// hold only what is known ahead.
	OpenEnded []string
	// Static are columns that hold one value a series. For LayoutTSF they are
	// attributes, and nil means all of them.
	Static []string
	// Delimiter separates fields; 0 means that the file tells.
	Delimiter rune
	// Zone is where times without an offset were read off the wall; nil means
	// that their clock never changes. Times with an offset are shown in it.
	Zone *time.Location
	// DayFirst and MonthFirst settle what 03/04/2021 means in a column that
	// has no value to tell by.
	DayFirst, MonthFirst bool
	// Missing says what becomes of missing values and times.
	Missing Missing
	// Layout is one of the Layout constants.
	Layout string
	// Freq is the grid that the times must lie on, and that rows without times
	// are said to have; the zero Freq means that the times tell.
	Freq Freq
}

// Panel is the content of a file: one or more series with the same columns.
type Panel struct {
	Columns []string  // names of the numeric columns
	Series  []*Series // in the order in which the file first names them
	Freq    Freq      // spacing of the rows of every series; zero if there are no times and none was told
	HasTime bool      // false: Series.Time is nil and rows are known by number
}

// Series is one series of a Panel: rows that follow each other on the panel's
// grid without a gap.
type Series struct {
	ID     string
	Time   []time.Time   // [row], ascending; nil if the panel has no times
	Line   []int         // [row] line in the file (row of a Parquet file); 0 for a row filled into a gap
	Values [][]float64   // [column][row]; NaN is missing, under Mask or in an open end
	Static []StaticValue // in the order of ReadOptions.Static
}

// Len is the number of rows.
func (s *Series) Len() int { return len(s.Line) }

// StaticValue is what a static column says of a series.
type StaticValue struct {
	Name    string
	Text    string  // as in the file
	Number  float64 // its value if Numeric
	Numeric bool    // every series' text in this column is a number
}

// Column gives the place of a name in Columns, or -1.
func (p *Panel) Column(name string) int {
	for i, c := range p.Columns {
		if c == name {
			return i
		}
	}
	return -1
}

// ReadPanel reads a file of series. What the file is, its content tells: CSV
// with any delimiter, quoted or not, Parquet, or Monash .tsf, each plain or in
// gzip. CSV needs a first line of column names; a byte order mark and CRLF
// line ends may be there.
//
// Times may be written as RFC 3339, as 2006-01-02 with or without a time of
// day to the nanosecond and an offset (which is kept, so that hours are those
// of the clock on the wall), with slashes or dots, with months' English names,
// as 20060102 and 200601021504, as months (2006-01, Jan 2006), quarters
// (2006Q1), ISO weeks (2006-W01, its Monday), years, decimal years (1949.25,
// put on the first of the month where they are monthly or quarterly), or as
// seconds, milliseconds, microseconds or nanoseconds since 1970. Smaller
// whole numbers just number the rows, and the panel then has no times.
//
// Every series must ascend in time, lie on one grid, and have no gaps unless
// Missing says how to fill them; Freq has the particulars of business days.
// All faults are *InputError.
func ReadPanel(path string, o *ReadOptions) (*Panel, error) {
	if o == nil {
		o = &ReadOptions{}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	src, err := open(path)
	if err != nil {
		return nil, err
	}
	defer src.close()
	return src.read(path, o)
}

// read reads the whole of an open file.
func (s *source) read(path string, o *ReadOptions) (*Panel, error) {
	var t *table
	var err error
	switch {
	case s.kind == kindParquet && o.Layout != LayoutLong && o.Layout != LayoutColumns:
		return nil, &InputError{File: path, Problem: "is a Parquet file, which cannot have the layout " + o.Layout, Fix: "leave the layout out"}
	case s.kind == kindParquet:
		t, err = readParquet(path, s, o)
	case o.Layout == LayoutTSF || s.kind == kindTSF && o.Layout == LayoutLong:
		return readTSF(path, s.text, o)
	case o.Layout == LayoutRows:
		return readRows(path, s.text, o)
	default:
		t, err = readCSV(path, s.text, o)
	}
	if err != nil {
		return nil, err
	}
	return t.panel(o)
}

// check finds what cannot be right whatever the file.
func (o *ReadOptions) check() error {
	switch o.Layout {
	case LayoutLong, LayoutColumns, LayoutRows, LayoutTSF:
	default:
		return Errorf("layout: want columns, rows or tsf, or none, got %s", quoted(o.Layout))
	}
	switch {
	case o.Layout == LayoutColumns && o.ID != "":
		return Errorf("layout: where each column is a series there is no column of ids, got %s", quoted(o.ID))
	case o.Layout != LayoutColumns && len(o.Shared) > 0:
		return Errorf("layout: columns shared by all series, such as %s, need the layout columns", quoted(o.Shared[0]))
	case o.DayFirst && o.MonthFirst:
		return Errorf("dates: the day cannot be first and the month too")
	case o.Missing < MissingError || o.Missing > Mask:
		return Errorf("missing: there is no %v", o.Missing)
	case o.Freq != (Freq{}) && (o.Freq.Unit == NoUnit || o.Freq.Unit > MonthEnd || o.Freq.N <= 0):
		return Errorf("frequency: %d units of kind %d are none", o.Freq.N, o.Freq.Unit)
	}
	return nil
}

// Header gives the names of a file's columns, as ReadPanel knows them: of a
// .tsf file, its attributes and ValueColumn. A delimiter of 0 is sniffed.
func Header(path string, delimiter rune) (columns []string, err error) {
	src, err := open(path)
	if err != nil {
		return nil, err
	}
	defer src.close()
	switch src.kind {
	case kindParquet:
		defer guardParquet(path, &err)
		p, err := openParquet(path, src)
		if err != nil {
			return nil, err
		}
		return p.names, nil
	case kindTSF:
		f, err := openTSF(path, src.text)
		if err != nil {
			return nil, err
		}
		return append(f.attributes, ValueColumn), nil
	}
	r, err := openRows(path, src.text, delimiter)
	if err != nil {
		return nil, err
	}
	return r.columns, nil
}
