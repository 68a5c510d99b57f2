package forecast

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// calibrate chooses the shares of the simple methods on the windows that cross
// validation left out, the share of the network beside the linear path on the
// validation windows, and the width of the intervals on the former or the latter.
func (m *Model) calibrate(ctx context.Context, d *dataset, valid []window) error {
	if !m.cfg.NoTargetHistory {
		m.spread = spreads{}
	}
	if err := m.settleMixture(ctx, d, valid); err != nil {
		return err
	}
	if len(valid) == 0 {
		m.notes = append(m.notes, "without a validation part, the last epoch is used")
		return nil
	}
	ratio := 1.0
	if m.net.Skip != nil {
		var err error
		if ratio, err = m.settleGain(ctx, d, valid); err != nil {
			return err
		}
	}
	return m.calibrateIntervals(ctx, d, valid, ratio)
}

// pair is the forecasts of one value by the network with its linear path and by
// the linear path alone, in standard deviations of the training rows.
type pair struct {
	window            window
	truth, full, line float64
	own               float64 // the linear path's share in the series, by that in all series
}

// inShare returns the pairs of a network whose part is in proportion to the linear
// path's share in a series, from those of one that has the same part in all.
func inShare(pairs []pair) []pair {
	scaled := slices.Clone(pairs)
	for i := range scaled {
		p := &scaled[i]
		p.full = p.line + p.own*(p.full-p.line)
	}
	return scaled
}

// loss returns the error with a share of the network's part.
func (p *pair) loss(gain float64, squared bool) float64 {
	e := math.Abs(p.line + gain*(p.full-p.line) - p.truth)
	if squared {
		return e * e
	}
	return e
}

// settleGain scales the network's part of the location by the share from 0 to 1
// with the least validation error, reduced by its uncertainty, and with it what the
// linear path has learnt since it was a ridge regression. It is 0 if the network does
// not improve on the linear path. Where series have shares of their own, the network's
// part has the same size in all or follows the linear path's share, whichever leaves less
// error. ratio is the absolute error with that share divided by
// the one without, at most 1.
func (m *Model) settleGain(ctx context.Context, d *dataset, valid []window) (ratio float64, err error) {
	var pairs []pair
	least := m.mixture.least()
	m.even = len(m.own) > 0 && m.cfg.Skip == "ridge"
	collect := func(first bool) error {
		i := 0
		return m.forecastAll(ctx, d, valid, nil, func(w window, k int, s *steps) {
			f := d.frames[w.frame]
			scale := f.fit[k].unit()
			for h, y := range s.point {
				row := int(w.origin) + h
				if row >= f.end || math.IsNaN(f.raw[k][row]) {
					continue
				}
				if first {
					pairs = append(pairs, pair{window: w, truth: f.raw[k][row] / scale, full: y / scale, own: mixture{m.parts(f.id, k)}.own(0) / m.mixture.size(k)})
				} else {
					pairs[i].line = y / scale
				}
				i++
			}
		})
	}
	if err := collect(true); err != nil {
		return 0, err
	}
	m.trained = nil
	for _, n := range m.net.Members {
		m.trained = append(m.trained, n.part(m.ridge))
	}
	scale := func(gain float64) {
		for i, n := range m.net.Members {
			n.scalePart(m.trained[i], gain, m.ridge)
		}
	}
	scale(0)
	if err := collect(false); err != nil {
		return 0, err
	}
	squared := m.cfg.Loss == "mse" || m.cfg.Loss == "gaussian"
	// Simple methods in the forecast leave less of the network's part, whose full size
	// is tried nevertheless.
	for i := range pairs {
		pairs[i].full = pairs[i].line + (pairs[i].full-pairs[i].line)/least
	}
	m.gain = bestGain(pairs, squared)
	if m.even {
		scaled := inShare(pairs)
		if gain := bestGain(scaled, squared); totalLoss(scaled, gain, squared) < totalLoss(pairs, m.gain, squared) {
			m.even, m.gain, pairs = false, gain, scaled
		}
	}
	m.gain = math.Round(100*m.gain*certainty(pairs, m.gain, d.horizon, squared)) / 100
	scale(m.gain / least)
	if m.gain == 0 {
		m.notes = append(m.notes, "the recurrent network does not improve on its linear path on the validation part; only the linear path is used")
	} else if m.gain < 1 {
		m.notes = append(m.notes, fmt.Sprintf("the recurrent network's part is scaled to %.0f %%, chosen on the validation part", 100*m.gain))
	}
	without := totalLoss(pairs, 0, false)
	if !(without > 0) {
		return 1, nil
	}
	return math.Min(totalLoss(pairs, m.gain, false)/without, 1), nil
}

func totalLoss(pairs []pair, gain float64, squared bool) (sum float64) {
	for i := range pairs {
		sum += pairs[i].loss(gain, squared)
	}
	return sum
}

// bestGain returns the share in tenths with the least loss, the largest of equal
// ones.
func bestGain(pairs []pair, squared bool) float64 {
	best, least := 1.0, math.Inf(1)
	for tenth := 10; tenth >= 0; tenth-- {
		gain := float64(tenth) / 10
		if sum := totalLoss(pairs, gain, squared); sum < least {
			best, least = gain, sum
		}
	}
	return best
}

// certainty returns the factor by which the network's advantage on the validation
// windows is reduced for its uncertainty: 1-(standard error/mean)², as James and
// Stein shrink a mean towards zero, and 0 if that is negative. Windows that
// overlap count as one.
func certainty(pairs []pair, gain float64, horizon int, squared bool) float64 {
	advantage := map[window]float64{}
	var order []window
	for i := range pairs {
		p := &pairs[i]
		if _, seen := advantage[p.window]; !seen {
			order = append(order, p.window)
		}
		advantage[p.window] += p.loss(0, squared) - p.loss(gain, squared)
	}
	x := make([]float64, len(order))
	for i, w := range order {
		x[i] = advantage[w]
	}
	mean, deviation := meanDeviation(x)
	if !(mean > 0) {
		return 0
	}
	ratio := deviation / math.Sqrt(independent(order, horizon)) / mean
	return math.Max(0, 1-ratio*ratio)
}

// networkPart is what a network adds to the regression that its linear path began as:
// its head, and what the path has learnt since.
type networkPart struct {
	weight, bias []float32
	path         [2][]float32
}

// part returns what a network adds to a regression.
func (n *network) part(line *ridge) networkPart {
	return networkPart{n.Head.Weight.Read(), n.Head.Bias.Read(), n.Skip.learnt(line)}
}

// scalePart sets a network to a multiple of a part beside a regression.
func (n *network) scalePart(p networkPart, gain float64, line *ridge) {
	n.scaleHead(p.weight, p.bias, gain)
	if n.cfg.Skip == "ridge" {
		n.Skip.startAt(line)
		n.Skip.add(p.path, float32(gain))
	}
}

// scaleHead sets the head to its trained weights with the location scaled.
// Quantiles keep their distances from the median.
func (n *network) scaleHead(weight, bias []float32, gain float64) {
	weight, bias = slices.Clone(weight), slices.Clone(bias)
	outputs := n.dims.outputs
	width := len(weight) / len(bias)
	for first := 0; first < len(bias); first += outputs {
		middle := first
		last := first + 1
		if n.cfg.Loss == "quantile" {
			middle += slices.Index(n.cfg.Quantiles, 0.5)
			last = first + outputs
		}
		center := slices.Clone(weight[middle*width : (middle+1)*width])
		shift := bias[middle]
		drop := float32(1 - gain)
		for r := first; r < last; r++ {
			bias[r] -= drop * shift
			for i := range width {
				weight[r*width+i] -= drop * center[i]
			}
		}
	}
	n.Head.Weight.Write(weight)
	n.Head.Bias.Write(bias)
}
