package forecast

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"
)

// units converts between a window's units and the data's.
type units struct {
	centre centre
	scaler Scaler
}

func (u units) out(z float64) float64 {
	return u.scaler.out(float64(u.centre.scale)*z + float64(u.centre.shift))
}

func (u units) in(y float64) float64 { return u.centre.from(u.scaler.in(y)) }

// point returns the forecast that a step's outputs represent: the median or mean,
// depending on the loss.
func (m *Model) point(o []float32, u units) float64 {
	switch m.cfg.Loss {
	case "quantile":
		return u.out(interpolated(m.cfg.Quantiles, sortedOutputs(o), 0.5))
	case "negative-binomial":
		return softplus(float64(o[0]))
	}
	return u.out(float64(o[0]))
}

// quantiles writes the quantiles of one step's forecast at ascending levels in the
// data's units.
func (m *Model) quantiles(dst []float64, o []float32, u units, k, h int, levels []float64) {
	switch m.cfg.Loss {
	case "quantile":
		z := sortedOutputs(o)
		for i, q := range levels {
			dst[i] = u.out(interpolated(m.cfg.Quantiles, z, q))
		}
	case "gaussian":
		normal := distuv.Normal{Mu: float64(o[0]), Sigma: positive(o[1])}
		for i, q := range levels {
			dst[i] = u.out(normal.Quantile(q))
		}
	case "student-t":
		sigma, nu := positive(o[1]), 2+softplus(float64(o[2]))
		for i, q := range levels {
			dst[i] = u.out(float64(o[0]) + sigma*studentQuantile(nu, q))
		}
	case "negative-binomial":
		from := 0.0
		for i, q := range levels {
			from = negativeBinomialQuantile(positive(o[0]), positive(o[1]), q, from)
			dst[i] = from
		}
	default:
		for i, q := range levels {
			dst[i] = u.out(float64(o[0]) + m.residual(k, h, q))
		}
	}
}

// sortedOutputs returns the outputs of a step in ascending order, so that
// quantiles do not cross.
func sortedOutputs(o []float32) []float64 {
	z := make([]float64, len(o))
	for i, v := range o {
		z[i] = float64(v)
	}
	slices.Sort(z)
	return z
}

// interpolated returns the quantile q, interpolated between those of the levels;
// beyond the outermost it is the outermost.
func interpolated(levels, z []float64, q float64) float64 {
	i, found := slices.BinarySearch(levels, q)
	switch {
	case found:
		return z[i]
	case i == 0:
		return z[0]
	case i == len(levels):
		return z[i-1]
	}
	share := (q - levels[i-1]) / (levels[i] - levels[i-1])
	return z[i-1] + share*(z[i]-z[i-1])
}

func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// positive is the scale of the likelihoods of package tensor for an output x.
func positive(x float32) float64 { return softplus(float64(x)) + 1e-6 }

// studentQuantile returns the quantile of Student's t distribution with nu degrees
// of freedom, at least 1, several times as fast as distuv. Newton's method converges
// from wherever it begins below the median, where the distribution function is
// convex; it begins with the first terms of the expansion by 1/nu.
func studentQuantile(nu, q float64) float64 {
	if q > 0.5 {
		return -studentQuantile(nu, 1-q)
	}
	if q == 0.5 {
		return 0
	}
	z := distuv.UnitNormal.Quantile(q)
	x := z * (1 + (z*z+1)/(4*nu) + (5*z*z*z*z+16*z*z+3)/(96*nu*nu))
	density := math.Exp(-mathext.Lbeta(nu/2, 0.5)) / math.Sqrt(nu) // at 0
	for range 100 {
		share := nu / (nu + x*x)
		step := (mathext.RegIncBeta(nu/2, 0.5, share)/2 - q) / (density * math.Pow(share, (nu+1)/2))
		x = math.Min(x-step, 0)
		if math.Abs(step) <= 1e-7*math.Abs(x) { // the next one has about its square
			break
		}
	}
	return x
}

// negativeBinomialQuantile returns the least count whose cumulative probability
// is at least q, for a mean and a variance of mean + alpha·mean². The search begins
// at from, which the count is not below: the quantile of a smaller level, or 0.
func negativeBinomialQuantile(mean, alpha, q, from float64) float64 {
	r := 1 / alpha
	p := r / (r + mean)
	reaches := func(n float64) bool { return mathext.RegIncBeta(r, n+1, p) >= q }
	low, high := from-1, from
	for step := 1.0; !reaches(high) && high < 1e15; step *= 2 {
		low = high
		high += step
	}
	for high-low > 1 {
		if middle := math.Floor((low + high) / 2); reaches(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high
}

// thinSorted sorts e and keeps at most most evenly spaced order statistics.
func thinSorted(e []float64, most int) []float64 {
	slices.Sort(e)
	if len(e) <= most {
		return e
	}
	kept := make([]float64, most)
	for i := range kept {
		kept[i] = sortedQuantile(e, (float64(i)+0.5)/float64(most))
	}
	return kept
}
