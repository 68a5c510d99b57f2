package forecast

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"

	"github.com/carousel-ml/carousel/report"
)

// part is the share of a method in the forecast of a target. Methods are the
// baselines by their names, and the network with its linear path.
type part struct {
	Method string  `json:"method"`
	Share  float64 `json:"share"` // those of a target add up to 1
	Error  float64 `json:"error"` // mean absolute error in the choice, in standard deviations of the training rows
}

// ownPart is the method of a part that is the network with its linear path.
const ownPart = "linear"

// parts of all targets: [target][method]; empty: the network with its linear path
// alone.
type mixture [][]part

// settleMixture chooses the shares of the simple methods beside the linear path, by
// forecasts of windows that the former was not fitted to; smoothing is fitted to the
// rows before them. Without a linear path they are chosen beside the network, on the
// windows of validation. Few windows that do not overlap leave the shares nearer to each
// other.
func (m *Model) settleMixture(ctx context.Context, d *dataset, valid []window) error {
	if m.cfg.Head == "autoregressive" || m.cfg.Loss == "negative-binomial" || m.cfg.NoTargetHistory {
		return nil // their outputs are not locations, or the methods' past targets are no inputs
	}
	out := d.out
	if m.net.Skip == nil {
		var err error
		if out, err = m.unseen(ctx, d, valid); err != nil {
			return err
		}
	}
	list, rows := d.seasoned(out.list)
	if len(list) == 0 {
		return nil
	}
	names := d.simpleNames(list)
	past, err := d.pasts(ctx, out, list, rows)
	if err != nil {
		return err
	}
	fold := chosen(out.fold, rows)
	m.mixture, m.own = make(mixture, d.targets), ownShares{}
	for k := range d.targets {
		truth := mat.NewDense(len(list), d.horizon, nil)
		forecasts := make([]*mat.Dense, 1+len(names))
		for j := range forecasts {
			forecasts[j] = mat.NewDense(len(list), d.horizon, nil)
		}
		y := make([]float64, d.horizon)
		for i, w := range list {
			f, origin := d.frames[w.frame], int(w.origin)
			scale := f.fit[k].unit()
			u := units{d.centre(f, k, origin), f.fit[k].Scaler}
			for h := range d.horizon {
				forecasts[0].Set(i, h, u.out(out.forecast[k].At(rows[i], h))/scale)
				value := math.NaN()
				if origin+h < f.end {
					value = f.raw[k][origin+h] / scale
				}
				truth.Set(i, h, value)
			}
			for j, name := range names {
				past[i].method(name).forecast(y, f, k, origin)
				for h, v := range y {
					forecasts[1+j].Set(i, h, v/scale)
				}
			}
		}
		if !hasNumber(truth) {
			m.mixture[k] = []part{{Method: ownPart, Share: 1}} // the windows are of other targets
			out.errors = append(out.errors, make([][]float64, d.horizon))
			continue
		}
		shares, own := newMixer(list, fold, forecasts, truth).chooseBySeries()
		for j, share := range rounded(shares) {
			one := part{Method: ownPart, Share: share, Error: meanAbsolute(forecasts[j], truth)}
			if j > 0 {
				one.Method = names[j-1]
			}
			m.mixture[k] = append(m.mixture[k], one)
		}
		of := func(int32) []float64 { return shares }
		if own != nil {
			of = func(frame int32) []float64 { return own[frame] }
			m.own.set(d, k, own)
		}
		out.errors = append(out.errors, d.mixedErrors(k, list, of, forecasts, truth))
	}
	m.notes = append(m.notes, m.mixtureNotes()...)
	return nil
}

// unseen returns the network's forecasts of windows.
func (m *Model) unseen(ctx context.Context, d *dataset, list []window) (*unseen, error) {
	out := &unseen{list: list, fold: make([]int, len(list))}
	if len(list) == 0 {
		return out, nil
	}
	at := map[window]int{}
	for i, w := range list {
		at[w] = i
	}
	for range d.targets {
		out.forecast = append(out.forecast, mat.NewDense(len(list), d.horizon, nil))
	}
	return out, m.forecastAll(ctx, d, list, nil, func(w window, k int, s *steps) {
		u := units{s.centre, d.frames[w.frame].fit[k].Scaler}
		for h, y := range s.point {
			out.forecast[k].Set(at[w], h, u.in(y))
		}
	})
}

// rounded returns shares in thousandths that add up to 1 as they did before.
func rounded(shares []float64) []float64 {
	parts, rest, largest := make([]float64, len(shares)), 1000.0, 0
	for j, share := range shares {
		parts[j] = math.Round(1000 * share)
		if rest -= parts[j]; parts[j] > parts[largest] {
			largest = j
		}
	}
	parts[largest] += rest
	for j := range parts {
		parts[j] /= 1000
	}
	return parts
}

// seasoned returns the windows that have a season before them, for each season that is
// at most half of the known rows of its series, and their indices in the list.
func (d *dataset) seasoned(list []window) (kept []window, rows []int) {
	for i, w := range list {
		f := d.frames[w.frame]
		known := max(f.part[trainPart].hi, f.part[validationPart].hi)
		if !slices.ContainsFunc(d.seasons(), func(season int) bool { return 2*season <= known && int(w.origin) < season }) {
			kept, rows = append(kept, w), append(rows, i)
		}
	}
	return kept, rows
}

// mixedErrors returns the absolute errors of a mixture by step, in the windows' units.
func (d *dataset) mixedErrors(k int, list []window, shares func(frame int32) []float64, forecasts []*mat.Dense, truth *mat.Dense) [][]float64 {
	errs := make([][]float64, d.horizon)
	for i, w := range list {
		f := d.frames[w.frame]
		scale := f.fit[k].unit()
		u := units{d.centre(f, k, int(w.origin)), f.fit[k].Scaler}
		for h := range errs {
			y, mixed := truth.At(i, h), 0.0
			for j, share := range shares(w.frame) {
				mixed += share * forecasts[j].At(i, h)
			}
			if e := math.Abs(u.in(y*scale) - u.in(mixed*scale)); !math.IsNaN(e) {
				errs[h] = append(errs[h], e)
			}
		}
	}
	return errs
}

// pasts returns for each window the dataset by which simple methods forecast it. Their
// smoothing is fitted to the rows before the windows of its stretch, or to the earlier
// half of the known rows if they are more.
func (d *dataset) pasts(ctx context.Context, out *unseen, list []window, rows []int) ([]*dataset, error) {
	past := make([]*dataset, len(list))
	for lo, hi := 0, 0; lo < len(list); lo = hi {
		for hi < len(list) && out.fold[rows[hi]] == out.fold[rows[lo]] {
			hi++
		}
		own := d.before(list[lo:hi])
		if d.smooths() {
			if err := own.smooth(ctx, list[lo:hi]); err != nil {
				return nil, err
			}
		}
		for i := lo; i < hi; i++ {
			past[i] = own
		}
	}
	return past, nil
}

// before returns the dataset whose training part is the rows before the first window of
// each series, or the earlier half of the known rows if they are more.
func (d *dataset) before(list []window) *dataset {
	first := map[*frame]int{}
	for _, w := range list {
		f, origin := d.frames[w.frame], int(w.origin)
		if at, ok := first[f]; !ok || origin < at {
			first[f] = origin
		}
	}
	past := d.divided(func(f *frame) parts {
		known := max(f.part[trainPart].hi, f.part[validationPart].hi)
		return parts{trainPart: {0, max(first[f], (known+1)/2)}}
	})
	past.inside = true
	return past
}

// divided returns the dataset with other parts.
func (d *dataset) divided(of func(f *frame) parts) *dataset {
	own := *d
	own.frames = make([]*frame, len(d.frames))
	own.smoothed = nil
	for i, f := range d.frames {
		one := *f
		one.part = of(f)
		own.frames[i] = &one
	}
	return &own
}

func hasNumber(x *mat.Dense) bool {
	return slices.ContainsFunc(x.RawMatrix().Data, isMeasured)
}

// meanAbsolute returns the mean absolute difference where y is a number.
func meanAbsolute(x, y *mat.Dense) float64 {
	var sum mean
	rows, columns := y.Dims()
	for i := range rows {
		for j := range columns {
			if e := math.Abs(x.At(i, j) - y.At(i, j)); !math.IsNaN(e) {
				sum.add(e)
			}
		}
	}
	return sum.value()
}

// check returns an error for a mixture that is not of a number of targets, or whose
// shares are not ones of known methods that add up to 1.
func (x mixture) check(targets int) error {
	if len(x) != 0 && len(x) != targets {
		return fmt.Errorf("mixture: %d targets, expected %d", len(x), targets)
	}
	for _, parts := range x {
		sum := 0.0
		for _, p := range parts {
			if p.Method != ownPart && (*dataset)(nil).method(p.Method).forecast == nil {
				return fmt.Errorf("mixture: there is no method %q", p.Method)
			}
			if !(p.Share >= 0) {
				return fmt.Errorf("mixture: the share of %s is %v", p.Method, p.Share)
			}
			sum += p.Share
		}
		if !(math.Abs(sum-1) < 1e-9) {
			return fmt.Errorf("mixture: the shares add up to %v, expected 1", sum)
		}
	}
	return nil
}

// own returns the share of the network with its linear path.
func (x mixture) own(k int) float64 {
	if k >= len(x) {
		return 1
	}
	for _, p := range x[k] {
		if p.Method == ownPart {
			return p.Share
		}
	}
	return 0
}

// leastOwn bounds least.
const leastOwn = 0.05

// ownShares are the shares of the methods of a mixture for series that have others than
// all series together: by series, [target][method].
type ownShares map[string][][]float64

// set sets the shares for a target by the index of the series; those of targets that
// are not set are nil.
func (o ownShares) set(d *dataset, k int, own map[int32][]float64) {
	for frame, shares := range own {
		id := d.frames[frame].id
		if o[id] == nil {
			o[id] = make([][]float64, d.targets)
		}
		o[id][k] = rounded(shares)
	}
}

// check returns an error for shares that are not ones of the methods of a mixture.
func (o ownShares) check(x mixture) error {
	for id, targets := range o {
		if len(targets) != len(x) {
			return fmt.Errorf("series_shares: %d targets of series %q, expected %d", len(targets), id, len(x))
		}
		for k, shares := range targets {
			if shares == nil {
				continue
			}
			if len(shares) != len(x[k]) {
				return fmt.Errorf("series_shares: %d shares of series %q, expected %d", len(shares), id, len(x[k]))
			}
			if err := (mixture{withShares(x[k], shares)}).check(1); err != nil {
				return fmt.Errorf("series_shares: series %q: %w", id, err)
			}
		}
	}
	return nil
}

// parts returns the parts of the forecast of a target of a series.
func (m *Model) parts(id string, k int) []part {
	if k >= len(m.mixture) {
		return nil
	}
	if own := m.own[id]; own != nil && own[k] != nil {
		return withShares(m.mixture[k], own[k])
	}
	return m.mixture[k]
}

// withShares returns parts with other shares.
func withShares(parts []part, shares []float64) []part {
	parts = slices.Clone(parts)
	for j := range parts {
		parts[j].Share = shares[j]
	}
	return parts
}

// leaders returns in how many series each method of a target has the largest share; nil
// if the series share their shares.
func (m *Model) leaders(k int) (count []int) {
	for _, own := range m.own {
		if shares := own[k]; shares != nil {
			if count == nil {
				count = make([]int, len(shares))
			}
			count[slices.Index(shares, slices.Max(shares))]++
		}
	}
	return count
}

// size returns the share of the network with its linear path in the forecast of a target,
// at least leastOwn.
func (x mixture) size(k int) float64 { return math.Max(x.own(k), leastOwn) }

// least returns the least share of the network with its linear path in the forecast
// of a target, at least leastOwn.
func (x mixture) least() float64 {
	least := 1.0
	for k := range x {
		least = math.Min(least, x.own(k))
	}
	return math.Max(least, leastOwn)
}

// simpleParts returns the parts that are simple methods with a share.
func simpleParts(parts []part) []part {
	return slices.DeleteFunc(slices.Clone(parts), func(p part) bool { return p.Method == ownPart || p.Share == 0 })
}

// simpleOf returns the parts of a target that are simple methods with a share.
func (x mixture) simpleOf(k int) []part {
	if k >= len(x) {
		return nil
	}
	return simpleParts(x[k])
}

// smooths reports whether some part needs smoothing.
func (m *Model) smooths() bool {
	needed := func(p part) bool { return p.Share > 0 && (p.Method == "theta" || p.Method == "ets") }
	for k, parts := range m.mixture {
		if slices.ContainsFunc(parts, needed) {
			return true
		}
		for id := range m.own {
			if slices.ContainsFunc(m.parts(id, k), needed) {
				return true
			}
		}
	}
	return false
}

func (m *Model) mixtureNotes() (notes []string) {
	for k, name := range m.cfg.targets() {
		var list []string
		for _, p := range m.mixture.simpleOf(k) {
			if p.Share < 0.01 {
				continue
			}
			list = append(list, fmt.Sprintf("%s %s", strings.ReplaceAll(p.Method, "_", " "), report.Percent(p.Share)))
		}
		if list == nil {
			continue
		}
		of := ""
		if len(m.mixture) > 1 {
			of = " of " + name
		}
		notes = append(notes, fmt.Sprintf("simple methods have shares in the forecast%s, chosen on windows left out: %s", of, strings.Join(list, ", ")))
	}
	for k, name := range m.cfg.targets() {
		var list []string
		for j, n := range m.leaders(k) {
			if n > 0 {
				list = append(list, fmt.Sprintf("%s in %d", strings.ReplaceAll(m.mixture[k][j].Method, "_", " "), n))
			}
		}
		if list != nil {
			notes = append(notes, fmt.Sprintf("each series has its own shares in the forecast of %s; the largest is that of %s", name, report.Listing(list)))
		}
	}
	return notes
}

// lean shifts the outputs of one target of one window [horizon,outputs] so that
// their middle, in the data's units, is the mixture. Quantiles keep their
// distances from it; a scale is unchanged. scratch is [horizon].
func (m *Model) lean(out []float32, scratch []float64, d *dataset, f *frame, k, origin int, u units) {
	simple := simpleParts(m.parts(f.id, k))
	if len(simple) == 0 && !m.even {
		return
	}
	outputs, locations := len(out)/len(scratch), 1
	if m.cfg.Loss == "quantile" {
		locations = outputs
	}
	own, mixed := make([]float64, len(scratch)), make([]float64, len(scratch))
	for h := range own {
		own[h] = u.out(float64(out[h*outputs+locations/2]))
		mixed[h] = own[h]
	}
	// The part of the network that is beside the linear path, if it has the same size in
	// all series.
	var network []float64
	if m.even {
		network = slices.Clone(own)
		d.line(m.ridge)(own, f, k, origin)
		size := m.mixture.size(k)
		for h, line := range own {
			mixed[h] = line + size*(network[h]-line)
		}
	}
	for _, p := range simple {
		d.method(p.Method).forecast(scratch, f, k, origin)
		for h, y := range scratch {
			mixed[h] += p.Share * (y - own[h]) // equal forecasts give the same
		}
	}
	for h, y := range mixed {
		o := out[h*outputs:][:locations]
		shift := float32(u.in(y) - float64(o[len(o)/2]))
		for j := range o {
			o[j] += shift
		}
	}
}

// shares returns the mixture by target.
func (m *Model) shares() (list []MethodShare) {
	for k, parts := range m.mixture {
		leads := m.leaders(k)
		for j, p := range parts {
			one := MethodShare{Target: m.cfg.targets()[k], Method: p.Method, Share: p.Share, Error: p.Error}
			if leads != nil {
				one.Series = leads[j]
			}
			list = append(list, one)
		}
	}
	return list
}

// linearChoices returns the regressions that were tried, by target.
func (m *Model) linearChoices() (list []LinearChoice) {
	for k, tried := range m.ridge.choices {
		for _, one := range tried {
			lags := m.schema.Lags[:min(one.Lags, len(m.schema.Lags))]
			list = append(list, LinearChoice{m.cfg.targets()[k], one.Window, lags, one.Level, one.Groups, one.Penalty, one.Error, one.Share})
		}
	}
	return list
}
