package data

import (
	"fmt"
	"math"
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

// cellFault says why a cell is not a number.
type cellFault struct{ problem, fix string }

// numbers parses the cells of a file, which share one decimal separator.
//
// A decimal comma is accepted only where semicolons separate the fields, as
// spreadsheets write in countries that use it, and where no number has a point.
type numbers struct {
	semicolons   bool
	point, comma bool // seen as the decimal separator, if semicolons
}

// parse parses a cell; NaN is a missing one. true and false are 1 and 0.
func (n *numbers) parse(s string) (float64, *cellFault) {
	s = strings.TrimSpace(s)
	if isMissing(s) {
		return math.NaN(), nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err == nil && isNumber(s) {
		if n.semicolons && strings.IndexByte(s, '.') >= 0 {
			if n.comma {
				return 0, &cellFault{quoted(s) + " has a decimal point where other numbers have a comma", "write all with a point"}
			}
			n.point = true
		}
		return v, nil
	}
	return n.unusual(s, v)
}

// unusual parses what is not a plain number.
func (n *numbers) unusual(s string, v float64) (float64, *cellFault) {
	switch lower := strings.ToLower(s); {
	case lower == "true":
		return 1, nil
	case lower == "false":
		return 0, nil
	case math.IsInf(v, 0):
		return 0, &cellFault{quoted(s) + " is infinite, a finite number is needed", "correct the cell or leave it empty"}
	case strings.Count(s, ",") == 1:
		swapped := strings.Replace(s, ",", ".", 1)
		f, err := strconv.ParseFloat(swapped, 64)
		if err != nil || !isNumber(swapped) {
			break
		}
		if n.semicolons && !n.point {
			n.comma = true
			return f, nil
		}
		return 0, &cellFault{quoted(s) + " is not a number", "write a decimal point, and no separator of thousands"}
	case strings.IndexByte(s, ',') >= 0:
		return 0, &cellFault{quoted(s) + " is not a number", "leave out the separators of thousands"}
	}
	return 0, &cellFault{quoted(s) + " is not a number", "correct the cell or leave it empty"}
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
	names          []string // of values
	unasked        bool     // values are all remaining columns, because none was named
}

// selectColumns finds the columns that the options name.
func selectColumns(file string, columns []string, o *ReadOptions) (*selection, error) {
	var fault error
	find := func(name string) int {
		at := -1
		for i, c := range columns {
			if c != name {
				continue
			}
			if at >= 0 && fault == nil {
				fault = &InputError{File: file, Problem: fmt.Sprintf("columns %d and %d are both called %s", at+1, i+1, quoted(name)), Fix: "rename one"}
			}
			at = i
		}
		if at < 0 && fault == nil {
			fault = unknownColumn(file, name, columns)
		}
		return at
	}
	s := &selection{time: -1, id: -1}
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
		at := find(name)
		claim(at, "a value")
		s.values = append(s.values, at)
	}
	if fault != nil {
		return nil, fault
	}
	if len(o.Values) == 0 {
		s.unasked = true
		var rest []int
		for i := range columns {
			if part[i] == "" {
				rest = append(rest, i)
			}
		}
		s.values = append(rest, s.values...)
	}
	if len(s.values) == 0 {
		return nil, &InputError{File: file, Problem: "has no column of values", Fix: "its columns are " + list(columns)}
	}
	for _, at := range s.values {
		s.names = append(s.names, columns[at])
	}
	return s, nil
}

// table holds the selected columns of a file.
type table struct {
	file   string
	byRow  bool // line counts rows
	names  []string
	shared int // the number of columns at the end of names that all series share
	line   []int
	times  *texts  // times as text, or
	stamps []stamp // as the file types them; both nil if there are none
	id     []int32 // [row] index into ids; nil is one series
	ids    []string
	values [][]float64 // [column][row]
	static []*texts
	index  map[string]int32 // ids' inverse
}

func newTable(file string, s *selection, o *ReadOptions) *table {
	t := &table{file: file, names: s.names, shared: len(o.Shared), values: make([][]float64, len(s.values))}
	for range s.static {
		t.static = append(t.static, &texts{})
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
		if isMissing(s) {
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
}

// fault is an error at a row, or at the file as a whole if row is negative.
func (t *table) fault(row int, column, problem, fix string) *InputError {
	e := &InputError{File: t.file, Column: column, Problem: problem, Fix: fix, rows: t.byRow}
	if row >= 0 {
		e.Line = t.line[row]
	}
	return e
}
