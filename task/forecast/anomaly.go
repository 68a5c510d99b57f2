package forecast

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// AnomalyOptions are the options of a search for anomalies; [DefaultAnomalies] has
// their defaults. How the table is read is for [Read].
type AnomalyOptions struct {
	Reading
	Rate    float64 `json:"rate" range:"(0..0.5]" value:"share" group:"Anomalies" help:"share of ordinary values that may be flagged"`
	Origins int     `json:"origins" range:"0.." value:"rows" group:"Anomalies" help:"rows just before a value from which it is forecast; the median of these forecasts is what is expected (0: a quarter of the horizon)"`
	Gap     int     `json:"gap" range:"0.." value:"rows" group:"Anomalies" help:"ordinary rows between two flagged ones that are still one event"`
}

// DefaultAnomalies returns the options for false alarms at one of a hundred ordinary
// values. Fields set to zero afterwards are zero.
func DefaultAnomalies() AnomalyOptions { return AnomalyOptions{Rate: 0.01, Gap: 2} }

// Anomalies are the values of a table that differ from their forecasts by more than
// those of the calibration do, but for a share of Rate.
type Anomalies struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Rate        float64              `json:"rate"`                      // share of ordinary values that may be flagged, as asked for
	Origins     int                  `json:"origins"`                   // rows just before a value from which it is forecast; the median of these forecasts is what is expected
	Values      int                  `json:"values"`                    // values that were scored
	Missing     int                  `json:"missing"`                   // values that are missing or were filled in, which are no anomalies
	Unforecast  int                  `json:"unforecast"`                // values that were measured and could not be forecast; notes say why
	Flagged     int                  `json:"flagged"`                   // values above their threshold
	Calibration []AnomalyCalibration `json:"calibration"`               // by target
	Events      []Anomaly            `json:"events"`                    // runs of flagged values, by series, target and time
	LeftOut     []string             `json:"series_left_out,omitempty"` // series without a value that was scored
	Notes       []string             `json:"notes,omitempty"`           // remarks on the result, a sentence each

	hasTime bool
	scored  []*anomalySeries
	sorted  [][]float64 // the calibration's scores by target
}

// AnomalyCalibration is what the scores of a target are compared with.
type AnomalyCalibration struct {
	Target    string  `json:"target"`    // the column
	Values    int     `json:"values"`    // values of the calibration
	Threshold float64 `json:"threshold"` // a value is flagged if its score is above
	Rate      float64 `json:"rate"`      // share of ordinary values above the threshold: more than was asked for if there are too few values
}

// Anomaly is an event: a run of flagged values.
type Anomaly struct {
	Series   string  `json:"series"`   // empty if there is only one
	Target   string  `json:"target"`   // the column
	Begin    Place   `json:"begin"`    // the first flagged row
	End      Place   `json:"end"`      // the last flagged row
	Flagged  int     `json:"flagged"`  // number of flagged values
	Missing  int     `json:"missing"`  // number of values between them that are missing or could not be scored
	Peak     Place   `json:"peak"`     // the row with the highest score, of which the rest tells
	Value    float64 `json:"value"`    // as measured
	Forecast float64 `json:"forecast"` // the median of its forecasts
	Lower    float64 `json:"lower"`    // least value that is not flagged
	Upper    float64 `json:"upper"`    // largest value that is not flagged
	Score    float64 `json:"score"`    // distance of value and forecast, divided by the mean of such distances in the calibration
	P        float64 `json:"p_value"`  // share of the calibration's scores that are as high, this one counted
}

// Place is a row of a series.
type Place struct {
	Row   int       `json:"row"`             // its number in the series, from 1
	Time  time.Time `json:"time,omitzero"`   // absent if the table has no times
	Stamp string    `json:"stamp,omitempty"` // the time as the table writes it, or the number by which it counts its rows; absent if it has neither
}

// anomalySeries is one target of one series.
type anomalySeries struct {
	frame  *frame
	k      int
	spread float64
	expect []float64 // [row], NaN where there are no forecasts
	rows   span      // that were looked at
	score  []float64 // [row-rows.lo], NaN where there is none
	event  []int     // [row-rows.lo], the number of the event from 1, or 0
}

// DetectAnomalies looks for anomalies in a part of a table. What is expected of a
// value is the median of its forecasts from the o.Origins origins just before it; no
// later row is used, but those of columns known ahead. Its score is the distance
// from that, divided by the mean distance of its series in the calibration:
// the validation rows of the table calibration, or if it has none all rows that the
// model was not trained on. A nil calibration is the validation rows of from. As in
// split conformal prediction the threshold of a target is the quantile of the
// calibration's scores, of all series together, which a share of o.Rate exceeds.
//
// A table that does not fit the model, a part without a value that can be
// scored, a calibration without values, and invalid options are a *data.InputError; a
// cancelled ctx returns its error. A nil o is [DefaultAnomalies].
func (m *Model) DetectAnomalies(ctx context.Context, from, calibration *Data, part task.Part, o *AnomalyOptions) (_ *Anomalies, err error) {
	defer tensor.Recover(&err)
	task.NeedData(from, "forecast: DetectAnomalies")
	task.NeedData(from.Panel, "forecast: DetectAnomalies")
	if o == nil {
		usual := DefaultAnomalies()
		o = &usual
	}
	if err := settings.Check(o); err != nil {
		return nil, data.Setting(err)
	}
	if o.Origins > m.cfg.Horizon {
		return nil, data.Errorf("origins: want at most the model's horizon of %d, got %d", m.cfg.Horizon, o.Origins)
	}
	m = m.at(stageTrained) // it has not learnt from the rows of validation
	d, err := m.dataset(from.Panel, false)
	if err != nil {
		return nil, data.InFile(from.Name, err)
	}
	look := func(f *frame) span {
		if part == task.All {
			return span{0, f.end}
		}
		return f.part[slices.Index(partNames, part)]
	}
	a := &Anomalies{Task: Name, Scored: scoredOf(part, d.frames), Rate: o.Rate, Origins: cmp.Or(o.Origins, (m.cfg.Horizon+3)/4), hasTime: d.HasTime}
	validation := func(f *frame) span { return f.part[validationPart] }
	own := []func(*frame) span{look}
	if calibration == nil {
		own = append(own, validation)
	}
	expected, err := m.expected(ctx, d, a.Origins, own...)
	if err != nil {
		return nil, err
	}
	var c *calibrated
	if calibration == nil {
		if c, err = a.calibrate(d, expected, validation); c == nil && err == nil {
			err = data.InFile(from.Name, data.Errorf("the rows by which the model was chosen, which its errors are compared with, are not here; give the table of its training with --calibration"))
		}
	} else {
		c, err = m.calibration(ctx, a, calibration, validation)
	}
	if err != nil {
		return nil, err
	}
	return a, m.flag(a, d, expected, look, c, o, from.Name)
}

// calibration calibrates by a table of its own.
func (m *Model) calibration(ctx context.Context, a *Anomalies, from *Data, validation func(*frame) span) (*calibrated, error) {
	d, err := m.dataset(from.Panel, false)
	if err != nil {
		return nil, data.InFile(from.Name, err)
	}
	fresh := func(f *frame) span { return f.part[testPart] }
	expected, err := m.expected(ctx, d, a.Origins, validation, fresh)
	if err != nil {
		return nil, err
	}
	for _, rows := range []func(*frame) span{validation, fresh} {
		if c, err := a.calibrate(d, expected, rows); c != nil || err != nil {
			return c, err
		}
	}
	return nil, data.InFile(from.Name, data.Errorf("no row that the model was not trained on can be forecast, which its errors are compared with; give the table of its training with --calibration"))
}

// expected returns for each frame, target and row of some spans the median of the
// row's forecasts from the given number of origins just before it: NaN for rows
// that lack one, and outside the spans.
func (m *Model) expected(ctx context.Context, d *dataset, origins int, spans ...func(*frame) span) ([][][]float64, error) {
	out := make([][][]float64, len(d.frames))
	var list []window
	wanted := make([][]bool, len(d.frames))
	for i, f := range d.frames {
		wanted[i] = make([]bool, f.end)
		for range d.targets {
			out[i] = append(out[i], slices.Repeat([]float64{math.NaN()}, f.end))
		}
		for _, of := range spans {
			for p, row := of(f), of(f).lo; row < p.hi; row++ {
				wanted[i][row] = true
			}
		}
		usable, next := 0, 0 // origins in a row that have what a forecast needs; the first that is not listed yet
		for row := range f.end {
			if usable++; !m.usable(d, f, row) {
				usable = 0
			}
			if wanted[i][row] = wanted[i][row] && usable >= origins; wanted[i][row] {
				for next = max(next, row-origins+1); next <= row; next++ {
					list = append(list, window{int32(i), int32(next)})
				}
			}
		}
	}
	// The forecasts of the last rows by target, row modulo origins, and step. When the
	// origin of a row comes, all earlier ones that forecast it have just been.
	recent := make([]float64, d.targets*origins*origins)
	sorted := make([]float64, origins)
	return out, m.forecastAll(ctx, d, list, nil, func(w window, k int, s *steps) {
		origin := int(w.origin)
		for h := range origins {
			recent[(k*origins+(origin+h)%origins)*origins+h] = s.point[h]
		}
		if wanted[w.frame][origin] {
			copy(sorted, recent[(k*origins+origin%origins)*origins:])
			slices.Sort(sorted)
			out[w.frame][k][origin] = sortedQuantile(sorted, 0.5)
		}
	})
}

// usable reports whether a row can be the origin of a forecast: there are enough
// rows before it, and values known ahead over the horizon.
func (m *Model) usable(d *dataset, f *frame, origin int) bool {
	if origin < d.reach || origin+d.horizon > f.rows {
		return false
	}
	return masked(&m.cfg) || !slices.ContainsFunc(f.aheadGap, func(gap []float32) bool { return slices.Contains(gap[origin:origin+d.horizon], 1) })
}

// distance returns the distance of a value from what was expected; 0 if the two
// differ by no more than rounding in float32.
func distance(value, expect float64) float64 {
	if e := math.Abs(value - expect); !(e <= rounding*max(math.Abs(value), math.Abs(expect))) {
		return e
	}
	return 0
}

const rounding = 1e-6

// calibrated is the errors of a calibration.
type calibrated struct {
	spread map[string][]float64 // mean distance by series and target; NaN if there are few
	pooled []float64            // by target, of all series in standard deviations
}

// calibrate takes over the scores of some rows: nil if there are none.
func (a *Anomalies) calibrate(d *dataset, expected [][][]float64, rows func(*frame) span) (*calibrated, error) {
	c := &calibrated{spread: map[string][]float64{}, pooled: make([]float64, d.targets)}
	errors := make([][][]float64, d.targets) // [target][frame]
	for k := range errors {
		var all mean
		for i, f := range d.frames {
			var own mean
			var list []float64
			for p, row := rows(f), rows(f).lo; row < p.hi; row++ {
				if e := distance(f.raw[k][row], expected[i][k][row]); !math.IsNaN(e) {
					own.add(e)
					all.add(e / f.fit[k].unit())
					list = append(list, e)
				}
			}
			if own.n < fewResiduals {
				own.sum = math.NaN()
			}
			c.spread[f.id] = append(c.spread[f.id], own.value())
			errors[k] = append(errors[k], list)
		}
		if all.n == 0 {
			return nil, nil
		}
		c.pooled[k] = all.value()
	}
	for k, name := range d.cfg.targets() {
		var scores []float64
		for i, f := range d.frames {
			spread := c.of(f, k)
			for _, e := range errors[k][i] {
				scores = append(scores, e/spread)
			}
		}
		slices.Sort(scores)
		n := len(scores)
		one := AnomalyCalibration{Target: name, Values: n, Rate: max(a.Rate, 1/float64(n+1))}
		one.Threshold = scores[int(math.Ceil((1-one.Rate)*float64(n+1)-1e-9))-1]
		a.Calibration = append(a.Calibration, one)
		a.sorted = append(a.sorted, scores)
		if one.Rate > a.Rate {
			a.Notes = append(a.Notes, fmt.Sprintf("the calibration of %s has %s, and a rate of %g needs %s; a value is flagged if its score is above all of them, as about one of %s ordinary ones is",
				name, report.Plural(n, "value"), a.Rate, report.Count(int(math.Ceil(1/a.Rate-1e-9))-1), report.Count(n+1)))
		}
	}
	return c, nil
}

// of returns the spread of a target of a series, which is above 0. Series of which
// the calibration has few values have that of all series.
func (c *calibrated) of(f *frame, k int) float64 {
	spread := math.NaN()
	if own := c.spread[f.id]; own != nil {
		spread = own[k]
	}
	if math.IsNaN(spread) {
		spread = c.pooled[k] * f.fit[k].unit()
	}
	return cmp.Or(spread, rounding*max(math.Abs(f.fit[k].Low), math.Abs(f.fit[k].High)), 1)
}

// flag scores the rows of a part and collects the events.
func (m *Model) flag(a *Anomalies, d *dataset, expected [][][]float64, look func(*frame) span, c *calibrated, o *AnomalyOptions, file string) error {
	var scored []*frame
	var few []string
	early, late := 0, 0 // values without a forecast
	for i, f := range d.frames {
		values := 0
		for k := range d.targets {
			s := &anomalySeries{frame: f, k: k, rows: look(f), spread: c.of(f, k), expect: expected[i][k]}
			for row := s.rows.lo; row < s.rows.hi; row++ {
				e := distance(f.raw[k][row], s.expect[row])
				s.score = append(s.score, e/s.spread)
				switch {
				case math.IsNaN(f.raw[k][row]):
					a.Missing++
				case !math.IsNaN(e):
					values++
				case row < d.reach+a.Origins-1:
					early++
				default:
					late++
				}
			}
			s.event = make([]int, len(s.score))
			a.join(s, o.Gap)
			a.scored = append(a.scored, s)
		}
		if values == 0 {
			a.LeftOut = append(a.LeftOut, f.id)
			continue
		}
		a.Values += values
		scored = append(scored, f)
		if own := c.spread[f.id]; own == nil || slices.ContainsFunc(own, math.IsNaN) {
			few = append(few, cmp.Or(f.id, "the table"))
		}
	}
	a.LeftOut = append(a.LeftOut, d.empty...)
	a.Unforecast = early + late
	if a.Values == 0 {
		if a.Unforecast == 0 {
			return data.InFile(file, data.Errorf("the %s part has no measured value; give a table with rows that are new to the model, or another part with --split-part", a.Part))
		}
		return data.InFile(file, data.Errorf("the %s part has no value that can be forecast, which needs %s before it%s; give a longer table", a.Part, report.Plural(d.reach+a.Origins-1, "row"), m.needsAhead()))
	}
	a.scored = slices.DeleteFunc(a.scored, func(s *anomalySeries) bool { return !slices.Contains(scored, s.frame) })
	if a.Missing > 0 {
		a.Notes = append(a.Notes, fmt.Sprintf("%s of %s values are missing or were filled in; they are not scored", report.Count(a.Missing), report.Count(a.Values+a.Missing+a.Unforecast)))
	}
	if early > 0 {
		a.Notes = append(a.Notes, fmt.Sprintf("%s at the beginning of a series are not scored, as a forecast needs %s before them", report.Plural(early, "value"), report.Plural(d.reach+a.Origins-1, "row")))
	}
	if late > 0 {
		a.Notes = append(a.Notes, fmt.Sprintf("%s not scored, as a forecast needs %s for %s from them on; add rows with these columns filled in and the targets left empty",
			report.Agree(late, "value is", "values are"), joinAnd(m.cfg.ahead()), report.Plural(d.horizon, "row")))
	}
	if len(few) > 0 && len(d.frames) > 1 {
		a.Notes = append(a.Notes, fmt.Sprintf("the calibration has fewer than %d values of series %s; their errors are compared with those of all series", fewResiduals, report.Listing(few)))
	}
	a.Notes = append(a.Notes, d.remarks(&m.cfg, scored)...)
	return nil
}

// needsAhead names the columns that are known ahead, for an error.
func (m *Model) needsAhead() string {
	if len(m.cfg.ahead()) == 0 {
		return ""
	}
	return fmt.Sprintf(", and %s for %s from it on", joinAnd(m.cfg.ahead()), report.Plural(m.cfg.Horizon, "row"))
}

// join adds the events of a series. Flagged rows with at most gap ordinary ones
// between them are one event, and rows without a score do not count.
func (a *Anomalies) join(s *anomalySeries, gap int) {
	c := &a.Calibration[s.k]
	var open *Anomaly
	ordinary, without := 0, 0 // rows since the last flagged one
	for i, score := range s.score {
		switch row := s.rows.lo + i; {
		case math.IsNaN(score):
			without++
		case score <= c.Threshold:
			ordinary++
		default:
			if open == nil || ordinary > gap {
				a.Events = append(a.Events, Anomaly{Series: s.frame.id, Target: c.Target, Begin: s.place(row), Score: math.Inf(-1)})
				open, without = &a.Events[len(a.Events)-1], 0
			}
			open.End = s.place(row)
			open.Flagged++
			open.Missing += without
			if score > open.Score {
				open.Peak, open.Score, open.P = s.place(row), score, a.p(s.k, score)
				open.Value, open.Forecast = s.frame.raw[s.k][row], s.expect[row]
				open.Lower, open.Upper = s.ordinary(row, c.Threshold)
			}
			for at := open.Begin.Row - 1; at <= row; at++ {
				s.event[at-s.rows.lo] = len(a.Events)
			}
			a.Flagged++
			ordinary, without = 0, 0
		}
	}
}

// p returns the share of the calibration's scores that are at least as high as one
// that is counted as well.
func (a *Anomalies) p(k int, score float64) float64 {
	n := len(a.sorted[k])
	return float64(1+n-sort.SearchFloat64s(a.sorted[k], score)) / float64(n+1)
}

// ordinary returns the interval of values of a row that are not flagged.
func (s *anomalySeries) ordinary(row int, threshold float64) (lower, upper float64) {
	return s.expect[row] - threshold*s.spread, s.expect[row] + threshold*s.spread
}

func (s *anomalySeries) place(row int) Place {
	p := Place{Row: row + 1, Stamp: s.frame.stamp(row)}
	if s.frame.times != nil {
		p.Time = s.frame.times[row].In(s.frame.zone)
	}
	return p
}
