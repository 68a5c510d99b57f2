package nn

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/settings"
)

// RNNConfig is a recurrent stack as a user describes it: the settings that the
// flags and recipe files of every task share. A task's configuration embeds it,
// starts from [DefaultRNN], and makes its stacks with Build. [RNNOptions] says
// what each option does; probabilities are in [0,1).
type RNNConfig struct {
	Cell          string  `json:"cell" oneof:"@cells" group:"Model" help:"recurrent cell"`
	Hidden        int     `json:"hidden" range:"1..8192" group:"Model" help:"units of a recurrent layer"`
	Layers        int     `json:"layers" range:"1..16" group:"Model" help:"recurrent layers"`
	Bidirectional bool    `json:"bidirectional" group:"Model" help:"read in both directions"`
	RNNDropout    float64 `json:"rnn_dropout" range:"0..0.99" group:"Model" help:"dropout between the recurrent layers"` // RNNOptions.Dropout; tasks have a dropout of their own

	Residual    bool    `json:"residual,omitempty" group:"Recurrent cell" help:"each layer but the first adds its input to its output"`
	Proj        int     `json:"proj,omitempty" range:"0..8191" group:"Recurrent cell" help:"width of an LSTM's output, by a projection (0: hidden)"`
	Peephole    bool    `json:"peephole,omitempty" group:"Recurrent cell" help:"LSTM: gates see the cell state"`
	Coupled     bool    `json:"coupled,omitempty" group:"Recurrent cell" help:"LSTM: the forget gate is one minus the input gate"`
	LayerNorm   bool    `json:"layer_norm,omitempty" group:"Recurrent cell" help:"LSTM, GRU: layer normalisation inside the cell"`
	ResetBefore bool    `json:"reset_before,omitempty" group:"Recurrent cell" help:"GRU: reset before the recurrent product (ONNX's default), not after it (PyTorch's)"`
	LearnState  bool    `json:"learn_state,omitempty" group:"Recurrent cell" help:"train the initial state"`
	NoBias      bool    `json:"no_bias,omitempty" group:"Recurrent cell" help:"no biases"`
	ForgetBias  float64 `json:"forget_bias,omitempty" range:"-100..100" group:"Recurrent cell" help:"bias of the forget gate at the start, where the cell has one (0: as other biases)"`
	Chrono      int     `json:"chrono,omitempty" range:"0|3..1e6" group:"Recurrent cell" help:"LSTM, GRU, min_gru: units begin with memories of 2 to so many steps, in place of forget_bias (0: off)"`
	Orthogonal  bool    `json:"orthogonal,omitempty" group:"Recurrent cell" help:"recurrent matrices start orthogonal, input matrices Xavier"`

	GateActivation   string  `json:"gate_activation,omitempty" oneof:"(sigmoid),@activations" group:"Recurrent cell" help:"LSTM, GRU: activation of the gates"`
	Activation       string  `json:"activation,omitempty" oneof:"(tanh),@activations" group:"Recurrent cell" help:"LSTM, GRU, RNN: activation of the candidate"`
	OutputActivation string  `json:"output_activation,omitempty" oneof:"(tanh),@activations" group:"Recurrent cell" help:"LSTM: activation of the cell state before the output gate"`
	GateClip         float64 `json:"gate_clip,omitempty" range:"0..1e6" group:"Recurrent cell" help:"limit of what enters an activation (0: none)"`
	CellClip         float64 `json:"cell_clip,omitempty" range:"0..1e6" group:"Recurrent cell" help:"LSTM: limit of the cell state (0: none)"`

	Variational      bool    `json:"variational,omitempty" group:"Recurrent cell" help:"rnn_dropout draws one mask a sequence, not one a step"`
	InputDropout     float64 `json:"input_dropout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"dropout of the stack's input, one mask a sequence"`
	OutputDropout    float64 `json:"output_dropout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"dropout of the stack's output, one mask a sequence"`
	RecurrentDropout float64 `json:"recurrent_dropout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"dropout of the state where it enters the recurrent product, one mask a sequence"`
	WeightDrop       float64 `json:"weight_drop,omitempty" range:"0..0.99" group:"Recurrent cell" help:"dropout of the recurrent matrices' elements"`
	Zoneout          float64 `json:"zoneout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"probability that a unit of the state keeps its value"`
	ZoneoutCell      float64 `json:"zoneout_cell,omitempty" range:"0..0.99" group:"Recurrent cell" help:"LSTM: likewise of the cell state"`
}

// DefaultRNN is one layer of 64 LSTM units with a forget bias of 1.
func DefaultRNN() RNNConfig { return RNNConfig{Cell: "lstm", Hidden: 64, Layers: 1, ForgetBias: 1} }

func init() {
	settings.Lists["cells"] = cell.Settings()
	settings.Lists["activations"] = cell.Activations[1:]
}

// Validate reports in one line the first setting that is out of its range, that
// the cell does not have, or that would do nothing.
func (c *RNNConfig) Validate() error {
	_, _, err := c.settle()
	return err
}

// Build makes the stack for inputs of in features; an error is Validate's.
func (c *RNNConfig) Build(in int) (*RNN, error) {
	kind, o, err := c.settle()
	if err != nil {
		return nil, err
	}
	return newRNN(kind, nil, in, c.Hidden, o), nil
}

// settle checks the settings and makes options of them.
func (c *RNNConfig) settle() (cell.Kind, *RNNOptions, error) {
	if err := settings.Check(c); err != nil {
		return 0, nil, err
	}
	kind, _ := cell.Named(c.Cell)
	o := &RNNOptions{
		Layers: c.Layers, Bidirectional: c.Bidirectional, NoBias: c.NoBias, Dropout: float32(c.RNNDropout), Orthogonal: c.Orthogonal,
		LearnState: c.LearnState, Residual: c.Residual, ForgetBias: float32(c.ForgetBias), Chrono: c.Chrono,
		ResetBefore: c.ResetBefore, Coupled: c.Coupled, Peephole: c.Peephole, LayerNorm: c.LayerNorm, Proj: c.Proj,
		GateClip: float32(c.GateClip), CellClip: float32(c.CellClip),
		InputDropout: float32(c.InputDropout), OutputDropout: float32(c.OutputDropout), Variational: c.Variational,
		RecurrentDropout: float32(c.RecurrentDropout), WeightDrop: float32(c.WeightDrop),
		Zoneout: float32(c.Zoneout), ZoneoutCell: float32(c.ZoneoutCell),
	}
	c.activations(kind, o)
	variant := o.variant(kind)
	if (!variant.Has(cell.WithForgetBias) || c.NoBias || c.Chrono != 0) && c.ForgetBias == DefaultRNN().ForgetBias {
		o.ForgetBias = 0 // the default asks for nothing where there is no forget gate, or Chrono sets it
	}
	if e := o.check(variant, c.Hidden); e != nil {
		return 0, nil, fmt.Errorf("%s: %s", setting(e.option), e.problem)
	}
	return kind, o, nil
}

// activations fills in the activations of o.
func (c *RNNConfig) activations(kind cell.Kind, o *RNNOptions) {
	o.GateActivation, _ = cell.ActivationNamed(c.GateActivation)
	o.Activation, _ = cell.ActivationNamed(c.Activation)
	o.OutputActivation, _ = cell.ActivationNamed(c.OutputActivation)
	if kind.Has(cell.WithReLU) && o.Activation == cell.ReLU { // a cell of its own, PyTorch's too
		o.Activation, o.ReLU = 0, true
	}
}

// setting is the name of the setting behind an option.
func setting(option string) string {
	if option == "Dropout" {
		option = "RNNDropout"
	}
	f, _ := reflect.TypeFor[RNNConfig]().FieldByName(option)
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
