package forecast

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
)

// spread is by how much the intervals of a series are wider than calibration made
// them: logarithms of factors, [target][step].
type spread [][]float64

// spreads are by series.
type spreads map[string]spread

// adaptation, divided by the root of the number of values compared and at least
// leastAdaptation, is by how much the logarithm of a width grows for a value outside its
// interval, with the share that should be outside subtracted: adaptive conformal
// inference (Gibbs and Candès, arXiv:2106.00170), in the multiplicative form of
// quantile tracking (Angelopoulos et al., arXiv:2307.16895). A step has a factor of its
// own, and all steps of a target have one in common, which grows by the mean over the
// steps whose value has come: one value is compared with the forecasts of several
// origins, and errors of near steps are known long before those of far ones.
const (
	adaptation      = 0.5
	leastAdaptation = 0.05
)

// mostSpread bounds the logarithms.
const mostSpread = 3

// adapter widens and narrows the intervals of one series from origin to origin.
type adapter struct {
	own    spread
	common []float64   // [target]
	seen   [][]float64 // [target][step], numbers of values compared
	rows   []float64   // [target], numbers of rows compared
	issued [][]issued  // [target], in the order of the origins
	next   []int       // [target], the first row that is not compared
}

// issued is the intervals of a forecast.
type issued struct {
	origin    int
	low, high []float64 // [horizon]
}

// adaptive is forecastAll for windows in the order of their origins, with intervals
// that adapt to the values before each origin: to how many are outside the outermost
// interval of Config.Quantiles, whatever the levels are. start has the spread by
// series, and so has what it returns, after the last value; if it is nil, nothing
// adapts.
func (m *Model) adaptive(ctx context.Context, d *dataset, list []window, levels []float64, start spreads, use func(w window, k int, s *steps)) (spreads, error) {
	by := m.cfg.Quantiles
	if len(by) < 2 || len(levels) == 0 || start == nil {
		return start, m.forecastAll(ctx, d, list, levels, use)
	}
	outside := 1 - (by[len(by)-1] - by[0])
	all := union(levels, by)
	asked, outermost := places(all, levels), places(all, []float64{by[0], by[len(by)-1]})
	low, high := outermost[0], outermost[1]
	of := map[int32]*adapter{}
	for _, w := range list {
		if of[w.frame] == nil {
			of[w.frame] = newAdapter(start[d.frames[w.frame].id], d)
		}
	}
	err := m.forecastKnown(ctx, d, list, all, func(w window, k int, s *steps) {
		f, a := d.frames[w.frame], of[w.frame]
		a.compare(f, k, int(w.origin), outside)
		floor := m.schema.floor(&m.cfg, k)
		one := issued{origin: int(w.origin)}
		for h, point := range s.point {
			factor := math.Exp(a.width(k, h))
			for i, q := range s.quantiles[h] {
				q = point + factor*(q-point)
				if m.cfg.Loss == "negative-binomial" {
					q = math.Round(q)
				}
				s.quantiles[h][i] = math.Max(q, floor)
			}
			one.low, one.high = append(one.low, s.quantiles[h][low]), append(one.high, s.quantiles[h][high])
		}
		a.issued[k] = append(a.issued[k], one)
		own := *s
		own.quantiles = make([][]float64, len(s.point))
		for h := range own.quantiles {
			own.quantiles[h] = chosen(s.quantiles[h], asked)
		}
		use(w, k, &own)
	})
	end := maps.Clone(start)
	for i, a := range of {
		for k := range d.targets {
			a.compare(d.frames[i], k, d.frames[i].end, outside)
		}
		end[d.frames[i].id] = a.spread()
	}
	return end, err
}

// begin returns the spreads at the beginning of a part.
func (m *Model) begin(part int) spreads {
	if m.spread == nil || part == testPart {
		return m.spread
	}
	return spreads{}
}

// check returns an error for spreads that are not of a number of targets and steps.
func (all spreads) check(targets, horizon int) error {
	for id, one := range all {
		wrong := len(one) != targets
		for _, steps := range one {
			wrong = wrong || len(steps) != horizon || slices.ContainsFunc(steps, func(v float64) bool { return !(math.Abs(v) <= mostSpread) })
		}
		if wrong {
			return fmt.Errorf("spread: that of series %q is not of %d targets and %d steps within ±%d", id, targets, horizon, mostSpread)
		}
	}
	return nil
}

// widen makes intervals that are narrower than calibration made them as wide.
func (all spreads) widen() {
	for _, one := range all {
		for _, steps := range one {
			for h := range steps {
				steps[h] = math.Max(steps[h], 0)
			}
		}
	}
}

// union returns the levels of several lists in their order, each once.
func union(lists ...[]float64) []float64 {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// places returns where levels are in a list that has them all.
func places(all, levels []float64) (at []int) {
	for _, q := range levels {
		at = append(at, slices.Index(all, q))
	}
	return at
}

// chosen returns the items of a list at some places.
func chosen[T any](list []T, places []int) []T {
	x := make([]T, len(places))
	for i, at := range places {
		x[i] = list[at]
	}
	return x
}

func newAdapter(start spread, d *dataset) *adapter {
	a := &adapter{own: make(spread, d.targets), common: make([]float64, d.targets), seen: make([][]float64, d.targets),
		rows: make([]float64, d.targets), issued: make([][]issued, d.targets), next: make([]int, d.targets)}
	for k := range a.own {
		a.own[k], a.seen[k] = make([]float64, d.horizon), make([]float64, d.horizon)
		if start != nil {
			copy(a.own[k], start[k])
		}
	}
	return a
}

// width returns the logarithm of the factor of a step. Small errors of other steps do
// not make it narrower before one of its own is known: errors grow with the steps.
func (a *adapter) width(k, h int) float64 {
	common := a.common[k]
	if a.seen[k][h] == 0 {
		common = math.Max(common, 0)
	}
	return bounded(a.own[k][h] + common)
}

func bounded(v float64) float64 { return min(max(v, -mostSpread), mostSpread) }

// spread returns the widths of all steps.
func (a *adapter) spread() spread {
	s := make(spread, len(a.own))
	for k, own := range a.own {
		for h := range own {
			s[k] = append(s[k], a.width(k, h))
		}
	}
	return s
}

// pace returns by how much the logarithm of a width grows at the nth value.
func pace(n float64) float64 { return math.Max(leastAdaptation, adaptation/math.Sqrt(n)) }

// compare adapts the widths for target k to the values before row now.
func (a *adapter) compare(f *frame, k, now int, outside float64) {
	if len(a.issued[k]) == 0 {
		return
	}
	for row := max(a.next[k], a.issued[k][0].origin); row < min(now, f.end); row++ {
		a.next[k] = row + 1
		y := f.raw[k][row]
		if math.IsNaN(y) {
			continue
		}
		var all mean
		for _, one := range a.issued[k] {
			h := row - one.origin
			if h < 0 || h >= len(one.low) {
				continue
			}
			miss := -outside
			if y < one.low[h] || y > one.high[h] {
				miss = 1 - outside
			}
			a.seen[k][h]++
			a.own[k][h] = bounded(a.own[k][h] + pace(a.seen[k][h])*miss)
			all.add(miss)
		}
		if all.n > 0 {
			a.rows[k]++
			a.common[k] = bounded(a.common[k] + pace(a.rows[k])*all.value())
		}
	}
	a.issued[k] = slices.DeleteFunc(a.issued[k], func(one issued) bool { return one.origin+len(one.low) <= now })
}
