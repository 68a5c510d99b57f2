package tune

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// tpe is the tree-structured Parzen estimator (Bergstra et al. 2011) in its multivariate form (Falkner et al.
// 2018; Watanabe 2023), with the settings of Optuna 5 where nothing else is said: the trials are split
// into a few good ones and the others, each part becomes a density, and of some values that are drawn
// from the density of the good ones those are proposed where it is highest compared with that of the others.
// Trials at work count among the others, the constant liar of Ginsbourger et al. 2010, so that
// trials which are at work together differ.
type tpe struct{}

// The settings of tpe.
var (
	tpeGood       = 0.1 // share of trials that are good
	tpeMost       = 25  // good trials at most
	tpeCandidates = 24  // values that are drawn
	tpeFresh      = 25  // trials of full weight, the newest; older ones count for less
)

func (tpe) sample(k *knowledge) Values {
	good, others := split(k.trials)
	below, above := newDensity(k.space, good), newDensity(k.space, others)
	var best Values
	most, bestNew := math.Inf(-1), false
	for range tpeCandidates {
		v := below.draw(k.rand)
		isNew := k.fresh(v)
		if bestNew && !isNew {
			continue
		}
		if score := below.log(v) - above.log(v); best == nil || isNew && !bestNew || score > most {
			best, most, bestNew = v, score, isNew
		}
	}
	return best
}

// split returns the good trials and the others, by number: trials that keep the constraints before
// those that break them, complete ones before those that ended early, and of these the further before
// the less far; then the less loss, or the less excess. Failed trials and those at work are never good.
func split(trials []observation) (good, others []observation) {
	var ranked []observation
	for _, o := range trials {
		if o.losses == nil || isFailed(o.losses) {
			others = append(others, o)
		} else {
			ranked = append(ranked, o)
		}
	}
	slices.SortStableFunc(ranked, func(a, b observation) int {
		if a.excess > 0 || b.excess > 0 {
			return cmp.Compare(max(0, a.excess), max(0, b.excess))
		}
		return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(a.losses[0], b.losses[0]))
	})
	n := min(int(math.Ceil(tpeGood*float64(len(ranked)))), tpeMost)
	good, others = ranked[:n:n], append(others, ranked[n:]...)
	for _, list := range [][]observation{good, others} {
		slices.SortFunc(list, func(a, b observation) int { return a.number - b.number })
	}
	return good, others
}

// A density is a mixture over the values of a space: a product of kernels for each of some trials, and
// the even density. A trial without a parameter, because another one made it unused, has the even
// density there, so that each product is a density over the whole tree of values.
type density struct {
	space   *Space
	weights []float64  // of the trials and of the even density; their sum is 1
	kernels [][]kernel // by trial and parameter; a kernel that is not there is even
}

// A kernel is the density of one parameter around one trial's value.
type kernel interface {
	draw(p *Param, r *rand.Rand) any
	// log returns the logarithm of a value's density against the even one's.
	log(p *Param, v any) float64
}

func newDensity(s *Space, trials []observation) *density {
	d := &density{space: s, kernels: make([][]kernel, len(trials)+1)}
	n := len(trials)
	sum := 1.0
	for i := range trials {
		w := 1.0
		if age := n - i; age > tpeFresh {
			w = float64(i+1) / float64(max(1, n-tpeFresh))
		}
		d.weights = append(d.weights, w)
		sum += w
	}
	d.weights = append(d.weights, 1)
	for i := range d.weights {
		d.weights[i] /= sum
		d.kernels[i] = make([]kernel, len(s.Params))
	}
	for j, p := range s.Params {
		if p.Count() == 1 {
			continue
		}
		var have []int // trials
		for i, o := range trials {
			if _, has := o.values[p.Name]; has {
				have = append(have, i)
			}
		}
		if !p.Ordered() {
			for _, i := range have {
				d.kernels[i][j] = choiceKernel{trials[i].values[p.Name].(string), 1 / float64(len(have)+1)}
			}
			continue
		}
		centres := make([]float64, len(have))
		for x, i := range have {
			centres[x] = p.Unit(trials[i].values[p.Name])
		}
		for x, width := range widths(centres) {
			d.kernels[have[x]][j] = newNormalKernel(centres[x], width)
		}
	}
	return d
}

// widths returns standard deviations of kernels: the distance to the farther of both neighbours or ends, within bounds.
func widths(centres []float64) []float64 {
	n := len(centres)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(centres[a], centres[b]) })
	list := make([]float64, n)
	least := 1 / min(100, float64(n+2))
	for x, i := range order {
		left, right := centres[i], 1-centres[i]
		if x > 0 {
			left -= centres[order[x-1]]
		}
		if x < n-1 {
			right = centres[order[x+1]] - centres[i]
		}
		if n > 1 && x == 0 {
			left = 0
		}
		if n > 1 && x == n-1 {
			right = 0
		}
		list[i] = min(max(left, right, least), 1)
	}
	return list
}

func (d *density) draw(r *rand.Rand) Values {
	u, i := r.Float64(), 0
	for i < len(d.weights)-1 && u >= d.weights[i] {
		u -= d.weights[i]
		i++
	}
	j := -1
	return d.space.Build(func(p *Param, _ Values) any {
		for j++; d.space.Params[j] != p; j++ {
		}
		if k := d.kernels[i][j]; k != nil {
			return k.draw(p, r)
		}
		return p.At(r.Float64())
	})
}

// log returns the logarithm of the density of values against the even one's.
func (d *density) log(v Values) float64 {
	list, most := make([]float64, len(d.weights)), math.Inf(-1)
	for i, w := range d.weights {
		sum := math.Log(w)
		for j, p := range d.space.Params {
			if one, used := v[p.Name]; used && d.kernels[i][j] != nil {
				sum += d.kernels[i][j].log(p, one)
			}
		}
		list[i], most = sum, max(most, sum)
	}
	sum := 0.0
	for _, x := range list {
		sum += math.Exp(x - most)
	}
	return most + math.Log(sum)
}

// A choiceKernel gives its choice the share 1 and every choice the share even, divided by their sum.
type choiceKernel struct {
	choice string
	even   float64
}

func (k choiceKernel) draw(p *Param, r *rand.Rand) any {
	if r.Float64()*(1+k.even*float64(len(p.Choices))) < 1 {
		return k.choice
	}
	return p.At(r.Float64())
}

func (k choiceKernel) log(p *Param, v any) float64 {
	n := float64(len(p.Choices))
	share := k.even
	if v == k.choice {
		share++
	}
	return math.Log(share / (1 + k.even*n) * n)
}

// A normalKernel is a normal density on the unit interval of a number, cut at both ends. A value
// that can be counted has what falls on its share.
type normalKernel struct {
	centre, width float64
	low, mass     float64 // of the whole normal density: below the interval, and on it
}

func newNormalKernel(centre, width float64) normalKernel {
	k := normalKernel{centre: centre, width: width}
	k.low = normalBelow(-centre / width)
	k.mass = normalBelow((1-centre)/width) - k.low
	return k
}

// normalBelow is the distribution function of the standard normal density.
func normalBelow(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }

func (k normalKernel) draw(p *Param, r *rand.Rand) any {
	u := k.low + r.Float64()*k.mass
	return p.At(k.centre + k.width*math.Sqrt2*math.Erfinv(2*u-1))
}

func (k normalKernel) log(p *Param, v any) float64 {
	if low, high := p.share(v); low < high {
		mass := normalBelow((high-k.centre)/k.width) - normalBelow((low-k.centre)/k.width)
		return math.Log(max(mass, 1e-300) / k.mass / (high - low))
	}
	x := (p.Unit(v) - k.centre) / k.width
	return -x*x/2 - math.Log(k.width*k.mass*math.Sqrt(2*math.Pi))
}

// share returns the part of [0,1] that At makes v of, nothing of a continuum.
func (p *Param) share(v any) (low, high float64) {
	u, n := p.Unit(v), p.Count()
	switch {
	case n == 0:
		return u, u
	case p.Log:
		x, lo, hi := asFloat(v), math.Log(p.Low-.5), math.Log(p.High+.5)
		return (math.Log(x-.5) - lo) / (hi - lo), (math.Log(x+.5) - lo) / (hi - lo)
	}
	return u - .5/float64(n), u + .5/float64(n)
}
