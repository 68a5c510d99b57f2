package forecast

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Evaluation is the scores of a model on a part of a table, and those of the
// baselines on the same windows.
type Evaluation struct {
	Task    string    `json:"task"`    // the task of the model
	Part    task.Part `json:"part"`    // part of the rows that was scored: train, validation, test or all
	Metrics Metrics   `json:"metrics"` // the model's scores
	// Baselines are naive, drift, linear (ridge regression on the same inputs),
	// seasonal_naive_N for each season of N rows, and seasonal_naive, the best of
	// these.
	Baselines map[string]Metrics `json:"baselines"`
	Season    int                `json:"season"`               // rows of the season of seasonal_naive; 0: there is none, and seasonal_naive is naive
	Windows   int                `json:"windows"`              // number of windows scored
	Series    int                `json:"series"`               // number of series that they are from
	Horizon   int                `json:"horizon"`              // rows forecast in each window
	Stride    int                `json:"stride"`               // rows between their starts
	Targets   map[string]Metrics `json:"targets,omitempty"`    // by column, if there are several targets
	Verdict   string             `json:"verdict"`              // comparison with the baselines, in one or two sentences
	Notes     []string           `json:"notes,omitempty"`      // remarks on the result, a sentence each
	Levels    []float64          `json:"levels"`               // of the quantiles
	ByStep    []StepError        `json:"by_step"`              // errors by step of the horizon
	ByHour    []GroupError       `json:"by_hour,omitempty"`    // errors by hour of the day, local time
	ByWeekday []GroupError       `json:"by_weekday,omitempty"` // errors by weekday, Monday first
	Profile   []ProfileHour      `json:"profile,omitempty"`    // mean by hour, of weekdays and of weekends
	Samples   []Sample           `json:"-"`                    // windows to plot
}

// StepError is the mean absolute error of one step of the horizon, in the data's
// units.
type StepError struct {
	Step      int                `json:"step"`      // from 1
	MAE       float64            `json:"mae"`       // the model's mean absolute error
	Baselines map[string]float64 `json:"baselines"` // those of the baselines
}

// GroupError is the mean absolute error of the values of one hour or weekday, and
// the mean of the values.
type GroupError struct {
	Name   string  `json:"name"`   // the hour or the weekday
	MAE    float64 `json:"mae"`    // the model's mean absolute error
	Linear float64 `json:"linear"` // that of the baseline linear
	Mean   float64 `json:"mean"`   // of the values
}

// ProfileHour is the mean of one hour of weekdays or weekends, as measured and as
// forecast.
type ProfileHour struct {
	Weekend  bool    `json:"weekend"`  // Saturdays and Sundays; otherwise the other days
	Hour     int     `json:"hour"`     // of the day, 0 to 23
	Actual   float64 `json:"actual"`   // mean of the measured values
	Forecast float64 `json:"forecast"` // mean of the forecasts
}

// Sample is a window with its forecast, for a plot.
type Sample struct {
	Series, Target string
	HistoryTime    []time.Time // nil without times
	History        []float64   // the window
	Time           []time.Time // of the horizon; nil without times
	Actual         []float64
	Forecast       []float64
	Quantiles      [][]float64 // [level][step]
	SeasonalNaive  []float64
}

// samplesKept is the number of windows that an Evaluation keeps for plots.
const samplesKept = 6

// EvaluateOptions are the options of an evaluation. How the table is read is for
// [task.Trained.Read]; [Model.Evaluate] takes it as it was read.
type EvaluateOptions struct{ Reading }

// Evaluate scores every window of a part of a table, beside baselines. The table
// is divided according to the model's Config.Split. A table that does not fit the
// model, and a part without a window, are a *data.InputError; a cancelled ctx
// returns its error.
func (m *Model) Evaluate(ctx context.Context, from *Data, part task.Part, _ *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(from, "forecast: Evaluate")
	task.NeedData(from.Panel, "forecast: Evaluate")
	d, list, err := m.scored(from.Panel, part, 1)
	if err != nil {
		return nil, data.InFile(from.Name, err)
	}
	return m.score(ctx, d, list, part, 1)
}

// scored returns the windows of a part of a table, with origins stride rows
// apart.
func (m *Model) scored(panel *data.Panel, part task.Part, stride int) (*dataset, []window, error) {
	d, err := m.dataset(panel, part == task.All)
	if err != nil {
		return nil, nil, err
	}
	list := d.windows(max(0, slices.Index(partNames, part)), stride) // all rows are in the first
	if len(list) == 0 {
		return nil, nil, data.Errorf("the %s part has no window, which needs %d rows and %d rows of history before them", part, d.horizon, d.reach)
	}
	return d, list, nil
}

// dataset prepares a table, divided, or as one part if whole is set.
func (m *Model) dataset(panel *data.Panel, whole bool) (*dataset, error) {
	if err := m.schema.check(panel); err != nil {
		return nil, err
	}
	zone, err := m.schema.Clocks.zoneFor(panel)
	if err != nil {
		return nil, err
	}
	frames, empty, err := rawFrames(panel, &m.cfg)
	if err != nil {
		return nil, err
	}
	for _, f := range frames {
		f.show(zone)
		f.part = parts{{0, f.end}, {f.end, f.end}, {f.end, f.end}}
	}
	if !whole {
		if err := divide(m.cfg.Split, frames); err != nil {
			return nil, err
		}
	}
	for _, f := range frames {
		if err := f.prepare(m.schema, &m.cfg); err != nil {
			return nil, err
		}
	}
	return &dataset{schema: m.schema, cfg: &m.cfg, frames: frames, empty: empty, shape: newShape(m.schema, &m.cfg)}, nil
}

// tally sums what an Evaluation is computed from.
type tally struct {
	d         *dataset
	model     score
	targets   []score
	baselines []baseline
	scores    []score
	steps     []mean
	baseSteps [][]mean
	hours     [24][3]mean // error, linear's error, value
	weekdays  [7][3]mean
	profile   [2][24][2]mean // weekday or weekend: actual, forecast
	buffers   [][]float64
}

// score scores model and baselines on windows.
func (m *Model) score(ctx context.Context, d *dataset, list []window, part task.Part, stride int) (*Evaluation, error) {
	t := newTally(d, m.ridge, list)
	e := &Evaluation{Task: Name, Part: part, Windows: len(list), Horizon: d.horizon, Stride: stride, Levels: m.cfg.Quantiles, Notes: m.Notes()}
	every := max(1, len(list)/samplesKept)
	chosen := map[window]bool{}
	for i := every / 2; i < len(list) && len(chosen) < samplesKept; i += every {
		chosen[list[i]] = true
	}
	series := map[int32]bool{}
	err := m.forecastAll(ctx, d, list, e.Levels, func(w window, k int, s *steps) {
		series[w.frame] = true
		t.add(w, k, s, e.Levels)
		if k == 0 && chosen[w] {
			e.Samples = append(e.Samples, t.sample(m, w, s, len(e.Levels)))
		}
	})
	if err != nil {
		return nil, err
	}
	e.Series = len(series)
	var scored []*frame
	for i, f := range d.frames {
		if series[int32(i)] {
			scored = append(scored, f)
		}
	}
	e.Notes = append(e.Notes, d.remarks(scored)...)
	t.finish(m, e)
	return e, nil
}

func newTally(d *dataset, r *ridge, list []window) *tally {
	t := &tally{d: d, baselines: d.baselines(r, list), targets: make([]score, d.targets), steps: make([]mean, d.horizon)}
	t.scores = make([]score, len(t.baselines))
	for range t.baselines {
		t.baseSteps = append(t.baseSteps, make([]mean, d.horizon))
		t.buffers = append(t.buffers, make([]float64, d.horizon))
	}
	return t
}

// add adds one target of one window.
func (t *tally) add(w window, k int, s *steps, levels []float64) {
	f, origin := t.d.frames[w.frame], int(w.origin)
	fit := &f.fit[k]
	linear := -1
	for i, b := range t.baselines {
		b.forecast(t.buffers[i], f, k, origin)
		if b.name == "linear" {
			linear = i
		}
	}
	for h, y := range s.point {
		row := origin + h
		if row >= f.end || math.IsNaN(f.raw[k][row]) {
			continue
		}
		truth := f.raw[k][row]
		t.model.add(truth, y, fit)
		t.targets[k].add(truth, y, fit)
		t.model.addQuantiles(truth, levels, s.quantiles[h])
		t.steps[h].add(math.Abs(y - truth))
		for i := range t.baselines {
			t.scores[i].add(truth, t.buffers[i][h], fit)
			t.baseSteps[i][h].add(math.Abs(t.buffers[i][h] - truth))
		}
		if f.times == nil {
			continue
		}
		t.addTime(f.times[row], truth, y, t.buffers[linear][h])
	}
}

func (t *tally) addTime(at time.Time, truth, y, linear float64) {
	for _, g := range []*[3]mean{&t.hours[at.Hour()], &t.weekdays[weekday(at)]} {
		g[0].add(math.Abs(y - truth))
		g[1].add(math.Abs(linear - truth))
		g[2].add(truth)
	}
	weekend := 0
	if weekday(at) >= 5 {
		weekend = 1
	}
	p := &t.profile[weekend][at.Hour()]
	p[0].add(truth)
	p[1].add(y)
}

// sample returns a window's first target with its forecast.
func (t *tally) sample(m *Model, w window, s *steps, levels int) Sample {
	f, lo, origin := t.d.frames[w.frame], int(w.origin)-t.d.window, int(w.origin)
	end := min(origin+t.d.horizon, f.end)
	out := Sample{Series: f.id, Target: m.cfg.targets()[0], History: slices.Clone(f.given[0][lo:origin]),
		Actual: slices.Clone(f.raw[0][origin:end]), Forecast: slices.Clone(s.point), Quantiles: make([][]float64, levels)}
	if f.times != nil {
		out.HistoryTime, out.Time = slices.Clone(f.times[lo:origin]), slices.Clone(f.times[origin:origin+t.d.horizon])
	}
	for i := range out.Quantiles {
		for h := range s.quantiles {
			out.Quantiles[i] = append(out.Quantiles[i], s.quantiles[h][i])
		}
	}
	if i := t.strongest(); i >= 0 {
		out.SeasonalNaive = make([]float64, t.d.horizon)
		t.baselines[i].forecast(out.SeasonalNaive, f, 0, origin)
	}
	return out
}

// strongest returns the index of the seasonal naive baseline with the least error
// so far, or -1.
func (t *tally) strongest() int {
	best := -1
	for i, b := range t.baselines {
		if b.season > 0 && (best < 0 || t.scores[i].absolute.value() < t.scores[best].absolute.value()) {
			best = i
		}
	}
	return best
}

func (t *tally) finish(m *Model, e *Evaluation) {
	e.Metrics = t.model.metrics()
	e.Baselines = map[string]Metrics{}
	names := make([]string, len(t.baselines))
	for i, b := range t.baselines {
		names[i] = b.name
		e.Baselines[b.name] = t.scores[i].metrics()
	}
	seasonal := t.strongest()
	if seasonal < 0 {
		seasonal = slices.Index(names, "naive")
	}
	e.Season = t.baselines[seasonal].season
	e.Baselines["seasonal_naive"] = t.scores[seasonal].metrics()
	if t.d.targets > 1 {
		e.Targets = map[string]Metrics{}
		for k, name := range m.cfg.targets() {
			e.Targets[name] = t.targets[k].metrics()
		}
	}
	for h := range t.steps {
		s := StepError{Step: h + 1, MAE: t.steps[h].value(), Baselines: map[string]float64{}}
		for i, name := range names {
			s.Baselines[name] = t.baseSteps[i][h].value()
		}
		s.Baselines["seasonal_naive"] = t.baseSteps[seasonal][h].value()
		if !math.IsNaN(s.MAE) {
			e.ByStep = append(e.ByStep, s)
		}
	}
	t.finishTimes(e)
	e.Verdict = verdict(e)
}

var weekdayNames = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// finishTimes sets the errors by hour and weekday, if the rows have such times.
func (t *tally) finishTimes(e *Evaluation) {
	if unit := t.d.Freq.Unit; unit == data.Month || unit == data.MonthEnd {
		return
	}
	group := func(name string, g *[3]mean) GroupError {
		return GroupError{name, g[0].value(), g[1].value(), g[2].value()}
	}
	for i := range t.weekdays {
		if daily := t.d.Freq.Unit != data.Day || t.d.Freq.N == 1; t.weekdays[i][0].n > 0 && daily {
			e.ByWeekday = append(e.ByWeekday, group(weekdayNames[i], &t.weekdays[i]))
		}
	}
	if unit := t.d.Freq.Unit; unit != data.Nanosecond && unit != data.LocalSecond {
		return
	}
	for h := range t.hours {
		if t.hours[h][0].n > 0 {
			e.ByHour = append(e.ByHour, group(fmt.Sprintf("%02d", h), &t.hours[h]))
		}
		for weekend := range t.profile {
			if p := &t.profile[weekend][h]; p[0].n > 0 {
				e.Profile = append(e.Profile, ProfileHour{weekend == 1, h, p[0].value(), p[1].value()})
			}
		}
	}
}

// verdict compares the network with each baseline.
func verdict(e *Evaluation) string {
	var wins, losses []string
	for _, name := range []string{"naive", "seasonal_naive", "drift", "linear"} {
		b, ok := e.Baselines[name]
		if !ok {
			continue
		}
		label := strings.ReplaceAll(name, "_", " ")
		if name == "seasonal_naive" && e.Season > 0 {
			label = fmt.Sprintf("seasonal naive (%d rows)", e.Season)
		}
		if change := below(e.Metrics.MAE, b.MAE); e.Metrics.MAE < b.MAE {
			wins = append(wins, fmt.Sprintf("%s by %s", label, change))
		} else {
			losses = append(losses, fmt.Sprintf("%s, which is %s better", label, below(b.MAE, e.Metrics.MAE)))
		}
	}
	var parts []string
	if len(wins) > 0 {
		parts = append(parts, "In mean absolute error the network is better than "+strings.Join(wins, ", ")+".")
	}
	if len(losses) > 0 {
		parts = append(parts, "It is not better than "+strings.Join(losses, "; ")+".")
	}
	if nothingBeatsNaive(e) {
		parts = append(parts, "No method is better than the naive forecast, which repeats the last value.")
	}
	return strings.Join(parts, " ")
}

// worthwhile is the least relative improvement over the naive forecast that
// counts.
const worthwhile = 0.005

func nothingBeatsNaive(e *Evaluation) bool {
	limit := e.Baselines["naive"].MAE * (1 - worthwhile)
	if e.Metrics.MAE < limit {
		return false
	}
	for _, b := range e.Baselines {
		if b.MAE < limit {
			return false
		}
	}
	return true
}

// below returns by what share a is less than b, in percent: 0 where b is 0.
func below(a, b float64) string {
	if b == 0 {
		return report.Percent(0)
	}
	return report.Percent(1 - a/b)
}
