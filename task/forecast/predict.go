package forecast

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Forecast is what follows the last measured row of each series.
type Forecast struct {
	Levels []float64        `json:"levels"`          // of the quantiles, ascending
	Series []SeriesForecast `json:"series"`          // one for each series and target
	Notes  []string         `json:"notes,omitempty"` // what to know of the result, a sentence each
}

// SeriesForecast is the forecast of one target of one series.
type SeriesForecast struct {
	ID        string      `json:"id"`             // the series; empty where there is only one
	Target    string      `json:"target"`         // the column
	Time      []time.Time `json:"time,omitempty"` // absent where the table has no times
	Row       []int       `json:"row"`            // counted from 1 over the series
	Point     []float64   `json:"forecast"`       // the forecast values
	Quantiles [][]float64 `json:"quantiles"`      // [level][step]
}

// PredictOptions changes a prediction; nil is the model's own.
type PredictOptions struct {
	Quantiles []float64 `json:"quantiles" range:"(0..1)" value:"levels" group:"Prediction" help:"levels of the quantiles to give, ascending, such as 0.1,0.9 (empty: the model's)"`
}

// Forecast forecasts the horizon after the last row that has a target, of each
// series of a table with the columns that the model was trained on. Columns known
// ahead need their values over the horizon, in rows without targets; a table
// without these, or too short, is a *data.InputError. A cancelled ctx ends it with
// its error.
func (m *Model) Forecast(ctx context.Context, panel *data.Panel, o *PredictOptions) (*Forecast, error) {
	levels := m.cfg.Quantiles
	if o != nil && o.Quantiles != nil {
		levels = slices.Clone(o.Quantiles)
		slices.Sort(levels)
	}
	if err := m.checkLevels(levels); err != nil {
		return nil, err
	}
	d, err := m.dataset(panel, true)
	if err != nil {
		return nil, err
	}
	list, err := m.latest(d)
	if err != nil {
		return nil, err
	}
	out := &Forecast{Levels: levels, Series: make([]SeriesForecast, len(list)*d.targets)}
	at := map[window]int{}
	for i, w := range list {
		at[w] = i
	}
	err = m.forecastAll(ctx, d, list, levels, func(w window, k int, s *steps) {
		f, origin := d.frames[w.frame], int(w.origin)
		one := SeriesForecast{ID: f.id, Target: m.cfg.targets()[k], Point: slices.Clone(s.point), Quantiles: make([][]float64, len(levels))}
		for h := range d.horizon {
			one.Row = append(one.Row, origin+h+1)
			if f.times != nil {
				one.Time = append(one.Time, f.times[origin+h])
			}
			for i := range levels {
				one.Quantiles[i] = append(one.Quantiles[i], s.quantiles[h][i])
			}
		}
		out.Series[at[w]*d.targets+k] = one
	})
	for _, f := range d.frames {
		if m.schema.Series[f.id] == nil {
			out.Notes = append(out.Notes, fmt.Sprintf("series %q was not in training and is scaled by its own rows", f.id))
		}
	}
	return out, err
}

// Predict forecasts what follows the table in a file, as [Model.Forecast] does.
// What is wrong with the file is a *data.InputError.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Forecast, error) {
	if in.File == "" {
		return nil, data.Errorf("a forecasting model predicts from a file; give %s", wanted)
	}
	panel, err := readPanel(ctx, in.File, &m.cfg)
	if err != nil {
		return nil, err
	}
	return m.Forecast(ctx, panel, o)
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

// latest is the window at the end of each series, with what it needs in place.
func (m *Model) latest(d *dataset) ([]window, error) {
	var list []window
	for i, f := range d.frames {
		if f.end < d.reach {
			return nil, data.Errorf("%d rows%s are too few: the model looks back on %d", f.end, ofSeries(f.id), d.reach)
		}
		if have := f.rows - f.end; have < d.horizon {
			return nil, data.Errorf("the model needs %s for %d rows after the last target%s, and got %d; add rows with these columns filled in and %s left empty",
				joinAnd(m.cfg.ahead()), d.horizon, ofSeries(f.id), have, joinAnd(m.cfg.targets()))
		}
		for c, gap := range f.aheadGap {
			for h := range d.horizon {
				if gap[f.end+h] != 0 && !masked(&m.cfg) {
					return nil, &data.InputError{Column: m.cfg.ahead()[c], Problem: fmt.Sprintf("is known ahead but empty in row %d%s, within the horizon", f.end+h+1, ofSeries(f.id)), Fix: "fill it in"}
				}
			}
		}
		list = append(list, window{int32(i), int32(f.end)})
	}
	return list, nil
}

// joinAnd joins names with commas and an "and".
func joinAnd(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// Remarks are what to know of the forecast, a sentence each.
func (f *Forecast) Remarks() []string { return f.Notes }

// Print writes the forecast for people: a table for each series and target.
func (f *Forecast) Print(w io.Writer) {
	for _, s := range f.Series {
		fmt.Fprintln(w, strings.TrimSpace(s.ID+" "+s.Target))
		t := report.NewTable("row", "forecast")
		if s.Time != nil {
			t.Columns[0].Name = "time"
		}
		for _, q := range f.Levels {
			t.Columns = append(t.Columns, report.Column{Name: fmt.Sprintf("q%g", q), Number: true})
		}
		for h, y := range s.Point {
			row := []string{fmt.Sprint(s.Row[h]), report.Number(y)}
			if s.Time != nil {
				row[0] = s.Time[h].Format("Mon 2006-01-02 15:04")
			}
			for i := range f.Levels {
				row = append(row, report.Number(s.Quantiles[i][h]))
			}
			t.Add(row...)
		}
		t.Print(w)
	}
}

// Write writes a CSV table with one line a series, target and step: time (or row),
// series if there are several, target, forecast, and a column q0.1 and so on a
// level.
func (f *Forecast) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	timed := len(f.Series) > 0 && f.Series[0].Time != nil
	head := []string{"row", "series", "target", "forecast"}
	if timed {
		head[0] = "time"
	}
	for _, q := range f.Levels {
		head = append(head, "q"+strconv.FormatFloat(q, 'g', -1, 64))
	}
	if err := out.Write(head); err != nil {
		return err
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 8, 64) }
	for _, s := range f.Series {
		for h, y := range s.Point {
			line := []string{strconv.Itoa(s.Row[h]), s.ID, s.Target, number(y)}
			if timed {
				line[0] = s.Time[h].Format(time.RFC3339)
			}
			for i := range f.Levels {
				line = append(line, number(s.Quantiles[i][h]))
			}
			if err := out.Write(line); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}
