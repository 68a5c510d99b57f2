package tune

import (
	"fmt"
	"iter"
	"maps"
)

// grid visits all values of a space row by row: the last parameter changes first.
type grid struct{}

func (grid) sample(k *knowledge) Values {
	for v := range k.space.all() {
		if k.fresh(v) {
			return v
		}
	}
	return nil
}

// checkGrid returns an error that names a parameter which has too many values for a grid.
func (s *Space) checkGrid() error {
	for _, p := range s.Params {
		switch {
		case p.Count() > 0:
		case p.Log:
			return fmt.Errorf("sampler grid: parameter %s has a logarithmic range; write its values as choices", p.Name)
		default:
			return fmt.Errorf("sampler grid: parameter %s has any number from %s to %s; give it a step", p.Name, number(p.Low), number(p.High))
		}
	}
	return nil
}

// all yields all values of a space whose parameters can be counted.
func (s *Space) all() iter.Seq[Values] {
	return func(yield func(Values) bool) { s.from(0, Values{}, yield) }
}

// from yields all values that begin with those of v, of the parameters before the first, and reports
// whether to go on.
func (s *Space) from(first int, v Values, yield func(Values) bool) bool {
	if first == len(s.Params) {
		return yield(maps.Clone(v))
	}
	p := s.Params[first]
	if !p.Used(v, s) {
		return s.from(first+1, v, yield)
	}
	n := p.Count()
	for i := range n {
		v[p.Name] = p.nth(i)
		if !s.from(first+1, v, yield) {
			return false
		}
	}
	delete(v, p.Name)
	return true
}
