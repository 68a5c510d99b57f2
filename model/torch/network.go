package torch

import (
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Task is the task of the model directories that [SaveDir] writes: weights, and
// what layers they are of.
const Task = "weights"

// Network is the layers of an architecture, with their weights, to compute with.
type Network struct {
	Arch *Architecture
	Slab *tensor.Slab // parameters under the state_dict's names
	// modules are *nn.RNN, *nn.Linear, *nn.Embedding or *nn.LayerNorm, by layer.
	modules []any
}

// Build makes the layers that arch describes and loads f into them. Tensors of
// no layer (arch.Other) stay out. What does not fit is a *model.FileError that
// names the tensor, what was expected and what came; so is a layer that this
// library does not compute.
func Build(dev *tensor.Device, arch *Architecture, f *model.File) (*Network, error) {
	n := &Network{Arch: arch}
	var names []string
	for i := range arch.Layers {
		l := &arch.Layers[i]
		m, err := l.module()
		if err != nil {
			return nil, &model.FileError{File: f.Path, Tensor: l.tensors()[0].name, Problem: err.Error(), Err: err}
		}
		n.modules = append(n.modules, m)
		for _, s := range l.tensors() {
			names = append(names, s.name)
		}
	}
	n.Slab = tensor.Pack(dev, n.modules, 0)
	for i, p := range n.Slab.Params {
		p.Name = names[i]
	}
	var kept []model.Tensor
	for _, t := range f.Tensors {
		if !slices.Contains(arch.Other, t.Name) {
			kept = append(kept, t)
		}
	}
	part, err := model.NewFile(f.Path, kept, nil)
	if err != nil {
		return nil, err
	}
	return n, part.Load(n.Slab)
}

// module makes the layer of package nn, whose parameters are in the order of
// l.tensors.
func (l *Layer) module() (any, error) {
	switch l.Kind {
	case Linear:
		return nn.NewLinear(l.Input, l.Output, &nn.LinearOptions{NoBias: !l.Bias}), nil
	case Embedding:
		return nn.NewEmbedding(l.Input, l.Output, nil), nil
	case LayerNorm:
		return nn.NewLayerNorm(l.Input), nil
	}
	o := &nn.RNNOptions{Layers: l.Layers, Bidirectional: l.Bidirectional, NoBias: !l.Bias, ReLU: l.Kind == RNNReLU, Proj: l.Proj}
	switch l.Kind {
	case LSTM:
		return nn.NewLSTM(l.Input, l.Hidden, o), nil
	case GRU:
		return nn.NewGRU(l.Input, l.Hidden, o), nil
	case RNNTanh, RNNReLU:
		return nn.NewRNN(l.Input, l.Hidden, o), nil
	}
	return nil, fmt.Errorf("layers of kind %s are not known", quote(string(l.Kind)))
}

// Module is the layer of that name: an *nn.RNN, *nn.Linear, *nn.Embedding or
// *nn.LayerNorm, or nil. A single-step cell is an *nn.RNN of one layer.
func (n *Network) Module(name string) any {
	for i, l := range n.Arch.Layers {
		if l.Name == name {
			return n.modules[i]
		}
	}
	return nil
}

// SaveDir writes a model directory of all tensors of f, those of no layer too,
// with arch as its configuration.
func SaveDir(dir string, arch *Architecture, f *model.File) error {
	return model.SaveTensors(dir, Task, arch, f.Tensors, f.Meta)
}

// OpenDir reads the weights and architecture of a model directory, whatever its
// task: one of [Task] says its architecture, and in any other it is found as by
// [Describe], with the hints.
func OpenDir(dir string, hints map[string]Kind) (*model.File, *Architecture, error) {
	d, err := model.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	if d.Task != Task {
		arch, err := Describe(d.Weights, hints)
		return d.Weights, arch, err
	}
	var saved Architecture
	if err := d.Decode(&saved); err != nil {
		return nil, nil, err
	}
	// The weights themselves say everything but the answers to open questions.
	kinds := map[string]Kind{}
	for _, l := range saved.Layers {
		kinds[l.Name] = l.Kind
	}
	arch, err := Describe(d.Weights, kinds)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Equal(arch.Layers, saved.Layers) {
		return nil, nil, &model.FileError{File: dir, Problem: "config.json does not describe the weights beside it", Fix: "import them again"}
	}
	return d.Weights, arch, nil
}
