package forecast

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// catchments makes basins of n days each: rain runs off in proportion to the water in
// the soil, which loses a share of itself, through a linear reservoir whose share is
// the basin's static "k".
func catchments(basins, n int) *data.Panel {
	p := &data.Panel{Columns: []string{"runoff", "rain"}, Freq: data.Freq{Unit: data.Day, N: 1}}
	for b := range basins {
		r := rand.New(rand.NewPCG(11, uint64(b)))
		k := 0.2 + 0.4*float64(b)/float64(basins)
		s := &data.Series{ID: fmt.Sprintf("b%d", b), Values: make([][]float64, 2), Static: []data.StaticValue{{Name: "k", Number: k, Numeric: true}}}
		soil, store := 0.5, 0.0
		for t := range n {
			rain := math.Max(0, r.NormFloat64())
			store += rain * soil
			soil = 0.9*soil + 0.15*rain*(1-soil)
			s.Values[0] = append(s.Values[0], k*store)
			s.Values[1] = append(s.Values[1], rain)
			s.Line = append(s.Line, t+2)
			store *= 1 - k
		}
		p.Series = append(p.Series, s)
	}
	return p
}

func driven() Config {
	cfg := Defaults()
	cfg.ID, cfg.Target, cfg.Future, cfg.Static = "id", []string{"runoff"}, Future{"rain"}, Static{"k"}
	cfg.NoTargetHistory, cfg.Window, cfg.Horizon, cfg.Hidden, cfg.Layers, cfg.Batch, cfg.Epochs = true, 30, 20, 16, 1, 16, 2
	return cfg
}

// replaced returns a copy of a table whose targets from a row on are replaced.
func replaced(p *data.Panel, from int, by func() float64) *data.Panel {
	out := *p
	out.Series = nil
	for _, s := range p.Series {
		one := *s
		one.Values = slices.Clone(s.Values)
		one.Values[0] = slices.Clone(one.Values[0])
		for t := from; t < s.Len(); t++ {
			one.Values[0][t] = by()
		}
		out.Series = append(out.Series, &one)
	}
	return &out
}

func nothing() float64 { return math.NaN() }

// No value of the target but the scale of its training rows has a part in a forecast,
// by rows or segments, nor in the linear path, and no simple method has a share.
func TestNoTargetHistory(t *testing.T) {
	for loss, segment := range map[string]int{"mae": 0, "gaussian": 7, "quantile": 0} {
		t.Run(loss, func(t *testing.T) {
			t.Parallel()
			cfg := driven()
			cfg.Loss, cfg.Segment, cfg.Skip = loss, segment, "ridge"
			panel := catchments(3, 400)
			m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			if m.mixture != nil || m.ridge.choices[0][0].Window != 0 {
				t.Errorf("mixture %v, linear path %v", m.mixture, m.ridge.choices)
			}
			forecast := func(p *data.Panel) *Forecast {
				t.Helper()
				f, err := m.Forecast(t.Context(), p, nil)
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			r := rand.New(rand.NewPCG(1, 1))
			known := forecast(replaced(panel, 333, nothing))
			for _, s := range known.Series {
				if len(s.Point) != 67 || s.Row[0] != 334 || s.Row[66] != 400 || len(s.Quantiles[0]) != 67 {
					t.Fatalf("rows %v", s.Row)
				}
			}
			other := replaced(replaced(panel, 0, r.NormFloat64), 333, nothing)
			if a, b := asJSON(t, known), asJSON(t, forecast(other)); a != b {
				t.Error("other past targets change the forecast")
			}
			renamed := func(p *data.Panel) *data.Panel {
				for _, s := range p.Series {
					s.ID = "new " + s.ID
				}
				return p
			}
			fresh := forecast(renamed(replaced(panel, 333, nothing)))
			if a, b := asJSON(t, fresh), asJSON(t, forecast(renamed(other))); a != b || !strings.Contains(strings.Join(fresh.Notes, " "), "scaled with the rows of all series in training") {
				t.Errorf("other past targets of series that were not in training change the forecast; notes %q", fresh.Notes)
			}
			all := forecast(replaced(panel, 0, nothing))
			for i, s := range all.Series {
				if len(s.Point) != 370 || s.Row[0] != 31 || s.Row[369] != 400 {
					t.Fatalf("without targets: %d rows from %d", len(s.Point), s.Row[0])
				}
				// The last window is the same for both, and its last 7 rows are in no other.
				if a, b := s.Point[363:], known.Series[i].Point[60:]; !slices.Equal(a, b) {
					t.Errorf("without targets: %v, want %v", a, b)
				}
			}
		})
	}
}

func asJSON(t *testing.T, x any) string {
	t.Helper()
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The file to predict may have no column of the target, and one to score gaps in it.
func TestDriversAlone(t *testing.T) {
	panel, cfg := catchments(2, 400), driven()
	write := func(name string, target func(row int) string) string {
		var b strings.Builder
		b.WriteString("id,k,rain")
		if target != nil {
			b.WriteString(",runoff")
		}
		for _, s := range panel.Series {
			for row := range s.Len() {
				fmt.Fprintf(&b, "\n%s,%v,%v", s.ID, s.Static[0].Number, s.Values[1][row])
				if target != nil {
					b.WriteString("," + target(row))
				}
			}
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(b.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	gaps := write("gaps.csv", func(row int) string {
		if row%3 == 1 {
			return ""
		}
		return strconv.FormatFloat(panel.Series[0].Values[0][row], 'g', -1, 64)
	})
	d, err := Read(t.Context(), &Files{Data: gaps}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := Train(t.Context(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "scored.csv")
	e, err := m.Evaluate(t.Context(), d, task.Test, &EvaluateOptions{Out: out})
	if err != nil {
		t.Fatal(err)
	}
	// 80 rows of each series are for the test, and each is scored once if measured.
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var y, f [2][]float64
	for _, line := range lines[1:] {
		if line[4] == "" {
			continue
		}
		at := int(line[0][1] - '0')
		truth, _ := strconv.ParseFloat(line[4], 64)
		forecast, _ := strconv.ParseFloat(line[5], 64)
		y[at], f[at] = append(y[at], truth), append(f[at], forecast)
	}
	if len(lines) != 161 || !e.Simulation || e.Stride != 20 || e.Windows != 8 || e.Values != 160 || e.Unscored != 160-len(y[0])-len(y[1]) {
		t.Errorf("%d lines, %d windows with stride %d, %d of %d values unscored", len(lines), e.Windows, e.Stride, e.Unscored, e.Values)
	}
	for i, s := range e.BySeries {
		mu, squares, errs := 0.0, 0.0, 0.0
		for _, v := range y[i] {
			mu += v / float64(len(y[i]))
		}
		for j, v := range y[i] {
			squares += (v - mu) * (v - mu)
			errs += (v - f[i][j]) * (v - f[i][j])
		}
		near(t, "NSE of "+s.Series, s.Metrics.NSE, 1-errs/squares, 1e-9)
	}
	near(t, "median NSE of two", e.Metrics.NSE, (e.BySeries[0].Metrics.NSE+e.BySeries[1].Metrics.NSE)/2, 1e-12)

	rows := func(path string) int {
		t.Helper()
		f, err := m.Predict(t.Context(), task.Input{File: path}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(f.Series[1].Point)
	}
	if n := rows(write("drivers.csv", nil)); n != 370 {
		t.Errorf("without the column: %d rows, want 370", n)
	}
	if n := rows(write("empty.csv", func(int) string { return "" })); n != 370 {
		t.Errorf("with an empty column: %d rows, want 370", n)
	}
	refused := func(path, want string) {
		t.Helper()
		var input *data.InputError
		if _, err := m.Predict(t.Context(), task.Input{File: path}, nil); !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused(write("full.csv", func(int) string { return "1" }), "leave the targets empty")
	panel.Series[0], panel.Series[1] = panel.Series[0].Head(49), panel.Series[1].Head(49)
	refused(write("short.csv", nil), "the model needs 50, a window of 30 and a horizon of 20")
}

// A response that is not linear is followed better than by the linear path, which the
// validation part then leaves out; a linear one keeps it.
func TestDriversToResponse(t *testing.T) {
	cfg := driven()
	cfg.Loss, cfg.Epochs, cfg.LR, cfg.Dropout, cfg.EMA = "mse", 40, 0.01, 0, 0.98
	panel := catchments(4, 1000)
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("NSE %.3f KGE %.3f, linear %.3f", e.Metrics.NSE, e.Metrics.KGE, e.Baselines["linear"].NSE)
	if m.Config().Skip != "none" || !(e.Metrics.NSE > 0.9) || !(e.Metrics.NSE > e.Baselines["linear"].NSE) {
		t.Errorf("skip %s, NSE %.3f beside %.3f", m.Config().Skip, e.Metrics.NSE, e.Baselines["linear"].NSE)
	}
	if strings.Contains(e.Verdict, "naive") || !strings.Contains(e.Verdict, "better than linear") {
		t.Errorf("verdict %q", e.Verdict)
	}
	for _, s := range panel.Series { // a moving average of rain
		for row := range s.Len() {
			s.Values[0][row] = s.Values[1][row] + 0.5*s.Values[1][max(0, row-1)]
		}
	}
	cfg.Epochs = 1
	if m, _, err = Train(t.Context(), &Data{Panel: panel}, cfg, nil); err != nil || m.Config().Skip != "ridge" {
		t.Errorf("of a linear response skip is %s, %v", m.Config().Skip, err)
	}
}

func TestDriversSettings(t *testing.T) {
	for _, c := range []struct {
		set  func(*Config)
		want string
	}{
		{func(c *Config) { c.Future, c.Static = nil, nil }, "give the columns that drive it"},
		{func(c *Config) { c.Head = "autoregressive" }, "use head direct"},
		{func(c *Config) { c.WindowNorm = "last" }, "window_norm: last needs"},
		{func(c *Config) { c.Lags = []int{7} }, "lags: they are the target's past values"},
	} {
		cfg := driven()
		c.set(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// NumPy's answers to the same values.
func TestEfficiencies(t *testing.T) {
	y, f := []float64{3, 5, 4, 9, 2, 7}, []float64{2.5, 5.5, 4, 7, 3, 6}
	for _, shift := range []float64{0, 1e9} { // NSE does not depend on the level, nor on its digits
		var m moments
		for i := range y {
			m.add(y[i]+shift, f[i]+shift)
		}
		near(t, "nse", m.nse(), 0.8088235294117647, 1e-9)
		if shift == 0 {
			near(t, "kge", m.kge(), 0.6713810475359072, 1e-12)
		}
	}
	var same, flat, mean moments
	for i := range y {
		same.add(y[i], y[i])
		flat.add(5, f[i])
		mean.add(y[i], 5)
	}
	near(t, "nse of the values", same.nse(), 1, 0)
	near(t, "kge of the values", same.kge(), 1, 1e-15)
	near(t, "nse of their mean", mean.nse(), 0, 1e-15)
	near(t, "kge of their mean", mean.kge(), 1-math.Sqrt2, 1e-15) // r and the ratio of deviations are 0
	if !math.IsNaN(flat.nse()) || !math.IsNaN(flat.kge()) {
		t.Errorf("of values that do not vary: %v, %v", flat.nse(), flat.kge())
	}
	near(t, "median", median([]moments{same, flat, mean}, (*moments).nse), 0.5, 1e-15)
}

// The CRPS of a normal distribution has a closed form (Gneiting and Raftery 2007).
func TestCRPS(t *testing.T) {
	phi := func(z float64) float64 { return math.Exp(-z*z/2) / math.Sqrt(2*math.Pi) }
	for _, y := range []float64{-3, 0, 0.4, 2.5} {
		quantiles := make([]float64, len(crpsLevels))
		for i, q := range crpsLevels {
			quantiles[i] = 1 + 2*math.Sqrt2*math.Erfinv(2*q-1)
		}
		var s score
		s.addCRPS(y, quantiles)
		z := (y - 1) / 2
		exact := 2 * (z*math.Erf(z/math.Sqrt2) + 2*phi(z) - 1/math.Sqrt(math.Pi))
		near(t, "crps", s.crps.value(), exact, 0.01*exact)
	}
	var point score
	point.add(0, 1, 3, &targetFit{})
	near(t, "crps of a point forecast", point.metrics().CRPS, 2, 0)
}
