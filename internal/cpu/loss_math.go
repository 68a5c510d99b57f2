package cpu

import "math"

// float lets the reference arithmetic run in float64, where central
// differences check it far below float32's resolution.
type float interface{ ~float32 | ~float64 }

// minPositive is added to every softplus output that must stay positive (scale,
// count mean, dispersion). A perfectly predicted stretch then costs a large
// finite amount of certainty instead of an infinite one.
const minPositive = 1e-6

// softplus is log(1+e^x) without overflow.
func softplus[F float](x F) F {
	v := float64(x)
	return F(math.Max(v, 0) + math.Log1p(exp(-math.Abs(v))))
}

// logistic is 1/(1+e^-x), the derivative of softplus.
func logistic[F float](x F) F {
	e := exp(-math.Abs(float64(x)))
	if x < 0 {
		return F(e / (1 + e))
	}
	return F(1 / (1 + e))
}

// positive maps a free parameter to softplus(x) + minPositive, with its derivative.
func positive(x float64) (v, dv float64) { return softplus(x) + minPositive, logistic(x) }

// squared is (p-y)² and its derivative in p.
func squared[F float](p, y F) (l, d F) {
	e := p - y
	return e * e, 2 * e
}

// absolute is |p-y|; its derivative is 0 where they meet.
func absolute[F float](p, y F) (l, d F) {
	switch e := p - y; {
	case e > 0:
		return e, 1
	case e < 0:
		return -e, -1
	default:
		return e, e // 0 or NaN
	}
}

// huber is quadratic up to delta and linear past it, as torch.nn.HuberLoss.
func huber[F float](p, y, delta F) (l, d F) {
	switch e := p - y; {
	case e > delta:
		return delta * (e - delta/2), delta
	case e < -delta:
		return delta * (-e - delta/2), -delta
	default:
		return e * e / 2, e
	}
}

// pinball is the loss that quantile q of y minimises: q·(y-p) where p is too
// low, (1-q)·(p-y) where it is too high.
func pinball[F float](p, y, q F) (l, d F) {
	switch e := y - p; {
	case e > 0:
		return q * e, -q
	case e < 0:
		return (q - 1) * e, 1 - q
	default:
		return e, e // 0 or NaN
	}
}

// bce is binary cross-entropy of the logit x against y in [0,1]: max(x,0) - x·y + log(1+e^-|x|).
func bce[F float](x, y F) (l, d F) {
	v := float64(x)
	e := exp(-math.Abs(v))
	return F(math.Max(v, 0) - v*float64(y) + math.Log1p(e)), logistic(x) - y
}

// gaussian is the negative log density of y under a normal distribution with
// mean p0 and standard deviation softplus(p1) + minPositive, constant included.
//
// Like the other densities it computes in float64 whatever F is: they subtract
// large, nearly equal terms.
func gaussian[F float](p0, p1, y F) (l, d0, d1 F) {
	sigma, ds := positive(float64(p1))
	z := (float64(y) - float64(p0)) / sigma
	l = F(math.Log(sigma) + z*z/2 + math.Log(2*math.Pi)/2)
	return l, F(-z / sigma), F((1 - z*z) / sigma * ds)
}

// studentT is the negative log density of y under Student's t with location
// p0, scale softplus(p1) + minPositive and 2 + softplus(p2) degrees of freedom
// (above 2, so that the variance is finite).
func studentT[F float](p0, p1, p2, y F) (l, d0, d1, d2 F) {
	sigma, ds := positive(float64(p1))
	nu, dnu := 2+softplus(float64(p2)), logistic(float64(p2))
	z := (float64(y) - float64(p0)) / sigma
	tail := z * z / nu
	logTail := math.Log1p(tail)
	l = F(lgamma(nu/2) - lgamma((nu+1)/2) + math.Log(nu*math.Pi)/2 + math.Log(sigma) + (nu+1)/2*logTail)
	pull := (nu + 1) * z / (nu + z*z) // d(l)/dz
	d0 = F(-pull / sigma)
	d1 = F((1 - pull*z) / sigma * ds)
	d2 = F(((digamma(nu/2)-digamma((nu+1)/2)+1/nu+logTail)/2 - pull*z/(2*nu)) * dnu)
	return l, d0, d1, d2
}

// negBinomial is the negative log probability of the count y under a negative
// binomial with mean mu = softplus(p0) + minPositive and dispersion
// alpha = softplus(p1) + minPositive: the variance is mu + alpha·mu² and the
// shape r is 1/alpha. y may be any number from 0 up.
func negBinomial[F float](p0, p1, y F) (l, d0, d1 F) {
	mu, dmu := positive(float64(p0))
	alpha, dalpha := positive(float64(p1))
	v, r, am := float64(y), 1/alpha, alpha*mu
	logShare := math.Log1p(am)
	l = F(lgamma(r) + lgamma(v+1) - lgamma(v+r) + r*logShare - v*(math.Log(am)-logShare))
	d0 = F((mu - v) / (mu * (1 + am)) * dmu)
	inR := digamma(v+r) - digamma(r) - logShare + (mu-v)/(r+mu) // -d(l)/dr
	d1 = F(inR * r * r * dalpha)
	return l, d0, d1
}

func lgamma(x float64) float64 {
	v, _ := math.Lgamma(x)
	return v
}

// digamma is the derivative of lgamma for x > 0, to about 1e-14: the recurrence
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
