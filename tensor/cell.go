package tensor

import "github.com/carousel-ml/carousel/internal/device"

// Cell names a recurrent cell.
type Cell = device.Cell

// The cells of the engine. docs/cells.md has their equations and sources.
const (
	LSTMCell        = device.LSTM        // gates i,f,g,o; states h and c
	GRUCell         = device.GRU         // gates r,z,n, reset after the recurrent product, as PyTorch
	RNNTanhCell     = device.RNNTanh     // Elman
	RNNReLUCell     = device.RNNReLU     // Elman
	CoupledLSTMCell = device.CoupledLSTM // gates i,g,o; the forget gate is 1-i
	GRUBeforeCell   = device.GRUBefore   // gates r,z,n, reset before the recurrent product
	SLSTMCell       = device.SLSTM       // gates i,f,z,o; states h and c|n|m
	MinGRUCell      = device.MinGRU      // gates z,n; no recurrent matrix
	MinLSTMCell     = device.MinLSTM     // gates f,i,n; no recurrent matrix
	CustomCell      = device.Custom      // a [RowCell]
)

// RowCell is a cell given as code: see [device.RowCell] for what it must do.
type RowCell = device.RowCell

// Row is what a [RowCell] works on.
type Row = device.Row

// Gates is the number of gates of a cell, whose matrices have gates*hidden rows.
func Gates(c Cell) int { return device.Cells[c].Gates }

// HasCellState says whether a cell carries c beside h.
func HasCellState(c Cell) bool { return device.Cells[c].States > 1 }

// CellWidth is the width of the states beside h of a cell of hidden units; 0 if it has none.
func CellWidth(c Cell, hidden int) int { return (device.Cells[c].States - 1) * hidden }

// IsFree says whether a cell's gates see the input alone, so that it has no recurrent matrix.
func IsFree(c Cell) bool { return device.Cells[c].Free }

// Activation is a function inside a cell; the zero value is the cell's own.
type Activation = device.Activation

// The activations a cell may use.
const (
	SigmoidActivation     = device.Sigmoid
	TanhActivation        = device.Tanh
	ReLUActivation        = device.ReLU
	HardSigmoidActivation = device.HardSigmoid // min(max(0.2x + 0.5, 0), 1)
	HardTanhActivation    = device.HardTanh    // min(max(x, -1), 1)
	SoftsignActivation    = device.Softsign    // x/(1+|x|)
	IdentityActivation    = device.Identity
	LeakyReLUActivation   = device.LeakyReLU // slope 0.01 below 0
	ELUActivation         = device.ELU       // eˣ-1 below 0
	SoftplusActivation    = device.Softplus
)

// ActivationNamed finds an activation by its name in recipes, such as
// "hard_sigmoid"; "" is the cell's own.
func ActivationNamed(name string) (Activation, bool) {
	for i, n := range device.Activations {
		if n == name {
			return Activation(i), true
		}
	}
	return 0, false
}

// ActivationNames are the names that [ActivationNamed] knows, without "".
func ActivationNames() []string { return device.Activations[1:] }

// CellOptions changes the cells of a [Scan]; nil is the cell as it is.
type CellOptions struct {
	Gate   Activation // of the gates: LSTM i,f,o; GRU r,z
	Input  Activation // of the candidate: LSTM g; GRU n; Elman's only one
	Output Activation // LSTM: of c, before the output gate

	GateClip float32 // above 0: pre-activations are clamped to [-GateClip, GateClip] (ONNX's clip)
	CellClip float32 // above 0: so is c (cuDNN's and TFLite's clip)

	RecurrentDropout float32 // in training: of h where it enters R, one mask a sequence (Gal and Ghahramani 2016)
	WeightDrop       float32 // in training: of R's elements, one mask a pass (Merity et al. 2018)
	ZoneoutH         float32 // probability that a unit of h keeps its old value; elsewhere than in training, the mean (Krueger et al. 2017)
	ZoneoutC         float32 // likewise of c

	Custom RowCell // of CustomCell
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
// out, c of width cell (0: none).
func (t *Tape) NewState(slots, B, out, cell int) *State {
	s := t.states.next()
	s.H = t.Zeroless(slots, B, out)
	if cell > 0 {
		s.C = t.Zeroless(slots, B, cell)
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
