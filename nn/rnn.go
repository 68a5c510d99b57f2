package nn

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/tensor"
)

// RNN is a stack of recurrent layers, in one or both directions, with the
// semantics of torch.nn.LSTM, GRU and RNN. With σ the logistic function:
//
//	LSTM   i = σ(Wᵢx + bᵢ + Rᵢh + b'ᵢ)   f, o likewise   g = tanh(W_g x + b_g + R_g h + b'_g)
//	       c' = f⊙c + i⊙g                h' = o⊙tanh(c')
//	GRU    r = σ(Wᵣx + bᵣ + Rᵣh + b'ᵣ)   z likewise
//	       n = tanh(W_n x + b_n + r⊙(R_n h + b'_n))      h' = (1-z)⊙n + z⊙h
//	RNN    h' = tanh or ReLU of (W x + b + R h + b')
//
// LSTM after Hochreiter and Schmidhuber 1997 with the forget gate of Gers et
// al. 2000; GRU after Cho et al. 2014 with the reset gate applied after the
// recurrent product, as PyTorch and cuDNN do.
//
// Differences from PyTorch: batches are [B,T,F] unless TimeMajor (PyTorch's
// batch_first); rows may have length 0; dropout between layers that do not
// exist is refused.
type RNN struct {
	// Weights holds, for each layer and direction, weight_ih_lK [G*H,in],
	// weight_hh_lK [G*H,H] and unless NoBias bias_ih_lK and bias_hh_lK [G*H],
	// with the suffix _reverse for the second direction.
	Weights []*tensor.Param

	cell   tensor.Cell
	in     int
	hidden int
	opt    RNNOptions
}

// RNNOptions changes a stack; nil is one layer, forward, with biases and
// PyTorch's initial values.
type RNNOptions struct {
	Layers        int     // 0 means 1
	Bidirectional bool    // a second stack reads each row from its true end; outputs are joined
	Dropout       float32 // on the output of each layer but the last, a fresh mask each step; needs two layers
	NoBias        bool
	TimeMajor     bool    // input and output are [T,B,F]
	ForgetBias    float32 // LSTM: initial value of the forget gate's two biases together; 0 leaves PyTorch's
	Orthogonal    bool    // recurrent matrices start orthogonal, gate by gate, and input matrices Xavier
	ReLU          bool    // NewRNN: ReLU in place of tanh
}

// State is the recurrent state of a stack: H, and C for an LSTM, each
// [layers*directions,B,H], layer-major then direction. Absent (nil) is zeros.
type State = tensor.State

// NewLSTM is a stack of LSTM layers (torch.nn.LSTM).
func NewLSTM(in, hidden int, o *RNNOptions) *RNN { return newRNN(tensor.LSTMCell, in, hidden, o) }

// NewGRU is a stack of GRU layers (torch.nn.GRU).
func NewGRU(in, hidden int, o *RNNOptions) *RNN { return newRNN(tensor.GRUCell, in, hidden, o) }

// NewRNN is a stack of Elman layers (torch.nn.RNN).
func NewRNN(in, hidden int, o *RNNOptions) *RNN {
	if o != nil && o.ReLU {
		return newRNN(tensor.RNNReLUCell, in, hidden, o)
	}
	return newRNN(tensor.RNNTanhCell, in, hidden, o)
}

func newRNN(cell tensor.Cell, in, hidden int, o *RNNOptions) *RNN {
	m := &RNN{cell: cell, in: in, hidden: hidden}
	if o != nil {
		m.opt = *o
	}
	if m.opt.Layers == 0 {
		m.opt.Layers = 1
	}
	switch {
	case in < 1 || hidden < 1 || m.opt.Layers < 1:
		panic(fmt.Sprintf("nn: RNN: sizes must be positive, got input %d, hidden %d, layers %d", in, hidden, m.opt.Layers))
	case m.opt.Dropout > 0 && m.opt.Layers == 1:
		panic("nn: RNN: Dropout acts between layers, and there is one layer: use nn.Dropout on the output")
	case m.opt.ForgetBias != 0 && (cell != tensor.LSTMCell || m.opt.NoBias):
		panic("nn: RNN: ForgetBias needs an LSTM with biases")
	}
	for layer := range m.opt.Layers {
		width := in
		if layer > 0 {
			width = hidden * m.Directions()
		}
		for d := range m.Directions() {
			m.addDirection(fmt.Sprintf("_l%d%s", layer, [2]string{"", "_reverse"}[d]), width)
		}
	}
	return m
}

func (m *RNN) addDirection(suffix string, width int) {
	gates := tensor.Gates(m.cell)
	rows := gates * m.hidden
	uniform := Uniform(1 / math.Sqrt(float64(m.hidden)))
	w, r := uniform, uniform
	if m.opt.Orthogonal {
		w, r = PerGate(gates, Xavier), PerGate(gates, Orthogonal)
	}
	m.Weights = append(m.Weights,
		tensor.NewParam("weight_ih"+suffix, w, rows, width),
		tensor.NewParam("weight_hh"+suffix, r, rows, m.hidden))
	if m.opt.NoBias {
		return
	}
	for i, name := range []string{"bias_ih", "bias_hh"} {
		b := tensor.NewParam(name+suffix, m.initBias(i, uniform), rows)
		b.NoDecay = true
		m.Weights = append(m.Weights, b)
	}
}

// initBias gives the forget gate its bias in the first of the two vectors: 1 must be 1 in their sum.
func (m *RNN) initBias(which int, uniform tensor.Init) tensor.Init {
	if m.opt.ForgetBias == 0 {
		return uniform
	}
	return func(r *rand.Rand, w []float32, dims []int) {
		uniform(r, w, dims)
		forget := w[m.hidden : 2*m.hidden]
		clear(forget)
		if which == 0 {
			for i := range forget {
				forget[i] = m.opt.ForgetBias
			}
		}
	}
}

// Directions is 1, or 2 if bidirectional.
func (m *RNN) Directions() int {
	if m.opt.Bidirectional {
		return 2
	}
	return 1
}

// Hidden is the number of units a layer and direction.
func (m *RNN) Hidden() int { return m.hidden }

// OutputSize is the number of features of the output: directions × hidden.
func (m *RNN) OutputSize() int { return m.Directions() * m.hidden }

// Layers is the number of layers.
func (m *RNN) Layers() int { return m.opt.Layers }

// Cell is the kind of cell.
func (m *RNN) Cell() tensor.Cell { return m.cell }

// Forward runs the stack over x [B,T,in] from an initial state (nil: zeros) and
// returns the last layer's outputs [B,T,directions*hidden] and the final state
// of every layer and direction.
//
// If x knows its lengths (tape.Sequences), each row stops at its own end: past
// it the output is zero and passes no gradient, the final state is that after
// the row's last true step, and the reverse direction begins there. A row of
// length 0 gives zeros and returns its initial state.
//
// Shapes that do not fit panic with a *tensor.ShapeError.
func (m *RNN) Forward(x *tensor.Tensor, init *State) (y *tensor.Tensor, final *State) {
	tape := x.Tape()
	if tape == nil || x.Rank() != 3 || x.Dim(2) != m.in {
		panic(&tensor.ShapeError{Op: "RNN", Msg: fmt.Sprintf("needs a batch [B,T,%d] on a tape, got %v", m.in, x.Dims())})
	}
	if !m.opt.TimeMajor {
		x = tensor.TimeMajor(x)
	}
	D := m.Directions()
	final = tape.NewState(m.cell, m.opt.Layers*D, x.Dim(1), m.hidden)
	for layer := range m.opt.Layers {
		if layer > 0 {
			x = tensor.Dropout(x, m.opt.Dropout)
		}
		var dirs [2]tensor.Direction
		for d := range D {
			dirs[d] = m.direction(layer*D + d)
		}
		x = tensor.Scan(m.cell, x, dirs[:D], init, final)
	}
	if !m.opt.TimeMajor {
		x = tensor.BatchMajor(x)
	}
	return x, final
}

// direction gathers the parameters of a slot.
func (m *RNN) direction(slot int) tensor.Direction {
	d := tensor.Direction{Reverse: slot%m.Directions() == 1, Slot: slot}
	if m.opt.NoBias {
		p := m.Weights[slot*2:]
		d.W, d.R = p[0].T(), p[1].T()
		return d
	}
	p := m.Weights[slot*4:]
	d.W, d.R, d.BW, d.BR = p[0].T(), p[1].T(), p[2].T(), p[3].T()
	return d
}
