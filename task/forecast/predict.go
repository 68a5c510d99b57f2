package forecast

import (
	"cmp"
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
	"github.com/carousel-ml/carousel/tensor"
)

// Forecast is the rows after the last row with a target, for each series.
type Forecast struct {
	Levels []float64        `json:"levels"`          // of the quantiles, ascending
	Series []SeriesForecast `json:"series"`          // one per series and target
	Notes  []string         `json:"notes,omitempty"` // remarks on the result, a sentence each
}

// SeriesForecast is the forecast of one target of one series.
type SeriesForecast struct {
	ID        string      `json:"id"`             // the series; empty if there is only one
	Target    string      `json:"target"`         // the column
	Time      []time.Time `json:"time,omitempty"` // absent if the table has no times
	Row       []int       `json:"row"`            // numbers of the rows in the series, from 1
	Point     []float64   `json:"forecast"`       // the forecast values
	Quantiles [][]float64 `json:"quantiles"`      // [level][step]
}

// PredictOptions are the options of a prediction; nil is the zero value.
type PredictOptions struct {
	Quantiles []float64 `json:"quantiles" range:"(0..1)" value:"levels" group:"Prediction" help:"levels of the quantiles to forecast, such as 0.1,0.9 (empty: the model's)"`
}

// Forecast forecasts the horizon after the last row with a target, for each
// series of a table with the columns that the model was trained on. Columns that
// are known over the horizon need their values there, in rows without targets. A
// table that lacks columns or such values or is too short, and invalid levels,
// are a *data.InputError; a cancelled ctx returns its error.
func (m *Model) Forecast(ctx context.Context, panel *data.Panel, o *PredictOptions) (_ *Forecast, err error) {
	defer tensor.Recover(&err)
	task.NeedData(panel, "forecast: Forecast")
	levels, err := m.levels(o)
	if err != nil {
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
			out.Notes = append(out.Notes, fmt.Sprintf("series %q was not in training and is scaled with its own rows", f.id))
		}
	}
	return out, err
}

// Predict forecasts the rows after the table in a file, with [Model.Forecast]. An
// input without a file or stream, and one that cannot be read, are a *data.InputError;
// the other errors are those of that method.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (_ *Forecast, err error) {
	defer tensor.Recover(&err)
	if in.File == "" && in.Stream == nil {
		return nil, data.Errorf("a forecasting model predicts from a file or a stream; give %s", wanted)
	}
	if _, err := m.levels(o); err != nil {
		return nil, err // before the file is read, which is not at fault
	}
	var notes task.Source
	panel, err := readPanel(ctx, in, &m.cfg, notes.Note)
	if err != nil {
		return nil, err
	}
	f, err := m.Forecast(ctx, panel, o)
	if f != nil {
		f.Notes = append(notes.Notes(), f.Notes...)
	}
	return f, data.InFile(cmp.Or(in.File, data.Stdin), err)
}

// levels returns the levels of a prediction, ascending.
func (m *Model) levels(o *PredictOptions) ([]float64, error) {
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

// latest returns the window at the end of each series, or an error if one lacks
// what the model needs.
func (m *Model) latest(d *dataset) ([]window, error) {
	var list []window
	for i, f := range d.frames {
		if f.end < d.reach {
			return nil, data.Errorf("%d rows%s are too few: the model needs %d", f.end, ofSeries(f.id), d.reach)
		}
		if have := f.rows - f.end; have < d.horizon {
			return nil, data.Errorf("the model needs %s for %d rows after the last target%s, and got %d; add rows with these columns filled in and %s left empty",
				joinAnd(m.cfg.ahead()), d.horizon, ofSeries(f.id), have, joinAnd(m.cfg.targets()))
		}
		for c, gap := range f.aheadGap {
			for h := range d.horizon {
				if gap[f.end+h] != 0 && !masked(&m.cfg) {
					return nil, &data.InputError{Column: m.cfg.ahead()[c], Problem: fmt.Sprintf("is empty in row %d%s, within the horizon", f.end+h+1, ofSeries(f.id)), Fix: "fill it in"}
				}
			}
		}
		list = append(list, window{int32(i), int32(f.end)})
	}
	return list, nil
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

// Write writes a CSV table with one line per series, target and step: time (or
// row), series, target, forecast, and a column such as q0.1 per level. Its errors
// are those of w.
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
