package golden_test

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

type trainingSettings struct {
	Rule    string
	Options ruleOptions
	LR, Min float64
	Clip    float32
	Steps   int
	Model   string

	Cell                   string
	Hidden, Layers         int
	Bidirectional          bool
	Loss                   string
	Quantiles              []float32
	Batch, Window, Horizon int
	Inputs                 int

	Vocabulary, Dim, Labels int
}

// forecaster predicts a whole horizon from the last output of a stack.
type forecaster struct {
	RNN  *nn.RNN
	Head *nn.Linear
}

// tagger gives each step of padded sequences a label.
type tagger struct {
	Embedding *nn.Embedding
	RNN       *nn.RNN
	Head      *nn.Linear
}

// TestTraining takes the same ten steps as PyTorch, batch by batch, with
// clipping and a falling rate, and compares every loss, gradient norm and rate,
// and the weights at the end.
func TestTraining(t *testing.T) {
	forEach(t, "training", func(t *testing.T, dev *tensor.Device, c *golden.Case) {
		var s trainingSettings
		settings(t, c, &s)
		model, loss := newModel(t, c, &s)
		slab := pack(t, dev, model, c, "w0.")
		opt := newOptimizer(t, slab, s.Rule, s.Options)
		schedule := optim.Cosine(s.LR, s.Min, s.Steps)
		tape := tensor.NewTape(dev, tensor.Train)
		var losses, norms, rates []float32
		for step := range s.Steps {
			tape.Reset()
			l := loss(tape, step)
			l.Backward()
			opt.ClipNorm(s.Clip)
			opt.Step(schedule(step))
			losses = append(losses, l.Item())
			norms = append(norms, opt.GradNorm())
			rates = append(rates, schedule(step))
		}
		checkValues(t, "loss", losses, c.Tensor("losses").Data)
		checkGradient(t, "norm", norms, c.Tensor("norms").Data)
		if err := golden.CheckRates(rates, c.Tensor("rates").Data); err != nil {
			t.Errorf("rate: %v", err)
		}
		for _, p := range slab.Params {
			checkGradient(t, "final "+p.Name, p.Read(), c.Tensor("w."+p.Name).Data)
		}
	})
}

// newModel builds the case's model and its loss on the batch of a step.
func newModel(t *testing.T, c *golden.Case, s *trainingSettings) (model any, loss func(*tensor.Tape, int) *tensor.Tensor) {
	if s.Model == "tagger" {
		m := &tagger{
			nn.NewEmbedding(s.Vocabulary, s.Dim, &nn.EmbeddingOptions{Padding: 0, HasPadding: true}),
			nn.NewLSTM(s.Dim, s.Hidden, &nn.RNNOptions{Bidirectional: true}),
			nn.NewLinear(2*s.Hidden, s.Labels, nil),
		}
		ids, lengths, classes := ids32(c, "ids"), ids32(c, "lengths"), ids32(c, "classes")
		return m, func(tape *tensor.Tape, step int) *tensor.Tensor {
			lo, hi := step*s.Batch*s.Window, (step+1)*s.Batch*s.Window
			x := m.Embedding.Forward(tape.IDs(ids[lo:hi], lengths[step*s.Batch:(step+1)*s.Batch], s.Batch, s.Window))
			y, _ := m.RNN.Forward(x, nil)
			return tensor.CrossEntropy(m.Head.Forward(y), tape.IDs(classes[lo:hi], nil, s.Batch, s.Window), nil)
		}
	}
	outputs := s.Horizon
	if s.Loss == "pinball" {
		outputs *= len(s.Quantiles)
	}
	rnn := newRNN(s.Cell, s.Inputs, s.Hidden, nn.RNNOptions{Layers: s.Layers, Bidirectional: s.Bidirectional})
	m := &forecaster{rnn, nn.NewLinear(rnn.OutputSize(), outputs, nil)}
	return m, func(tape *tensor.Tape, step int) *tensor.Tensor {
		n := s.Batch * s.Window * s.Inputs
		x := tape.Input(c.Tensor("x").Data[step*n:(step+1)*n], s.Batch, s.Window, s.Inputs)
		n = s.Batch * s.Horizon
		y := tape.Input(c.Tensor("y").Data[step*n:(step+1)*n], s.Batch, s.Horizon)
		h, _ := m.RNN.Forward(x, nil)
		p := m.Head.Forward(tensor.LastStep(h))
		switch s.Loss {
		case "mse":
			return tensor.MSE(p, y, nil)
		case "huber":
			return tensor.Huber(p, y, 1, nil)
		case "pinball":
			return tensor.Pinball(tensor.Reshape(p, s.Batch, s.Horizon, len(s.Quantiles)), y, s.Quantiles, nil)
		}
		t.Fatalf("unknown loss %s", s.Loss)
		return nil
	}
}
