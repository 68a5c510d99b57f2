package tune

import (
	"math"
	"math/rand/v2"
)

// nsga2 draws children of the best trials by the rules of NSGA-II (Deb et al. 2002): parents by tournaments of two,
// simulated binary crossover and polynomial mutation. Its population are the best of all trials at the
// time, as in the steady state form (Durillo et al. 2009), so that no trial waits for a generation.
type nsga2 struct{}

// Numbers for studies of some hundred trials: Deb's population of 100, with spreads of 15 and 20, has
// seen little of what works by then.
const (
	population   = 12
	crossed      = 0.9 // of the children have two parents
	crossSpread  = 3   // the higher, the closer children are to their parents
	mutateSpread = 5   // likewise, to what crossover made
)

func (nsga2) sample(k *knowledge) Values {
	var losses [][]float64
	var excess []float64
	var values []Values
	for _, o := range k.finished() {
		if o.at == math.MaxInt && !isFailed(o.losses) {
			losses, excess, values = append(losses, o.losses), append(excess, o.excess), append(values, o.values)
		}
	}
	if len(values) < 2 {
		return uniform{}.sample(k)
	}
	order := bestFirst(losses, excess)
	order = order[:min(len(order), population)]
	parent := func() Values {
		return values[order[min(k.rand.IntN(len(order)), k.rand.IntN(len(order)))]]
	}
	a, b := parent(), parent()
	if k.rand.Float64() >= crossed {
		b = a
	}
	return k.space.Build(func(p *Param, _ Values) any {
		x, hasX := a[p.Name]
		y, hasY := b[p.Name]
		switch {
		case !hasX && !hasY:
			return p.At(k.rand.Float64())
		case !hasX:
			x = y
		case !hasY:
			y = x
		}
		mutated := k.rand.Float64() < 1/float64(len(a))
		if k.rand.Float64() < .5 {
			x, y = y, x
		}
		if !p.Ordered() {
			if mutated {
				return p.At(k.rand.Float64())
			}
			return x
		}
		u := crossUnits(p.Unit(x), p.Unit(y), k.rand)
		if !mutated {
			return p.At(u)
		}
		v := p.At(mutateUnit(u, k.rand))
		if p.Count() > 0 && v == p.At(u) {
			return p.At(k.rand.Float64()) // the values are too far apart for small steps
		}
		return v
	})
}

// crossUnits returns the child nearer to x of simulated binary crossover (Deb and Agrawal 1995), in [0,1].
func crossUnits(x, y float64, r *rand.Rand) float64 {
	u := r.Float64()
	spread := 2 * u // of the children over that of the parents, to the power of crossSpread + 1
	if u > .5 {
		spread = 1 / (2 - 2*u)
	}
	spread = math.Pow(spread, 1/(crossSpread+1.0))
	return min(max(((1+spread)*x+(1-spread)*y)/2, 0), 1)
}

// mutateUnit moves u by polynomial mutation, within [0,1].
func mutateUnit(u float64, r *rand.Rand) float64 {
	x, power := r.Float64(), mutateSpread+1.0
	if x < .5 {
		return u + math.Pow(2*x+(1-2*x)*math.Pow(1-u, power), 1/power) - 1
	}
	return u + 1 - math.Pow(2-2*x+(2*x-1)*math.Pow(u, power), 1/power)
}
