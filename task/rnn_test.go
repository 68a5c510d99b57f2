package task_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
)

// Each setting has what flags and recipes need, and reaches its option: alone
// it makes another stack or is refused by its own name.
func TestEverySettingActs(t *testing.T) {
	plain := task.DefaultRNN()
	if err := plain.Validate(); err != nil {
		t.Fatal(err)
	}
	cells := map[string]string{"reset_before": "gru"}
	v := reflect.ValueOf(plain)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || f.Tag.Get("help") == "" || f.Tag.Get("group") == "" {
			t.Errorf("%s lacks a json, help or group tag", f.Name)
		}
		c := plain
		c.Layers = 2
		if cell := cells[name]; cell != "" {
			c.Cell = cell
		}
		if name == "variational" {
			c.RNNDropout = 0.5
		}
		before := build(t, &c)
		field := reflect.ValueOf(&c).Elem().Field(i)
		switch f.Type.Kind() {
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int:
			field.SetInt(3)
		case reflect.Float64:
			field.SetFloat(0.25)
		default:
			field.SetString(map[bool]string{true: "min_lstm", false: "softsign"}[name == "cell"])
		}
		if reflect.DeepEqual(before.Options(), build(t, &c).Options()) && before.Hidden() == build(t, &c).Hidden() && before.Cell() == build(t, &c).Cell() {
			t.Errorf("%s changes nothing", name)
		}
	}
}

func build(t *testing.T, c *task.RNNConfig) *nn.RNN {
	t.Helper()
	m, err := c.Build(2)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConfigRefuses(t *testing.T) {
	for _, c := range []struct {
		set  func(*task.RNNConfig)
		want string
	}{
		{func(c *task.RNNConfig) { c.Cell = "LSTM" }, "cell: want " + strings.Join(cell.Settings(), ", ") + `, got "LSTM"; did you mean lstm?`},
		{func(c *task.RNNConfig) { c.Hidden = 0 }, "hidden: want a number from 1 to 8192, got 0"},
		{func(c *task.RNNConfig) { c.Layers = 17 }, "layers: want a number from 1 to 16, got 17"},
		{func(c *task.RNNConfig) { c.RNNDropout = 0.1 }, "rnn_dropout: acts between layers, and there is one layer; drop out its output instead"},
		{func(c *task.RNNConfig) { c.RNNDropout = 1 }, "rnn_dropout: want a number from 0 to 0.99, got 1"},
		{func(c *task.RNNConfig) { c.Layers, c.Variational = 2, true }, "variational: changes the dropout between layers, and that is 0"},
		{func(c *task.RNNConfig) { c.Residual = true }, "residual: acts on the layers after the first, and there is one layer"},
		{func(c *task.RNNConfig) { c.Proj = 64 }, "proj: must be below the 64 hidden units, got 64"},
		{func(c *task.RNNConfig) { c.Cell, c.Proj = "gru", 2 }, "proj: needs the cell LSTM"},
		{func(c *task.RNNConfig) { c.Cell, c.LayerNorm, c.ResetBefore = "gru", true, true }, "layer_norm: needs the cell LSTM or GRU without the reset before the recurrent product"},
		{func(c *task.RNNConfig) { c.Cell, c.ForgetBias = "gru", 2 }, "forget_bias: needs the cell LSTM without coupled gates or sLSTM"},
		{func(c *task.RNNConfig) { c.ForgetBias, c.NoBias = 2, true }, "forget_bias: needs biases"},
		{func(c *task.RNNConfig) { c.Cell, c.Zoneout, c.ZoneoutCell = "rnn", 0.1, 0.1 }, "zoneout_cell: needs the cell LSTM"},
		{func(c *task.RNNConfig) { c.GateActivation = "swish" }, `gate_activation: want sigmoid, tanh, relu, hard_sigmoid, hard_tanh, softsign, identity, leaky_relu, elu, softplus, got "swish"`},
		{func(c *task.RNNConfig) { c.Cell, c.WeightDrop = "min_gru", 0.1 }, "weight_drop: needs a cell with a recurrent matrix"},
	} {
		cfg := task.DefaultRNN()
		c.set(&cfg)
		if m, err := cfg.Build(3); err == nil || err.Error() != c.want || m != nil {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// The help of a setting that not every cell has begins with the cells that have it.
func TestHelpNamesTheCells(t *testing.T) {
	c, n := task.DefaultRNN(), 0
	fields := reflect.TypeOf(c)
	list := settings.List(&c)
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		option := cell.OptionNamed(fields.Field(i).Name)
		if option == 0 {
			continue
		}
		n++
		var titles []string
		for _, kind := range cell.Having(option) {
			titles = append(titles, kind.Spec().Title)
		}
		if got, want := settings.Named(list, name).Help, strings.Join(titles, ", ")+": "; !strings.HasPrefix(got, want) {
			t.Errorf("%s: the help is %q, want it to begin with %q", name, got, want)
		}
	}
	if want := len(cell.OptionNames) - 1; n != want { // all but ReLU, which is an activation here
		t.Errorf("%d options of cells are settings, want %d", n, want)
	}
}

// The choices of the tags are those that there is something for.
func TestChoicesAreKnown(t *testing.T) {
	c := task.DefaultRNN()
	list := settings.List(&c)
	for _, name := range []string{"gate_activation", "activation", "output_activation"} {
		if got, want := settings.Named(list, name).Words(), cell.Activations[1:]; !slices.Equal(got, want) {
			t.Errorf("%s may be %q, and package cell has %q", name, got, want)
		}
	}
	kinds := map[cell.Kind]string{}
	for _, c.Cell = range settings.Named(list, "cell").Words() {
		kind := build(t, &c).Cell()
		if other, taken := kinds[kind]; taken {
			t.Errorf("%s and %s are one cell", c.Cell, other)
		}
		kinds[kind] = c.Cell
	}
}

// An RNN's ReLU is PyTorch's cell of that name, and a cell without a forget gate
// takes the default for its bias as no wish.
func TestConfigMakesTheCells(t *testing.T) {
	for _, c := range []struct {
		cfg  task.RNNConfig
		want cell.Kind
	}{
		{task.RNNConfig{Cell: "rnn", Activation: "relu"}, cell.RNNReLU},
		{task.RNNConfig{Cell: "rnn", Activation: "elu"}, cell.RNNTanh},
		{task.RNNConfig{Cell: "gru", ForgetBias: 1}, cell.GRU},
		{task.RNNConfig{Cell: "gru", ResetBefore: true}, cell.GRUBefore},
		{task.RNNConfig{Cell: "lstm", Coupled: true, ForgetBias: 1}, cell.CoupledLSTM},
		{task.RNNConfig{Cell: "slstm", ForgetBias: 1}, cell.SLSTM},
		{task.RNNConfig{Cell: "min_gru"}, cell.MinGRU},
	} {
		c.cfg.Hidden, c.cfg.Layers = 4, 1
		m := build(t, &c.cfg)
		if m.Cell() != c.want || m.Options().ReLU != (c.want == cell.RNNReLU) {
			t.Errorf("%+v is cell %v, want %v", c.cfg, m.Cell(), c.want)
		}
	}
}

// Settings select every cell of the table.
func TestSettingsOfEveryCell(t *testing.T) {
	for kind := range cell.Custom {
		spec, made := kind.Spec(), nn.New(kind, 3, 4, nil).Options()
		cfg := task.RNNConfig{Cell: spec.Setting, Hidden: 4, Layers: 1, Coupled: made.Coupled, ResetBefore: made.ResetBefore}
		if spec.By != 0 {
			cfg.Cell = spec.Base.Spec().Setting
		}
		if made.ReLU {
			cfg.Activation = "relu"
		}
		if got := build(t, &cfg).Cell(); got != kind {
			t.Errorf("%s: its settings make a cell %d", spec.Name, got)
		}
	}
}
