package graph

import (
	"math"
	"testing"
)

func TestMaxDifference(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		a, b           []float32
		diff, relative float64
	}{
		{[]float32{1, 2}, []float32{1, 2}, 0, 0},
		{[]float32{1, 10}, []float32{1.5, 8}, 2, 1.0 / 3},
		{[]float32{1}, nil, math.Inf(1), math.Inf(1)},
		{[]float32{nan}, []float32{nan}, 0, 0},
		{[]float32{nan}, []float32{1}, math.Inf(1), math.Inf(1)},
		{[]float32{inf}, []float32{inf}, 0, 0},
	} {
		if d, r := MaxDifference(c.a, c.b); d != c.diff || r != c.relative {
			t.Errorf("MaxDifference(%v, %v) = %v, %v, want %v, %v", c.a, c.b, d, r, c.diff, c.relative)
		}
	}
}
