package bench

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

var cells = map[string]cell.Kind{"lstm": cell.LSTM, "gru": cell.GRU, "rnn": cell.RNNTanh}

// flowingBack is the norm of the gradient of each step's input, where only the last step has a loss.
func flowingBack(s Shape, kind cell.Kind, keep float64) []float64 {
	net := s.Network(kind)
	slab := tensor.Pack(tensor.CPU(), net, 1)
	for i, w := range Keeping(s, kind, keep) {
		slab.Params[i].Write(w)
	}
	tape := tensor.NewTape(slab.Device(), tensor.Train)
	x := tape.Input(Normals(1, s.T*s.B*s.I), s.T, s.B, s.I).RequireGrad()
	y, _ := net.Forward(x, nil)
	tensor.SumAll(tensor.Slice(y, 0, s.T-1, s.T)).Backward()
	var norms []float64
	for step := range slices.Chunk(x.Grad(), s.B*s.I) {
		sum := 0.0
		for _, g := range step {
			sum += float64(g) * float64(g)
		}
		norms = append(norms, math.Sqrt(sum))
	}
	return norms
}

// Each step lets pass what Keep says, so over 336 of them gradients go through the subnormal numbers.
func TestKeeping(t *testing.T) {
	for name, kind := range cells {
		for _, keep := range []float64{0.5, 0.6, 0.8, 0.95} {
			g := flowingBack(Shape{T: 40, B: 8, I: 12, H: 64, L: 1}, kind, keep)
			if factor := math.Pow(g[5]/g[35], 1./30); math.Abs(factor-keep) > 0.05 {
				t.Errorf("%s: %g of the gradient passes each step, want %g", name, factor, keep)
			}
		}
		s := VanishShape(336)
		s.B = 2
		if g := flowingBack(s, kind, 0.6); g[0] >= simd.MinNormal || g[335] <= simd.MinNormal {
			t.Errorf("%s: gradients of %g at the end, %g at the beginning", name, g[335], g[0])
		}
	}
}

// The old table's moments are what its steps would have made in full width, and many are small.
func TestWidened(t *testing.T) {
	defer par.SetWorkers(0)
	narrow, wide := newTable(50, 2), newTable(50, 6)
	for i := range wide.row {
		wide.row[i] = narrow.row[i%2]
	}
	for _, x := range []*table{narrow, wide} {
		words := zipf(50)
		for range 3 {
			x.see(words)
			x.opt.Step(1e-3)
		}
	}
	got, want := widened(narrow.opt.State(), 2, 6), wide.opt.State()
	for i := range want.Vectors {
		if !slices.Equal(got.Vectors[i].Data, want.Vectors[i].Data) {
			t.Errorf("%s differs", want.Vectors[i].Name)
		}
	}
	if err := wide.opt.LoadState(got); err != nil || wide.opt.Steps() != 3 {
		t.Errorf("%d steps, %v", wide.opt.Steps(), err)
	}
}

func TestZipf(t *testing.T) {
	const n, draws = 100, 200000
	count, words := make([]float64, n), zipf(n)
	for range draws {
		count[words()]++
	}
	if q := count[0] / count[9]; q < 9 || q > 11 {
		t.Errorf("the first word is %g times as frequent as the tenth", q)
	}
	if count[n-1] == 0 {
		t.Error("the last word never comes")
	}
}

func TestContrast(t *testing.T) {
	defer par.SetWorkers(0)
	s := Shape{T: 4, B: 3, I: 5, H: 6, L: 2}
	rate := Rate{Threads: 2, Peak: 1}
	for _, x := range []struct {
		contrast
		want []Number // of the rows, what is no time
	}{
		{vanishing(s, cell.GRU, 0.6, []float64{1, 1e-8}, 3), []Number{{Steps: 4, Keep: 0.6, Loss: 1}, {Steps: 4, Keep: 0.6, Loss: 1e-8}}},
		{constant(s, train, []float64{0.1}, []float64{1, 4}, 3), []Number{{Steps: 4, Weights: 0.1}}},
		{constant(s, forward, []float64{0.1}, []float64{1, 4}, 3), []Number{{Steps: 4, Weights: 0.1}}},
		{adam(40, 8, 2, 3), []Number{{Steps: 2}}},
	} {
		rows, err := x.measure(t.Context(), rate)
		if err != nil || len(rows) != len(x.want) {
			t.Fatalf("%v, %v", rows, err)
		}
		for i, r := range rows {
			want := x.want[i]
			if r.Steps != want.Steps || r.Keep != want.Keep || r.Loss != want.Loss || r.Weights != want.Weights ||
				r.Threads != 2 || r.Ms <= 0 || r.Ratio < r.RatioLow || r.Ratio > r.RatioHigh || r.RatioLow <= 0 || r.Bar < 1 || r.Rounds < 1 {
				t.Errorf("%+v", r)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := adam(40, 8, 2, 3)
	if _, err := c.measure(ctx, rate); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

// A case that takes longer is found, whether against the first or the fastest.
func TestContrastFinds(t *testing.T) {
	defer par.SetWorkers(0)
	product := gemmTask(tensor.CPU(), 64).setUp()
	for _, slowest := range []bool{false, true} {
		n := 1
		c := contrast{cases: []Number{{}, {Weights: 1}, {Weights: 5}}, slowest: slowest, rounds: 5, setUp: func() (func(int), func()) {
			return func(i int) { n = []int{200, 200, 1000}[i] }, func() {
				for range n {
					product()
				}
			}
		}}
		rows, err := c.measure(t.Context(), Rate{Threads: 1, Peak: 1})
		if err != nil {
			t.Fatal(err)
		}
		if last := rows[len(rows)-1]; last.Weights != 5 || last.Ratio < 2.5 || len(rows) != 2 && !slowest || len(rows) != 1 && slowest {
			t.Errorf("%+v", rows)
		}
	}
}

func TestContrasts(t *testing.T) {
	count := func(o *Options) (vanish, other int) {
		for _, c := range contrasts(o) {
			if c.cases[0].Name == "vanish" {
				vanish += len(c.cases) - 1
			} else {
				other++
			}
		}
		return vanish, other
	}
	for _, x := range []struct {
		o             Options
		vanish, other int
	}{
		{Options{}, 3 * (16 + 4), 3},
		{Options{Numbers: true}, 3 * (16 + 16), 3},
		{Options{Quick: true}, 3 * 2, 2},
		{Options{Quick: true, Numbers: true}, 3 * 2, 2},
	} {
		if v, o := count(&x.o); v != x.vanish || o != x.other {
			t.Errorf("%+v: %d and %d", x.o, v, o)
		}
	}
}

func TestSteady(t *testing.T) {
	var rounds []Round
	for _, p := range []float64{100, 95, 91, 92, 99, 80} {
		rounds = append(rounds, Round{Peak: p})
	}
	if good, ok := Steady(rounds, 100, 5); len(good) != 5 || !ok {
		t.Errorf("%d of 6, %v", len(good), ok)
	}
	if good, ok := Steady(rounds[2:], 100, 5); len(good) != 4 || ok {
		t.Errorf("%d of 4, %v", len(good), ok)
	}
}
