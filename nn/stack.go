package nn

import (
	"cmp"
	"fmt"

	"github.com/carousel-ml/carousel/tensor"
)

// Stack is a stack of recurrent layers of any kinds and widths, optionally with residual
// connections (Wu et al. 2016). An [RNN] is a stack of layers of one kind and width.
type Stack struct {
	Layers []*RNN // parameters are layers.0.weight_ih_l0 and so on
	opt    StackOptions
}

// StackOptions changes a Stack; nil means none of them.
type StackOptions struct {
	Residual  bool    // a layer whose output is as wide as its input adds its input to its output
	Dropout   float32 // probability in [0,1), of the output of each layer but the last, before Residual; needs two layers
	TimeMajor bool    // input and output are [T,B,F]; the layers must not be TimeMajor
}

// NewStack returns a stack of layers, the output of each as wide as the input of the
// next. It panics with a [*tensor.UseError] if widths differ or an option would have no
// effect.
func NewStack(layers []*RNN, o *StackOptions) *Stack {
	s := &Stack{Layers: layers, opt: *cmp.Or(o, &StackOptions{})}
	check := func(ok bool, format string, args ...any) { tensor.Check(ok, "nn: Stack", format, args...) }
	check(len(layers) > 0, "needs a layer")
	residual := false
	for i, m := range layers {
		if i > 0 {
			check(layers[i-1].OutputSize() == m.in, "the output of layer %d has %d features, and the input of layer %d has %d", i-1, layers[i-1].OutputSize(), i, m.in)
		}
		check(!m.opt.TimeMajor, "layer %d is TimeMajor: set that in StackOptions", i)
		residual = residual || m.in == m.OutputSize()
	}
	check(!s.opt.Residual || residual, "Residual needs a layer whose output is as wide as its input")
	check(s.opt.Dropout == 0 || len(layers) > 1, "Dropout acts between layers, and there is one layer")
	return s
}

// OutputSize returns the number of features of the output.
func (s *Stack) OutputSize() int { return s.Layers[len(s.Layers)-1].OutputSize() }

// Forward is [RNN.Forward] through all layers. init has a state for each layer; a nil
// slice or state means zeros or the trained state. The slice final is valid until the
// tape's Reset.
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
		y, final[i] = m.steps(x, from, false)
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
