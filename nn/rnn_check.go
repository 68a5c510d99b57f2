package nn

import (
	"fmt"

	"github.com/carousel-ml/carousel/tensor"
)

// check refuses options that contradict each other or would do nothing.
func (m *RNN) check() {
	o := &m.opt
	if m.in < 1 || m.hidden < 1 || o.Layers < 1 {
		refuse("sizes must be positive, got input %d, hidden %d, layers %d", m.in, m.hidden, o.Layers)
	}
	m.checkCell()
	if o.Dropout > 0 && o.Layers == 1 {
		refuse("Dropout acts between layers, and there is one layer: use OutputDropout, or nn.Dropout on the output")
	}
	if o.Variational && o.Dropout == 0 {
		refuse("Variational changes Dropout, and that is 0")
	}
	for _, p := range []struct {
		name string
		p    float32
	}{{"Dropout", o.Dropout}, {"InputDropout", o.InputDropout}, {"OutputDropout", o.OutputDropout}, {"RecurrentDropout", o.RecurrentDropout},
		{"WeightDrop", o.WeightDrop}, {"Zoneout", o.Zoneout}, {"ZoneoutCell", o.ZoneoutCell}} {
		if !(p.p >= 0 && p.p < 1) {
			refuse("%s must be a probability in [0,1), got %v", p.name, p.p)
		}
	}
	if !(o.GateClip >= 0 && o.CellClip >= 0) {
		refuse("clips must not be negative, got GateClip %v, CellClip %v", o.GateClip, o.CellClip)
	}
	if o.Proj < 0 || o.Proj >= m.hidden {
		refuse("Proj must be below hidden %d, got %d", m.hidden, o.Proj)
	}
}

// checkCell refuses options that this kind of cell does not have.
func (m *RNN) checkCell() {
	o := &m.opt
	lstm := m.cell == tensor.LSTMCell || m.cell == tensor.CoupledLSTMCell
	gru := m.cell == tensor.GRUCell || m.cell == tensor.GRUBeforeCell
	elman := m.cell == tensor.RNNTanhCell || m.cell == tensor.RNNReLUCell
	recurrent := !tensor.IsFree(m.cell)
	own := m.cell == tensor.LSTMCell || m.cell == tensor.SLSTMCell
	for _, c := range []struct {
		name  string
		used  bool
		works bool
		needs string
	}{
		{"ForgetBias", o.ForgetBias != 0, own && !o.NoBias, "a cell with a forget gate of its own (LSTM, sLSTM) and biases"},
		{"ReLU", o.ReLU, elman && o.Activation == 0, "NewRNN without Activation"},
		{"Coupled", o.Coupled, lstm, "an LSTM"},
		{"ResetBefore", o.ResetBefore, gru, "a GRU"},
		{"Peephole", o.Peephole, lstm, "an LSTM"},
		{"LayerNorm", o.LayerNorm, lstm || m.cell == tensor.GRUCell, "an LSTM, or a GRU that resets after the recurrent product"},
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
			refuse("%s needs %s", c.name, c.needs)
		}
	}
}

func refuse(format string, args ...any) { panic("nn: RNN: " + fmt.Sprintf(format, args...)) }
