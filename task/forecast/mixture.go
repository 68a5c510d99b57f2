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
// earlier half of the rows. Without a linear path they are chosen beside the network,
// on the windows of validation. Few windows that do not overlap leave the shares nearer
// to each other.
func (m *Model) settleMixture(ctx context.Context, d *dataset, valid []window) error {
	if m.cfg.Head == "autoregressive" || m.cfg.Loss == "negative-binomial" || m.cfg.NoTargetHistory {
		return nil // their outputs are not locations, or the methods' past targets are no inputs
	}
	out := d.out
	var methods *dataset
	if m.net.Skip != nil {
		methods = d.earlier()
	} else {
		var err error
		if out, err = m.unseen(ctx, d, valid); err != nil {
			return err
		}
		methods = d.divided(func(f *frame) parts { return f.part })
	}
	list, rows := d.seasoned(out.list)
	if len(list) == 0 {
		return nil
	}
	simple, err := methods.simple(ctx, list)
	if err != nil {
		return err
	}
	m.mixture = make(mixture, d.targets)
	for k := range d.targets {
		truth := mat.NewDense(len(list), d.horizon, nil)
		forecasts := make([]*mat.Dense, 1+len(simple))
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
			for j, b := range simple {
				b.forecast(y, f, k, origin)
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
		n := independent(list, d.horizon)
		shares := prudent(mixing(forecasts, truth, n), forecasts, truth, n)
		for j, share := range rounded(shares) {
			one := part{Method: ownPart, Share: share, Error: meanAbsolute(forecasts[j], truth)}
			if j > 0 {
				one.Method = simple[j-1].name
			}
			m.mixture[k] = append(m.mixture[k], one)
		}
		out.errors = append(out.errors, d.mixedErrors(k, list, shares, forecasts, truth))
	}
	m.notes = append(m.notes, m.mixtureNotes()...)
	return nil
}

// unseen returns the network's forecasts of windows.
func (m *Model) unseen(ctx context.Context, d *dataset, list []window) (*unseen, error) {
	out := &unseen{list: list}
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
func (d *dataset) mixedErrors(k int, list []window, shares []float64, forecasts []*mat.Dense, truth *mat.Dense) [][]float64 {
	errs := make([][]float64, d.horizon)
	for i, w := range list {
		f := d.frames[w.frame]
		scale := f.fit[k].unit()
		u := units{d.centre(f, k, int(w.origin)), f.fit[k].Scaler}
		for h := range errs {
			y, mixed := truth.At(i, h), 0.0
			for j, share := range shares {
				mixed += share * forecasts[j].At(i, h)
			}
			if e := math.Abs(u.in(y*scale) - u.in(mixed*scale)); !math.IsNaN(e) {
				errs[h] = append(errs[h], e)
			}
		}
	}
	return errs
}

// earlier returns the dataset with the earlier half of the known rows as its
// training part.
func (d *dataset) earlier() *dataset {
	half := d.divided(func(f *frame) parts {
		known := max(f.part[trainPart].hi, f.part[validationPart].hi)
		return parts{trainPart: {0, (known + 1) / 2}}
	})
	half.inside = true
	return half
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

// least returns the least share of the network with its linear path in the forecast
// of a target, at least leastOwn.
func (x mixture) least() float64 {
	least := 1.0
	for k := range x {
		least = math.Min(least, x.own(k))
	}
	return math.Max(least, leastOwn)
}

// simpleOf returns the parts of a target that are simple methods with a share.
func (x mixture) simpleOf(k int) []part {
	if k >= len(x) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(x[k]), func(p part) bool { return p.Method == ownPart || p.Share == 0 })
}

// smooths reports whether some part needs smoothing.
func (x mixture) smooths() bool {
	for k := range x {
		for _, p := range x.simpleOf(k) {
			if p.Method == "theta" || p.Method == "ets" {
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
	return notes
}

// lean shifts the outputs of one target of one window [horizon,outputs] so that
// their middle, in the data's units, is the mixture. Quantiles keep their
// distances from it; a scale is unchanged. scratch is [horizon].
func (m *Model) lean(out []float32, scratch []float64, d *dataset, f *frame, k, origin int, u units) {
	simple := m.mixture.simpleOf(k)
	if len(simple) == 0 {
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
		for _, p := range parts {
			list = append(list, MethodShare{m.cfg.targets()[k], p.Method, p.Share, p.Error})
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
