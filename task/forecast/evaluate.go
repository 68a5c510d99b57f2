package forecast

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Evaluation is the scores of a model on a part of a table, and those of the
// baselines on the same windows.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Simulation bool    `json:"simulation,omitempty"` // the model has no past values of the target, which the baselines but linear have; each row is then forecast once
	Members    int     `json:"members"`              // networks of which the forecast is the mean
	Forecaster string  `json:"forecaster"`           // what the model forecasts with: network (with its linear path), linear path (alone, as the network did not improve on it) or mixture of simple methods
	Metrics    Metrics `json:"metrics"`              // the model's scores
	// Baselines are naive, naive2 (M4's: naive after seasonal adjustment, which is
	// measured on the rows before the first window), drift, theta and ets (exponential
	// smoothing, absent with more than 1,000 series times targets), linear (ridge
	// regressions on the same inputs), seasonal_naive_N for each season of N rows, and
	// seasonal_naive, the best of these.
	Baselines  map[string]Metrics `json:"baselines"`
	Season     int                `json:"season"`                // rows of the season of seasonal_naive; 0: there is none, and seasonal_naive is naive
	MASESeason int                `json:"mase_season,omitempty"` // rows of the season that scales mase and rmsse: the first of the frequency, or 1; absent if the series differ
	Windows    int                `json:"windows"`               // number of windows scored
	Series     int                `json:"series"`                // number of series that they are from
	Horizon    int                `json:"horizon"`               // rows forecast in each window
	Stride     int                `json:"stride"`                // rows between their starts
	Values     int                `json:"values"`                // values of the targets in the part
	Unscored   int                `json:"unscored,omitempty"`    // of these, values that are missing or were filled in, which are not scored
	Targets    map[string]Metrics `json:"targets,omitempty"`     // by column, if there are several targets
	BySeries   []SeriesScore      `json:"by_series,omitempty"`   // by series and target, if there are several series
	Shares     []MethodShare      `json:"shares,omitempty"`      // what the forecast is a mixture of, by target
	Linear     []LinearChoice     `json:"linear,omitempty"`      // the regressions that were tried for the linear path, by target
	Verdict    string             `json:"verdict"`               // comparison with the baselines, in a few sentences; that of several targets is by mae_scaled
	Notes      []string           `json:"notes,omitempty"`       // remarks on the result, a sentence each
	Levels     []float64          `json:"levels"`                // of the quantiles; empty if the model has no intervals
	Nominal    float64            `json:"nominal,omitempty"`     // share of values that the outermost interval should cover; absent without intervals
	ByStep     []StepError        `json:"by_step"`               // errors by step of the horizon
	ByHour     []GroupError       `json:"by_hour,omitempty"`     // errors by hour of the day, local time
	ByWeekday  []GroupError       `json:"by_weekday,omitempty"`  // errors by weekday, Monday first
	Profile    []ProfileHour      `json:"profile,omitempty"`     // mean by hour, of weekdays and of weekends
	Samples    []Sample           `json:"-"`                     // windows to plot
}

// MethodShare is the share of a method in the forecast of a target. The shares of a
// target add up to 1.
type MethodShare struct {
	Target string  `json:"target"` // the column
	Method string  `json:"method"` // a baseline; linear is the network with its linear path
	Share  float64 `json:"share"`  // in the forecast, from 0 to 1; where series have shares of their own, that of all together, which new series have
	Error  float64 `json:"error"`  // mean absolute error of the method alone for windows left out, in standard deviations of the training rows; that of linear is without the network
	Series int     `json:"series"` // number of series in which the share of the method is the largest, where series have shares of their own; else 0
}

// LinearChoice is a regression that was tried for the linear path of a target.
type LinearChoice struct {
	Target  string  `json:"target"`  // the column
	Window  int     `json:"window"`  // rows before the forecast that it sees
	Lags    []int   `json:"lags"`    // rows by which the values are earlier that it sees beside them
	Level   bool    `json:"level"`   // it sees the level of the window
	Groups  bool    `json:"groups"`  // it sees the kind of time, such as hour and weekday
	Penalty float64 `json:"penalty"` // of its weights, relative to the mean sum of squares of an input
	Error   float64 `json:"error"`   // mean absolute error for windows left out, in the network's units
	Share   float64 `json:"share"`   // in the linear path; those of a target add up to 1
}

// SeriesScore is the scores of one target of one series.
type SeriesScore struct {
	Series    string             `json:"series"`    // the series
	Target    string             `json:"target"`    // the column
	Values    int                `json:"values"`    // number of forecasts scored; a value is forecast by several windows
	Metrics   Metrics            `json:"metrics"`   // the model's scores
	Baselines map[string]float64 `json:"baselines"` // the baselines' mean absolute errors
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

// EvaluateOptions are the options of an evaluation; nil is the zero value. How the
// table is read is for [task.Trained.Read]; [Model.Evaluate] takes it as it was read.
type EvaluateOptions struct {
	Reading
	Out string `json:"out" value:"file" group:"Evaluation" help:"write the scored forecasts to this file, as CSV"`
	Gift
}

// Evaluate scores every window of a part of a table, beside baselines. Training and
// validation are the rows that the model was trained on, and the test is all others
// (of a series with a split that leaves the last rows to no part, without these). A
// model that an older version saved does not know these rows, and divides the table
// according to its Config.Split. A table that does not fit the
// model, and a part without a window, are a *data.InputError; a cancelled ctx
// returns its error.
//
// The weights are not those of forecasts, but the ones fitted to training and
// validation rows; for the part validation, and with Refit none, those of training
// rows. Intervals adapt from origin to origin through the part.
func (m *Model) Evaluate(ctx context.Context, from *Data, part task.Part, o *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(from, "forecast: Evaluate")
	task.NeedData(from.Panel, "forecast: Evaluate")
	m = m.scoring(part)
	d, list, stride, err := m.scored(from.Panel, part, 0)
	if err != nil {
		return nil, data.InFile(from.Name, err)
	}
	if o == nil {
		o = &EvaluateOptions{}
	}
	if err := o.Gift.check(m); err != nil {
		return nil, err
	}
	e, err := m.score(ctx, d, list, part, stride, o.Out)
	if err != nil {
		return nil, err
	}
	if stride != d.horizon {
		list = d.windows(partAt(part), d.horizon)
	}
	return e, o.Gift.write(ctx, m, d, list, partAt(part), from.Name)
}

// Tally returns an error of [Model.Evaluate] by window, over all its targets: the sum and
// the number of values. It is mse_scaled for a model trained with a loss of points, which
// does not depend on the units of targets and series, and otherwise the error by which
// Evaluate compares methods: mae, or mae_scaled for several targets. Windows overlap if
// Evaluate scores every origin. Its errors are those of Evaluate.
func (m *Model) Tally(ctx context.Context, from *Data, part task.Part, _ *EvaluateOptions) (_ *task.Tally, err error) {
	defer tensor.Recover(&err)
	task.NeedData(from, "forecast: Tally")
	task.NeedData(from.Panel, "forecast: Tally")
	m = m.scoring(part)
	d, list, stride, err := m.scored(from.Panel, part, 0)
	if err != nil {
		return nil, data.InFile(from.Name, err)
	}
	name, of := "mse_scaled", func(s *score) mean { return s.squaredScaled }
	switch {
	case pointLoss(m.cfg.Loss):
	case d.targets > 1:
		name, of = "mae_scaled", func(s *score) mean { return s.absoluteScaled }
	default:
		name, of = "mae", func(s *score) mean { return s.absolute }
	}
	t := &task.Tally{Name: name, Block: (m.cfg.Horizon + stride - 1) / stride, Rows: make([][]float64, len(list)), Of: func(s []float64) float64 { return s[0] / s[1] }}
	rows := map[window][]float64{}
	for i, w := range list {
		t.Rows[i] = make([]float64, 2)
		rows[w] = t.Rows[i]
	}
	err = m.forecastAll(ctx, d, list, nil, func(w window, k int, s *steps) {
		var one score
		for h, truth := range d.measured(w, k, s) {
			one.add(0, truth, s.point[h], &d.frames[w.frame].fit[k])
		}
		sum := of(&one)
		rows[w][0], rows[w][1] = rows[w][0]+sum.sum, rows[w][1]+float64(sum.n)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// scoring returns the model whose scores are those of a part.
func (m *Model) scoring(part task.Part) *Model {
	if part == task.Validation {
		return m.at(stageTrained)
	}
	return m.at(stageScored)
}

// measured iterates over the steps of a target of a window that are scored, with their
// values.
func (d *dataset) measured(w window, k int, s *steps) iter.Seq2[int, float64] {
	return func(yield func(int, float64) bool) {
		f, origin := d.frames[w.frame], int(w.origin)
		for h := s.from; h < min(len(s.point), f.end-origin); h++ {
			if truth := f.raw[k][origin+h]; !math.IsNaN(truth) && !yield(h, truth) {
				return
			}
		}
	}
}

// partAt returns the index of a part. All rows are in the first.
func partAt(part task.Part) int { return max(0, slices.Index(partNames, part)) }

// scored returns the windows of a part of a table and the rows between their
// origins: stride, or as the model is scored if it is 0.
func (m *Model) scored(panel *data.Panel, part task.Part, stride int) (*dataset, []window, int, error) {
	d, err := m.dataset(panel, part == task.All)
	if err != nil {
		return nil, nil, 0, err
	}
	var list []window
	if at := partAt(part); stride == 0 {
		list, stride = d.toScore(at)
	} else {
		list = d.windows(at, stride)
	}
	if len(list) == 0 {
		return nil, nil, 0, data.Errorf("the %s part has no window, which needs %d rows and %d rows of history before them", part, d.horizon, d.reach)
	}
	return d, list, stride, nil
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
		if err := m.divide(frames); err != nil {
			return nil, err
		}
	}
	for _, f := range frames {
		if err := f.prepare(m.schema, &m.cfg); err != nil {
			return nil, err
		}
	}
	return &dataset{trained: m.stage == stageTrained, schema: m.schema, cfg: &m.cfg, frames: frames, empty: empty, shape: newShape(m.schema, &m.cfg)}, nil
}

// tally sums what an Evaluation is computed from.
type tally struct {
	d         *dataset
	part      int
	levels    []float64 // of the intervals
	all       []float64 // these and crpsLevels, ascending; empty if there are no intervals
	own, fine []int     // the places of levels and of crpsLevels in all
	model     tallied
	targets   []score
	series    []score // of the model, by series and target: seriesAt
	baselines []baseline
	scores    []tallied
	hours     [24][3]mean // error, linear's error, value
	weekdays  [7][3]mean
	profile   [2][24][2]mean // weekday or weekend: actual, forecast
	buffers   [][]float64
	belowZero []bool // by target: the model forecast a value or a bound below 0
}

// tallied is the sums of one method.
type tallied struct {
	score
	steps  []mean
	series []mean // absolute errors, by seriesAt
}

// seriesAt is the index of a target of a frame.
func (t *tally) seriesAt(frame int32, k int) int { return int(frame)*t.d.targets + k }

// score scores model and baselines on windows, and writes the forecasts to a file if
// out names one.
func (m *Model) score(ctx context.Context, d *dataset, list []window, part task.Part, stride int, out string) (*Evaluation, error) {
	levels, note := m.levels(m.cfg.Quantiles)
	t, err := newTally(ctx, d, m.ridge, list, part, levels)
	if err != nil {
		return nil, err
	}
	var scored []*frame
	for _, w := range list {
		if f := d.frames[w.frame]; !slices.Contains(scored, f) {
			scored = append(scored, f)
		}
	}
	e := &Evaluation{Task: Name, Scored: scoredOf(part, scored), Windows: len(list), Horizon: d.horizon, Stride: stride, Simulation: m.cfg.NoTargetHistory, Members: m.cfg.Members, Forecaster: m.forecaster(), Notes: m.Notes()}
	if note != "" && !slices.Contains(e.Notes, note) {
		e.Notes = append(e.Notes, note)
	}
	every := max(1, len(list)/samplesKept)
	chosen := map[window]int{} // and the target to draw, each in turn
	for i := every / 2; i < len(list) && len(chosen) < samplesKept; i += every {
		chosen[list[i]] = len(chosen) % d.targets
	}
	err = m.keeping(out, d, levels, func(file *scoredFile) error {
		return t.forecast(ctx, m, list, func(w window, k int, s *steps) {
			file.add(w, k, s)
			if target, drawn := chosen[w]; drawn && k == target {
				e.Samples = append(e.Samples, t.sample(m, w, k, s))
			}
		})
	})
	if err != nil {
		return nil, err
	}
	if m.stage == stageScored && m.cfg.Refit == refitAll && part == task.Test {
		e.Notes = append(e.Notes, refitNote)
	}
	e.Notes = append(e.Notes, d.remarks(&m.cfg, scored)...)
	t.finish(m, e)
	return e, nil
}

// newTally returns an empty tally of the model beside the simple methods and the
// regression r.
func newTally(ctx context.Context, d *dataset, r *ridge, list []window, part task.Part, levels []float64) (*tally, error) {
	baselines, err := d.baselines(ctx, r, list)
	if err != nil {
		return nil, err
	}
	return d.tally(baselines, part, levels), nil
}

// tally returns an empty tally of the model beside baselines.
func (d *dataset) tally(baselines []baseline, part task.Part, levels []float64) *tally {
	t := &tally{d: d, part: partAt(part), levels: levels, baselines: baselines,
		targets: make([]score, d.targets), series: make([]score, len(d.frames)*d.targets), belowZero: make([]bool, d.targets)}
	one := func() tallied {
		return tallied{steps: make([]mean, d.horizon), series: make([]mean, len(d.frames)*d.targets)}
	}
	t.model = one()
	if len(levels) > 0 {
		t.all = union(levels, crpsLevels)
	}
	t.own, t.fine = places(t.all, levels), places(t.all, crpsLevels)
	for range t.baselines {
		t.scores = append(t.scores, one())
		t.buffers = append(t.buffers, make([]float64, d.horizon))
	}
	return t
}

// forecast adds the forecasts of windows, and calls use with each, as adaptive does.
func (t *tally) forecast(ctx context.Context, m *Model, list []window, use func(w window, k int, s *steps)) error {
	_, err := m.adaptive(ctx, t.d, list, t.all, m.begin(t.part), func(w window, k int, s *steps) {
		own := *s
		own.quantiles = make([][]float64, len(s.point))
		for h, all := range s.quantiles {
			if f, row := t.d.frames[w.frame], int(w.origin)+h; h >= s.from && len(t.all) > 0 && row < f.end {
				t.addCRPS(w.frame, k, f.raw[k][row], chosen(all, t.fine))
			}
			own.quantiles[h] = chosen(all, t.own)
		}
		t.add(w, k, &own)
		use(w, k, &own)
	})
	return err
}

// addCRPS adds the quantiles of crpsLevels of one value's forecast.
func (t *tally) addCRPS(frame int32, k int, truth float64, quantiles []float64) {
	if math.IsNaN(truth) {
		return
	}
	for _, of := range []*score{&t.model.score, &t.targets[k], &t.series[t.seriesAt(frame, k)]} {
		of.addCRPS(truth, quantiles)
	}
}

// add adds one target of one window.
func (t *tally) add(w window, k int, s *steps) {
	f, origin := t.d.frames[w.frame], int(w.origin)
	fit, series := &f.fit[k], t.seriesAt(w.frame, k)
	linear := -1
	for i, b := range t.baselines {
		b.forecast(t.buffers[i], f, k, origin)
		if b.name == "linear" {
			linear = i
		}
	}
	one := func(to *tallied, h int, truth, forecast float64) {
		to.add(series, truth, forecast, fit)
		to.steps[h].add(math.Abs(forecast - truth))
		to.series[series].add(math.Abs(forecast - truth))
	}
	for h, truth := range t.d.measured(w, k, s) {
		y := s.point[h]
		one(&t.model, h, truth, y)
		t.targets[k].add(series, truth, y, fit)
		t.series[series].add(0, truth, y, fit)
		for _, of := range []*score{&t.model.score, &t.targets[k], &t.series[series]} {
			of.addQuantiles(truth, t.levels, s.quantiles[h])
		}
		t.belowZero[k] = t.belowZero[k] || s.belowZero(h)
		for i := range t.baselines {
			one(&t.scores[i], h, truth, t.buffers[i][h])
		}
		if f.times == nil {
			continue
		}
		t.addTime(f.times[origin+h], truth, y, t.buffers[linear][h])
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

// sample returns a target of a window with its forecast.
func (t *tally) sample(m *Model, w window, k int, s *steps) Sample {
	f, lo, origin := t.d.frames[w.frame], int(w.origin)-t.d.window, int(w.origin)
	end := min(origin+t.d.horizon, f.end)
	out := Sample{Series: f.id, Target: m.cfg.targets()[k], History: slices.Clone(f.given[k][lo:origin]),
		Actual: slices.Clone(f.raw[k][origin:end]), Forecast: slices.Clone(s.point), Quantiles: make([][]float64, len(t.levels))}
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
		t.baselines[i].forecast(out.SeasonalNaive, f, k, origin)
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
	naive2 := t.scores[1].metrics()
	e.Metrics = t.model.metrics().against(naive2)
	e.Baselines = map[string]Metrics{}
	seasonal := max(t.strongest(), 0) // naive is the first
	for i, b := range t.baselines {
		e.Baselines[b.name] = t.scores[i].metrics().against(naive2)
	}
	e.Season = t.baselines[seasonal].season
	e.Baselines["seasonal_naive"] = e.Baselines[t.baselines[seasonal].name]
	e.Levels = t.levels
	if n := len(t.levels); n > 1 {
		e.Nominal = t.levels[n-1] - t.levels[0]
	}
	if t.d.targets > 1 {
		e.Targets = map[string]Metrics{}
		for k, name := range m.cfg.targets() {
			e.Targets[name] = t.targets[k].metrics()
		}
	}
	// means returns the means of one group of each baseline.
	means := func(of func(*tallied) *mean) map[string]float64 {
		all := map[string]float64{"seasonal_naive": of(&t.scores[seasonal]).value()}
		for i, b := range t.baselines {
			all[b.name] = of(&t.scores[i]).value()
		}
		return all
	}
	for h := range t.model.steps {
		if step := &t.model.steps[h]; step.n > 0 {
			e.ByStep = append(e.ByStep, StepError{h + 1, step.value(), means(func(one *tallied) *mean { return &one.steps[h] })})
		}
	}
	for i, f := range t.d.frames {
		scored := false
		for k, name := range m.cfg.targets() {
			at := t.seriesAt(int32(i), k)
			n := t.model.series[at].n
			scored = scored || n > 0
			if n > 0 && len(t.d.frames) > 1 {
				e.BySeries = append(e.BySeries, SeriesScore{f.id, name, n, t.series[at].metrics(), means(func(one *tallied) *mean { return &one.series[at] })})
			}
		}
		if scored {
			e.Series++
		}
	}
	if e.Series == 1 {
		e.BySeries = nil
	}
	t.finishTimes(e)
	t.count(e)
	t.finishSeason(e)
	e.Shares, e.Linear = m.shares(), m.linearChoices()
	e.Verdict = e.verdict()
	e.Notes = append(e.Notes, t.remarks(m, e)...)
}

// count sets the numbers of values of the part, and of those that are not scored.
func (t *tally) count(e *Evaluation) {
	for _, f := range t.d.frames {
		p := f.part[t.part]
		for _, column := range f.raw {
			for row := max(p.lo, t.d.reach); row < min(p.hi, f.end); row++ {
				e.Values++
				if math.IsNaN(column[row]) {
					e.Unscored++
				}
			}
		}
	}
}

// finishSeason sets the season of MASE, if it is the same for all series scored.
func (t *tally) finishSeason(e *Evaluation) {
	for i, f := range t.d.frames {
		for k := range f.fit {
			if t.model.series[t.seriesAt(int32(i), k)].n == 0 {
				continue
			}
			if e.MASESeason == 0 {
				e.MASESeason = f.fit[k].Season
			}
			if f.fit[k].Season != e.MASESeason {
				e.MASESeason = 0
				return
			}
		}
	}
}

// remarks returns notes on what the scores mean.
func (t *tally) remarks(m *Model, e *Evaluation) (notes []string) {
	if e.Unscored > 0 {
		how := "are missing"
		if slices.ContainsFunc(t.d.frames, func(f *frame) bool { return slices.ContainsFunc(f.yFill, func(y *fill) bool { return y != nil }) }) {
			how = "were filled in"
		}
		part := fmt.Sprintf("of the %s part ", e.Part)
		if e.Part == task.All {
			part = ""
		}
		notes = append(notes, fmt.Sprintf("%s of %s values %s%s and are not scored", report.Count(e.Unscored), report.Count(e.Values), part, how))
	}
	if len(e.Targets) > 1 {
		notes = append(notes, "methods are compared by scaled MAE, in standard deviations of each target; MAE and RMSE are means over targets whose units may differ")
	}
	if note := e.narrow(e.Values - e.Unscored); note != "" {
		notes = append(notes, note)
	}
	return append(notes, m.belowZero(t.belowZero)...)
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
