package nn_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Net is an LSTM with a linear layer on its last step.
type Net struct {
	RNN  *nn.RNN
	Head *nn.Linear
}

func (m *Net) Forward(x *tensor.Tensor) *tensor.Tensor {
	y, _ := m.RNN.Forward(x, nil) // [B,T,in] -> [B,T,hidden]
	return m.Head.Forward(tensor.LastStep(y))
}

// A two-layer LSTM reads a batch of five sequences of twenty steps and is
// trained to predict one number for each.
func Example() {
	const B, T, in, steps = 5, 20, 10, 200
	r := rand.New(rand.NewPCG(1, 1))
	x, y := make([]float32, B*T*in), make([]float32, B)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range y {
		y[i] = float32(r.NormFloat64())
	}

	net := &Net{nn.NewLSTM(in, 32, &nn.RNNOptions{Layers: 2}), nn.NewLinear(32, 1, nil)}
	opt := optim.NewAdamW(tensor.Pack(tensor.CPU(), net, 1), &optim.AdamWOptions{WeightDecay: 1e-5})
	lr, tape := optim.Cosine(1e-2, 1e-5, steps), tensor.NewTape(tensor.CPU(), tensor.Train)
	var first, last float32
	for step := range steps {
		tape.Reset()
		out := net.Forward(tape.Input(x, B, T, in))
		loss := tensor.MSE(out, tape.Input(y, B, 1), nil)
		loss.Backward()
		opt.ClipNorm(1.0)
		opt.Step(lr(step)) // applies, then clears the gradients
		if last = loss.Item(); step == 0 {
			first = last
			fmt.Println(out.Dims())
		}
	}
	fmt.Println("learnt:", last < first/100)
	// Output:
	// [5 1]
	// learnt: true
}
