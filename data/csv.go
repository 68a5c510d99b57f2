package data

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
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
	header  []string // as it is in the file
	columns []string
	head    int // line of the header
	before  int // lines before those that csv reads
	numbers *numbers

	blanks bool     // a blank line between two records is a record of empty cells
	held   []string // the record after blank lines
	line   int      // of held
	last   int      // line in which the last record ended; only with blanks
}

// openRows reads the header. Columns without a name are called column1, column2
// and so on by position. A delimiter of 0 is detected.
func openRows(in *LineReader, delimiter rune) (*rows, error) {
	named, err := separatorLine(in)
	if err != nil {
		return nil, err
	}
	if delimiter == 0 {
		delimiter = named
	}
	if delimiter == 0 {
		delimiter = sniff(in.head())
	} else if !validDelimiter(delimiter) {
		return nil, Errorf("delimiter: %q cannot separate fields", delimiter)
	}
	r := &rows{file: in.File, csv: newCSV(in, delimiter), before: in.Line, numbers: &numbers{semicolons: delimiter == ';'}}
	header, err := r.csv.Read()
	if err == io.EOF {
		return nil, &InputError{File: in.File, Problem: "is empty", Fix: "a line of column names and rows of values are needed"}
	}
	if err != nil {
		return nil, r.broken(err)
	}
	r.header, r.columns = header, columnNames(header)
	r.head, r.last = r.position(header)
	r.csv.ReuseRecord = true
	return r, nil
}

// columnNames returns the names of columns, column1 and so on where there is
// none.
func columnNames(header []string) []string {
	names := make([]string, len(header))
	for i, name := range header {
		if names[i] = strings.TrimSpace(name); names[i] == "" {
			names[i] = "column" + strconv.Itoa(i+1)
		}
	}
	return names
}

// separatorLine reads the first line of a table if it is sep=; or like that, by
// which Excel is told the separator; 0 if it is not.
func separatorLine(in *LineReader) (rune, error) {
	head, _ := in.head()
	line, _, _ := bytes.Cut(head, []byte("\n"))
	line = bytes.Trim(bytes.TrimSuffix(line, []byte("\r")), `"`)
	if len(line) < len("sep=") || !strings.EqualFold(string(line[:len("sep=")]), "sep=") {
		return 0, nil
	}
	mark, n := utf8.DecodeRune(line[len("sep="):])
	if n == 0 || len(line) != len("sep=")+n || !validDelimiter(mark) {
		return 0, nil
	}
	_, err := in.Next()
	return mark, err
}

func validDelimiter(d rune) bool {
	return d != '"' && d != '\r' && d != '\n' && d != 0xFFFD && d > 0 && d <= 0x10FFFF && (d < 0xD800 || d > 0xDFFF)
}

// next returns the next record, valid until the following call, and its line;
// io.EOF ends the records. The fields of a blank line are nil.
func (r *rows) next() (record []string, line int, err error) {
	if r.held == nil {
		record, err := r.csv.Read()
		if err == io.EOF {
			return nil, 0, err
		}
		if err != nil {
			return nil, 0, r.broken(err)
		}
		r.held = record
		r.line, _ = r.csv.FieldPos(0)
		r.line += r.before
	}
	if r.blanks {
		if r.last++; r.last < r.line {
			return nil, r.last, nil
		}
		_, r.last = r.position(r.held)
	}
	record, r.held = r.held, nil
	return record, r.line, nil
}

// position returns the lines in which the record that was read last begins and
// ends.
func (r *rows) position(record []string) (first, last int) {
	first, _ = r.csv.FieldPos(0)
	last, _ = r.csv.FieldPos(len(record) - 1)
	return first + r.before, last + r.before + strings.Count(record[len(record)-1], "\n")
}

// broken turns an error of the CSV syntax or of reading into an InputError.
func (r *rows) broken(err error) error {
	var syntax *csv.ParseError
	if errors.As(err, &syntax) {
		return &InputError{File: r.file, Line: syntax.StartLine + r.before, Problem: fmt.Sprintf("a quote is out of place: %v", syntax.Err), Fix: `quote whole fields, and double the quotes inside them`}
	}
	var input *InputError
	if errors.As(err, &input) {
		return input // of the reader below, such as a line that is no text
	}
	return unreadable(r.file, err)
}

// readCSV reads LayoutLong and LayoutColumns.
func readCSV(in *LineReader, o *ReadOptions) (*table, error) {
	r, err := openRows(in, o.Delimiter)
	if err != nil {
		return nil, err
	}
	s, err := selectColumns(in.File, r.header, o, true)
	if err != nil {
		return nil, err
	}
	r.columns = s.columns
	r.numbers.set(o.Decimal)
	r.blanks = s.time < 0 // rows without times are counted, so none may be passed over
	t := newTable(in.File, s, o)
	t.numbers, t.field = r.numbers, r.csv.Comma
	if s.time >= 0 {
		t.times = &texts{}
	}
	columns := make([]*numberColumn, len(r.columns))
	for i, name := range r.columns {
		if i != s.time && i != s.id {
			columns[i] = r.numbers.column(name, slices.Contains(s.values, i))
		}
	}
	if s.headless {
		if err := t.addRecord(r, s, columns, r.header, r.head); err != nil {
			return nil, err
		}
	}
	for {
		record, line, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if record == nil {
			if s.id >= 0 {
				return nil, &InputError{File: r.file, Line: line, Problem: "is blank, and rows without times are counted", Fix: "remove it, or give the row's id and leave its value empty"}
			}
			record = make([]string, len(r.columns))
		}
		if err := t.addRecord(r, s, columns, record, line); err != nil {
			return nil, err
		}
	}
	t.seal()
	return t, t.settleNumbers(columns, s, o)
}

// addRecord appends one row of text.
func (t *table) addRecord(r *rows, s *selection, columns []*numberColumn, record []string, line int) error {
	if len(record) != len(r.columns) {
		return &InputError{File: r.file, Line: line, Problem: fmt.Sprintf("has %s, the header has %d", count(len(record), "field"), len(r.columns)),
			Fix: "give every line as many fields as the header"}
	}
	row := len(t.line)
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
	if len(t.line) <= mostSpare {
		for i, at := range s.spare {
			t.spare[i].add(strings.TrimSpace(record[at]))
		}
	}
	for i, at := range s.values {
		v, fault := r.numbers.parse(columns[at], row, line, record[at])
		if fault != nil {
			if s.unasked {
				fault.fix += ", or name the columns wanted"
			}
			return &InputError{File: r.file, Line: line, Column: r.columns[at], Problem: fault.problem, Fix: fault.fix}
		}
		t.values[i] = append(t.values[i], v)
	}
	if r.numbers.decimal == 0 {
		for at, c := range columns {
			if c != nil && !c.used {
				r.numbers.watch(c, record[at])
			}
		}
	}
	return nil
}

// settleNumbers decides about numbers such as 1.234 in the values.
func (t *table) settleNumbers(columns []*numberColumn, s *selection, o *ReadOptions) error {
	note, err := t.numbers.settle(t.file, func(c *numberColumn, row int) {
		for i, at := range s.values {
			if columns[at] == c {
				t.values[i][row] = ungrouped(t.values[i][row])
			}
		}
	})
	o.note(note)
	return err
}

// readRows reads LayoutRows. A first line without a number after the first field
// is a header.
func readRows(in *LineReader, o *ReadOptions) (*Panel, error) {
	if err := bareLayout(in.File, o); err != nil {
		return nil, err
	}
	r, err := openRows(in, o.Delimiter)
	if err != nil {
		return nil, err
	}
	if o.ID != "" && o.ID != r.columns[0] && o.ID != "1" {
		return nil, &InputError{File: in.File, Column: o.ID, Problem: "is not the first column, where layout rows has the id", Fix: "the first is " + r.columns[0]}
	}
	r.numbers.set(o.Decimal)
	p := &Panel{Columns: []string{ValueColumn}, Freq: o.Freq}
	series := map[*numberColumn]*Series{}
	record, line := r.header, r.head
	if !slices.ContainsFunc(record[1:], func(cell string) bool { f, _ := formOf(strings.TrimSpace(cell)); return f != noNumber }) {
		record = nil // a header
	}
	for {
		if record != nil {
			c := r.numbers.column("", true)
			s, err := r.series(c, record, line, o)
			if err != nil {
				return nil, err
			}
			series[c] = s
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
	note, err := r.numbers.settle(in.File, func(c *numberColumn, at int) {
		v := series[c].Values[0]
		v[at] = ungrouped(v[at])
	})
	if err != nil {
		return nil, err
	}
	o.note(note)
	p.Decimal = r.numbers.separator()
	return p, p.settle(in.File, false, o)
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
func (r *rows) series(c *numberColumn, record []string, line int, o *ReadOptions) (*Series, error) {
	id := strings.TrimSpace(record[0])
	if id == "" {
		return nil, &InputError{File: r.file, Line: line, Problem: "the series' id, the first field, is missing", Fix: "every row needs one"}
	}
	last := len(record)
	for last > 1 && isMissing(strings.TrimSpace(record[last-1])) {
		last--
	}
	values := make([]float64, last-1)
	lines := make([]int, last-1)
	for i, cell := range record[1:last] {
		if len(c.doubts) == 0 {
			c.name = r.name(i + 1)
		}
		v, fault := r.numbers.parse(c, i, line, cell)
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
