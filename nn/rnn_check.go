package nn

import (
	"fmt"

	"github.com/carousel-ml/carousel/tensor"
)

// optionError is an option that contradicts another or would do nothing. The
// problem names no other option, so that a [RNNConfig] can tell it of its setting.
type optionError struct{ option, problem string }

func (e *optionError) Error() string { return e.option + " " + e.problem }

func wrong(option, format string, args ...any) *optionError {
	return &optionError{option, fmt.Sprintf(format, args...)}
}

// check finds an option that is not right for a cell of hidden units.
func (o *RNNOptions) check(cell tensor.Cell, hidden int) *optionError {
	if e := o.checkCell(cell); e != nil {
		return e
	}
	switch {
	case o.Dropout > 0 && o.Layers == 1:
		return wrong("Dropout", "acts between layers, and there is one layer; drop out its output instead")
	case o.Variational && o.Dropout == 0:
		return wrong("Variational", "changes the dropout between layers, and that is 0")
	case o.Residual && o.Layers == 1:
		return wrong("Residual", "acts on the layers after the first, and there is one layer")
	}
	for _, p := range []struct {
		name string
		p    float32
	}{{"Dropout", o.Dropout}, {"InputDropout", o.InputDropout}, {"OutputDropout", o.OutputDropout}, {"RecurrentDropout", o.RecurrentDropout},
		{"WeightDrop", o.WeightDrop}, {"Zoneout", o.Zoneout}, {"ZoneoutCell", o.ZoneoutCell}} {
		if !(p.p >= 0 && p.p < 1) {
			return wrong(p.name, "must be a probability in [0,1), got %v", p.p)
		}
	}
	switch {
	case !(o.GateClip >= 0):
		return wrong("GateClip", "must not be negative, got %v", o.GateClip)
	case !(o.CellClip >= 0):
		return wrong("CellClip", "must not be negative, got %v", o.CellClip)
	case o.Proj < 0 || o.Proj >= hidden:
		return wrong("Proj", "must be below the %d hidden units, got %d", hidden, o.Proj)
	}
	return nil
}

// checkCell finds an option that this kind of cell does not have.
func (o *RNNOptions) checkCell(cell tensor.Cell) *optionError {
	lstm := cell == tensor.LSTMCell || cell == tensor.CoupledLSTMCell
	gru := cell == tensor.GRUCell || cell == tensor.GRUBeforeCell
	elman := cell == tensor.RNNTanhCell || cell == tensor.RNNReLUCell
	recurrent := !tensor.IsFree(cell)
	for _, c := range []struct {
		name  string
		used  bool
		works bool
		needs string
	}{
		{"ForgetBias", o.ForgetBias != 0, hasForgetGate(cell) && !o.NoBias, "a cell with a forget gate of its own (LSTM, sLSTM) and biases"},
		{"Chrono", o.Chrono != 0, (lstm || gru || cell == tensor.MinGRUCell) && !o.NoBias, "an LSTM, GRU or minGRU with biases"},
		{"Chrono", o.Chrono != 0, o.Chrono > 2 && o.ForgetBias == 0, "at least 3 steps, and no ForgetBias"},
		{"ReLU", o.ReLU, elman && o.Activation == 0, "an Elman RNN without another activation"},
		{"Coupled", o.Coupled, lstm, "an LSTM"},
		{"ResetBefore", o.ResetBefore, gru, "a GRU"},
		{"Peephole", o.Peephole, lstm, "an LSTM"},
		{"LayerNorm", o.LayerNorm, lstm || cell == tensor.GRUCell, "an LSTM, or a GRU that resets after the recurrent product"},
		{"Proj", o.Proj != 0, lstm, "an LSTM"},
		{"GateActivation", o.GateActivation != 0, lstm || gru, "an LSTM or GRU"},
		{"Activation", o.Activation != 0, lstm || gru || elman, "an LSTM, GRU or RNN"},
		{"OutputActivation", o.OutputActivation != 0, lstm, "an LSTM"},
		{"GateClip", o.GateClip != 0, lstm || gru || elman, "an LSTM, GRU or RNN"},
		{"CellClip", o.CellClip != 0, lstm, "an LSTM"},
		{"RecurrentDropout", o.RecurrentDropout != 0, recurrent, "a cell with a recurrent matrix"},
		{"WeightDrop", o.WeightDrop != 0, recurrent, "a cell with a recurrent matrix"},
		{"ZoneoutCell", o.ZoneoutCell != 0, lstm, "an LSTM"},
	} {
		if c.used && !c.works {
			return wrong(c.name, "needs %s", c.needs)
		}
	}
	return nil
}

// hasForgetGate says whether a cell has a forget gate with biases of its own.
func hasForgetGate(cell tensor.Cell) bool { return cell == tensor.LSTMCell || cell == tensor.SLSTMCell }

func refuse(format string, args ...any) { panic("nn: RNN: " + fmt.Sprintf(format, args...)) }
