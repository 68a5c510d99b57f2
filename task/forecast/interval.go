package forecast

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/carousel-ml/carousel/report"
)

// residuals are the absolute errors of a point forecast in the network's units:
// [target][step], sorted. The forecast plus and minus their quantile is its interval,
// as in split conformal prediction (Lei et al., arXiv:1604.04173). They are those of
// the mixture on the windows that cross validation left out, less by as much as the
// network lowers the error and more for few windows; or without a mixture those on the
// validation windows, which also chose when to stop training.
type residuals [][][]float64

// shifts are added to quantiles, in the network's units: [target][level of
// Config.Quantiles]. A shift is the quantile of the distances of the values from
// the forecast quantile on the validation windows, as in conformalized quantile
// regression (Romano et al., arXiv:1905.03222).
type shifts [][]float64

// keptResiduals is the largest number of errors kept for a target and step; with
// fewer than fewResiduals all steps of a target share their errors.
const (
	keptResiduals = 199
	fewResiduals  = 20
)

// pointLoss reports whether the loss gives a point forecast alone, whose
// intervals are computed from residuals.
func pointLoss(loss string) bool { return loss == "mse" || loss == "mae" || loss == "huber" }

// levels returns the levels asked for, or none and a note if the model has no
// intervals.
func (m *Model) levels(asked []float64) (levels []float64, note string) {
	without := func(steps [][]float64) bool {
		return slices.ContainsFunc(steps, func(e []float64) bool { return len(e) == 0 })
	}
	if pointLoss(m.cfg.Loss) && (m.residuals == nil || slices.ContainsFunc(m.residuals, without)) {
		return nil, withoutIntervals
	}
	return asked, ""
}

const withoutIntervals = "there are no intervals, which need measured values in a validation part, or the loss quantile"

// calibrateIntervals measures what the intervals need: on the windows left out for a
// point forecast that is a mixture, otherwise on the validation windows. The network
// makes the errors of the former less by ratio.
func (m *Model) calibrateIntervals(ctx context.Context, d *dataset, valid []window, ratio float64) error {
	// The errors of a window and of those that overlap it are alike, but not the
	// same: they count as something between one for each row and one for each window
	// that does not overlap.
	apart := independent(valid, d.horizon)
	m.errors = math.Round(apart * math.Sqrt(float64(d.horizon)))
	var err error
	switch {
	case !pointLoss(m.cfg.Loss):
		err = m.settleShifts(ctx, d, valid)
	case d.out.errors != nil:
		n := independent(d.out.list, d.horizon)
		m.errors = math.Round(n * math.Sqrt(float64(d.horizon)))
		// The shares were chosen on these windows, which takes one.
		m.residuals = d.out.residuals(func(k int) float64 { return ratio * fewer(n-1) * d.restless(k, d.out.list) })
		m.notes = append(m.notes, "intervals are computed for each step from the errors for windows left out (conformal prediction), and adapt to the errors before each forecast")
	default:
		err = m.keepResiduals(ctx, d, valid)
		note := "intervals are computed for each step from the errors on the validation part (conformal prediction)"
		if !m.cfg.NoTargetHistory {
			note += ", and adapt to the errors before each forecast"
		}
		m.notes = append(m.notes, note)
	}
	if err != nil {
		return err
	}
	m.spread, err = m.adaptive(ctx, d, valid, m.cfg.Quantiles, m.spread, func(window, int, *steps) {})
	if apart < fewQuiet {
		m.spread.widen()
	}
	return err
}

// fewer returns the factor by which intervals are wider as their width is known from
// n independent windows alone: that of the 90 % quantiles of Student's t with n
// degrees of freedom and of a normal distribution.
func fewer(n float64) float64 {
	const level = 0.9
	return distuv.StudentsT{Sigma: 1, Nu: math.Max(n, 1)}.Quantile(level) / distuv.UnitNormal.Quantile(level)
}

// fewQuiet is the number of windows of validation that do not overlap below which
// their small errors do not make intervals narrower.
const fewQuiet = 8

// mostRestless bounds restless, as a single outlier can make it large.
const mostRestless = 3

// restless returns how much larger the errors of the naive forecast of target k are in
// all known rows than in windows, from 1 to mostRestless: the root of the ratio of their
// mean squares. Few windows may lie in a quiet time, and the errors of a better forecast
// are known for them alone.
func (d *dataset) restless(k int, list []window) float64 {
	squares := func(to *mean, f *frame, origin int, size float64) {
		last := f.fit[k].Scaler.in(f.raw[k][origin-1])
		for _, y := range f.raw[k][origin:min(origin+d.horizon, f.end)] {
			if e := f.fit[k].Scaler.in(y) - last; !math.IsNaN(e) {
				to.add(e * e / size)
			}
		}
	}
	all := make([]mean, len(d.frames))
	var quiet mean
	for _, w := range list {
		f, of := d.frames[w.frame], &all[w.frame]
		if of.n == 0 {
			known := max(f.part[trainPart].hi, f.part[validationPart].hi)
			for origin := 1; origin+d.horizon <= known; origin++ {
				squares(of, f, origin, 1)
			}
		}
		if of.sum > 0 {
			squares(&quiet, f, int(w.origin), of.value())
		}
	}
	if !(quiet.sum > 0) {
		return 1
	}
	return min(max(1/math.Sqrt(quiet.value()), 1), mostRestless)
}

// residuals returns the errors times a factor of their target.
func (u *unseen) residuals(factor func(k int) float64) residuals {
	r := make(residuals, len(u.errors))
	for k, steps := range u.errors {
		factor := factor(k)
		for _, e := range shared(steps) {
			e = thinSorted(e, keptResiduals)
			for i := range e {
				e[i] *= factor
			}
			r[k] = append(r[k], e)
		}
	}
	return r
}

// shared returns the errors by step, or for each step those of all if some step has
// few.
func shared(steps [][]float64) [][]float64 {
	if !slices.ContainsFunc(steps, func(e []float64) bool { return len(e) < fewResiduals }) {
		return steps
	}
	all := slices.Concat(steps...)
	same := make([][]float64, len(steps))
	for h := range same {
		same[h] = slices.Clone(all)
	}
	return same
}

// independent returns about how many windows do not overlap.
func independent(list []window, horizon int) float64 {
	count := map[int32]int{}
	for _, w := range list {
		count[w.frame]++
	}
	sum := 0.0
	for _, n := range count {
		sum += math.Max(1, math.Round(float64(n)/float64(horizon)))
	}
	return sum
}

// conformal returns the q-quantile of sorted errors, moved outward for the number
// n of independent ones, or of all if n is 0: from q to q·(n+1)/n, but at most
// half of the way to the largest, which may be an outlier.
func conformal(e []float64, q, n float64) float64 {
	size := float64(len(e))
	if n == 0 || n > size {
		n = size
	}
	share := math.Min(q*(n+1)/n, (1+q)/2)
	return e[int(math.Min(math.Max(math.Ceil(share*size-1e-9)-1, 0), size-1))]
}

// keepResiduals stores the absolute errors of each target and step.
func (m *Model) keepResiduals(ctx context.Context, d *dataset, valid []window) error {
	r := make(residuals, d.targets)
	for k := range r {
		r[k] = make([][]float64, d.horizon)
	}
	err := m.forecastAll(ctx, d, valid, nil, func(w window, k int, s *steps) {
		f := d.frames[w.frame]
		for h, z := range s.location {
			row := int(w.origin) + h
			if row >= f.end || f.yGap[k][row] != 0 {
				continue
			}
			r[k][h] = append(r[k][h], math.Abs(s.centre.from(float64(f.y[k][row]))-z))
		}
	})
	for k := range r {
		r[k] = shared(r[k])
		for h := range r[k] {
			r[k][h] = thinSorted(r[k][h], keptResiduals)
		}
	}
	m.residuals = r
	return err
}

// residual returns the distance of the q-quantile of step h of target k from the
// forecast: the |2q-1|-quantile of the absolute errors with the sign of q-0.5.
func (m *Model) residual(k, h int, q float64) float64 {
	if q == 0.5 || k >= len(m.residuals) || len(m.residuals[k][h]) == 0 {
		return 0
	}
	return math.Copysign(conformal(m.residuals[k][h], math.Abs(2*q-1), m.errors), q-0.5)
}

// settleShifts chooses the shifts of the quantiles.
func (m *Model) settleShifts(ctx context.Context, d *dataset, valid []window) error {
	levels := m.cfg.Quantiles
	beyond := make([][][]float64, d.targets) // how far values are beyond a quantile, outward
	for k := range beyond {
		beyond[k] = make([][]float64, len(levels))
	}
	err := m.forecastAll(ctx, d, valid, levels, func(w window, k int, s *steps) {
		f := d.frames[w.frame]
		u := units{s.centre, f.fit[k].Scaler}
		for h, quantiles := range s.quantiles {
			row := int(w.origin) + h
			if row >= f.end || math.IsNaN(f.raw[k][row]) {
				continue
			}
			for i, q := range levels {
				beyond[k][i] = append(beyond[k][i], outward(q)*(u.in(f.raw[k][row])-u.in(quantiles[i])))
			}
		}
	})
	if err != nil {
		return err
	}
	m.shifts = make(shifts, d.targets)
	for k := range beyond {
		m.shifts[k] = make([]float64, len(levels))
		for i, e := range beyond[k] {
			if q := levels[i]; q != 0.5 && len(e) > 0 {
				slices.Sort(e)
				m.shifts[k][i] = outward(q) * conformal(e, math.Max(q, 1-q), m.errors)
			}
		}
	}
	m.notes = append(m.notes, "quantiles are shifted so that they have their share of the validation part (conformalized quantile regression)")
	return nil
}

// outward returns the sign of a level's distance from the median.
func outward(q float64) float64 { return math.Copysign(1, q-0.5) }

// shift returns the shift of a level, interpolated between those of
// Config.Quantiles and 0 for the median.
func (m *Model) shift(k int, q float64) float64 {
	levels, own := m.cfg.Quantiles, m.shifts[k]
	if at, found := slices.BinarySearch(levels, 0.5); !found {
		levels, own = slices.Insert(slices.Clone(levels), at, 0.5), slices.Insert(slices.Clone(own), at, 0)
	}
	return interpolated(levels, own, q)
}

// adjust shifts the quantiles of a forecast at ascending levels, which remain on
// their side of it, raises to the floor what is below it, and sorts the quantiles,
// which brings none farther from the truth (Chernozhukov et al. 2010). Counts remain
// whole numbers. No forecast leaves the model without it; adaptive keeps the order.
func (m *Model) adjust(s *steps, k int, u units, levels []float64) {
	floor := m.schema.floor(&m.cfg, k)
	for h, point := range s.point {
		quantiles := s.quantiles[h]
		for i, q := range levels {
			if m.cfg.Loss == "negative-binomial" { // a mean of members is not whole
				quantiles[i] = math.Round(quantiles[i])
			}
			if m.shifts != nil && q != 0.5 {
				v := u.out(u.in(quantiles[i]) + m.shift(k, q))
				if m.cfg.Loss == "negative-binomial" {
					v = math.Round(v)
				}
				quantiles[i] = outward(q) * math.Max(outward(q)*v, outward(q)*point)
			}
			quantiles[i] = math.Max(quantiles[i], floor)
		}
		slices.Sort(quantiles) // whatever they come from, they do not cross
		s.point[h] = math.Max(point, floor)
	}
}

// belowZero reports whether the forecast of a step, or a bound, is negative.
func (s *steps) belowZero(h int) bool {
	return s.point[h] < 0 || slices.ContainsFunc(s.quantiles[h], func(q float64) bool { return q < 0 })
}

// belowZero returns a note on targets that were never negative in training and of
// which the model forecasts something below 0, unless a floor was given.
func (m *Model) belowZero(found []bool) []string {
	var names []string
	for k, name := range m.cfg.targets() {
		if len(m.cfg.Floor) == 0 && found[k] && m.schema.Pooled[k].Low >= 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return nil
	}
	return []string{fmt.Sprintf("some forecasts or bounds of %s are below 0, which no training value is; a model trained with --floor 0 has none", report.Listing(names))}
}
