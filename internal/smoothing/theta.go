package smoothing

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
)

// Theta is the theta method of Assimakopoulos and Nikolopoulos with theta 2, in the
// form of Hyndman and Billah ("Unmasking the Theta method", 2003): simple exponential
// smoothing of the series without its season, with half the slope of the line through
// all rows before the forecast.
type Theta struct {
	Alpha   float64   `json:"alpha"`             // share of a one-step error by which the level is corrected, 0 to 1
	Level   float64   `json:"level"`             // before the first row, without season
	Season  []float64 `json:"season,omitempty"`  // by row modulo the period
	Factors bool      `json:"factors,omitempty"` // the season multiplies the level, else it is added
	Sigma   float64   `json:"sigma"`             // standard deviation of a one-step error, without season
}

// FitTheta fits the method to y: the season where the M4 competition's test finds one,
// as factors if all values are positive, and the share with the least squares of
// one-step errors. The first row of y is the first row of the series that Run
// follows. With fewer than five values the method repeats the last one. The error is
// that of a negative period.
func FitTheta(y []float64, period int) (*Theta, error) {
	if period < 0 {
		return nil, negativePeriod(period)
	}
	first := slices.IndexFunc(y, func(v float64) bool { return !missing(v) })
	present := 0
	for _, v := range y {
		if !missing(v) {
			present++
		}
	}
	if present < enough {
		m := naive(y)
		return &Theta{Alpha: 1, Level: m.Level, Sigma: m.Sigma}, nil
	}
	unit := unitOf(y)
	z := inUnits(y, unit)
	m := &Theta{}
	if bridged := Bridge(z); IsSeasonal(bridged[first:], period) {
		m.Factors = slices.Min(bridged) > 0
		m.Season = rotated(Season(bridged[first:], period, m.Factors), first)
	}
	rest := deseasonalised(z, m.Season, m.Factors)
	m.Level = rest[first]
	m.Alpha = simpleShare(rest, m.Level)
	m.Sigma = m.deviation(z)
	m.Level *= unit
	m.Sigma *= unit
	if !m.Factors {
		floats.Scale(unit, m.Season)
	}
	return m, nil
}

// simpleShare is the share of simple exponential smoothing with the least squares.
func simpleShare(z []float64, level float64) float64 {
	s := newStates(len(z), 0)
	s.level[0] = level
	cost := func(alpha float64) float64 {
		d := dynamics{alpha: alpha, phi: 1}
		d.smooth(z, s)
		sum := 0.0
		for t, v := range z {
			if e := v - s.fitted[t]; !missing(v) {
				sum += e * e
			}
		}
		return sum
	}
	// The best of a grid, and then golden sections of its neighbourhood.
	const grid = 20
	best, least := 0, math.Inf(1)
	for i := range grid + 1 {
		if c := cost(float64(i) / grid); c < least {
			best, least = i, c
		}
	}
	low, high := float64(max(best-1, 0))/grid, float64(min(best+1, grid))/grid
	golden := (math.Sqrt(5) - 1) / 2
	a, b := high-golden*(high-low), low+golden*(high-low)
	at, bt := cost(a), cost(b)
	for high-low > 1e-6 {
		if at <= bt {
			high, b, bt = b, a, at
			a = high - golden*(high-low)
			at = cost(a)
		} else {
			low, a, at = a, b, bt
			b = low + golden*(high-low)
			bt = cost(b)
		}
	}
	middle := (low + high) / 2
	for _, end := range []float64{0, 1} { // reached exactly
		if cost(end) <= cost(middle) {
			return end
		}
	}
	return middle
}

// deviation is the standard deviation of the one-step errors of y, without season.
func (m *Theta) deviation(y []float64) float64 {
	p := m.Run(y)
	sum, n := 0.0, 0
	var step [1]float64
	for t, v := range y {
		if missing(v) {
			continue
		}
		p.Forecast(step[:], t)
		e := v - step[0]
		if m.Factors {
			e /= p.season[t]
		}
		sum += e * e
		n++
	}
	return math.Sqrt(sum / float64(max(1, n-2)))
}

// Run follows a series whose first row is that of the fit. It may be shorter or
// longer; its later rows change neither the share nor the season.
func (m *Theta) Run(y []float64) *Path {
	p := &Path{
		dynamics: dynamics{alpha: m.Alpha, phi: 1, factors: m.Factors},
		states:   *newStates(len(y), len(m.Season)),
		sigma:    m.Sigma,
	}
	p.level[0] = m.Level
	copy(p.season, m.Season)
	p.smooth(y, &p.states)
	p.limit(y)
	// The line is added afterwards: it takes no part in the smoothing. Its slope
	// reaches the level late, by the second term.
	z := deseasonalised(y, m.Season, m.Factors)
	var line slope
	rows := 0.0 // since the first that is present
	for t := range p.level {
		if line.n >= enough {
			late := rows
			if m.Alpha > 0 {
				late = -math.Expm1(rows*math.Log1p(-m.Alpha)) / m.Alpha
			}
			p.trend[t] = line.value() / 2
			p.level[t] += p.trend[t] * (late - 1)
		}
		if t < len(z) && !missing(z[t]) {
			line.add(float64(t), z[t])
		}
		if line.n > 0 {
			rows++
		}
	}
	return p
}

// Numbers returns the method as numbers, with all their bits; [ThetaOf] is the inverse.
func (m *Theta) Numbers() []float64 {
	x := []float64{m.Alpha, m.Level, 0, m.Sigma, float64(len(m.Season))}
	if m.Factors {
		x[2] = 1
	}
	return append(x, m.Season...)
}

// ThetaOf returns the method at the beginning of numbers, and those after it.
func ThetaOf(x []float64) (m *Theta, rest []float64) {
	m = &Theta{Alpha: x[0], Level: x[1], Factors: x[2] != 0, Sigma: x[3]}
	m.Season, rest = season(x[4:])
	return m, rest
}

// UnmarshalJSON reads a method and refuses one whose parameters cannot be.
func (m *Theta) UnmarshalJSON(text []byte) error {
	type plain Theta
	if err := json.Unmarshal(text, (*plain)(m)); err != nil {
		return err
	}
	switch {
	case !(m.Alpha >= 0 && m.Alpha <= 1):
		return fmt.Errorf("smoothing: alpha: want 0 to 1, got %g", m.Alpha)
	case m.Factors && (len(m.Season) == 0 || slices.Min(m.Season) <= 0):
		return fmt.Errorf("smoothing: season: factors have to be positive")
	}
	return nil
}

// slope is the slope of the least squares line through points that come one by one.
type slope struct {
	n            int
	meanX, meanY float64
	xx, xy       float64
}

func (s *slope) add(x, y float64) {
	s.n++
	dx := x - s.meanX
	s.meanX += dx / float64(s.n)
	s.meanY += (y - s.meanY) / float64(s.n)
	s.xx += dx * (x - s.meanX)
	s.xy += dx * (y - s.meanY)
}

// value is 0 with fewer than two points.
func (s *slope) value() float64 {
	if s.xx == 0 {
		return 0
	}
	return s.xy / s.xx
}
