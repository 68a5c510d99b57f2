package forecast

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Forecast is the rows after the last row with a target, for each series.
type Forecast struct {
	Task       string           `json:"task"`                  // the task of the model
	Levels     []float64        `json:"levels"`                // of the quantiles, ascending
	TimeColumn string           `json:"time_column,omitempty"` // the table's column of times; absent if it has none
	IDColumn   string           `json:"id_column,omitempty"`   // the table's column of the series; absent if it has none
	Layout     string           `json:"layout,omitempty"`      // of the table: columns, rows, tsf; absent for one row per time and series
	Series     []SeriesForecast `json:"series"`                // one per series and target, in the table's order
	LeftOut    []string         `json:"left_out,omitempty"`    // series without a forecast, such as those that are too short; notes say why
	Notes      []string         `json:"notes,omitempty"`       // remarks on the result, a sentence each

	text data.Separators // of the table
}

// SeriesForecast is the forecast of one target of one series.
type SeriesForecast struct {
	ID        string      `json:"id"`              // the series; empty if there is only one
	Target    string      `json:"target"`          // the column
	Time      []time.Time `json:"time,omitempty"`  // absent if the table has no times
	Stamp     []string    `json:"stamp,omitempty"` // the times as the table writes them, or the numbers by which it counts its rows; absent if it has neither
	Row       []int       `json:"row"`             // numbers of the rows in the series, from 1
	Point     []float64   `json:"forecast"`        // the forecast values
	Quantiles [][]float64 `json:"quantiles"`       // [level][step]
}

// PredictOptions are the options of a prediction; nil is the zero value.
type PredictOptions struct {
	Reading
	Quantiles []float64 `json:"quantiles" range:"(0..1)" value:"levels" group:"Prediction" help:"levels of the quantiles to forecast, such as 0.1,0.9 (empty: the model's)"`
}

// Forecast forecasts the horizon after the last row with a target, for each
// series of a table with the columns that the model was trained on. With
// Config.NoTargetHistory it computes all rows after that, or all that have a window
// before them if there is no target. Columns that
// are known over the horizon need their values there, in rows without targets. A
// series that lacks such values or is too short is left out; if none is left, that
// is a *data.InputError, as are a table that lacks columns or holds values that the
// model cannot use, and invalid levels. A cancelled ctx returns its error. Intervals
// adapt to the rows that are later than those of the training's table.
// How a file is read (Reading) means nothing to it.
func (m *Model) Forecast(ctx context.Context, panel *data.Panel, o *PredictOptions) (_ *Forecast, err error) {
	defer tensor.Recover(&err)
	task.NeedData(panel, "forecast: Forecast")
	f, _, err := m.forecast(ctx, panel, o, nil)
	return f, err
}

// forecast is Forecast with forecasts that are known, which may be nil. d is the panel's
// data; it is also there with an error about series that cannot be forecast.
func (m *Model) forecast(ctx context.Context, panel *data.Panel, o *PredictOptions, known *knownForecasts) (_ *Forecast, d *dataset, err error) {
	levels, err := m.asked(o)
	if err != nil {
		return nil, nil, err
	}
	levels, note := m.levels(levels)
	if note != "" && o != nil && o.Quantiles != nil {
		return nil, nil, data.Errorf("quantiles: %s", note)
	}
	if d, err = m.dataset(panel, true); err != nil {
		return nil, nil, err
	}
	d.earlier = known
	out := &Forecast{Task: Name, Levels: levels, TimeColumn: m.cfg.Time, IDColumn: m.cfg.idColumn(len(panel.Series)), Layout: m.cfg.Layout, Notes: slices.Clone(panel.Notes), text: panel.Text}
	list, err := m.latest(d, out)
	if err != nil {
		return nil, d, err
	}
	if note != "" {
		out.Notes = append(out.Notes, note)
	}
	at := map[window]int{} // the place of the series' first target in out.Series
	var frames []*frame
	for i, w := range list {
		if i == 0 || list[i-1].frame != w.frame {
			f := d.frames[w.frame]
			frames = append(frames, f)
			for _, target := range m.cfg.targets() {
				out.Series = append(out.Series, SeriesForecast{ID: f.id, Target: target, Quantiles: make([][]float64, len(levels))})
			}
		}
		at[w] = len(out.Series) - d.targets
	}
	belowZero := make([]bool, d.targets)
	_, err = m.adaptive(ctx, d, m.since(d, list), levels, m.spread, func(w window, k int, s *steps) {
		place, asked := at[w]
		if !asked {
			return // the intervals adapt to it
		}
		f, origin := d.frames[w.frame], int(w.origin)
		one := &out.Series[place+k]
		for h := max(s.from, f.end-origin); h < d.horizon; h++ {
			one.Point = append(one.Point, s.point[h])
			belowZero[k] = belowZero[k] || s.belowZero(h)
			one.Row = append(one.Row, origin+h+1)
			if f.times != nil {
				one.Time = append(one.Time, f.times[origin+h].In(f.zone))
			}
			if stamp := f.stamp(origin + h); stamp != "" {
				one.Stamp = append(one.Stamp, stamp)
			}
			for i := range levels {
				one.Quantiles[i] = append(one.Quantiles[i], s.quantiles[h][i])
			}
		}
	})
	var ended []string
	last := 0 // line of the table
	for _, s := range panel.Series {
		if n := s.Len(); n > 0 {
			last = max(last, s.Line[n-1])
		}
	}
	for _, f := range frames {
		// A series that is a column of the table ends with its last value.
		if len(d.Ahead) == 0 && f.end > 0 && (f.end < f.series.Len() || f.isColumn && f.series.Line[f.end-1] < last) {
			ended = append(ended, cmp.Or(f.id, "the table"))
		}
	}
	if len(ended) > 0 {
		out.Notes = append(out.Notes, "the forecast begins after the last row with a target, which is not the last row of "+report.Listing(ended))
	}
	out.Notes = append(out.Notes, d.remarks(&m.cfg, frames)...)
	out.Notes = append(out.Notes, m.belowZero(belowZero)...)
	return out, d, err
}

// mostSince is the largest number of windows of a series that intervals adapt to. It
// does not depend on how many series there are, nor does then a forecast.
const mostSince = 50

// since returns windows and, if intervals adapt, before each those of its series since
// the rows that the model has learnt from.
func (m *Model) since(d *dataset, list []window) []window {
	if m.spread == nil {
		return list
	}
	learnt := 3 // of learnt.find: all rows
	if m.cfg.Refit != refitAll {
		learnt = 1 // those of training and validation
	}
	var all []window
	for _, w := range list {
		f, end := d.frames[w.frame], 0
		if l := m.learnt[f.id]; l != nil {
			if ends, ok := l.find(f, &m.schema.Clocks); ok {
				end = ends[learnt]
			}
		}
		for origin := max(end, d.reach, int(w.origin)-mostSince); origin < int(w.origin); origin++ {
			all = append(all, window{w.frame, int32(origin)})
		}
		all = append(all, w)
	}
	return all
}

// remarks returns remarks on series that are not as those in training.
func (s *schema) remarks(cfg *Config, frames []*frame) (notes []string) {
	var fresh []string
	for _, f := range frames {
		if s.Series[f.id] == nil {
			fresh = append(fresh, f.id)
		}
	}
	if n := len(fresh); n > 0 {
		how := agree(n, "its", "their") + " own rows"
		if cfg.NoTargetHistory {
			how = "the rows of all series in training"
		}
		notes = append(notes, fmt.Sprintf("series %s %s not in training and %s scaled with %s",
			report.Listing(fresh), agree(n, "was", "were"), agree(n, "is", "are"), how))
	}
	for i := range s.Static {
		st := &s.Static[i]
		var unknown []string
		for _, f := range frames {
			if text := f.static[i].Text; st.Categories != nil && st.category(text) == 0 {
				unknown = append(unknown, fmt.Sprintf("%q%s", text, ofSeries(f.id)))
			}
		}
		if n := len(unknown); n > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s %s not in training; taken as an unknown category", st.Name, report.Listing(unknown), agree(n, "was", "were")))
		}
	}
	return notes
}

// Predict forecasts the rows after the table in a file, with [Model.Forecast]. An
// input without a file or stream, and one that cannot be read, are a *data.InputError;
// the other errors are those of that method.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (_ *Forecast, err error) {
	defer tensor.Recover(&err)
	f, _, _, err := m.predict(ctx, in, o, nil)
	return f, err
}

// predict is Predict with what forecast takes and returns, and the table.
func (m *Model) predict(ctx context.Context, in task.Input, o *PredictOptions, known *knownForecasts) (f *Forecast, d *dataset, t *readTable, err error) {
	if t, err = m.read(ctx, in, o); err != nil {
		return nil, nil, nil, err
	}
	f, d, err = m.forecastTable(ctx, t, o, known)
	return f, d, t, data.InFile(cmp.Or(in.File, data.Stdin), err)
}

// readTable is a table as it was read for a prediction.
type readTable struct {
	panel  *data.Panel
	cfg    Config   // the model's, changed by the options
	notes  []string // of reading
	joined bool     // it was read in parts; see streamRows
}

// read reads the table of a prediction.
func (m *Model) read(ctx context.Context, in task.Input, o *PredictOptions) (t *readTable, err error) {
	if in.File == "" && in.Stream == nil && in.Table == nil {
		return nil, data.Errorf("a forecasting model predicts from a file or a stream; give %s", wanted)
	}
	if _, err := m.asked(o); err != nil {
		return nil, err // before the file is read, which is not at fault
	}
	t = &readTable{cfg: m.cfg}
	if err := o.reading().ForReading(&t.cfg); err != nil {
		return nil, err
	}
	var notes task.Source
	t.panel, err = readPanel(ctx, in, &t.cfg, notes.Note)
	t.notes = notes.Notes()
	return t, err
}

// forecastTable is forecast for a table that was read.
func (m *Model) forecastTable(ctx context.Context, t *readTable, o *PredictOptions, known *knownForecasts) (f *Forecast, d *dataset, err error) {
	f, d, err = m.forecast(ctx, t.panel, o, known)
	if f != nil {
		f.TimeColumn, f.IDColumn = t.cfg.Time, t.cfg.idColumn(len(t.panel.Series))
		f.Notes = slices.Concat(t.notes, f.Notes)
		if note := filledNote(t.panel, m.cfg.Window); note != "" {
			f.Notes = append(f.Notes, note)
		}
	}
	return f, d, err
}

// reading returns how the table is read.
func (o *PredictOptions) reading() *Reading {
	if o == nil {
		return &Reading{}
	}
	return &o.Reading
}

// asked returns the levels that a prediction is asked for, ascending.
func (m *Model) asked(o *PredictOptions) ([]float64, error) {
	levels := m.cfg.Quantiles
	if o != nil && o.Quantiles != nil {
		levels = slices.Clone(o.Quantiles)
		slices.Sort(levels)
	}
	return levels, m.checkLevels(levels)
}

func (m *Model) checkLevels(levels []float64) error {
	trained := m.cfg.Quantiles
	for _, q := range levels {
		if !(q > 0 && q < 1) {
			return data.Errorf("quantiles: want levels between 0 and 1, got %v", q)
		}
		if m.cfg.Loss == "quantile" && (q < trained[0] || q > trained[len(trained)-1]) {
			return data.Errorf("quantiles: this model was trained for levels from %v to %v, got %v; train it with quantiles that include it", trained[0], trained[len(trained)-1], q)
		}
	}
	return nil
}

// latest returns the window at the end of each series that has what the model
// needs, and notes in out which series lack it. If all do, it returns an error.
func (m *Model) latest(d *dataset, out *Forecast) ([]window, error) {
	var list []window
	var first error
	var reasons []string
	without := map[string][]string{} // series by reason
	leave := func(id, reason string, err error) {
		first = cmp.Or(first, err)
		if without[reason] == nil {
			reasons = append(reasons, reason)
		}
		without[reason] = append(without[reason], id)
		out.LeftOut = append(out.LeftOut, id)
	}
	ahead := joinAnd(m.cfg.ahead())
	for _, id := range d.empty {
		leave(id, "no value", nil)
	}
	for i, f := range d.frames {
		if m.cfg.NoTargetHistory {
			windows, reason, err := m.driven(d, i)
			if err != nil {
				leave(f.id, reason, err)
			}
			list = append(list, windows...)
			continue
		}
		if f.end < d.reach {
			leave(f.id, fmt.Sprintf("fewer than the %s that the model needs", report.Plural(d.reach, "row")),
				data.Errorf("%s%s are too few: the model needs %d", report.Plural(f.end, "row"), ofSeries(f.id), d.reach))
			continue
		}
		if have := f.rows - f.end; have < d.horizon {
			leave(f.id, fmt.Sprintf("no %s for %s after the last target", ahead, report.Plural(d.horizon, "row")),
				data.Errorf("the model needs %s for %s after the last target%s, and got %d; add rows with these columns filled in and the targets left empty",
					ahead, report.Plural(d.horizon, "row"), ofSeries(f.id), have))
			continue
		}
		if c, h := m.unknownAhead(d, f); c >= 0 {
			name := m.cfg.ahead()[c]
			leave(f.id, "no "+name+" in a row of the horizon", f.fault(name, f.end+h, "the value is missing, within the horizon", "fill it in"))
			continue
		}
		list = append(list, window{int32(i), int32(f.end)})
	}
	if len(list) == 0 {
		return nil, first
	}
	for _, reason := range reasons {
		ids := without[reason]
		out.Notes = append(out.Notes, fmt.Sprintf("no forecast for series %s, which %s %s", report.Listing(ids), agree(len(ids), "has", "have"), reason))
	}
	return list, nil
}

// driven returns the windows that cover the rows of a frame after its last target,
// or all rows that have a window before them if there is no target; or why there are
// none.
func (m *Model) driven(d *dataset, i int) (list []window, reason string, err error) {
	f := d.frames[i]
	hi := f.rows
	if len(f.past) > 0 {
		hi = min(hi, f.knownEnd(&m.cfg)+d.horizon)
	}
	least := d.reach + d.horizon
	switch {
	case hi < least:
		return nil, fmt.Sprintf("fewer than the %s that the model needs", report.Plural(least, "row")),
			data.Errorf("%s%s are too few: the model needs %d, a window of %d and a horizon of %d", report.Plural(hi, "row"), ofSeries(f.id), least, d.reach, d.horizon)
	case hi == f.end:
		return nil, "no row after the last target",
			data.Errorf("there is no row after the last target%s; leave the targets empty in the rows to compute, or leave out the column", ofSeries(f.id))
	}
	for c, gap := range f.aheadGap {
		if row := slices.Index(gap[:hi], 1); row >= 0 && !masked(&m.cfg) {
			name := m.cfg.ahead()[c]
			return nil, "no " + name + " in a row", f.fault(name, row, "the value is missing", "fill it in")
		}
	}
	return d.cover(i, f.end, hi), "", nil
}

// unknownAhead returns the column and the step of the first value that is missing
// over the horizon, where the model needs it; -1 if there is none.
func (m *Model) unknownAhead(d *dataset, f *frame) (column, step int) {
	for c, gap := range f.aheadGap {
		if h := slices.Index(gap[f.end:f.end+d.horizon], 1); h >= 0 && !masked(&m.cfg) {
			return c, h
		}
	}
	return -1, 0
}

// joinAnd joins names with commas and "and".
func joinAnd(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// Remarks returns remarks on the forecast, a sentence each.
func (f *Forecast) Remarks() []string { return f.Notes }

// Print writes a table for each series and target.
func (f *Forecast) Print(w io.Writer) {
	for i := range f.Series {
		s := &f.Series[i]
		fmt.Fprintln(w, strings.TrimSpace(s.ID+" "+s.Target))
		t := report.NewTable(f.key(), "forecast")
		for _, q := range f.Levels {
			t.Columns = append(t.Columns, report.Column{Name: fmt.Sprintf("q%g", q), Number: true})
		}
		all := slices.Concat(s.Point, slices.Concat(s.Quantiles...))
		spread := slices.Max(all) - slices.Min(all)
		for h, y := range s.Point {
			row := []string{s.when(h), shown(y, spread)}
			for i := range f.Levels {
				row = append(row, shown(s.Quantiles[i][h], spread))
			}
			t.Add(row...)
		}
		t.Print(w)
	}
}

// shown returns a number for a table, with digits enough to tell it from others
// that differ by spread.
func shown(y, spread float64) string {
	if spread > 0 && math.Abs(y) > 100*spread {
		return strconv.FormatFloat(y, 'f', max(0, 2-int(math.Floor(math.Log10(spread)))), 64)
	}
	return report.Number(y)
}

// key returns the name of the column that tells the rows of a series apart.
func (f *Forecast) key() string {
	switch {
	case f.TimeColumn != "":
		return f.TimeColumn
	case len(f.Series) > 0 && f.Series[0].Time != nil:
		return "time"
	}
	name := "row"
	for slices.ContainsFunc(f.Series, func(s SeriesForecast) bool { return s.Target == name || s.ID == name }) {
		name += "_number"
	}
	return name
}

// when returns what the column key has for a step.
func (s *SeriesForecast) when(h int) string {
	switch {
	case s.Stamp != nil:
		return s.Stamp[h]
	case s.Time != nil:
		return data.TimeStyle{}.Format(s.Time[h])
	}
	return strconv.Itoa(s.Row[h])
}

// Write writes a CSV table that can be added to the table that was forecast: its
// columns of times and of the series, with the times as it writes them, and its
// targets, which hold the forecasts; then for each target and level a column such
// as units_q0.1. For layout columns each series is a target. Tables without a
// column of times have one called row. Fields and decimals are separated as in that
// table. Its errors are those of w.
func (f *Forecast) Write(w io.Writer) error {
	t := f.table()
	rows := [][]string{t.head}
	for _, l := range t.lines {
		row := []string{l.when}
		if f.IDColumn != "" {
			row = append(row, l.id)
		}
		for k, x := range l.values {
			text := ""
			if l.given[k] {
				text = task.FormatNumber(x)
			}
			if f.text.Decimal == ',' {
				text = strings.Replace(text, ".", ",", 1)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	c := csv.NewWriter(w)
	if f.text.Field != 0 {
		c.Comma = f.text.Field
	}
	return c.WriteAll(rows)
}

// table is a forecast as a table: the column of times, that of the series if there is
// one, and columns of numbers.
type table struct {
	head  []string
	keys  int // of head: the columns before those of numbers
	lines []*line
}

// line is a line of a table. A series that is a column of the table that was forecast may
// have no value in it.
type line struct {
	time     time.Time
	when, id string
	values   []float64
	given    []bool
}

func (f *Forecast) table() *table {
	t := &table{head: []string{f.key()}}
	if f.IDColumn != "" {
		t.head = append(t.head, f.IDColumn)
	}
	at := map[string]int{} // targets
	var names []string
	for i := range f.Series {
		name := f.column(i)
		if _, known := at[name]; !known {
			at[name] = len(names)
			names = append(names, name)
		}
	}
	t.keys = len(t.head)
	t.head = append(t.head, valueColumns(names, f.Levels)...)
	type key struct { // clocks that go back show a time twice
		series, when string
		at           time.Time
	}
	index := map[key]*line{}
	for i := range f.Series {
		s, id, k := &f.Series[i], f.Series[i].ID, at[f.column(i)]
		if f.Layout == data.LayoutColumns {
			id = ""
		}
		for h, y := range s.Point {
			row := key{series: id, when: s.when(h)}
			if s.Time != nil {
				row.at = s.Time[h].UTC()
			}
			to := index[row]
			if to == nil {
				n := len(names) * (1 + len(f.Levels))
				to = &line{time: row.at, when: row.when, id: id, values: make([]float64, n), given: make([]bool, n)}
				index[row] = to
				t.lines = append(t.lines, to)
			}
			put := func(at int, x float64) { to.values[at], to.given[at] = x, true }
			put(k, y)
			for level := range f.Levels {
				put(len(names)+k*len(f.Levels)+level, s.Quantiles[level][h])
			}
		}
	}
	if f.Layout == data.LayoutColumns { // whose series may end at different times
		slices.SortStableFunc(t.lines, func(a, b *line) int { return a.time.Compare(b.time) })
	}
	return t
}

// valueColumns returns the columns of numbers of a forecast: the targets, and for each of
// them the quantiles.
func valueColumns(targets []string, levels []float64) []string {
	columns := slices.Clone(targets)
	for _, name := range targets {
		for _, q := range levels {
			columns = append(columns, name+"_q"+strconv.FormatFloat(q, 'g', -1, 64))
		}
	}
	return columns
}

// column returns the column of the table that a forecast continues.
func (f *Forecast) column(series int) string {
	if f.Layout == data.LayoutColumns {
		return f.Series[series].ID
	}
	return f.Series[series].Target
}
