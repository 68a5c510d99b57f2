package keras

import (
	"fmt"

	"github.com/carousel-ml/carousel/model"
)

// gateOrder lists, for each gate of this library in order, its position in
// Keras: i f g o in i f c o, r z n in z r h.
var gateOrder = map[model.Kind][]int{model.LSTM: {0, 1, 2, 3}, model.GRU: {1, 0, 2}, model.RNNTanh: {0}, model.RNNReLU: {0}}

// activationNames maps Keras's names of the activations that the engine
// supports to its names.
var activationNames = map[string]string{
	"tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu", "linear": "identity",
	"softsign": "softsign", "elu": "elu", "softplus": "softplus", "hard_tanh": "hard_tanh",
}

// activationName returns a setting's activation: Keras writes a name, nothing,
// or an object for a custom function.
func activationName(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return "a custom function"
}

// equations determines a cell's kind and activations; false, after a note, if
// the engine does not support them.
func (c *converter) equations(s *spec, l *model.Layer) bool {
	l.Kind = map[string]model.Kind{"LSTM": model.LSTM, "GRU": model.GRU, "SimpleRNN": model.RNNTanh}[s.class]
	if s.hint == model.RNNReLU {
		l.Kind = model.RNNReLU
	}
	inner, gate := "tanh", "sigmoid"
	if !s.guessed {
		inner, gate = activationName(s.settings.Activation), activationName(s.settings.RecurrentActivation)
		if inner == "" {
			inner = "linear"
		}
		if gate == "" {
			gate = "linear"
		}
	}
	if s.class == "SimpleRNN" {
		gate = "sigmoid" // there is none
		if inner == "relu" {
			l.Kind, inner = model.RNNReLU, "tanh"
		}
	}
	for _, a := range []struct {
		name, own string
		to        *string
	}{{inner, "tanh", &l.Activation}, {gate, "sigmoid", &l.GateActivation}} {
		name, ok := activationNames[a.name]
		if a.name == "hard_sigmoid" && c.legacy.keras2() {
			name, ok = a.name, true
			c.note("layer %s: its hard_sigmoid is that of Keras 2, 0.2x + 0.5; Keras 3 has x/6 + 0.5", s.name)
		}
		if !ok {
			c.note("layer %s: Keras's activation %s is not supported by this library's cells: its arrays are kept unchanged", s.name, a.name)
			return false
		}
		if a.name != a.own {
			*a.to = name
		}
	}
	if s.settings.GoBackwards && len(s.paths) == 1 {
		c.note("layer %s: it reads backwards (go_backwards) and returns its outputs in that order: reverse its input", s.name)
	}
	if m := s.settings.Merge; len(s.paths) == 2 && (m == nil && !s.guessed || m != nil && *m != "concat") {
		c.note("layer %s: its directions are merged by another merge_mode than concatenation, which is what this library does", s.name)
	}
	return true
}

// recurrent converts the arrays of a recurrent layer.
func (c *converter) recurrent(s *spec, l *model.Layer) ([][]*array, error) {
	order := gateOrder[l.Kind]
	var all [][]*array
	for d, path := range s.paths {
		a, err := c.take(s, path, 2, 3)
		if err != nil {
			return nil, err
		}
		if s.cudnn {
			if err := s.plain(a, len(order)); err != nil {
				return nil, err
			}
		}
		if d == 0 {
			if err := c.sizes(s, l, path, a); err != nil {
				return nil, err
			}
		}
		rows, bias := len(order)*l.Hidden, len(a) == 3
		if err := s.want(a[0], l.Input, rows); err != nil {
			return nil, err
		}
		if err := s.want(a[1], l.Hidden, rows); err != nil {
			return nil, err
		}
		if bias != l.Bias {
			return nil, &model.FileError{Tensor: path, Problem: fmt.Sprintf("layer %q: one direction has a bias, the other none", s.name)}
		}
		suffix := l.Suffix(0, d)
		c.put(l, "weight_ih"+suffix, turned(a[0], order), rows, l.Input)
		c.put(l, "weight_hh"+suffix, turned(a[1], order), rows, l.Hidden)
		if bias {
			if err := c.biases(s, l, path, suffix, a[2]); err != nil {
				return nil, err
			}
		} else {
			a = append(a, nil)
		}
		all = append(all, a)
	}
	return all, nil
}

// plain turns arrays in the layout of cuDNN into those of the LSTM or GRU with the
// same equations. In cuDNN's each gate's part of the kernel has the elements of its
// transpose in row-major order, its part of the recurrent kernel is the transpose,
// and there are two vectors of biases, which an LSTM adds.
func (s *spec) plain(a []*array, gates int) error {
	if len(a) != 3 || len(a[0].dims) != 2 || len(a[1].dims) != 2 {
		return &model.FileError{Tensor: s.paths[0], Problem: fmt.Sprintf("layer %q is a %s of cuDNN: expected two matrices and a vector", s.name, s.class)}
	}
	in, hidden := a[0].dims[0], a[1].dims[0]
	rows := gates * hidden
	for i, dims := range [][]int{{in, rows}, {hidden, rows}, {2 * rows}} {
		if err := s.want(a[i], dims...); err != nil {
			return err
		}
	}
	for _, m := range a[:2] {
		n, data := m.dims[0], make([]float32, len(m.data))
		for g := range gates {
			for i := range n {
				for j := range hidden {
					at := j*n + i // in the gate's transpose
					from := g*hidden + at%hidden + at/hidden*rows
					if m == a[1] {
						from = g*hidden + i + j*rows
					}
					data[g*hidden+j+i*rows] = m.data[from]
				}
			}
		}
		m.data = data
	}
	b := a[2]
	if b.dims = []int{2, rows}; s.class == "LSTM" {
		sum := make([]float32, rows)
		for i := range sum {
			sum[i] = b.data[i] + b.data[rows+i]
		}
		b.dims, b.data = []int{rows}, sum
	}
	return nil
}

// sizes takes the layer's sizes from its first direction.
func (c *converter) sizes(s *spec, l *model.Layer, path string, a []*array) error {
	n := len(gateOrder[l.Kind])
	r := a[1]
	if len(a[0].dims) != 2 || len(r.dims) != 2 || len(a[0].data) == 0 || len(r.data) == 0 {
		return &model.FileError{Tensor: path, Problem: fmt.Sprintf("layer %q is a %s: expected two matrices, got shapes %v and %v", s.name, s.class, a[0].dims, r.dims)}
	}
	l.Input, l.Hidden, l.Layers, l.Bidirectional, l.Bias = a[0].dims[0], r.dims[0], 1, len(s.paths) == 2, len(a) == 3
	l.Output = l.Directions() * l.Hidden
	if err := s.want(r, l.Hidden, n*l.Hidden); err != nil {
		return err
	}
	if l.Kind != model.GRU {
		return nil
	}
	l.ResetBefore = !on(s.settings.ResetAfter)
	if s.settings.ResetAfter == nil && c.legacy.keras2() {
		l.ResetBefore = true // its default
	}
	if s.guessed {
		l.ResetBefore = l.Bias && len(a[2].dims) == 1
		if !l.Bias {
			c.note("layer %s: the arrays of a GRU without biases do not show where it resets: Keras's default, reset_after, is assumed", s.name)
		}
	}
	return nil
}

// biases makes PyTorch's two biases.
func (c *converter) biases(s *spec, l *model.Layer, path, suffix string, b *array) error {
	order := gateOrder[l.Kind]
	rows := len(order) * l.Hidden
	dims := []int{rows}
	if l.Kind == model.GRU && !l.ResetBefore {
		dims = []int{2, rows}
	}
	if err := s.want(b, dims...); err != nil {
		return err
	}
	row := func(i int) []float32 {
		if i >= len(b.data)/rows {
			return make([]float32, rows)
		}
		return turned(&array{dims: []int{1, rows}, data: b.data[i*rows : (i+1)*rows]}, order)
	}
	c.put(l, "bias_ih"+suffix, row(0), rows)
	c.put(l, "bias_hh"+suffix, row(1), rows)
	return nil
}
