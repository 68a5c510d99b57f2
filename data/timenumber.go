package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseNumericTimes is parseTimes for a column of plain numbers.
func parseNumericTimes(text *texts) (stamps []stamp, counted bool, fault *timeFault) {
	n := text.len()
	values := make([]float64, n)
	whole, width := true, len(text.at(0))
	low, high := math.Inf(1), math.Inf(-1)
	for i := range n {
		s := text.at(i)
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !isNumber(s) {
			return nil, false, &timeFault{i, fmt.Sprintf("%s is not a time like %s above it", quoted(s), quoted(text.at(0))), timeFormats}
		}
		values[i] = v
		low, high = min(low, v), max(high, v)
		whole = whole && !strings.ContainsAny(s, ".eE")
		if len(s) != width {
			width = 0
		}
	}
	if whole {
		if stamps := parseCompact(text, width); stamps != nil {
			return stamps, false, nil
		}
	} else if low >= 1000 && high < 3000 {
		return decimalYears(values), false, nil
	}
	if stamps := sinceEpoch(text, values, max(high, -low)); stamps != nil {
		return stamps, false, nil
	}
	if !whole {
		return nil, false, &timeFault{0, fmt.Sprintf("%s is not a time in a known format", quoted(text.at(0))), timeFormats}
	}
	stamps = make([]stamp, n)
	for i, v := range values {
		stamps[i] = stamp{wall: int64(v), offset: noOffset}
	}
	return stamps, true, nil
}

// compactLayouts are dates without separators, by their length.
var compactLayouts = map[int]string{4: "2006", 6: "200601", 8: "20060102", 12: "200601021504", 14: "20060102150405"}

// parseCompact reads a column whose numbers, all of one width, are dates
// without separators from the years 1000 to 2999; nil if they are not.
func parseCompact(text *texts, width int) []stamp {
	layout := compactLayouts[width]
	if layout == "" {
		return nil
	}
	stamps := make([]stamp, text.len())
	for i := range stamps {
		t, err := time.Parse(layout, text.at(i))
		if err != nil || t.Year() < 1000 || t.Year() > 2999 {
			return nil
		}
		stamps[i] = stamp{wall: t.Unix(), offset: noOffset}
	}
	return stamps
}

// sinceEpoch reads seconds since 1970, or milliseconds, microseconds or
// nanoseconds if the largest value is too large for them; nil if the values are
// before 1973 even in seconds.
func sinceEpoch(text *texts, values []float64, largest float64) []stamp {
	var scale int64
	switch {
	case largest < 1e8 || largest >= math.MaxInt64:
		return nil
	case largest < 1e11:
		scale = 1
	case largest < 1e14:
		scale = 1e3
	case largest < 1e17:
		scale = 1e6
	default:
		scale = 1e9
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
	return stamps
}

// decimalYears reads years with a fraction; 1949.25 is April 1, 1949 where
// there are twelve or four per year. Steps of whole months become the month's
// first day; other fractions are of that year's length, rounded to the day, or
// to the minute where there is more than one per day.
func decimalYears(values []float64) []stamp {
	steps := map[int]int{}
	for i := 1; i < len(values); i++ {
		if d := values[i] - values[i-1]; d > 0 {
			steps[int(math.Round(1/d*2))]++ // halves: 104 and 105 are weeks
		}
	}
	perYear, most := 0.0, 0
	for s, n := range steps {
		if n > most || n == most && float64(s)/2 < perYear {
			perYear, most = float64(s)/2, n
		}
	}
	stamps := make([]stamp, len(values))
	for i, v := range values {
		year, fraction := math.Floor(v), v-math.Floor(v)
		start := time.Date(int(year), 1, 1, 0, 0, 0, 0, time.UTC)
		seconds := fraction * start.AddDate(1, 0, 0).Sub(start).Seconds()
		wall := start.Unix()
		switch {
		case perYear <= 13:
			wall = start.AddDate(0, monthOf(fraction), 0).Unix()
		case perYear <= 370:
			wall += 86400 * int64(math.Round(seconds/86400))
		default:
			wall += 60 * int64(math.Round(seconds/60))
		}
		stamps[i] = stamp{wall: wall, offset: noOffset}
	}
	return stamps
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
