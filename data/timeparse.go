package data

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stamp is a time as it is written: the local time and, if given, its offset
// from UTC.
type stamp struct {
	wall   int64 // seconds since 1970 as if local time were UTC
	nano   int32
	offset int32 // seconds east of UTC, or noOffset
}

const noOffset = math.MinInt32

// dateOrder says how to read 03/04/2021.
type dateOrder uint8

const (
	orderUnknown dateOrder = iota
	dayFirst
	monthFirst
)

// timeFault is a value of a column that is not a time, and why. Row -1 is the
// column as a whole.
type timeFault struct {
	row          int
	problem, fix string
}

const timeFormats = "write times as 2006-01-02 15:04:05, with an offset such as +01:00 if it is known"

// timeColumn is the times of a column.
type timeColumn struct {
	stamps  []stamp
	counted bool      // the column only numbers the rows, and stamps hold the numbers as seconds
	freq    Freq      // zero unless the values themselves show it
	style   TimeStyle // without Offset
	note    string    // what a user might not expect of the reading; "" if nothing
}

// parseTimes parses a column of times, all in one format. Texts that are plain
// numbers are dates without separators (20060102, 200601), years, decimal
// years, day numbers of spreadsheets, or seconds, milliseconds, microseconds or
// nanoseconds since 1970, whichever fits the whole column; smaller whole numbers
// only number the rows. series holds each row's series; nil is one series.
func parseTimes(text *texts, series []int32, order dateOrder) (*timeColumn, *timeFault) {
	n := text.len()
	for i := range n {
		if isMissing(text.at(i)) {
			return nil, &timeFault{i, "the time is missing", "every row needs one"}
		}
	}
	if n > 0 && isNumber(text.at(0)) {
		return parseNumericTimes(text)
	}
	p := timeParser{order: order}
	stamps := make([]stamp, n)
	for i := range n {
		s, ok := p.parse(text.at(i))
		if !ok {
			return nil, &timeFault{i, p.fault(text.at(i)), timeFormats}
		}
		if (s.offset == noOffset) != (stamps[0].offset == noOffset) && i > 0 {
			return nil, &timeFault{i, "some times have an offset from UTC and some have none: " + quoted(text.at(i)), "give all an offset, or none"}
		}
		stamps[i] = s
	}
	if p.ordered && p.order == orderUnknown {
		if fault := p.settleOrder(text, series, stamps); fault != nil {
			return nil, fault
		}
	}
	return &timeColumn{stamps: stamps, style: TimeStyle{Layout: layoutOf(text, stamps, p.order)}}, nil
}

// settleOrder determines whether days or months come first where numbers are
// used for both, and parses the column again if months do. A number over 12
// decides; failing that, the order that spaces the rows evenly.
func (p *timeParser) settleOrder(text *texts, series []int32, stamps []stamp) *timeFault {
	read := func(order dateOrder) ([]stamp, int) {
		q := timeParser{order: order}
		out := make([]stamp, len(stamps))
		for i := range out {
			s, ok := q.parse(text.at(i))
			if !ok {
				return nil, i
			}
			out[i] = s
		}
		return out, -1
	}
	days, notDay := read(dayFirst)
	months, notMonth := read(monthFirst)
	switch {
	case notDay < 0 && notMonth < 0:
		evenDays, evenMonths := even(days, series), even(months, series)
		switch {
		case evenDays == evenMonths && !p.dotted:
			return &timeFault{-1, fmt.Sprintf("dates such as %s may be day/month or month/day", quoted(text.at(0))), "write them as YYYY-MM-DD"}
		case evenDays || !evenMonths:
			p.order = dayFirst
		default:
			p.order = monthFirst
		}
	case notDay < 0:
		p.order = dayFirst
	case notMonth < 0:
		p.order = monthFirst
	default:
		row, other := max(notDay, notMonth), min(notDay, notMonth)
		return &timeFault{row, fmt.Sprintf("%s does not follow the order of day and month of %s", quoted(text.at(row)), quoted(text.at(other))), "write dates as YYYY-MM-DD"}
	}
	if p.order == dayFirst {
		copy(stamps, days)
	} else {
		copy(stamps, months)
	}
	return nil
}

// even reports whether the rows of every series are equally many days, or whole
// months, apart.
func even(stamps []stamp, series []int32) bool {
	type track struct {
		last                     stamp
		rows                     int
		step, months             int64
		unevenStep, unevenMonths bool
	}
	tracks := map[int32]*track{}
	for i, s := range stamps {
		var id int32
		if series != nil {
			id = series[i]
		}
		t := tracks[id]
		if t == nil {
			t = &track{}
			tracks[id] = t
		}
		if t.rows > 0 {
			a, b := time.Unix(t.last.wall, 0).UTC(), time.Unix(s.wall, 0).UTC()
			step, months := s.wall-t.last.wall, monthIndex(b)-monthIndex(a)
			if t.rows == 1 {
				t.step, t.months = step, months
			}
			t.unevenStep = t.unevenStep || step != t.step || step <= 0
			t.unevenMonths = t.unevenMonths || months != t.months || months <= 0 || a.Day() != b.Day()
			if t.unevenStep && t.unevenMonths {
				return false
			}
		}
		t.last = s
		t.rows++
	}
	return true
}

// timeParser parses the texts of one column.
type timeParser struct {
	order   dateOrder
	ordered bool   // some date depends on the order of day and month
	dotted  bool   // and has dots, which means day first unless the numbers contradict it
	reason  string // why the last text was refused, if known

	s     string // the rest of the text
	text  string // the whole of it
	marks []mark // where it has what, in order; of the last text
}

// mark is a part of a text and what stands for it in a TimeStyle's layout; as is
// "" for a number whose meaning is not known yet.
type mark struct {
	at, n int
	as    string
}

// mark notes that the last n bytes before the rest of the text are as.
func (p *timeParser) mark(n int, as string) {
	p.marks = append(p.marks, mark{len(p.text) - len(p.s) - n, n, as})
}

// name gives the numbers that have no meaning yet theirs, in order.
func (p *timeParser) name(layouts ...string) {
	for i := range p.marks {
		if p.marks[i].as == "" && len(layouts) > 0 {
			p.marks[i].as, layouts = layouts[0], layouts[1:]
		}
	}
}

func (p *timeParser) fault(text string) string {
	if p.reason != "" {
		return fmt.Sprintf("%s: %s", quoted(text), p.reason)
	}
	return fmt.Sprintf("%s is not a time in a known format", quoted(text))
}

// civil is a calendar date.
type civil struct{ year, month, day int }

func (p *timeParser) parse(text string) (stamp, bool) {
	p.text, p.reason, p.marks = strings.TrimSpace(text), "", p.marks[:0]
	p.s = p.text
	date, ok := p.date()
	if !ok {
		return stamp{}, false
	}
	if date.month < 1 || date.month > 12 || date.day < 1 || date.day > daysIn(date.year, date.month) {
		p.reason = "no such day"
		return stamp{}, false
	}
	s := stamp{wall: time.Date(date.year, time.Month(date.month), date.day, 0, 0, 0, 0, time.UTC).Unix(), offset: noOffset}
	if p.s == "" {
		return s, true
	}
	if c := p.s[0]; c != ' ' && c != 'T' && c != 't' {
		return stamp{}, false
	}
	p.s = strings.TrimLeft(p.s[1:], " ")
	seconds, nano, ok := p.clock()
	if !ok {
		return stamp{}, false
	}
	s.wall, s.nano = s.wall+seconds, nano
	if s.offset, ok = p.zone(); !ok || p.s != "" {
		return stamp{}, false
	}
	return s, true
}

// date parses the calendar part from the front of p.s.
func (p *timeParser) date() (civil, bool) {
	first, digits := p.number()
	switch {
	case digits == 4:
		p.name("2006")
		return p.yearFirst(first)
	case digits == 8: // followed by a time, otherwise the column would be numeric
		p.name("20060102")
		return civil{first / 10000, first / 100 % 100, first % 100}, true
	case digits == 1 || digits == 2:
		return p.yearLast(first)
	case digits != 0:
		return civil{}, false
	}
	if p.accept('Q') {
		quarter, _ := p.number()
		p.separator()
		year, digits := p.number()
		p.name("{quarter}", "2006")
		return civil{year, 3*quarter - 2, 1}, digits == 4 && quarter >= 1 && quarter <= 4
	}
	month := p.monthName()
	if month == 0 {
		return civil{}, false
	}
	p.separator()
	n, digits := p.number()
	if digits == 4 { // Jan 2006
		p.name("2006")
		return civil{n, month, 1}, true
	}
	if len(p.s) > 0 { // Jan 2, 2006
		p.accept(',')
		p.separator()
		year, digits := p.number()
		p.name("02", "2006")
		return civil{year, month, n}, digits == 4
	}
	p.name("06")
	return civil{shortYear(n), month, 1}, digits == 2 // Jan-06
}

// yearFirst parses the rest of a date that began with a year.
func (p *timeParser) yearFirst(year int) (civil, bool) {
	sep := p.separator()
	switch {
	case p.accept('W'):
		return p.isoWeek(year)
	case p.accept('Q'):
		quarter, digits := p.number()
		p.name("{quarter}")
		return civil{year, 3*quarter - 2, 1}, digits == 1 && quarter >= 1 && quarter <= 4
	case sep == 0 && p.accept('M'):
		month, digits := p.number()
		p.name("01")
		return civil{year, month, 1}, digits == 1 || digits == 2
	case sep == 0:
		return civil{year, 1, 1}, p.s == ""
	}
	month, digits := p.number()
	if digits == 0 {
		month = p.monthName()
	} else if digits > 2 || sep == ' ' {
		return civil{}, false
	}
	p.name("01")
	if month == 0 {
		return civil{}, false
	}
	if len(p.s) == 0 || p.s[0] != sep {
		return civil{year, month, 1}, p.s == ""
	}
	p.s = p.s[1:]
	day, digits := p.number()
	p.name("02")
	return civil{year, month, day}, digits == 1 || digits == 2
}

// isoWeek parses the number of a week and optionally of a weekday; a week alone
// means its Monday.
func (p *timeParser) isoWeek(year int) (civil, bool) {
	week, digits := p.number()
	weekday := 1
	if digits == 3 { // 2006W021
		p.name("{week}{weekday}")
		week, weekday = week/10, week%10
	} else if digits != 1 && digits != 2 {
		return civil{}, false
	} else if p.name("{week}"); len(p.s) > 1 && p.s[0] == '-' {
		p.s = p.s[1:]
		weekday, _ = p.number()
		p.name("{weekday}")
	}
	if week < 1 || week > 53 || weekday < 1 || weekday > 7 {
		return civil{}, false
	}
	fourth := time.Date(year, 1, 4, 0, 0, 0, 0, time.UTC) // always in week 1
	monday := fourth.AddDate(0, 0, -(int(fourth.Weekday())+6)%7)
	t := monday.AddDate(0, 0, 7*(week-1))
	if y, _ := t.ISOWeek(); y != year {
		p.reason = "no such week"
		return civil{}, false
	}
	t = t.AddDate(0, 0, weekday-1)
	return civil{t.Year(), int(t.Month()), t.Day()}, true
}

// yearLast parses the rest of a date that began with a day or a month.
func (p *timeParser) yearLast(first int) (civil, bool) {
	sep := p.separator()
	second, digits := p.number()
	if digits == 0 { // 2-Jan-2006
		month := p.monthName()
		p.separator()
		year, digits := p.number()
		if digits == 2 {
			p.name("02", "06")
			year, digits = shortYear(year), 4
		}
		p.name("02", "2006")
		return civil{year, month, first}, digits == 4 && month > 0
	}
	if digits == 4 { // 01/2006
		p.name("01", "2006")
		return civil{second, first, 1}, sep != 0 && sep != ' ' && p.s == ""
	}
	if digits > 2 || sep == 0 || sep == ' ' || p.separator() != sep {
		return civil{}, false
	}
	year, digits := p.number()
	written := "2006"
	if digits == 2 {
		year, written = shortYear(year), "06"
	} else if digits != 4 {
		return civil{}, false
	}
	if p.order == monthFirst {
		p.name("01", "02", written)
	}
	p.name("02", "01", written)
	p.ordered, p.dotted = true, sep == '.'
	switch p.order {
	case dayFirst:
		return civil{year, second, first}, true
	case monthFirst:
		return civil{year, first, second}, true
	}
	// Any valid reading is accepted until the whole column has been seen.
	if first > 12 {
		first, second = second, first
	}
	return civil{year, first, min(second, 28)}, second <= 31
}

// clock parses a time of day as seconds since midnight. 24:00 is the following
// midnight.
func (p *timeParser) clock() (seconds int64, nano int32, ok bool) {
	hour, digits := p.number()
	var minute, second int
	switch {
	case digits == 4:
		p.name("1504")
		hour, minute = hour/100, hour%100
	case digits == 6:
		p.name("150405")
		hour, minute, second = hour/10000, hour/100%100, hour%100
	case digits != 1 && digits != 2:
		return 0, 0, false
	case p.accept(':'):
		if minute, digits = p.number(); digits != 2 {
			return 0, 0, false
		}
		if p.accept(':') {
			if second, digits = p.number(); digits != 2 {
				return 0, 0, false
			}
		}
	}
	if len(p.s) > 1 && (p.s[0] == '.' || p.s[0] == ',') {
		fraction := p.s[1:]
		rest := strings.TrimLeft(fraction, "0123456789")
		digits := fraction[:len(fraction)-len(rest)]
		if digits == "" {
			return 0, 0, false
		}
		v, _ := strconv.Atoi((digits + "000000000")[:9])
		p.name("15", "04", "05")
		nano, p.s = int32(v), rest
		p.mark(1+len(digits), "."+strings.Repeat("0", min(len(digits), 9)))
	}
	half := strings.TrimLeft(p.s, " ")
	if len(half) >= 2 && (half[0]|0x20 == 'a' || half[0]|0x20 == 'p') && half[1]|0x20 == 'm' {
		if hour < 1 || hour > 12 {
			return 0, 0, false
		}
		hour %= 12
		if half[0]|0x20 == 'p' {
			hour += 12
		}
		p.s = half[2:]
		for i := range p.marks {
			if p.marks[i].as == "15" {
				p.marks[i].as = "03"
			}
		}
		p.name("03", "04", "05")
		p.mark(2, "PM")
	}
	p.name("15", "04", "05")
	if hour > 24 || minute > 59 || second > 59 || hour == 24 && (minute > 0 || second > 0 || nano > 0) {
		p.reason = "no such time of day"
		return 0, 0, false
	}
	return int64(hour)*3600 + int64(minute)*60 + int64(second), nano, true
}

// zone parses an offset from UTC, and UTC or GMT by name.
func (p *timeParser) zone() (offset int32, ok bool) {
	p.s = strings.TrimLeft(p.s, " ")
	switch {
	case p.s == "":
		return noOffset, true
	case p.s == "Z":
		p.s = ""
		p.mark(1, "Z07:00")
		return 0, true
	case p.s == "z" || p.s == "UTC" || p.s == "GMT":
		p.s = ""
		return 0, true
	case p.s[0] != '+' && p.s[0] != '-':
		p.reason = fmt.Sprintf("the time zone %s is not known; offsets such as +01:00 are", quoted(p.s))
		return 0, false
	}
	sign := int32(1)
	if p.s[0] == '-' {
		sign = -1
	}
	begin, written := len(p.s), "-07"
	p.s = p.s[1:]
	hour, digits := p.number()
	var minute int
	switch {
	case digits == 4:
		written = "-0700"
		hour, minute = hour/100, hour%100
	case digits != 1 && digits != 2:
		return 0, false
	case p.accept(':'):
		written = "-07:00"
		if minute, digits = p.number(); digits != 2 {
			return 0, false
		}
	}
	p.marks = slices.DeleteFunc(p.marks, func(m mark) bool { return m.as == "" }) // the numbers of the offset
	p.mark(begin-len(p.s), written)
	p.s = strings.TrimSuffix(p.s, " UTC") // as Go prints times
	if hour > 18 || minute > 59 {
		p.reason = "no such offset from UTC"
		return 0, false
	}
	return sign * int32(hour*3600+minute*60), true
}

// number takes a run of at most nine digits from the front of p.s.
func (p *timeParser) number() (value, digits int) {
	for digits < len(p.s) && digits < 9 && p.s[digits]-'0' < 10 {
		value = 10*value + int(p.s[digits]-'0')
		digits++
	}
	p.s = p.s[digits:]
	if digits > 0 {
		p.mark(digits, "")
	}
	return value, digits
}

// accept takes c, in either case, from the front of p.s.
func (p *timeParser) accept(c byte) bool {
	if len(p.s) > 0 && (p.s[0] == c || p.s[0] == c|0x20) {
		p.s = p.s[1:]
		return true
	}
	return false
}

// separator takes a separator between the parts of a date; 0 if there is none.
func (p *timeParser) separator() byte {
	if len(p.s) > 0 && strings.IndexByte("-/. ", p.s[0]) >= 0 {
		c := p.s[0]
		p.s = p.s[1:]
		return c
	}
	return 0
}

var monthNames = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}

// monthName takes an English month's name, whole or its first three letters
// with or without a dot; 0 if there is none.
func (p *timeParser) monthName() int {
	n := 0
	for n < len(p.s) && (p.s[n]|0x20)-'a' < 26 {
		n++
	}
	word := strings.ToLower(p.s[:n])
	for i, name := range monthNames {
		if word == name || word == name[:3] || word == "sept" && i == 8 {
			p.s = p.s[n:]
			if p.mark(n, "Jan"); n > len("Sept") {
				p.marks[len(p.marks)-1].as = "January"
			}
			if len(p.s) > 1 && p.s[0] == '.' && p.s[1] == ' ' {
				p.s = p.s[1:]
			}
			return i + 1
		}
	}
	return 0
}

// shortYear maps a two-digit year to 1969 to 2068.
func shortYear(y int) int {
	if y < 69 {
		return 2000 + y
	}
	return 1900 + y
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
