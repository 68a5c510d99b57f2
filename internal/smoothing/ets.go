package smoothing

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/floats"
)

// Limits of a fit.
const (
	// enough is the number of present values below which no model is fitted: the
	// forecast is the last value.
	enough = 5
	// fitRows is how many of the last rows smoothing parameters are fitted to.
	fitRows = 2000
	// longestPolished is the longest period whose initial states are optimised one by
	// one; those of a longer one are the means of its first cycles.
	longestPolished = 60
	// worst is how many times as large as those of the last value the one-step errors of
	// a model over all rows may be: one that is fitted to the last rows can lose track of
	// the others.
	worst = 2
)

// ETS is an innovations state space model (Hyndman, Koehler, Ord and Snyder,
// "Forecasting with Exponential Smoothing", 2008). It holds parameters only, in the
// series' units.
type ETS struct {
	// Form is the model's name: error (A added or M multiplied), trend (N none, A
	// added, Ad added and damped) and season (N none, A added, M multiplied). Error and
	// season are multiplied both or neither.
	Form string `json:"form"`
	// Alpha, Beta and Gamma are the shares of a one-step error by which level, trend
	// and season are corrected: 0 < alpha < 1, or 1 where the forecast is the last
	// value; 0 <= beta <= alpha; 0 <= gamma <= 1-alpha.
	Alpha float64 `json:"alpha"`
	Beta  float64 `json:"beta,omitempty"`
	Gamma float64 `json:"gamma,omitempty"`
	// Phi damps the trend, 0.8 to 0.98; it is 1 if the trend is not damped.
	Phi float64 `json:"phi"`
	// Level, Trend and Season are the states before the first row.
	Level  float64   `json:"level"`
	Trend  float64   `json:"trend,omitempty"`
	Season []float64 `json:"season,omitempty"` // by row modulo the period
	// Sigma is the standard deviation of a one-step error, in the series' units or, if
	// the error is multiplied, as a share of the forecast.
	Sigma float64 `json:"sigma"`
}

// forms are the models that are tried: errors and seasons that are both added or both
// multiplied, with added trends. A multiplied error alone changes no forecast except by
// the choice of parameters. M in a name needs values that are all positive.
var forms = []string{"ANN", "AAN", "AAdN", "ANA", "AAA", "AAdA", "MNM", "MAM", "MAdM"}

// FitETS chooses the form with the least AICc and fits it to y, by the likelihood, of
// the last 2,000 rows, among parameters with which errors of long ago fade from the
// forecasts. A form whose one-step errors over all rows are more than twice those of
// the last value is refused in favour of the next. Period is the number of rows of a
// season; seasonal forms are tried if it is at least 2 and y has three of them. The
// first row of y is the first row of the series that Run follows; a series that begins
// elsewhere needs a fit of its own. With fewer than five values, if all are equal, or
// if no form is left, the model repeats the last value. Errors are those of ctx, and a
// negative period.
func FitETS(ctx context.Context, y []float64, period int) (*ETS, error) {
	if period < 0 {
		return nil, negativePeriod(period)
	}
	first := slices.IndexFunc(y, func(v float64) bool { return !missing(v) })
	if first < 0 {
		return naive(y), nil
	}
	unit := unitOf(y)
	z := inUnits(y[first:], unit)
	recent := newFitting(z[max(0, len(z)-fitRows):])
	if recent.present < enough || recent.constant() {
		return naive(y), nil
	}
	positive := !slices.ContainsFunc(z, func(v float64) bool { return v <= 0 })
	left, err := recent.choose(ctx, period, positive)
	if err != nil {
		return nil, err
	}
	most := worst * naive(z).absoluteErrors(z)
	for _, c := range left {
		m := c.model()
		if len(z) > fitRows {
			// The smoothing parameters are of the last rows, the states of the first.
			start := newFitting(z[:fitRows])
			at := start.start(c.form, c.period)
			copy(at.x, c.x[:at.smoothing()])
			start.polish(at, at.states(), polishing)
			s := at.model()
			m.Level, m.Trend, m.Season = s.Level, s.Trend, s.Season
		}
		if math.IsInf(c.cost, 1) || !(m.absoluteErrors(z) <= most) {
			continue
		}
		m.Level *= unit
		m.Trend *= unit
		if !m.factors() {
			m.Sigma *= unit
			floats.Scale(unit, m.Season)
		}
		m.Season = rotated(m.Season, first)
		return m, nil
	}
	return naive(y), nil
}

// absoluteErrors is the sum of the absolute one-step errors over y.
func (m *ETS) absoluteErrors(y []float64) float64 {
	sum := 0.0
	for t, fitted := range m.Run(y).fitted {
		if !missing(y[t]) {
			sum += math.Abs(y[t] - fitted)
		}
	}
	return sum
}

func negativePeriod(period int) error {
	return fmt.Errorf("smoothing: the period of a season is 0 or more rows, not %d", period)
}

// unitOf is a power of two near the largest size in y, by which y can be divided
// without rounding, or 1 if y is 0.
func unitOf(y []float64) float64 {
	top := 0.0
	for _, v := range y {
		if !missing(v) {
			top = max(top, math.Abs(v))
		}
	}
	if top == 0 {
		return 1
	}
	_, exponent := math.Frexp(top)
	return math.Ldexp(1, max(exponent, -1000))
}

// inUnits returns y divided by unit, with NaN for what is missing.
func inUnits(y []float64, unit float64) []float64 {
	z := make([]float64, len(y))
	for t, v := range y {
		if z[t] = v / unit; missing(v) {
			z[t] = math.NaN()
		}
	}
	return z
}

// naive is the model that repeats the last value.
func naive(y []float64) *ETS {
	m := &ETS{Form: "ANN", Alpha: 1, Phi: 1}
	last, sum, n := math.NaN(), 0.0, 0.0
	for _, v := range y {
		switch {
		case missing(v):
			continue
		case math.IsNaN(last):
			m.Level = v
		default:
			n++
			sum = math.Hypot(sum, v-last)
		}
		last = v
	}
	m.Sigma = sum / math.Sqrt(max(n, 1))
	return m
}

func (m *ETS) dynamics() dynamics {
	return dynamics{m.Alpha, m.Beta, m.Gamma, m.Phi, m.factors()}
}

func (m *ETS) factors() bool { return strings.HasSuffix(m.Form, "M") }

// Run follows a series whose first row is that of the fit. It may be shorter or
// longer; its later rows change no parameter.
func (m *ETS) Run(y []float64) *Path {
	p := &Path{
		dynamics: m.dynamics(),
		states:   *newStates(len(y), len(m.Season)),
		relative: m.factors(),
		sigma:    m.Sigma,
	}
	p.level[0], p.trend[0] = m.Level, m.Trend
	copy(p.season, m.Season)
	p.smooth(y, &p.states)
	p.limit(y)
	return p
}

// Numbers returns the model as numbers, with all their bits; [ETSOf] is the inverse.
func (m *ETS) Numbers() []float64 {
	x := []float64{float64(slices.Index(forms, m.Form)), m.Alpha, m.Beta, m.Gamma, m.Phi, m.Level, m.Trend, m.Sigma, float64(len(m.Season))}
	return append(x, m.Season...)
}

// ETSOf returns the model at the beginning of numbers, and those after it.
func ETSOf(x []float64) (m *ETS, rest []float64) {
	m = &ETS{Form: forms[int(x[0])], Alpha: x[1], Beta: x[2], Gamma: x[3], Phi: x[4], Level: x[5], Trend: x[6], Sigma: x[7]}
	m.Season, rest = season(x[8:])
	return m, rest
}

// season returns a season that begins with its length, and the numbers after it.
func season(x []float64) (own, rest []float64) {
	n := int(x[0])
	return append([]float64(nil), x[1:1+n]...), x[1+n:]
}

// UnmarshalJSON reads a model and refuses one whose parameters cannot be.
func (m *ETS) UnmarshalJSON(text []byte) error {
	type plain ETS
	if err := json.Unmarshal(text, (*plain)(m)); err != nil {
		return err
	}
	seasonal := len(m.Form) > 0 && !strings.HasSuffix(m.Form, "N")
	switch {
	case !slices.Contains(forms, m.Form):
		return fmt.Errorf("smoothing: form: want one of %s, got %q", strings.Join(forms, ", "), m.Form)
	case !(m.Alpha > 0 && m.Alpha <= 1):
		return fmt.Errorf("smoothing: alpha: want more than 0 and at most 1, got %g", m.Alpha)
	case !(m.Beta >= 0 && m.Beta <= m.Alpha):
		return fmt.Errorf("smoothing: beta: want 0 to alpha = %g, got %g", m.Alpha, m.Beta)
	case !(m.Gamma >= 0 && m.Gamma <= 1-m.Alpha):
		return fmt.Errorf("smoothing: gamma: want 0 to 1-alpha = %g, got %g", 1-m.Alpha, m.Gamma)
	case m.Phi != 1 && !(m.Phi >= dampings.low && m.Phi <= dampings.high):
		return fmt.Errorf("smoothing: phi: want 1 or %g to %g, got %g", dampings.low, dampings.high, m.Phi)
	case seasonal != (len(m.Season) > 0):
		return fmt.Errorf("smoothing: season: %d values in a model of form %s", len(m.Season), m.Form)
	case m.factors() && (m.Level <= 0 || slices.Min(m.Season) <= 0):
		return fmt.Errorf("smoothing: level and season of a model of form %s have to be positive", m.Form)
	}
	return nil
}
