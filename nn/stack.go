package nn

import (
	"fmt"

	"github.com/carousel-ml/carousel/tensor"
)

// Stack is recurrent layers of any kinds and widths, one on the other, if
// wanted with residual connections (Wu et al. 2016). A single [RNN] stacks
// layers of one width.
type Stack struct {
	Layers []*RNN // parameters are layers.0.weight_ih_l0 and so on
	opt    StackOptions
}

// StackOptions changes a Stack; nil only joins the layers.
type StackOptions struct {
	Residual  bool    // a layer that keeps the width adds its input to its output
	Dropout   float32 // on the output of each layer but the last, before what Residual adds; needs two layers
	TimeMajor bool    // input and output are [T,B,F]; the layers themselves say nothing
}

// NewStack joins layers, each as wide as the next one's input. It panics where
// widths differ, or where an option would do nothing.
func NewStack(layers []*RNN, o *StackOptions) *Stack {
	s := &Stack{Layers: layers}
	if o != nil {
		s.opt = *o
	}
	check := func(ok bool, format string, args ...any) { tensor.Check(ok, "nn: Stack", format, args...) }
	check(len(layers) > 0, "needs a layer")
	residual := false
	for i, m := range layers {
		if i > 0 {
			check(layers[i-1].OutputSize() == m.in, "layer %d gives %d features, and layer %d takes %d", i-1, layers[i-1].OutputSize(), i, m.in)
		}
		check(!m.opt.TimeMajor, "layer %d is TimeMajor: set that in StackOptions", i)
		residual = residual || m.in == m.OutputSize()
	}
	check(!s.opt.Residual || residual, "Residual needs a layer whose output is as wide as its input")
	check(s.opt.Dropout == 0 || len(layers) > 1, "Dropout acts between layers, and there is one layer")
	return s
}

// OutputSize is the number of features of the output.
func (s *Stack) OutputSize() int { return s.Layers[len(s.Layers)-1].OutputSize() }

// Forward is [RNN.Forward] through all layers. init is a state for each layer;
// nil, or nil in a layer's place, is zeros or the trained one.
func (s *Stack) Forward(x *tensor.Tensor, init []*State) (y *tensor.Tensor, final []*State) {
	tape := x.Tape()
	if tape == nil || x.Rank() != 3 || x.Dim(2) != s.Layers[0].in {
		panic(&tensor.ShapeError{Op: "Stack", Msg: fmt.Sprintf("needs a batch [B,T,%d] on a tape, got %v", s.Layers[0].in, x.Dims())})
	}
	if init != nil && len(init) != len(s.Layers) {
		panic(&tensor.ShapeError{Op: "Stack", Msg: fmt.Sprintf("needs a state for each of %d layers, got %d", len(s.Layers), len(init))})
	}
	if !s.opt.TimeMajor {
		x = tensor.TimeMajor(x)
	}
	final = tape.NewStates(len(s.Layers))
	for i, m := range s.Layers {
		var from *State
		if init != nil {
			from = init[i]
		}
		y, final[i] = m.steps(x, from)
		if i < len(s.Layers)-1 {
			y = tensor.Dropout(y, s.opt.Dropout)
		}
		if s.opt.Residual && m.in == m.OutputSize() {
			y = tensor.Add(y, x)
		}
		x = y
	}
	if !s.opt.TimeMajor {
		x = tensor.BatchMajor(x)
	}
	return x, final
}
