package generate

// The ids of a vocabulary rank its tokens by falling count, after the special
// ones; an adaptive softmax takes them as they are.

// shares returns the share of the text that the tokens below each id make up
// [vocabulary+1]. Ids are in the order of falling counts, after the special
// tokens, as an adaptive softmax needs them.
func shares(counts []int64) []float64 {
	below := make([]float64, len(counts)+1)
	for i, n := range counts {
		below[i+1] = below[i] + float64(n)
	}
	total := max(below[len(counts)], 1)
	for i := range below {
		below[i] /= total
	}
	return below
}

// clusterCost returns the mean number of classes that a token is compared with.
func clusterCost(below []float64, cutoffs []int) float64 {
	cost := float64(cutoffs[0] + len(cutoffs))
	for k, lo := range cutoffs {
		hi := len(below) - 1
		if k+1 < len(cutoffs) {
			hi = cutoffs[k+1]
		}
		cost += (below[hi] - below[lo]) * float64(hi-lo)
	}
	return cost
}

// cutoffs returns the three cutoffs with the least cost, tried in steps of a
// quarter; nil if the vocabulary is too small. The head keeps at least a fiftieth
// of the tokens, so that frequent words are in it.
func cutoffs(counts []int64) []int {
	n := len(counts)
	if n < 1000 {
		return nil
	}
	below := shares(counts)
	var best []int
	least := 0.0
	next := func(k int) int { return k + k/4 }
	for a := n / 50; a < n/8; a = next(a) {
		for b := 2 * a; b < n/2; b = next(b) {
			for c := 2 * b; c < n; c = next(c) {
				if cost := clusterCost(below, []int{a, b, c}); best == nil || cost < least {
					best, least = []int{a, b, c}, cost
				}
			}
		}
	}
	return best
}
