package cpu

import "math"

// The losses are computed in float64, where central differences check them far
// below float32's resolution; the densities subtract large, nearly equal terms.

// minPositive is added to every softplus output that must stay positive (scale,
// count mean, dispersion), so that the loss of a perfect prediction stays finite.
const minPositive = 1e-6

// positive returns softplus(x) + minPositive and its derivative.
func positive(x float64) (v, dv float64) { return softplus(x) + minPositive, logistic(x) }

// absolute returns |p-y| and its derivative in p, which is 0 for p = y.
func absolute(p, y float64) (l, d float64) {
	switch e := p - y; {
	case e > 0:
		return e, 1
	case e < 0:
		return -e, -1
	default:
		return e, e // 0 or NaN
	}
}

// huber returns the loss of torch.nn.HuberLoss, quadratic up to delta and linear above.
func huber(p, y, delta float64) (l, d float64) {
	switch e := p - y; {
	case e > delta:
		return delta * (e - delta/2), delta
	case e < -delta:
		return delta * (-e - delta/2), -delta
	default:
		return e * e / 2, e
	}
}

// pinball returns the loss that quantile q of y minimises: q·(y-p) for p < y,
// (1-q)·(p-y) for p > y.
func pinball(p, y, q float64) (l, d float64) {
	switch e := y - p; {
	case e > 0:
		return q * e, -q
	case e < 0:
		return (q - 1) * e, 1 - q
	default:
		return e, e // 0 or NaN
	}
}

// bce returns the binary cross-entropy of the logit x against y in [0,1]: max(x,0) - x·y + log(1+e^-|x|).
func bce(x, y float64) (l, d float64) {
	return math.Max(x, 0) - float64(x*y) + math.Log1p(exp(-math.Abs(x))), logistic(x) - y
}

// gaussian returns the negative log density of y under a normal distribution with
// mean p0 and standard deviation softplus(p1) + minPositive, constant included.
func gaussian(p0, p1, y float64) (l, d0, d1 float64) {
	sigma, ds := positive(p1)
	z := (y - p0) / sigma
	l = math.Log(sigma) + z*z/2 + math.Log(2*math.Pi)/2
	return l, -z / sigma, (1 - z*z) / sigma * ds
}

// studentT returns the negative log density of y under Student's t with location
// p0, scale softplus(p1) + minPositive and 2 + softplus(p2) degrees of freedom
// (above 2, so that the variance is finite).
func studentT(p0, p1, p2, y float64) (l, d0, d1, d2 float64) {
	sigma, ds := positive(p1)
	nu, dnu := 2+softplus(p2), logistic(p2)
	z := (y - p0) / sigma
	tail := z * z / nu
	logTail := math.Log1p(tail)
	l = lgamma(nu/2) - lgamma((nu+1)/2) + math.Log(nu*math.Pi)/2 + math.Log(sigma) + (nu+1)/2*logTail
	pull := (nu + 1) * z / (nu + z*z) // d(l)/dz
	d0 = -pull / sigma
	d1 = (1 - pull*z) / sigma * ds
	d2 = ((digamma(nu/2)-digamma((nu+1)/2)+1/nu+logTail)/2 - pull*z/(2*nu)) * dnu
	return l, d0, d1, d2
}

// negBinomial returns the negative log probability of the count y under a negative
// binomial with mean mu = softplus(p0) + minPositive and dispersion
// alpha = softplus(p1) + minPositive: the variance is mu + alpha·mu² and the
// shape r is 1/alpha. y may be any number that is not negative.
func negBinomial(p0, p1, y float64) (l, d0, d1 float64) {
	mu, dmu := positive(p0)
	alpha, dalpha := positive(p1)
	r, am := 1/alpha, alpha*mu
	logShare := math.Log1p(am)
	l = lgamma(r) + lgamma(y+1) - lgamma(y+r) + r*logShare - y*(math.Log(am)-logShare)
	d0 = (mu - y) / (mu * (1 + am)) * dmu
	inR := digamma(y+r) - digamma(r) - logShare + (mu-y)/(r+mu) // -d(l)/dr
	d1 = inR * r * r * dalpha
	return l, d0, d1
}

func lgamma(x float64) float64 {
	v, _ := math.Lgamma(x)
	return v
}

// digamma returns the derivative of lgamma for x > 0, to about 1e-14: the recurrence
// psi(x) = psi(x+1) - 1/x up to 10, then the asymptotic series in 1/x².
func digamma(x float64) float64 {
	var shift float64
	for ; x < 10; x++ {
		shift -= 1 / x
	}
	u := 1 / (x * x)
	series := u * (1./12 - u*(1./120-u*(1./252-u*(1./240-u*(1./132-u*(691./32760-u/12))))))
	return shift + math.Log(x) - 1/(2*x) - series
}
