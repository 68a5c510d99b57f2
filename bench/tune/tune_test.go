package main

import (
	"math"
	"testing"
)

// The p-values are scipy.stats.wilcoxon's: exact, and of all permutations where there are ties.
func TestWilcoxon(t *testing.T) {
	for _, c := range []struct {
		a, b []float64
		want float64
	}{
		{[]float64{0.31, 1.2, 3.3, 0.9, 2.5, 4.1, 0.2, 7.7}, []float64{0.5, 1.0, 1.1, 2.2, 2.1, 3.5, 1.4, 2.1}, 0.4609375},
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8.5, 9, 10, 3, 3}, []float64{1.5, 2, 1, 7, 9, 6.5, 7.5, 8, 8, 20, 2, 1}, 0.70703125},
		{[]float64{1, 2}, []float64{1, 2}, 1},
	} {
		if got := wilcoxon(c.a, c.b); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v %v: got %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// No values have less than the least loss, and some place that is known has it.
func TestLeast(t *testing.T) {
	for _, c := range []struct {
		at, least float64
	}{
		{branin(map[string]any{"x": math.Pi, "y": 2.275}), 10 / (8 * math.Pi)},
		{hartmann6(map[string]any{"x0": 0.20169, "x1": 0.150011, "x2": 0.476874, "x3": 0.275332, "x4": 0.311652, "x5": 0.6573}), -3.32237},
		{rosenbrock5(map[string]any{"x0": 1., "x1": 1., "x2": 1., "x3": 1., "x4": 1.}), 0},
		{tree(map[string]any{"optimizer": "adam", "lr": 1e-3, "decay": 1e-4, "beta": 0.9, "layers": 3, "dropout": 0.3}), 0.05},
	} {
		if math.Abs(c.at-c.least) > 1e-5 {
			t.Errorf("got %v, want %v", c.at, c.least)
		}
	}
}
