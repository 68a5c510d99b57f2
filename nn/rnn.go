package nn

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/tensor"
)

// RNN is a stack of recurrent layers, in one or both directions, with the
// semantics of torch.nn.LSTM, GRU and RNN. With the logistic function σ:
//
//	LSTM   i = σ(Wᵢx + bᵢ + Rᵢh + b'ᵢ)   f, o likewise   g = tanh(W_g x + b_g + R_g h + b'_g)
//	       c' = f⊙c + i⊙g                h' = o⊙tanh(c')
//	GRU    r = σ(Wᵣx + bᵣ + Rᵣh + b'ᵣ)   z likewise
//	       n = tanh(W_n x + b_n + r⊙(R_n h + b'_n))      h' = (1-z)⊙n + z⊙h
//	RNN    h' = tanh or ReLU of (W x + b + R h + b')
//
// The LSTM is that of Hochreiter and Schmidhuber 1997 with the forget gate of Gers et
// al. 2000; the GRU is that of Cho et al. 2014 with the reset gate applied after the
// recurrent product, as in PyTorch and cuDNN. docs/cells.md has the equations of the
// other cells and of each option.
//
// Differences from PyTorch: batches are [B,T,F] (PyTorch's batch_first) unless
// TimeMajor; rows may have length 0; an option without effect, such as dropout between
// layers in a stack of one layer, panics.
type RNN struct {
	// Weights holds, for each layer and direction, weight_ih_lK [G*H,in],
	// weight_hh_lK [G*H,O] and unless NoBias bias_ih_lK and bias_hh_lK [G*H],
	// with the suffix _reverse for the second direction; then those of options:
	// weight_hr_lK [O,H] (Proj); weight_pi_lK, weight_pf_lK, weight_po_lK [H]
	// (Peephole); weight_ln_ih_lK, weight_ln_hh_lK [G*H], weight_ln_c_lK,
	// bias_ln_c_lK [H] (LayerNorm). Last come h_0 and c_0 (LearnState).
	Weights []*tensor.Param

	cell   cell.Kind
	in     int
	hidden int
	opt    RNNOptions
	inner  cell.Options // the options of opt that change the cell
	dirs   []params     // of each layer and direction
	states params       // learned initial states
}

// params holds parameters by kind; nil if the stack has none.
type params [cell.NumOperands]*tensor.Param

// RNNOptions changes a stack; nil means one layer, forward, with biases and PyTorch's
// initial values. Probabilities are in [0,1). An option that the cell does not have, that
// is out of range or that would have no effect panics with a [*tensor.UseError].
type RNNOptions struct {
	Layers        int     // 0 means 1
	Bidirectional bool    // each layer has a second direction, from the true end of a row to its start; outputs are concatenated
	Dropout       float32 // of the output of each layer but the last, with a mask per step; needs two layers
	NoBias        bool
	TimeMajor     bool    // input and output are [T,B,F]
	ForgetBias    float32 // LSTM, sLSTM: initial sum of the forget gate's two biases; 0 means PyTorch's values
	Chrono        int     // LSTM, GRU, minGRU: initial gate biases ±log U(1, Chrono-1), for memories of 2 to Chrono steps (Tallec and Ollivier 2018); at least 3, 0: off
	Orthogonal    bool    // recurrent matrices start orthogonal, independently per gate, and input matrices as Xavier
	ReLU          bool    // NewRNN: ReLU instead of tanh
	Residual      bool    // each layer but the first adds its input to its output (Wu et al. 2016); needs two layers
	LearnState    bool    // the initial state of a Forward without one is trained; it starts as zeros

	ResetBefore bool // GRU: reset before the recurrent product, as in Cho et al. 2014 and by default in ONNX: n = tanh(W_n x + b_n + R_n(r⊙h) + b'_n)
	Coupled     bool // LSTM: three gates i,g,o, with f = 1-i (Greff et al. 2017)
	Peephole    bool // LSTM: i and f also depend on c, o on c', by diagonal matrices (Gers et al. 2002)
	LayerNorm   bool // LSTM and GRU without ResetBefore: W·x and R·h are normalised separately, and c before its tanh (Ba et al. 2016); biases are added after the norms and start as zeros
	Proj        int  // LSTM: width of h after a projection, below hidden (Sak et al. 2014; torch's proj_size); 0: none

	GateActivation   cell.Activation // LSTM i,f,o and GRU r,z; 0 means σ
	Activation       cell.Activation // LSTM g, GRU n and RNN; 0 means tanh
	OutputActivation cell.Activation // LSTM: of c'; 0 means tanh
	GateClip         float32         // LSTM, GRU, RNN: limit of |pre-activations| (ONNX's clip); 0: none
	CellClip         float32         // LSTM: limit of |c|; 0: none

	InputDropout     float32 // of the input, one mask per sequence (Gal and Ghahramani 2016)
	OutputDropout    float32 // of the output, one mask per sequence
	Variational      bool    // Dropout also has one mask per sequence
	RecurrentDropout float32 // of h before the product with R, one mask per sequence
	WeightDrop       float32 // of the elements of R, one mask per pass (Merity et al. 2018)
	Zoneout          float32 // probability that a unit of h keeps its value; at inference, the expectation is used (Krueger et al. 2017)
	ZoneoutCell      float32 // LSTM: the same for c
}

// State is the recurrent state of a stack: H [layers*directions,B,O], with the
// directions of a layer side by side, and C, for an LSTM [layers*directions,B,H], for
// cells whose only state is h nil. As an initial state nil means zeros, also in place of
// H or C.
type State = tensor.State

// New returns a stack of layers of any kind of cell but [cell.Custom], for inputs of in
// features, with hidden units per layer and direction. It panics with a
// [*tensor.UseError] if a size is not positive or an option is invalid, as do the
// constructors below.
func New(kind cell.Kind, in, hidden int, o *RNNOptions) *RNN {
	check(kind < cell.Custom, "use NewCustom for a custom cell")
	return newRNN(kind, nil, in, hidden, o)
}

// NewLSTM returns a stack of LSTM layers (torch.nn.LSTM).
func NewLSTM(in, hidden int, o *RNNOptions) *RNN {
	return New(cell.LSTM, in, hidden, o)
}

// NewGRU returns a stack of GRU layers (torch.nn.GRU).
func NewGRU(in, hidden int, o *RNNOptions) *RNN {
	return New(cell.GRU, in, hidden, o)
}

// NewRNN returns a stack of Elman layers (torch.nn.RNN).
func NewRNN(in, hidden int, o *RNNOptions) *RNN {
	return New(cell.RNNTanh, in, hidden, o)
}

// NewSLSTM returns a stack of sLSTM layers (Beck et al. 2024): an LSTM with an
// exponential input gate and a normaliser, and one head. State.C is c, the normaliser n
// and the stabiliser m side by side, of width 3·H.
func NewSLSTM(in, hidden int, o *RNNOptions) *RNN {
	return New(cell.SLSTM, in, hidden, o)
}

// NewMinGRU returns a stack of minGRU layers (Feng et al. 2024), whose gates depend on
// the input only: it has no weight_hh and one bias. The product with W is computed for
// all steps at once; the elementwise rest runs step by step, divided over the cores by
// rows and units.
func NewMinGRU(in, hidden int, o *RNNOptions) *RNN {
	return New(cell.MinGRU, in, hidden, o)
}

// NewMinLSTM returns a stack of minLSTM layers (Feng et al. 2024): as minGRU, with gates
// f and i that are normalised to a sum of 1.
func NewMinLSTM(in, hidden int, o *RNNOptions) *RNN {
	return New(cell.MinLSTM, in, hidden, o)
}

func newRNN(kind cell.Kind, custom cell.RowCell, in, hidden int, o *RNNOptions) *RNN {
	m := &RNN{in: in, hidden: hidden, opt: *cmp.Or(o, &RNNOptions{})}
	m.cell = m.opt.variant(kind)
	m.opt.Layers = cmp.Or(m.opt.Layers, 1)
	check(in > 0 && hidden > 0 && m.opt.Layers > 0, "sizes must be positive, got input %d, hidden %d, layers %d", in, hidden, m.opt.Layers)
	e := m.opt.check(m.cell, hidden)
	check(e == nil, "%v", e)
	m.inner = cell.Options{GateAct: m.opt.GateActivation, InAct: m.opt.Activation, OutAct: m.opt.OutputActivation,
		GateClip: m.opt.GateClip, CellClip: m.opt.CellClip, HDrop: m.opt.RecurrentDropout, WeightDrop: m.opt.WeightDrop,
		ZoneH: m.opt.Zoneout, ZoneC: m.opt.ZoneoutCell, Custom: custom}
	for layer := range m.opt.Layers {
		width := in
		if layer > 0 {
			width = m.OutputSize()
		}
		for d := range m.Directions() {
			var dir params
			for p := range cell.NumParams {
				dir[p] = m.param(p, width, fmt.Sprintf("_l%d%s", layer, [2]string{"", "_reverse"}[d]))
			}
			m.dirs = append(m.dirs, dir)
		}
	}
	if m.opt.LearnState {
		m.states[cell.H0], m.states[cell.C0] = m.param(cell.H0, in, ""), m.param(cell.C0, in, "")
	}
	return m
}

// StateSize returns the width of State.H: Proj, or hidden without a projection.
func (m *RNN) StateSize() int { return cmp.Or(m.opt.Proj, m.hidden) }

// CellSize returns the width of State.C, 0 for cells without one.
func (m *RNN) CellSize() int {
	_, states := m.cell.Shape(m.inner.Custom)
	return (states - 1) * m.hidden
}

// param adds a parameter of a layer with an input of that width, or returns nil if
// the stack has none of that kind.
func (m *RNN) param(kind cell.Param, width int, suffix string) *tensor.Param {
	spec, p := m.cell.Spec(), &cell.Params[kind]
	for need, there := range map[cell.Need]bool{
		cell.NeedsBias: !m.opt.NoBias, cell.NeedsR: !spec.Free, cell.NeedsC: m.CellSize() > 0, cell.NeedsForget: spec.Gate("f") >= 0,
	} {
		if p.Needs&need != 0 && !there {
			return nil
		}
	}
	if p.With != 0 && m.opt.value(p.With).IsZero() {
		return nil
	}
	gates, _ := m.cell.Shape(m.inner.Custom)
	dims := p.Dims(&cell.Sizes{cell.Batch: m.Layers() * m.Directions(), cell.Inputs: width, cell.Units: m.hidden,
		cell.Out: m.StateSize(), cell.Gates: gates * m.hidden, cell.Beside: m.CellSize()})
	w := tensor.NewParam(p.Name+suffix, m.init(kind, gates), dims[:p.Rank()]...)
	w.NoDecay = !p.Decays
	m.Weights = append(m.Weights, w)
	return w
}

// init returns the initial values of a parameter of a cell with that number of gates.
func (m *RNN) init(kind cell.Param, gates int) tensor.Init {
	uniform := Uniform(1 / math.Sqrt(float64(m.hidden)))
	switch init := cell.Params[kind].Init; {
	case init == cell.Zeros:
		return nil
	case init == cell.Ones:
		return Constant(1)
	case init == cell.Bias:
		return m.initBias(kind, uniform)
	case m.opt.Orthogonal && kind == cell.W:
		return PerGate(gates, Xavier)
	case m.opt.Orthogonal && kind == cell.R:
		return PerGate(gates, Orthogonal)
	}
	return uniform
}

// initBias sets the biases of the gates of the old state and, with Chrono, of the new
// value: with ForgetBias to that, with Chrono so that a unit forgets 1/(1+u) per step,
// with u drawn from U(1, Chrono-1). The first of the two vectors has the value and the
// second zeros, since their sum counts.
func (m *RNN) initBias(kind cell.Param, uniform tensor.Init) tensor.Init {
	if m.opt.LayerNorm {
		uniform = Constant(0)
	}
	if m.opt.Chrono == 0 && m.opt.ForgetBias == 0 {
		return uniform
	}
	spec := m.cell.Spec()
	keep, take := spec.Gate(spec.Keep), spec.Gate(spec.Take)
	return func(r *rand.Rand, w []float32, dims []int) {
		uniform(r, w, dims)
		for j := range m.hidden {
			b := float32(0)
			switch {
			case kind != cell.BW:
			case m.opt.Chrono > 0:
				b = float32(math.Log(1 + r.Float64()*float64(m.opt.Chrono-2)))
			default:
				b = m.opt.ForgetBias
			}
			if keep >= 0 {
				w[keep*m.hidden+j] = b
			}
			if take >= 0 && m.opt.Chrono > 0 {
				w[take*m.hidden+j] = -b
			}
		}
	}
}

// Param returns a parameter of a layer and direction (0 or 1) by its name without the
// suffix, such as "weight_ih", or for the whole stack "h_0" or "c_0"; nil if the stack
// has none.
func (m *RNN) Param(base string, layer, direction int) *tensor.Param {
	for kind, p := range cell.Params {
		switch {
		case p.Name != base:
		case kind < int(cell.NumParams):
			return m.dirs[layer*m.Directions()+direction][kind]
		default:
			return m.states[kind]
		}
	}
	return nil
}

// Directions returns 1, or 2 if bidirectional.
func (m *RNN) Directions() int {
	if m.opt.Bidirectional {
		return 2
	}
	return 1
}

// InputSize returns the number of features of the input.
func (m *RNN) InputSize() int { return m.in }

// Hidden returns the number of units per layer and direction.
func (m *RNN) Hidden() int { return m.hidden }

// OutputSize returns the number of features of the output: directions × hidden, or
// directions × Proj.
func (m *RNN) OutputSize() int { return m.Directions() * m.StateSize() }

// Layers returns the number of layers.
func (m *RNN) Layers() int { return m.opt.Layers }

// Cell returns the kind of cell, such as [cell.CoupledLSTM] for an LSTM with Coupled.
func (m *RNN) Cell() cell.Kind { return m.cell }

// Options returns the options that the stack was made with, Layers at least 1.
func (m *RNN) Options() RNNOptions { return m.opt }

// IsPlain reports whether the stack computes at inference the same as torch.nn's layer
// with the same weights: there is one for its cell, and no option changes the equations.
func (m *RNN) IsPlain() bool {
	o := m.opt
	return m.cell.Spec().Torch != "" && !(o.Residual || o.LearnState || o.Peephole || o.LayerNorm || o.GateActivation+o.Activation+o.OutputActivation != 0 ||
		o.GateClip+o.CellClip+o.Zoneout+o.ZoneoutCell != 0)
}

// Forward runs the stack over x [B,T,in] from an initial state (nil: zeros, or the
// trained one) and returns the outputs of the last layer [B,T,OutputSize] and the final
// state of all layers and directions.
//
// If x carries lengths ([tensor.Tape.Sequences]), the output past the length of a row is
// zero and passes no gradient, its final state is that after its last true step, and the
// reverse direction starts there. For a row of length 0 the output is zero and the final
// state is the initial one.
//
// Shapes that do not fit panic with a [*tensor.ShapeError].
func (m *RNN) Forward(x *tensor.Tensor, init *State) (y *tensor.Tensor, final *State) {
	tape := x.Tape()
	if tape == nil || x.Rank() != 3 || x.Dim(2) != m.in {
		panic(&tensor.ShapeError{Op: "RNN", Msg: fmt.Sprintf("needs a batch [B,T,%d] on a tape, got %v", m.in, x.Dims())})
	}
	if m.opt.TimeMajor {
		return m.steps(x, init, false)
	}
	if m.inPlace(x) {
		return m.steps(x, init, true)
	}
	y, final = m.steps(tensor.TimeMajor(x), init, false)
	return tensor.BatchMajor(y), final
}

// fewRows is the number of rows from which a batch is as fast as it lies: its products are those
// of a step, and time-major all steps are one.
const fewRows = 8

// inPlace reports whether layers run over a batch [B,T,in] as it lies. In 16 bits the
// operands of products are converted anyway, so this saves two copies and their gradients.
func (m *RNN) inPlace(x *tensor.Tensor) bool {
	o, tape := &m.opt, x.Tape()
	whole := o.InputDropout > 0 || o.OutputDropout > 0 || o.Variational && o.Dropout > 0 // masks of whole sequences are time-major
	return tape.Precision() != tensor.Float32 && x.Lengths() == nil && x.Dim(0) >= fewRows && !(whole && tape.Mode() == tensor.Train) && !tape.Device().TakesStacks()
}

// steps is Forward of a time-major batch, or with batch of one [B,T,in].
func (m *RNN) steps(x *tensor.Tensor, init *State, batch bool) (y *tensor.Tensor, final *State) {
	tape, D, B := x.Tape(), m.Directions(), x.Dim(1)
	if batch {
		B = x.Dim(0)
	}
	if init == nil && m.opt.LearnState {
		init = m.learned(tape, B)
	}
	final = tape.NewState(m.opt.Layers*D, B, m.StateSize(), m.CellSize())
	if !batch {
		x = tensor.DropoutSequence(x, m.opt.InputDropout)
	}
	if y, ok := m.whole(x, init, final); ok {
		return tensor.DropoutSequence(y, m.opt.OutputDropout), final
	}
	for layer := range m.opt.Layers {
		var dirs [2]tensor.Direction
		for d := range D {
			dirs[d] = m.direction(layer*D + d)
		}
		if batch {
			y = tensor.ScanBatch(m.cell, x, dirs[:D], &m.inner, init, final)
		} else {
			y = tensor.Scan(m.cell, x, dirs[:D], &m.inner, init, final)
		}
		switch {
		case layer == m.opt.Layers-1:
		case m.opt.Variational:
			y = tensor.DropoutSequence(y, m.opt.Dropout)
		default:
			y = tensor.Dropout(y, m.opt.Dropout)
		}
		if m.opt.Residual && layer > 0 {
			y = tensor.Add(y, x)
		}
		x = y
	}
	if !batch {
		x = tensor.DropoutSequence(x, m.opt.OutputDropout)
	}
	return x, final
}

// whole offers the device all layers at once, if there are no operations between them.
func (m *RNN) whole(x *tensor.Tensor, init, final *State) (y *tensor.Tensor, ok bool) {
	tape := x.Tape()
	if !tape.Device().TakesStacks() || m.opt.Residual || m.opt.Dropout > 0 && tape.Mode() == tensor.Train {
		return nil, false
	}
	var few [8]tensor.Direction
	dirs := few[:0]
	for slot := range m.dirs {
		dirs = append(dirs, m.direction(slot))
	}
	return tensor.ScanStack(m.cell, x, dirs, m.Directions(), &m.inner, init, final)
}

// learned returns the trained initial state for each row of a batch.
func (m *RNN) learned(tape *tensor.Tape, B int) *State {
	s := tape.NewState(0, 0, 0, 0)
	s.H = tensor.Repeat(tape.Param(m.states[cell.H0]), 1, B)
	if c := m.states[cell.C0]; c != nil {
		s.C = tensor.Repeat(tape.Param(c), 1, B)
	}
	return s
}

// direction returns the direction of a layer that has a slot of the state.
func (m *RNN) direction(slot int) tensor.Direction {
	d := tensor.Direction{Reverse: slot%m.Directions() == 1, Slot: slot}
	for p := range d.Params {
		d.Params[p] = m.dirs[slot][p].T()
	}
	return d
}
