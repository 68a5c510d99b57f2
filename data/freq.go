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
)

// Freq is the spacing of a series' rows: N units from one row to the next. The
// zero Freq means rows without times.
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
}

// String returns a count and a unit, such as 1h, 30min, 1d, 1w, 1b (business
// day), 1mo, 1q, 1y or 1me (end of month); "" for the zero Freq.
func (f Freq) String() string {
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
	return Freq{}, Errorf("frequency: want a count and one of h, min, s, ms, us, ns, d, w, b, mo, me, q, y, such as 30min, got %s", quoted(s))
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
func (f Freq) Add(t time.Time, n int) time.Time {
	k := f.N * int64(n)
	switch f.Unit {
	case Nanosecond:
		return t.Add(time.Duration(k))
	case Day:
		return t.AddDate(0, 0, int(k))
	case BusinessDay:
		return t.AddDate(0, 0, int(businessDate(businessIndex(civilDay(t))+k)-civilDay(t)))
	case Month, MonthEnd:
		first := t.AddDate(0, 0, 1-t.Day()).AddDate(0, int(k), 0)
		last := first.AddDate(0, 1, -1).Day()
		if f.Unit == MonthEnd {
			return first.AddDate(0, 0, last-1)
		}
		return first.AddDate(0, 0, min(t.Day(), last)-1)
	}
	return t
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
	case Day:
		n = civilDay(b) - civilDay(a)
		ok = clock(a) == clock(b)
		return n / f.N, ok && n%f.N == 0 && n > 0
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
	f := Freq{Nanosecond, step}
	for g, times := range groups {
		for i := 1; i < len(times); i++ {
			if _, ok := f.steps(times[i-1], times[i]); !ok {
				return Freq{}, &gridFault{g, i, fmt.Sprintf("times are not evenly spaced: most steps are %s, the one to %s is %s",
					time.Duration(step), showTime(times[i]), times[i].Sub(times[i-1]))}
			}
		}
	}
	return f, nil
}

// timeShape describes what all times of a panel have in common.
type timeShape struct {
	rows      int
	longest   int  // rows of the longest group
	sameClock bool // one time of day
	sameDay   bool // one day of the month
	allEnds   bool // each the last day of its month
	workdays  bool // none on Saturday or Sunday
	minDay    int  // smallest day of the month
}

func surveyTimes(groups [][]time.Time) timeShape {
	s := timeShape{sameClock: true, sameDay: true, allEnds: true, workdays: true, minDay: 31}
	var one time.Time
	for _, times := range groups {
		s.longest = max(s.longest, len(times))
		for _, t := range times {
			if s.rows == 0 {
				one = t
			}
			s.rows++
			if !s.sameClock {
				continue // then the rest does not matter
			}
			s.sameClock = clock(t) == clock(one)
			s.sameDay = s.sameDay && t.Day() == one.Day()
			s.allEnds = s.allEnds && t.AddDate(0, 0, 1).Day() == 1
			s.workdays = s.workdays && t.Weekday() != time.Saturday && t.Weekday() != time.Sunday
			s.minDay = min(s.minDay, t.Day())
		}
	}
	return s
}

// calendar infers a spacing in days or months for times with one time of day.
func (s *timeShape) calendar(groups [][]time.Time) (Freq, bool) {
	months := func(a, b time.Time) int64 { return monthIndex(b) - monthIndex(a) }
	days := func(a, b time.Time) int64 { return civilDay(b) - civilDay(a) }
	perMonth := Freq{Month, mode(groups, months)}
	monthly := onGrid(groups, perMonth.N, months)
	if monthly && (s.sameDay || s.allEnds) {
		if s.allEnds && !(s.sameDay && perMonth.N%12 == 0) {
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

// civilDay numbers the calendar days; January 1, 1970 is 0.
func civilDay(t time.Time) int64 {
	_, offset := t.Zone()
	return floorDiv(t.Unix()+int64(offset), 86400)
}

// clock returns the local time of day, in nanoseconds.
func clock(t time.Time) int64 {
	_, offset := t.Zone()
	s := t.Unix() + int64(offset)
	return (s-86400*floorDiv(s, 86400))*int64(time.Second) + int64(t.Nanosecond())
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
