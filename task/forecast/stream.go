package forecast

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// stream forecasts a table whose rows arrive one by one. It keeps the rows at the end of
// each series that a forecast depends on: the window and the lags, and before them as many
// rows as there are forecasts to whose errors intervals adapt. These forecasts are kept as
// well, so that a row costs one window of the network. So a forecast is that of the
// table of all rows, bit for bit, and costs the same however many there are.
// The rows are read once (streamRows), where that is certain to make no difference.
//
// Some forecasts depend on all rows: those with smoothing or drift in their mixture, with
// seasons of values that may be missing, and of a series that was not in training, which
// is scaled by its rows. They are those of the last rows, at least fittedRows.
//
// Rows without a target at the end of a part, which a model with future columns needs,
// belong to this part alone: rows of the same times with targets may follow.
type stream struct {
	m      *Model
	fitted int            // fittedRows
	table  []task.Column  // the rows kept
	before map[string]int // rows of each series that were let go
	rows   *streamRows    // the same as they were read; nil: not known
	known  knownForecasts
}

const (
	fittedRows = 1024
	mostKept   = 1 << 20 // rows, where a column has had no value for as long
)

// newStream returns the constructor of streams; nil for models that have none: each
// row of theirs is a series, or is computed from columns of the same row.
func (m *Model) newStream() func() task.Stream {
	if m.cfg.NoTargetHistory || m.cfg.Layout == data.LayoutRows || m.cfg.Layout == data.LayoutTSF {
		return nil
	}
	return func() task.Stream { return &stream{m: m, fitted: fittedRows, before: map[string]int{}} }
}

// Feed adds the rows of in.Table and returns the forecast after them. As long as no series
// has the rows that the model needs, it is without series, and a note says how many lack.
func (s *stream) Feed(ctx context.Context, p *task.Portion) (_ task.Prediction, err error) {
	defer tensor.Recover(&err)
	o, _ := p.Options.(*PredictOptions)
	table, err := s.with(p.Table)
	if err != nil {
		return nil, err
	}
	f, d, t, known, err := s.predict(ctx, table, o)
	reach := 0
	if d != nil {
		reach = d.reach
	}
	most := 0 // rows of a series
	if err != nil && d != nil {
		for _, f := range d.frames {
			most = max(most, f.end)
		}
	}
	if err != nil && (d == nil || most >= reach || ctx.Err() != nil) {
		return nil, err
	}
	if err != nil {
		lack := reach - most
		f = &Forecast{Task: Name, Levels: []float64{}, Series: []SeriesForecast{}, TimeColumn: s.m.cfg.Time, IDColumn: s.m.cfg.idColumn(len(t.panel.Series)), Layout: s.m.cfg.Layout,
			Notes: []string{fmt.Sprintf("%s before the first forecast", report.Agree(lack, "more row is needed", "more rows are needed"))}}
		f.Levels, _ = s.m.levels(s.m.cfg.Quantiles)
	}
	for i := range f.Series {
		for h := range f.Series[i].Row {
			f.Series[i].Row[h] += s.before[f.Series[i].ID]
		}
	}
	if p.Last {
		*s = stream{m: s.m, fitted: s.fitted, before: map[string]int{}}
		return f, nil
	}
	return f, s.keep(ctx, table, t, d, o.reading(), known)
}

// predict returns the prediction for a table that begins with the rows kept, the table as
// it was read, and the forecasts known then.
func (s *stream) predict(ctx context.Context, table []task.Column, o *PredictOptions) (*Forecast, *dataset, *readTable, *knownForecasts, error) {
	known := s.known.of(s.before)
	if len(s.table) > 0 {
		if t := s.rows.with(ctx, table, s.table[0].Len(), o.reading()); t != nil {
			// Errors are those of the whole table.
			if f, d, err := s.m.forecastTable(ctx, t, o, known); err == nil {
				return f, d, t, known, nil
			}
			known = s.known.of(s.before)
		}
	}
	f, d, t, err := s.m.predict(ctx, task.Input{Table: table}, o, known)
	if err != nil && d == nil && s.m.schema.HasTime && o.reading().Freq == (data.Freq{}) && table[0].Len() < s.m.net.dims.reach {
		spaced := PredictOptions{} // the first row alone does not show how far apart rows are
		if o != nil {
			spaced = *o
		}
		spaced.Freq = s.m.schema.Freq
		if f1, d1, t1, err1 := s.m.predict(ctx, task.Input{Table: table}, &spaced, known); d1 != nil {
			f, d, t, err = f1, d1, t1, err1
		}
	}
	return f, d, t, known, err
}

// with returns the rows kept with further ones behind them. The columns are those of the
// first part, in any order.
func (s *stream) with(rows []task.Column) ([]task.Column, error) {
	if len(rows) == 0 && len(s.table) == 0 {
		return nil, data.Errorf("there is no row: give the columns of the table")
	}
	for i := range rows {
		c := &rows[i]
		switch {
		case c.Len() != rows[0].Len():
			return nil, data.Errorf("the columns of a table have as many rows: %s has %d, and %s %d", rows[0].Name, rows[0].Len(), c.Name, c.Len())
		case slices.ContainsFunc(rows[:i], func(other task.Column) bool { return other.Name == c.Name }):
			return nil, data.Errorf("column %q is there twice", c.Name)
		case slices.ContainsFunc(c.Texts, func(text string) bool { return strings.ContainsAny(text, "\r\n") }):
			return nil, data.Errorf("column %q: a value has a line break; leave it out", c.Name)
		}
	}
	if len(s.table) == 0 {
		return slices.Clone(rows), nil
	}
	table := make([]task.Column, len(s.table))
	for i, kept := range s.table {
		table[i] = kept
		if len(rows) == 0 {
			continue
		}
		at := slices.IndexFunc(rows, func(c task.Column) bool { return c.Name == kept.Name })
		switch {
		case at < 0 || len(rows) != len(s.table):
			return nil, data.Errorf("the columns are not those of the rows before, %s; give the same in every request of a session", names(s.table))
		case (rows[at].Numbers == nil) == (kept.Numbers == nil):
			table[i].Numbers, table[i].Texts = slices.Concat(kept.Numbers, rows[at].Numbers), slices.Concat(kept.Texts, rows[at].Texts)
		default:
			return nil, data.Errorf("column %q holds numbers in one request and texts in another; give the same in every request of a session", kept.Name)
		}
	}
	return table, nil
}

func names(table []task.Column) string {
	var list []string
	for _, c := range table {
		list = append(list, c.Name)
	}
	return strings.Join(list, ", ")
}

// keep keeps the rows of the table, read as t and d, that further forecasts depend on.
func (s *stream) keep(ctx context.Context, table []task.Column, t *readTable, d *dataset, by *Reading, known *knownForecasts) error {
	n := table[0].Len()
	drop := make([]bool, n)
	if len(d.Ahead) > 0 {
		for _, f := range d.frames {
			for _, line := range f.series.Line[f.end:] {
				if line > 1 {
					drop[line-2] = true
				}
			}
		}
	}
	before := maps.Clone(s.before)
	if begins := s.begins(t.panel, d); begins != nil {
		shorter := slices.Clone(drop)
		for i, f := range d.frames {
			for _, line := range f.series.Line[:begins[i]] {
				if line > 1 {
					shorter[line-2] = true
				}
			}
			before[f.id] += begins[i]
		}
		kept := rest(table, shorter)
		if read := s.same(ctx, kept, by, d, begins); read != nil {
			s.table, s.before, s.rows = kept, before, s.rows.after(kept, read, by)
			s.known.take(known, s.before, d)
			return nil
		}
	}
	if n > mostKept {
		return data.Errorf("the session keeps more than %d rows, as a column has had no value for as long; end it and begin another", mostKept)
	}
	var rows *streamRows
	if by.Freq != (data.Freq{}) || t.cfg.Freq == s.m.cfg.Freq { // else the spacing was not that of the rows
		rows = s.rows.after(table, t, by)
	}
	if s.table = table; slices.Contains(drop, true) {
		s.table, rows = rest(table, drop), rows.without(drop, d.frames)
	}
	s.rows = rows
	s.known.take(known, s.before, d)
	return nil
}

// rest returns the rows that are not dropped.
func rest(table []task.Column, drop []bool) []task.Column {
	list := make([]task.Column, len(table))
	for i, c := range table {
		list[i].Name = c.Name
		for row, gone := range drop {
			switch {
			case gone:
			case c.Texts != nil:
				list[i].Texts = append(list[i].Texts, c.Texts[row])
			default:
				list[i].Numbers = append(list[i].Numbers, c.Numbers[row])
			}
		}
	}
	return list
}

// begins returns, by frame, the row from which a series is needed; nil if no series has
// more rows before it than after it.
func (s *stream) begins(panel *data.Panel, d *dataset) []int {
	if len(d.empty) > 0 || len(d.frames) != len(panel.Series) {
		return nil
	}
	begins := make([]int, len(d.frames))
	some := false
	for i, f := range d.frames {
		need := s.need(d, f)
		begin := max(0, f.end-need)
		for _, name := range slices.Concat(s.m.cfg.targets(), s.m.cfg.Past, s.m.cfg.ahead()) {
			c := panel.Column(name)
			begin = min(begin, lastGiven(f.series, c, begin))
		}
		for begin > 0 && f.series.Line[begin] == 0 {
			begin--
		}
		begins[i] = begin
		some = some || begin > need
	}
	if !some {
		return nil
	}
	if s.m.cfg.Layout == data.LayoutColumns { // the series share the lines
		least := math.MaxInt
		for i, f := range d.frames {
			least = min(least, f.series.Line[begins[i]])
		}
		for i, f := range d.frames {
			begins[i] = max(0, slices.IndexFunc(f.series.Line, func(line int) bool { return line >= least }))
		}
	}
	return begins
}

// lastGiven returns the last row up to row with a value of the column that was not made.
func lastGiven(series *data.Series, column, row int) int {
	made := series.Made(column)
	for ; row > 0; row-- {
		if !math.IsNaN(series.Values[column][row]) && (made == nil || !made[row]) {
			break
		}
	}
	return row
}

// need returns the number of rows at the end of a series that forecasts depend on.
func (s *stream) need(d *dataset, f *frame) int {
	m := s.m
	need := max(d.reach, m.cfg.Window+1)
	if m.spread != nil {
		need += mostSince
		if l := m.learnt[f.id]; l != nil && l.Rows != nil { // by whose blocks its place is found
			need += 2 * l.block()
		}
	}
	if m.schema.Series[f.id] == nil {
		need = max(need, s.fitted)
	}
	for k := range m.cfg.targets() {
		for _, p := range simpleParts(m.parts(f.id, k)) {
			switch season := d.method(p.Method).season; {
			case season > 0 && m.cfg.Missing == "error":
				need = max(need, mostSince+lagBack(season, d.horizon))
			case p.Method != "naive":
				need = max(need, s.fitted)
			}
		}
	}
	return need
}

// same returns rows as they are read, if that is as they were among those before them:
// dates and the spacing of rows are recognised by all rows of a table.
func (s *stream) same(ctx context.Context, table []task.Column, by *Reading, d *dataset, begins []int) *readTable {
	t, err := s.m.read(ctx, task.Input{Table: table}, &PredictOptions{Reading: *by})
	if err != nil || len(t.panel.Series) != len(d.frames) {
		return nil
	}
	for i, f := range d.frames {
		one, all := t.panel.Series[i], f.series
		if one.ID != all.ID || t.panel.Style != f.style || t.panel.Freq != f.freq || one.Len() > all.Len()-begins[i] ||
			!slices.Equal(one.Count, at(all.Count, begins[i], one.Len())) || !slices.EqualFunc(one.Time, at(all.Time, begins[i], one.Len()), time.Time.Equal) || !slices.Equal(one.Static, all.Static) {
			return nil
		}
	}
	return t
}

// at returns n elements from one on; nil of nil.
func at[T any](x []T, from, n int) []T {
	if x == nil {
		return nil
	}
	return x[from : from+n]
}

// Bytes returns the memory of the rows, as they came and as they were read, and of the
// forecasts kept.
func (s *stream) Bytes() int {
	n := 256 + 32*len(s.before)
	for _, c := range s.table {
		n += 64 + 8*len(c.Numbers)
		for _, text := range c.Texts {
			n += 16 + len(text)
		}
	}
	return n + s.rows.bytes() + s.known.bytes()
}

// streamState is a stream as it is written: the rows as texts, so that numbers that are
// missing have a form. Known forecasts are computed again.
type streamState struct {
	Version int            `json:"version"`
	Columns []streamColumn `json:"columns"`
	Before  map[string]int `json:"before"`
}

type streamColumn struct {
	Name   string   `json:"name"`
	Number bool     `json:"number"`
	Values []string `json:"values"`
}

const streamVersion = 1

// MarshalBinary returns the rows kept.
func (s *stream) MarshalBinary() ([]byte, error) {
	state := streamState{Version: streamVersion, Columns: []streamColumn{}, Before: s.before}
	for _, c := range s.table {
		one := streamColumn{Name: c.Name, Number: c.Numbers != nil, Values: []string{}}
		for row := range c.Len() {
			one.Values = append(one.Values, c.Text(row))
		}
		state.Columns = append(state.Columns, one)
	}
	return json.Marshal(state)
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (s *stream) UnmarshalBinary(text []byte) error {
	var state streamState
	if err := json.Unmarshal(text, &state); err != nil {
		return fmt.Errorf("the state of a forecast session: %w", err)
	}
	if state.Version != streamVersion {
		return fmt.Errorf("the state of a forecast session is of version %d, this program reads %d", state.Version, streamVersion)
	}
	broken := errors.New("the state of a forecast session is damaged; begin another session")
	n := &stream{m: s.m, fitted: s.fitted, before: map[string]int{}}
	for i, c := range state.Columns {
		if c.Name == "" || len(c.Values) == 0 || len(c.Values) > mostKept+1 || len(c.Values) != len(state.Columns[0].Values) ||
			slices.ContainsFunc(state.Columns[:i], func(other streamColumn) bool { return other.Name == c.Name }) {
			return broken
		}
		one := task.Column{Name: c.Name, Texts: c.Values}
		if c.Number {
			one.Texts, one.Numbers = nil, make([]float64, len(c.Values))
			for row, text := range c.Values {
				x, err := strconv.ParseFloat(text, 64)
				if text == "" {
					x, err = math.NaN(), nil
				}
				if err != nil {
					return broken
				}
				one.Numbers[row] = x
			}
		}
		n.table = append(n.table, one)
	}
	for id, rows := range state.Before {
		if rows < 0 {
			return broken
		}
		n.before[id] = rows
	}
	*s = *n
	return nil
}

// knownForecasts are forecasts of windows as the network and its mixture gave them, before
// intervals adapt.
type knownForecasts struct {
	levels []float64
	steps  map[knownWindow][]*steps // by target
	before map[string]int           // rows of each series before the dataset
}

// knownWindow is a window by the number of rows of its series before it.
type knownWindow struct {
	id     string
	origin int
}

// of returns the forecasts for a dataset that begins after some rows of each series.
func (k *knownForecasts) of(before map[string]int) *knownForecasts {
	return &knownForecasts{levels: k.levels, steps: maps.Clone(k.steps), before: before}
}

// take keeps those of other to whose errors intervals may still adapt.
func (k *knownForecasts) take(other *knownForecasts, before map[string]int, d *dataset) {
	k.levels, k.steps = other.levels, map[knownWindow][]*steps{}
	for _, f := range d.frames {
		end := other.before[f.id] + f.end
		for origin := end - mostSince; origin <= end; origin++ {
			if one := other.steps[knownWindow{f.id, origin}]; one != nil {
				k.steps[knownWindow{f.id, origin}] = one
			}
		}
	}
}

func (k *knownForecasts) bytes() int {
	n := 0
	for _, targets := range k.steps {
		for _, s := range targets {
			n += 64 + 8*len(s.point)*(3+len(k.levels)+3)
		}
	}
	return n
}

// forecastKnown is forecastAll with the forecasts that the dataset knows, to which it adds
// the others. Only forecasts that depend on nothing after their origin are known: not
// those with columns that are given over the horizon, since these may be planned
// values before it and others afterwards.
func (m *Model) forecastKnown(ctx context.Context, d *dataset, list []window, levels []float64, use func(w window, k int, s *steps)) error {
	known := d.earlier
	// Paths that are drawn at random depend on the windows that they are drawn with.
	drawn := m.cfg.Head == "autoregressive" && (m.cfg.Loss == "gaussian" || m.cfg.Loss == "student-t")
	if known == nil || drawn || len(d.Ahead) > 0 || m.smooths() || slices.ContainsFunc(list, func(w window) bool { return d.Series[d.frames[w.frame].id] == nil }) {
		return m.forecastAll(ctx, d, list, levels, use)
	}
	if known.steps == nil || !slices.Equal(known.levels, levels) {
		known.levels, known.steps = slices.Clone(levels), map[knownWindow][]*steps{}
	}
	key := func(w window) knownWindow {
		id := d.frames[w.frame].id
		return knownWindow{id, known.before[id] + int(w.origin)}
	}
	var fresh []window
	for _, w := range list {
		if known.steps[key(w)] == nil {
			fresh = append(fresh, w)
		}
	}
	err := m.forecastAll(ctx, d, fresh, levels, func(w window, k int, s *steps) {
		if known.steps[key(w)] == nil {
			known.steps[key(w)] = make([]*steps, d.targets)
		}
		known.steps[key(w)][k] = s.clone()
	})
	if err != nil {
		return err
	}
	for _, w := range list {
		for k, s := range known.steps[key(w)] {
			use(w, k, s.clone())
		}
	}
	return nil
}

func (s *steps) clone() *steps {
	own := *s
	own.point, own.location, own.quantiles = slices.Clone(s.point), slices.Clone(s.location), make([][]float64, len(s.quantiles))
	for h, q := range s.quantiles {
		own.quantiles[h] = slices.Clone(q)
	}
	return &own
}
