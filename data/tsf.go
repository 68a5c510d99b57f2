package data

import (
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// tsf is the head of a file in the Monash forecasting repository's format
// (Godahewa et al., 2021): lines of directives, then after @data one line per
// series: its attributes and comma-separated values, separated by colons.
type tsf struct {
	in         *LineReader
	attributes []string // @attribute names in order
	kinds      []string // string, numeric or date
	horizon    string   // of @horizon; "" if the file has none
	freq       Freq
	style      TimeStyle // of the last start
}

// Attributes with a predefined meaning.
const (
	tsfName  = "series_name"
	tsfStart = "start_timestamp"
)

// readLine returns the next line that is not a comment, trimmed; io.EOF ends
// the lines.
func (f *tsf) readLine() (string, error) {
	for {
		s, err := f.in.Next()
		if s = strings.TrimSpace(s); err != nil || s != "" && s[0] != '#' {
			return s, err
		}
	}
}

func (f *tsf) fault(column, problem, fix string) *InputError {
	return &InputError{File: f.in.File, Line: f.in.Line, Column: column, Problem: problem, Fix: fix}
}

// openTSF reads the directives up to @data.
func openTSF(in *LineReader) (*tsf, error) {
	f := &tsf{in: in}
	for {
		s, err := f.readLine()
		if err == io.EOF {
			if in.Line == 0 {
				return nil, &InputError{File: in.File, Problem: "is empty", Fix: "a .tsf file has directives, @data, and a line for every series"}
			}
			return nil, &InputError{File: in.File, Problem: "has no @data line", Fix: "a .tsf file has directives, @data, and a line for every series"}
		}
		if err != nil {
			return nil, err
		}
		words := strings.Fields(s)
		argument := ""
		if len(words) > 1 {
			argument = words[1]
		}
		switch strings.ToLower(words[0]) {
		case "@data":
			return f, nil
		case "@attribute":
			if len(words) != 3 {
				return nil, f.fault("", "want @attribute NAME TYPE, got "+quoted(s), "")
			}
			kind := strings.ToLower(words[2])
			if kind != "string" && kind != "numeric" && kind != "date" {
				return nil, f.fault("", "an attribute is string, numeric or date, not "+quoted(words[2]), "")
			}
			f.attributes, f.kinds = append(f.attributes, words[1]), append(f.kinds, kind)
		case "@frequency":
			if f.freq, err = tsfFreq(argument); err != nil {
				return nil, f.fault("", err.Error(), "")
			}
		case "@horizon":
			f.horizon = argument
		case "@relation", "@missing", "@equallength":
			// The values themselves show this.
		default:
			return nil, f.fault("", quoted(words[0])+" is not a directive of a .tsf file", "they are @relation, @attribute, @frequency, @horizon, @missing, @equallength and @data")
		}
	}
}

var tsfFreqs = map[string]Freq{
	"yearly": {Month, 12}, "quarterly": {Month, 3}, "monthly": {Month, 1}, "weekly": {Day, 7}, "daily": {Day, 1},
	"hourly": Every(time.Hour), "half_hourly": Every(30 * time.Minute), "minutely": Every(time.Minute), "secondly": Every(time.Second),
}

var tsfCount = regexp.MustCompile(`^(\d{1,6})_(second|minute|hour|day|week|month|quarter|year)s?$`)

var tsfUnits = map[string]Freq{
	"second": Every(time.Second), "minute": Every(time.Minute), "hour": Every(time.Hour),
	"day": {Day, 1}, "week": {Day, 7}, "month": {Month, 1}, "quarter": {Month, 3}, "year": {Month, 12},
}

// tsfFreq parses @frequency: a word such as hourly, or a count such as
// 10_minutes.
func tsfFreq(s string) (Freq, error) {
	s = strings.ToLower(s)
	if f, ok := tsfFreqs[s]; ok {
		return f, nil
	}
	if m := tsfCount.FindStringSubmatch(s); m != nil {
		if n, _ := strconv.ParseInt(m[1], 10, 64); n > 0 {
			f := tsfUnits[m[2]]
			return Freq{f.Unit, n * f.N}, nil
		}
	}
	return Freq{}, fmt.Errorf("@frequency %s is not known, such as half_hourly, daily and 10_minutes are", quoted(s))
}

// readTSF reads a whole .tsf file. Series that have a start_timestamp have
// times.
func readTSF(in *LineReader, o *ReadOptions) (*Panel, error) {
	if err := bareLayout(in.File, o); err != nil {
		return nil, err
	}
	f, err := openTSF(in)
	if err != nil {
		return nil, err
	}
	if o.ID != "" && o.ID != tsfName {
		return nil, unknownColumn(in.File, o.ID, []string{tsfName})
	}
	static, err := f.statics(o)
	if err != nil {
		return nil, err
	}
	p := &Panel{Columns: []string{ValueColumn}, Freq: f.freq}
	if o.Freq != (Freq{}) {
		p.Freq = o.Freq
	}
	for {
		line, err := f.readLine()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		s, err := f.series(line, static, p.Freq, o)
		if err != nil {
			return nil, err
		}
		if s.ID == "" {
			s.ID = strconv.Itoa(len(p.Series) + 1)
		}
		if p.HasTime = s.Time != nil; p.HasTime {
			p.Style = f.style
			if o.Zone != nil {
				p.Style.Zone = o.Zone.String()
			}
		}
		p.Series = append(p.Series, s)
	}
	return p, p.settle(in.File, false, o)
}

// statics returns the attributes to read as static values.
func (f *tsf) statics(o *ReadOptions) ([]string, error) {
	var all []string
	for _, name := range f.attributes {
		if name != tsfName && name != tsfStart {
			all = append(all, name)
		}
	}
	if f.horizon != "" {
		all = append(all, "horizon")
	}
	if o.Static == nil {
		return all, nil
	}
	for _, name := range o.Static {
		found := false
		for _, a := range all {
			found = found || a == name
		}
		if !found {
			return nil, unknownColumn(f.in.File, name, all)
		}
	}
	return o.Static, nil
}

// series parses a line of data.
func (f *tsf) series(line string, static []string, freq Freq, o *ReadOptions) (*Series, error) {
	parts := strings.Split(line, ":")
	if len(parts) != len(f.attributes)+1 {
		return nil, f.fault("", fmt.Sprintf("want %s and the values, divided by colons, got %s", count(len(f.attributes), "attribute"), count(len(parts), "part")), "")
	}
	s := &Series{}
	known := map[string]StaticValue{"horizon": staticValue("horizon", f.horizon)}
	var start time.Time
	for i, name := range f.attributes {
		text := strings.TrimSpace(parts[i])
		switch {
		case name == tsfName:
			s.ID = text
		case name == tsfStart:
			t, err := f.start(text, o)
			if err != nil {
				return nil, err
			}
			start = t
		case f.kinds[i] == "numeric" && !staticValue(name, text).Numeric:
			return nil, f.fault(name, quoted(text)+" is not a number", "correct the attribute")
		default:
			known[name] = staticValue(name, text)
			if f.kinds[i] == "string" {
				known[name] = StaticValue{Name: name, Text: text}
			}
		}
	}
	for _, name := range static {
		s.Static = append(s.Static, known[name])
	}
	values, err := f.values(parts[len(parts)-1], o)
	if err != nil {
		return nil, err
	}
	s.Values, s.Line = [][]float64{values}, make([]int, len(values))
	for i := range s.Line {
		s.Line[i] = f.in.Line
	}
	if start.IsZero() {
		return s, nil
	}
	if freq == (Freq{}) {
		return nil, f.fault(tsfStart, "a start needs @frequency", "add the directive")
	}
	s.Time = make([]time.Time, len(values))
	for i := range s.Time {
		s.Time[i] = freq.Add(start, i)
	}
	return s, nil
}

func staticValue(name, text string) StaticValue {
	v := StaticValue{Name: name, Text: text}
	if x, err := strconv.ParseFloat(text, 64); err == nil && isNumber(text) && !math.IsInf(x, 0) {
		v.Number, v.Numeric = x, true
	}
	return v
}

// start parses a start_timestamp, whose time of day has dashes because colons
// separate the fields of a line.
func (f *tsf) start(text string, o *ReadOptions) (time.Time, error) {
	date, clock, hasClock := strings.Cut(text, " ")
	p := timeParser{}
	if hasClock {
		date += " " + strings.ReplaceAll(clock, "-", ":")
	}
	one, ok := p.parse(date)
	if !ok || p.ordered {
		return time.Time{}, f.fault(tsfStart, p.fault(text), "write starts as 2006-01-02 15-04-05")
	}
	stamps := []stamp{one}
	clocks := clocks{zone: o.Zone, days: daysOnly(stamps)}
	f.style = TimeStyle{Layout: typedLayout(stamps), Offset: offsetOf(stamps)}
	if f.freq.Unit == Nanosecond && f.style.Layout == time.DateOnly {
		f.style.Layout = plainLayout
	}
	t, ok := clocks.instant(one, time.Time{}, 0)
	if !ok || t.IsZero() {
		return time.Time{}, f.fault(tsfStart, "there was no such time as "+quoted(text), "check the time zone")
	}
	return t, nil
}

func (f *tsf) values(text string, o *ReadOptions) ([]float64, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	n, c := numbers{decimal: '.', given: true}, &numberColumn{}
	values := make([]float64, 0, strings.Count(text, ",")+1)
	for cell := range strings.SplitSeq(text, ",") {
		v, fault := n.parse(c, len(values), f.in.Line, cell)
		if fault == nil && math.IsNaN(v) && o.Missing == MissingError {
			fault = &cellFault{missingValue, missingFix}
		}
		if fault != nil {
			return nil, f.fault("", fmt.Sprintf("value %d: %s", len(values)+1, fault.problem), fault.fix)
		}
		values = append(values, v)
	}
	return values, nil
}
