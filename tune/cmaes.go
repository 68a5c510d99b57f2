package tune

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// cmaes adapts a normal distribution over the numbers that every trial has, by CMA-ES with the default
// parameters of Hansen's tutorial (arXiv:1604.00772). The generations are the trials after those at random, by number;
// the distribution follows from those generations of which all trials are known. Where trials at work keep it
// back, the next ones come from an older distribution, for which their steps are cut as those of injected
// solutions are (Hansen, arXiv:1110.4181). Choices, and parameters with a condition, are no numbers
// of every trial: they are as in one of the best trials, or at random.
type cmaes struct{}

const (
	firstSigma = 1.0 / 6 // deviation of the first distribution, in shares of a range
	fromBest   = 0.7     // how often other parameters are as in one of the best trials
)

func (cmaes) sample(k *knowledge) Values {
	e := evolve(k)
	point := e.draw(k)
	known := k.finished()
	slices.SortStableFunc(known, better)
	example := k.space.Defaults()
	if len(known) > 0 {
		example = known[k.rand.IntN((len(known)+4)/5)].values
	}
	return k.space.Build(func(p *Param, _ Values) any {
		if i := slices.Index(e.params, p); i >= 0 {
			return p.At(point[i])
		}
		if v, has := example[p.Name]; has && k.rand.Float64() < fromBest {
			return v
		}
		return p.At(k.rand.Float64())
	})
}

// better compares trials of one objective that are known: first those that keep the constraints, of these those that have come further,
// of these the less lossy ones; failed ones are last.
func better(a, b observation) int {
	failed := func(o *observation) int {
		if isFailed(o.losses) {
			return 1
		}
		return 0
	}
	return cmp.Or(failed(&a)-failed(&b), cmp.Compare(a.excess, b.excess), cmp.Compare(b.at, a.at), slices.Compare(a.losses, b.losses))
}

// An evolution is a normal distribution over the units of parameters, and what adapts it.
type evolution struct {
	params     []*Param
	weights    []float64 // by rank in a generation
	parents    float64   // as many as the positive weights amount to: μ_eff
	generation int

	mean      []float64
	sigma     float64
	cov       *mat.SymDense
	axes      mat.Dense // eigenvectors of cov, in columns
	lengths   []float64 // roots of its eigenvalues
	pathSigma []float64 // evolution path of sigma
	pathCov   []float64 // and that of cov
}

// evolve returns the distribution after all generations that are known.
func evolve(k *knowledge) *evolution {
	e := &evolution{sigma: firstSigma}
	for _, p := range k.space.Params {
		if p.Ordered() && p.When == "" && p.Count() != 1 {
			e.params = append(e.params, p)
		}
	}
	n := len(e.params)
	if n == 0 {
		return e
	}
	count := 4 + int(3*math.Log(float64(n)))
	e.weigh(count)
	e.pathSigma, e.pathCov = make([]float64, n), make([]float64, n)
	e.cov = mat.NewSymDense(n, nil)
	for i := range n {
		e.cov.SetSym(i, i, 1)
	}
	e.decompose()
	for _, p := range e.params {
		u := 0.5
		if p.Default != nil {
			v, _ := p.take(p.Default)
			u = p.Unit(v)
		}
		e.mean = append(e.mean, u)
	}
	for generation := range slices.Chunk(k.trials, count) {
		if len(generation) < count || slices.ContainsFunc(generation, func(o observation) bool { return o.losses == nil }) {
			break
		}
		generation = slices.Clone(generation)
		slices.SortStableFunc(generation, better)
		e.adapt(generation)
	}
	return e
}

func (e *evolution) point(v Values) []float64 {
	x := make([]float64, len(e.params))
	for i, p := range e.params {
		x[i] = p.Unit(v[p.Name])
	}
	return x
}

// weigh sets the weights of a generation of that many, of which those of the worse half are negative.
func (e *evolution) weigh(count int) {
	n := float64(len(e.params))
	var sums, squares [2]float64 // of the weights above 0, and below
	for i := range count {
		w := math.Log(float64(count+1)/2) - math.Log(float64(i+1))
		e.weights = append(e.weights, w)
		side := 0
		if i >= count/2 {
			side = 1
		}
		sums[side], squares[side] = sums[side]+w, squares[side]+w*w
	}
	e.parents = sums[0] * sums[0] / squares[0]
	against := sums[1] * sums[1] / squares[1]
	one, many := e.rates()
	most := min(1+one/many, 1+2*against/(e.parents+2), (1-one-many)/(n*many))
	positive, negative := 0.0, 0.0
	for _, w := range e.weights {
		positive, negative = positive+max(w, 0), negative-min(w, 0)
	}
	for i, w := range e.weights {
		if w >= 0 {
			e.weights[i] = w / positive
		} else {
			e.weights[i] = most * w / negative
		}
	}
}

// rates returns the learning rates of the covariance: from its path, and from a generation.
func (e *evolution) rates() (one, many float64) {
	n := float64(len(e.params))
	one = 2 / ((n+1.3)*(n+1.3) + e.parents)
	return one, min(1-one, 2*(e.parents-2+1/e.parents)/((n+2)*(n+2)+e.parents))
}

func (e *evolution) decompose() {
	var eigen mat.EigenSym
	eigen.Factorize(e.cov, true)
	eigen.VectorsTo(&e.axes)
	e.lengths = eigen.Values(nil)
	for i, x := range e.lengths {
		e.lengths[i] = math.Sqrt(max(x, 1e-16))
	}
}

// whiten multiplies with the inverse root of the covariance.
func (e *evolution) whiten(y []float64) []float64 {
	n := len(y)
	var along, back mat.VecDense
	along.MulVec(e.axes.T(), mat.NewVecDense(n, y))
	for i, l := range e.lengths {
		along.SetVec(i, along.AtVec(i)/l)
	}
	back.MulVec(&e.axes, &along)
	return back.RawVector().Data
}

func norm(x []float64) float64 { return math.Sqrt(dot(x, x)) }

func dot(a, b []float64) (sum float64) {
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

// adapt makes the distribution the next generation's, from trials with the best first.
func (e *evolution) adapt(generation []observation) {
	e.generation++
	n := float64(len(e.params))
	steps, lengths := make([][]float64, len(generation)), make([]float64, len(generation))
	shift := make([]float64, len(e.params))
	longest := math.Sqrt(n) + 2*n/(n+2)
	for i, o := range generation {
		y := e.point(o.values)
		for d := range y {
			y[d] = (y[d] - e.mean[d]) / e.sigma
		}
		if lengths[i] = norm(e.whiten(y)); lengths[i] > longest {
			for d := range y {
				y[d] *= longest / lengths[i]
			}
			lengths[i] = longest
		}
		steps[i] = y
		for d := range y {
			shift[d] += max(e.weights[i], 0) * y[d]
		}
	}
	for d := range shift {
		e.mean[d] += e.sigma * shift[d]
	}
	// The step size grows if the steps of generations go the same way.
	rate := (e.parents + 2) / (n + e.parents + 5)
	damp := 1 + 2*max(0, math.Sqrt((e.parents-1)/(n+1))-1) + rate
	white := e.whiten(shift)
	for d := range white {
		e.pathSigma[d] = (1-rate)*e.pathSigma[d] + math.Sqrt(rate*(2-rate)*e.parents)*white[d]
	}
	expected := math.Sqrt(n) * (1 - 1/(4*n) + 1/(21*n*n)) // length of n standard normal numbers
	length := norm(e.pathSigma)
	e.sigma = min(e.sigma*math.Exp(rate/damp*(length/expected-1)), 1)

	rate = (4 + e.parents/n) / (n + 4 + 2*e.parents/n)
	sigmaRate := (e.parents + 2) / (n + e.parents + 5)
	moves := 1.0 // 0 stalls the path while the step size grows fast
	if length/math.Sqrt(1-math.Pow(1-sigmaRate, 2*float64(e.generation+1))) >= (1.4+2/(n+1))*expected {
		moves = 0
	}
	for d := range shift {
		e.pathCov[d] = (1-rate)*e.pathCov[d] + moves*math.Sqrt(rate*(2-rate)*e.parents)*shift[d]
	}
	one, many := e.rates()
	sum := 0.0
	for _, w := range e.weights {
		sum += w
	}
	keep := 1 + one*(1-moves)*rate*(2-rate) - one - many*sum
	for a := range e.params {
		for b := range a + 1 {
			c := keep*e.cov.At(a, b) + one*e.pathCov[a]*e.pathCov[b]
			for i, y := range steps {
				w := e.weights[i]
				if w < 0 {
					w *= n / max(lengths[i]*lengths[i], 1e-12)
				}
				c += many * w * y[a] * y[b]
			}
			e.cov.SetSym(a, b, c)
		}
	}
	e.decompose()
}

// draw returns a point of the distribution in [0,1]. Of values that are counted it goes on to a neighbour with at least
// a small probability, as with the margin of Hamano et al. (2022), lest a dimension freeze.
func (e *evolution) draw(k *knowledge) []float64 {
	n := len(e.params)
	if n == 0 {
		return nil
	}
	var x []float64
	inside := func() bool {
		return !slices.ContainsFunc(x, func(u float64) bool { return u < 0 || u > 1 })
	}
	for try := 0; try == 0 || try < 100 && !inside(); try++ {
		along := mat.NewVecDense(n, nil)
		for i, l := range e.lengths {
			along.SetVec(i, l*k.rand.NormFloat64())
		}
		var y mat.VecDense
		y.MulVec(&e.axes, along)
		x = slices.Clone(e.mean)
		for i := range x {
			x[i] += e.sigma * y.AtVec(i)
		}
	}
	for i, p := range e.params {
		if count := p.Count(); count > 0 && k.rand.Float64() < 2/float64(n*len(e.weights)) {
			x[i] += []float64{-1, 1}[k.rand.IntN(2)] / float64(count)
		}
		x[i] = min(max(x[i], 0), 1)
	}
	return x
}
