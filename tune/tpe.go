package tune

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// tpe is the tree-structured Parzen estimator (Bergstra et al. 2011) in its multivariate form (Falkner et al.
// 2018; Watanabe 2023): the trials are split into a few good ones and the others, each part becomes a
// density, and of some values that are drawn from that of the good ones those are proposed whose
// density is highest compared with that of the others.
// Trials at work are among the others (the constant liar of Ginsbourger et al. 2010), so that trials
// which are at work together differ.
//
// Ranks, weights and the widths of kernels are those of Optuna 5. What differs is what lessens the regret in
// bench/tune: more good trials, more candidates, none of which has been tried before, choices whose
// probability does not depend on how many there are, and one density over the whole tree where
// Optuna samples conditional parameters on their own.
type tpe struct{}

const (
	goodShare  = 0.15 // of the trials that have losses
	goodMost   = 25
	candidates = 48
	fullWeight = 25 // trials, the newest; older ones count for less
)

func (tpe) sample(k *knowledge) Values {
	good, others := split(k.trials)
	below, above := newDensity(k.space, good), newDensity(k.space, others)
	var best Values
	most, bestFresh := 0.0, false
	for range candidates {
		v := below.draw(k.rand)
		fresh := k.fresh(v)
		if bestFresh && !fresh {
			continue
		}
		x := k.space.point(v)
		if score := below.at(x) / above.at(x); best == nil || fresh && !bestFresh || score > most {
			best, most, bestFresh = v, score, fresh
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
	n := min(int(math.Ceil(goodShare*float64(len(ranked)))), goodMost)
	good, others = ranked[:n:n], append(others, ranked[n:]...)
	for _, list := range [][]observation{good, others} {
		slices.SortFunc(list, func(a, b observation) int { return a.number - b.number })
	}
	return good, others
}

// A share is the part of [0,1] that Param.At makes one value of: an interval, a point of a continuum, or
// nothing, high being below low, where the parameter is not used.
type share struct{ low, high float64 }

// point returns the shares of values, by parameter.
func (s *Space) point(v Values) []share {
	list := make([]share, len(s.Params))
	for i, p := range s.Params {
		one, used := v[p.Name]
		if !used {
			list[i] = share{0, -1}
			continue
		}
		u := p.Unit(one)
		switch n := p.Count(); {
		case n == 0:
			list[i] = share{u, u}
		case p.Log:
			x, low, high := asFloat(one), math.Log(p.Low-.5), math.Log(p.High+.5)
			list[i] = share{(math.Log(x-.5) - low) / (high - low), (math.Log(x+.5) - low) / (high - low)}
		default:
			list[i] = share{u - .5/float64(n), u + .5/float64(n)}
		}
	}
	return list
}

// A density is a mixture over the values of a space: a product of kernels for each of some trials, and
// the even density. A trial without a parameter, because another one made it unused, has the even
// density there, so that each product is a density over the whole tree of values.
type density struct {
	space   *Space
	weights []float64  // of the trials and of the even density; their sum is 1
	kernels [][]kernel // by trial and parameter; a kernel that is not there is even
}

// A kernel is a density on [0,1], the range of one parameter, around one value.
type kernel interface {
	// draw makes a number with the density of an even one.
	draw(u float64) float64
	// at returns the mean density on a share.
	at(x share) float64
}

func newDensity(s *Space, trials []observation) *density {
	n := len(trials)
	d := &density{space: s, weights: make([]float64, n+1), kernels: make([][]kernel, n+1)}
	points, sum := make([][]share, n), 1.0
	for i, o := range trials {
		points[i] = s.point(o.values)
		d.weights[i] = 1
		if n-i > fullWeight {
			d.weights[i] = float64(i+1) / float64(n-fullWeight+1)
		}
		sum += d.weights[i]
	}
	d.weights[n] = 1
	for i := range d.weights {
		d.weights[i] /= sum
		d.kernels[i] = make([]kernel, len(s.Params))
	}
	for j, p := range s.Params {
		if p.Count() == 1 {
			continue
		}
		var have []int // trials
		var centres []float64
		for i, x := range points {
			if x[j].low <= x[j].high {
				have = append(have, i)
				centres = append(centres, (x[j].low+x[j].high)/2)
			}
		}
		if p.Ordered() {
			for x, width := range widths(centres) {
				d.kernels[have[x]][j] = newNormal(centres[x], width)
			}
			continue
		}
		for x, i := range have {
			n := float64(len(have))
			d.kernels[i][j] = oneChoice{centres[x], float64(len(p.Choices)), (n + 1) / (n + 4)}
		}
	}
	return d
}

// widths returns the standard deviations of normal kernels: the distance to the farther one of both neighbours,
// at least what the kernels and two more would have of the range if they were even, and at least 1/100.
func widths(centres []float64) []float64 {
	n := len(centres)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(centres[a], centres[b]) })
	list := make([]float64, n)
	for x, i := range order {
		left, right := 0.0, 0.0
		if x > 0 {
			left = centres[i] - centres[order[x-1]]
		}
		if x < n-1 {
			right = centres[order[x+1]] - centres[i]
		}
		if n == 1 { // its neighbours are the ends
			left, right = centres[i], 1-centres[i]
		}
		list[i] = max(left, right, 1/min(100, float64(n+2)))
	}
	return list
}

func (d *density) draw(r *rand.Rand) Values {
	u, i := r.Float64(), 0
	for i < len(d.weights)-1 && u >= d.weights[i] {
		u -= d.weights[i]
		i++
	}
	return d.space.Build(func(p *Param, _ Values) any {
		if k := d.kernels[i][slices.Index(d.space.Params, p)]; k != nil {
			return p.At(k.draw(r.Float64()))
		}
		return p.At(r.Float64())
	})
}

// at returns the density at a point, as a multiple of the even one.
func (d *density) at(x []share) (sum float64) {
	for i, w := range d.weights {
		for j, k := range d.kernels[i] {
			if k != nil && x[j].low <= x[j].high {
				w *= k.at(x[j])
			}
		}
		sum += w
	}
	return sum
}

// oneChoice is a choice with a probability of its own; the rest is even among all choices.
type oneChoice struct{ centre, choices, own float64 }

func (k oneChoice) draw(u float64) float64 {
	if u < k.own {
		return k.centre
	}
	return (u - k.own) / (1 - k.own)
}

func (k oneChoice) at(x share) float64 {
	if x.low < k.centre && k.centre < x.high {
		return 1 - k.own + k.own*k.choices
	}
	return 1 - k.own
}

// normal is a normal density, cut at 0 and 1.
type normal struct {
	centre, width float64
	below, mass   float64 // of the whole density: below 0, and between 0 and 1
}

func newNormal(centre, width float64) normal {
	k := normal{centre: centre, width: width}
	k.below = k.upTo(0)
	k.mass = k.upTo(1) - k.below
	return k
}

// upTo returns how much of the whole density is below x.
func (k normal) upTo(x float64) float64 { return math.Erfc((k.centre-x)/k.width/math.Sqrt2) / 2 }

func (k normal) draw(u float64) float64 {
	return k.centre - k.width*math.Sqrt2*math.Erfcinv(2*(k.below+u*k.mass))
}

func (k normal) at(x share) float64 {
	if x.low < x.high {
		return (k.upTo(x.high) - k.upTo(x.low)) / (x.high - x.low) / k.mass
	}
	z := (x.low - k.centre) / k.width
	return math.Exp(-z*z/2) / (k.width * k.mass * math.Sqrt(2*math.Pi))
}
