package forecast

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/smoothing"
)

// baseline forecasts a target of a frame from the rows before origin, in the
// data's units.
type baseline struct {
	name     string
	season   int // of a seasonal naive forecast; else 0
	forecast func(dst []float64, f *frame, k, origin int)
}

// baselines returns the baselines: the last value, without and with seasonal
// adjustment, the last cycle of each season, the line through the window's ends,
// and the ridge regression. A season that is longer than the history of some
// window is left out.
func (d *dataset) baselines(r *ridge, list []window) []baseline {
	b := []baseline{
		{name: "naive", forecast: naive},
		{name: "naive2", forecast: d.naive2(list)},
		{name: "drift", forecast: func(dst []float64, f *frame, k, origin int) { drift(dst, f, k, origin, d.window) }},
	}
	earliest := math.MaxInt
	for _, w := range list {
		earliest = min(earliest, int(w.origin))
	}
	for _, season := range d.seasons() {
		if season <= earliest {
			b = append(b, baseline{fmt.Sprintf("seasonal_naive_%d", season), season, func(dst []float64, f *frame, k, origin int) { seasonal(dst, f, k, origin, season) }})
		}
	}
	if r != nil {
		x := make([]float32, d.linear)
		b = append(b, baseline{name: "linear", forecast: func(dst []float64, f *frame, k, origin int) {
			c := d.centre(f, k, origin)
			d.fillLinear(x, f, k, origin, c)
			r.predict(dst, k, x, d.groupAt(f, origin))
			u := units{c, f.fit[k].Scaler}
			for h, z := range dst {
				dst[h] = u.out(z)
			}
		}})
	}
	return b
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
// that are all positive. Test and factors are
// of the rows before the first window of a series.
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

// drift continues the line through the first and the last measured value of the
// window.
func drift(dst []float64, f *frame, k, origin, window int) {
	first, last := origin-window, origin-1
	x := f.raw[k]
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
