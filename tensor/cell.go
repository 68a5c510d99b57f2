package tensor

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// CellOptions changes the cells of a [Scan]; nil is the cell as it is.
type CellOptions struct {
	Gate   cell.Activation // of the gates: LSTM i,f,o; GRU r,z
	Input  cell.Activation // of the candidate: LSTM g; GRU n; Elman's only one
	Output cell.Activation // LSTM: of c, before the output gate

	GateClip float32 // above 0: pre-activations are clamped to [-GateClip, GateClip] (ONNX's clip)
	CellClip float32 // above 0: so is c (cuDNN's and TFLite's clip)

	RecurrentDropout float32 // in training: of h where it enters R, one mask a sequence (Gal and Ghahramani 2016)
	WeightDrop       float32 // in training: of R's elements, one mask a pass (Merity et al. 2018)
	ZoneoutH         float32 // probability that a unit of h keeps its old value; elsewhere than in training, the mean (Krueger et al. 2017)
	ZoneoutC         float32 // likewise of c

	Custom cell.RowCell // of cell.Custom
}

// State is the recurrent state of a stack, rows in the user's order, each
// [layers*directions, B, width], layer-major then direction: H of the output's
// width and C, for cells that have it, of hidden units times the cell's further
// states (torch.nn.LSTM's h_n and c_n).
type State struct{ H, C *Tensor }

// Detach is the same state as constants: no gradient passes.
func (s *State) Detach() *State {
	if s == nil {
		return nil
	}
	d := s.H.tape.states.next()
	d.H, d.C = Detach(s.H), Detach(s.C)
	return d
}

// Detach is x as a constant that shares its values; nil gives nil.
func Detach(x *Tensor) *Tensor {
	if x == nil {
		return nil
	}
	t := tapeOf("Detach", x)
	y := t.tensors.next()
	*y = *x
	y.grad, y.gradSet, y.needs = device.Buffer{}, false, false
	return y
}

// NewState makes the tensors that [Scan] fills with final states: h of width
// out, c of width beside (0: none).
func (t *Tape) NewState(slots, B, out, beside int) *State {
	s := t.states.next()
	s.H = t.Zeroless(slots, B, out)
	if beside > 0 {
		s.C = t.Zeroless(slots, B, beside)
	}
	return s
}

// stateList is the states of a stack of modules; longer ones are made by hand.
type stateList [16]*State

// NewStates is a list of n states to be filled in, the tape's own until its Reset.
func (t *Tape) NewStates(n int) []*State {
	if n > len(stateList{}) {
		return make([]*State, n)
	}
	return t.lists.next()[:n]
}
