package forecast

import (
	"fmt"
	"math"
	"slices"
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
// adjusted if the season of MASE shows in the autocorrelation. Test and factors are
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
			if x := bridged(f.raw[k][:first[f]]); isSeasonal(x, f.fit[k].Season) {
				factors = seasonalFactors(x, f.fit[k].Season)
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

// bridged returns a column with lines over the values that were not measured; the
// ends repeat the nearest one.
func bridged(column []float64) []float64 {
	x := slices.Clone(column)
	last := -1
	for t, v := range x {
		if math.IsNaN(v) {
			continue
		}
		for i := last + 1; i < t; i++ {
			w := float64(i-last) / float64(t-last)
			if x[i] = v; last >= 0 {
				x[i] = (1-w)*x[last] + w*v
			}
		}
		last = t
	}
	for i := last + 1; i < len(x) && last >= 0; i++ {
		x[i] = x[last]
	}
	return x
}

// isSeasonal is M4's test for a season: at least three of them, and an
// autocorrelation outside its 90 % bounds. Values that are missing or not positive
// have no season, as its factors divide them.
func isSeasonal(x []float64, season int) bool {
	n := len(x)
	if season < 2 || n < 3*season || slices.ContainsFunc(x, func(v float64) bool { return !(v > 0) }) {
		return false
	}
	mu, deviation := meanDeviation(x)
	correlation := func(lag int) float64 {
		sum := 0.0
		for t := lag; t < n; t++ {
			sum += (x[t] - mu) * (x[t-lag] - mu)
		}
		return sum / (float64(n) * deviation * deviation)
	}
	spread := 1.0
	for lag := 1; lag < season; lag++ {
		r := correlation(lag)
		spread += 2 * r * r
	}
	return math.Abs(correlation(season)) > 1.645*math.Sqrt(spread/float64(n))
}

// seasonalFactors returns the factors of a multiplicative season by row modulo the
// season, as R's decompose does: the means of x divided by its centred moving
// average, scaled to a mean of 1. x has at least two seasons.
func seasonalFactors(x []float64, season int) []float64 {
	ratios := make([]mean, season)
	half := season / 2
	for t := half; t+half < len(x); t++ {
		trend := 0.0
		for i := t - half; i <= t+half; i++ {
			weight := 1.0
			if season%2 == 0 && (i == t-half || i == t+half) {
				weight = 0.5
			}
			trend += weight * x[i]
		}
		ratios[t%season].add(x[t] / (trend / float64(season)))
	}
	factors, total := make([]float64, season), 0.0
	for i := range ratios {
		factors[i] = ratios[i].value()
		total += factors[i]
	}
	for i := range factors {
		factors[i] *= float64(season) / total
	}
	return factors
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
