package smoothing

import (
	"math"
	"slices"
)

// Bridge returns a column with lines over the values that are missing; the ends
// repeat the nearest one. A column without any stays as it is.
func Bridge(column []float64) []float64 {
	x := slices.Clone(column)
	last := -1
	for t, v := range x {
		if missing(v) {
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

// IsSeasonal is the M4 competition's test for a season: at least three of them, and
// an autocorrelation outside its 90 % bounds. A column with missing values has none.
func IsSeasonal(x []float64, period int) bool {
	n := len(x)
	if period < 2 || n < 3*period {
		return false
	}
	mu := mean(x)
	covariance := func(lag int) float64 {
		sum := 0.0
		for t := lag; t < n; t++ {
			sum += (x[t] - mu) * (x[t-lag] - mu)
		}
		return sum
	}
	variance, spread := covariance(0), 1.0
	for lag := 1; lag < period; lag++ {
		r := covariance(lag) / variance
		spread += 2 * r * r
	}
	return math.Abs(covariance(period)/variance) > 1.645*math.Sqrt(spread/float64(n))
}

// Season returns a season by row modulo the period, as R's decompose does: the means
// of what x is above its centred moving average, less their mean; or, as factors, of
// x divided by the average, scaled to a mean of 1. x has at least two periods and no
// missing values.
func Season(x []float64, period int, factors bool) []float64 {
	season, count := make([]float64, period), make([]float64, period)
	half := period / 2
	for t := half; t+half < len(x); t++ {
		trend := 0.0
		for i := t - half; i <= t+half; i++ {
			weight := 1.0
			if period%2 == 0 && (i == t-half || i == t+half) {
				weight = 0.5
			}
			trend += weight * x[i]
		}
		trend /= float64(period)
		count[t%period]++
		if factors {
			season[t%period] += x[t] / trend
		} else {
			season[t%period] += x[t] - trend
		}
	}
	for i := range season {
		season[i] /= count[i]
	}
	centre := mean(season)
	for i := range season {
		if factors {
			season[i] /= centre
		} else {
			season[i] -= centre
		}
	}
	return season
}

// deseasonalised returns x without its season.
func deseasonalised(x, season []float64, factors bool) []float64 {
	z := slices.Clone(x)
	for t := range z {
		switch {
		case len(season) == 0:
		case factors:
			z[t] /= season[t%len(season)]
		default:
			z[t] -= season[t%len(season)]
		}
	}
	return z
}

// rotated returns a season of a series that begins with the given row for all rows.
func rotated(season []float64, row int) []float64 {
	if len(season) == 0 {
		return nil
	}
	at := len(season) - row%len(season)
	return slices.Concat(season[at:], season[:at])
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}
