package data

import (
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	missingValue = "the value is missing"
	missingFix   = "give it, or use --missing interpolate or --missing mask"
)

// panel sorts a table's rows into series, puts them on their time grid and
// handles missing values.
func (t *table) panel(o *ReadOptions) (*Panel, error) {
	if len(t.line) == 0 {
		return nil, t.fault(-1, "", "has a header and no rows", "rows of values are needed")
	}
	p := &Panel{Columns: t.names, Freq: o.Freq, Decimal: t.numbers.separator(), Text: t.separators(), Hints: t.hints(o)}
	groups := t.groups()
	for g, rows := range groups {
		s := t.series(rows)
		if t.ids != nil {
			s.ID = t.ids[g]
		}
		p.Series = append(p.Series, s)
	}
	if err := t.readStatic(p, groups, o); err != nil {
		return nil, err
	}
	if err := t.readTimes(p, groups, o); err != nil {
		return nil, err
	}
	if p.HasTime {
		if err := t.grid(p, o); err != nil {
			return nil, err
		}
	}
	if o.Layout == LayoutColumns {
		t.spread(p, o)
	}
	for _, name := range t.lack {
		p.Columns = append(p.Columns, name)
		for _, s := range p.Series {
			s.Values = append(s.Values, slices.Repeat([]float64{math.NaN()}, s.Len()))
		}
	}
	return p, p.settle(t.file, t.byRow, o)
}

// groups returns the rows of each series, in the file's order; nil rows means
// all rows.
func (t *table) groups() [][]int32 {
	if t.id == nil {
		return [][]int32{nil}
	}
	sizes := make([]int, len(t.ids))
	for _, g := range t.id {
		sizes[g]++
	}
	groups := make([][]int32, len(t.ids))
	for g, n := range sizes {
		groups[g] = make([]int32, 0, n)
	}
	for row, g := range t.id {
		groups[g] = append(groups[g], int32(row))
	}
	return groups
}

// series collects the lines and values of the given rows.
func (t *table) series(rows []int32) *Series {
	if rows == nil {
		return &Series{Line: t.line, Values: t.values}
	}
	s := &Series{Line: make([]int, len(rows))}
	for i, row := range rows {
		s.Line[i] = t.line[row]
	}
	for _, column := range t.values {
		v := make([]float64, len(rows))
		for i, row := range rows {
			v[i] = column[row]
		}
		s.Values = append(s.Values, v)
	}
	return s
}

// readStatic reads each series' static values, which must be constant. A column
// in which some value is a word has categories, among which NA, none and the like
// are words too; in a column of numbers they are missing.
func (t *table) readStatic(p *Panel, groups [][]int32, o *ReadOptions) error {
	for c, name := range o.Static {
		text := t.static[c]
		for g, rows := range groups {
			size := len(rows)
			if rows == nil {
				size = text.len()
			}
			at := rowsOf(rows)
			v := StaticValue{Name: name, Text: text.at(at(0))}
			if v.Text == "" {
				return t.fault(at(0), name, missingValue, staticFix)
			}
			for i := range size {
				if s := text.at(at(i)); s != v.Text {
					return t.fault(at(i), name, fmt.Sprintf("a static column has one value per series, %s comes after %s", quoted(s), quoted(v.Text)), "make it a past or future column")
				}
			}
			p.Series[g].Static = append(p.Series[g].Static, v)
		}
		if err := t.staticNumbers(p, c, groups); err != nil {
			return err
		}
	}
	return nil
}

const staticFix = "a static column needs one for every series"

// staticNumbers reads the numbers of a static column, unless it has words.
func (t *table) staticNumbers(p *Panel, c int, groups [][]int32) error {
	n, column := t.numbers.fixed(), &numberColumn{}
	found := make([]float64, len(p.Series))
	var first *InputError // why a value is no number, though the column may be one of numbers
	some := false
	for g, s := range p.Series {
		v, row := &s.Static[c], rowsOf(groups[g])(0)
		x, fault := n.parse(column, g, t.line[row], v.Text)
		if f, _ := formOf(v.Text); f == noNumber && !isMissing(v.Text) && fault != nil {
			return nil // a word
		}
		if fault == nil && math.IsNaN(x) {
			fault = &cellFault{missingValue, staticFix}
		}
		if fault != nil && first == nil {
			first = t.fault(row, v.Name, fault.problem, fault.fix)
		}
		found[g], some = x, some || fault == nil
	}
	if !some {
		return nil
	}
	if first != nil {
		return first
	}
	for g, s := range p.Series {
		s.Static[c].Number, s.Static[c].Numeric = found[g], true
	}
	return nil
}

// readTimes reads the times of every series, which must ascend.
func (t *table) readTimes(p *Panel, groups [][]int32, o *ReadOptions) error {
	column, err := t.timeColumn(o)
	if err != nil || column == nil {
		return err
	}
	if column.note != "" {
		p.Notes = append(p.Notes, "column "+quoted(o.Time)+": "+column.note)
	}
	stamps := column.stamps
	if column.counted {
		return t.readCounts(p, stamps, groups, o)
	}
	p.HasTime = true
	if p.Freq == (Freq{}) {
		p.Freq = column.freq
	}
	p.Style = column.style
	p.Style.Offset = offsetOf(stamps)
	if o.Zone != nil {
		p.Style.Zone = o.Zone.String()
		if inZone(stamps, o.Zone) {
			p.Style.Offset = VaryingOffsets
		}
	}
	clocks := &clocks{zone: o.Zone, days: daysOnly(stamps)}
	for g, s := range p.Series {
		at := rowsOf(groups[g])
		times := make([]time.Time, s.Len())
		var prev time.Time
		var step time.Duration
		for i := range times {
			now, ok := clocks.instant(stamps[at(i)], prev, step)
			if !ok {
				return t.neverShown(at(i), stamps[at(i)], clocks.days, o)
			}
			if i > 0 && !now.After(prev) {
				return t.disorder(at(i-1), at(i), prev, now, o)
			}
			if i > 0 {
				step = now.Sub(prev)
			}
			times[i], prev = now, now
		}
		s.Time = times
	}
	return nil
}

// timeColumn reads the column of times; nil if there is none.
func (t *table) timeColumn(o *ReadOptions) (*timeColumn, error) {
	switch {
	case t.stamps != nil:
		return &timeColumn{stamps: t.stamps, style: TimeStyle{Layout: typedLayout(t.stamps)}}, nil
	case t.times == nil:
		return nil, nil
	}
	order := orderUnknown
	if o.DayFirst {
		order = dayFirst
	} else if o.MonthFirst {
		order = monthFirst
	}
	column, fault := parseTimes(t.times, t.id, order)
	if fault != nil {
		return nil, t.fault(fault.row, o.Time, fault.problem, fault.fix)
	}
	return column, nil
}

// neverShown returns the error for a local time that clocks skip.
func (t *table) neverShown(row int, s stamp, day bool, o *ReadOptions) error {
	layout, what := time.DateTime, "went forward and never showed "
	if day {
		layout, what = time.DateOnly, "went forward by a day and there was no "
	}
	return t.fault(row, o.Time, fmt.Sprintf("clocks in %s %s%s", o.Zone, what, time.Unix(s.wall, 0).UTC().Format(layout)), "check the time zone, or leave it out if the times do not follow its changes")
}

// rowsOf maps a series' row to the table's row; nil rows means all rows.
func rowsOf(rows []int32) func(i int) int {
	if rows == nil {
		return func(i int) int { return i }
	}
	return func(i int) int { return int(rows[i]) }
}

// readCounts reads a column that only numbers the rows, in equal steps.
func (t *table) readCounts(p *Panel, numbers []stamp, groups [][]int32, o *ReadOptions) error {
	for g, s := range p.Series {
		at := rowsOf(groups[g])
		s.Count = make([]int64, s.Len())
		for i := range s.Count {
			s.Count[i] = numbers[at(i)].wall
			if i == 0 {
				continue
			}
			a, b := s.Count[i-1], s.Count[i]
			if b-a != s.Count[1]-s.Count[0] || b <= a {
				return t.fault(at(i), o.Time, fmt.Sprintf("%d follows %d: row numbers must increase in equal steps", b, a), "sort and complete the rows"+t.orID(o))
			}
		}
	}
	return nil
}

// disorder returns the error for a row whose time is not after that of the
// previous row.
func (t *table) disorder(before, row int, prev, now time.Time, o *ReadOptions) error {
	if !now.Equal(prev) {
		fix := "sort the rows by time" + t.orID(o)
		if o.Zone == nil && prev.Sub(now) < time.Hour {
			fix = "if clocks went back then, give the time zone with --tz, otherwise " + fix
		}
		return t.fault(row, o.Time, fmt.Sprintf("%s comes after the later %s of %s %d", showTime(now), showTime(prev), t.unit(), t.line[before]), fix)
	}
	fix := "remove one" + t.orID(o)
	if o.Zone == nil && clock(now) != 0 {
		fix = "if clocks went back then, give the time zone with --tz, otherwise " + fix
	}
	return t.fault(row, o.Time, fmt.Sprintf("%s appears already in %s %d", showTime(now), t.unit(), t.line[before]), fix)
}

func (t *table) orID(o *ReadOptions) string {
	if o.ID != "" {
		return ""
	}
	return ", or name the column that identifies the series with --id"
}

func (t *table) unit() string {
	if t.byRow {
		return "row"
	}
	return "line"
}

// grid infers the panel's frequency if the options give none, and fills the
// gaps.
func (t *table) grid(p *Panel, o *ReadOptions) error {
	if p.Freq == (Freq{}) {
		var groups [][]time.Time
		for _, s := range p.Series {
			groups = append(groups, s.Time)
		}
		f, fault := infer(groups)
		if fault != nil {
			e := t.fault(-1, o.Time, fault.problem, "give more rows, or the spacing with --freq")
			if fault.row > 0 {
				e.Line = p.Series[fault.group].Line[fault.row]
				e.Fix = "resample the data to even steps"
				if o.Zone == nil {
					e.Fix += ", or give the time zone of the data with --tz"
				}
			}
			return e
		}
		p.Freq = f
	}
	for _, s := range p.Series {
		if err := t.fill(s, p.Freq, o); err != nil {
			return err
		}
	}
	return nil
}

// fill checks that a series' times lie on the grid and inserts rows of NaN
// where some are missing.
func (t *table) fill(s *Series, f Freq, o *ReadOptions) error {
	const spare = 1000 // rows that may be inserted even into a short series
	missing := 0
	for i := 1; i < s.Len(); i++ {
		n, ok := f.steps(s.Time[i-1], s.Time[i])
		fault := &InputError{File: t.file, Line: s.Line[i], Column: o.Time, rows: t.byRow}
		if !ok {
			fault.Problem = fmt.Sprintf("%s does not follow %s in steps of %s", showTime(s.Time[i]), showTime(s.Time[i-1]), f)
			fault.Fix = "resample the data to even steps"
			return fault
		}
		if n == 1 {
			continue
		}
		gap := fmt.Sprintf("%s missing between %s and %s at steps of %s", count(int(n-1), "row"), showTime(s.Time[i-1]), showTime(s.Time[i]), f)
		if o.Missing == MissingError {
			fault.Problem, fault.Fix = gap, "add them, or use --missing interpolate or --missing mask"
			if o.Zone == nil && s.Time[i].Location() == time.UTC && (n-1)*f.N == int64(time.Hour) {
				fault.Fix += ", or --tz if clocks went forward then"
			}
			return fault
		}
		if n-1 > int64(10*s.Len()+spare-missing) {
			fault.Problem, fault.Fix = gap+", more than ten times the number of rows", "cut the series"
			return fault
		}
		missing += int(n - 1)
	}
	if missing > 0 {
		s.widen(f, s.Len()+missing)
	}
	return nil
}

// widen spreads the rows over size rows, with NaN between them.
func (s *Series) widen(f Freq, size int) {
	times, lines := make([]time.Time, 0, size), make([]int, 0, size)
	values := make([][]float64, len(s.Values))
	for c := range values {
		values[c] = make([]float64, 0, size)
	}
	for i, t := range s.Time {
		if i > 0 {
			n, _ := f.steps(s.Time[i-1], t)
			for _, between := range f.After(s.Time[:i], int(n)-1) {
				times, lines = append(times, between), append(lines, 0)
				for c := range values {
					values[c] = append(values[c], math.NaN())
				}
			}
		}
		times, lines = append(times, t), append(lines, s.Line[i])
		for c := range values {
			values[c] = append(values[c], s.Values[c][i])
		}
	}
	s.Time, s.Line, s.Values = times, lines, values
}

// spread turns a panel of one series into LayoutColumns: each column becomes a
// series from its first value to its last, and every series gets the shared
// columns. An open-ended series keeps the rows after its last value, in which those
// may be known; one without values keeps all rows.
func (t *table) spread(p *Panel, o *ReadOptions) {
	open := t.shared > 0 && slices.Contains(o.OpenEnded, ValueColumn)
	all := p.Series[0]
	own := len(all.Values) - t.shared
	p.Series = nil
	for c, v := range all.Values[:own] {
		first, last := 0, len(v)
		for first < last && math.IsNaN(v[first]) {
			first++
		}
		for !open && last > first && math.IsNaN(v[last-1]) {
			last--
		}
		if first == last {
			first, last = 0, len(v)
		}
		s := &Series{ID: t.names[c], Line: all.Line[first:last], Static: all.Static, Values: [][]float64{v[first:last:last]}}
		if all.Time != nil {
			s.Time = all.Time[first:last]
		}
		if all.Count != nil {
			s.Count = all.Count[first:last]
		} else if all.Time == nil { // the rows of series that begin later
			for row := first; row < last; row++ {
				s.Count = append(s.Count, int64(row+1))
			}
		}
		for _, shared := range all.Values[own:] {
			s.Values = append(s.Values, append([]float64(nil), shared[first:last]...))
		}
		p.Series = append(p.Series, s)
	}
	p.Columns = append([]string{ValueColumn}, t.names[own:]...)
}

// settle handles missing values and returns an error for a panel or series that
// has no rows.
func (p *Panel) settle(file string, byRow bool, o *ReadOptions) error {
	if len(p.Series) == 0 {
		return &InputError{File: file, Problem: "has no rows", Fix: "rows of values are needed"}
	}
	if err := p.unique(file, byRow); err != nil {
		return err
	}
	open := make([]bool, len(p.Columns))
	for _, name := range o.OpenEnded {
		c := p.Column(name)
		if c < 0 {
			return unknownColumn(file, name, p.Columns)
		}
		open[c] = true
	}
	sparse := make([]bool, len(p.Columns))
	for _, name := range o.Sparse {
		c := p.Column(name)
		if c < 0 {
			return unknownColumn(file, name, p.Columns)
		}
		open[c], sparse[c] = true, true
	}
	for _, s := range p.Series {
		s.file, s.byRow = file, byRow
		if s.Len() == 0 && !open[0] {
			return &InputError{File: file, Problem: fmt.Sprintf("series %s has no values", quoted(s.ID)), Fix: "leave it out"}
		}
		for c, v := range s.Values {
			if sparse[c] {
				continue
			}
			end := len(v)
			for open[c] && end > 0 && math.IsNaN(v[end-1]) {
				end--
			}
			if err := s.mend(c, v[:end], o.Missing); err != nil {
				err.File, err.Column, err.rows = file, p.Columns[c], byRow
				if o.Layout == LayoutColumns && c == 0 {
					err.Column = s.ID
				} else if len(p.Series) > 1 {
					err.Problem += " in series " + quoted(s.ID)
				}
				return err
			}
		}
	}
	return nil
}

// unique returns an error for two series of the same id, whatever layout they
// come from: everything that is remembered of a series is found by its id.
func (p *Panel) unique(file string, byRow bool) error {
	seen := make(map[string]*Series, len(p.Series))
	for _, s := range p.Series {
		before := seen[s.ID]
		if seen[s.ID] = s; before == nil {
			continue
		}
		e := &InputError{File: file, Problem: fmt.Sprintf("series %s appears twice", quoted(s.ID)), Fix: "give every series a name of its own", rows: byRow}
		if s.Len() > 0 && before.Len() > 0 && s.Line[0] != before.Line[0] {
			e.Line = s.Line[0]
			e.Problem = fmt.Sprintf("series %s appears already in line %d", quoted(s.ID), before.Line[0])
		}
		return e
	}
	return nil
}

// mend handles the missing values of column c, whose rows before its open end are
// v.
func (s *Series) mend(c int, v []float64, how Missing) *InputError {
	known := -1 // the last value that is not missing
	for i := range v {
		if !math.IsNaN(v[i]) {
			known = i
			continue
		}
		if how == MissingError {
			return &InputError{Line: s.Line[i], Problem: missingValue, Fix: missingFix}
		}
		if how == Mask {
			return nil
		}
		next := i + 1
		for next < len(v) && math.IsNaN(v[next]) {
			next++
		}
		switch {
		case next < len(v) && known >= 0:
			for j := i; j < next; j++ {
				w := s.elapsed(known, j) / s.elapsed(known, next)
				v[j] = (1-w)*v[known] + w*v[next]
			}
		case next < len(v):
			for j := i; j < next; j++ {
				v[j] = v[next]
			}
		case known >= 0:
			for j := i; j < next; j++ {
				v[j] = v[known]
			}
		default:
			return &InputError{Problem: "all values are missing", Fix: "leave the column out, or use --missing mask"}
		}
		s.MarkFilled(c, i, next)
	}
	return nil
}

// MarkFilled records that the values of column c in rows [lo,hi) were not measured.
func (s *Series) MarkFilled(c, lo, hi int) {
	if s.Filled == nil {
		s.Filled = make([][]bool, len(s.Values))
	}
	if s.Filled[c] == nil {
		s.Filled[c] = make([]bool, s.Len())
	}
	for i := lo; i < hi; i++ {
		s.Filled[c][i] = true
	}
}

// elapsed returns the time from row a to row b, in rows if they have no times.
func (s *Series) elapsed(a, b int) float64 {
	if s.Time == nil {
		return float64(b - a)
	}
	seconds := s.Time[b].Unix() - s.Time[a].Unix() // a Duration ends at 292 years
	return float64(seconds) + 1e-9*float64(s.Time[b].Nanosecond()-s.Time[a].Nanosecond())
}
