package tune

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// bayes proposes what a Gaussian process over all trials expects the most of: the greatest logarithm of the
// expected improvement (Ament et al. 2023). It is for some hundred trials, and its time grows with their number cubed.
// Trials at work count as if they had what the process expects of them ("Kriging believer", Ginsbourger et al. 2010).
// Several objectives are one with other weights for every trial (ParEGO, Knowles 2006).
type bayes struct{}

const (
	observed  = 300 // at most so many trials are looked at: the best half and the newest
	scattered = 800 // candidates from anywhere
	nearBest  = 200 // candidates around the best trials
	climbs    = 6   // of the latter, from which the acquisition is maximized
	// What an improvement must exceed, in deviations of the values: without it the search stays in the first good
	// place for ever smaller gains.
	worthwhile = 0.003
)

func (bayes) sample(k *knowledge) Values {
	m := modelOf(k)
	if m == nil {
		return uniform{}.sample(k)
	}
	tried := map[string]bool{}
	for _, o := range k.trials {
		tried[k.space.text(o.values)] = true
	}
	offer := func(n int, draw func(i int) Values) (list []Values) {
		for i := range n {
			if v := draw(i); k.space.Allows(v) && !tried[k.space.text(v)] {
				list = append(list, v)
			}
		}
		return list
	}
	// What is found far away is left as it is: uphill from there are the corners of the space, in which nothing is known.
	var best Values
	most := math.Inf(-1)
	far := offer(scattered, func(int) Values { return uniform{}.sample(k) })
	for i, x := range m.acquisitions(far) {
		if x > most {
			best, most = far[i], x
		}
	}
	beside := offer(nearBest, func(i int) Values { return step(k, m.best[i%len(m.best)], 0.1*math.Pow(10, -float64(i%3))) })
	value, order := m.acquisitions(beside), make([]int, len(beside))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(value[j], value[i]) })
	for _, i := range order[:min(climbs, len(order))] {
		if v, x := m.climb(beside[i], value[i], tried); x > most {
			best, most = v, x
		}
	}
	if best == nil {
		return uniform{}.sample(k)
	}
	return best
}

// step changes values a little: numbers by a deviation, in shares of their ranges, and now and then a choice.
func step(k *knowledge, v Values, deviation float64) Values {
	return k.space.Build(func(p *Param, _ Values) any {
		old, has := v[p.Name]
		switch {
		case !has, !p.Ordered() && k.rand.Float64() < 0.2:
			return p.At(k.rand.Float64())
		case !p.Ordered():
			return old
		}
		width := deviation
		if n := p.Count(); n > 0 {
			width = max(width, 1/float64(n))
		}
		return p.At(p.Unit(old) + width*k.rand.NormFloat64())
	})
}

// A model is a Gaussian process with a Matérn kernel of 5/2 over the units of parameters, with a weight for each.
// Choices are 0 or 1 from each other; a parameter that is not used is in the middle.
type model struct {
	space     *Space
	rand      *rand.Rand
	best      []Values // some of the best trials
	incumbent float64  // what is to be improved on

	x       [][]float64 // trials by parameter; choices by index
	weights []float64   // inverse squares of the length scales
	scale   float64     // variance of the function
	noise   float64     // variance of its values
	factor  mat.Cholesky
	alpha   *mat.VecDense // inverse covariance times values
}

// modelOf fits a model to what is known, nil if that is too little.
func modelOf(k *knowledge) *model {
	known := k.finished()
	y := goals(k, known)
	if y == nil {
		return nil
	}
	order := make([]int, len(known))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(y[i], y[j]) })
	m := &model{space: k.space, rand: k.rand}
	for _, i := range order[:min(len(order), 5)] {
		m.best = append(m.best, known[i].values)
	}
	if len(order) > observed {
		newest := slices.Clone(order[observed/2:])
		slices.SortFunc(newest, func(i, j int) int { return j - i })
		order = append(order[:observed/2:observed/2], newest[:observed-observed/2]...)
	}
	var values []float64
	for _, i := range order {
		m.x, values = append(m.x, m.point(known[i].values)), append(values, y[i])
	}
	standardize(values)
	m.fit(values)
	m.condition(values)
	means, _ := m.all(m.x)
	m.incumbent = slices.Min(means) - worthwhile
	var running [][]float64
	for _, o := range k.trials {
		if o.losses == nil {
			running = append(running, m.point(o.values))
		}
	}
	if len(running) > 0 {
		means, _ = m.all(running)
		m.x = append(m.x, running...)
		m.condition(append(values, means...))
	}
	return m
}

// goals turns what is known of trials into one number each that is to be small, nil if fewer than two are told apart. Those
// that failed or break constraints are as bad as the worst. If all of them do, the number is what they break
// constraints by. What is far from the best is drawn together, as most of it is of no interest.
func goals(k *knowledge, known []observation) []float64 {
	if len(known) < 2 {
		return nil
	}
	weights := make([]float64, k.objectives)
	sum := 0.0
	for i := range weights {
		weights[i] = k.rand.ExpFloat64()
		sum += weights[i]
	}
	low, high := slices.Repeat([]float64{math.Inf(1)}, k.objectives), slices.Repeat([]float64{math.Inf(-1)}, k.objectives)
	good := func(o *observation) bool { return !isFailed(o.losses) && o.excess == 0 }
	whole := false
	for _, o := range known {
		whole = whole || good(&o) && o.at == math.MaxInt
	}
	for _, o := range known {
		for i, x := range o.losses {
			if good(&o) && (!whole || o.at == math.MaxInt) {
				low[i], high[i] = min(low[i], x), max(high[i], x)
			}
		}
	}
	feasible := !math.IsInf(low[0], 1)
	y, worst := make([]float64, len(known)), math.Inf(-1)
	for n, o := range known {
		switch {
		case isFailed(o.losses), feasible && o.excess > 0:
			y[n] = math.NaN()
			continue
		case !feasible:
			y[n] = o.excess
		case k.objectives == 1:
			y[n] = max(o.losses[0], low[0]) // what is said part way does not make a trial the best
		default:
			most, all := 0.0, 0.0
			for i, x := range o.losses {
				part := weights[i] / sum * (x - low[i]) / max(high[i]-low[i], 1e-300)
				most, all = max(most, part), all+part
			}
			y[n] = most + 0.05*all
		}
		worst = max(worst, y[n])
	}
	for n := range y {
		if math.IsNaN(y[n]) {
			y[n] = worst
		}
	}
	if !(slices.Min(y) < slices.Max(y)) {
		return nil
	}
	draw(y)
	return y
}

// draw replaces values by the logarithm of 1 more than their distance from the least one, in distances of the median from it.
func draw(y []float64) {
	sorted := slices.Clone(y)
	slices.Sort(sorted)
	least, width := sorted[0], 0.0
	for _, x := range sorted[len(sorted)/2:] {
		if width = x - least; width > 0 {
			break
		}
	}
	for i := range y {
		if y[i] = (y[i] - least) / width; y[i] > 1 {
			y[i] = 1 + math.Log(y[i])
		}
	}
}

func standardize(y []float64) {
	mean, squares := 0.0, 0.0
	for _, x := range y {
		mean += x / float64(len(y))
	}
	for _, x := range y {
		squares += (x - mean) * (x - mean) / float64(len(y))
	}
	for i := range y {
		y[i] = (y[i] - mean) / math.Sqrt(squares)
	}
}

func (m *model) point(v Values) []float64 {
	x := make([]float64, len(m.space.Params))
	for i, p := range m.space.Params {
		switch one, has := v[p.Name]; {
		case !has:
			x[i] = 0.5
		case p.Ordered():
			x[i] = p.Unit(one)
		default:
			x[i] = float64(slices.Index(p.Choices, one.(string)))
		}
	}
	return x
}

// apart returns the square of how far a and b are apart in a parameter.
func (m *model) apart(param int, a, b []float64) float64 {
	d := a[param] - b[param]
	if !m.space.Params[param].Ordered() && d != 0 {
		return 1
	}
	return d * d
}

// matern returns the kernel and its derivative by the square of the distance.
func matern(square float64) (value, slope float64) {
	d := math.Sqrt(5 * square)
	e := math.Exp(-d)
	return e * (1 + d + d*d/3), -5.0 / 6 * e * (1 + d)
}

// fit chooses the weights, scale and noise of the greatest posterior density.
func (m *model) fit(y []float64) {
	density, dims := m.density(y), len(m.space.Params)
	least, best, grad := math.Inf(1), []float64(nil), make([]float64, dims+2)
	for _, length := range []float64{0.3, 1} {
		start := slices.Repeat([]float64{-2 * math.Log(length)}, dims+2)
		start[dims], start[dims+1] = 0, math.Log(1e-3)
		x := descend(density, start, -12, 12, 40)
		if f := density(x, grad); f < least {
			least, best = f, x
		}
	}
	m.take(best)
}

// density returns the negative logarithm of the posterior density of what take takes, as a function that puts the slopes
// into grad. The priors keep weights off 0 and off infinity, the scale near that of the values,
// which are standardized, and the noise small.
func (m *model) density(y []float64) func(theta, grad []float64) float64 {
	n, dims := len(y), len(m.space.Params)
	squares := make([][]float64, dims)
	for d := range squares {
		squares[d] = make([]float64, n*n)
		for i := range n {
			for j := range i {
				squares[d][i*n+j] = m.apart(d, m.x[i], m.x[j])
			}
		}
	}
	values, alpha := mat.NewVecDense(n, y), mat.NewVecDense(n, nil)
	kernel, slope := make([]float64, n*n), make([]float64, n*n)
	cov := mat.NewSymDense(n, nil)
	var factor mat.Cholesky
	var inverse mat.SymDense
	return func(theta, grad []float64) float64 {
		m.take(theta)
		for i := range n {
			for j := range i {
				at, square := i*n+j, 0.0
				for d, w := range m.weights {
					square += w * squares[d][at]
				}
				kernel[at], slope[at] = matern(square)
				cov.SetSym(i, j, m.scale*kernel[at])
			}
			cov.SetSym(i, i, m.scale+m.noise)
		}
		if !factor.Factorize(cov) || factor.SolveVecTo(alpha, values) != nil || factor.InverseTo(&inverse) != nil {
			return math.Inf(1)
		}
		f := (mat.Dot(values, alpha) + factor.LogDet()) / 2
		byScale, byNoise := 0.0, 0.0
		clear(grad)
		for i := range n {
			for j := range i {
				g := inverse.At(i, j) - alpha.AtVec(i)*alpha.AtVec(j) // of both halves of the matrix
				at := i*n + j
				byScale += g * kernel[at]
				for d := range dims {
					grad[d] += g * slope[at] * squares[d][at]
				}
			}
			g := (inverse.At(i, i) - alpha.AtVec(i)*alpha.AtVec(i)) / 2
			byScale, byNoise = byScale+g, byNoise+g
		}
		for d, w := range m.weights {
			f += 0.1/w + 0.1*w
			grad[d] = grad[d]*m.scale*w - 0.1/w + 0.1*w
		}
		extra := m.noise - leastNoise
		grad[dims] = m.scale*byScale + m.scale - 1
		grad[dims+1] = extra*byNoise + 30*extra - 0.1
		return f + m.scale - math.Log(m.scale) + 30*extra - 0.1*math.Log(extra)
	}
}

// What is added to the noise, and the least that a variance is taken for, so that matrices can be inverted.
const (
	leastNoise    = 1e-6
	leastVariance = 1e-12
)

// take sets what fit chooses from its logarithms.
func (m *model) take(theta []float64) {
	dims := len(theta) - 2
	m.weights = m.weights[:0]
	for _, x := range theta[:dims] {
		m.weights = append(m.weights, math.Exp(x))
	}
	m.scale, m.noise = math.Exp(theta[dims]), leastNoise+math.Exp(theta[dims+1])
}

// condition makes the process that of the values of all m.x.
func (m *model) condition(y []float64) {
	n := len(m.x)
	cov := mat.NewSymDense(n, nil)
	for i := range n {
		for j := range i {
			cov.SetSym(i, j, m.covariance(m.x[i], m.x[j]))
		}
		cov.SetSym(i, i, m.scale+m.noise)
	}
	m.factor.Factorize(cov) // the noise keeps it positive
	m.alpha = mat.NewVecDense(n, nil)
	_ = m.factor.SolveVecTo(m.alpha, mat.NewVecDense(n, y))
}

// square returns the square of the distance of a and b by the weights.
func (m *model) square(a, b []float64) (sum float64) {
	for d, w := range m.weights {
		sum += w * m.apart(d, a, b)
	}
	return sum
}

func (m *model) covariance(a, b []float64) float64 {
	k, _ := matern(m.square(a, b))
	return m.scale * k
}

// all returns the means and deviations of the function at points.
func (m *model) all(points [][]float64) (means, deviations []float64) {
	n, count := len(m.x), len(points)
	b := blas64.General{Rows: n, Cols: count, Stride: count, Data: make([]float64, n*count)}
	means, deviations = make([]float64, count), make([]float64, count)
	for i, a := range m.x {
		for j, x := range points {
			c := m.covariance(a, x)
			b.Data[i*count+j] = c
			means[j] += c * m.alpha.AtVec(i)
		}
	}
	blas64.Trsm(blas.Left, blas.Trans, 1, m.factor.RawU().(mat.RawTriangular).RawTriangular(), b)
	for j := range points {
		variance := m.scale
		for i := range n {
			variance -= b.Data[i*count+j] * b.Data[i*count+j]
		}
		deviations[j] = math.Sqrt(max(variance, leastVariance))
	}
	return means, deviations
}

// acquisitions are the logarithms of the improvements that are expected of values.
func (m *model) acquisitions(list []Values) []float64 {
	if len(list) == 0 {
		return nil
	}
	points := make([][]float64, len(list))
	for i, v := range list {
		points[i] = m.point(v)
	}
	means, deviations := m.all(points)
	for i, mean := range means {
		h, _, _ := logImprovement((m.incumbent - mean) / deviations[i])
		means[i] = math.Log(deviations[i]) + h
	}
	return means
}

// logImprovement returns log h(z) of h(z) = φ(z) + zΦ(z), with Φ/h and φ/h.
func logImprovement(z float64) (log, cdf, pdf float64) {
	phi := math.Exp(-z*z/2) / math.Sqrt(2*math.Pi)
	if z > -20 {
		full := math.Erfc(-z/math.Sqrt2) / 2
		h := phi + z*full
		return math.Log(h), full / h, phi / h
	}
	// Both terms all but cancel out: h = φ/z²·(1 - 3/z² + 15/z⁴ ...).
	s := 1 / (z * z)
	share := s * (1 - 3*s + 15*s*s)
	return -z*z/2 - math.Log(2*math.Pi)/2 + math.Log(share), -1 / z * (1 - s + 3*s*s) / share, 1 / share
}

// climb goes up from values of that acquisition: numbers of a continuum along the slope, others to neighbours.
func (m *model) climb(v Values, most float64, tried map[string]bool) (Values, float64) {
	for range 5 {
		if w := m.slide(v); m.space.Allows(w) {
			if x := m.acquisitions([]Values{w})[0]; x > most {
				v, most = w, x
			}
		}
		better := false
		near := slices.DeleteFunc(m.neighbours(v), func(w Values) bool { return !m.space.Allows(w) || tried[m.space.text(w)] })
		for i, x := range m.acquisitions(near) {
			if x > most+1e-9 {
				v, most, better = near[i], x, true
			}
		}
		if !better {
			break
		}
	}
	return v, most
}

// slide moves the numbers of a continuum to the next maximum of the acquisition.
func (m *model) slide(v Values) Values {
	x := m.point(v)
	var free []int
	var start []float64
	for i, p := range m.space.Params {
		if _, has := v[p.Name]; has && p.Count() == 0 {
			free, start = append(free, i), append(start, x[i])
		}
	}
	if len(free) == 0 {
		return v
	}
	w := maps.Clone(v)
	for i, u := range descend(m.loss(x, free), start, 0, 1, 30) {
		p := m.space.Params[free[i]]
		w[p.Name] = p.At(u)
	}
	return w
}

// loss returns the negative acquisition at x with other units of the free parameters, which it writes to x, as a
// function that puts the slopes into grad.
func (m *model) loss(x []float64, free []int) func(units, grad []float64) float64 {
	n := len(m.x)
	cov, inverse := mat.NewVecDense(n, nil), mat.NewVecDense(n, nil)
	slopes := make([]float64, n)
	return func(units, grad []float64) float64 {
		for i, d := range free {
			x[d] = units[i]
		}
		for i, a := range m.x {
			k, slope := matern(m.square(a, x))
			cov.SetVec(i, m.scale*k)
			slopes[i] = m.scale * slope
		}
		_ = m.factor.SolveVecTo(inverse, cov)
		deviation := math.Sqrt(max(m.scale-mat.Dot(cov, inverse), leastVariance))
		log, cdf, pdf := logImprovement((m.incumbent - mat.Dot(cov, m.alpha)) / deviation)
		for i, d := range free {
			byMean, byVariance := 0.0, 0.0
			for j, a := range m.x {
				g := 2 * m.weights[d] * (x[d] - a[d]) * slopes[j]
				byMean += g * m.alpha.AtVec(j)
				byVariance -= 2 * g * inverse.AtVec(j)
			}
			grad[i] = (cdf*byMean - pdf*byVariance/(2*deviation)) / deviation
		}
		return -math.Log(deviation) - log
	}
}

// neighbours are values that differ in one parameter: in a choice, or in a number by some steps.
func (m *model) neighbours(v Values) (list []Values) {
	for _, p := range m.space.Params {
		old, has := v[p.Name]
		n := p.Count()
		if !has || n < 2 {
			continue
		}
		for i := range n {
			one := p.At((float64(i) + 0.5) / float64(n))
			if p.Ordered() && n > 12 {
				// Of many values the nearest and some further ones on both sides.
				away := []int{-n / 4, -n / 10, -1, 1, n / 10, n / 4}
				if i >= len(away) {
					break
				}
				one = p.At(p.Unit(old) + float64(away[i])/float64(n))
			}
			if one == old {
				continue
			}
			list = append(list, m.space.Build(func(q *Param, _ Values) any {
				other, has := v[q.Name]
				switch {
				case q == p:
					return one
				case has:
					return other
				}
				return q.At(m.rand.Float64())
			}))
		}
	}
	return list
}
