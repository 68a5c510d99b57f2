// Package smoothing forecasts single series by exponential smoothing: innovations
// state space models chosen by AICc (ETS) and the theta method (Theta). Both are
// fitted to a history once; Run then follows a whole series, and a forecast from
// any of its rows takes time in the horizon alone.
//
// A series is a column of rows at equal distances. A value that is NaN, infinite or
// beyond 1e300 is missing: the states go on without a correction.
package smoothing

import "math"

// largest is the size beyond which a value counts as missing, so that no state can
// overflow.
const largest = 1e300

func missing(v float64) bool { return !(math.Abs(v) <= largest) }

// dynamics is how the states of a model move by a row: level and trend by
// themselves, and all of them by shares of the error of the one-step forecast.
type dynamics struct {
	alpha, beta, gamma float64 // shares of the error for level, trend and season
	phi                float64 // damping of the trend; 1 if there is none
	factors            bool    // the season multiplies the level, else it is added
}

// states are the states of a model before each row; the caller sets the first of
// level and trend, and the first period values of season.
type states struct {
	level, trend []float64 // [rows+1]
	season       []float64 // [rows+period]: the season of each row, as known one period before; empty without seasons
	fitted       []float64 // [rows]: the forecasts from the row before
}

func newStates(rows, period int) *states {
	s := &states{level: make([]float64, rows+1), trend: make([]float64, rows+1), fitted: make([]float64, rows)}
	if period > 0 {
		s.season = make([]float64, rows+period)
	}
	return s
}

// next is the level one row on. Below factors it has to stay positive, so a trend
// takes at most nine tenths of it in a row.
func (d *dynamics) next(level, trend float64) float64 {
	mu := level + d.phi*trend
	if d.factors && mu < level/10 {
		mu = level / 10
	}
	return mu
}

// smooth follows y. Before the first value that is present the states stand still.
func (d *dynamics) smooth(y []float64, s *states) {
	period := len(s.season) - len(y)
	level, trend := s.level[0], s.trend[0]
	waiting := true
	for t, v := range y {
		mu := d.next(level, trend)
		season, fitted := 0.0, mu
		if s.season != nil {
			season = s.season[t]
			if fitted = mu + season; d.factors {
				fitted = mu * season
			}
		}
		switch {
		case !missing(v):
			e := v - fitted
			waiting = false
			if d.factors {
				// A factor and a level stay positive whatever comes, and one
				// outlier moves them by one order of magnitude at most.
				relative := min(max(e/fitted, -0.9), 10)
				level, trend = mu+d.alpha*relative*mu, d.phi*trend+d.beta*relative*mu
				season += d.gamma * relative * season
			} else {
				level, trend = mu+d.alpha*e, d.phi*trend+d.beta*e
				season += d.gamma * e
			}
		case !waiting:
			level, trend = mu, d.phi*trend
		}
		s.fitted[t], s.level[t+1], s.trend[t+1] = fitted, level, trend
		if s.season != nil {
			s.season[t+period] = season
		}
	}
}

// Path holds the states of a model before each row of a series. Its methods can be
// called concurrently.
type Path struct {
	dynamics
	states
	relative bool    // sigma is a share of the forecast
	sigma    float64 // of the one-step error

	low, high []float64 // [rows+1]: the limits of the forecasts from each row
}

// limit sets the limits of forecasts that follow y.
func (p *Path) limit(y []float64) {
	rows, period := len(y), len(p.season)-len(p.fitted)
	if p.season == nil {
		period = 0
	}
	p.low, p.high = make([]float64, rows+1), make([]float64, rows+1)
	least, most, seen := math.Inf(1), math.Inf(-1), 0
	for t := range rows + 1 {
		p.low[t], p.high[t] = -math.MaxFloat64, math.MaxFloat64
		if seen >= max(enough, 2*period) {
			p.low[t], p.high[t] = least-(most-least), most+(most-least)
		}
		if t < rows && !missing(y[t]) {
			least, most, seen = min(least, y[t]), max(most, y[t]), seen+1
		}
	}
}

// Forecast fills dst with the forecasts of the rows origin, origin+1, ..., in the
// series' units, from the rows before origin only. Origin is at least 0 and at most
// the number of rows of the series.
//
// All forecasts are finite. Once five values, or two seasons of them, are before the
// origin, forecasts keep within the range of all values before the origin, widened by
// its width on either side: from values between 10 and 30 none is below -10 or above 50.
func (p *Path) Forecast(dst []float64, origin int) {
	level, trend := p.level[origin], p.trend[origin]
	period := len(p.season) - len(p.fitted)
	for h := range dst {
		level, trend = p.next(level, trend), trend*p.phi
		dst[h] = level
		switch {
		case p.season == nil:
		case p.factors:
			dst[h] *= p.season[origin+h%period]
		default:
			dst[h] += p.season[origin+h%period]
		}
		if dst[h] = min(dst[h], p.high[origin]); !(dst[h] >= p.low[origin]) { // or no number
			dst[h] = p.low[origin]
		}
	}
}

// Spread fills dst with the standard deviations of the errors of Forecast, as the
// model has them: exact for models whose season and error are added, else to first
// order of the errors. It takes time in the square of the horizon.
func (p *Path) Spread(dst []float64, origin int) {
	level, trend := p.level[origin], p.trend[origin]
	period := len(p.season) - len(p.fitted)
	size := make([]float64, len(dst))  // of a step's error
	reach := make([]float64, len(dst)) // of an error, by the steps since, on the level
	damping, sum := p.phi, 0.0
	for h := range dst {
		if size[h] = 1; p.relative {
			level, trend = p.next(level, trend), trend*p.phi
			size[h] = math.Abs(level)
		}
		reach[h] = p.alpha + p.beta*sum
		sum += damping
		damping *= p.phi
	}
	for h := range dst {
		variance := size[h] * size[h]
		for j := range h {
			c := size[j] * reach[h-j]
			if p.season != nil && (h-j)%period == 0 {
				c += size[h] * p.gamma
			}
			variance += c * c
		}
		dst[h] = p.sigma * math.Sqrt(variance)
		if p.factors {
			dst[h] *= p.season[origin+h%period]
		}
	}
}
