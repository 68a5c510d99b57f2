package optim

import (
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/tensor"
)

// Vector is what an optimizer or an average stores for one parameter.
type Vector struct {
	Name string // kind and parameter, such as "exp_avg.rnn.weight_ih_l0"
	Dims []int  // the parameter's shape
	Data []float32
}

// State is everything an optimizer needs to continue bit for bit.
type State struct {
	Rule    string // "sgd", "adam", "adamw" or "rmsprop"
	Steps   int
	Vectors []Vector
}

// State waits for the device and returns a copy of the optimizer's state.
func (o *Optimizer) State() *State {
	s := &State{Rule: o.rule, Steps: o.steps}
	for _, m := range o.moments() {
		s.Vectors = read(s.Vectors, o.slab, m.name, m.Buffer)
	}
	return s
}

// LoadState restores what State returned. It returns an error, and changes
// nothing, if the state is of another rule, its steps are negative, or the
// parameters' names or shapes differ.
func (o *Optimizer) LoadState(s *State) error {
	if s.Rule != o.rule {
		return fmt.Errorf("the saved state is of rule %s, this optimizer is %s", s.Rule, o.rule)
	}
	if s.Steps < 0 {
		return fmt.Errorf("the saved state has taken %d steps", s.Steps)
	}
	moments := o.moments()
	for _, m := range moments {
		if err := check(s.Vectors, o.slab, m.name); err != nil {
			return err
		}
	}
	if want := len(moments) * len(o.slab.Params); len(s.Vectors) != want {
		return fmt.Errorf("the saved state has %d vectors, this optimizer needs %d", len(s.Vectors), want)
	}
	for _, m := range moments {
		write(s.Vectors, o.slab, m.name, m.Buffer)
	}
	o.steps, o.pending, o.scaled = s.Steps, false, false
	return nil
}

// moments returns the vectors that the rule keeps.
func (o *Optimizer) moments() []moment {
	return slices.DeleteFunc([]moment{o.m, o.v}, func(m moment) bool { return m.Zero() })
}

// read appends a copy of each parameter's range of b.
func read(vs []Vector, slab *tensor.Slab, kind string, b device.Buffer) []Vector {
	for i, p := range slab.Params {
		lo, hi := slab.Range(i)
		data := make([]float32, hi-lo)
		slab.Device().Backend().Download(data, b.Slice(lo, hi))
		vs = append(vs, Vector{kind + "." + p.Name, p.Dims(), data})
	}
	return vs
}

func find(vs []Vector, name string) *Vector {
	if i := slices.IndexFunc(vs, func(v Vector) bool { return v.Name == name }); i >= 0 {
		return &vs[i]
	}
	return nil
}

// check returns an error for a parameter whose vector is missing or has another
// shape.
func check(vs []Vector, slab *tensor.Slab, kind string) error {
	for _, p := range slab.Params {
		name := kind + "." + p.Name
		v := find(vs, name)
		if v == nil {
			return fmt.Errorf("%s is missing from the saved state", name)
		}
		if !slices.Equal(v.Dims, p.Dims()) || len(v.Data) != p.Len() {
			return fmt.Errorf("%s has shape %v in the saved state, the parameter has %v", name, v.Dims, p.Dims())
		}
	}
	return nil
}

func write(vs []Vector, slab *tensor.Slab, kind string, b device.Buffer) {
	for i, p := range slab.Params {
		lo, hi := slab.Range(i)
		slab.Device().Backend().Upload(b.Slice(lo, hi), find(vs, kind+"."+p.Name).Data)
	}
}
