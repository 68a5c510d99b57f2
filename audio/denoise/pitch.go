package denoise

import (
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// Lengths of the pitch analysis, in samples at 48 kHz.
const (
	minPeriod = 60        // 800 Hz
	maxPeriod = 768       // 62.5 Hz
	window    = 2 * Frame // of a spectrum, and compared with the same length a period before
	history   = maxPeriod + window
	maxOffset = maxPeriod - 3*minPeriod // offsets of the search: periods from 768 down to 181; shorter ones are fractions of these
)

// pitch finds the period of a voice as the Opus codec's CELT layer does: by correlation
// with the past, at a quarter and then at half of the rate, of the sound without its
// spectral envelope; then it looks whether a fraction of the period found fits as well.
type pitch struct {
	half    [history / 2]float64 // at half the rate, whitened
	quarter [history / 4]float64
	corr    [maxOffset / 2]float64
	energy  [maxPeriod/2 + 1]float64
	period  int     // of the frame before
	gain    float64 // of the frame before
}

// find returns the period of the end of x [history] in samples.
func (p *pitch) find(x *[history]float64) int {
	p.downsample(x)
	p.whiten()
	period, gain := p.fraction(maxPeriod - p.search())
	p.period, p.gain = period, gain
	return period
}

// downsample halves the rate.
func (p *pitch) downsample(x *[history]float64) {
	p.half[0] = x[0]/2 + x[1]/4
	for i := 1; i < len(p.half); i++ {
		p.half[i] = x[2*i-1]/4 + x[2*i]/2 + x[2*i+1]/4
	}
}

const lpcOrder = 4

// whiten removes the spectral envelope by linear prediction.
func (p *pitch) whiten() {
	x := p.half[:]
	var ac [lpcOrder + 1]float64
	for k := range ac {
		ac[k] = simd.Dot64(x[k:], x[:len(x)-k]) * (1 - 0.008*0.008*float64(k*k)) // a lag window
	}
	ac[0] *= 1.0001 // noise at -40 dB
	a := predictor(&ac)
	shrink := 1.0
	for i := range a {
		shrink *= 0.9
		a[i] *= shrink
	}
	// The filter is (1 + a·z⁻¹ ...)(1 + 0.8·z⁻¹).
	const zero = 0.8
	fir := [lpcOrder + 1]float64{a[0] + zero, a[1] + zero*a[0], a[2] + zero*a[1], a[3] + zero*a[2], zero * a[3]}
	for i := len(x) - 1; i >= 0; i-- {
		for k := range min(len(fir), i) {
			x[i] += fir[k] * x[i-1-k]
		}
	}
}

// predictor returns the coefficients of linear prediction for an autocorrelation
// (Levinson and Durbin), of a lower order once the prediction gains 30 dB.
func predictor(ac *[lpcOrder + 1]float64) (a [lpcOrder]float64) {
	left := ac[0]
	if left == 0 {
		return a
	}
	for i := range a {
		sum := ac[i+1]
		for j := range i {
			sum += a[j] * ac[i-j]
		}
		r := -sum / left
		before := a
		for j := range i {
			a[j] += r * before[i-1-j]
		}
		a[i] = r
		if left *= 1 - r*r; left < 0.001*ac[0] {
			break
		}
	}
	return a
}

// search returns the offset, from the longest period down, at which the past is most
// like the last window.
func (p *pitch) search() int {
	const now = maxPeriod / 2 // of the window in half
	for i := range p.quarter {
		p.quarter[i] = p.half[2*i]
	}
	coarse, y := p.corr[:maxOffset/4], p.quarter[:]
	for i := range coarse {
		coarse[i] = simd.Dot64(y[now/2:], y[i:i+window/4])
	}
	first, second := peaks(coarse, y, window/4)

	fine := p.corr[:]
	near := func(i, at int) bool { return i >= 2*at-2 && i <= 2*at+2 }
	for i := range fine {
		fine[i] = 0
		if near(i, first) || near(i, second) {
			fine[i] = max(-1, simd.Dot64(p.half[now:], p.half[i:i+window/2]))
		}
	}
	best, _ := peaks(fine, p.half[:], window/2)
	if best == 0 || best == len(fine)-1 {
		return 2 * best
	}
	return 2*best - between(fine[best-1], fine[best], fine[best+1])
}

// peaks returns the offsets of the highest and second highest of the correlations with y
// from there on, as squares in relation to the energy of the n samples of y.
func peaks(corr, y []float64, n int) (first, second int) {
	type peak struct {
		at             int
		square, energy float64
	}
	best, next := peak{0, -1, 0}, peak{1, -1, 0}
	above := func(a, b peak) bool { return a.square*b.energy > b.square*a.energy }
	energy := 1 + simd.Dot64(y[:n], y[:n])
	for i, c := range corr {
		if one := (peak{i, c * c, energy}); c > 0 && above(one, next) {
			next = one
			if above(one, best) {
				best, next = one, best
			}
		}
		energy = max(1, energy+y[i+n]*y[i+n]-y[i]*y[i])
	}
	return best.at, next.at
}

// between returns the side, -1 or 1, on which the peak of three neighbouring values lies
// if it is nearer to the middle of two of them than to one, else 0.
func between(before, at, after float64) int {
	switch {
	case after-before > 0.7*(at-before):
		return 1
	case before-after > 0.7*(at-after):
		return -1
	}
	return 0
}

// beside is, by the divisor of a period, the multiple of the fraction at which a
// second correlation must be as strong.
var beside = [16]int{2: 3, 2, 3, 2, 5, 2, 3, 2, 3, 2, 5, 2, 3, 2}

// fraction looks for a period that the one found is a multiple of, which is likelier if
// it is that of the frame before. It returns the period and the gain of a prediction by it.
func (p *pitch) fraction(found int) (period int, gain float64) {
	const now, n, least = maxPeriod / 2, window / 2, minPeriod / 2 // at half the rate, as all below
	x := p.half[:]
	last := x[now:]
	// energy[i] is that of the window i samples before the last.
	p.energy[0] = simd.Dot64(last, last)
	sum := p.energy[0]
	for i := 1; i < len(p.energy); i++ {
		sum += x[now-i]*x[now-i] - x[now+n-i]*x[now+n-i]
		p.energy[i] = max(0, sum)
	}
	corr := func(lag int) float64 { return simd.Dot64(last, x[now-lag:now-lag+n]) }
	normal := func(xy, yy float64) float64 { return xy / math.Sqrt(1+p.energy[0]*yy) }

	whole := min(found/2, now-1)
	best, xy, yy := whole, corr(whole), p.energy[whole]
	g0 := normal(xy, yy)
	g := g0
	for k := 2; k < len(beside); k++ {
		lag := (2*whole + k) / (2 * k)
		if lag < least {
			break
		}
		other := (2*beside[k]*whole + k) / (2 * k)
		if k == 2 {
			if other = whole + lag; other > now {
				other = whole
			}
		}
		cxy, cyy := (corr(lag)+corr(other))/2, (p.energy[lag]+p.energy[other])/2
		bonus := 0.0
		switch d := abs(lag - p.period/2); {
		case d <= 1:
			bonus = p.gain
		case d <= 2 && 5*k*k < whole:
			bonus = p.gain / 2
		}
		need := max(0.3, 0.7*g0-bonus)
		if lag < 3*least { // correlations over short times are often high
			need = max(0.4, 0.85*g0-bonus)
		}
		if c := normal(cxy, cyy); c > need {
			best, xy, yy, g = lag, cxy, cyy, c
		}
	}
	gain = 1
	if xy = max(0, xy); yy > xy {
		gain = xy / (yy + 1)
	}
	side := between(corr(best-1), corr(best), corr(best+1))
	return max(minPeriod, 2*best+side), min(gain, g)
}

func abs(x int) int { return max(x, -x) }
