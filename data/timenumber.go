package data

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseNumericTimes is parseTimes for a column of plain numbers.
func parseNumericTimes(text *texts) (*timeColumn, *timeFault) {
	n := text.len()
	values := make([]float64, n)
	whole, width, digits := true, len(text.at(0)), 0
	low, high := math.Inf(1), math.Inf(-1)
	for i := range n {
		s := text.at(i)
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !isNumber(s) {
			return nil, &timeFault{i, fmt.Sprintf("%s is not a time like %s above it", quoted(s), quoted(text.at(0))), timeFormats}
		}
		values[i] = v
		low, high = min(low, v), max(high, v)
		whole = whole && !strings.ContainsAny(s, ".eE")
		if point := strings.IndexByte(s, '.'); point >= 0 {
			digits = max(digits, len(s)-point-1)
		}
		if len(s) != width {
			width = 0
		}
	}
	if whole {
		if column, fault := parseCompact(text, width); column != nil || fault != nil {
			return column, fault
		}
	} else if low >= 1000 && high < 3000 {
		return decimalYears(values, digits), nil
	}
	if column := sinceEpoch(text, values, max(high, -low)); column != nil {
		column.style.Digits = digits
		return column, nil
	}
	if low >= firstDayNumber && high < lastDayNumber {
		return dayNumbers(text, values, digits), nil
	}
	if !whole {
		return nil, &timeFault{0, fmt.Sprintf("%s is not a time in a known format", quoted(text.at(0))), timeFormats}
	}
	column := &timeColumn{stamps: make([]stamp, n), counted: true}
	for i, v := range values {
		column.stamps[i] = stamp{wall: int64(v), offset: noOffset}
	}
	return column, nil
}

// compactLayouts are dates without separators, by their length.
var compactLayouts = map[int]string{4: "2006", 6: "200601", 8: "20060102", 12: "200601021504", 14: "20060102150405"}

// parseCompact reads a column whose numbers, all of one width, are dates
// without separators from the years 1000 to 2999; nil if they are not. Where
// most are dates, the first that is not is a fault.
func parseCompact(text *texts, width int) (*timeColumn, *timeFault) {
	layout := compactLayouts[width]
	if layout == "" {
		return nil, nil
	}
	column := &timeColumn{stamps: make([]stamp, text.len()), style: TimeStyle{Layout: layout}}
	dates, date, other := 0, 0, -1
	for i := range column.stamps {
		t, err := time.Parse(layout, text.at(i))
		if err == nil && t.Year() >= 1000 && t.Year() <= 2999 {
			dates, date = dates+1, i
		} else if other < 0 {
			other = i
		}
		column.stamps[i] = stamp{wall: t.Unix(), offset: noOffset}
	}
	switch {
	case other < 0:
		return column, nil
	case width > 4 && dates > text.len()/2:
		return nil, &timeFault{other, fmt.Sprintf("%s: no such day or time among dates such as %s", quoted(text.at(other)), quoted(text.at(date))), "correct it"}
	}
	return nil, nil
}

// The day numbers that are taken for dates of a spreadsheet: 1982 to 2064.
const (
	firstDayNumber = 30000
	lastDayNumber  = 60000
	epochDayNumber = 25569 // January 1, 1970
)

// dayNumbers reads day numbers as spreadsheets count them, with the time of day
// as a fraction.
func dayNumbers(text *texts, values []float64, digits int) *timeColumn {
	column := &timeColumn{stamps: make([]stamp, len(values)), style: TimeStyle{Layout: layoutDayNumber, Digits: digits}}
	for i, v := range values {
		seconds := int64(math.Round((v - epochDayNumber) * daySeconds))
		column.stamps[i] = stamp{wall: seconds, offset: noOffset}
	}
	column.note = fmt.Sprintf("numbers such as %s are read as the day numbers of a spreadsheet (%s); if they only number the rows, do not name the column as the time",
		text.at(0), time.Unix(column.stamps[0].wall, 0).UTC().Format(time.DateOnly))
	return column
}

// sinceEpoch reads seconds since 1970, or milliseconds, microseconds or
// nanoseconds if the largest value is too large for them; nil if the values are
// before 1973 even in seconds.
func sinceEpoch(text *texts, values []float64, largest float64) *timeColumn {
	var scale int64
	var layout string
	switch {
	case largest < 1e8 || largest >= math.MaxInt64:
		return nil
	case largest < 1e11:
		scale, layout = 1, layoutSeconds
	case largest < 1e14:
		scale, layout = 1e3, layoutMilliseconds
	case largest < 1e17:
		scale, layout = 1e6, layoutMicroseconds
	default:
		scale, layout = 1e9, layoutNanoseconds
	}
	stamps := make([]stamp, len(values))
	for i, v := range values {
		units, err := strconv.ParseInt(text.at(i), 10, 64) // a float64 has too few digits for nanoseconds
		var fraction float64
		if err != nil {
			floor := math.Floor(v)
			units, fraction = int64(floor), v-floor
		}
		wall := floorDiv(units, scale)
		nano := (units - wall*scale) * (1e9 / scale)
		// A float64 of seconds is exact to a microsecond.
		nano += int64(math.Round(fraction*1e6)) * 1e3 / scale
		stamps[i] = stamp{wall: wall + nano/1e9, nano: int32(nano % 1e9), offset: 0}
	}
	return &timeColumn{stamps: stamps, style: TimeStyle{Layout: layout}}
}

// decimalYears reads years with a fraction of the given number of digits.
//
// Fractions that are whole days (or, with more than one row a day, hours) of
// their year are these dates. Otherwise 1949.25 is April 1, 1949 where there are
// twelve or four rows a year or another divisor of twelve; and where the values
// divide years evenly in another way, such as 52 a year, that is the spacing of
// the rows, be the year a leap year or not. Other fractions are rounded to the
// day, or to the minute where there is more than one a day.
func decimalYears(values []float64, digits int) *timeColumn {
	column := &timeColumn{stamps: make([]stamp, len(values)), style: TimeStyle{Layout: layoutDecimalYear, Digits: digits}}
	distinct := slices.Clone(values)
	slices.Sort(distinct)
	distinct = slices.Compact(distinct)
	unit := unitOfYears(distinct, digits)
	perYear, phase := evenYears(distinct, digits)
	monthly := typicalPerYear(distinct) <= 13 && (perYear == 0 || math.Mod(12, perYear) == 0)
	if monthly && !firstsOfMonths(distinct, unit) {
		column.style.Layout = layoutDecimalMonth
		column.style.Phase = monthPhase(values, digits)
		for i, v := range values {
			start := time.Date(int(v), time.Month(1+monthOf(v-math.Floor(v))), 1, 0, 0, 0, 0, time.UTC)
			column.stamps[i] = stamp{wall: start.Unix(), offset: noOffset}
		}
		return column
	}
	if unit == 0 && perYear > 0 {
		column.freq = Freq{YearPart, int64(math.Round(perYear * yearParts))}
	} else if unit == 0 {
		unit = daySeconds
		if typicalPerYear(distinct) > 370 {
			unit = 60
		}
	}
	for i, v := range values {
		if column.freq != (Freq{}) {
			v = (math.Round(v*perYear-phase) + phase) / perYear
		}
		t := fromDecimalYear(v, time.UTC)
		if unit > 0 {
			t = time.Unix(int64(unit*math.Round(float64(t.UnixMicro())/1e6/unit)), 0)
		}
		column.stamps[i] = stamp{wall: t.Unix(), nano: int32(t.Nanosecond()), offset: noOffset}
	}
	return column
}

// typicalPerYear returns the number of rows a year by the median step of
// ascending values; 0 for one.
func typicalPerYear(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	steps := make([]float64, len(values)-1)
	for i := range steps {
		steps[i] = values[i+1] - values[i]
	}
	slices.Sort(steps)
	return 1 / steps[len(steps)/2]
}

// unitOfYears returns the seconds of a day or an hour if every fraction is a
// whole number of them in its year, and has the digits to show it, otherwise 0.
func unitOfYears(values []float64, digits int) float64 {
	unit := 3600.0
	if typicalPerYear(values) <= 370 {
		unit = daySeconds
	}
	for _, v := range values {
		units := (v - math.Floor(v)) * secondsOf(int(v)) / unit
		slack := secondsOf(int(v))/unit*math.Pow10(-digits)*0.51 + 1e-6
		if slack > 0.25 || math.Abs(units-math.Round(units)) > slack {
			return 0
		}
	}
	return unit
}

// firstsOfMonths reports whether ascending values, whole days of their years, are
// the first of months.
func firstsOfMonths(values []float64, unit float64) bool {
	for _, v := range values {
		if t := fromDecimalYear(v, time.UTC).Add(time.Duration(unit) * time.Second / 2); t.Day() != 1 {
			return false
		}
	}
	return unit > 0
}

// evenYears returns the number of rows into which ascending values divide each
// year evenly and the part of a row by which they are later than a whole number
// of rows; zeros if they do not, or have too few digits to show it. A number that
// is not whole is one that time series have in practice.
func evenYears(values []float64, digits int) (perYear, phase float64) {
	typical := typicalPerYear(values)
	if len(values) < 3 || typical > 1e6 {
		return 0, 0
	}
	const most = 500 // values to compare with
	thinned := values
	if len(values) > most {
		thinned = nil
		for i := range most {
			thinned = append(thinned, values[i*(len(values)-1)/(most-1)])
		}
	}
	slack := math.Pow10(-digits)
	low, high := math.Floor(1/(1/typical+slack)), math.Ceil(1/max(1/typical-slack, 1e-7))
	if high-low > 10000 {
		return 0, 0
	}
	tries := []float64{365.25, 365.2425, 365.25 / 7, 52.18, 52.1775, 26.09}
	for p := max(low, 1); p <= high; p++ {
		tries = append(tries, p)
	}
	least := math.Inf(1)
	for _, p := range tries {
		if p < low || p > high || slack*p > 0.45 {
			continue
		}
		for _, from := range []float64{0, math.Mod(values[0]*p, 1)} {
			worst := 0.0
			for _, v := range thinned {
				rows := v*p - from
				worst = max(worst, math.Abs(rows-math.Round(rows)))
			}
			if worst < slack*p*1.02+1e-6*p/52 && worst < least-1e-9 {
				least, perYear, phase = worst, p, from
			}
		}
	}
	return perYear, phase
}

// secondsOf returns the length of a year.
func secondsOf(year int) float64 {
	return float64(daysIn(year, 2)+365-28) * daySeconds
}

// decimalYear returns a time as the year and the part of it that has gone by, on
// the local calendar.
func decimalYear(t time.Time) float64 {
	start := time.Date(t.Year(), 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	return float64(t.Year()) + (float64(wallClock(t)-start)+float64(t.Nanosecond())/1e9)/secondsOf(t.Year())
}

// fromDecimalYear is the inverse of decimalYear, to the microsecond.
func fromDecimalYear(v float64, zone *time.Location) time.Time {
	year := math.Floor(v)
	micros := int64(math.Round((v - year) * secondsOf(int(year)) * 1e6))
	t := time.Date(int(year), 1, 1, 0, 0, 0, 0, time.UTC)
	t = time.Unix(t.Unix()+micros/1e6, micros%1e6*1e3).UTC()
	at, _ := localTime(t.Unix(), t.Nanosecond(), zone)
	return at
}

// monthOf returns the number of months before a fraction of a year: rounded
// where the fraction is a month's first day to two digits, otherwise the month
// that contains it, such as for mid-month averages.
func monthOf(fraction float64) int {
	months := 12 * fraction
	if nearest := math.Round(months); math.Abs(months-nearest) < 0.13 {
		return int(nearest)
	}
	return int(months)
}

// monthPhase returns the part of a year by which values, rounded to some digits,
// are later than the beginning of their months: none or half a month if that gives
// all values, otherwise one that does, or that of the last if there is none.
func monthPhase(values []float64, digits int) float64 {
	half := math.Pow10(-digits)/2 + 1e-9
	low, high, last := math.Inf(-1), math.Inf(1), 0.0
	for _, v := range values {
		fraction := v - math.Floor(v)
		last = fraction - float64(monthOf(fraction))/12
		low, high = max(low, last-half), min(high, last+half)
	}
	for _, phase := range []float64{0, 1.0 / 24, (low + high) / 2} {
		if low <= phase && phase <= high {
			return phase
		}
	}
	return last
}

// isNumber reports whether s is a number in decimal digits, with at most a
// sign, a point and an exponent. The words for infinity and not-a-number are
// excluded.
func isNumber(s string) bool {
	digit, point, exponent := false, false, false
	for i := range len(s) {
		switch c := s[i]; {
		case c-'0' < 10:
			digit = true
		case c == '+' || c == '-':
			if i > 0 && s[i-1]|0x20 != 'e' {
				return false
			}
		case c == 'e' || c == 'E':
			if !digit || exponent {
				return false
			}
			digit, exponent = false, true
		case c == '.':
			if point || exponent {
				return false
			}
			point = true
		default:
			return false
		}
	}
	return digit
}
