package model

import (
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Kind is the kind of a layer.
type Kind string

// The kinds of layers that a file of weights may hold, with PyTorch's equations
// unless the [Layer] says otherwise.
const (
	LSTM      Kind = "lstm"       // nn.LSTM, nn.LSTMCell
	GRU       Kind = "gru"        // nn.GRU, nn.GRUCell
	RNNTanh   Kind = "rnn_tanh"   // nn.RNN, nn.RNNCell
	RNNReLU   Kind = "rnn_relu"   // the same with nonlinearity="relu"
	Linear    Kind = "linear"     // nn.Linear
	Embedding Kind = "embedding"  // nn.Embedding
	LayerNorm Kind = "layer_norm" // nn.LayerNorm over the last dimension
	Other     Kind = "other"      // none of these: the tensors are kept unchanged
)

// Kinds lists all kinds.
var Kinds = []Kind{LSTM, GRU, RNNTanh, RNNReLU, Linear, Embedding, LayerNorm, Other}

// Cell is the cell of a recurrent layer, which has the kind's name; ok is false for other layers.
func (k Kind) Cell() (c cell.Kind, ok bool) {
	return cell.Find(func(s *cell.Spec) bool { return s.Name == string(k) && s.Torch != "" })
}

// Gates is the number of gates of a recurrent layer, 0 for other layers.
func (k Kind) Gates() int {
	if c, ok := k.Cell(); ok {
		return c.Gates()
	}
	return 0
}

// Recurrent reports whether a layer of this kind has steps and a state.
func (k Kind) Recurrent() bool { return k.Gates() > 0 }

// Layer is one layer of a weights file, whose tensors have PyTorch's names.
type Layer struct {
	Name          string  `json:"name"`                    // the part of its tensors' names before the last dot; "" for a bare module
	Kind          Kind    `json:"kind"`                    // such as lstm, gru, linear or embedding
	Input         int     `json:"input"`                   // input features; for an embedding the vocabulary size
	Output        int     `json:"output"`                  // output features, over all directions
	Eps           float64 `json:"eps,omitempty"`           // epsilon of a layer norm; 0 means 1e-5
	Hidden        int     `json:"hidden,omitempty"`        // units per direction of a recurrent layer
	Layers        int     `json:"layers,omitempty"`        // number of stacked layers
	Bidirectional bool    `json:"bidirectional,omitempty"` // reads in both directions
	Bias          bool    `json:"bias"`                    // whether it has biases
	Proj          int     `json:"proj_size,omitempty"`     // projection size of an LSTM, 0 for none
	Cell          bool    `json:"cell,omitempty"`          // single-step cell such as nn.LSTMCell: names without _l0

	// Variants that PyTorch's layers do not have.
	ResetBefore    bool   `json:"reset_before,omitempty"`    // GRU: the reset gate is applied before the recurrent product, not after it
	GateActivation string `json:"gate_activation,omitempty"` // such as hard_sigmoid; absent: the kind's default
	Activation     string `json:"activation,omitempty"`      // activation of the candidate and, in an LSTM, of c'
}

// PyTorch reports whether PyTorch has such a layer.
func (l *Layer) PyTorch() bool { return !l.ResetBefore && l.GateActivation+l.Activation == "" }

// Directions is 1 or 2.
func (l *Layer) Directions() int {
	if l.Bidirectional {
		return 2
	}
	return 1
}

// State is the number of features of h.
func (l *Layer) State() int {
	if l.Proj > 0 {
		return l.Proj
	}
	return l.Hidden
}

// Shape is a tensor's name and dimensions.
type Shape struct {
	Name string
	Dims []int
}

// Tensors lists the tensors of the layer, in PyTorch's order.
func (l *Layer) Tensors() []Shape {
	var ts []Shape
	add := func(base string, dims ...int) { ts = append(ts, Shape{l.Full(base), dims}) }
	switch l.Kind {
	case Linear:
		add("weight", l.Output, l.Input)
	case Embedding:
		add("weight", l.Input, l.Output)
	case LayerNorm:
		add("weight", l.Input)
	default:
		rows, in := l.Kind.Gates()*l.Hidden, l.Input
		for layer := range l.Layers {
			for d := range l.Directions() {
				suffix := l.Suffix(layer, d)
				add("weight_ih"+suffix, rows, in)
				add("weight_hh"+suffix, rows, l.State())
				if l.Bias {
					add("bias_ih"+suffix, rows)
					add("bias_hh"+suffix, rows)
				}
				if l.Proj > 0 {
					add("weight_hr"+suffix, l.Proj, l.Hidden)
				}
			}
			in = l.Output
		}
		return ts
	}
	if l.Bias {
		add("bias", l.Output)
	}
	return ts
}

// Full returns the full name of one of the layer's tensors.
func (l *Layer) Full(base string) string {
	if l.Name == "" {
		return base
	}
	return l.Name + "." + base
}

// Suffix returns the end of the names of one direction of a recurrent layer,
// such as _l0_reverse.
func (l *Layer) Suffix(layer, direction int) string {
	if l.Cell {
		return ""
	}
	return fmt.Sprintf("_l%d%s", layer, [2]string{"", "_reverse"}[direction])
}

// String describes the layer in a few words: LSTM, 10 -> 32, 2 layers.
func (l *Layer) String() string {
	if l.Kind == LayerNorm {
		return fmt.Sprintf("layer norm, %d", l.Input)
	}
	name := string(l.Kind)
	if c, ok := l.Kind.Cell(); ok {
		name = c.Spec().Torch
		if l.Cell {
			name += " cell"
		}
		if _, nonlinearity, several := strings.Cut(string(l.Kind), "_"); several {
			name += " (" + nonlinearity + ")"
		}
	}
	text := fmt.Sprintf("%s, %d -> %d", name, l.Input, l.Output)
	for _, more := range []struct {
		on   bool
		text string
	}{
		{l.Layers > 1, fmt.Sprintf("%d layers", l.Layers)},
		{l.Bidirectional, "both directions"},
		{l.Proj > 0, fmt.Sprintf("hidden %d projected", l.Hidden)},
		{!l.Bias && l.Kind != Embedding, "no bias"},
		{l.ResetBefore, "reset before"},
		{l.GateActivation != "", "gates " + l.GateActivation},
		{l.Activation != "", l.Activation},
	} {
		if more.on {
			text += ", " + more.text
		}
	}
	return text
}

// Architecture is what can be inferred about a model from a weights file: its
// layers, but not how they are connected.
type Architecture struct {
	Layers []Layer  `json:"layers"`          // in the order of the file
	Other  []string `json:"other,omitempty"` // tensors that belong to no recognised layer
}

// After is what a file says of what is around a layer.
type After struct {
	Activation string // of the layer's output, by Keras's name; "": none, or the file does not say
	LastStep   bool   // of a recurrent layer's output only the last step goes on
	Backwards  bool   // a recurrent layer reads its input backwards
}

// check compares the tensors of a file with the architecture.
func (a *Architecture) check(f *File) error {
	known := slices.Clone(a.Other)
	for i := range a.Layers {
		l := &a.Layers[i]
		if !slices.Contains(Kinds, l.Kind) || min(l.Input, l.Output) < 1 || l.Kind.Recurrent() && (l.Hidden < 1 || l.Layers < 1 || l.Layers > len(f.Tensors)) {
			return fmt.Errorf("layer %q is not one", clip(l.Name))
		}
		for _, s := range l.Tensors() {
			t := f.Lookup(s.Name)
			if t == nil || t.Ints != nil || !slices.Equal(t.Dims, s.Dims) {
				return fmt.Errorf("layer %q has no tensor %q of shape %v", clip(l.Name), clip(s.Name), s.Dims)
			}
			known = append(known, s.Name)
		}
	}
	slices.Sort(known)
	for i := range f.Tensors {
		if _, ok := slices.BinarySearch(known, f.Tensors[i].Name); !ok {
			return fmt.Errorf("tensor %q is of no layer", clip(f.Tensors[i].Name))
		}
	}
	if len(known) != len(f.Tensors) {
		return fmt.Errorf("%d tensors are named, %d are there", len(known), len(f.Tensors))
	}
	return nil
}

// WeightsTask is the task of the model directories that [SaveLayers] writes:
// weights and the description of their layers.
const WeightsTask = "weights"

// SaveLayers writes a model directory with all tensors of f, including those of
// no layer, and arch as its configuration. It returns the errors of [Save].
func SaveLayers(dir string, arch *Architecture, f *File) error {
	return Save(dir, WeightsTask, arch, Tensors(WeightsFile, f.Tensors, f.Meta))
}

// OpenLayers reads a model directory that [SaveLayers] wrote. A directory of
// another task, or a configuration that does not fit the tensors, is a
// [*FileError].
func OpenLayers(d *Dir) (*Architecture, error) {
	arch := &Architecture{}
	if err := d.Decode(arch); err != nil {
		return nil, err
	}
	if err := arch.check(d.Weights); err != nil {
		return nil, &FileError{File: d.Path, Problem: ConfigFile + " does not match the weights: " + err.Error(), Fix: "import them again", Err: err}
	}
	return arch, nil
}

// Network holds the layers of an architecture, with their weights, ready to
// compute.
type Network struct {
	Arch *Architecture
	Slab *tensor.Slab // parameters under the file's names
	// modules are *nn.RNN, *nn.Linear, *nn.Embedding or *nn.LayerNorm, by layer.
	modules []any
}

// Build creates the layers that arch describes and loads f into them. Tensors
// of no layer (arch.Other) are left out. A tensor that does not fit is a
// [*FileError] that names the tensor, the expected and the actual shape; so is
// a layer that this library does not support.
func Build(dev *tensor.Device, arch *Architecture, f *File) (*Network, error) {
	n := &Network{Arch: arch}
	var names []string
	for i := range arch.Layers {
		l := &arch.Layers[i]
		m, err := l.module()
		if err != nil {
			return nil, &FileError{File: f.Path, Problem: fmt.Sprintf("layer %q: %v", clip(l.Name), err), Err: err}
		}
		n.modules = append(n.modules, m)
		for _, s := range l.Tensors() {
			names = append(names, s.Name)
		}
	}
	n.Slab = tensor.Pack(dev, n.modules, 0)
	for i, p := range n.Slab.Params {
		p.Name = names[i]
	}
	var kept []Tensor
	for _, t := range f.Tensors {
		if !slices.Contains(arch.Other, t.Name) {
			kept = append(kept, t)
		}
	}
	part, err := NewFile(f.Path, kept, nil)
	if err != nil {
		return nil, err
	}
	return n, part.Load(n.Slab)
}

// module creates the layer of package nn, whose parameters are in the order of
// l.Tensors.
func (l *Layer) module() (_ any, err error) {
	switch l.Kind {
	case Linear:
		return nn.NewLinear(l.Input, l.Output, &nn.LinearOptions{NoBias: !l.Bias}), nil
	case Embedding:
		return nn.NewEmbedding(l.Input, l.Output, nil), nil
	case LayerNorm:
		m := nn.NewLayerNorm(l.Input)
		if l.Eps != 0 {
			m.Eps = float32(l.Eps)
		}
		return m, nil
	}
	kind, ok := l.Kind.Cell()
	if !ok {
		return nil, fmt.Errorf("layers of kind %q are not known", clip(string(l.Kind)))
	}
	if l.Hidden > maxUnits || l.Layers > maxLayers {
		return nil, fmt.Errorf("%d layers of %d units; want at most %d of %d", l.Layers, l.Hidden, maxLayers, maxUnits)
	}
	gate, known := cell.ActivationNamed(l.GateActivation)
	act, ok := cell.ActivationNamed(l.Activation)
	if !ok || !known {
		return nil, fmt.Errorf("activations %q and %q are not both known", clip(l.GateActivation), clip(l.Activation))
	}
	o := &nn.RNNOptions{Layers: l.Layers, Bidirectional: l.Bidirectional, NoBias: !l.Bias, Proj: l.Proj,
		ResetBefore: l.ResetBefore, GateActivation: gate, Activation: act}
	if kind.Has(cell.WithOutputActivation) {
		o.OutputActivation = act
	}
	if kind.Spec().By == cell.WithReLU {
		o.Activation = cell.Own // the cell has it
	}
	defer tensor.Recover(&err)
	return nn.New(kind, l.Input, l.Hidden, o), nil
}

// The largest stack of recurrent layers that is made from a description.
const (
	maxUnits  = 8192
	maxLayers = 16
)

// Module returns the layer of that name: an *nn.RNN, *nn.Linear, *nn.Embedding
// or *nn.LayerNorm, or nil. A single-step cell is an *nn.RNN of one layer.
func (n *Network) Module(name string) any {
	for i, l := range n.Arch.Layers {
		if l.Name == name {
			return n.modules[i]
		}
	}
	return nil
}
