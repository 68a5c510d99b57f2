package report

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Axis describes one axis of a plot.
type Axis struct {
	Label string
	// Log makes the axis logarithmic; values that are not positive leave gaps.
	Log bool
	// Time interprets values as Unix seconds and labels them with dates and
	// times.
	Time bool
	// Zone is the time zone of a time axis; nil is UTC.
	Zone *time.Location
	// Names are those of the values 0, 1, 2, ...; such an axis has these ticks alone.
	Names []string
	// Zero makes the axis start at zero if no value is negative.
	Zero bool
	// Step is the distance between ticks, such as 3 for hours of a day; 0 chooses
	// one. It is ignored on logarithmic and time axes.
	Step float64
	// Min and Max fix the range; if both are zero it is that of the data. Values
	// outside are drawn at the edge.
	Min, Max float64
}

// Times returns times as Unix seconds, for a time axis.
func Times(ts []time.Time) []float64 {
	out := make([]float64, len(ts))
	for i, t := range ts {
		out[i] = float64(t.UnixNano()) / 1e9
		if y := t.Year(); y < 1700 || y > 2200 { // outside of what UnixNano holds
			out[i] = float64(t.Unix())
		}
	}
	return out
}

// finite reports whether v is a number whose range can be computed without
// overflow.
func finite(v float64) bool { return math.Abs(v) < 1e300 }

// extent is the range of all finite values added.
type extent struct {
	lo, hi float64
	any    bool
	whole  bool // all values seen were integers
	log    bool // only positive values count
}

func newExtent(log bool) extent { return extent{whole: true, log: log} }

func (e *extent) add(v float64) {
	if !finite(v) || e.log && v <= 0 {
		return
	}
	if !e.any {
		e.lo, e.hi, e.any = v, v, true
	}
	e.lo, e.hi = min(e.lo, v), max(e.hi, v)
	e.whole = e.whole && v == math.Trunc(v)
}

// scale maps values to pixels.
type scale struct {
	axis   Axis
	lo, hi float64 // values (their logarithms on a log axis) at the two ends
	p0, p1 float64 // pixels at the two ends
	whole  bool    // ticks only at integers
}

// newScale makes a scale for the extent, with a margin of pad times its length at
// both ends.
func newScale(a Axis, e extent, pad float64) scale {
	if len(a.Names) > 0 {
		a.Log, a.Time, a.Min, a.Max = false, false, -0.5, float64(len(a.Names))-0.5
	}
	lo, hi := e.lo, e.hi
	if !e.any {
		lo, hi = 0, 1
		if a.Log {
			lo, hi = 1, 10
		}
	}
	fixed := a.Max > a.Min && finite(a.Min) && finite(a.Max) && (!a.Log || a.Min > 0)
	if fixed {
		lo, hi, pad = a.Min, a.Max, 0
	}
	s := scale{axis: a, whole: e.whole && e.any && !a.Log && !a.Time}
	if a.Log {
		lo, hi = math.Log10(lo), math.Log10(hi)
	}
	if hi-lo <= 1e-12*max(math.Abs(lo), math.Abs(hi)) { // constant
		d := 0.5
		if !a.Log {
			d = max(math.Abs(lo)*0.1, 0.5)
		}
		if s.whole {
			d = max(math.Round(d), 1)
		}
		lo, hi = lo-d, hi+d
	}
	margin := (hi - lo) * pad
	s.lo, s.hi = lo-margin, hi+margin
	if !fixed && !a.Log && lo >= 0 && (a.Zero || s.lo < 0) {
		s.lo = 0 // also if only the margin is below
	}
	return s
}

// at returns the pixel of a value, limited to the ends of the axis; ok is false
// for a value that the axis cannot show.
func (s scale) at(v float64) (px float64, ok bool) {
	if !finite(v) || s.axis.Log && v <= 0 {
		return 0, false
	}
	if s.axis.Log {
		v = math.Log10(v)
	}
	f := min(max((v-s.lo)/(s.hi-s.lo), 0), 1)
	return s.p0 + f*(s.p1-s.p0), true
}

// inside reports whether a value is within the ends of the axis.
func (s scale) inside(v float64) bool {
	if s.axis.Log {
		v = math.Log10(v)
	}
	slack := (s.hi - s.lo) * 1e-9
	return v >= s.lo-slack && v <= s.hi+slack
}

// tick is a labelled position on an axis.
type tick struct {
	value float64
	label string
}

// ticks returns about n ticks, never more than 2n+3, or three times that for
// powers of ten.
func (s scale) ticks(n int) []tick {
	n = max(n, 2)
	var all []tick
	switch {
	case len(s.axis.Names) > 0:
		every := (len(s.axis.Names) + 2*n + 2) / (2*n + 3)
		for i := 0; i < len(s.axis.Names); i += every {
			all = append(all, tick{float64(i), s.axis.Names[i]})
		}
	case s.axis.Log:
		all = logTicks(s.lo, s.hi, n)
	case s.axis.Time && max(math.Abs(s.lo), math.Abs(s.hi)) < 2e11:
		all = timeTicks(s.lo, s.hi, n, s.axis.Zone)
	default:
		step := niceStep((s.hi - s.lo) / float64(n))
		if s.whole {
			step = max(step, 1)
		}
		if s.axis.Step > 0 && (s.hi-s.lo)/s.axis.Step <= 2*float64(n) {
			step = s.axis.Step
		}
		all = numberTicks(s.lo, s.hi, n, step)
	}
	kept := all[:0]
	for _, t := range all {
		if s.inside(t.value) {
			kept = append(kept, t)
		}
	}
	return kept
}

// numberTicks returns ticks at multiples of step, at most 2n+3.
func numberTicks(lo, hi float64, n int, step float64) []tick {
	format := formatter(max(math.Abs(lo), math.Abs(hi)), step)
	var ts []tick
	first := math.Ceil(lo/step - 1e-9)
	for i := 0; i <= 2*n+2; i++ {
		v := (first + float64(i)) * step
		if v > hi+step*1e-9 || first+float64(i) == first+float64(i)+1 {
			break
		}
		ts = append(ts, tick{v, format(v)})
	}
	return ts
}

// niceStep returns the least of 1, 2 or 5 times a power of ten that is not below
// raw.
func niceStep(raw float64) float64 {
	mag := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if m*mag >= raw*(1-1e-9) {
			return m * mag
		}
	}
	return 10 * mag
}

// formatter returns a function that formats numbers up to limit so that
// neighbours a step apart differ: with thousands separators, and with a unit
// suffix from a million on.
func formatter(limit, step float64) func(float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}} {
		if limit >= u.size && limit < 1e15 && step >= u.size/1e4 {
			d := decimals(step / u.size)
			return func(v float64) string { return fixed(v/u.size, d) + u.name }
		}
	}
	if limit >= 1e9 || step < 1e-5 {
		return func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
	}
	d := decimals(step)
	return func(v float64) string { return fixed(v, d) }
}

// decimals returns the number of decimal places that distinguish multiples of
// step.
func decimals(step float64) int {
	return min(max(0, int(math.Ceil(-math.Log10(step)-1e-9))), 12)
}

// fixed formats v with d decimal places and thousands separators.
func fixed(v float64, d int) string {
	s := strconv.FormatFloat(v, 'f', d, 64)
	if strings.Trim(s, "-0.") == "" {
		s = strings.TrimPrefix(s, "-")
	}
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "−", s[1:]
	}
	whole, frac, found := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if found {
		whole += "." + frac
	}
	return sign + whole
}

// logTicks returns ticks at powers of ten between 10^lo and 10^hi, and at 2 and 5
// times these if there is room.
func logTicks(lo, hi float64, n int) []tick {
	first, last := int(math.Floor(lo)), int(math.Ceil(hi))
	every := max(1, (last-first+n-1)/n)
	factors := []float64{1}
	if hi-lo < float64(n)/3 {
		factors = []float64{1, 2, 5}
	}
	var ts []tick
	visible := 0
	for e := first; e <= last; e += every {
		for _, f := range factors {
			v := f * math.Pow(10, float64(e))
			if l := math.Log10(v); l >= lo-1e-9 && l <= hi+1e-9 {
				visible++
			}
			ts = append(ts, tick{v, logLabel(v)})
		}
	}
	if visible < 2 && math.Pow(10, lo) > 0 { // a narrow range: linear ticks
		a, b := math.Pow(10, lo), math.Pow(10, hi)
		return numberTicks(a, b, n, niceStep((b-a)/float64(n)))
	}
	return ts
}

func logLabel(v float64) string {
	if v >= 1e-4 && v < 1e6 {
		return fixed(v, decimals(math.Pow(10, math.Floor(math.Log10(v)+1e-9))))
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// timeSteps are the distances between ticks on a time axis.
var timeSteps = []struct{ seconds, days, months int }{
	{seconds: 1}, {seconds: 5}, {seconds: 15}, {seconds: 30},
	{seconds: 60}, {seconds: 300}, {seconds: 900}, {seconds: 1800},
	{seconds: 3600}, {seconds: 2 * 3600}, {seconds: 3 * 3600}, {seconds: 6 * 3600}, {seconds: 12 * 3600},
	{days: 1}, {days: 2}, {days: 7}, {days: 14},
	{months: 1}, {months: 2}, {months: 3}, {months: 6},
	{months: 12}, {months: 24}, {months: 60}, {months: 120}, {months: 240}, {months: 600}, {months: 1200}, {months: 6000},
}

// timeTicks returns ticks at round clock times, days, Mondays, months or years.
// The first label with a day also has the year.
func timeTicks(lo, hi float64, n int, zone *time.Location) []tick {
	if zone == nil {
		zone = time.UTC
	}
	step := timeSteps[len(timeSteps)-1]
	for _, s := range timeSteps {
		length := float64(s.seconds) + 86400*float64(s.days) + 30.4375*86400*float64(s.months)
		if (hi-lo)/length <= float64(n) {
			step = s
			break
		}
	}
	start := time.Unix(int64(math.Floor(lo)), 0).In(zone)
	y, m, d := start.Date()
	// dayNumber keeps ticks in place when the range moves; day 4 was a Monday.
	dayNumber := int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix()/86400) - 4
	var at func(i int) time.Time
	switch {
	case step.seconds > 0:
		seconds := start.Hour()*3600 + start.Minute()*60 + start.Second()
		seconds -= seconds % step.seconds
		at = func(i int) time.Time { return time.Date(y, m, d, 0, 0, seconds+i*step.seconds, 0, zone) }
	case step.days > 0:
		back := ((dayNumber % step.days) + step.days) % step.days
		at = func(i int) time.Time { return time.Date(y, m, d-back+i*step.days, 0, 0, 0, 0, zone) }
	default:
		month := y*12 + int(m) - 1
		month -= month % step.months
		at = func(i int) time.Time { return time.Date(0, time.Month(1+month+i*step.months), 1, 0, 0, 0, 0, zone) }
	}
	var ts []tick
	dated := false
	last := math.Inf(-1)
	for i := 0; i <= 2*n+2; i++ {
		t := at(i)
		v := float64(t.Unix())
		if v < lo || v <= last { // before the axis, or an hour that the clock skips
			continue
		}
		if v > hi {
			break
		}
		last = v
		var label string
		switch midnight := t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0; {
		case step.months >= 12:
			label = t.Format("2006")
		case step.months > 0:
			label = t.Format("Jan 2006")
		case step.days > 0 || midnight:
			label = t.Format("2 Jan")
			if !dated {
				label = t.Format("2 Jan 2006")
			}
			dated = true
		case step.seconds >= 60:
			label = t.Format("15:04")
		default:
			label = t.Format("15:04:05")
		}
		ts = append(ts, tick{v, label})
	}
	if !dated && step.seconds > 0 && len(ts) > 0 {
		ts[0].label = time.Unix(int64(ts[0].value), 0).In(zone).Format("2 Jan 2006 ") + ts[0].label
	}
	return ts
}
