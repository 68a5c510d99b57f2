package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/train"
)

// forecastReport joins what training and evaluation found into the page.
func forecastReport(run *forecastRun, panel *data.Panel, m *forecast.Model, r *train.Result, out *trainResult, e *forecast.Evaluation) *report.Forecast {
	cfg := m.Config()
	page := &report.Forecast{
		Title:      "Forecast of " + targetNames(&cfg),
		Subtitle:   describePanel(run.files.Data, panel),
		Version:    carousel.Version(),
		Model:      strings.ToUpper(cfg.Cell),
		Notes:      slices.Clone(out.Notes),
		Config:     settingPairs(&cfg),
		Parameters: out.Parameters,
		Elapsed:    r.Elapsed,
	}
	page.Training = trainingOf(r)
	if e != nil {
		page.Verdict, page.Windows = e.Verdict, e.Windows
		page.Notes = append(page.Notes, e.Notes...)
		addScores(page, e)
		addErrors(page, e)
		addSamples(page, e)
	}
	return page
}

func targetNames(cfg *forecast.Config) string {
	if len(cfg.Target) == 0 {
		return data.ValueColumn
	}
	return strings.Join(cfg.Target, ", ")
}

// describePanel says what a table holds in one line.
func describePanel(path string, p *data.Panel) string {
	rows := 0
	for _, s := range p.Series {
		rows += s.Len()
	}
	text := fmt.Sprintf("%s: %s", filepath.Base(path), plural(rows, "row"))
	if f := p.Freq.String(); f != "" {
		text += " at " + f
	}
	if n := len(p.Series); n > 1 {
		text += fmt.Sprintf(", %s series", count(n))
	}
	return text
}

// trainingOf takes over the epochs of a run, with the validation metric that was
// in every record.
func trainingOf(r *train.Result) report.Training {
	metric := ""
	for _, r := range r.History {
		for _, name := range slices.Sorted(maps.Keys(r.Val)) {
			if metric == "" && name != "loss" {
				metric = name
			}
		}
	}
	value := func(r train.Record, name string) float64 {
		if v, ok := r.Val[name]; ok {
			return v
		}
		return math.NaN()
	}
	var t report.Training
	for _, r := range r.History {
		t.History = append(t.History, report.Epoch{
			Epoch: r.Epoch, LR: float64(r.LR), TrainLoss: r.TrainLoss, ValLoss: value(r, "loss"), Val: value(r, metric),
		})
	}
	if metric != "" {
		t.ValMetric = "val_" + metric
	}
	if r.Best != nil {
		t.BestEpoch = r.Best.Epoch
	}
	return t
}

// metricColumns are the metrics shown to people, by their names in JSON.
var metricColumns = []struct {
	name  string
	value func(*forecast.Metrics) float64
}{
	{"mae", func(m *forecast.Metrics) float64 { return m.MAE }},
	{"rmse", func(m *forecast.Metrics) float64 { return m.RMSE }},
	{"smape", func(m *forecast.Metrics) float64 { return m.SMAPE }},
	{"mase", func(m *forecast.Metrics) float64 { return m.MASE }},
	{"mse_scaled", func(m *forecast.Metrics) float64 { return m.MSEScaled }},
	{"mae_scaled", func(m *forecast.Metrics) float64 { return m.MAEScaled }},
	{"pinball", func(m *forecast.Metrics) float64 { return m.Pinball }},
	{"coverage", func(m *forecast.Metrics) float64 { return m.Coverage }},
}

// method is a row of the table of scores.
type method struct {
	name    string
	metrics forecast.Metrics
}

// methods lists the model first, then the baselines: the four that every
// evaluation has, then the seasons one by one.
func methods(e *forecast.Evaluation) []method {
	rank := []string{"linear", "seasonal_naive", "drift", "naive"}
	names := slices.SortedFunc(maps.Keys(e.Baselines), func(a, b string) int {
		return cmp.Or(cmp.Compare(slices.Index(rank, b), slices.Index(rank, a)), strings.Compare(a, b))
	})
	list := []method{{"network", e.Metrics}}
	strongest := fmt.Sprintf("seasonal_naive_%d", e.Season) // is seasonal_naive
	for _, name := range names {
		if name != strongest {
			list = append(list, method{name, e.Baselines[name]})
		}
	}
	return list
}

// methodName writes a method's name for people; season is what seasonal_naive repeats.
func methodName(name string, season int) string {
	if name == "seasonal_naive" && season > 0 {
		name = fmt.Sprintf("seasonal_naive_%d", season)
	}
	return strings.ReplaceAll(name, "_", " ")
}

func addScores(page *report.Forecast, e *forecast.Evaluation) {
	list := methods(e)
	list[0].name = page.Model
	for _, c := range metricColumns {
		page.Metrics = append(page.Metrics, c.name)
	}
	for _, m := range list {
		s := report.Score{Name: methodName(m.name, e.Season)}
		for _, c := range metricColumns {
			s.Values = append(s.Values, c.value(&m.metrics))
		}
		page.Scores = append(page.Scores, s)
	}
}

// addErrors takes over the errors by step, hour and weekday, and the mean days.
func addErrors(page *report.Forecast, e *forecast.Evaluation) {
	names := []string{"seasonal_naive", "linear"}
	steps := []report.Series{{Name: page.Model}}
	for _, name := range names {
		steps = append(steps, report.Series{Name: strings.ReplaceAll(name, "_", " ")})
	}
	for _, s := range e.ByStep {
		for i := range steps {
			y := s.MAE
			if i > 0 {
				y = s.Baselines[names[i-1]]
			}
			steps[i].X = append(steps[i].X, float64(s.Step))
			steps[i].Y = append(steps[i].Y, y)
		}
	}
	if len(e.ByStep) > 0 {
		page.ByStep = steps
	}
	page.ByHour = groupSeries(page.Model, e.ByHour)
	page.ByWeekday = groupSeries(page.Model, e.ByWeekday)
	page.Profiles = profiles(e)
}

func groupSeries(name string, groups []forecast.GroupError) []report.Series {
	if len(groups) == 0 {
		return nil
	}
	model, linear := report.Series{Name: name}, report.Series{Name: "linear"}
	for i, g := range groups {
		model.X, model.Y = append(model.X, float64(i)), append(model.Y, g.MAE)
		linear.X, linear.Y = append(linear.X, float64(i)), append(linear.Y, g.Linear)
	}
	return []report.Series{model, linear}
}

// profiles are the mean working day and the mean day of a weekend.
func profiles(e *forecast.Evaluation) []report.Profile {
	if len(e.Profile) == 0 {
		return nil
	}
	out := []report.Profile{{Name: "Weekdays"}, {Name: "Weekends"}}
	for i := range out {
		out[i].Truth, out[i].Forecast = make([]float64, 24), make([]float64, 24)
		for h := range 24 {
			out[i].Truth[h], out[i].Forecast[h] = math.NaN(), math.NaN()
		}
	}
	for _, p := range e.Profile {
		at := &out[0]
		if p.Weekend {
			at = &out[1]
		}
		at.Truth[p.Hour], at.Forecast[p.Hour] = p.Actual, p.Forecast
	}
	return out
}

func addSamples(page *report.Forecast, e *forecast.Evaluation) {
	for _, s := range e.Samples {
		one := report.Sample{History: s.History, Truth: s.Actual, Median: s.Forecast, Times: append(slices.Clone(s.HistoryTime), s.Time...)}
		if e.Series > 1 {
			one.Title = strings.TrimSpace(s.Series + " " + s.Target)
		}
		if n := len(s.Quantiles); n > 1 {
			one.Lower, one.Upper = s.Quantiles[0], s.Quantiles[n-1]
			one.Interval = fmt.Sprintf("%g %% interval", math.Round(1000*(e.Levels[n-1]-e.Levels[0]))/10)
		}
		page.Samples = append(page.Samples, one)
	}
}

// printEvaluation writes the table of methods and the verdict.
func printEvaluation(w io.Writer, e *forecast.Evaluation) {
	fmt.Fprintf(w, "\nErrors on the %s part: %s of %s, horizon %d\n\n", e.Part, plural(e.Windows, "window"), seriesCount(e.Series), e.Horizon)
	head := []string{""}
	for _, c := range metricColumns {
		if !math.IsNaN(c.value(&e.Metrics)) {
			head = append(head, c.name)
		}
	}
	var rows [][]string
	for _, m := range methods(e) {
		row := []string{methodName(m.name, e.Season)}
		for _, c := range metricColumns {
			if slices.Contains(head, c.name) {
				row = append(row, number(c.value(&m.metrics)))
			}
		}
		rows = append(rows, row)
	}
	printTable(w, head, rows)
	fmt.Fprintf(w, "\n%s\n", e.Verdict)
	for _, n := range e.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

func seriesCount(n int) string {
	if n == 1 {
		return "one series"
	}
	return count(n) + " series"
}

// printForecast writes a forecast as a table.
func printForecast(w io.Writer, f *forecast.Forecast) {
	for _, s := range f.Series {
		fmt.Fprintln(w, strings.TrimSpace(s.ID+" "+s.Target))
		head := []string{"row", "forecast"}
		if s.Time != nil {
			head[0] = "time"
		}
		for _, q := range f.Levels {
			head = append(head, fmt.Sprintf("q%g", q))
		}
		var rows [][]string
		for h, y := range s.Point {
			row := []string{fmt.Sprint(s.Row[h]), number(y)}
			if s.Time != nil {
				row[0] = s.Time[h].Format("Mon 2006-01-02 15:04")
			}
			for i := range f.Levels {
				row = append(row, number(s.Quantiles[i][h]))
			}
			rows = append(rows, row)
		}
		printTable(w, head, rows)
	}
	for _, n := range f.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

// printPattern draws the mean working day and weekend day, as measured and as
// forecast.
func printPattern(w io.Writer, e *forecast.Evaluation) {
	if e == nil || len(e.Profile) == 0 {
		return
	}
	days := profiles(e)
	fmt.Fprintf(w, "\nThe pattern learnt: the mean of each hour over the test part, measured and forecast\n\n")
	var curves []curve
	for _, d := range days {
		curves = append(curves, curve{d.Name + ", measured", d.Truth}, curve{d.Name + ", forecast", d.Forecast})
	}
	printCurves(w, curves)
	fmt.Fprintln(w, hourRuler(len("  Weekdays, measured ")))
}

// settingPairs lists the settings of a struct that have a value, in its order.
func settingPairs(ptr any) []report.Pair {
	var pairs []report.Pair
	for _, one := range settings.List(ptr) {
		if text := one.String(); text != "" && (one.IsBool() || !one.IsZero()) {
			pairs = append(pairs, report.Pair{Name: one.Flag(), Value: text})
		}
	}
	return pairs
}
