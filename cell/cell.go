// Package cell is what there is to know of recurrent cells beside their
// arithmetic: a table of the cells, another of the parameters that a layer may
// have ([Params]), the activations and options, and what a cell of your own works
// on ([RowCell], [Row]).
//
// Everything that must tell cells apart reads [Table]: layers, settings, files,
// pictures and devices. So a new cell is a row here, its arithmetic in the
// backend, and its equations in the suite that every backend passes.
package cell

import "slices"

// Kind names a cell.
type Kind uint8

// The cells. docs/cells.md has their equations and sources.
const (
	LSTM        Kind = iota // states h,c
	GRU                     // reset after the recurrent product, as PyTorch
	RNNTanh                 // Elman
	RNNReLU                 // Elman
	CoupledLSTM             // the forget gate is 1-i
	GRUBefore               // reset before the recurrent product, as Cho et al. 2014
	SLSTM                   // an exponential i; states h and c|n|m
	MinGRU                  // gates of the input alone
	MinLSTM                 // gates of the input alone
	Custom                  // a [RowCell]
	NumKinds
)

// Spec is a row of the table.
type Spec struct {
	Name    string // such as "coupled_lstm"; those of PyTorch's cells are kinds of layers in files too
	Title   string // for people
	Setting string // the word that chooses it among the settings; "" where By does

	Base Kind // the cell is what the option By
	By   With // makes of Base; 0: it is no variant of another

	Gates    []Gate // in the order of their rows in W and R
	States   int    // 1: h; more: h and States-1 vectors of as many units side by side in c
	Side     bool   // the last gate's W·x and R·h stay apart
	Free     bool   // no R: the gates do not see h
	Positive int    // which of the vectors in c, counted from 1, a state must have above 0; 0: none
	Norms    [2]int // with layer normalisation: how many gates each normalised block spans, 0 ends the list

	// The gates that weigh the old state and the new value; "": the other's
	// complement does. Where Shares is set each is divided by their sum.
	Keep, Take string
	Shares     bool

	Options With // those that it has

	Torch     string // the module of torch.nn that computes it; "": none
	ONNX      string // the operator of ONNX that does; "": none
	ONNXFlag  string // its attribute that must be 1; "" where all are 0
	ONNXGates []int  // for each gate in the operator's order its place in Gates, -1 for none
}

// Gate is a gate of a cell.
type Gate struct {
	Name string
	Act  Activation // Own: neither bounded nor a choice
}

// With is a set of options that a cell may have; nn.RNNOptions says what they do.
type With uint32

// The options, by the names of nn.RNNOptions' fields.
const (
	WithForgetBias With = 1 << iota
	WithChrono
	WithReLU
	WithCoupled
	WithResetBefore
	WithPeephole
	WithLayerNorm
	WithProj
	WithGateActivation
	WithActivation
	WithOutputActivation
	WithGateClip
	WithCellClip
	WithRecurrentDropout
	WithWeightDrop
	WithZoneoutCell
)

// Has says whether all of o are among the options.
func (s With) Has(o With) bool { return s&o == o }

const (
	recurrent = WithRecurrentDropout | WithWeightDrop
	elman     = recurrent | WithReLU | WithActivation | WithGateClip
	gated     = recurrent | WithChrono | WithGateActivation | WithActivation | WithGateClip
	lstm      = gated | WithCoupled | WithPeephole | WithLayerNorm | WithProj | WithOutputActivation | WithCellClip | WithZoneoutCell
)

// Table is the table, indexed by Kind. What a custom cell has of gates and states, its code says.
var Table = [NumKinds]Spec{
	LSTM: {Name: "lstm", Title: "LSTM", Setting: "lstm",
		Gates: []Gate{{"i", Sigmoid}, {"f", Sigmoid}, {"g", Tanh}, {"o", Sigmoid}}, States: 2, Norms: [2]int{4}, Keep: "f", Take: "i",
		Options: lstm | WithForgetBias, Torch: "LSTM", ONNX: "LSTM", ONNXGates: []int{0, 3, 1, 2}},
	GRU: {Name: "gru", Title: "GRU", Setting: "gru",
		Gates: []Gate{{"r", Sigmoid}, {"z", Sigmoid}, {"n", Tanh}}, States: 1, Side: true, Norms: [2]int{2, 1}, Keep: "z",
		Options: gated | WithResetBefore | WithLayerNorm, Torch: "GRU", ONNX: "GRU", ONNXFlag: "linear_before_reset", ONNXGates: []int{1, 0, 2}},
	RNNTanh: {Name: "rnn_tanh", Title: "RNN", Setting: "rnn",
		Gates: []Gate{{"h", Tanh}}, States: 1, Options: elman, Torch: "RNN", ONNX: "RNN", ONNXGates: []int{0}},
	RNNReLU: {Name: "rnn_relu", Title: "ReLU RNN", Base: RNNTanh, By: WithReLU,
		Gates: []Gate{{"h", ReLU}}, States: 1, Options: elman, Torch: "RNN", ONNX: "RNN", ONNXGates: []int{0}},
	CoupledLSTM: {Name: "coupled_lstm", Title: "coupled LSTM", Base: LSTM, By: WithCoupled,
		Gates: []Gate{{"i", Sigmoid}, {"g", Tanh}, {"o", Sigmoid}}, States: 2, Norms: [2]int{3}, Take: "i",
		Options: lstm, ONNX: "LSTM", ONNXFlag: "input_forget", ONNXGates: []int{0, 2, -1, 1}},
	GRUBefore: {Name: "gru_before", Title: "GRU", Base: GRU, By: WithResetBefore,
		Gates: []Gate{{"r", Sigmoid}, {"z", Sigmoid}, {"n", Tanh}}, States: 1, Side: true, Keep: "z",
		Options: gated | WithResetBefore, ONNX: "GRU", ONNXGates: []int{1, 0, 2}},
	SLSTM: {Name: "slstm", Title: "sLSTM", Setting: "slstm",
		Gates: []Gate{{"i", Own}, {"f", Own}, {"z", Tanh}, {"o", Sigmoid}}, States: 4, Positive: 2, Keep: "f", Take: "i", Options: recurrent | WithForgetBias},
	MinGRU: {Name: "min_gru", Title: "minGRU", Setting: "min_gru",
		Gates: []Gate{{"z", Sigmoid}, {"n", Own}}, States: 1, Free: true, Take: "z", Options: WithChrono},
	MinLSTM: {Name: "min_lstm", Title: "minLSTM", Setting: "min_lstm",
		Gates: []Gate{{"f", Sigmoid}, {"i", Sigmoid}, {"n", Own}}, States: 1, Free: true, Keep: "f", Take: "i", Shares: true},
	Custom: {Name: "custom", Title: "custom cell", Options: recurrent},
}

// Spec is the cell's row.
func (k Kind) Spec() *Spec { return &Table[k] }

// Shape is the number of gates and of states; of a custom cell they are own's.
func (k Kind) Shape(own RowCell) (gates, states int) {
	if k == Custom {
		return own.Gates(), own.States()
	}
	return len(Table[k].Gates), Table[k].States
}

// Gates is the number of gates, whose matrices have as many rows a unit.
func (k Kind) Gates() int { return len(Table[k].Gates) }

// Width is the width of the states beside h of a cell of hidden units; 0 if it has none.
func (k Kind) Width(hidden int) int { return (Table[k].States - 1) * hidden }

// Has says whether the cell has an option.
func (k Kind) Has(o With) bool { return Table[k].Options.Has(o) }

// Gate is the place of a gate by its name, -1 if there is none.
func (s *Spec) Gate(name string) int {
	return slices.IndexFunc(s.Gates, func(g Gate) bool { return g.Name == name })
}

// Candidate is the activation of the new value that the gates weigh; Own if it has none.
func (s *Spec) Candidate() Activation {
	for _, g := range s.Gates {
		if g.Act == Tanh || g.Act == ReLU {
			return g.Act
		}
	}
	return Own
}

// MustBePositive says whether the i-th vector in c of some rows after each other must be above 0.
func (s *Spec) MustBePositive(i int) bool { return s.Positive > 0 && i%(s.States-1) == s.Positive-1 }

// Find is the first cell whose row is as wanted.
func Find(wanted func(*Spec) bool) (Kind, bool) {
	for k := range Table {
		if wanted(&Table[k]) {
			return Kind(k), true
		}
	}
	return 0, false
}

// Named is the cell that a word chooses among settings.
func Named(word string) (Kind, bool) {
	return Find(func(s *Spec) bool { return s.Setting == word && s.By == 0 })
}

// Settings are the words that choose a cell among settings.
func Settings() (words []string) {
	for _, s := range Table {
		if s.Setting != "" {
			words = append(words, s.Setting)
		}
	}
	return words
}
