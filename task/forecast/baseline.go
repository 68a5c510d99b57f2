package forecast

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/smoothing"
	"github.com/carousel-ml/carousel/train"
)

// baseline forecasts a target of a frame from the rows before origin, in the
// data's units.
type baseline struct {
	name     string
	season   int // of a seasonal naive forecast; else 0
	forecast func(dst []float64, f *frame, k, origin int)
}

// baselines returns the simple methods for windows, the last value after seasonal
// adjustment, and the linear path.
func (d *dataset) baselines(ctx context.Context, r *ridge, list []window) ([]baseline, error) {
	b, err := d.simple(ctx, list)
	if err != nil {
		return nil, err
	}
	b = slices.Insert(b, 1, baseline{name: "naive2", forecast: d.naive2(list)})
	if r != nil {
		b = append(b, baseline{name: "linear", forecast: d.line(r)})
	}
	return b, nil
}

// line returns the forecast of the linear path.
func (d *dataset) line(r *ridge) func(dst []float64, f *frame, k, origin int) {
	x := make([]float32, d.linear)
	return func(dst []float64, f *frame, k, origin int) {
		c := d.centre(f, k, origin)
		d.fillLinear(x, f, k, origin, c)
		r.predict(dst, k, x, d.groupAt(f, origin))
		u := units{c, f.fit[k].Scaler}
		for h, z := range dst {
			dst[h] = u.out(z)
		}
	}
}

// mostSmoothed is the largest number of series that smoothing is fitted to.
const mostSmoothed = 1000

// smooths reports whether smoothing is among the simple methods.
func (d *dataset) smooths() bool { return len(d.frames)*d.targets <= mostSmoothed }

// simple returns the simple methods for windows: the last value, the line through
// the first and the last value, the last cycle of each season, and smoothing. A
// season that is longer than the history of some window is left out.
func (d *dataset) simple(ctx context.Context, list []window) (b []baseline, err error) {
	if d.smooths() {
		if err := d.smooth(ctx, list); err != nil {
			return nil, err
		}
	}
	for _, name := range d.simpleNames(list) {
		b = append(b, d.method(name))
	}
	return b, nil
}

// simpleNames returns the names of the simple methods for windows.
func (d *dataset) simpleNames(list []window) []string {
	names := []string{"naive", "drift"}
	earliest := math.MaxInt
	for _, w := range list {
		earliest = min(earliest, int(w.origin))
	}
	for _, season := range d.seasons() {
		if season <= earliest {
			names = append(names, fmt.Sprintf("%s%d", seasonalName, season))
		}
	}
	if d.smooths() {
		names = append(names, "theta", "ets")
	}
	return names
}

// seasonalName begins the names of the seasonal naive forecasts, before their season.
const seasonalName = "seasonal_naive_"

// method returns the simple method of a name, without a forecast if there is none. That
// of smoothing needs [dataset.smooth].
func (d *dataset) method(name string) baseline {
	b := baseline{name: name}
	if digits, ok := strings.CutPrefix(name, seasonalName); ok {
		if b.season, _ = strconv.Atoi(digits); b.season > 0 {
			b.forecast = func(dst []float64, f *frame, k, origin int) { seasonal(dst, f, k, origin, b.season) }
		}
		return b
	}
	switch name {
	case "naive":
		b.forecast = naive
	case "drift":
		b.forecast = drift
	case "theta":
		b.forecast = func(dst []float64, f *frame, k, origin int) { d.smoothed[f.id][k].theta.Forecast(dst, origin) }
	case "ets":
		b.forecast = func(dst []float64, f *frame, k, origin int) { d.smoothed[f.id][k].ets.Forecast(dst, origin) }
	}
	return b
}

// smoothed is the methods of smoothing for a target of a series.
type smoothed struct{ theta, ets *smoothing.Path }

// smooth fits the methods of smoothing to the series of windows: to the rows of
// training and validation that lie before the first window or, if there are none, to
// all that do.
func (d *dataset) smooth(ctx context.Context, list []window) error {
	first := map[int32]int{}
	for _, w := range list {
		if origin, ok := first[w.frame]; !ok || int(w.origin) < origin {
			first[w.frame] = int(w.origin)
		}
	}
	if d.smoothed == nil {
		d.smoothed = map[string][]smoothed{}
	}
	var frames []int32
	for i := range int32(len(d.frames)) {
		if _, ok := first[i]; ok && d.smoothed[d.frames[i].id] == nil {
			d.smoothed[d.frames[i].id] = make([]smoothed, d.targets)
			frames = append(frames, i)
		}
	}
	// Each rank fits every ranks-th target of a series, with all its threads.
	n, ranks := len(frames)*d.targets, train.Ranks(ctx)
	place := func(at int) (i int32, k int) { return frames[at/d.targets], at % d.targets }
	all := make([]fits, n)
	err := train.Share(ctx, ranks, func(ctx context.Context, rank int) (numbers []float64, err error) {
		errs := make([]error, n)
		par.For(ceil(n-rank, ranks), 1, &all, func(all *[]fits, lo, hi int) {
			for at := rank + lo*ranks; at < rank+hi*ranks; at += ranks {
				i, k := place(at)
				(*all)[at], errs[at] = d.frames[i].smooth(ctx, k, d.rowsToSmooth(i, first[i]))
			}
		})
		for at := rank; at < n && errs[at] == nil; at += ranks {
			numbers = append(append(numbers, all[at].theta.Numbers()...), all[at].ets.Numbers()...)
		}
		return numbers, errors.Join(errs...)
	}, func(rank int, numbers []float64) error {
		for at := rank; at < n; at += ranks {
			all[at].theta, numbers = smoothing.ThetaOf(numbers)
			all[at].ets, numbers = smoothing.ETSOf(numbers)
		}
		return nil
	})
	if err != nil {
		return err
	}
	par.For(n, 1, &all, func(all *[]fits, lo, hi int) {
		for at := lo; at < hi; at++ {
			i, k := place(at)
			f, one := d.frames[i], &(*all)[at]
			d.smoothed[f.id][k] = smoothed{one.theta.Run(f.raw[k]), one.ets.Run(f.raw[k])}
		}
	})
	return nil
}

func ceil(a, b int) int { return (a + b - 1) / b }

// rowsToSmooth returns how many rows of a frame smoothing is fitted to, where the first
// window begins at a row.
func (d *dataset) rowsToSmooth(i int32, first int) int {
	f := d.frames[i]
	known := max(f.part[trainPart].hi, f.part[validationPart].hi)
	if d.trained {
		known = f.part[trainPart].hi
	}
	if !d.inside {
		known = min(known, first)
	}
	if f.part[trainPart].len() == 0 {
		known = first
	}
	return known
}

// fits are the methods of smoothing fitted to a target of a series.
type fits struct {
	theta *smoothing.Theta
	ets   *smoothing.ETS
}

// smooth fits the methods to the first known rows of a target.
func (f *frame) smooth(ctx context.Context, k, known int) (s fits, err error) {
	x, season := f.raw[k][:known], f.fit[k].Season
	if s.ets, err = smoothing.FitETS(ctx, x, season); err != nil {
		return s, err
	}
	s.theta, err = smoothing.FitTheta(x, season)
	return s, err
}

// seasons returns the seasons of the frequency and those that the user gave.
func (d *dataset) seasons() []int {
	seasons := slices.Clone(d.Freq.Seasons())
	for _, lag := range d.Lags {
		if !slices.Contains(seasons, lag) {
			seasons = append(seasons, lag)
		}
	}
	return seasons
}

// naive repeats the last measured value.
func naive(dst []float64, f *frame, k, origin int) {
	last := lastMeasured(f.raw[k], origin-1)
	for h := range dst {
		dst[h] = last
	}
}

// naive2 returns the benchmark of the M4 competition: the last value, seasonally
// adjusted by factors if the season of MASE shows in the autocorrelation of values
// that are all positive. Test and factors are of the rows before the first window of a
// series.
func (d *dataset) naive2(list []window) func(dst []float64, f *frame, k, origin int) {
	first := map[*frame]int{}
	for _, w := range list {
		if f := d.frames[w.frame]; first[f] == 0 || int(w.origin) < first[f] {
			first[f] = int(w.origin)
		}
	}
	type column struct {
		f *frame
		k int
	}
	known := map[column][]float64{}
	return func(dst []float64, f *frame, k, origin int) {
		factors, ok := known[column{f, k}]
		if !ok {
			if x := smoothing.Bridge(f.raw[k][:first[f]]); smoothing.IsSeasonal(x, f.fit[k].Season) && slices.Min(x) > 0 {
				factors = smoothing.Season(x, f.fit[k].Season, true)
			}
			known[column{f, k}] = factors
		}
		naive(dst, f, k, origin)
		last := origin - 1
		for last > 0 && math.IsNaN(f.raw[k][last]) {
			last--
		}
		for h := 0; h < len(dst) && factors != nil; h++ {
			dst[h] *= factors[(origin+h)%len(factors)] / factors[last%len(factors)]
		}
	}
}

// lastMeasured returns the latest value up to row, or 0 if there is none.
func lastMeasured(x []float64, row int) float64 {
	for ; row >= 0; row-- {
		if !math.IsNaN(x[row]) {
			return x[row]
		}
	}
	return 0
}

// seasonal repeats the last cycle of a season.
func seasonal(dst []float64, f *frame, k, origin, season int) {
	for h := range dst {
		row := seasonalRow(origin, h, season)
		for row >= 0 && math.IsNaN(f.raw[k][row]) {
			row -= season
		}
		if row < 0 {
			dst[h] = lastMeasured(f.raw[k], origin-1)
			continue
		}
		dst[h] = f.raw[k][row]
	}
}

// drift continues the line through the first and the last measured value.
func drift(dst []float64, f *frame, k, origin int) {
	x := f.raw[k]
	first, last := 0, origin-1
	for first < last && math.IsNaN(x[first]) {
		first++
	}
	for last > first && math.IsNaN(x[last]) {
		last--
	}
	slope := 0.0
	if last > first {
		slope = (x[last] - x[first]) / float64(last-first)
	}
	end := lastMeasured(x, last)
	for h := range dst {
		dst[h] = end + slope*float64(origin+h-last)
	}
}
