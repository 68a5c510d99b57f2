package tune

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// An Importance is a parameter's share, of 1, in what made the best trials of a study better than the others.
type Importance struct {
	Name  string  `json:"name"`  // of the parameter
	Share float64 `json:"share"` // of 1
}

const (
	topShare      = 0.1 // of the trials, which are the best
	leastComplete = 10  // trials, so that there is one among the best
	finest        = 50  // cells of a grid over numbers
)

// Importance returns the shares of all parameters of the space, the greatest first, which sum to 1: by PED-ANOVA (Watanabe
// et al., IJCAI 2023) with the defaults of Optuna 5. It compares how the values of the best
// tenth of the complete trials are spread with how those of all of them are; where a parameter is used in
// some trials only, these are compared, weighted as by conditional PED-ANOVA (arXiv:2601.20800, Algorithm 1). Of several
// objectives the best are by fronts, trials that break constraints are behind all others. It is
// an error if fewer than 10 trials are complete.
func (s *Study) Importance(list []*Record) ([]Importance, error) {
	complete := slices.DeleteFunc(slices.Clone(list), func(r *Record) bool { return r.State != Complete })
	if len(complete) < leastComplete {
		return nil, fmt.Errorf("the importance of parameters needs %d trials that are complete or have come as far as most others, and the study has %d", leastComplete, len(complete))
	}
	best := s.top(complete)
	var shares []Importance
	sum := 0.0
	for _, p := range s.Space.Params {
		one := p.importance(best, complete)
		shares, sum = append(shares, Importance{p.Name, one}), sum+one
	}
	for i := range shares {
		if sum > 0 {
			shares[i].Share /= sum
		} else {
			shares[i].Share = 1 / float64(len(shares))
		}
	}
	slices.SortStableFunc(shares, func(a, b Importance) int { return cmp.Compare(b.Share, a.Share) })
	return shares, nil
}

// top returns the best tenth of complete trials, with all that are as good as the last of them if there is one objective.
func (s *Study) top(complete []*Record) []*Record {
	losses, excess := make([][]float64, len(complete)), make([]float64, len(complete))
	for i, r := range complete {
		losses[i], excess[i] = s.Losses(r), s.excess(r.Values, r.Measures)
	}
	order := bestFirst(losses, excess)
	n := int(math.Ceil(topShare * float64(len(order))))
	if last := order[n-1]; len(s.Options.Objectives) == 1 {
		for n < len(order) && losses[order[n]][0] == losses[last][0] && excess[order[n]] == excess[last] {
			n++
		}
	}
	var list []*Record
	for _, i := range order[:n] {
		list = append(list, complete[i])
	}
	return list
}

// importance returns the Pearson divergence between the spreads of a parameter's values in the best trials
// and in all, times the squared probability of it being used in the best over that of it being used at all.
func (p *Param) importance(best, all []*Record) float64 {
	some, every := p.cells(best), p.cells(all)
	used, usedAll := total(some), total(every)
	if p.Count() == 1 || used == 0 || usedAll < 2 {
		return 0
	}
	q, r := p.spread(some), p.spread(every)
	sum := 0.0
	for i := range q {
		ratio := (q[i]+1e-12)/(r[i]+1e-12) - 1
		sum += (r[i] + 1e-12) * ratio * ratio
	}
	inBest := used / float64(len(best))
	return sum * inBest * inBest / (usedAll / float64(len(all)))
}

func total(counts []float64) (sum float64) {
	for _, x := range counts {
		sum += x
	}
	return sum
}

// cells counts the trials' values of a parameter: on its choices, or on at most 50 points from Low to High.
func (p *Param) cells(list []*Record) []float64 {
	n := finest
	low, high := p.Low, p.High
	switch {
	case p.Type == Choice:
		n = len(p.Choices)
	case p.Log && p.Type == Int:
		n = min(n, int(math.Ceil(math.Log2(p.High-p.Low+1)))+1)
	case p.Count() > 0:
		n = min(n, p.Count())
	}
	if p.Log {
		low, high = math.Log(low), math.Log(high)
	}
	counts, step := make([]float64, n), (high-low)/float64(n-1)
	for _, r := range list {
		v, has := r.Values[p.Name]
		switch {
		case !has:
		case p.Type == Choice:
			counts[slices.Index(p.Choices, v.(string))]++
		default:
			x := asFloat(v)
			if p.Log {
				x = math.Log(x)
			}
			at := math.Ceil((x-low)/step - .5)
			counts[min(max(int(at), 0), n-1)]++
		}
	}
	return counts
}

// spread returns the probabilities of cells by a Parzen estimator: a mixture of a kernel around each value
// that was counted and one, of the weight of one value, over all cells.
func (p *Param) spread(counts []float64) []float64 {
	n := len(counts)
	density := make([]float64, n)
	sum := total(counts)
	if p.Type == Choice {
		kinds := 1.0
		for _, c := range counts {
			if c > 0 {
				kinds++
			}
		}
		even := 1 / kinds / (1 + float64(n)/kinds) // of a kernel, in each cell
		for i, c := range counts {
			density[i] = (c*(1+1/kinds)/(1+float64(n)/kinds) + (sum-c)*even + 1/float64(n)) / (sum + 1)
		}
		return density
	}
	mean := 0.0
	for i, c := range counts {
		mean += c / sum * float64(i)
	}
	squares := 0.0
	for i, c := range counts {
		squares += c * (float64(i) - mean) * (float64(i) - mean)
	}
	// Scott's rule, with the lesser of the deviation and what the quartiles say of it. At least 90 % of a
	// kernel are in its own cell or wider than it.
	deviation := min(math.Sqrt(squares/max(1, sum-1)), (quartile(counts, 3, true)-quartile(counts, 1, false))/1.34)
	deviation = max(1.059*deviation*math.Pow(sum, -.2), .5/1.64)
	add := func(weight, center, deviation float64) {
		whole := between((-.5-center)/deviation, (float64(n)-.5-center)/deviation)
		for i := range density {
			x := float64(i) - center
			density[i] += weight / (sum + 1) * between((x-.5)/deviation, (x+.5)/deviation) / whole
		}
	}
	for i, c := range counts {
		if c > 0 {
			add(c, float64(i), deviation)
		}
	}
	add(1, float64(n-1)/2, float64(n))
	return density
}

// quartile returns the first cell with values up to which whole quarters of all values have been counted,
// or, if past is set, more than them.
func quartile(counts []float64, quarters float64, past bool) float64 {
	want, seen, last := math.Floor(total(counts)*quarters/4), 0.0, 0
	for i, c := range counts {
		if c == 0 {
			continue
		}
		seen, last = seen+c, i
		if seen > want || seen == want && !past {
			break
		}
	}
	return float64(last)
}

// between returns the probability of a standard normal number from a to b.
func between(a, b float64) float64 {
	if a > 0 {
		a, b = -b, -a
	}
	return (math.Erfc(-b/math.Sqrt2) - math.Erfc(-a/math.Sqrt2)) / 2
}
