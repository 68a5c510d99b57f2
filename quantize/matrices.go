package quantize

import (
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// network is the matrices of a model.
type network struct{ matrices []*matrix }

// matrix is a weight matrix in all slabs of a model; the first is that of the network that predicts.
type matrix struct {
	name     string
	params   []*tensor.Param
	original [][]float32 // the values of each param
	in4      [][]float32 // likewise in 4 bits, if that was asked for
	table    bool        // of embeddings
	cost     float64     // what its rounding costs; see rank
	scored   bool        // whether that is a share of the accuracy
	rest     tensor.Precision
	why      string // why it does not rest in what was asked for
}

// slabsOf returns the parameters of a model. One of several networks, such as those of other
// stages, has a method Slabs with all of them.
func slabsOf(m *task.Trained) []*tensor.Slab {
	if all, ok := m.Model.(interface{ Slabs() []*tensor.Slab }); ok {
		return all.Slabs()
	}
	return []*tensor.Slab{m.Slab()}
}

// networkOf finds the matrices of a model.
func networkOf(m *task.Trained) *network {
	n, slabs := &network{}, slabsOf(m)
	for _, p := range weights(slabs[0]) {
		one := &matrix{name: p.Name, table: slices.ContainsFunc(slabs[0].Modules, func(m any) bool {
			e, ok := m.(*nn.Embedding)
			return ok && e.Weight == p
		})}
		for _, s := range slabs {
			own := s.Lookup(p.Name)
			one.params, one.original = append(one.params, own), append(one.original, own.Read())
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
		for i, p := range m.params {
			if r := p.Rest(); r != tensor.Float32 {
				return &data.InputError{Problem: fmt.Sprintf("%s rests in %s already", m.name, r), Fix: "quantize the float32 model that it was made from"}
			}
			for at, v := range m.original[i] {
				if v-v != 0 {
					return &data.InputError{Problem: fmt.Sprintf("%s holds %g at element %d, and weights must be finite", m.name, v, at), Fix: "train the model again"}
				}
			}
		}
	}
	return nil
}

// keep lets the matrices with these names, or beginnings of names, stay in float32.
func (n *network) keep(beginnings []string) error {
	var names []string
	for _, m := range n.matrices {
		names = append(names, m.name)
	}
	why, err := reasonsToKeep(beginnings, names)
	for _, m := range n.matrices {
		m.why = why[m.name]
	}
	return err
}

// reasonsToKeep returns by which of --keep a matrix stays in float32, for those that do.
func reasonsToKeep(beginnings, names []string) (map[string]string, error) {
	why := map[string]string{}
	for _, beginning := range beginnings {
		found := false
		for _, name := range names {
			if strings.HasPrefix(name, beginning) {
				why[name], found = "--keep "+beginning, true
			}
		}
		if !found {
			return nil, &data.InputError{Problem: fmt.Sprintf("keep %q: no weight matrix has a name that begins so", beginning), Fix: "choose from " + strings.Join(names, ", ")}
		}
	}
	return why, nil
}

// apply lets the matrices rest as they are to.
func (n *network) apply() {
	for _, m := range n.matrices {
		values := m.original
		if m.rest == tensor.Int4 {
			values = m.in4
		}
		for i, p := range m.params {
			p.SetRest(tensor.Float32)
			p.Write(values[i])
			p.SetRest(m.rest)
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

// roundingError returns the relative error of a matrix as it rests now.
func (m *matrix) roundingError() float64 { return relativeError(m.original[0], m.params[0].Read()) }

// fits reports whether the values of a matrix, rounded to a precision, are finite.
func (m *matrix) fits(r tensor.Precision) bool {
	finite := true
	for i, p := range m.params {
		p.SetRest(r)
		finite = finite && !slices.ContainsFunc(p.Read(), func(v float32) bool { return v-v != 0 })
		p.SetRest(tensor.Float32)
		p.Write(m.original[i])
	}
	return finite
}
