package smoothing

import "math"

// admissible says whether errors of long ago fade from the forecasts of a model whose
// season of period rows is added (0: no season): whether all roots of its
// characteristic equation lie outside the unit circle (Hyndman and others 2008,
// chapter 10). Shares between 0 and 1 alone do not make a season with a trend so. For
// factors the equation is that of small relative errors.
func (d *dynamics) admissible(period int) bool {
	if period == 0 || d.beta == 0 {
		return true // given 0 < alpha < 1, beta <= alpha, gamma <= 1-alpha
	}
	// With B the step back by a row, m the period and S = 1 + B + ... + B^(m-1), a
	// one-step error is what the values are beyond a line with a season over
	// (1-phi B)(1-B^m) + (alpha B (1-phi B) + phi beta B) S + gamma B^m (1-phi B),
	// from which 1-B has been divided: a constant that moves between level and season
	// changes no forecast.
	q := make([]float64, period+2)
	add := func(at int, v float64) {
		q[at] += v
		q[at+1] -= v * d.phi
	}
	add(0, 1)
	add(period, d.gamma-1)
	for i := 1; i <= period; i++ {
		add(i, d.alpha)
		q[i] += d.phi * d.beta
	}
	// Schur and Cohn: each step lowers the degree by one and keeps the roots outside
	// the circle as long as the last coefficient is less than the first.
	for n := len(q) - 1; n > 0; n-- {
		k := q[n] / q[0]
		if !(math.Abs(k) < 1) {
			return false
		}
		for i, j := 0, n; i <= j; i, j = i+1, j-1 {
			q[i], q[j] = q[i]-k*q[j], q[j]-k*q[i]
		}
	}
	return true
}
