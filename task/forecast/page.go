package forecast

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Summary returns the evaluation as tables, figures and sentences.
func (e *Evaluation) Summary() *report.Summary {
	windows := report.Plural(e.Windows, "window") + " of "
	if e.Series == 1 {
		windows += "one series"
	} else {
		windows += report.Count(e.Series) + " series"
	}
	of, short, _ := e.measure()
	scored := fmt.Sprintf("%s: %s, horizon %d", partOf(e.Part), windows, e.Horizon)
	if e.MASESeason > 0 {
		scored += fmt.Sprintf(", MASE by season %d", e.MASESeason)
	}
	s := &report.Summary{
		Scored:  scored,
		Verdict: e.Verdict, Tone: report.Caution, Notes: e.Notes,
		Facts: report.Facts{
			{Name: short, Value: report.Number(of(e.Metrics)), Note: e.Forecaster},
			{Name: "Windows", Value: report.Count(e.Windows)},
		},
		Tables: []*report.Table{e.methods()},
	}
	name, best := e.rival()
	if compare(of(e.Metrics), best) == better {
		s.Tone = report.Good
	}
	if best > 0 && !math.IsInf(best, 1) {
		s.Facts = slices.Insert(s.Facts, 1, report.Fact{
			Name: "vs best baseline", Value: fmt.Sprintf("%+.1f %%", 100*(of(e.Metrics)/best-1)),
			Note: e.label(name) + ": " + report.Number(best),
		})
	}
	if t := e.parts(fewSeries); len(t.Rows) > 0 {
		s.Tables = append(s.Tables, t)
	}
	s.Add("Forecasts and measured values", e.samplesFigure())
	if len(e.Shares) > 0 {
		s.Add("What the forecast is made of", e.sharesTable(), e.linearTable())
	}
	s.Add("Mean day", e.profileFigure())
	s.Add("Errors by step and time", e.stepFigure(),
		e.groupFigure("hours.png", "Error by hour of the day", "Hour", e.ByHour), e.groupFigure("", "Error by weekday", "", e.ByWeekday))
	if len(e.BySeries) > fewSeries {
		s.Add("Scores by series", e.parts(manySeries))
	}
	return s
}

// partOf names a part in a sentence.
func partOf(part task.Part) string {
	if part == task.All {
		return "all rows"
	}
	return fmt.Sprintf("the %s part", part)
}

// rival returns the baseline with the least error, which is +Inf if there are
// none.
func (e *Evaluation) rival() (name string, least float64) {
	of, _, _ := e.measure()
	least = math.Inf(1)
	for _, b := range e.baselines() {
		if e.knowsMore(b) {
			continue
		}
		if v := of(e.Baselines[b]); v < least {
			name, least = b, v
		}
	}
	return name, least
}

// baselines returns the names of the baselines, best first. The best season has
// two names, of which seasonal_naive is used.
func (e *Evaluation) baselines() []string {
	strongest := fmt.Sprintf("seasonal_naive_%d", e.Season)
	names := slices.DeleteFunc(slices.Collect(maps.Keys(e.Baselines)), func(name string) bool { return name == strongest || e.repeats(name) })
	of, _, _ := e.measure()
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(of(e.Baselines[a]), of(e.Baselines[b])), strings.Compare(a, b))
	})
	return names
}

// repeats reports whether a baseline is the naive forecast under another name,
// because there is no season.
func (e *Evaluation) repeats(name string) bool {
	return name == "seasonal_naive" && e.Season == 0 || name == "naive2" && e.Baselines[name].MAE == e.Baselines["naive"].MAE
}

// label returns the name of a baseline for people.
func (e *Evaluation) label(name string) string {
	if name == "seasonal_naive" && e.Season > 0 {
		name = fmt.Sprintf("seasonal_naive_%d", e.Season)
	}
	return strings.ReplaceAll(name, "_", " ")
}

// metric is a column of a table of scores, which leaves out those that say what
// another says in other units.
type metric struct {
	name  string
	value func(*Metrics) float64
}

var metrics = []metric{
	{"MAE", func(m *Metrics) float64 { return m.MAE }},
	{"WQL", func(m *Metrics) float64 { return m.WQL }},
	{"CRPS", func(m *Metrics) float64 { return m.CRPS }},
	{"RMSE", func(m *Metrics) float64 { return m.RMSE }},
	{"MAPE", func(m *Metrics) float64 { return m.MAPE }},
	{"sMAPE", func(m *Metrics) float64 { return m.SMAPE }},
	{"MASE", func(m *Metrics) float64 { return m.MASE }},
	{"RMSSE", func(m *Metrics) float64 { return m.RMSSE }},
	{"OWA", func(m *Metrics) float64 { return m.OWA }},
	{"scaled MSE", func(m *Metrics) float64 { return m.MSEScaled }},
	{"scaled MAE", func(m *Metrics) float64 { return m.MAEScaled }},
	{"coverage", func(m *Metrics) float64 { return m.Coverage }},
}

// efficiencies are the columns of how well a simulation follows the values.
var efficiencies = []metric{
	{"NSE", func(m *Metrics) float64 { return m.NSE }},
	{"KGE", func(m *Metrics) float64 { return m.KGE }},
}

// columns returns the columns of a table of scores, without some.
func (e *Evaluation) columns(without ...string) []metric {
	all := metrics
	if e.Simulation {
		all = slices.Concat(efficiencies, metrics)
	}
	return slices.DeleteFunc(slices.Clone(all), func(c metric) bool { return slices.Contains(without, c.name) })
}

// addMetrics adds the columns of metrics to a table with a row for each of all,
// without those that all lack.
func addMetrics(t *report.Table, all []Metrics, columns []metric) {
	for _, c := range columns {
		if !slices.ContainsFunc(all, func(m Metrics) bool { return !math.IsNaN(c.value(&m)) }) {
			continue
		}
		t.Columns = append(t.Columns, report.Column{Name: c.name, Number: true})
		for i := range all {
			t.Rows[i].Cells = append(t.Rows[i].Cells, report.Number(c.value(&all[i])))
		}
	}
}

// methods returns the scores of the model and of the baselines, best first.
func (e *Evaluation) methods() *report.Table {
	of, short, _ := e.measure()
	t := report.NewTable("method")
	t.Caption = "All methods on the same windows. Lower is better, except for coverage, which should be near the interval's nominal share"
	if e.Nominal > 0 {
		t.Caption += ", " + percentOf(e.Nominal)
	}
	t.Caption += fmt.Sprintf(". Highlighted: the best by %s.", short)
	if e.MASESeason > 0 {
		t.Caption += fmt.Sprintf(" MASE and RMSSE: errors divided by those of the naive forecast of season %d in the training rows.", e.MASESeason)
	}
	all := []Metrics{}
	add := func(name string, m Metrics) {
		all = append(all, m)
		t.Rows = append(t.Rows, report.Row{Cells: []string{name}, Score: -of(m)})
	}
	add(e.Forecaster, e.Metrics)
	for _, name := range e.baselines() {
		add(e.label(name), e.Baselines[name])
		if e.knowsMore(name) {
			t.Rows[len(t.Rows)-1].Score = math.NaN()
		}
	}
	columns := e.columns()
	if len(e.Targets) < 2 {
		columns = e.columns("scaled MSE", "scaled MAE")
	}
	addMetrics(t, all, columns)
	if slices.ContainsFunc(t.Columns, func(c report.Column) bool { return c.Name == "OWA" }) {
		t.Caption += " OWA: the mean of sMAPE and MASE relative to those of naive2."
	}
	if e.Simulation {
		t.Caption += " NSE, KGE: the median of the series; higher is better, 1 is perfect. Only the baseline linear, like the model, has no past values of the target."
	}
	return t.MarkBest()
}

// fewSeries is the number of series that are listed beside the methods, and
// manySeries that of a table of their own.
const (
	fewSeries  = 5
	manySeries = 200
)

// parts returns the scores by target, or of at most most series, by falling MASE.
func (e *Evaluation) parts(most int) *report.Table {
	t := report.NewTable()
	var all []Metrics
	add := func(m Metrics, cells ...string) {
		all = append(all, m)
		t.Add(cells...)
	}
	columns := e.columns("MAPE", "OWA", "scaled MSE", "CRPS")
	if len(e.BySeries) == 0 {
		t.Columns = []report.Column{{Name: "target"}}
		for _, name := range slices.Sorted(maps.Keys(e.Targets)) {
			add(e.Targets[name], name)
		}
		addMetrics(t, all, columns)
		return t
	}
	t.Columns = []report.Column{{Name: "series"}}
	if len(e.Targets) > 0 {
		t.Columns = append(t.Columns, report.Column{Name: "target"})
	}
	worst := func(m *Metrics) float64 { // NaN is less than any number
		if math.IsNaN(m.MASE) {
			return m.MAEScaled
		}
		return m.MASE
	}
	list := slices.SortedStableFunc(slices.Values(e.BySeries), func(a, b SeriesScore) int { return cmp.Compare(worst(&b.Metrics), worst(&a.Metrics)) })
	if n := len(list); n > most {
		t.Columns[0].Name = fmt.Sprintf("series (%d worst of %s)", most, report.Count(n))
		list = list[:most]
	}
	for i := range list {
		cells := []string{list[i].Series, list[i].Target}
		add(list[i].Metrics, cells[:len(t.Columns)]...)
	}
	addMetrics(t, all, columns)
	return t
}

// Day returns the mean of each hour of weekdays or weekends, as measured and as
// forecast [24]: NaN for hours without a value, nil if the rows have no hours.
func (e *Evaluation) Day(weekend bool) (actual, forecast []float64) {
	for _, p := range e.Profile {
		if actual == nil {
			actual, forecast = slices.Repeat([]float64{math.NaN()}, 24), slices.Repeat([]float64{math.NaN()}, 24)
		}
		if p.Weekend == weekend {
			actual[p.Hour], forecast[p.Hour] = p.Actual, p.Forecast
		}
	}
	return actual, forecast
}

// mostSamples is the largest number of windows that are drawn, which bounds the
// size of the page.
const mostSamples = 8

func (e *Evaluation) samplesFigure() *report.Figure {
	var panels []*report.Figure
	for _, s := range e.Samples[:min(len(e.Samples), mostSamples)] {
		panels = append(panels, e.samplePanel(&s))
	}
	if panels == nil {
		return nil
	}
	return &report.Figure{
		File: "forecast.png", Title: "Sample windows of the evaluated part",
		Caption: "The dashed line is the last row before the forecast.",
		Plot:    &report.Grid{Figures: panels},
	}
}

func (e *Evaluation) samplePanel(s *Sample) *report.Figure {
	f := s.panel(e.Forecaster, e.Levels)
	if e.Series > 1 || len(e.Targets) > 1 {
		f.Title = cmp.Or(strings.TrimSpace(s.Series+" "+s.Target), f.Title)
	}
	return f
}

// panel draws a window with its forecast.
func (s *Sample) panel(forecaster string, levels []float64) *report.Figure {
	// With a much longer history the forecast would be too small to see.
	past := min(len(s.History), max(2*len(s.Forecast), 24))
	first := len(s.History) - past
	f := &report.Figure{}
	lines := &report.Lines{}
	f.Plot = lines
	x := make([]float64, past+len(s.Forecast))
	if s.Time != nil {
		x = report.Times(append(slices.Clone(s.HistoryTime[first:]), s.Time...))
		lines.X = report.Axis{Time: true, Zone: s.Time[0].Location()}
		layout := "Mon 2 Jan 2006"
		if slices.ContainsFunc(s.Time, func(t time.Time) bool { return t.Hour() != 0 || t.Minute() != 0 }) {
			layout += ", 15:04"
		}
		f.Title = "From " + s.Time[0].Format(layout)
	} else {
		lines.X.Label = "Steps from the start of the forecast"
		for i := range x {
			x[i] = float64(1 + i - past)
		}
	}
	lines.Marks = []report.Mark{{X: x[past-1]}}
	lines.Series = []report.Series{
		{Name: "measured", X: x, Y: slices.Concat(s.History[first:], s.Actual), Color: report.Ink},
		{Name: forecaster, X: x[past:], Y: s.Forecast, Color: report.Blue},
	}
	if n := len(s.Quantiles); n > 1 {
		lines.Bands = []report.Band{{
			Name: percentOf(levels[n-1]-levels[0]) + " interval",
			X:    x[past:], Lower: s.Quantiles[0], Upper: s.Quantiles[n-1], Color: report.Blue,
		}}
	}
	return f
}

// Illustrate draws what comes after the table, if the table has what the model
// needs for it. Its error is that of a cancelled ctx.
func (m *Model) Illustrate(ctx context.Context, d *Data, _ *Evaluation) ([]report.Section, error) {
	next, err := m.Forecast(ctx, d.Panel, nil)
	if err != nil {
		return nil, ctx.Err() // such as columns that are not known ahead yet
	}
	frames, _, err := rawFrames(d.Panel, &m.cfg)
	if err != nil {
		return nil, err
	}
	byID := map[string]*frame{}
	for _, f := range frames {
		byID[f.id] = f
	}
	var panels []*report.Figure
	for i := range next.Series[:min(len(next.Series), samplesKept)] {
		one := &next.Series[i]
		f, k := byID[one.ID], slices.Index(m.cfg.targets(), one.Target)
		origin := one.Row[0] - 1
		s := Sample{History: slices.Repeat([]float64{math.NaN()}, m.cfg.Window), Time: one.Time, Forecast: one.Point, Quantiles: one.Quantiles}
		if begin := origin - m.cfg.Window; begin < f.end { // otherwise no target is in the window
			copy(s.History, f.given[k][begin:min(origin, f.end)])
		}
		if f.times != nil {
			s.HistoryTime = f.times[origin-m.cfg.Window : origin]
		}
		panel := s.panel(m.forecaster(), next.Levels)
		if len(next.Series) > 1 {
			panel.Title = strings.TrimSpace(one.ID + " " + one.Target)
		}
		panels = append(panels, panel)
	}
	return report.AddSection(nil, "What comes next", &report.Figure{
		File: "next.png", Title: "Forecast of the rows after the table", Plot: &report.Grid{Figures: panels},
	}), nil
}

func (e *Evaluation) profileFigure() *report.Figure {
	if len(e.Profile) == 0 {
		return nil
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range e.Profile {
		low, high = min(low, p.Actual, p.Forecast), max(high, p.Actual, p.Forecast)
	}
	margin := (high - low) / 20
	var panels []*report.Figure
	for i, name := range []string{"Weekdays", "Weekends"} {
		actual, forecast := e.Day(i == 1)
		panels = append(panels, &report.Figure{Title: name, Plot: &report.Lines{
			X: report.Axis{Label: "Hour", Step: 3},
			Y: report.Axis{Label: "Mean", Min: low - margin, Max: high + margin}, // the same in both, to compare
			Series: []report.Series{
				{Name: "measured", Y: actual, Color: report.Ink}, {Name: e.Forecaster, Y: forecast, Color: report.Blue},
			},
		}})
	}
	return &report.Figure{File: "profile.png", Title: "Mean day, measured and forecast", Plot: &report.Grid{Figures: panels}}
}

const errorLabel = "Mean absolute error"

func (e *Evaluation) stepFigure() *report.Figure {
	if len(e.ByStep) == 0 {
		return nil
	}
	lines := &report.Lines{X: report.Axis{Label: "Steps ahead"}, Y: report.Axis{Label: errorLabel, Zero: true}}
	for _, m := range []struct {
		name, label string
		color       report.Color
	}{{"", e.Forecaster, report.Blue}, {"seasonal_naive", e.label("seasonal_naive"), report.Orange}, {"linear", "linear", report.Green}} {
		s := report.Series{Name: m.label, Color: m.color, Dots: len(e.ByStep) == 1}
		for _, step := range e.ByStep {
			y := step.MAE
			if m.name != "" {
				y = step.Baselines[m.name]
			}
			s.X, s.Y = append(s.X, float64(step.Step)), append(s.Y, y)
		}
		lines.Series = append(lines.Series, s)
	}
	return &report.Figure{File: "horizon.png", Title: "Error by forecast step", Plot: lines}
}

func (e *Evaluation) groupFigure(file, title, axis string, groups []GroupError) *report.Figure {
	if len(groups) == 0 {
		return nil
	}
	network, linear := report.Series{Name: e.Forecaster, Color: report.Blue}, report.Series{Name: "linear", Color: report.Green}
	var names []string
	for _, g := range groups {
		names, network.Y, linear.Y = append(names, g.Name), append(network.Y, g.MAE), append(linear.Y, g.Linear)
	}
	return &report.Figure{File: file, Title: title, Height: 280, Plot: &report.Bars{
		X: report.Axis{Label: axis}, Y: report.Axis{Label: errorLabel}, Categories: names, Series: []report.Series{network, linear},
	}}
}

// sharesTable returns the mixture, by target and falling share.
func (e *Evaluation) sharesTable() *report.Table {
	t := report.NewTable("method", "share", "error alone")
	bySeries := slices.ContainsFunc(e.Shares, func(p MethodShare) bool { return p.Series > 0 })
	if bySeries {
		t = report.NewTable("method", "share, all series together", "error alone", "series in which its share is the largest")
	}
	for _, p := range slices.SortedStableFunc(slices.Values(e.Shares), func(a, b MethodShare) int {
		return cmp.Or(strings.Compare(a.Target, b.Target), cmp.Compare(b.Share, a.Share))
	}) {
		row := []string{e.ofTarget(e.label(p.Method), p.Target), report.Percent(p.Share), report.Number(p.Error)}
		if bySeries {
			row = append(row, fmt.Sprint(p.Series))
		}
		t.Add(row...)
	}
	return t
}

// linearTable returns the regressions of the linear path, by target and falling share.
func (e *Evaluation) linearTable() *report.Table {
	t := report.NewTable("regression of the linear path", "share", "error left out", "penalty")
	for _, c := range slices.SortedStableFunc(slices.Values(e.Linear), func(a, b LinearChoice) int {
		return cmp.Or(strings.Compare(a.Target, b.Target), cmp.Compare(b.Share, a.Share), cmp.Compare(a.Error, b.Error))
	}) {
		sees := []string{report.Plural(c.Window, "row")}
		if c.Window == 0 {
			sees = nil
		}
		for _, lag := range c.Lags {
			sees = append(sees, fmt.Sprintf("%d earlier", lag))
		}
		if c.Level {
			sees = append(sees, "level")
		}
		if c.Groups {
			sees = append(sees, "kind of time")
		}
		t.Add(e.ofTarget(strings.Join(sees, ", "), c.Target), report.Percent(c.Share), report.Number(c.Error), report.Number(c.Penalty))
	}
	return t
}

// ofTarget adds a target to a text, if there are several.
func (e *Evaluation) ofTarget(text, target string) string {
	if len(e.Targets) < 2 {
		return text
	}
	return target + ": " + text
}
