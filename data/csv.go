package data

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// delimiters are what may separate fields, in order of preference.
var delimiters = []rune{',', ';', '\t', '|', ' '}

// sniff detects the delimiter from the beginning of a file: the one that splits
// the first lines into equal numbers of fields, and the most of them; a comma
// if none does.
func sniff(head []byte, complete bool) rune {
	if !complete {
		if end := bytes.LastIndexByte(head, '\n'); end > 0 {
			head = head[:end]
		}
	}
	best, most := ',', 1
	for _, d := range delimiters {
		if d == ' ' && most > 1 {
			break // times and names have spaces in them
		}
		if n := equalFields(head, d); n > most {
			best, most = d, n
		}
	}
	if most > 1 {
		return best
	}
	// Ragged: only the header decides, so that the message can name the faulty
	// line.
	first, _, _ := bytes.Cut(head, []byte("\n"))
	for _, d := range delimiters {
		if d == ' ' {
			break
		}
		if n := bytes.Count(first, []byte(string(d))); n+1 > most {
			best, most = d, n+1
		}
	}
	return best
}

// equalFields returns the number of fields of the first records when d
// separates them, 0 if they differ.
func equalFields(head []byte, d rune) int {
	const enough = 50
	r := newCSV(bytes.NewReader(head), d)
	r.ReuseRecord = true
	fields := 0
	for range enough {
		record, err := r.Read()
		if err != nil {
			if err == io.EOF {
				break
			}
			return 0
		}
		if fields != 0 && len(record) != fields {
			return 0
		}
		fields = len(record)
	}
	return fields
}

func newCSV(r io.Reader, delimiter rune) *csv.Reader {
	c := csv.NewReader(r)
	c.Comma = delimiter
	c.FieldsPerRecord = -1
	c.TrimLeadingSpace = delimiter != '\t' && delimiter != ' '
	return c
}

// rows reads a delimited text file record by record.
type rows struct {
	file    string
	csv     *csv.Reader
	columns []string
	numbers numbers
}

// openRows reads the header. Columns without a name are called column1, column2
// and so on by position.
func openRows(file string, in *bufio.Reader, delimiter rune) (*rows, error) {
	if delimiter == 0 {
		head, err := in.Peek(sniffed)
		delimiter = sniff(head, err != nil)
	} else if !validDelimiter(delimiter) {
		return nil, Errorf("delimiter: %q cannot separate fields", delimiter)
	}
	r := &rows{file: file, csv: newCSV(in, delimiter), numbers: numbers{semicolons: delimiter == ';'}}
	header, err := r.csv.Read()
	if err == io.EOF {
		return nil, &InputError{File: file, Problem: "is empty", Fix: "a line of column names and rows of values are needed"}
	}
	if err != nil {
		return nil, r.broken(err)
	}
	for i, name := range header {
		name = strings.TrimSpace(name)
		if name == "" {
			name = "column" + strconv.Itoa(i+1)
		}
		r.columns = append(r.columns, name)
	}
	r.csv.ReuseRecord = true
	return r, nil
}

func validDelimiter(d rune) bool {
	return d != '"' && d != '\r' && d != '\n' && d != 0xFFFD && d > 0 && d <= 0x10FFFF && (d < 0xD800 || d > 0xDFFF)
}

// next returns the next record, valid until the following call, and its line;
// io.EOF ends the records.
func (r *rows) next() (record []string, line int, err error) {
	record, err = r.csv.Read()
	if err == io.EOF {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, r.broken(err)
	}
	line, _ = r.csv.FieldPos(0)
	return record, line, nil
}

// broken turns an error of the CSV syntax or of reading into an InputError.
func (r *rows) broken(err error) error {
	var syntax *csv.ParseError
	if errors.As(err, &syntax) {
		return &InputError{File: r.file, Line: syntax.StartLine, Problem: fmt.Sprintf("a quote is out of place: %v", syntax.Err), Fix: `quote whole fields, and double the quotes inside them`}
	}
	var input *InputError
	if errors.As(err, &input) {
		return input // of the reader below, such as a line that is no text
	}
	return unreadable(r.file, err)
}

// readCSV reads LayoutLong and LayoutColumns.
func readCSV(file string, in *bufio.Reader, o *ReadOptions) (*table, error) {
	r, err := openRows(file, in, o.Delimiter)
	if err != nil {
		return nil, err
	}
	s, err := selectColumns(file, r.columns, o)
	if err != nil {
		return nil, err
	}
	t := newTable(file, s, o)
	if s.time >= 0 {
		t.times = &texts{}
	}
	for {
		record, line, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := t.addRecord(r, s, record, line); err != nil {
			return nil, err
		}
	}
	t.seal()
	return t, nil
}

// addRecord appends one row of text.
func (t *table) addRecord(r *rows, s *selection, record []string, line int) error {
	if len(record) != len(r.columns) {
		return &InputError{File: r.file, Line: line, Problem: fmt.Sprintf("has %s, the header has %d", count(len(record), "field"), len(r.columns)),
			Fix: "give every line as many fields as the header"}
	}
	t.line = append(t.line, line)
	if s.time >= 0 {
		t.times.add(strings.TrimSpace(record[s.time]))
	}
	if s.id >= 0 && !t.addID(strings.TrimSpace(record[s.id])) {
		return &InputError{File: r.file, Line: line, Column: r.columns[s.id], Problem: "the series' id is missing", Fix: "every row needs one"}
	}
	for i, at := range s.static {
		t.static[i].add(strings.TrimSpace(record[at]))
	}
	for i, at := range s.values {
		v, fault := r.numbers.parse(record[at])
		if fault != nil {
			if s.unasked {
				fault.fix += ", or name the columns wanted"
			}
			return &InputError{File: r.file, Line: line, Column: r.columns[at], Problem: fault.problem, Fix: fault.fix}
		}
		t.values[i] = append(t.values[i], v)
	}
	return nil
}

// readRows reads LayoutRows. A first line whose second field is not a number is
// a header.
func readRows(file string, in *bufio.Reader, o *ReadOptions) (*Panel, error) {
	if err := bareLayout(file, o); err != nil {
		return nil, err
	}
	r, err := openRows(file, in, o.Delimiter)
	if err != nil {
		return nil, err
	}
	if o.ID != "" && o.ID != r.columns[0] {
		return nil, &InputError{File: file, Column: o.ID, Problem: "is not the first column, where layout rows has the id", Fix: "the first is " + r.columns[0]}
	}
	p := &Panel{Columns: []string{ValueColumn}, Freq: o.Freq}
	seen := map[string]int{}
	record, line := r.columns, 1
	if len(record) < 2 || !isNumber(record[1]) {
		record = nil // a header
	}
	for {
		if record != nil {
			s, err := r.series(record, line, o)
			if err != nil {
				return nil, err
			}
			if seen[s.ID] != 0 {
				return nil, &InputError{File: file, Line: line, Problem: fmt.Sprintf("series %s appears already in line %d", quoted(s.ID), seen[s.ID]), Fix: "give one row per series"}
			}
			seen[s.ID] = line
			p.Series = append(p.Series, s)
		}
		record, line, err = r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return p, p.settle(file, false, o)
}

// bareLayout returns an error for options that need columns which a layout of
// values alone lacks.
func bareLayout(file string, o *ReadOptions) error {
	for _, name := range append(o.Values[:len(o.Values):len(o.Values)], o.Shared...) {
		if name != ValueColumn {
			return unknownColumn(file, name, []string{ValueColumn})
		}
	}
	if o.Time != "" {
		return &InputError{File: file, Column: o.Time, Problem: fmt.Sprintf("a file of layout %s has no column of times", o.Layout), Fix: "leave it out"}
	}
	if len(o.Static) > 0 && o.Layout == LayoutRows {
		return &InputError{File: file, Column: o.Static[0], Problem: "a file of layout rows has no static columns", Fix: "leave it out"}
	}
	return nil
}

// series reads one row of LayoutRows.
func (r *rows) series(record []string, line int, o *ReadOptions) (*Series, error) {
	id := strings.TrimSpace(record[0])
	if isMissing(id) {
		return nil, &InputError{File: r.file, Line: line, Problem: "the series' id, the first field, is missing", Fix: "every row needs one"}
	}
	last := len(record)
	for last > 1 && isMissing(strings.TrimSpace(record[last-1])) {
		last--
	}
	values := make([]float64, last-1)
	lines := make([]int, last-1)
	for i, cell := range record[1:last] {
		v, fault := r.numbers.parse(cell)
		if fault == nil && math.IsNaN(v) && o.Missing == MissingError {
			fault = &cellFault{missingValue, missingFix}
		}
		if fault != nil {
			return nil, &InputError{File: r.file, Line: line, Column: r.name(i + 1), Problem: fault.problem, Fix: fault.fix}
		}
		values[i], lines[i] = v, line
	}
	return &Series{ID: strings.Clone(id), Values: [][]float64{values}, Line: lines}, nil
}

// name returns a column's name, or its number if the header is shorter.
func (r *rows) name(i int) string {
	if i < len(r.columns) {
		return r.columns[i]
	}
	return "column" + strconv.Itoa(i+1)
}

// count formats a number of things: "1 row", "2 rows".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
