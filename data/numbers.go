package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// largest is the largest number that is read. Means and deviations are computed
// from squares, and the squares of many larger numbers are beyond float64.
const largest = 1e100

// cellFault says why a cell is not a number.
type cellFault struct{ problem, fix string }

// numbers reads the cells of a file as numbers. All of them have one decimal
// separator, a point or a comma, and the other may separate thousands.
//
// Most numbers show which it is: 12.5, 0.125 and 1,234.5 have a decimal point.
// 1.234 does not. It is kept as a doubt until the whole file has been read, and
// settle decides by the other numbers of the file, or asks.
type numbers struct {
	decimal    byte // '.' or ','; 0: no number has shown it yet
	given      bool // decimal is the user's
	semicolons bool // they separate the fields, as where the decimal separator is a comma
	grouped    bool // some number has separators of thousands

	columns []*numberColumn
}

// set gives the decimal separator that the user names; 0 leaves it open.
func (n *numbers) set(decimal rune) { n.decimal, n.given = byte(decimal), decimal != 0 }

// separator returns the decimal separator if numbers also have separators of
// thousands; 0 if any reader of numbers reads these.
func (n *numbers) separator() rune {
	if n.grouped {
		return rune(n.decimal)
	}
	return 0
}

// fixed returns a reader of numbers with the separator that was found, of which
// none is in doubt.
func (n *numbers) fixed() *numbers {
	f := &numbers{decimal: n.decimal, given: true}
	if f.decimal == 0 {
		f.decimal = '.'
	}
	return f
}

// numberColumn is what the numbers of a column show. Columns of which no number
// is used are looked at as well, as far as all their cells are numbers.
type numberColumn struct {
	name   string
	used   bool
	text   bool // some cell is not a number
	shown  byte // the decimal separator, of a column that is not used
	by     string
	whole  bool // some number has no separator
	long   bool // and five digits or more, so that thousands are not separated
	doubts []doubt
	first  doubtful
}

// doubt is a cell such as 1.234, read as if its separator were the decimal one.
type doubt struct {
	at  int32 // row
	sep byte
}

// doubtful is a column's first doubt, for messages.
type doubtful struct {
	text string
	line int
}

// column adds a column.
func (n *numbers) column(name string, used bool) *numberColumn {
	c := &numberColumn{name: name, used: used}
	n.columns = append(n.columns, c)
	return c
}

// form is how a number is written.
type form int

const (
	noNumber form = iota
	whole         // 12, 1e6
	fraction      // 12.5, 0.125, 1.2e6, 1,234.5: shows its decimal separator
	groups        // 1.234.567: shows its separator of thousands
	either        // 1.234
)

// formOf returns how a number is written, and the decimal separator that it
// shows; of the form either, its separator.
func formOf(s string) (f form, decimal byte) {
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	mantissa := s
	if e := strings.IndexAny(s, "eE"); e >= 0 {
		mantissa = s[:e]
	}
	at := strings.LastIndexAny(mantissa, ".,")
	if at < 0 {
		if isNumber(s) {
			return whole, 0
		}
		return noNumber, 0
	}
	decimal = mantissa[at]
	left, right := mantissa[:at], mantissa[at+1:]
	if strings.IndexByte(left, decimal) >= 0 {
		if len(mantissa) == len(s) && grouped(mantissa, decimal) {
			return groups, other(decimal)
		}
		return noNumber, 0
	}
	if strings.IndexByte(left, other(decimal)) >= 0 {
		if grouped(left, other(decimal)) && isNumber("0."+right+s[len(mantissa):]) {
			return fraction, decimal
		}
		return noNumber, 0
	}
	if !isNumber(left + "." + right + s[len(mantissa):]) {
		return noNumber, 0
	}
	if len(mantissa) == len(s) && grouped(mantissa, decimal) {
		return either, decimal
	}
	return fraction, decimal
}

// grouped reports whether s is a whole number in groups of three digits.
func grouped(s string, sep byte) bool {
	for i := range len(s) {
		last := (len(s) - i) % 4 // 0 at the separators, counted from the end
		if c := s[i]; last == 0 && c != sep || last != 0 && c-'0' > 9 {
			return false
		}
	}
	return len(s) >= len("1.234") && len(s)%4 != 0 && s[0] != '0'
}

func other(sep byte) byte {
	if sep == ',' {
		return '.'
	}
	return ','
}

// plain returns a number without separators of thousands and with a decimal
// point.
func plain(s string, decimal byte) string {
	if strings.IndexByte(s, other(decimal)) >= 0 {
		s = strings.ReplaceAll(s, string(other(decimal)), "")
	}
	if decimal == ',' {
		s = strings.Replace(s, ",", ".", 1)
	}
	return s
}

// parse parses the cell of a column in a row of that line; NaN is a missing one.
// true and false are 1 and 0.
func (n *numbers) parse(c *numberColumn, row, line int, s string) (float64, *cellFault) {
	s = strings.TrimSpace(s)
	if isMissing(s) {
		return math.NaN(), nil
	}
	f, decimal := formOf(s)
	switch f {
	case noNumber:
		return notPlain(s)
	case whole:
		c.whole, c.long = true, c.long || len(s) >= len("10000")
	case either:
		switch n.decimal {
		case 0:
			if len(c.doubts) == 0 {
				c.first = doubtful{s, line}
			}
			c.doubts = append(c.doubts, doubt{int32(row), decimal})
		case decimal:
		default:
			decimal, n.grouped = n.decimal, true
		}
	case fraction, groups:
		if n.decimal == 0 {
			n.decimal = decimal
		}
		if n.decimal != decimal {
			return 0, n.conflict(s, f)
		}
		n.grouped = n.grouped || f == groups || strings.IndexByte(s, other(decimal)) >= 0
	}
	v, err := strconv.ParseFloat(plain(s, decimal), 64)
	switch {
	case math.IsInf(v, 0):
		return notPlain(s)
	case err != nil:
		return 0, &cellFault{quoted(s) + " is not a number", "correct the cell or leave it empty"}
	case math.Abs(v) > largest:
		return 0, tooLarge(s)
	}
	return v, nil
}

func tooLarge(s string) *cellFault {
	return &cellFault{fmt.Sprintf("%s is too large: numbers may be up to %v", s, float64(largest)), "correct it, or give the column in a larger unit"}
}

// conflict is the fault of a number that does not have the file's decimal
// separator.
func (n *numbers) conflict(s string, f form) *cellFault {
	names := map[byte]string{'.': "point", ',': "comma"}
	has, want := names[other(n.decimal)], names[n.decimal]
	problem := fmt.Sprintf("%s has a decimal %s where other numbers have a %s", quoted(s), has, want)
	switch {
	case n.given && f == groups:
		problem = fmt.Sprintf("%s has separators of thousands where the decimal %s is expected", quoted(s), want)
	case n.given:
		problem = fmt.Sprintf("%s has a decimal %s where a decimal %s is expected", quoted(s), has, want)
	case f == groups:
		problem = fmt.Sprintf("%s has separators of thousands where other numbers have a decimal %s", quoted(s), want)
	}
	return &cellFault{problem, "write all numbers alike"}
}

// notPlain parses what is not written in digits.
func notPlain(s string) (float64, *cellFault) {
	if v, _ := strconv.ParseFloat(s, 64); math.IsInf(v, 0) {
		return 0, &cellFault{quoted(s) + " is infinite, a finite number is needed", "correct the cell or leave it empty"}
	}
	switch {
	case strings.EqualFold(s, "true"):
		return 1, nil
	case strings.EqualFold(s, "false"):
		return 0, nil
	case strings.Count(s, ",")+strings.Count(s, ".") > 1:
		return 0, &cellFault{quoted(s) + " is not a number", "leave out separators of thousands"}
	}
	return 0, &cellFault{quoted(s) + " is not a number", "correct the cell or leave it empty"}
}

// watch looks at a cell of a column that is not used.
func (n *numbers) watch(c *numberColumn, s string) {
	if c.text || n.decimal != 0 {
		return
	}
	if s = strings.TrimSpace(s); isMissing(s) {
		return
	}
	f, decimal := formOf(s)
	switch {
	case f == noNumber, f >= fraction && f < either && c.shown != 0 && c.shown != decimal:
		c.text = true
	case f == fraction || f == groups:
		c.shown, c.by = decimal, s
	}
}

// settle decides about the doubts of the whole file, and calls thousands for each
// cell whose separator turned out to be one of thousands. It returns a note on a
// decision that a user may want to know, or an [*InputError] of the first column
// that may be read in two ways.
func (n *numbers) settle(file string, thousands func(column *numberColumn, row int)) (note string, err error) {
	var first *numberColumn // with a doubt
	var seps [2]bool
	for _, c := range n.columns {
		for _, d := range c.doubts {
			seps[strings.IndexByte(".,", d.sep)] = true
			if n.decimal == 0 && c.long {
				n.decimal = d.sep
			}
		}
		if len(c.doubts) > 0 && first == nil {
			first = c
		}
	}
	if first == nil {
		return "", nil
	}
	if n.decimal == 0 {
		for _, c := range n.columns {
			if c.shown != 0 && !c.text {
				n.decimal = c.shown
				if !first.whole && first.doubts[0].sep == n.decimal {
					break // three digits after the point in every row, as programs write
				}
				note = fmt.Sprintf("%s: line %d: column %s: %s is read as %s, by column %s with numbers such as %s", file, first.first.line, quoted(first.name),
					quoted(first.first.text), plain(first.first.text, n.decimal), quoted(c.name), c.by)
				break
			}
		}
	}
	for _, c := range n.columns {
		if n.decimal != 0 || len(c.doubts) == 0 {
			continue
		}
		if c.whole || seps == [2]bool{true, true} || seps[1] && !n.semicolons {
			s := c.first.text
			return "", &InputError{File: file, Line: c.first.line, Column: c.name, Problem: fmt.Sprintf("%s may be %s or %s", quoted(s), plain(s, '.'), plain(s, ',')),
				Fix: "say which with --decimal point or --decimal comma"}
		}
	}
	for _, c := range n.columns {
		for _, d := range c.doubts {
			if n.decimal != 0 && d.sep != n.decimal {
				n.grouped = true
				thousands(c, int(d.at))
			}
		}
	}
	if n.decimal == 0 && n.semicolons {
		s := first.first.text
		note = fmt.Sprintf("%s: line %d: column %s: %s is read as %s; if thousands are separated, say so with --decimal", file, first.first.line, quoted(first.name), quoted(s), plain(s, first.doubts[0].sep))
	}
	return note, nil
}

// ungrouped returns the number in which a separator of thousands was read as the
// decimal one: 1234 for 1.234.
func ungrouped(v float64) float64 { return math.Round(1000 * v) }
