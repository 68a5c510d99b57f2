package smoothing

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// fitting fits models to one series, by least squares of one-step errors.
type fitting struct {
	y       []float64 // scaled
	bridged []float64
	present int
	noise   float64 // the typical change from row to row: the unit of steps of initial states
	states  states  // work memory
	rows    []float64
}

func newFitting(y []float64) *fitting {
	f := &fitting{y: y, bridged: Bridge(y)}
	for t, v := range y {
		if !missing(v) {
			f.present++
		}
		if t > 0 {
			f.noise += math.Abs(f.bridged[t] - f.bridged[t-1])
		}
	}
	f.noise /= float64(max(1, len(y)-1))
	return f
}

func (f *fitting) constant() bool { return f.noise == 0 }

// candidate is a model while it is fitted.
type candidate struct {
	form   string
	period int // 0 without a season
	// x are the parameters as far as the form has them: alpha, beta as a share of alpha,
	// gamma as a share of 1-alpha, phi; then the initial level, trend and season.
	x       []float64
	cost    float64 // sum of squares that falls as the likelihood rises
	present int
	rms     float64 // of one-step errors; of relative ones for a multiplied error
}

// interval is the range of a smoothing parameter.
type interval struct{ low, high float64 }

var (
	shares   = interval{1e-4, 1 - 1e-4}
	dampings = interval{0.8, 0.98}
)

func (c *candidate) trended() bool { return c.form[1] == 'A' }
func (c *candidate) damped() bool  { return c.form[2] == 'd' }
func (c *candidate) factors() bool { return strings.HasSuffix(c.form, "M") }

// smoothing is how many smoothing parameters the form has.
func (c *candidate) smoothing() int {
	n := 1
	for _, has := range []bool{c.trended(), c.period > 0, c.damped()} {
		if has {
			n++
		}
	}
	return n
}

// bounds is the range of the parameter at a place in x.
func (c *candidate) bounds(at int) interval {
	switch last := c.smoothing() - 1; {
	case at > last:
		return interval{math.Inf(-1), math.Inf(1)}
	case at == last && c.damped():
		return dampings
	}
	return shares
}

// states lists the places of the initial states in x.
func (c *candidate) states() []int { return indices(c.smoothing(), len(c.x)) }

func indices(from, to int) []int {
	list := make([]int, to-from)
	for i := range list {
		list[i] = from + i
	}
	return list
}

// model unpacks x.
func (c *candidate) model() *ETS {
	m := &ETS{Form: c.form, Alpha: c.x[0], Phi: 1}
	rest := c.x[1:]
	take := func() float64 {
		v := rest[0]
		rest = rest[1:]
		return v
	}
	if c.trended() {
		m.Beta = m.Alpha * take()
	}
	if c.period > 0 {
		m.Gamma = (1 - m.Alpha) * take()
	}
	if c.damped() {
		m.Phi = take()
	}
	m.Level = take()
	if c.trended() {
		m.Trend = take()
	}
	if c.period > 0 {
		m.Season = rest
	}
	m.Sigma = c.rms * math.Sqrt(float64(c.present)/float64(max(1, c.present-len(c.x))))
	return m
}

func (c *candidate) admissible() bool {
	d := c.model().dynamics()
	return d.admissible(c.period)
}

// aicc is Akaike's criterion for small samples; infinite if there are too few.
func (c *candidate) aicc() float64 {
	n, k := float64(c.present), float64(len(c.x)+1)
	if c.period > 0 {
		k-- // a constant can move between level and season
	}
	if n-k-1 <= 0 {
		return math.Inf(1)
	}
	// Below this the errors are rounding.
	variance := max(c.cost/n, 1e-24)
	return n*(math.Log(2*math.Pi*variance)+1) + 2*k + 2*k*(k+1)/(n-k-1)
}

// start is a form with its initial states from the first rows: the season of up to
// five cycles, and a line through what is left.
func (f *fitting) start(form string, period int) *candidate {
	c := &candidate{form: form, period: period, present: f.present}
	var season []float64
	z := f.bridged
	if period > 0 {
		season = Season(z[:min(len(z), 5*period)], period, c.factors())
		z = deseasonalised(z, season, c.factors())
	}
	z = z[:min(len(z), max(10, 2*period))]
	var fit slope
	for t, v := range z {
		fit.add(float64(t+1), v)
	}
	c.x = make([]float64, c.smoothing())
	if level := fit.meanY - fit.value()*fit.meanX; c.trended() {
		if c.factors() && level <= 0 {
			level = z[0]
		}
		c.x = append(c.x, level, fit.value())
	} else {
		c.x = append(c.x, fit.meanY)
	}
	c.x = append(c.x, season...)
	return c
}

// errors fills r with the candidate's one-step errors at x, so that the sum of their
// squares, which it returns, falls as the likelihood rises: errors that are shares of
// the forecast are multiplied by the geometric mean of the forecasts. Infinite if x
// cannot be.
func (f *fitting) errors(c *candidate, x, r []float64) float64 {
	at := candidate{form: c.form, period: c.period, x: x}
	m := at.model()
	d := m.dynamics()
	s := f.work(c.period)
	s.level[0], s.trend[0] = m.Level, m.Trend
	copy(s.season, m.Season)
	if c.factors() && (m.Level <= 0 || slices.Min(m.Season) <= 0) || !d.admissible(c.period) {
		return math.Inf(1)
	}
	d.smooth(f.y, s)
	sum := 0.0
	if !c.factors() {
		for t, v := range f.y {
			r[t] = v - s.fitted[t]
			if missing(v) {
				r[t] = 0
			}
			sum += r[t] * r[t]
		}
		c.rms = math.Sqrt(sum / float64(f.present))
		return sum
	}
	logs, product := 0.0, 1.0
	for t, v := range f.y {
		r[t] = 0
		if missing(v) {
			continue
		}
		r[t] = v/s.fitted[t] - 1
		sum += r[t] * r[t]
		if product *= s.fitted[t]; t%32 == 31 || product < 1e-200 || product > 1e200 {
			logs += math.Log(product)
			product = 1
		}
	}
	logs += math.Log(product)
	mean := math.Exp(logs / float64(f.present))
	for t := range r {
		r[t] *= mean
	}
	c.rms = math.Sqrt(sum / float64(f.present))
	if cost := sum * mean * mean; cost <= math.MaxFloat64 {
		return cost
	}
	return math.Inf(1) // forecasts so small that shares of them overflow
}

// work returns memory for the states of a model with the period.
func (f *fitting) work(period int) *states {
	n := len(f.y)
	if len(f.states.fitted) != n {
		f.states = *newStates(n, 0)
	}
	switch {
	case period == 0:
		f.states.season = nil
	case len(f.states.season) != n+period:
		f.states.season = make([]float64, n+period)
	}
	return &f.states
}

// Relative gains of an iteration at which least squares end: while forms are compared,
// and for those that are left.
const (
	comparing  = 1e-3
	polishing  = 1e-6
	iterations = 40 // at most
)

// choose fits all forms and returns those with the least AICc, the best first. Few are
// left when it comes to the last digits and to the initial seasons, which are as many
// as the period has rows. Positive says that forms with factors may be tried.
func (f *fitting) choose(ctx context.Context, period int, positive bool) ([]*candidate, error) {
	var plain, seasonal []*candidate
	for _, form := range forms {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch {
		case strings.Contains(form, "M") && !positive:
		case strings.HasSuffix(form, "N"):
			plain = append(plain, f.fit(form, 0))
		case period > 1 && len(f.y) >= 3*period:
			seasonal = append(seasonal, f.fit(form, period))
		}
	}
	better := func(a, b *candidate) int { return cmp.Compare(a.aicc(), b.aicc()) }
	var left []*candidate
	for _, list := range [][]*candidate{plain, seasonal} {
		slices.SortStableFunc(list, better)
		left = append(left, list[:min(2, len(list))]...)
	}
	for _, c := range left {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		free := len(c.x)
		if c.period > longestPolished {
			free -= c.period
		}
		f.polish(c, indices(0, free), polishing)
	}
	slices.SortStableFunc(left, better)
	return left, nil
}

// fit optimises smoothing parameters, level and trend of a form from two starts, of
// slow and of quick changes.
func (f *fitting) fit(form string, period int) *candidate {
	var best *candidate
	for _, share := range []float64{0.1, 0.6} {
		c := f.start(form, period)
		for i := range c.smoothing() {
			c.x[i] = 0.1
		}
		c.x[0] = share
		if c.damped() {
			c.x[c.smoothing()-1] = 0.95
		}
		// A start has to be admissible; with a smaller trend it is, of any period in fitRows.
		for c.trended() && c.x[1] > shares.low && !c.admissible() {
			c.x[1] = max(shares.low, c.x[1]/2)
		}
		f.polish(c, indices(0, len(c.x)-period), comparing)
		if best == nil || c.cost < best.cost {
			best = c
		}
	}
	return best
}

// polish lowers the candidate's cost by the method of Levenberg and Marquardt in the
// parameters that are free, until an iteration gains less than the tolerance. A
// parameter at its bound, with lower cost beyond, rests for an iteration.
func (f *fitting) polish(c *candidate, free []int, tolerance float64) {
	n, k := len(f.y), len(free)
	if need := (k + 2) * n; cap(f.rows) < need {
		f.rows = make([]float64, need)
	}
	r, moved := f.rows[:n], f.rows[n:2*n]
	slopes := mat.NewDense(k, n, f.rows[2*n:(k+2)*n])
	normal, damped := mat.NewSymDense(k, nil), mat.NewSymDense(k, nil)
	gradient, step := mat.NewVecDense(k, nil), mat.NewVecDense(k, nil)
	scale := make([]float64, k)
	var factor mat.Cholesky
	x := slices.Clone(c.x)
	c.cost = f.errors(c, c.x, r)
	damping := 1e-2
	for range iterations {
		if c.cost == 0 || math.IsInf(c.cost, 1) {
			break
		}
		for i, at := range free {
			h := f.difference(c, at)
			x[at] = c.x[at] + h
			possible := !math.IsInf(f.errors(c, x, moved), 1)
			x[at] = c.x[at]
			row := slopes.RawRowView(i)
			floats.SubTo(row, moved, r)
			floats.Scale(1/h, row)
			uphill := floats.Dot(row, r)
			if b := c.bounds(at); !possible || c.x[at] <= b.low && uphill > 0 || c.x[at] >= b.high && uphill < 0 {
				clear(row)
			}
			// Parameters have units of their own; so scaled, none dwarfs another.
			if scale[i] = math.Sqrt(floats.Dot(row, row)); scale[i] > 0 {
				floats.Scale(1/scale[i], row)
			}
		}
		gradient.MulVec(slopes, mat.NewVecDense(n, r))
		normal.SymOuterK(1, slopes)
		before := c.cost
		for ; c.cost == before && damping < 1e8; damping *= 10 {
			damped.CopySym(normal)
			for i := range k {
				damped.SetSym(i, i, 1+damping)
			}
			if !factor.Factorize(damped) || factor.SolveVecTo(step, gradient) != nil {
				continue
			}
			for i, at := range free {
				if scale[i] > 0 {
					b := c.bounds(at)
					x[at] = min(max(c.x[at]-step.AtVec(i)/scale[i], b.low), b.high)
				}
			}
			if cost := f.errors(c, x, moved); cost < c.cost {
				c.cost = cost
				copy(c.x, x)
				copy(r, moved)
				damping = max(damping/100, 1e-9)
			}
		}
		copy(x, c.x)
		if before-c.cost <= tolerance*before {
			break
		}
	}
	c.cost = f.errors(c, c.x, r)
}

// difference is the step by which a derivative is taken.
func (f *fitting) difference(c *candidate, at int) float64 {
	const small = 1e-5
	switch states := c.smoothing(); {
	case at >= states && !(c.factors() && at >= len(c.x)-c.period):
		return small * f.noise
	case c.x[at] > c.bounds(at).high-small:
		return -small
	}
	return small
}
