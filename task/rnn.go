package task

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/nn"
)

// RNNConfig holds the settings of a recurrent stack, which the flags and recipe files of
// all tasks share. The Config of a task embeds it, with [DefaultRNN] as its defaults, and
// the task makes its stacks with Build. [nn.RNNOptions] describes the options.
type RNNConfig struct {
	Cell          string  `json:"cell" oneof:"@cells" group:"Model" help:"recurrent cell"`
	Hidden        int     `json:"hidden" range:"1..8192" group:"Model" help:"units of a recurrent layer"`
	Layers        int     `json:"layers" range:"1..16" group:"Model" help:"recurrent layers"`
	Bidirectional bool    `json:"bidirectional" group:"Model" help:"read in both directions"`
	RNNDropout    float64 `json:"rnn_dropout" range:"0..0.99" group:"Model" help:"dropout between the recurrent layers"` // nn.RNNOptions.Dropout; tasks have another setting dropout

	Residual    bool    `json:"residual,omitempty" group:"Recurrent cell" help:"each layer but the first adds its input to its output"`
	Proj        int     `json:"proj,omitempty" range:"0..8191" group:"Recurrent cell" help:"{@cells with Proj}: width of the output, by a projection (0: hidden)"`
	Peephole    bool    `json:"peephole,omitempty" group:"Recurrent cell" help:"{@cells with Peephole}: gates depend on the cell state"`
	Coupled     bool    `json:"coupled,omitempty" group:"Recurrent cell" help:"{@cells with Coupled}: the forget gate is one minus the input gate"`
	LayerNorm   bool    `json:"layer_norm,omitempty" group:"Recurrent cell" help:"{@cells with LayerNorm}: layer normalisation inside the cell"`
	ResetBefore bool    `json:"reset_before,omitempty" group:"Recurrent cell" help:"{@cells with ResetBefore}: reset before the recurrent product (ONNX's default), not after it (PyTorch's)"`
	LearnState  bool    `json:"learn_state,omitempty" group:"Recurrent cell" help:"train the initial state"`
	NoBias      bool    `json:"no_bias,omitempty" group:"Recurrent cell" help:"no biases"`
	ForgetBias  float64 `json:"forget_bias,omitempty" range:"-100..100" group:"Recurrent cell" help:"{@cells with ForgetBias}: initial bias of the forget gate (0: as other biases)"`
	Chrono      int     `json:"chrono,omitempty" range:"0|3..1e6" group:"Recurrent cell" help:"{@cells with Chrono}: initial gate biases for memories of 2 up to this number of steps, instead of forget_bias (0: off)"`
	Orthogonal  bool    `json:"orthogonal,omitempty" group:"Recurrent cell" help:"recurrent matrices start orthogonal, input matrices Xavier"`

	GateActivation   string  `json:"gate_activation,omitempty" oneof:"(sigmoid),@activations" group:"Recurrent cell" help:"{@cells with GateActivation}: activation of the gates"`
	Activation       string  `json:"activation,omitempty" oneof:"(tanh),@activations" group:"Recurrent cell" help:"{@cells with Activation}: activation of the candidate"`
	OutputActivation string  `json:"output_activation,omitempty" oneof:"(tanh),@activations" group:"Recurrent cell" help:"{@cells with OutputActivation}: activation of the cell state before the output gate"`
	GateClip         float64 `json:"gate_clip,omitempty" range:"0..1e6" group:"Recurrent cell" help:"{@cells with GateClip}: limit of pre-activations (0: none)"`
	CellClip         float64 `json:"cell_clip,omitempty" range:"0..1e6" group:"Recurrent cell" help:"{@cells with CellClip}: limit of the cell state (0: none)"`

	Variational      bool    `json:"variational,omitempty" group:"Recurrent cell" help:"rnn_dropout draws one mask per sequence, not per step"`
	InputDropout     float64 `json:"input_dropout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"dropout of the stack's input, one mask per sequence"`
	OutputDropout    float64 `json:"output_dropout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"dropout of the stack's output, one mask per sequence"`
	RecurrentDropout float64 `json:"recurrent_dropout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"{@cells with RecurrentDropout}: dropout of the state before the recurrent product, one mask per sequence"`
	WeightDrop       float64 `json:"weight_drop,omitempty" range:"0..0.99" group:"Recurrent cell" help:"{@cells with WeightDrop}: dropout of the recurrent matrices' elements"`
	Zoneout          float64 `json:"zoneout,omitempty" range:"0..0.99" group:"Recurrent cell" help:"probability that a unit of the state keeps its value"`
	ZoneoutCell      float64 `json:"zoneout_cell,omitempty" range:"0..0.99" group:"Recurrent cell" help:"{@cells with ZoneoutCell}: zoneout of the cell state"`
}

// DefaultRNN returns the settings of one layer of 64 LSTM units with a forget bias of 1.
func DefaultRNN() RNNConfig { return RNNConfig{Cell: "lstm", Hidden: 64, Layers: 1, ForgetBias: 1} }

func init() {
	settings.Lists["cells"] = cell.Settings()
	for _, name := range cell.OptionNames {
		var titles []string
		for _, kind := range cell.Having(cell.OptionNamed(name)) {
			titles = append(titles, kind.Spec().Title)
		}
		settings.Lists["cells with "+name] = titles
	}
	settings.Lists["activations"] = cell.Activations[1:]
}

// Validate returns an error of one line for the first setting that is out of its range,
// that the cell does not have, or that would have no effect.
func (c *RNNConfig) Validate() error {
	_, _, err := c.options()
	return err
}

// Build returns the stack for inputs of in features, at least 1, or Validate's error.
func (c *RNNConfig) Build(in int) (*nn.RNN, error) {
	kind, o, err := c.options()
	if err != nil {
		return nil, err
	}
	return nn.New(kind, in, c.Hidden, o), nil
}

// options checks the settings and returns the cell and the options that they select.
func (c *RNNConfig) options() (cell.Kind, *nn.RNNOptions, error) {
	if err := settings.Check(c); err != nil {
		return 0, nil, err
	}
	kind, _ := cell.Named(c.Cell)
	o := &nn.RNNOptions{
		Layers: c.Layers, Bidirectional: c.Bidirectional, NoBias: c.NoBias, Dropout: float32(c.RNNDropout), Orthogonal: c.Orthogonal,
		LearnState: c.LearnState, Residual: c.Residual, ForgetBias: float32(c.ForgetBias), Chrono: c.Chrono,
		ResetBefore: c.ResetBefore, Coupled: c.Coupled, Peephole: c.Peephole, LayerNorm: c.LayerNorm, Proj: c.Proj,
		GateClip: float32(c.GateClip), CellClip: float32(c.CellClip),
		InputDropout: float32(c.InputDropout), OutputDropout: float32(c.OutputDropout), Variational: c.Variational,
		RecurrentDropout: float32(c.RecurrentDropout), WeightDrop: float32(c.WeightDrop),
		Zoneout: float32(c.Zoneout), ZoneoutCell: float32(c.ZoneoutCell),
	}
	o.GateActivation, _ = cell.ActivationNamed(c.GateActivation)
	o.Activation, _ = cell.ActivationNamed(c.Activation)
	o.OutputActivation, _ = cell.ActivationNamed(c.OutputActivation)
	if kind.Has(cell.WithReLU) && o.Activation == cell.ReLU { // another cell, in PyTorch too
		o.Activation, o.ReLU = 0, true
	}
	variant, err := o.Cell(kind, c.Hidden)
	if c.ForgetBias == DefaultRNN().ForgetBias && (!variant.Has(cell.WithForgetBias) || c.NoBias || c.Chrono != 0) {
		o.ForgetBias = 0 // the default has no effect without a forget gate, and Chrono replaces it
		_, err = o.Cell(kind, c.Hidden)
	}
	if e := (*nn.OptionError)(nil); errors.As(err, &e) {
		return 0, nil, fmt.Errorf("%s: %s", setting(e.Option), e.Problem)
	}
	return kind, o, nil
}

// setting returns the name of the setting of an option.
func setting(option string) string {
	if option == "Dropout" {
		option = "RNNDropout"
	}
	f, _ := reflect.TypeFor[RNNConfig]().FieldByName(option)
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
