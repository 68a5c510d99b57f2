package golden_test

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

type rnnSettings struct {
	Cell          string
	Layers        int
	Bidirectional bool
	Bias          bool
	Lengths       []int32
	State         bool
	B, T, I, H    int
	Proj          int
}

func TestLSTM(t *testing.T)    { forEach(t, "lstm", testRNN) }
func TestGRU(t *testing.T)     { forEach(t, "gru", testRNN) }
func TestRNNTanh(t *testing.T) { forEach(t, "rnn_tanh", testRNN) }
func TestRNNReLU(t *testing.T) { forEach(t, "rnn_relu", testRNN) }
func TestProj(t *testing.T)    { forEach(t, "lstm_proj", testRNN) }
func TestLarge(t *testing.T)   { forEach(t, "rnn_large", testRNN) }

func newRNN(cell string, in, hidden int, o nn.RNNOptions) *nn.RNN {
	switch cell {
	case "lstm":
		return nn.NewLSTM(in, hidden, &o)
	case "gru":
		return nn.NewGRU(in, hidden, &o)
	}
	o.ReLU = cell == "rnn_relu"
	return nn.NewRNN(in, hidden, &o)
}

// testRNN compares the outputs, the final states and every gradient of a stack.
func testRNN(t *testing.T, dev *tensor.Device, c *golden.Case) {
	var s rnnSettings
	settings(t, c, &s)
	rnn := newRNN(s.Cell, s.I, s.H, nn.RNNOptions{Layers: s.Layers, Bidirectional: s.Bidirectional, NoBias: !s.Bias, Proj: s.Proj})
	slab := pack(t, dev, rnn, c, "w.")
	tape := tensor.NewTape(dev, tensor.Train)
	for range 2 { // the second pass works in used memory
		tape.Reset()
		slab.ZeroGrad()
		x := sequences(tape, c, s.Lengths)
		init := initial(tape, c, &s)
		y, final := rnn.Forward(x, init)
		checkValues(t, "y", y.Data(), c.Tensor("y").Data)
		checkValues(t, "h_n", final.H.Data(), c.Tensor("hn").Data)
		loss := tensor.Add(weighted(y, constant(tape, c, "py")), weighted(final.H, constant(tape, c, "ph")))
		if final.C != nil {
			checkValues(t, "c_n", final.C.Data(), c.Tensor("cn").Data)
			loss = tensor.Add(loss, weighted(final.C, constant(tape, c, "pc")))
		}
		loss.Backward()
		checkGradient(t, "x", x.Grad(), c.Tensor("dx").Data)
		if init != nil {
			checkGradient(t, "h_0", init.H.Grad(), c.Tensor("dh0").Data)
		}
		if init != nil && init.C != nil {
			checkGradient(t, "c_0", init.C.Grad(), c.Tensor("dc0").Data)
		}
		for _, p := range slab.Params {
			checkGradient(t, p.Name, p.Grad(), c.Tensor("d."+p.Name).Data)
		}
	}
	testInference(t, tape.Device(), rnn, c, &s)
}

// testInference compares the outputs on a tape that keeps nothing.
func testInference(t *testing.T, dev *tensor.Device, rnn *nn.RNN, c *golden.Case, s *rnnSettings) {
	tape := tensor.NewTape(dev, tensor.Infer)
	y, final := rnn.Forward(sequences(tape, c, s.Lengths), initial(tape, c, s))
	checkValues(t, "y of inference", y.Data(), c.Tensor("y").Data)
	checkValues(t, "h_n of inference", final.H.Data(), c.Tensor("hn").Data)
	if final.C != nil {
		checkValues(t, "c_n of inference", final.C.Data(), c.Tensor("cn").Data)
	}
}

func sequences(tape *tensor.Tape, c *golden.Case, lengths []int32) *tensor.Tensor {
	x := c.Tensor("x")
	if lengths == nil {
		return input(tape, c, "x")
	}
	return tape.Sequences(x.Data, lengths, x.Dims[0], x.Dims[1], x.Dims[2]).RequireGrad()
}

func initial(tape *tensor.Tape, c *golden.Case, s *rnnSettings) *nn.State {
	if !s.State {
		return nil
	}
	state := &nn.State{H: input(tape, c, "h0")}
	if s.Cell == "lstm" {
		state.C = input(tape, c, "c0")
	}
	return state
}
