package tune

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// An observation is what a sampler may know of a trial.
type observation struct {
	number int
	values Values
	// losses are the objectives, each turned so that less is better: those of the furthest point that
	// is known. nil: none yet, the trial is at work; NaN: it failed.
	losses []float64
	at     int     // the resource of the losses; math.MaxInt at the end
	excess float64 // by how much measured constraints are broken, 0 if they are kept
}

// knowledge is what a sampler makes a trial from. It must not be changed.
type knowledge struct {
	space      *Space
	objectives int
	trials     []observation   // by number; those at work have no losses
	number     int             // of the trial that is wanted
	first      int             // trials that are not the sampler's: the default and those at random
	seed       uint64          // of the study
	try        int             // how many proposals for it were not fresh
	rand       *rand.Rand      // of this try
	tried      map[string]bool // values of all trials, as texts
}

// fresh reports whether values are of no trial yet and keep the constraints on parameters.
func (k *knowledge) fresh(v Values) bool {
	return !k.tried[k.space.text(v)] && k.space.Allows(v)
}

// finished are the trials with losses, those that failed among them.
func (k *knowledge) finished() (list []observation) {
	for _, o := range k.trials {
		if o.losses != nil {
			list = append(list, o)
		}
	}
	return list
}

// A sampler proposes the values of the next trial as a function of what is known. It keeps nothing
// from one call to the next, so that any worker proposes the same. nil: there are no more values.
type sampler interface {
	sample(k *knowledge) Values
}

// samplers are all of them by name. Those that need no results have no trials at random before.
var samplers = map[string]struct {
	sampler
	blind   bool // it needs no results to begin with
	several bool // it is for several objectives too
}{
	"cmaes":  {cmaes{}, true, false},
	"gp":     {bayes{}, false, true},
	"grid":   {grid{}, true, true},
	"nsga2":  {nsga2{}, false, true},
	"random": {uniform{}, true, true},
	"sobol":  {sobol{}, true, true},
	"tpe":    {tpe{}, false, false},
}

// SamplerNames returns the names of the samplers.
func SamplerNames() []string {
	var list []string
	for name := range samplers {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func (o *Options) checkSampler() error {
	s, has := samplers[o.Sampler]
	if !has {
		return fmt.Errorf("sampler %q: expected one of %s", o.Sampler, strings.Join(SamplerNames(), ", "))
	}
	if len(o.Objectives) > 1 && !s.several {
		return fmt.Errorf("sampler %s is for one objective, and the study has %d", o.Sampler, len(o.Objectives))
	}
	return nil
}

// uniform draws every value with the same probability.
type uniform struct{}

func (uniform) sample(k *knowledge) Values {
	return k.space.Build(func(p *Param, _ Values) any { return p.At(k.rand.Float64()) })
}

// nearby is how far the first trials are from the defaults, as a standard deviation in shares of a
// parameter's range, and how often a choice keeps its default for sure.
const (
	nearby    = 0.2
	nearbyYes = 0.6
)

// around visits Sobol's points like sobol, drawn towards the defaults where there are some.
type around struct{}

func (around) sample(k *knowledge) Values {
	return k.sobol(func(p *Param, u float64) any {
		if p.Default == nil || p.Count() == 1 {
			return p.At(u)
		}
		v, _ := p.take(p.Default)
		var near kernel = newNormal(p.Unit(v), nearby)
		if !p.Ordered() {
			near = oneChoice{p.Unit(v), float64(len(p.Choices)), nearbyYes}
		}
		return p.At(near.draw(u))
	})
}

// isFailed reports whether losses are those of a trial that failed.
func isFailed(losses []float64) bool { return slices.ContainsFunc(losses, math.IsNaN) }
