package report

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/model"
)

// Forecast holds what the report of a trained forecasting model shows. Parts
// without data are left out of the page. NaN marks a number that is not known.
type Forecast struct {
	Title    string // such as "Forecast of demand_mw"
	Subtitle string // such as the data file, its frequency and its length
	Version  string // of carousel
	Time     time.Time
	Model    string // the model's name in tables and legends, such as "LSTM"
	Unit     string // of the target, such as "MW"; may be empty
	Verdict  string // one sentence: does the model beat the baselines
	Notes    []string

	Config     []Pair
	Parameters int // number of trained weights
	Windows    int // evaluated windows
	Elapsed    time.Duration

	Training
	Metrics    []string
	Scores     []Score // the model first, then the baselines
	MetricName string  // the entry of Metrics that decides which score is best; "" is "mae", or the first

	// Mean absolute errors, the model first, then any baselines.
	ByStep    []Series // Y by step of the horizon, 1 first
	ByHour    []Series // Y by hour of the day, 0 to 23
	ByWeekday []Series // Y by weekday, Monday first
	WeekHour  [][]float64

	Profiles []Profile
	Samples  []Sample
}

// Score is a method's result in each of Forecast.Metrics.
type Score struct {
	Name   string
	Values []float64
}

// Profile is a mean day: what was observed and what was forecast, by hour.
type Profile struct {
	Name            string // such as "Weekdays"
	Truth, Forecast []float64
}

// Sample is one forecast with what came before it and what then happened.
type Sample struct {
	Title   string // "" shows the time at which the forecast begins
	History []float64
	Truth   []float64
	Median  []float64
	// Lower and Upper bound the interval called Interval; nil: none.
	Lower, Upper []float64
	Interval     string // such as "80 % interval"
	// Times has a moment for each value of History and then of the horizon;
	// nil counts steps from the start of the forecast.
	Times []time.Time
}

// maxSamples bounds the size of the page.
const maxSamples = 8

// plot is a figure and the name of its PNG.
type plot struct {
	file string
	fig  *Figure
}

// Write puts report.html and the main plots (loss.png, forecast.png,
// horizon.png, hours.png, profile.png, each if there is data for it) into a
// directory that exists. Each file is replaced as a whole.
func (f *Forecast) Write(dir string) error {
	for _, p := range []plot{
		{"loss.png", f.LossFigure()},
		{"forecast.png", f.sampleFigure()},
		{"horizon.png", f.stepFigure()},
		{"hours.png", f.hourFigure()},
		{"profile.png", f.profileFigure()},
	} {
		if p.fig == nil {
			continue
		}
		if err := model.WriteFileAtomic(filepath.Join(dir, p.file), p.fig.WritePNG); err != nil {
			return err
		}
	}
	return f.Page().WriteFile(filepath.Join(dir, "report.html"))
}

// Page arranges the report.
func (f *Forecast) Page() *Page {
	page := &Page{Title: f.Title, Subtitle: f.Subtitle, Version: f.Version, Time: f.Time}
	if page.Title == "" {
		page.Title = "Forecast"
	}
	add := func(title string, blocks ...Block) {
		var kept []Block
		for _, b := range blocks {
			if fig, ok := b.(*Figure); ok && fig == nil {
				continue
			}
			kept = append(kept, b)
		}
		if len(kept) > 0 {
			page.Sections = append(page.Sections, Section{Title: title, Blocks: kept})
		}
	}
	add("Result", f.result()...)
	add("Forecasts against what happened", f.sampleFigure())
	add("Learnt pattern", f.profileFigure())
	add("Where the errors are", f.stepFigure(), f.hourFigure(), f.weekdayFigure(), f.weekHourFigure())
	add("Training", f.Training.Figure())
	if len(f.Config) > 0 {
		add("Configuration", Pairs(f.Config))
	}
	return page
}

// result is the verdict, the key figures and the table of scores.
func (f *Forecast) result() []Block {
	var blocks []Block
	best := f.best()
	if f.Verdict != "" {
		tone := Neutral
		switch {
		case best == 0:
			tone = Good
		case best > 0:
			tone = Caution
		}
		blocks = append(blocks, Notice{tone, f.Verdict})
	}
	if facts := f.facts(); len(facts) > 0 {
		blocks = append(blocks, facts)
	}
	if len(f.Scores) > 0 && len(f.Metrics) > 0 {
		blocks = append(blocks, f.scoreTable(best))
	}
	for _, n := range f.Notes {
		blocks = append(blocks, Text(n))
	}
	return blocks
}

// deciding is the index of the metric by which methods are ranked, -1 without metrics.
func (f *Forecast) deciding() int {
	name := f.MetricName
	if name == "" {
		name = "mae"
	}
	for i, m := range f.Metrics {
		if m == name {
			return i
		}
	}
	return min(0, len(f.Metrics)-1)
}

func (s Score) value(i int) float64 {
	if i >= 0 && i < len(s.Values) {
		return s.Values[i]
	}
	return math.NaN()
}

// best is the index of the score that is lowest in the deciding metric; -1: none.
// The model does not count as best when a baseline equals it.
func (f *Forecast) best() int {
	d, best := f.deciding(), -1
	for i, s := range f.Scores {
		v := s.value(d)
		if finite(v) && (best < 0 || v < f.Scores[best].value(d) || v == f.Scores[best].value(d) && best == 0) {
			best = i
		}
	}
	return best
}

func (f *Forecast) facts() Facts {
	var facts Facts
	if d := f.deciding(); d >= 0 && len(f.Scores) > 0 && finite(f.Scores[0].value(d)) {
		own := f.Scores[0].value(d)
		value := number(own)
		if f.Unit != "" && inUnit(f.Metrics[d]) {
			value += " " + f.Unit
		}
		facts = append(facts, Fact{Name: metricName(f.Metrics[d]), Value: value, Note: f.modelName()})
		rival := -1
		for i, s := range f.Scores[1:] {
			if v := s.value(d); finite(v) && (rival < 0 || v < f.Scores[rival].value(d)) {
				rival = i + 1
			}
		}
		if rival > 0 && f.Scores[rival].value(d) > 0 {
			percent := 100 * (own/f.Scores[rival].value(d) - 1)
			sign := ""
			if percent > 0 {
				sign = "+"
			}
			facts = append(facts, Fact{
				Name:  "vs best baseline",
				Value: sign + fixed(percent, 1) + " %",
				Note:  fmt.Sprintf("%s: %s", methodName(f.Scores[rival].Name), number(f.Scores[rival].value(d))),
			})
		}
	}
	if f.Windows > 0 {
		facts = append(facts, Fact{Name: "Windows", Value: fixed(float64(f.Windows), 0)})
	}
	if n := len(f.History); n > 0 {
		fact := Fact{Name: "Epochs", Value: strconv.Itoa(f.History[n-1].Epoch)}
		if f.BestEpoch > 0 {
			fact.Note = fmt.Sprintf("best: %d", f.BestEpoch)
		}
		facts = append(facts, fact)
	}
	if f.Elapsed > 0 {
		facts = append(facts, Fact{Name: "Training time", Value: duration(f.Elapsed)})
	}
	if f.Parameters > 0 {
		facts = append(facts, Fact{Name: "Parameters", Value: fixed(float64(f.Parameters), 0)})
	}
	return facts
}

func duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fixed(d.Seconds(), 1) + " s"
	case d < 2*time.Minute:
		return fixed(d.Seconds(), 0) + " s"
	case d < 2*time.Hour:
		return fixed(d.Minutes(), 1) + " min"
	}
	return fixed(d.Hours(), 1) + " h"
}

func (f *Forecast) scoreTable(best int) *Table {
	t := &Table{
		Columns: []Column{{Name: "Method"}},
		Caption: "All methods on the same windows. Lower is better",
	}
	for _, m := range f.Metrics {
		t.Columns = append(t.Columns, Column{Name: metricName(m), Number: true})
		if strings.HasPrefix(m, "coverage") {
			t.Caption += ", except for coverage, which should be near the interval's nominal share"
		}
	}
	t.Caption += ". Highlighted: the best by " + metricName(f.Metrics[f.deciding()]) + "."
	formats := make([]func(float64) string, len(f.Metrics))
	for m := range f.Metrics {
		formats[m] = columnFormat(f.Scores, m)
	}
	for i, s := range f.Scores {
		name := methodName(s.Name)
		if i == 0 {
			name = f.modelName()
		}
		row := Row{Cells: []string{name}, Best: i == best}
		for m := range f.Metrics {
			row.Cells = append(row.Cells, formats[m](s.value(m)))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// columnFormat shows three or four significant digits of the smallest number in
// a column, and as many decimals of the others.
func columnFormat(scores []Score, m int) func(float64) string {
	least := math.Inf(1)
	for _, s := range scores {
		if v := math.Abs(s.value(m)); finite(v) && v > 0 {
			least = min(least, v)
		}
	}
	return func(v float64) string {
		switch {
		case !finite(v):
			return "–"
		case least < 1e-4 || math.Abs(v) >= 1e12:
			return strconv.FormatFloat(v, 'g', 4, 64)
		case math.IsInf(least, 1):
			return fixed(v, 0)
		}
		digits := 3
		if least < 10 {
			digits = 2
		}
		return fixed(v, max(0, digits-int(math.Floor(math.Log10(least)))))
	}
}

// number formats a number that stands alone.
func number(v float64) string { return columnFormat([]Score{{Values: []float64{v}}}, 0)(v) }

func (f *Forecast) modelName() string {
	switch {
	case f.Model != "":
		return f.Model
	case len(f.Scores) > 0 && f.Scores[0].Name != "":
		return f.Scores[0].Name
	}
	return "Model"
}

// inUnit tells whether a metric has the unit of the data.
func inUnit(metric string) bool {
	return metric == "mae" || metric == "rmse" || metric == "pinball"
}

var metricNames = map[string]string{
	"mse": "MSE", "mae": "MAE", "rmse": "RMSE", "smape": "sMAPE", "mase": "MASE",
	"mse_scaled": "MSE, scaled", "mae_scaled": "MAE, scaled", "pinball": "Pinball loss", "coverage": "Coverage",
}

func metricName(m string) string {
	if n, ok := metricNames[m]; ok {
		return n
	}
	return m
}

// methodName writes names such as seasonal_naive as words.
func methodName(s string) string {
	s = strings.ReplaceAll(s, "_", " ")
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
