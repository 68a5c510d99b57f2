package forecast

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

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
	part := fmt.Sprintf("the %s part", e.Part)
	if e.Part == task.All {
		part = "all rows"
	}
	s := &report.Summary{
		Scored:  fmt.Sprintf("%s: %s, horizon %d", part, windows, e.Horizon),
		Verdict: e.Verdict, Tone: report.Caution, Notes: e.Notes,
		Facts: report.Facts{
			{Name: "MAE", Value: report.Number(e.Metrics.MAE), Note: "network"},
			{Name: "Windows", Value: report.Count(e.Windows)},
		},
		Tables: []*report.Table{e.methods()},
	}
	name, best := e.rival()
	if e.Metrics.MAE < best {
		s.Tone = report.Good
	}
	if best > 0 && !math.IsInf(best, 1) {
		s.Facts = slices.Insert(s.Facts, 1, report.Fact{
			Name: "vs best baseline", Value: fmt.Sprintf("%+.1f %%", 100*(e.Metrics.MAE/best-1)),
			Note: e.label(name) + ": " + report.Number(best),
		})
	}
	s.Add("Forecasts and measured values", e.samplesFigure())
	s.Add("Mean day", e.profileFigure())
	s.Add("Errors by step and time", e.stepFigure(),
		e.groupFigure("hours.png", "Error by hour of the day", "Hour", e.ByHour), e.groupFigure("", "Error by weekday", "", e.ByWeekday))
	return s
}

// rival returns the baseline with the least mean absolute error, which is +Inf if
// there are none.
func (e *Evaluation) rival() (name string, mae float64) {
	mae = math.Inf(1)
	for _, b := range e.baselines() {
		if v := e.Baselines[b].MAE; v < mae {
			name, mae = b, v
		}
	}
	return name, mae
}

// baselines returns the names of the baselines, best first. The best season has
// two names, of which seasonal_naive is used.
func (e *Evaluation) baselines() []string {
	strongest := fmt.Sprintf("seasonal_naive_%d", e.Season)
	names := slices.DeleteFunc(slices.Collect(maps.Keys(e.Baselines)), func(name string) bool { return name == strongest })
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Baselines[a].MAE, e.Baselines[b].MAE), strings.Compare(a, b))
	})
	return names
}

// label returns the name of a baseline for people.
func (e *Evaluation) label(name string) string {
	if name == "seasonal_naive" && e.Season > 0 {
		name = fmt.Sprintf("seasonal_naive_%d", e.Season)
	}
	return strings.ReplaceAll(name, "_", " ")
}

// methods returns the scores of the network and of the baselines, best first, in
// the metrics that the network has.
func (e *Evaluation) methods() *report.Table {
	t := report.NewTable("method")
	t.Caption = "All methods on the same windows. Lower is better, except for coverage, which should be near the interval's nominal share. Highlighted: the best by MAE."
	add := func(name string, m Metrics) {
		t.Rows = append(t.Rows, report.Row{Cells: []string{name}, Score: -m.MAE})
	}
	all := []Metrics{e.Metrics}
	add("network", e.Metrics)
	for _, name := range e.baselines() {
		all = append(all, e.Baselines[name])
		add(e.label(name), e.Baselines[name])
	}
	for _, c := range []struct {
		name  string
		value func(*Metrics) float64
	}{
		{"MAE", func(m *Metrics) float64 { return m.MAE }},
		{"RMSE", func(m *Metrics) float64 { return m.RMSE }},
		{"sMAPE", func(m *Metrics) float64 { return m.SMAPE }},
		{"MASE", func(m *Metrics) float64 { return m.MASE }},
		{"scaled MSE", func(m *Metrics) float64 { return m.MSEScaled }},
		{"scaled MAE", func(m *Metrics) float64 { return m.MAEScaled }},
		{"pinball", func(m *Metrics) float64 { return m.Pinball }},
		{"coverage", func(m *Metrics) float64 { return m.Coverage }},
	} {
		if math.IsNaN(c.value(&e.Metrics)) {
			continue
		}
		t.Columns = append(t.Columns, report.Column{Name: c.name, Number: true})
		for i := range all {
			t.Rows[i].Cells = append(t.Rows[i].Cells, report.Number(c.value(&all[i])))
		}
	}
	return t.MarkBest()
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
	// With a much longer history the forecast would be too small to see.
	past := min(len(s.History), max(2*len(s.Forecast), 24))
	first := len(s.History) - past
	f := &report.Figure{}
	if e.Series > 1 {
		f.Title = strings.TrimSpace(s.Series + " " + s.Target)
	}
	lines := &report.Lines{}
	f.Plot = lines
	x := make([]float64, past+len(s.Forecast))
	if s.Time != nil {
		x = report.Times(append(slices.Clone(s.HistoryTime[first:]), s.Time...))
		lines.X = report.Axis{Time: true, Zone: s.Time[0].Location()}
		f.Title = cmp.Or(f.Title, "From "+s.Time[0].Format("Mon 2 Jan 2006, 15:04"))
	} else {
		lines.X.Label = "Steps from the start of the forecast"
		for i := range x {
			x[i] = float64(1 + i - past)
		}
	}
	lines.Marks = []report.Mark{{X: x[past-1]}}
	lines.Series = []report.Series{
		{Name: "measured", X: x, Y: slices.Concat(s.History[first:], s.Actual), Color: report.Ink},
		{Name: "network", X: x[past:], Y: s.Forecast, Color: report.Blue},
	}
	if n := len(s.Quantiles); n > 1 {
		lines.Bands = []report.Band{{
			Name: fmt.Sprintf("%g %% interval", math.Round(1000*(e.Levels[n-1]-e.Levels[0]))/10),
			X:    x[past:], Lower: s.Quantiles[0], Upper: s.Quantiles[n-1], Color: report.Blue,
		}}
	}
	return f
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
				{Name: "measured", Y: actual, Color: report.Ink}, {Name: "network", Y: forecast, Color: report.Blue},
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
	}{{"", "network", report.Blue}, {"seasonal_naive", e.label("seasonal_naive"), report.Orange}, {"linear", "linear", report.Green}} {
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
	network, linear := report.Series{Name: "network", Color: report.Blue}, report.Series{Name: "linear", Color: report.Green}
	var names []string
	for _, g := range groups {
		names, network.Y, linear.Y = append(names, g.Name), append(network.Y, g.MAE), append(linear.Y, g.Linear)
	}
	return &report.Figure{File: file, Title: title, Height: 280, Plot: &report.Bars{
		X: report.Axis{Label: axis}, Y: report.Axis{Label: errorLabel}, Categories: names, Series: []report.Series{network, linear},
	}}
}
