package quantize

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// network is the parameters of a model that are made to rest together, and its layers.
type network struct {
	slabs    []*tensor.Slab // the first is that which predicts
	matrices []*matrix
}

// matrix is a weight matrix in all slabs.
type matrix struct {
	name   string
	params []*tensor.Param
	table  bool    // of embeddings
	cost   float64 // what its rounding costs; see rank
	basis  string  // of cost
	rest   tensor.Precision
	why    string      // why it does not rest in what was asked for
	in4    [][]float32 // the values of each param in 4 bits, if that was asked for
}

// networkOf finds the matrices of a model. A model of several networks, such as those of
// other stages, has a method Slabs with all of them.
func networkOf(m *task.Trained) *network {
	n := &network{slabs: []*tensor.Slab{m.Slab()}}
	if all, ok := m.Model.(interface{ Slabs() []*tensor.Slab }); ok {
		n.slabs = all.Slabs()
	}
	for _, p := range weights(n.slabs[0]) {
		one := &matrix{name: p.Name, table: slices.ContainsFunc(n.slabs[0].Modules, func(m any) bool {
			e, ok := m.(*nn.Embedding)
			return ok && e.Weight == p
		})}
		for _, s := range n.slabs {
			one.params = append(one.params, s.Lookup(p.Name))
		}
		n.matrices = append(n.matrices, one)
	}
	return n
}

// weights lists the matrices of the layers of a network, in their order: those that inputs or
// states are multiplied with, and tables of embeddings.
func weights(s *tensor.Slab) (list []*tensor.Param) {
	add := func(ps ...*tensor.Param) {
		for _, p := range ps {
			if p != nil && p.Rank() > 1 && !slices.Contains(list, p) { // layers may share one
				list = append(list, p)
			}
		}
	}
	for _, m := range s.Modules {
		switch m := m.(type) {
		case *nn.RNN:
			for _, p := range m.Weights {
				if strings.HasPrefix(p.Name[strings.LastIndexByte(p.Name, '.')+1:], "weight") {
					add(p)
				}
			}
		case *nn.Linear:
			add(m.Weight)
		case *nn.Embedding:
			add(m.Weight)
		case *nn.Conv1d:
			add(m.Weight)
		case *nn.Conv2d:
			add(m.Weight)
		}
	}
	return list
}

// check refuses a model that cannot be rounded.
func (n *network) check() error {
	if len(n.matrices) == 0 {
		return &data.InputError{Problem: "the model has no weight matrix that could be rounded"}
	}
	for _, m := range n.matrices {
		for _, p := range m.params {
			if r := p.Rest(); r != tensor.Float32 {
				return &data.InputError{Problem: fmt.Sprintf("%s rests in %s already", m.name, r), Fix: "quantize the float32 model that it was made from"}
			}
			for i, v := range p.Read() {
				if v-v != 0 {
					return &data.InputError{Problem: fmt.Sprintf("%s holds %g at element %d, and weights must be finite", m.name, v, i), Fix: "train the model again"}
				}
			}
		}
	}
	return nil
}

// keep lets the matrices with these names, or beginnings of names, stay in float32.
func (n *network) keep(names []string) error {
	for _, name := range names {
		found := false
		for _, m := range n.matrices {
			if strings.HasPrefix(m.name, name) {
				m.why, found = "--keep "+name, true
			}
		}
		if !found {
			var all []string
			for _, m := range n.matrices {
				all = append(all, m.name)
			}
			return &data.InputError{Problem: fmt.Sprintf("keep %q: no weight matrix has a name that begins so", name), Fix: "choose from " + strings.Join(all, ", ")}
		}
	}
	return nil
}

// values returns the values of all matrices, to be restored.
func (n *network) values() (all [][]float32) {
	for _, m := range n.matrices {
		for _, p := range m.params {
			all = append(all, p.Read())
		}
	}
	return all
}

// apply lets the matrices rest as they are to, beginning from these values.
func (n *network) apply(values [][]float32) {
	for _, m := range n.matrices {
		for i, p := range m.params {
			p.SetRest(tensor.Float32)
			if m.rest == tensor.Int4 {
				p.Write(m.in4[i])
			} else {
				p.Write(values[0])
			}
			p.SetRest(m.rest)
			values = values[1:]
		}
	}
}

// sizeOf returns the bytes of the parameters of a network.
func sizeOf(s *tensor.Slab) (z Size) {
	for _, p := range s.Params {
		n, rows := int64(p.Len()), int64(p.Dim(0))
		z.Float32 += 4 * n
		switch p.Rest() {
		case tensor.Float32:
			z.Quantized += 4 * n
		case tensor.Int8:
			z.Quantized += n + 4*rows
		case tensor.Int4:
			z.Quantized += (n/rows+1)/2*rows + 4*rows
		default:
			z.Quantized += 2 * n
		}
	}
	z.Share = float64(z.Quantized) / float64(z.Float32)
	return z
}

// roundingError returns the relative error that a matrix has in a precision: the norm of the difference divided by
// the norm.
func (m *matrix) roundingError(values []float32, r tensor.Precision) float64 {
	p := m.params[0]
	p.SetRest(tensor.Float32)
	p.Write(values)
	p.SetRest(r)
	diff, norm := 0.0, 0.0
	for i, v := range p.Read() {
		d := float64(v) - float64(values[i])
		diff += d * d
		norm += float64(values[i]) * float64(values[i])
	}
	p.SetRest(tensor.Float32)
	p.Write(values)
	if norm == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}
