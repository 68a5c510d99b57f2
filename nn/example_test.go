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

// Truncated backpropagation: documents of any length in two rows, three steps at
// a time, the state carried on within a document and never across.
func ExampleSegments() {
	documents := [][]float32{{1, 2, 3, 4, 5}, {6, 7}, {8, 9, 10, 11}}
	const rows, steps = 2, 3
	m := nn.NewGRU(1, 4, nil)
	slab := tensor.Pack(tensor.CPU(), m, 1)
	opt := optim.NewSGD(slab, nil)
	tape, carry := tensor.NewTape(tensor.CPU(), tensor.Train), nn.NewCarry(m, rows)
	x := make([]float32, rows*steps)
	for seg := nn.NewSegments([]int{5, 2, 4}, rows, steps); seg.Next(); {
		for b, doc := range seg.Doc {
			if doc >= 0 {
				copy(x[b*steps:(b+1)*steps], documents[doc][seg.From[b]:])
			}
		}
		tape.Reset()
		y, final := m.Forward(tape.Sequences(x, seg.Length, rows, steps, 1), carry.Begin(tape, seg.Begins))
		tensor.ActivityPenalty(y, 1).Backward()
		opt.Step(0.1)
		carry.End(final)
		fmt.Println("documents", seg.Doc, "from", seg.From, "steps", seg.Length, "begin", seg.Begins)
	}
	// Output:
	// documents [0 1] from [0 0] steps [3 2] begin [true true]
	// documents [0 2] from [3 0] steps [2 3] begin [false true]
	// documents [-1 2] from [0 3] steps [0 1] begin [false false]
}
