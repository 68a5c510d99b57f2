package forecast

import (
	"math"
	"slices"
)

// Scaler converts a column's values to the network's units and back: the
// logarithm first if Log is set, then (x-Shift)/Scale.
type Scaler struct {
	Shift float64 `json:"shift"`
	Scale float64 `json:"scale"` // never 0
	Log   bool    `json:"log,omitempty"`
	Least float64 `json:"least,omitempty"` // smaller values are taken as it before the logarithm
}

// fitScaler fits a Scaler of a kind (standard, robust, minmax, none) to the
// values that are not NaN. A constant column keeps its units.
func fitScaler(kind string, log bool, values []float64) Scaler {
	s := Scaler{Scale: 1, Log: log}
	x := make([]float64, 0, len(values))
	for _, v := range values {
		if log {
			v = math.Log(v)
		}
		if !math.IsNaN(v) {
			x = append(x, v)
		}
	}
	if len(x) == 0 {
		return s
	}
	switch kind {
	case "standard":
		s.Shift, s.Scale = meanDeviation(x)
	case "robust":
		slices.Sort(x)
		s.Shift = sortedQuantile(x, 0.5)
		// The quartiles of a normal distribution are 1.349 standard deviations apart.
		s.Scale = (sortedQuantile(x, 0.75) - sortedQuantile(x, 0.25)) / 1.349
	case "minmax":
		s.Shift = slices.Min(x)
		s.Scale = slices.Max(x) - s.Shift
	}
	if isConstant(s.Scale, s.Shift) {
		s.Scale = 1
	}
	return s
}

// isConstant reports whether values around a centre vary by no more than the
// rounding of their sums.
func isConstant(variation, centre float64) bool { return !(variation > 1e-12*math.Abs(centre)) }

func (s Scaler) in(x float64) float64 {
	if s.Log {
		x = math.Log(math.Max(x, s.Least))
	}
	return (x - s.Shift) / s.Scale
}

func (s Scaler) out(z float64) float64 {
	x := z*s.Scale + s.Shift
	if s.Log {
		return math.Exp(x)
	}
	return x
}

// meanDeviation returns the mean and the standard deviation (divided by n) of x.
func meanDeviation(x []float64) (mean, deviation float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		deviation += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(x)))
}

// sortedQuantile returns the q-quantile of sorted x, with linear interpolation; 0
// if there are no values.
func sortedQuantile(x []float64, q float64) float64 {
	if len(x) == 0 {
		return 0
	}
	at := q * float64(len(x)-1)
	i := min(int(at), len(x)-1)
	j := min(i+1, len(x)-1)
	return x[i] + (at-float64(i))*(x[j]-x[i])
}
