package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Unit is the unit of a Freq.
type Unit uint8

const (
	NoUnit      Unit = iota // rows without times
	Nanosecond              // elapsed time, regardless of clock changes
	Day                     // the same time of day, regardless of clock changes
	BusinessDay             // Monday to Friday; holidays may be absent
	Month                   // the same day of the month, or its last day if it is shorter
	MonthEnd                // the last day of the month
	LocalSecond             // time on the local clock, with changes of clocks
	YearPart                // a ten-thousandth of the number of rows a year, which divide it evenly
)

// Freq is the spacing of a series' rows: N units from one row to the next. The
// zero Freq means rows without times.
//
// Days, months and local seconds are counted on the local calendar and clock. A
// day exists even if clocks skip its midnight, and then begins when they skip;
// days and local times of day that never were, such as those that a change of
// clocks skips, are no rows.
//
// YearPart is for decimal years: N/10000 rows a year, in equal parts of each
// year, so that they differ in length by leap years.
//
// BusinessDay counts the rows of a series that is recorded on working days
// only: the row after Friday's is Monday's, and up to ten consecutive weekdays
// may be absent as holidays without being a gap. Its seasons are counted in
// rows.
type Freq struct {
	Unit Unit
	N    int64
}

// Every returns the Freq of a fixed duration between rows, such as time.Hour.
// Whole days become calendar days.
func Every(d time.Duration) Freq {
	if d > 0 && d%(24*time.Hour) == 0 {
		return Freq{Day, int64(d / (24 * time.Hour))}
	}
	return Freq{Nanosecond, int64(d)}
}

// freqUnits are the suffixes of a Freq's text. For each unit the larger ones
// come first, so that String uses the largest that divides.
var freqUnits = []struct {
	suffix string
	unit   Unit
	n      int64
}{
	{"h", Nanosecond, int64(time.Hour)},
	{"min", Nanosecond, int64(time.Minute)},
	{"s", Nanosecond, int64(time.Second)},
	{"ms", Nanosecond, int64(time.Millisecond)},
	{"us", Nanosecond, int64(time.Microsecond)},
	{"ns", Nanosecond, 1},
	{"w", Day, 7},
	{"d", Day, 1},
	{"b", BusinessDay, 1},
	{"y", Month, 12},
	{"q", Month, 3},
	{"mo", Month, 1},
	{"me", MonthEnd, 1},
	{"lh", LocalSecond, 3600},
	{"lmin", LocalSecond, 60},
	{"ls", LocalSecond, 1},
}

// yearParts is the number of units of YearPart in one row a year.
const yearParts = 10000

// String returns a count and a unit, such as 1h, 30min, 1d, 1w, 1b (business
// day), 1mo, 1q, 1y, 1me (end of month), 6lh (hours of the local clock) or 52/y
// (equal parts of a year); "" for the zero Freq.
func (f Freq) String() string {
	if f.Unit == YearPart {
		return strconv.FormatFloat(f.perYear(), 'f', -1, 64) + "/y"
	}
	for _, u := range freqUnits {
		if u.unit == f.Unit && f.N%u.n == 0 {
			return strconv.FormatInt(f.N/u.n, 10) + u.suffix
		}
	}
	return ""
}

// ParseFreq parses the form of String; a count of 1 may be omitted. Anything
// else is an [*InputError].
func ParseFreq(s string) (Freq, error) {
	if rate, ok := strings.CutSuffix(s, "/y"); ok {
		v, err := strconv.ParseFloat(rate, 64)
		if err != nil || !isNumber(rate) || v < 1/float64(yearParts) || v > 1e9 {
			return Freq{}, Errorf("frequency: want a number of rows a year, such as 52/y, got %s", quoted(s))
		}
		return Freq{YearPart, int64(math.Round(v * yearParts))}, nil
	}
	digits := strings.TrimLeft(s, "0123456789")
	n := int64(1)
	if count := s[:len(s)-len(digits)]; count != "" {
		v, err := strconv.ParseInt(count, 10, 32)
		if err != nil || v == 0 {
			return Freq{}, Errorf("frequency: want a count from 1 on, got %s", quoted(s))
		}
		n = v
	}
	for _, u := range freqUnits {
		if u.suffix == digits {
			if n > math.MaxInt64/u.n {
				return Freq{}, Errorf("frequency: %s is too long", quoted(s))
			}
			if u.unit == Nanosecond {
				return Every(time.Duration(n * u.n)), nil
			}
			return Freq{u.unit, n * u.n}, nil
		}
	}
	return Freq{}, Errorf("frequency: want a count and one of h, min, s, ms, us, ns, d, w, b, mo, me, q, y, lh, such as 30min, or rows a year, such as 52/y, got %s", quoted(s))
}

// MarshalText returns String. The error is always nil.
func (f Freq) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText parses text as ParseFreq does, with the same errors; "" is the
// zero Freq.
func (f *Freq) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*f = Freq{}
		return nil
	}
	g, err := ParseFreq(string(text))
	if err != nil {
		return err
	}
	*f = g
	return nil
}

// Next returns the time one row after t.
func (f Freq) Next(t time.Time) time.Time { return f.Add(t, 1) }

// Add returns the time n rows after t, or before it if n is negative. Month
// steps from one t do not drift: January 31 gives February 28 and March 31. The
// zero Freq returns t.
func (f Freq) Add(t time.Time, n int) time.Time { return f.add(t, int64(n), t.Day()) }

// add is Add, for months with the day of the month.
func (f Freq) add(t time.Time, n int64, day int) time.Time {
	lost := int64(0)
	for {
		u := f.shift(t, n+lost, day)
		now := f.lost(t, u)
		if n < 0 {
			now = -now
		}
		if now == lost {
			return u
		}
		lost = now
	}
}

// shift is n rows after t on a calendar and a clock without gaps.
func (f Freq) shift(t time.Time, n int64, day int) time.Time {
	k := f.N * n
	date := civilDay(t)
	switch f.Unit {
	case Nanosecond:
		return t.Add(time.Duration(k))
	case LocalSecond:
		at, _ := localTime(wallClock(t)+k, t.Nanosecond(), t.Location())
		return at
	case YearPart:
		return fromDecimalYear(decimalYear(t)+float64(n)/f.perYear(), t.Location())
	case Day:
		date += k
	case BusinessDay:
		date = businessDate(businessIndex(date) + k)
	case Month, MonthEnd:
		month := monthIndex(t) + k
		first := civilDay(time.Date(0, time.Month(month+1), 1, 0, 0, 0, 0, time.UTC))
		last := int(civilDay(time.Date(0, time.Month(month+2), 1, 0, 0, 0, 0, time.UTC)) - first)
		if f.Unit == MonthEnd {
			day = last
		}
		date = first + int64(min(day, last)) - 1
	default:
		return t
	}
	at, _ := localTime(date*daySeconds+clock(t)/int64(time.Second), t.Nanosecond(), t.Location())
	return at
}

// lost counts the rows after t, up to u or down to it, that never were, because
// clocks skip them.
func (f Freq) lost(t, u time.Time) (n int64) {
	if f.Unit != LocalSecond && f.Unit != BusinessDay && !(f.Unit == Day && f.N == 1) {
		return 0
	}
	a, b := t, u
	if b.Before(a) {
		a, b = b.Add(-1), a // a row at the end of a skip is one that was skipped
	}
	for _, s := range skips(a, b) {
		if f.Unit == LocalSecond {
			before := wallClock(t) + 1
			n += floorDiv(s.to-before, f.N) - floorDiv(s.from-before, f.N)
			continue
		}
		for day := -floorDiv(-s.from, daySeconds); (day+1)*daySeconds <= s.to; day++ {
			if f.Unit == Day || businessIndex(day) != businessIndex(day-1) {
				n++
			}
		}
	}
	return n
}

// After returns the n times that follow ascending ones, which must not be
// empty. It differs from Add of the last one where that does not show the whole
// rule: after January 30 and February 28 comes March 30.
func (f Freq) After(times []time.Time, n int) []time.Time {
	const enough = 13 // rows in which a month's day and the time of day show
	if len(times) > enough {
		times = times[len(times)-enough:]
	}
	last := times[len(times)-1]
	day := last.Day()
	if d := longestDay(times); f.Unit == Month && followsDay(times, d) {
		day = d
	}
	// A time at which clocks skip may stand for an earlier time of day.
	base, ahead := last, int64(0)
	for i := len(times) - 2; i >= 0 && f.Unit != Nanosecond; i-- {
		if _, skipped := skippedBefore(base); !skipped {
			break
		}
		steps, ok := f.steps(times[i], last)
		if !ok {
			break
		}
		base, ahead = times[i], steps
	}
	next := make([]time.Time, n)
	for i := range next {
		next[i] = f.add(base, ahead+int64(i)+1, day)
	}
	return next
}

// longestDay returns the largest day of the month.
func longestDay(times []time.Time) (day int) {
	for _, t := range times {
		day = max(day, t.Day())
	}
	return day
}

// followsDay reports whether every time is on a day of the month, or on its last
// day if it is shorter.
func followsDay(times []time.Time, day int) bool {
	for _, t := range times {
		year, month, d := t.Date()
		if d != day && d != min(day, daysIn(year, int(month))) {
			return false
		}
	}
	return true
}

// Seasons returns the lengths, in rows, of the cycles that a series of this
// spacing usually has, the shortest first: a day and a week for readings within
// the day, a week and a year for daily ones, otherwise a year. Business days
// have a week of 5. Cycles that are not a whole number of rows are left out;
// the zero Freq has none.
func (f Freq) Seasons() []int {
	if f.N <= 0 {
		return nil
	}
	switch f.Unit {
	case LocalSecond:
		return Freq{Nanosecond, f.N * int64(time.Second)}.Seasons()
	case YearPart:
		return yearSeasons(f)
	case Nanosecond:
		cycles := []time.Duration{24 * time.Hour, 7 * 24 * time.Hour}
		if f.N < int64(time.Minute) {
			cycles = []time.Duration{time.Minute, time.Hour, 24 * time.Hour}
		}
		var seasons []int
		for _, c := range cycles {
			if n := int64(c) / f.N; n > 1 && int64(c)%f.N == 0 {
				seasons = append(seasons, int(n))
			}
		}
		return seasons
	case Day:
		switch f.N {
		case 1:
			return []int{7, 365}
		case 7:
			return []int{52}
		}
	case BusinessDay:
		if f.N == 1 {
			return []int{5}
		}
	case Month, MonthEnd:
		if n := 12 / f.N; n > 1 && 12%f.N == 0 {
			return []int{int(n)}
		}
	}
	return nil
}

// yearSeasons are the seasons of rows that divide a year: a day and a week if it
// is divided into 365 days of equal parts, a week of 5 if into 260, else a year.
func yearSeasons(f Freq) []int {
	n := int(f.N / yearParts)
	switch {
	case f.N%yearParts != 0 || n < 2:
		return nil
	case n == 260:
		return []int{5, n}
	case n == 365:
		return []int{7, n}
	case n%365 == 0:
		return []int{n / 365, n / 365 * 7}
	}
	return []int{n}
}

// perYear returns the rows in a year of a Freq of YearPart.
func (f Freq) perYear() float64 { return float64(f.N) / yearParts }

// holidays is the number of consecutive weekdays that may be absent from
// business days before it is a gap: Chinese New Year and the longest closures
// are shorter.
const holidays = 10

// steps counts the rows from a to b (the next row is 1); ok is false when b is
// not on the grid from a.
func (f Freq) steps(a, b time.Time) (n int64, ok bool) {
	switch f.Unit {
	case Nanosecond:
		n = int64(b.Sub(a))
	case LocalSecond:
		return f.localSteps(a, b, f.N)
	case Day:
		return f.localSteps(a, b, f.N*daySeconds)
	case YearPart:
		rows := (decimalYear(b) - decimalYear(a)) * f.perYear()
		return int64(math.Round(rows)), math.Abs(rows-math.Round(rows)) < 0.05 && rows > 0.5
	case BusinessDay:
		n = businessIndex(civilDay(b)) - businessIndex(civilDay(a))
		if n > 0 && n <= (holidays+1)*f.N {
			n = f.N
		}
	case Month, MonthEnd:
		n = monthIndex(b) - monthIndex(a)
	default:
		return 1, true
	}
	return n / f.N, n%f.N == 0 && n > 0
}

// localSteps is steps on the local clock, for rows that are step seconds apart.
func (f Freq) localSteps(a, b time.Time, step int64) (n int64, ok bool) {
	from, to := wallClock(a), wallClock(b)
	sameNano := a.Nanosecond() == b.Nanosecond()
	if to-from == step && sameNano {
		return 1, true
	}
	if diff := to - from; sameNano && diff%step == 0 {
		n = diff/step - f.lost(a, b)
		return n, n > 0
	}
	// A time at which clocks skip stands for any that they skipped.
	least, most := to-from, to-from
	if skipped, ok := skippedBefore(b); ok {
		least -= to - skipped
	}
	if skipped, ok := skippedBefore(a); ok {
		most += from - skipped
	}
	rows := -floorDiv(-least, step)
	return max(rows-f.lost(a, b), 1), rows > 0 && rows*step <= most
}

// Infer finds the spacing of ascending times: the most common step between
// neighbours, of which every other step must be a multiple, so that times may
// be missing but no time may lie between grid points. It prefers calendar units
// where the times follow them: months if all share a day of the month or are
// its last, days if all share the time of day, business days if none of at
// least six days falls on a weekend.
//
// It returns an [*InputError] if times do not ascend, are not evenly spaced, or
// are fewer than two.
func Infer(times []time.Time) (Freq, error) {
	for i := 1; i < len(times); i++ {
		if !times[i].After(times[i-1]) {
			return Freq{}, Errorf("time %d, %s, is not after the one before it", i+1, times[i].Format(time.RFC3339))
		}
	}
	f, fault := infer([][]time.Time{times})
	if fault != nil {
		return Freq{}, Errorf("%s", fault.problem)
	}
	return f, nil
}

// gridFault is a row that is off the grid, and why.
type gridFault struct {
	group, row int
	problem    string
}

// infer is Infer over the series of a panel, which share one spacing. Each
// group must ascend.
func infer(groups [][]time.Time) (Freq, *gridFault) {
	shape := surveyTimes(groups)
	if shape.longest < 2 {
		return Freq{}, &gridFault{problem: "a single time does not determine the frequency"}
	}
	if shape.sameClock {
		if f, ok := shape.calendar(groups); ok {
			return f, nil
		}
	}
	step := mode(groups, func(a, b time.Time) int64 { return int64(b.Sub(a)) })
	fault := offGrid(groups, Freq{Nanosecond, step})
	if fault == nil {
		return Freq{Nanosecond, step}, nil
	}
	// Readings at the same hours every day are uneven where clocks change.
	if shape.offsets {
		local := Freq{LocalSecond, mode(groups, func(a, b time.Time) int64 { return wallClock(b) - wallClock(a) })}
		if local.N > 0 && offGrid(groups, local) == nil {
			return local, nil
		}
	}
	before, at := groups[fault.group][fault.row-1], groups[fault.group][fault.row]
	fault.problem = fmt.Sprintf("times are not evenly spaced: most steps are %s, the one to %s is %s", time.Duration(step), showTime(at), at.Sub(before))
	return Freq{}, fault
}

// offGrid returns the first row that is not on the grid from the row before it;
// nil if there is none.
func offGrid(groups [][]time.Time, f Freq) *gridFault {
	for g, times := range groups {
		for i := 1; i < len(times); i++ {
			if _, ok := f.steps(times[i-1], times[i]); !ok {
				return &gridFault{group: g, row: i}
			}
		}
	}
	return nil
}

// timeShape describes what all times of a panel have in common.
type timeShape struct {
	rows      int
	longest   int  // rows of the longest group
	sameClock bool // one time of day
	sameDay   bool // one day of the month, or its last if it is shorter, in each group
	allEnds   bool // each the last day of its month
	workdays  bool // none on Saturday or Sunday
	offsets   bool // not all have the same offset from UTC
	minDay    int  // smallest day of the month
}

func surveyTimes(groups [][]time.Time) timeShape {
	s := timeShape{sameClock: true, sameDay: true, allEnds: true, workdays: true, minDay: 31}
	offset, earliest := 0, int64(math.MaxInt64)
	for _, times := range groups {
		s.longest = max(s.longest, len(times))
		for _, t := range times {
			_, o := t.Zone()
			if s.rows == 0 {
				offset = o
			}
			s.rows++
			s.offsets = s.offsets || o != offset
			earliest = min(earliest, clock(t))
		}
	}
	for _, times := range groups {
		day := longestDay(times)
		s.sameDay = s.sameDay && followsDay(times, day)
		for _, t := range times {
			if !showsClock(t, earliest) {
				s.sameClock = false
				return s // then the rest does not matter
			}
			s.allEnds = s.allEnds && t.Day() == daysIn(t.Year(), int(t.Month()))
			s.workdays = s.workdays && t.Weekday() != time.Saturday && t.Weekday() != time.Sunday
			s.minDay = min(s.minDay, t.Day())
		}
	}
	return s
}

// showsClock reports whether the local time of day is c, in nanoseconds, or what
// stands for c on a day on which clocks skip it.
func showsClock(t time.Time, c int64) bool {
	if clock(t) == c {
		return true
	}
	at, _ := localTime(civilDay(t)*daySeconds+c/int64(time.Second), int(c%int64(time.Second)), t.Location())
	return at.Equal(t)
}

// calendar infers a spacing in days or months for times with one time of day.
func (s *timeShape) calendar(groups [][]time.Time) (Freq, bool) {
	months := func(a, b time.Time) int64 { return monthIndex(b) - monthIndex(a) }
	days := func(a, b time.Time) int64 { return civilDay(b) - civilDay(a) }
	perMonth := Freq{Month, mode(groups, months)}
	monthly := onGrid(groups, perMonth.N, months)
	if monthly && (s.sameDay || s.allEnds) {
		if s.allEnds && perMonth.N%12 != 0 {
			perMonth.Unit = MonthEnd
		}
		return perMonth, true
	}
	perDay := Freq{Day, mode(groups, days)}
	if perDay.N == 1 && s.workdays && s.longest >= 6 {
		return Freq{BusinessDay, 1}, true
	}
	if onGrid(groups, perDay.N, days) {
		return perDay, true
	}
	if monthly { // such as the last trading day of each month
		if s.minDay >= 24 {
			perMonth.Unit = MonthEnd
		}
		return perMonth, true
	}
	return Freq{}, false
}

// mode returns the most common step within the groups, the smallest if there
// are several.
func mode(groups [][]time.Time, step func(a, b time.Time) int64) int64 {
	counts := map[int64]int{}
	for _, times := range groups {
		for i := 1; i < len(times); i++ {
			counts[step(times[i-1], times[i])]++
		}
	}
	var best int64
	for d, n := range counts {
		if n > counts[best] || n == counts[best] && d < best {
			best = d
		}
	}
	return best
}

// onGrid reports whether all steps are positive multiples of n.
func onGrid(groups [][]time.Time, n int64, step func(a, b time.Time) int64) bool {
	if n <= 0 {
		return false
	}
	for _, times := range groups {
		for i := 1; i < len(times); i++ {
			if d := step(times[i-1], times[i]); d <= 0 || d%n != 0 {
				return false
			}
		}
	}
	return true
}

const daySeconds = 86400

// wallClock returns local time in seconds, as if it were UTC.
func wallClock(t time.Time) int64 {
	_, offset := t.Zone()
	return t.Unix() + int64(offset)
}

// civilDay numbers the calendar days; January 1, 1970 is 0.
func civilDay(t time.Time) int64 { return floorDiv(wallClock(t), daySeconds) }

// clock returns the local time of day, in nanoseconds.
func clock(t time.Time) int64 {
	s := wallClock(t)
	return (s-daySeconds*floorDiv(s, daySeconds))*int64(time.Second) + int64(t.Nanosecond())
}

func monthIndex(t time.Time) int64 {
	year, month, _ := t.Date()
	return int64(year)*12 + int64(month) - 1
}

// businessIndex numbers the weekdays; Monday, December 29, 1969 is 0. Saturday
// and Sunday have the number of the Friday before them.
func businessIndex(day int64) int64 {
	week := floorDiv(day+3, 7)
	return 5*week + min(day+3-7*week, 4)
}

// businessDate is the inverse of businessIndex.
func businessDate(index int64) int64 {
	week := floorDiv(index, 5)
	return 7*week + index - 5*week - 3
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// showTime formats a time for messages, as short as possible.
func showTime(t time.Time) string {
	c := clock(t)
	if c == 0 {
		return t.Format("2006-01-02")
	}
	layout := "2006-01-02 15:04"
	if c%int64(time.Minute) != 0 {
		layout += ":05.999999999"
	}
	if t.Location() != time.UTC {
		layout += "Z07:00"
	}
	return t.Format(layout)
}
