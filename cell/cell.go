// Package cell describes recurrent cells, without their arithmetic: a table of the
// cells ([Table]), a table of the parameters of a layer ([Params]), the activations and
// options, and the interface of custom cells ([RowCell], [Row]).
//
// Layers, settings, files, reports and devices distinguish between cells by [Table]
// only. So a new cell is a row of this table, its arithmetic in the backend, and its
// equations in the test suite of backends.
package cell

import "slices"

// Kind is a kind of cell, an index of [Table].
type Kind uint8

// The cells. docs/cells.md has their equations and sources.
const (
	LSTM        Kind = iota // states h and c
	GRU                     // reset after the recurrent product, as in PyTorch
	RNNTanh                 // Elman network with tanh
	RNNReLU                 // Elman network with ReLU
	CoupledLSTM             // the forget gate is 1-i
	GRUBefore               // reset before the recurrent product, as in Cho et al. 2014
	SLSTM                   // exponential input gate; states h and c|n|m
	MinGRU                  // gates that depend on the input only
	MinLSTM                 // gates that depend on the input only
	Custom                  // a [RowCell]
	NumKinds
)

// Spec is a row of the table.
type Spec struct {
	Name    string // such as "coupled_lstm"; for PyTorch's cells also the kind of layer in files
	Title   string // the name in reports
	Setting string // the value of the setting "cell" that selects it; "" for a variant

	Base Kind   // a variant is Base
	By   With   // with this option; 0: not a variant
	As   string // how the variant differs, as in "an LSTM without coupled gates"

	Gates    []Gate // in the order of their rows in W and R
	States   int    // 1: h only; otherwise c holds States-1 vectors of H numbers side by side
	Side     bool   // W·x and R·h of the last gate are kept separately
	Free     bool   // no R: the gates do not depend on h
	Positive int    // the number, counted from 1, of the vector in c that must be positive; 0: none
	Norms    [2]int // with layer normalisation: the number of gates of each normalised block; 0 ends the list

	// The gates that multiply the old state and the new value; "" means one minus the
	// other gate. With Shares each is divided by the sum of both.
	Keep, Take string
	Shares     bool

	Options With // the options that the cell has

	Torch     string // the module of torch.nn that computes it; "": none
	ONNX      string // the ONNX operator that computes it; "": none
	ONNXFlag  string // the operator's attribute that must be 1; "": none
	ONNXGates []int  // for each gate in the operator's order the index in Gates, or -1
}

// Gate is a gate of a cell.
type Gate struct {
	Name string
	Act  Activation // the default; Own: another function that no option changes
}

// With is a set of options of a cell, a bit each; nn.RNNOptions describes them.
type With uint32

// The options, in the order of [OptionNames].
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

// OptionNames holds the names of the options by their bits: fields of nn.RNNOptions, and
// those of task.RNNConfig that set them.
var OptionNames = [...]string{"ForgetBias", "Chrono", "ReLU", "Coupled", "ResetBefore", "Peephole", "LayerNorm", "Proj",
	"GateActivation", "Activation", "OutputActivation", "GateClip", "CellClip", "RecurrentDropout", "WeightDrop", "ZoneoutCell"}

// OptionNamed returns the option of a name, such as "LayerNorm"; 0 if there is none.
func OptionNamed(name string) With {
	if i := slices.Index(OptionNames[:], name); i >= 0 {
		return 1 << i
	}
	return 0
}

// Having returns the cells that have the options o, without variants and custom cells.
func Having(o With) (kinds []Kind) {
	for kind := range Custom {
		if s := kind.Spec(); s.By == 0 && s.Options.Has(o) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// Has reports whether s includes all of o.
func (s With) Has(o With) bool { return s&o == o }

const (
	recurrent = WithRecurrentDropout | WithWeightDrop
	elman     = recurrent | WithReLU | WithActivation | WithGateClip
	gated     = recurrent | WithChrono | WithGateActivation | WithActivation | WithGateClip
	lstm      = gated | WithCoupled | WithPeephole | WithLayerNorm | WithProj | WithOutputActivation | WithCellClip | WithZoneoutCell
)

// Table is the table of cells, indexed by Kind. The gates and states of a custom cell
// are those of its [RowCell].
var Table = [NumKinds]Spec{
	LSTM: {Name: "lstm", Title: "LSTM", Setting: "lstm",
		Gates: []Gate{{"i", Sigmoid}, {"f", Sigmoid}, {"g", Tanh}, {"o", Sigmoid}}, States: 2, Norms: [2]int{4}, Keep: "f", Take: "i",
		Options: lstm | WithForgetBias, Torch: "LSTM", ONNX: "LSTM", ONNXGates: []int{0, 3, 1, 2}},
	GRU: {Name: "gru", Title: "GRU", Setting: "gru",
		Gates: []Gate{{"r", Sigmoid}, {"z", Sigmoid}, {"n", Tanh}}, States: 1, Side: true, Norms: [2]int{2, 1}, Keep: "z",
		Options: gated | WithResetBefore | WithLayerNorm, Torch: "GRU", ONNX: "GRU", ONNXFlag: "linear_before_reset", ONNXGates: []int{1, 0, 2}},
	RNNTanh: {Name: "rnn_tanh", Title: "RNN", Setting: "rnn",
		Gates: []Gate{{"h", Tanh}}, States: 1, Options: elman, Torch: "RNN", ONNX: "RNN", ONNXGates: []int{0}},
	RNNReLU: {Name: "rnn_relu", Title: "ReLU RNN", Base: RNNTanh, By: WithReLU, As: "ReLU",
		Gates: []Gate{{"h", ReLU}}, States: 1, Options: elman, Torch: "RNN", ONNX: "RNN", ONNXGates: []int{0}},
	CoupledLSTM: {Name: "coupled_lstm", Title: "coupled LSTM", Base: LSTM, By: WithCoupled, As: "coupled gates",
		Gates: []Gate{{"i", Sigmoid}, {"g", Tanh}, {"o", Sigmoid}}, States: 2, Norms: [2]int{3}, Take: "i",
		Options: lstm, ONNX: "LSTM", ONNXFlag: "input_forget", ONNXGates: []int{0, 2, -1, 1}},
	GRUBefore: {Name: "gru_before", Title: "GRU", Base: GRU, By: WithResetBefore, As: "the reset before the recurrent product",
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

// Spec returns the cell's row of the table.
func (k Kind) Spec() *Spec { return &Table[k] }

// Shape returns the numbers of gates and states; for a custom cell they are own's.
func (k Kind) Shape(own RowCell) (gates, states int) {
	if k == Custom {
		return own.Gates(), own.States()
	}
	return len(Table[k].Gates), Table[k].States
}

// Gates returns the number of gates G; W and R have G·H rows.
func (k Kind) Gates() int { return len(Table[k].Gates) }

// Width returns the width of the states beside h for a number of hidden units; 0 if
// the cell has none.
func (k Kind) Width(hidden int) int { return (Table[k].States - 1) * hidden }

// Has reports whether the cell has all options of o.
func (k Kind) Has(o With) bool { return Table[k].Options.Has(o) }

// Gate returns the index of the gate of that name, -1 if there is none.
func (s *Spec) Gate(name string) int {
	return slices.IndexFunc(s.Gates, func(g Gate) bool { return g.Name == name })
}

// Candidate returns the default activation of the new value; Own if it has none.
func (s *Spec) Candidate() Activation {
	for _, g := range s.Gates {
		if g.Act == Tanh || g.Act == ReLU {
			return g.Act
		}
	}
	return Own
}

// MustBePositive reports whether the i-th vector of consecutive rows of c must be
// positive.
func (s *Spec) MustBePositive(i int) bool { return s.Positive > 0 && i%(s.States-1) == s.Positive-1 }

// Find returns the first cell for whose row wanted is true, and whether there is one.
func Find(wanted func(*Spec) bool) (Kind, bool) {
	for k := range Table {
		if wanted(&Table[k]) {
			return Kind(k), true
		}
	}
	return 0, false
}

// Named returns the cell that a value of the setting "cell" selects, and whether there
// is one.
func Named(word string) (Kind, bool) {
	return Find(func(s *Spec) bool { return s.Setting == word && s.By == 0 })
}

// Settings returns the values of the setting "cell".
func Settings() (words []string) {
	for _, s := range Table {
		if s.Setting != "" {
			words = append(words, s.Setting)
		}
	}
	return words
}
