package data

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// texts is a column of strings in one block of memory.
type texts struct {
	buf  []byte
	ends []int
	all  string // buf once the column is complete
}

func (t *texts) add(s string) {
	t.buf = append(t.buf, s...)
	t.ends = append(t.ends, len(t.buf))
}

// seal completes the column.
func (t *texts) seal() { t.all, t.buf = string(t.buf), nil }

func (t *texts) len() int { return len(t.ends) }

func (t *texts) at(i int) string {
	if i == 0 {
		return t.all[:t.ends[0]]
	}
	return t.all[t.ends[i-1]:t.ends[i]]
}

// isMissing reports whether a cell denotes a missing value.
func isMissing(s string) bool {
	switch len(s) {
	case 0:
		return true
	case 1:
		return s == "?"
	case 2, 3, 4:
		switch strings.ToLower(s) {
		case "na", "n/a", "nan", "nat", "null", "none", "<na>":
			return true
		}
	}
	return false
}

// allData reports whether a header's names look like values, so that the file
// probably has no header.
func allData(names []string) bool {
	for _, s := range names {
		if !isNumber(s) && !(len(s) > 0 && s[0]-'0' < 10 && strings.IndexAny(s, "-/:.") > 0) {
			return false
		}
	}
	return true
}

// selection maps the columns of a file to their roles. -1 is none.
type selection struct {
	time, id       int
	values, static []int
	spare          []int    // no role; none if there is a column of times
	names          []string // of values
	lacking        []string // of ReadOptions.Sparse: values that the file has no column for
	unasked        bool     // values are all remaining columns, because none was named
	headless       bool     // the first line holds values
	columns        []string // the names of all columns
}

// selectColumns finds the columns that the options name, by name or by number
// from 1. If all are numbers and, in a file of text, the first line has numbers
// where the values are, it is not a line of names.
func selectColumns(file string, header []string, o *ReadOptions, text bool) (*selection, error) {
	var fault error
	columns, headless := columnNames(header), false
	if text {
		var err error
		if headless, err = o.headless(file, header); err != nil {
			return nil, err
		}
	}
	if headless {
		columns = columnNames(make([]string, len(header)))
	}
	find := func(name string) int {
		at := -1
		for i, c := range columns {
			if c != name {
				continue
			}
			if at >= 0 && fault == nil {
				fault = &InputError{File: file, Problem: fmt.Sprintf("columns %d and %d are both called %s", at+1, i+1, quoted(name)), Fix: "rename one, or give its number"}
			}
			at = i
		}
		if at < 0 {
			at = columnNumber(name, len(columns))
		}
		if at < 0 && fault == nil {
			fault = unknownColumn(file, name, columns)
		}
		return at
	}
	s := &selection{time: -1, id: -1, headless: headless, columns: columns}
	part := map[int]string{}
	claim := func(at int, as string) {
		if at >= 0 && part[at] != "" && fault == nil {
			fault = &InputError{File: file, Column: columns[at], Problem: fmt.Sprintf("is named twice, as %s and as %s", part[at], as), Fix: "name it once"}
		}
		part[at] = as
	}
	if o.Time != "" {
		s.time = find(o.Time)
		claim(s.time, "the time")
	}
	if o.ID != "" {
		s.id = find(o.ID)
		claim(s.id, "the series' id")
	}
	for _, name := range o.Static {
		at := find(name)
		if at < 0 || at != s.id { // an id may also be a property
			claim(at, "a static column")
		}
		s.static = append(s.static, at)
	}
	for _, name := range append(o.Values[:len(o.Values):len(o.Values)], o.Shared...) {
		if slices.Contains(o.Sparse, name) && !slices.Contains(columns, name) && columnNumber(name, len(columns)) < 0 {
			s.lacking = append(s.lacking, name)
			continue
		}
		at := find(name)
		claim(at, "a value")
		s.values, s.names = append(s.values, at), append(s.names, name)
	}
	if fault != nil {
		return nil, fault
	}
	if len(o.Values) == 0 {
		s.unasked = true
		var rest []int
		var names []string
		for i := range columns {
			if part[i] != "" {
				continue
			}
			rest, names = append(rest, i), append(names, columns[i])
		}
		s.values, s.names = append(rest, s.values...), append(names, s.names...)
	}
	if len(o.Values) > 0 && o.Time == "" {
		for i := range columns {
			if part[i] == "" {
				s.spare = append(s.spare, i)
			}
		}
	}
	if len(s.values) == 0 {
		return nil, &InputError{File: file, Problem: "has no column of values", Fix: "its columns are " + list(columns)}
	}
	return s, nil
}

// columnNumber returns the index of a column given by its number from 1, or -1.
func columnNumber(name string, columns int) int {
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= columns {
		return n - 1
	}
	return -1
}

// headless reports whether the first line of a file holds values: all columns are
// given by number, and the cells of the values are numbers or missing. A line that
// may be either, such as 1, 2, 3, is an error.
func (o *ReadOptions) headless(file string, line []string) (bool, error) {
	taken, values := map[int]bool{}, []int{}
	for _, name := range slices.Concat([]string{o.Time, o.ID}, o.Static, o.Values, o.Shared) {
		if name == "" {
			continue
		}
		at := columnNumber(name, len(line))
		if at < 0 {
			return false, nil
		}
		taken[at] = true
		if slices.Contains(o.Values, name) || slices.Contains(o.Shared, name) {
			values = append(values, at)
		}
	}
	if len(taken) == 0 {
		return false, nil
	}
	for at := range line {
		if len(o.Values) == 0 && !taken[at] {
			values = append(values, at)
		}
	}
	for _, at := range values {
		if f, _ := formOf(line[at]); f == noNumber && !isMissing(line[at]) {
			return false, nil
		}
	}
	zero, one := true, len(line) > 1
	for i, cell := range line {
		zero, one = zero && cell == strconv.Itoa(i), one && cell == strconv.Itoa(i+1)
	}
	if zero || one {
		return false, &InputError{File: file, Problem: fmt.Sprintf("its first line, %s, may be the names of columns or values", list(line)), Fix: "add a line of other names above it"}
	}
	return true, nil
}

// table holds the selected columns of a file.
type table struct {
	file   string
	byRow  bool // line counts rows
	names  []string
	lack   []string // selection.lacking
	shared int      // the number of columns at the end of names that all series share
	line   []int
	times  *texts  // times as text, or
	stamps []stamp // as the file types them; both nil if there are none
	id     []int32 // [row] index into ids; nil is one series
	ids    []string
	values [][]float64 // [column][row]
	static []*texts
	spare  []*spareColumn
	index  map[string]int32 // ids' inverse

	numbers *numbers
	field   rune // what separates the fields of a file of text; 0 for others
}

func (t *table) separators() Separators {
	if t.field == 0 {
		return Separators{}
	}
	return Separators{t.field, rune(t.numbers.fixed().decimal)}
}

func newTable(file string, s *selection, o *ReadOptions) *table {
	t := &table{file: file, names: s.names, lack: s.lacking, shared: len(o.Shared), values: make([][]float64, len(s.values)), numbers: &numbers{}}
	for range s.static {
		t.static = append(t.static, &texts{})
	}
	for _, at := range s.spare {
		t.spare = append(t.spare, &spareColumn{name: s.columns[at]})
	}
	if s.id >= 0 {
		t.id, t.index = []int32{}, map[string]int32{}
	}
	return t
}

// addID appends the next row's series; ok is false if the cell is empty.
func (t *table) addID(s string) (ok bool) {
	at, known := t.index[s]
	if !known {
		if s == "" {
			return false
		}
		s = strings.Clone(s) // s may share the memory of its whole row
		at = int32(len(t.ids))
		t.ids = append(t.ids, s)
		t.index[s] = at
	}
	t.id = append(t.id, at)
	return true
}

// seal completes the columns.
func (t *table) seal() {
	if t.times != nil {
		t.times.seal()
	}
	for _, s := range t.static {
		s.seal()
	}
	for _, s := range t.spare {
		s.seal()
	}
}

// fault is an error at a row, or at the file as a whole if row is negative.
func (t *table) fault(row int, column, problem, fix string) *InputError {
	e := &InputError{File: t.file, Column: column, Problem: problem, Fix: fix, rows: t.byRow}
	if row >= 0 {
		e.Line = t.line[row]
	}
	return e
}
