package forecast

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// daily is a table of n days with columns y and p, whose cells are what cells says:
// "" is an empty one, and a row of empty cells is left out if skip is set.
func daily(t *testing.T, n int, skip bool, cells func(i int) (y, p string)) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("time,y,p\n")
	begin := time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		y, p := cells(i)
		if skip && y == "" && p == "" {
			continue
		}
		fmt.Fprintf(&b, "%s,%s,%s\n", begin.AddDate(0, 0, i).Format("2006-01-02"), y, p)
	}
	path := filepath.Join(t.TempDir(), "y.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sparse measures every fifth day, in turn 10 and 12.
func sparse(i int) (y, p string) {
	if i%5 != 0 {
		return "", ""
	}
	return fmt.Sprint(10 + i/5%2*2), fmt.Sprint(i)
}

func sparseConfig() Config {
	cfg := small()
	cfg.Time, cfg.Target, cfg.Future, cfg.Past = "time", []string{"y"}, nil, Past{"p"}
	cfg.Window, cfg.Horizon, cfg.Epochs, cfg.WindowStride, cfg.Calendar, cfg.Lags, cfg.Missing = 10, 5, 1, 1, "off", []int{0}, "interpolate"
	return cfg
}

// A value that was filled in is no truth. Each window of five days has one measured
// value, which differs from the one before by 2: the naive forecast's error is 2 in
// every score, where it would be less beside values on the line between the two.
func TestFilledValuesAreNotScored(t *testing.T) {
	for _, missing := range []string{"interpolate", "mask"} {
		for _, skip := range []bool{false, true} {
			cfg := sparseConfig()
			cfg.Missing, cfg.Freq = missing, data.Freq{N: 1, Unit: data.Day}
			d, err := Read(t.Context(), &Files{Data: daily(t, 301, skip, sparse)}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			m, _, err := Train(t.Context(), d, cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []task.Part{task.Test, task.Validation, task.Training, task.All} {
				e, err := m.Evaluate(t.Context(), d, part, nil)
				if err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%s, rows left out %v, %s", missing, skip, part)
				near(t, name+": naive", e.Baselines["naive"].MAE, 2, 0)
				near(t, name+": naive of a step", e.ByStep[0].Baselines["naive"], 2, 0)
				rows := map[task.Part]int{task.Test: 60, task.Validation: 31, task.Training: 200, task.All: 291}[part]
				// Of the rows after the first ten each fifth is measured.
				if measured := e.Values - e.Unscored; e.Values != rows || measured != (rows+4)/5 && measured != rows/5 {
					t.Errorf("%s: %d of %d values are not scored, want about four fifths of %d", name, e.Unscored, e.Values, rows)
				}
				word := map[string]string{"interpolate": "were filled in and are not scored", "mask": "are missing and are not scored"}[missing]
				if !strings.Contains(strings.Join(e.Notes, "\n"), fmt.Sprintf("%d of %d values", e.Unscored, e.Values)) || !strings.Contains(strings.Join(e.Notes, "\n"), word) {
					t.Errorf("%s: notes %q", name, e.Notes)
				}
			}
			if fit := m.schema.Series[""][0]; fit.Low != 10 || fit.High != 12 {
				t.Errorf("%s: the statistics are %+v", missing, fit)
			}
			near(t, missing+": half of the measured values are 10", m.schema.Series[""][0].Mean, 11, 0.05)
		}
	}
}

// What is filled in between two values is not known before the later one: a forecast
// from between them does not change with it, in any kind of network.
func TestFilledValuesTellNothingOfTheFuture(t *testing.T) {
	const origin = 207 // measured are 205 and 210
	for _, set := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.Lags = []int{14} },
		func(c *Config) { c.WindowNorm = "mean" },
		func(c *Config) { c.Head, c.Past, c.Lags = "autoregressive", nil, []int{14} },
	} {
		cfg := sparseConfig()
		set(&cfg)
		var m *Model
		var forecasts, baselines [][]float64
		for _, late := range []string{"11", "500"} {
			d, err := Read(t.Context(), &Files{Data: daily(t, 301, false, func(i int) (string, string) {
				y, p := sparse(i)
				if i == 210 {
					return late, late
				}
				return y, p
			})}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if m == nil {
				if m, _, err = Train(t.Context(), d, cfg, nil); err != nil {
					t.Fatal(err)
				}
			}
			set, err := m.dataset(d.Panel, true)
			if err != nil {
				t.Fatal(err)
			}
			forecasts = append(forecasts, forecastOf(t, m, set, origin))
			linear := make([]float64, cfg.Horizon)
			all, err := set.baselines(t.Context(), m.ridge, []window{{0, origin}})
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range all {
				b.forecast(linear, set.frames[0], 0, origin)
				baselines = append(baselines, slices.Clone(linear))
			}
		}
		if !slices.Equal(forecasts[0], forecasts[1]) {
			t.Errorf("%+v: the forecast changes with a later value: %v, %v", cfg, forecasts[0], forecasts[1])
		}
		for i, n := 0, len(baselines)/2; i < n; i++ {
			if !slices.Equal(baselines[i], baselines[n+i]) {
				t.Errorf("baseline %d changes with a later value: %v, %v", i, baselines[i], baselines[n+i])
			}
		}
	}
}

func TestFill(t *testing.T) {
	f := newFill([]bool{true, false, true, true, false, false, true})
	column := []float32{9, 1, 2, 3, 4, 5, 5}
	for _, c := range []struct {
		row, origin int
		want        float32
	}{{0, 1, 0}, {0, 2, 9}, {1, 2, 1}, {2, 3, 1}, {3, 4, 1}, {2, 4, 1}, {2, 5, 2}, {3, 5, 3}, {5, 6, 5}, {6, 7, 5}} {
		if got := f.at(column, c.row, c.origin); got != c.want {
			t.Errorf("row %d as of %d: %v, want %v", c.row, c.origin, got, c.want)
		}
	}
	if newFill(nil) != nil || newFill([]bool{false, false}) != nil || (*fill)(nil).at(column, 3, 1) != 3 {
		t.Error("a column without filled values has none")
	}
}

// Without a validation part a point forecast has no intervals, and no coverage.
func TestNoIntervals(t *testing.T) {
	panel, cfg := hourly(1, 400), small()
	cfg.Split, cfg.Epochs, cfg.Future = "320,0,80", 1, nil
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Levels) != 0 || strings.Contains(string(text), "coverage") || strings.Contains(string(text), "nominal") || !strings.Contains(strings.Join(e.Notes, " "), "no intervals") {
		t.Errorf("%s", text)
	}
	f, err := m.Forecast(t.Context(), panel, nil)
	if err != nil || len(f.Levels) != 0 || len(f.Series[0].Quantiles) != 0 || len(f.Notes) != 1 {
		t.Errorf("%v: %+v", err, f)
	}
	if _, err := m.Forecast(t.Context(), panel, &PredictOptions{Quantiles: []float64{0.1}}); err == nil || !strings.Contains(err.Error(), "no intervals") {
		t.Errorf("quantiles are given: %v", err)
	}
}

// Quantiles of a network that is hardly trained are far off; shifted by what the
// validation part shows, they cover about their share of the test part.
func TestQuantilesAreCalibrated(t *testing.T) {
	for _, loss := range []string{"quantile", "gaussian", "student-t", "negative-binomial"} {
		panel, cfg := hourly(1, 1500), small()
		cfg.Loss, cfg.Epochs, cfg.Split = loss, 1, "0.5,0.25,0.25"
		m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		score := func() *Evaluation {
			e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, task.Test, nil)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		after := score()
		m.shifts = nil
		before := score()
		near(t, loss+": coverage", after.Metrics.Coverage, 0.8, 0.1)
		if math.Abs(after.Metrics.Coverage-0.8) > math.Abs(before.Metrics.Coverage-0.8) || !(after.Metrics.Pinball < 1.02*before.Metrics.Pinball) || after.Metrics.MAE != before.Metrics.MAE {
			t.Errorf("%s: coverage %.3f and pinball %.4g without shifts, %.3f and %.4g with them", loss, before.Metrics.Coverage, before.Metrics.Pinball, after.Metrics.Coverage, after.Metrics.Pinball)
		}
	}
}

// small counts around 1, and the same numbers divided by 4, which are no counts.
func fewCounts(divided bool) *data.Panel {
	r := rand.New(rand.NewPCG(3, 4))
	s := &data.Series{Values: make([][]float64, 1)}
	for i := range 400 {
		v := float64(max(0, r.IntN(8)-4))
		if divided {
			v = v/4 + 0.001
		}
		s.Line, s.Values[0] = append(s.Line, i+2), append(s.Values[0], v)
	}
	return &data.Panel{Columns: []string{"y"}, Series: []*data.Series{s}}
}

func TestFloor(t *testing.T) {
	for _, c := range []struct {
		name    string
		divided bool
		floor   []float64
		least   float64 // of forecasts and quantiles; NaN: below 0
		note    bool
	}{
		{"counts", false, nil, 0, false},
		{"not counts", true, nil, math.NaN(), true},
		{"not counts, with a floor", true, []float64{0}, 0, false},
		{"another floor", true, []float64{-0.125}, -0.125, false},
		{"counts, with a floor", false, []float64{-1000}, math.NaN(), false},
	} {
		panel, cfg := fewCounts(c.divided), small()
		cfg.Time, cfg.Target, cfg.Future, cfg.Floor, cfg.Epochs = "", []string{"y"}, nil, c.floor, 1
		cfg.Quantiles = []float64{0.01, 0.5, 0.99}
		m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := m.Save(dir); err != nil {
			t.Fatal(err)
		}
		if m, err = Open(dir); err != nil {
			t.Fatal(err)
		}
		f, err := m.Forecast(t.Context(), panel, nil)
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, task.Test, nil)
		if err != nil {
			t.Fatal(err)
		}
		least := min(slices.Min(f.Series[0].Point), slices.Min(f.Series[0].Quantiles[0]))
		for _, s := range e.Samples {
			least = min(least, slices.Min(s.Forecast), slices.Min(s.Quantiles[0]))
		}
		noted := strings.Contains(strings.Join(f.Notes, " "), "--floor 0") && strings.Contains(strings.Join(e.Notes, " "), "--floor 0")
		if below := math.IsNaN(c.least); below && !(least < 0) || !below && least != c.least || noted != c.note {
			t.Errorf("%s: the least is %v, want %v; notes %q, %q", c.name, least, c.least, f.Notes, e.Notes)
		}
	}
	cfg := small()
	cfg.Target, cfg.Time, cfg.Future, cfg.Floor = []string{"y"}, "", nil, []float64{1}
	if _, _, err := Train(t.Context(), &Data{Panel: fewCounts(false)}, cfg, nil); err == nil || !strings.Contains(err.Error(), "below the floor 1") {
		t.Errorf("a floor above values: %v", err)
	}
	if cfg.Floor = []float64{0, 0}; cfg.Validate() == nil {
		t.Error("two floors of one target are taken")
	}
	cfg.Floor, cfg.Loss, cfg.Quantiles = nil, "quantile", []float64{0.5}
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "loss mae") {
		t.Errorf("one quantile: %v", err)
	}
}

// The scores of series have their values, and together they are the whole.
func TestScoresBySeries(t *testing.T) {
	panel, cfg := hourly(3, 400), small()
	cfg.Target, cfg.Epochs = []string{"a", "b"}, 1
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.BySeries) != 6 || e.Series != 3 || e.MASESeason != 24 || e.Values != 6*80 || e.Unscored != 0 {
		t.Fatalf("%d scores of %d series, season %d, %d values", len(e.BySeries), e.Series, e.MASESeason, e.Values)
	}
	var mae, rmsse, naive, covered float64
	for i, s := range e.BySeries {
		if want := string(rune('A' + i/2)); s.Series != want || s.Target != []string{"a", "b"}[i%2] || s.Values != (80-6+1)*6 {
			t.Errorf("%d: %s %s, %d values", i, s.Series, s.Target, s.Values)
		}
		mae, rmsse, naive, covered = mae+s.Metrics.MAE/6, rmsse+s.Metrics.RMSSE/6, naive+s.Baselines["naive"]/6, covered+s.Metrics.Coverage/6
	}
	near(t, "mae", mae, e.Metrics.MAE, 1e-9)
	near(t, "rmsse", rmsse, e.Metrics.RMSSE, 1e-9)
	near(t, "coverage", covered, e.Metrics.Coverage, 1e-9)
	near(t, "naive", naive, e.Baselines["naive"].MAE, 1e-9)
	if one := e.parts(fewSeries); len(one.Rows) != fewSeries || one.Columns[0].Name != "series (5 worst of 6)" {
		t.Errorf("the table of the worst has %d rows: %+v", len(one.Rows), one.Columns)
	}
	next, err := m.Illustrate(t.Context(), &Data{Panel: panel}, e)
	if err != nil || next != nil {
		t.Errorf("without x of the horizon nothing comes next: %v, %v", next, err)
	}
	next, err = m.Illustrate(t.Context(), &Data{Panel: withAhead(panel, cfg.Horizon)}, e)
	if err != nil || len(next) != 1 {
		t.Fatalf("%d sections, %v", len(next), err)
	}
	panels := next[0].Blocks[0].(*report.Figure).Plot.(*report.Grid).Figures
	if len(panels) != 6 || panels[1].Title != "A b" {
		t.Errorf("%d panels, the second is %q", len(panels), panels[1].Title)
	}
}

// The file of forecasts has what the scores are computed from.
func TestScoredForecastsAreWritten(t *testing.T) {
	panel, cfg := hourly(2, 400), small()
	cfg.Epochs = 1
	panel.Series[1].Values[0][390] = math.NaN()
	cfg.Missing = "mask"
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, score := range map[string]func(path string) (*Evaluation, error){
		"evaluate": func(path string) (*Evaluation, error) {
			return m.Evaluate(t.Context(), &Data{Panel: panel}, task.Test, &EvaluateOptions{Out: path})
		},
		"backtest": func(path string) (*Evaluation, error) {
			return m.Backtest(t.Context(), &Data{Panel: panel}, &BacktestOptions{Stride: 10, EvaluateOptions: EvaluateOptions{Out: path}})
		},
		"refit": func(path string) (*Evaluation, error) {
			return m.Backtest(t.Context(), &Data{Panel: panel}, &BacktestOptions{Stride: 37, Refit: true, EvaluateOptions: EvaluateOptions{Out: path}})
		},
	} {
		path := filepath.Join(t.TempDir(), "scored.csv")
		e, err := score(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := csv.NewReader(file).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(lines[0], ","); got != "series,target,origin,time,actual,forecast,q0.1,q0.5,q0.9" {
			t.Errorf("%s: the head is %s", name, got)
		}
		var size, n, inside float64
		missing := 0
		for _, line := range lines[1:] {
			if line[4] == "" {
				missing++
				continue
			}
			var v [5]float64
			for i := range v {
				if v[i], err = strconv.ParseFloat(line[4+i], 64); err != nil {
					t.Fatal(err)
				}
			}
			size, n = size+math.Abs(v[0]-v[1]), n+1
			if v[2] <= v[0] && v[0] <= v[4] {
				inside++
			}
			if line[2] >= line[3] {
				t.Fatalf("%s: the origin of %v is not before it", name, line)
			}
		}
		if len(lines)-1 != e.Windows*cfg.Horizon || (missing == 0) != (name == "refit") {
			t.Errorf("%s: %d lines of %d windows, %d without a value", name, len(lines)-1, e.Windows, missing)
		}
		near(t, name+": MAE", e.Metrics.MAE, size/n, 1e-9)
		near(t, name+": coverage", e.Metrics.Coverage, inside/n, 1e-9)
		file.Close()
	}
}
