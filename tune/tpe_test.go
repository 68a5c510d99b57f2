package tune

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAnyWorkersTPE(t *testing.T) {
	sameForAnyWorkers(t, []Options{
		{Trials: 40, Sampler: "sobol"},
		{Trials: 40, Sampler: "tpe"},
		{Trials: 40, Sampler: "tpe", Pruner: "asha", Resource: 27, Resumable: true},
		{Trials: 40, Sampler: "tpe", Pruner: "median", Resource: 27},
	})
}

// manyKinds has every kind of parameter, and few enough values to visit them all.
func manyKinds(t testing.TB) *Space {
	s, err := ParseSpace("s.yaml", `
hidden: {low: 1, high: 9, type: int, log: true}
cell: {choices: [lstm, gru, rnn]}
forget: {low: 0, high: 1, step: 0.25, when: cell, is: [lstm]}
layers: {low: 1, high: 3, type: int}
skip: {choices: ["yes", "no"], when: layers, is: [2, 3]}
`)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func someTrials(s *Space, n int) (list []observation) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		v := uniform{}.sample(&knowledge{space: s, rand: r})
		list = append(list, observation{number: i, values: v, losses: []float64{r.Float64()}, at: math.MaxInt})
	}
	return list
}

// even is the probability of values that are drawn evenly.
func even(s *Space, v Values) float64 {
	x := 1.0
	for _, part := range s.point(v) {
		if part.low <= part.high {
			x *= part.high - part.low
		}
	}
	return x
}

// The densities of values sum to 1 over all of a space of conditional parameters, and values are drawn with them.
func TestDensity(t *testing.T) {
	s := manyKinds(t)
	for _, n := range []int{0, 1, 2, 40} {
		d := newDensity(s, someTrials(s, n))
		sum, shares := 0.0, map[string]float64{}
		for v := range s.all() {
			x := d.at(s.point(v)) * even(s, v)
			sum += x
			shares[s.text(v)] = x
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("%d trials: densities sum to %v", n, sum)
		}
		const draws = 8000
		r, counts := rand.New(rand.NewPCG(2, 2)), map[string]int{}
		for range draws {
			counts[s.text(d.draw(r))]++
		}
		for text, x := range shares {
			if math.Abs(float64(counts[text])-draws*x) > 5*math.Sqrt(draws*x)+1 {
				t.Errorf("%d trials: %s was drawn %d times, expected about %.1f", n, text, counts[text], draws*x)
			}
		}
	}
	floats, err := ParseSpace("s.yaml", "x: {low: -3, high: 5}\ny: {low: 1e-4, high: 1, log: true}")
	if err != nil {
		t.Fatal(err)
	}
	d, sum := newDensity(floats, someTrials(floats, 20)), 0.0
	for i := range 300 {
		for j := range 300 {
			at := func(k int) float64 { return (float64(k) + .5) / 300 }
			sum += d.at([]share{{at(i), at(i)}, {at(j), at(j)}}) / (300 * 300)
		}
	}
	if math.Abs(sum-1) > 1e-3 {
		t.Errorf("the density of two floats has the integral %v", sum)
	}
}

// Widths, and what a kernel at 3 of the integers 1 to 9 gives each of them in the logarithm, are those of Optuna 5.0.0.
func TestKernelsOfOptuna(t *testing.T) {
	for _, c := range []struct{ centres, want []float64 }{
		{[]float64{.3}, []float64{.7}},
		{[]float64{.9, .2}, []float64{.7, .7}},
		{[]float64{.1, .15, .9, .5, .52, .99}, []float64{.125, .35, .38, .35, .38, .125}},
	} {
		for i, got := range widths(c.centres) {
			if math.Abs(got-c.want[i]) > 1e-12 {
				t.Errorf("%v: width %d is %v, want %v", c.centres, i, got, c.want[i])
			}
		}
	}
	s, err := ParseSpace("s.yaml", "n: {low: 1, high: 9, type: int, log: true}")
	if err != nil {
		t.Fatal(err)
	}
	k := newNormal(s.Params[0].Unit(3), 0.5888878/math.Log(9.5/.5))
	for i, want := range []float64{0.12161764468824968, 0.26584043336865126, 0.23089569757247222, 0.1552780112976297, 0.09642691731648172, 0.0586178263843082, 0.035678513200318285, 0.021947712850070293, 0.013697243321818724} {
		x := s.point(Values{"n": i + 1})[0]
		if got := k.at(x) * (x.high - x.low); math.Abs(got-want) > 1e-7 {
			t.Errorf("%d has %v, want %v", i+1, got, want)
		}
	}
}

// Trials are ranked: kept constraints, how far they came, loss; then excess. Neither failures nor trials at work are good.
func TestSplit(t *testing.T) {
	trials := []observation{
		{losses: []float64{0}, excess: 2, at: math.MaxInt},
		{losses: []float64{3}, at: math.MaxInt},
		{losses: []float64{1}, at: 9},
		{losses: []float64{2}, at: 9},
		{losses: []float64{0}, at: 3},
		{losses: []float64{4}, excess: 1, at: math.MaxInt},
		{losses: []float64{math.NaN()}, at: math.MaxInt},
		{},
	}
	for i := range trials {
		trials[i].number = i
	}
	var order []int
	for len(trials) > 2 {
		good, others := split(trials)
		if len(good) != 1 || len(others) != len(trials)-1 {
			t.Fatal(good, others)
		}
		order = append(order, good[0].number)
		trials = others
	}
	if !slices.Equal(order, []int{1, 2, 3, 4, 5, 0}) {
		t.Error(order)
	}
}

// While trials are at work at the best place, proposals go elsewhere.
func TestLiar(t *testing.T) {
	s, err := ParseSpace("s.yaml", "x: {low: 0, high: 1}")
	if err != nil {
		t.Fatal(err)
	}
	var trials []observation
	for i := range 20 {
		x := float64(i) / 19
		trials = append(trials, observation{number: i, values: Values{"x": x}, losses: []float64{math.Abs(x - .5)}, at: math.MaxInt})
	}
	near := func(trials []observation) (count int) {
		for i := range 200 {
			k := &knowledge{space: s, trials: trials, rand: rand.New(rand.NewPCG(3, uint64(i)))}
			if x := (tpe{}).sample(k)["x"].(float64); math.Abs(x-.5) < .05 {
				count++
			}
		}
		return count
	}
	alone := near(trials)
	for i := range 5 {
		trials = append(trials, observation{number: 20 + i, values: Values{"x": .48 + .01*float64(i)}})
	}
	beside := near(trials)
	t.Log(alone, beside)
	if beside > alone/2 {
		t.Errorf("%d of 200 proposals are near the best, %d while others are there", alone, beside)
	}
}

// A proposal can be made from trials at work alone, from failures alone, and where there is nothing to choose.
func TestTPEOfLittle(t *testing.T) {
	s, err := ParseSpace("s.yaml", "a: {low: 2, high: 2}\nb: {choices: [x]}\nc: {low: 0, high: 1}\nd: {low: 1, high: 2, type: int, log: true}")
	if err != nil {
		t.Fatal(err)
	}
	v := Values{"a": 2., "b": "x", "c": .5, "d": 1}
	for name, trials := range map[string][]observation{
		"none":    nil,
		"at work": {{values: v}},
		"failed":  {{values: v, losses: []float64{math.NaN()}}, {number: 1, values: v, losses: []float64{math.NaN()}}},
	} {
		got := tpe{}.sample(&knowledge{space: s, trials: trials, rand: rand.New(rand.NewPCG(1, 1))})
		if _, err := s.Take(got); err != nil || len(got) != 4 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	small, err := ParseSpace("s.yaml", "n: {low: 1, high: 3, type: int}\nc: {choices: [a, b, c, d]}")
	if err != nil {
		t.Fatal(err)
	}
	list := runAll(t, small, Options{Sampler: "tpe", Startup: 4, Trials: 13})
	if slices.Sort(list[:12]); len(slices.Compact(list[:12])) != 12 {
		t.Errorf("not all 12 values are among the first 12 trials: %q", list)
	}
}

// bestOf returns the mean over seeds of the best loss after trials.
func bestOf(t testing.TB, s *Space, sampler string, trials int, loss func(v Values) float64) (sum float64) {
	const seeds = 10
	for seed := range uint64(seeds) {
		study, err := New(s, Options{Sampler: sampler, Trials: trials, Seed: seed})
		best := math.Inf(1)
		if err == nil {
			err = study.Run(t.Context(), func(_ context.Context, trial *Trial) ([]float64, error) {
				if trial.Number%9 == 8 {
					return nil, fmt.Errorf("out of luck")
				}
				x := loss(trial.Values)
				best = min(best, x)
				return []float64{x}, nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		sum += best / seeds
	}
	return sum
}

// TPE is far better than chance on a space of all kinds of parameters, some trials failing.
func TestTPE(t *testing.T) {
	s := testSpace(t)
	for _, p := range s.Params {
		p.Default = nil
	}
	f := func(v Values) float64 { // 0 at the best
		lr := math.Log10(v["lr"].(float64)) + 2.5
		x := lr*lr + math.Abs(float64(v["hidden"].(int))-80)/100
		switch v["cell"] {
		case "lstm":
			return x + math.Abs(v["forget"].(float64)-.3)
		case "gru":
			return x + .1
		}
		return x + .5
	}
	random, sobol, tpe := bestOf(t, s, "random", 60, f), bestOf(t, s, "sobol", 60, f), bestOf(t, s, "tpe", 60, f)
	t.Log(random, sobol, tpe)
	if tpe > .5*min(random, sobol) {
		t.Errorf("mean best losses: tpe %v, random %v, sobol %v", tpe, random, sobol)
	}
}

// BenchmarkTPE is the time of one proposal after 500 trials with 10 parameters.
func BenchmarkTPE(b *testing.B) {
	s := &Space{}
	for i := range 10 {
		p := &Param{Name: fmt.Sprint("x", i), Low: 0, High: 1}
		if i >= 5 {
			p.Type, p.High = Int, 100
		}
		s.Params = append(s.Params, p)
	}
	k := &knowledge{space: s, trials: someTrials(s, 500)}
	for i := 0; b.Loop(); i++ {
		k.rand = rand.New(rand.NewPCG(5, uint64(i)))
		tpe{}.sample(k)
	}
}
