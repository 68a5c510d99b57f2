package tune

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestFront(t *testing.T) {
	nan := math.NaN()
	losses := [][]float64{{3, 3}, {1, 4}, {nan, 0}, {2, 2}, {4, 1}, {2, 2}, {1, 5}, {4, 2}, {5, 0}}
	if got := Front(losses); !slices.Equal(got, []int{1, 3, 4, 5, 8}) {
		t.Error(got)
	}
	// 8 breaks a constraint by less than 4. The ends of each front come first, then by loneliness: 3 and 5 are one point.
	if got := bestFirst(losses, []float64{0, 0, 0, 0, 2, 0, 0, 0, 1}); !slices.Equal(got, []int{1, 3, 5, 6, 7, 0, 8, 4, 2}) {
		t.Error(got)
	}
}

// The volumes are counted by hand, and estimated by points at random.
func TestHypervolume(t *testing.T) {
	if got := Hypervolume([][]float64{{1, 4}, {2, 2}, {4, 1}, {3, 3}, {9, 0}, {math.NaN(), 1}}, []float64{5, 5}); got != 4*1+3*2+1*1 {
		t.Error(got)
	}
	if got := Hypervolume(nil, []float64{5, 5}); got != 0 {
		t.Error(got)
	}
	r := rand.New(rand.NewPCG(1, 2))
	point := func() []float64 { return []float64{r.Float64(), r.Float64(), r.Float64()} }
	var losses [][]float64
	for range 12 {
		losses = append(losses, point())
	}
	hits := 0.0
	for range 40000 {
		x := point()
		if slices.ContainsFunc(losses, func(a []float64) bool { return dominates(a, x) }) {
			hits++
		}
	}
	if got := Hypervolume(losses, []float64{1, 1, 1}); math.Abs(got-hits/40000) > .01 {
		t.Errorf("%v, of points at random %v", got, hits/40000)
	}
}
