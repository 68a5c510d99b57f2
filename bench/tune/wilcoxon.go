package main

import (
	"cmp"
	"math"
	"slices"
)

// wilcoxon returns the two-sided p-value of the signed-rank test of Wilcoxon (1945) for pairs: equal
// ones are left out, ties share their ranks, and the distribution is exact given the ranks.
func wilcoxon(a, b []float64) float64 {
	var d []float64
	for i := range a {
		if a[i] != b[i] {
			d = append(d, a[i]-b[i])
		}
	}
	slices.SortFunc(d, func(x, y float64) int { return cmp.Compare(math.Abs(x), math.Abs(y)) })
	ranks, sum, plus := make([]int, len(d)), 0, 0 // twice the ranks, to be whole
	for i := 0; i < len(d); {
		j := i
		for j < len(d) && math.Abs(d[j]) == math.Abs(d[i]) {
			j++
		}
		for k := i; k < j; k++ {
			ranks[k] = i + j + 1
			sum += ranks[k]
			if d[k] > 0 {
				plus += ranks[k]
			}
		}
		i = j
	}
	// ways counts the choices of signs by the sum of the positive ranks.
	ways := make([]float64, sum+1)
	ways[0] = 1
	for _, r := range ranks {
		for s := sum; s >= r; s-- {
			ways[s] += ways[s-r]
		}
	}
	tail := 0.0
	for s := range min(plus, sum-plus) + 1 {
		tail += ways[s]
	}
	return min(1, 2*tail/math.Exp2(float64(len(d))))
}
