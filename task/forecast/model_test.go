package forecast

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// hourly makes series of n hourly rows: a daily and a weekly cycle, a pull of a
// covariate "x" known ahead, a past covariate "p", noise.
func hourly(series, n int) *data.Panel {
	p := &data.Panel{Columns: []string{"a", "b", "p", "x"}, Freq: data.Every(time.Hour), HasTime: true}
	begin := time.Date(2023, 1, 2, 0, 0, 0, 0, time.UTC)
	for s := range series {
		r := rand.New(rand.NewPCG(7, uint64(s)))
		one := &data.Series{ID: string(rune('A' + s)), Values: make([][]float64, 4),
			Static: []data.StaticValue{{Name: "kind", Text: []string{"shop", "mill"}[s%2]}, {Name: "size", Number: float64(s), Numeric: true}}}
		for t := range n {
			one.Time = append(one.Time, begin.Add(time.Duration(t)*time.Hour))
			one.Line = append(one.Line, t+2)
			x := r.NormFloat64()
			y := 10*math.Sin(2*math.Pi*float64(t)/24) + 5*math.Cos(2*math.Pi*float64(t)/168) + 4*x*x + 0.3*r.NormFloat64()
			a := float64(100*(s+1)) + math.Abs(float64(10*(s+1))*y)
			for i, v := range []float64{math.Round(a), math.Round(a/2 + 3*x), r.NormFloat64(), x} {
				one.Values[i] = append(one.Values[i], v)
			}
		}
		p.Series = append(p.Series, one)
	}
	return p
}

// small is a configuration that trains in a fraction of a second.
func small() Config {
	cfg := Defaults()
	cfg.Time, cfg.Target, cfg.Future = "time", []string{"a"}, Future{"x"}
	cfg.Window, cfg.Horizon, cfg.Hidden, cfg.Layers, cfg.Epochs, cfg.Batch, cfg.WindowStride = 24, 6, 8, 1, 2, 32, 3
	return cfg
}

// TestVariants trains every kind of model for a moment, and checks that saving
// and opening changes no bit of its forecasts, that quantiles ascend, and that
// its score is of use.
func TestVariants(t *testing.T) {
	for _, v := range []struct {
		name string
		set  func(*Config)
	}{
		{"default", func(*Config) {}},
		{"gru", func(c *Config) { c.Cell, c.Loss = "gru", "mse" }},
		{"rnn two layers", func(c *Config) { c.Cell, c.Layers, c.RNNDropout, c.Loss = "rnn", 2, 0.1, "huber" }},
		{"bidirectional", func(c *Config) { c.Bidirectional = true; c.Layers = 2 }},
		{"quantile", func(c *Config) { c.Loss, c.Quantiles = "quantile", []float64{0.05, 0.25, 0.5, 0.95} }},
		{"gaussian", func(c *Config) { c.Loss, c.WindowNorm = "gaussian", "mean" }},
		{"student-t", func(c *Config) { c.Loss, c.WindowNorm = "student-t", "standard" }},
		{"negative-binomial", func(c *Config) { c.Loss = "negative-binomial" }},
		{"independent channels", func(c *Config) { c.Target, c.Past = []string{"a", "b"}, Past{"p"} }},
		{"joint channels", func(c *Config) { c.Target, c.Channels, c.Loss = []string{"a", "b"}, "joint", "quantile" }},
		{"static", func(c *Config) { c.ID, c.Static = "id", Static{"kind", "size"} }},
		{"log", func(c *Config) { c.Transform, c.ScalePer = "log", "global" }},
		{"robust, no skip", func(c *Config) { c.Scale, c.Skip = "robust", "none" }},
		{"minmax, zero skip", func(c *Config) { c.Scale, c.Skip = "minmax", "zero" }},
		{"nothing ahead", func(c *Config) { c.Future, c.Calendar, c.Lags, c.Layers = nil, "off", []int{0}, 2 }},
		{"nothing ahead, bidirectional", func(c *Config) { c.Future, c.Calendar, c.Lags, c.Bidirectional = nil, "off", []int{0}, true }},
		{"autoregressive", func(c *Config) { c.Head = "autoregressive" }},
		{"autoregressive gaussian, joint", func(c *Config) {
			c.Head, c.Loss, c.Channels, c.Target = "autoregressive", "gaussian", "joint", []string{"a", "b"}
		}},
		{"autoregressive student-t", func(c *Config) { c.Head, c.Loss, c.Target = "autoregressive", "student-t", []string{"a", "b"} }},
		{"options of the LSTM", func(c *Config) {
			c.Layers, c.RNNDropout, c.Variational, c.Residual, c.LearnState = 2, 0.1, true, true, true
			c.Proj, c.Peephole, c.Coupled, c.LayerNorm, c.CellClip, c.GateActivation = 4, true, true, true, 3, "hard_sigmoid"
			c.Zoneout, c.ZoneoutCell, c.RecurrentDropout, c.WeightDrop, c.InputDropout, c.OutputDropout = 0.1, 0.1, 0.1, 0.1, 0.1, 0.1
		}},
		{"options, nothing ahead, bidirectional", func(c *Config) {
			c.Future, c.Calendar, c.Lags, c.Bidirectional = nil, "off", []int{0}, true
			c.Layers, c.Residual, c.OutputDropout, c.Proj, c.LearnState = 2, true, 0.1, 4, true
		}},
		{"slstm", func(c *Config) { c.Cell = "slstm" }},
		{"min_gru, autoregressive", func(c *Config) { c.Cell, c.Layers, c.Head, c.LearnState = "min_gru", 2, "autoregressive", true }},
		{"mask", func(c *Config) { c.Missing, c.Past, c.Loss = "mask", Past{"p"}, "quantile" }},
		{"segments", func(c *Config) {
			c.Window, c.Horizon, c.Segment, c.Target, c.ID, c.Static = 22, 10, 4, []string{"a", "b"}, "id", Static{"kind", "size"}
		}},
		{"segments, joint, bidirectional", func(c *Config) {
			c.Segment, c.Target, c.Channels, c.Loss, c.Bidirectional, c.Cell = 5, []string{"a", "b"}, "joint", "quantile", true, "gru"
		}},
		{"segments, mask", func(c *Config) { c.Segment, c.Missing, c.Past, c.Loss = 6, "mask", Past{"p"}, "student-t" }},
		{"segments, nothing ahead", func(c *Config) { c.Segment, c.Future, c.Calendar, c.Lags, c.Skip = 50, nil, "off", []int{0}, "none" }},
		{"segments of counts", func(c *Config) { c.Segment, c.Loss = 3, "negative-binomial" }},
		{"no target history", func(c *Config) { c.NoTargetHistory, c.ID, c.Static = true, "id", Static{"kind", "size"} }},
		{"no target history, joint, mask", func(c *Config) {
			c.NoTargetHistory, c.Target, c.Channels, c.Past, c.Missing, c.Loss = true, []string{"a", "b"}, "joint", Past{"p"}, "mask", "gaussian"
		}},
		{"no target history, past alone, ridge", func(c *Config) {
			c.NoTargetHistory, c.Target, c.Past, c.Future, c.Skip, c.Loss = true, []string{"a", "b"}, Past{"p"}, nil, "ridge", "quantile"
		}},
		{"no target history, segments", func(c *Config) {
			c.NoTargetHistory, c.Window, c.Horizon, c.Segment, c.ID, c.Static, c.Skip = true, 22, 10, 4, "id", Static{"kind", "size"}, "ridge"
		}},
		{"no target history, segments, mask", func(c *Config) {
			c.NoTargetHistory, c.Segment, c.Target, c.Channels, c.Past, c.Missing, c.Loss = true, 6, []string{"a", "b"}, "joint", Past{"p"}, "mask", "quantile"
		}},
		{"mask, autoregressive", func(c *Config) { c.Missing, c.Head = "mask", "autoregressive" }},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			cfg := small()
			v.set(&cfg)
			panel := hourly(2, 600)
			if cfg.Missing == "mask" {
				punch(panel)
			}
			dir := t.TempDir()
			m, result, err := Train(context.Background(), &Data{Panel: panel}, cfg, &train.Run{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if len(result.History) != cfg.Epochs {
				t.Errorf("%d epochs recorded, want %d", len(result.History), cfg.Epochs)
			}
			e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			checkEvaluation(t, &cfg, e)
			checkTally(t, m, panel, e)
			checkExported(t, dir)
			checkOpened(t, m, dir, panel, e)
		})
	}
}

// punch makes holes in every column.
func punch(p *data.Panel) {
	for i, s := range p.Series {
		for c := range s.Values {
			for t := 10 + c; t < s.Len()-10; t += 37 + i {
				s.Values[c][t], s.Values[c][t+1] = math.NaN(), math.NaN()
			}
		}
	}
}

// withAhead adds rows that tell only what is known ahead.
func withAhead(p *data.Panel, n int) *data.Panel {
	long := *p
	long.Series = nil
	for _, s := range p.Series {
		one := *s
		one.Values = slices.Clone(s.Values)
		for i := range n {
			one.Time = append(one.Time[:len(one.Time):len(one.Time)], p.Freq.Add(s.Time[len(s.Time)-1], i+1))
			one.Line = append(one.Line[:len(one.Line):len(one.Line)], 0)
			for c, name := range p.Columns {
				v := math.NaN()
				if name == "x" {
					v = 0.5
				}
				one.Values[c] = append(one.Values[c][:len(one.Values[c]):len(one.Values[c])], v)
			}
		}
		long.Series = append(long.Series, &one)
	}
	return &long
}

func checkEvaluation(t *testing.T, cfg *Config, e *Evaluation) {
	t.Helper()
	m := e.Metrics
	for name, v := range map[string]float64{"mse": m.MSE, "mae": m.MAE, "rmse": m.RMSE, "smape": m.SMAPE, "mase": m.MASE,
		"mse_scaled": m.MSEScaled, "mae_scaled": m.MAEScaled, "pinball": m.Pinball, "coverage": m.Coverage} {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
	if m.MAEScaled > 3 {
		t.Errorf("mae_scaled %.3g is out of all proportion", m.MAEScaled)
	}
	if cfg.Skip == "auto" && !cfg.NoTargetHistory && cfg.Head == "direct" && m.MAE > 1.1*e.Baselines["linear"].MAE {
		t.Errorf("MAE %.4g is far above the linear path's, %.4g", m.MAE, e.Baselines["linear"].MAE)
	}
	for _, name := range []string{"naive", "seasonal_naive", "drift", "linear", "seasonal_naive_24"} {
		if _, ok := e.Baselines[name]; !ok {
			t.Errorf("no baseline %s", name)
		}
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
	if len(e.ByStep) != cfg.Horizon || len(e.ByHour) != 24 || len(e.Samples) == 0 || e.Verdict == "" {
		t.Errorf("steps %d, hours %d, samples %d, verdict %q", len(e.ByStep), len(e.ByHour), len(e.Samples), e.Verdict)
	}
}

// checkTally compares a tally of the test part with its evaluation.
func checkTally(t *testing.T, m *Model, panel *data.Panel, e *Evaluation) {
	t.Helper()
	got, err := m.Tally(t.Context(), &Data{Panel: panel}, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"mse_scaled": e.Metrics.MSEScaled, "mae_scaled": e.Metrics.MAEScaled, "mae": e.Metrics.MAE}[got.Name]
	if v := got.Value(); got.Higher || math.Abs(v/want-1) > 1e-12 || len(got.Rows) != e.Windows {
		t.Errorf("%s %v of %d windows, evaluated %v of %d", got.Name, v, len(got.Rows), want, e.Windows)
	}
}

// checkExported holds the graph of a model, its weights drawn anew so that every
// one counts, against the network, and the names of its inputs against their widths.
func checkExported(t *testing.T, dir string) {
	t.Helper()
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range m.Slab().Params {
		w := p.Read()
		for i := range w {
			w[i] = float32(r.NormFloat64()) / 4
		}
		p.Write(w)
	}
	p, err := m.ExportONNX(t.Context(), filepath.Join(t.TempDir(), "m.onnx"))
	if m.cfg.Head == "autoregressive" && m.cfg.LearnState {
		if err == nil || !strings.Contains(err.Error(), "learn_state") {
			t.Errorf("the trained state was left out: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log(p)
	if p.Values == 0 || p.MaxDiff > 2e-5 || p.MaxDiffRuntime > 2e-5 {
		t.Error(p)
	}
	names, d := m.inputNames(), &m.net.dims
	if len(names.encoder) != d.encoder || m.net.Decoder != nil && len(names.decoder) != d.decoder || len(names.static) != d.ids {
		t.Errorf("%d, %d and %d names for %d, %d and %d inputs", len(names.encoder), len(names.decoder), len(names.static), d.encoder, d.decoder, d.ids)
	}
	linear := 0
	for _, name := range names.linear {
		n := 1
		if at := strings.LastIndexByte(name, '['); at >= 0 {
			fmt.Sscanf(name[at:], "[%d]", &n)
		}
		linear += n
	}
	if names.linear != nil && linear != d.linear {
		t.Errorf("the names of the linear path's inputs stand for %d, it has %d", linear, d.linear)
	}
	if got := outputNames(&m.cfg); len(got) != d.outputs {
		t.Errorf("outputs %v, there are %d", got, d.outputs)
	}
}

// checkOpened holds what an opened model forecasts after a table, and its evaluation,
// against those of the model that was saved.
func checkOpened(t *testing.T, m *Model, dir string, panel *data.Panel, e *Evaluation) {
	t.Helper()
	opened, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ahead := withAhead(panel, m.cfg.Horizon)
	want, err := m.Forecast(t.Context(), ahead, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := opened.Forecast(t.Context(), ahead, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) {
		t.Errorf("the opened model forecasts otherwise")
	}
	scored, err := opened.Evaluate(t.Context(), &Data{Panel: panel}, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ = json.Marshal(e)
	b, _ = json.Marshal(scored)
	if !bytes.Equal(a, b) {
		t.Errorf("the opened model and its simple methods are scored otherwise")
	}
	for _, s := range got.Series {
		if len(s.Point) != m.cfg.Horizon || !s.Time[0].Equal(ahead.Series[0].Time[600]) {
			t.Errorf("%d steps from %v", len(s.Point), s.Time[0])
		}
		for h := range s.Point {
			for i := 1; i < len(s.Quantiles); i++ {
				if s.Quantiles[i][h] < s.Quantiles[i-1][h] {
					t.Errorf("quantiles cross at step %d", h+1)
				}
			}
		}
	}
	var text bytes.Buffer
	if err := got.Write(&text); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&text).ReadAll()
	if err != nil || len(lines) != 1+len(ahead.Series)*m.cfg.Horizon {
		t.Errorf("%d lines of CSV, %v", len(lines), err)
	}
}

// TestNoLeak changes what a forecast may not know, and expects the same bits.
func TestNoLeak(t *testing.T) {
	for _, head := range []string{"direct", "autoregressive", "segments"} {
		cfg := small()
		if cfg.Head = head; head == "segments" {
			cfg.Head, cfg.Segment = "direct", 4
		}
		if cfg.Head == "direct" {
			cfg.Past = Past{"p"}
		}
		panel := hourly(1, 500)
		m, d, err := prepare(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		first := forecastOf(t, m, d, 450)
		changed := hourly(1, 500)
		for row := 450; row < 500; row++ {
			changed.Series[0].Values[0][row] += 1000 // target
			changed.Series[0].Values[2][row] -= 1000 // past
		}
		d, err = m.dataset(changed, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := forecastOf(t, m, d, 450); !slices.Equal(got, first) {
			t.Errorf("%s: the forecast knows what comes after its origin", head)
		}
		changed.Series[0].Values[3][452] += 2 // known ahead
		d, _ = m.dataset(changed, false)
		if got := forecastOf(t, m, d, 450); slices.Equal(got, first) {
			t.Errorf("%s: the forecast ignores what is known ahead", head)
		}
		again, _, err := prepare(t.Context(), &Data{Panel: changed}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := json.Marshal(m.schema)
		if got, _ := json.Marshal(again.schema); !bytes.Equal(got, want) {
			t.Errorf("%s: rows after the training part changed scalers or calendar", head)
		}
	}
}

func forecastOf(t *testing.T, m *Model, d *dataset, origin int32) []float64 {
	t.Helper()
	var out []float64
	err := m.forecastAll(context.Background(), d, []window{{0, origin}}, nil, func(_ window, _ int, s *steps) { out = slices.Clone(s.point) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWindowsKeepToTheirPart holds for every part and stride.
func TestWindowsKeepToTheirPart(t *testing.T) {
	m, d, err := prepare(t.Context(), &Data{Panel: hourly(2, 500)}, small(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for part, name := range partNames {
		list := d.windows(part, 1)
		p := d.frames[0].part[part]
		want := p.len() - m.cfg.Horizon + 1
		if part == trainPart {
			want -= d.reach
		}
		if len(list) != 2*want {
			t.Errorf("%s: %d windows, want %d", name, len(list), 2*want)
		}
		for _, w := range list {
			if p := d.frames[w.frame].part[part]; int(w.origin) < p.lo || int(w.origin)+d.horizon > p.hi || int(w.origin) < d.reach {
				t.Errorf("%s: origin %d lies outside %v", name, w.origin, p)
			}
		}
	}
}

func TestResumeGivesTheSameModel(t *testing.T) {
	panel, cfg := hourly(1, 500), small()
	cfg.Epochs = 4
	straight, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	progress := &train.Progress{W: writerFunc(func(line []byte) {
		if bytes.HasPrefix(line, []byte("epoch")) {
			cancel()
		}
	}), Every: time.Nanosecond}
	_, result, err := Train(ctx, &Data{Panel: panel}, cfg, &train.Run{Dir: dir, Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Interrupted {
		t.Fatal("the run was not interrupted")
	}
	if m, err := Open(dir); err != nil || len(m.residuals) == 0 {
		t.Errorf("the interrupted run left no model with intervals: %v", err)
	}
	resumed, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, &train.Run{Dir: dir, Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range straight.slab.Params {
		if !slices.Equal(p.Read(), resumed.slab.Params[i].Read()) {
			t.Errorf("%s differs after resuming", p.Name)
		}
	}
	cfg.Hidden = 9
	if _, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, &train.Run{Dir: dir, Resume: true}); err == nil {
		t.Error("another network resumed from this checkpoint")
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// TestSameBitsForAnyNumberOfThreads trains on one, two and seven.
func TestSameBitsForAnyNumberOfThreads(t *testing.T) {
	panel, cfg := hourly(2, 500), small()
	var first [][]float32
	for _, n := range []int{1, 2, 7} {
		before := runtime.GOMAXPROCS(n)
		m, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
		runtime.GOMAXPROCS(before)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range m.slab.Params {
			if n == 1 {
				first = append(first, p.Read())
			} else if !slices.Equal(p.Read(), first[i]) {
				t.Errorf("%s differs on %d threads", p.Name, n)
			}
		}
	}
}

func TestBacktest(t *testing.T) {
	panel, cfg := hourly(2, 400), small()
	cfg.Epochs = 1
	m, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []*BacktestOptions{nil, {Stride: 37}, {Stride: 37, Refit: true}} {
		e, err := m.Backtest(t.Context(), &Data{Panel: panel}, o)
		if err != nil {
			t.Fatal(err)
		}
		want := 2 * ((80-6)/6 + 1)
		if o != nil {
			want = 2 * ((80-6)/37 + 1)
		}
		if e.Windows != want || !(e.Metrics.MAEScaled < 3) {
			t.Errorf("%+v: %d windows, want %d; mae_scaled %v", o, e.Windows, want, e.Metrics.MAEScaled)
		}
	}
}

func TestConstantSeriesWorksAndSaysSo(t *testing.T) {
	panel, cfg := hourly(1, 400), small()
	for i := range panel.Series[0].Values[0] {
		panel.Series[0].Values[0][i] = 7
	}
	m, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(m.Notes(), " "), "constant") {
		t.Errorf("notes %q", m.Notes())
	}
	e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "MAE", e.Metrics.MAE, 0, 1e-6)
	if !strings.Contains(e.Verdict, "No method is better than the naive forecast") {
		t.Errorf("verdict %q", e.Verdict)
	}
}

func TestSavedModelIsGuarded(t *testing.T) {
	panel, cfg := hourly(1, 400), small()
	cfg.Epochs = 1
	dir := t.TempDir()
	if _, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, &train.Run{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "linear.safetensors")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-40], 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a cut file gave %v", err)
	}
}

func TestBadInput(t *testing.T) {
	for _, c := range []struct {
		name, want string
		rows       int
		set        func(*Config)
	}{
		{"unknown cell", "cell: want " + strings.Join(cell.Settings(), ", ") + `, got "lsmt"`, 400, func(c *Config) { c.Cell = "lsmt" }},
		{"unknown column", "lack", 400, func(c *Config) { c.Future = Future{"y"} }},
		{"column twice", "both as target and as future", 400, func(c *Config) { c.Future = Future{"a"} }},
		{"no target", "target", 400, func(c *Config) { c.Target = nil }},
		{"too few rows", "too few for a window of 24", 30, func(*Config) {}},
		{"horizon beyond test", "more than the 40 rows of the validation part", 400, func(c *Config) { c.Horizon, c.Split = 50, "0.7,0.1,0.2" }},
		{"horizon beyond everything", "more than the 40 rows of the validation part", 400, func(c *Config) { c.Horizon = 200 }},
		{"split", "split", 400, func(c *Config) { c.Split = "0.5,0.5" }},
		{"rest twice", "rest", 400, func(c *Config) { c.Split = "rest,rest,9" }},
		{"quantiles without a median", "0.5", 400, func(c *Config) { c.Loss, c.Quantiles = "quantile", []float64{0.1, 0.9} }},
		{"autoregressive segments", "segment: the autoregressive head forecasts row by row, got 4; use head direct", 400, func(c *Config) { c.Head, c.Segment = "autoregressive", 4 }},
		{"autoregressive past", "past", 400, func(c *Config) { c.Head, c.Past = "autoregressive", Past{"p"} }},
		{"dropout", "dropout", 400, func(c *Config) { c.Dropout = 1 }},
		{"dropout between layers of one", "rnn_dropout", 400, func(c *Config) { c.Layers, c.RNNDropout = 1, 0.1 }},
		{"an option the cell lacks", "peephole: needs the cell LSTM", 400, func(c *Config) { c.Cell, c.Peephole = "gru", true }},
		{"zone", "time zone", 400, func(c *Config) { c.TZ = "Mars/Olympus" }},
	} {
		cfg := small()
		c.set(&cfg)
		_, _, err := Train(context.Background(), &Data{Panel: hourly(1, c.rows)}, cfg, nil)
		var misuse *data.InputError
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || !errors.As(err, &misuse) {
			t.Errorf("%s: got %v, want an InputError with %q", c.name, err, c.want)
		}
	}
}

func TestPredictNeedsWhatIsKnownAhead(t *testing.T) {
	panel, cfg := hourly(1, 400), small()
	cfg.Epochs = 1
	m, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Forecast(t.Context(), panel, nil)
	if err == nil || !strings.Contains(err.Error(), "needs x for 6 rows after the last target") {
		t.Errorf("got %v", err)
	}
	f, err := m.Forecast(t.Context(), withAhead(panel, 6), &PredictOptions{Quantiles: []float64{0.2, 0.8}})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Series) != 1 || len(f.Series[0].Quantiles) != 2 || f.Series[0].Row[0] != 401 {
		t.Errorf("forecast %+v", f)
	}
}

func TestSizesThatTheDataAsk(t *testing.T) {
	monthly := func(n int) *data.Panel {
		s := &data.Series{Values: make([][]float64, 1)}
		for i := range n {
			s.Time = append(s.Time, time.Date(1950, time.Month(1+i), 1, 0, 0, 0, 0, time.UTC))
			s.Line = append(s.Line, i+2)
			s.Values[0] = append(s.Values[0], float64(i)+10*math.Sin(float64(i)*math.Pi/6))
		}
		return &data.Panel{Columns: []string{"y"}, Series: []*data.Series{s}, Freq: data.Freq{Unit: data.Month, N: 1}, HasTime: true}
	}
	for _, c := range []struct {
		rows, askedHorizon, window, horizon int
		split, note                         string
	}{
		{144, 0, 36, 12, defaultSplit, ""},
		{144, 24, 36, 24, "rest,24,28", "the split is"},
		{60, 0, 24, 6, defaultSplit, "the horizon is 6"},
		{30, 0, 12, 3, defaultSplit, "the window is 12"},
	} {
		cfg := Defaults()
		cfg.Target, cfg.Horizon = []string{"y"}, c.askedHorizon
		m, _, err := prepare(t.Context(), &Data{Panel: monthly(c.rows)}, cfg, nil)
		if err != nil {
			t.Errorf("%d rows: %v", c.rows, err)
			continue
		}
		got := m.Config()
		if got.Window != c.window || got.Horizon != c.horizon || got.Split != c.split || !strings.Contains(strings.Join(m.Notes(), ";"), c.note) {
			t.Errorf("%d rows: window %d, horizon %d, split %s, notes %q", c.rows, got.Window, got.Horizon, got.Split, m.Notes())
		}
	}
}

// A day of rows is in the window, where that is not too many.
func TestWindowByFrequency(t *testing.T) {
	for freq, want := range map[data.Freq]int{
		{Unit: data.Nanosecond, N: int64(time.Hour)}:        72,
		{Unit: data.Nanosecond, N: int64(15 * time.Minute)}: 96,
		{Unit: data.LocalSecond, N: 600}:                    144,
		{Unit: data.Nanosecond, N: int64(time.Minute)}:      144,
		{Unit: data.Nanosecond, N: int64(time.Second)}:      72, // a minute is its first season
		{Unit: data.Day, N: 1}:                              72,
		{}:                                                  72,
		{Unit: data.Month, N: 1}:                            36,
	} {
		if window, _ := customary(freq); window != want {
			t.Errorf("%v: a window of %d rows, want %d", freq, window, want)
		}
	}
}

func TestStrideSharesNoSeason(t *testing.T) {
	for windows, want := range map[int]int{100: 1, 59999: 1, 120001: 5, 300000: 5} {
		cfg := Config{}
		settleStride(&cfg, windows, 1, []int{24, 168})
		if cfg.WindowStride != want {
			t.Errorf("%d windows: stride %d, want %d", windows, cfg.WindowStride, want)
		}
	}
}

// stopAfter is a context that is cancelled once it has been asked n times, by any
// goroutine.
type stopAfter struct {
	context.Context
	n     int64
	asked atomic.Int64
}

func (c *stopAfter) Err() error {
	if c.asked.Add(1) > c.n {
		return context.Canceled
	}
	return nil
}

// What takes long ends between two batches when its context does.
func TestCancelled(t *testing.T) {
	panel, cfg := hourly(1, 400), small()
	cfg.Epochs, cfg.Calendar, cfg.Lags = 1, "off", []int{0}
	m, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(ctx context.Context) error{
		"Evaluate": func(ctx context.Context) error {
			_, err := m.Evaluate(ctx, &Data{Panel: panel}, "train", nil)
			return err
		},
		"Predict":  func(ctx context.Context) error { _, err := m.Forecast(ctx, withAhead(panel, 6), nil); return err },
		"Backtest": func(ctx context.Context) error { _, err := m.Backtest(ctx, &Data{Panel: panel}, nil); return err },
		"Refit": func(ctx context.Context) error {
			_, err := m.Backtest(ctx, &Data{Panel: panel}, &BacktestOptions{Refit: true})
			return err
		},
	} {
		asked := &stopAfter{Context: t.Context(), n: math.MaxInt64}
		if err := call(asked); err != nil {
			t.Fatal(name, err)
		}
		asks := asked.asked.Load()
		if asks < 1 || name == "Refit" && asks < 20 {
			t.Errorf("%s asked its context %d times", name, asks)
		}
		for _, after := range []int64{0, asks / 2, asks - 1} {
			if err := call(&stopAfter{Context: t.Context(), n: after}); !errors.Is(err, context.Canceled) {
				t.Errorf("%s, cancelled when asked for the %dth of %d times: got %v", name, after+1, asks, err)
			}
		}
	}
}
