package bench

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

func shape(t *testing.T, name string) Shape {
	t.Helper()
	for _, s := range Shapes() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no shape %s", name)
	return Shape{}
}

func TestFlopAndBytes(t *testing.T) {
	a, c, f := shape(t, "A"), shape(t, "C"), shape(t, "F1024")
	for _, x := range []struct {
		what      string
		got, want float64
	}{
		{"A lstm", a.ForwardFlop(cell.LSTM), 100 * 64 * 8 * 256 * 512},
		{"A gru", a.ForwardFlop(cell.GRU), 100 * 64 * 6 * 256 * 512},
		{"A rnn", a.ForwardFlop(cell.RNNTanh), 100 * 64 * 2 * 256 * 512},
		{"C lstm", c.ForwardFlop(cell.LSTM), 200 * 16 * 8 * 256 * (336 + 512 + 512)},
		{"weights of F1024", f.weightBytes(cell.LSTM), 64 << 20},
		{"recurrent bytes of A", a.recurrentBytes(cell.LSTM), 1 << 20},
	} {
		if x.got != x.want {
			t.Errorf("%s: %g, want %g", x.what, x.got, x.want)
		}
	}
}

// The network's parameters are as many as the formula says.
func TestNetworkMatchesShape(t *testing.T) {
	for _, s := range Shapes() {
		for _, kind := range []cell.Kind{cell.LSTM, cell.GRU, cell.RNNTanh} {
			n := 0
			for _, p := range s.Network(kind).Weights {
				if dims := p.Dims(); len(dims) == 2 {
					n += dims[0] * dims[1]
				}
			}
			if got := s.weightBytes(kind); got != float64(4*n) {
				t.Errorf("%s cell %d: %g bytes, the network has %d", s.Name, kind, got, 4*n)
			}
		}
	}
}

func TestBound(t *testing.T) {
	m := Machine{L2: 1 << 20, L3: 32 << 20}
	r := Rate{Threads: 2, Peak: 250, L2: 200, L3: 100, Memory: 20}
	for _, x := range []struct {
		shape, bound string
		ms           float64
	}{
		{"A", "fma", 100 * 64 * 8 * 256 * 512 / 250e9 * 1e3},
		{"E", "l2", 100 << 20 / 200e9 * 1e3},
		{"F512", "l3", 16 << 20 / 100e9 * 1e3},
		{"F1024", "memory", 64 << 20 / 20e9 * 1e3},
	} {
		s := shape(t, x.shape)
		got, bound := m.bound(&r, s.ForwardFlop(cell.LSTM), s.traffic(cell.LSTM, false))
		if bound != x.bound || math.Abs(1e3*got-x.ms) > 1e-9 {
			t.Errorf("%s: %g ms by %s, want %g by %s", x.shape, 1e3*got, bound, x.ms, x.bound)
		}
	}
	r.streams = map[float64]float64{64 << 20: 32}
	f := shape(t, "F1024")
	if got, _ := m.bound(&r, 1, f.traffic(cell.LSTM, false)); got != 64<<20/32e9 {
		t.Errorf("F1024 at the rate of its own footprint: %g s", got)
	}
	m.L3 = 0
	s := shape(t, "F512")
	if _, bound := m.bound(&r, 1, s.traffic(cell.LSTM, false)); bound != "memory" {
		t.Errorf("without a third cache F512 is bound by %s", bound)
	}
}

func TestCaches(t *testing.T) {
	dir := t.TempDir()
	for name, files := range map[string]map[string]string{
		"index0": {"level": "1", "type": "Data", "size": "32K"},
		"index1": {"level": "2", "type": "Unified", "size": "512K"},
		"index2": {"level": "3", "type": "Unified", "size": "16M"},
	} {
		for file, text := range files {
			path := filepath.Join(dir, name, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if l2, l3 := caches(dir); l2 != 512<<10 || l3 != 16<<20 {
		t.Errorf("caches %d and %d", l2, l3)
	}
	if l2, l3 := caches(filepath.Join(dir, "absent")); l2 != usualL2 || l3 != usualL3 {
		t.Errorf("without a description: %d and %d", l2, l3)
	}
}

// The probes give rates of a plausible size, and more bytes from a cache than from nowhere.
func TestProbes(t *testing.T) {
	if p := Peak(1, 2*time.Millisecond); p < 0.05 || p > 1e4 {
		t.Errorf("peak of %g GFLOP/s", p)
	}
	buf := make([]float32, 1<<18)
	if r := readRate(2, 2*time.Millisecond, buf); r < 0.05 || r > 1e5 {
		t.Errorf("reading at %g GB/s", r)
	}
	m := Machine{L2: 1 << 10, L3: 1 << 12, Rates: []Rate{{Threads: 1}}}
	m.probeStreams([]traffic{{1, 1 << 19}, {1, 1 << 10}, {1, 1 << 30}}, buf, effort{windows: 1, window: time.Millisecond})
	if s := m.Rates[0].streams; len(s) != 2 || s[1<<19] < 0.05 || s[1<<30] < 0.05 {
		t.Errorf("streams %v", s)
	}
	for _, v := range vectors(effort{windows: 1, window: time.Millisecond}) {
		if v.Rate < 1e-4 || v.Rate > 1e3 {
			t.Errorf("%s: %g", v.Name, v.Rate)
		}
	}
}

func TestMeasure(t *testing.T) {
	defer par.SetWorkers(0)
	s := Shape{Name: "small", T: 3, B: 2, I: 4, H: 5, L: 2}
	rates := []Rate{{Threads: 1, Peak: 100, L2: 10, Memory: 1}, {Threads: 2, Peak: 200, L2: 20, Memory: 2}}
	m := Machine{L2: 1 << 20, Rates: rates}
	for _, task := range []task{
		{s.Name, "lstm", forward, s.ForwardFlop(cell.LSTM), s.traffic(cell.LSTM, false), func() func() { return forwardRun(tensor.CPU(), s, cell.LSTM) }},
		{s.Name, "gru", train, 3 * s.ForwardFlop(cell.GRU), s.traffic(cell.GRU, true), func() func() { return trainRun(tensor.CPU(), s, cell.GRU) }},
		gemmTask(tensor.CPU(), 33),
	} {
		results, err := task.measure(t.Context(), rates, effort{samples: 3})
		if err != nil || len(results) != 2 {
			t.Fatalf("%s: %d results, %v", task.cell, len(results), err)
		}
		for i, r := range results {
			r.share(&m, &rates[i], &task)
			if r.Threads != i+1 || r.Samples != 3 || r.Ms <= 0 || r.MsLow > r.Ms || r.MsHigh < r.Ms ||
				math.Abs(r.GFlops*r.Ms*1e6/task.flop-1) > 1e-9 || r.PeakShare <= 0 || r.Bound == "" {
				t.Errorf("%s: %+v", task.cell, r)
			}
			if r.Allocs != 0 {
				t.Errorf("%s %s with %d threads: %d allocations a call", task.cell, task.pass, r.Threads, r.Allocs)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	list := tasks(tensor.CPU())
	small := list[0]
	small.setUp = func() func() { return func() {} }
	if _, err := small.measure(ctx, rates, effort{samples: 3}); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestTasks(t *testing.T) {
	seen := map[[3]string]bool{}
	for _, x := range tasks(tensor.CPU()) {
		seen[[3]string{x.name, x.cell, x.pass}] = true
	}
	for _, want := range [][3]string{{"gemm1024", "gemm", "forward"}, {"F1024", "lstm", "forward"}, {"A", "gru", "train"}, {"A", "rnn", "forward"}} {
		if !seen[want] {
			t.Errorf("%v is missing", want)
		}
	}
	if len(seen) != 1+2*len(Shapes())+4 {
		t.Errorf("%d tasks", len(seen))
	}
}

// The names that readers of the JSON rely on.
func TestJSON(t *testing.T) {
	text, err := json.Marshal(Report{Machine: Machine{Rates: []Rate{{}}}, Results: []Result{{}}, Numbers: []Number{{Keep: 1, Loss: 1, Weights: 1, Inputs: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(text, &top); err != nil || len(top) != 3 || top["machine"] == nil {
		t.Fatalf("%s: %v", text, err)
	}
	for list, keys := range map[string][]string{
		"results": {"name", "cell", "pass", "threads", "ms", "gflops", "peak_share", "allocs"},
		"numbers": {"name", "cell", "pass", "steps", "keep", "loss", "weights", "inputs", "threads", "ms", "ratio", "ratio_p10", "ratio_p90", "bar", "rounds", "steady"},
	} {
		var rows []map[string]any
		if err := json.Unmarshal(top[list], &rows); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, key := range keys {
			if _, ok := rows[0][key]; !ok {
				t.Errorf("no %q in %v", key, rows[0])
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	x := []float64{3, 1, 2, 5, 4}
	for _, c := range [][2]float64{{0, 1}, {0.5, 3}, {1, 5}, {0.125, 1.5}} {
		if got := Quantile(x, c[0]); got != c[1] {
			t.Errorf("quantile %g is %g, want %g", c[0], got, c[1])
		}
	}
	if x[0] != 3 {
		t.Error("the order changed")
	}
	if Quantile([]float64{7}, 0.9) != 7 || !math.IsNaN(Quantile(nil, 0.5)) {
		t.Error("one value, or none")
	}
}

// BenchmarkTask runs the tasks of "carousel bench" one by one, to be profiled.
func BenchmarkTask(b *testing.B) {
	for _, t := range tasks(tensor.CPU()) {
		b.Run(t.name+"/"+t.cell+"/"+t.pass, func(b *testing.B) {
			run := t.setUp()
			run()
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
			b.ReportMetric(t.flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
