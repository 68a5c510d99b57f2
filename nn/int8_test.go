package nn_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

type quantNet struct {
	RNN  *nn.RNN
	Head *nn.Linear
}

func (n *quantNet) forward(tape *tensor.Tape, x []float32, B, T, in int) *tensor.Tensor {
	y, _ := n.RNN.Forward(tape.Input(x, B, T, in), nil)
	return n.Head.Forward(y)
}

// A network whose matrices rest in 8 bits is near the float32 one, to the error that rounding
// makes; training passes in 8 bits compute what passes at rest compute; and gradients are those of float32
// around what the forward pass gave.
func TestInt8(t *testing.T) {
	const B, T, in, hidden = 9, 12, 20, 48
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, B*T*in)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for name, rnn := range map[string]func() *nn.RNN{
		"lstm":     func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{Layers: 2, Bidirectional: true}) },
		"gru":      func() *nn.RNN { return nn.NewGRU(in, hidden, nil) },
		"before":   func() *nn.RNN { return nn.NewGRU(in, hidden, &nn.RNNOptions{ResetBefore: true}) },
		"rnn":      func() *nn.RNN { return nn.NewRNN(in, hidden, nil) },
		"relu":     func() *nn.RNN { return nn.NewRNN(in, hidden, &nn.RNNOptions{ReLU: true}) },
		"peephole": func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{Peephole: true}) },
		"proj":     func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{Proj: 24}) },
		"norm":     func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{LayerNorm: true}) },
		"slstm":    func() *nn.RNN { return nn.NewSLSTM(in, hidden, nil) },
		"mingru":   func() *nn.RNN { return nn.NewMinGRU(in, hidden, nil) },
		"minlstm":  func() *nn.RNN { return nn.NewMinLSTM(in, hidden, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			build := func() (*quantNet, *tensor.Slab) {
				n := &quantNet{RNN: rnn()}
				n.Head = nn.NewLinear(n.RNN.OutputSize(), 5, nil)
				return n, tensor.Pack(nil, n, 3)
			}
			pass := func(n *quantNet, mode tensor.Mode, p tensor.Precision) ([]float32, *tensor.Tensor) {
				tape := tensor.NewTape(nil, mode)
				tape.SetPrecision(p)
				y := n.forward(tape, x, B, T, in)
				return y.Data(), y
			}
			plain, _ := build()
			want, _ := pass(plain, tensor.Infer, tensor.Float32)
			n, slab := build()
			trained, y := pass(n, tensor.Train, tensor.Int8)
			tensor.MeanAll(tensor.Mul(y, y)).Backward()
			grads := gradsOf(slab)
			slab.ZeroGrad()
			_, y = pass(n, tensor.Train, tensor.Float32)
			tensor.MeanAll(tensor.Mul(y, y)).Backward()
			if e := apart(gradsOf(slab), grads); e > 0.1 || e == 0 {
				t.Errorf("gradients of a pass in 8 bits are %g of their norm from float32's", e)
			}
			for _, p := range slab.Params {
				if p.Rank() > 1 {
					p.SetRest(tensor.Int8)
				}
			}
			got, _ := pass(n, tensor.Infer, tensor.Float32)
			if !slices.Equal(got, trained) {
				t.Error("a training pass in 8 bits and a pass of weights at rest have different bits")
			}
			if e := apart(want, got); e > 0.05 || e == 0 {
				t.Errorf("the output is %g of its norm from float32's", e)
			}
			// One row alone has the bits that it has in the batch.
			tape := tensor.NewTape(nil, tensor.Infer)
			if alone := n.forward(tape, x[3*T*in:4*T*in], 1, T, in).Data(); !slices.Equal(alone, got[3*T*5:4*T*5]) {
				t.Error("a row depends on its batch")
			}
		})
	}
}

// Rows too long for sums of 32 bits are multiplied in float32.
func TestInt8OfLongRows(t *testing.T) {
	const in = 1<<17 + 1
	l := nn.NewLinear(in, 1, &nn.LinearOptions{NoBias: true, Init: nn.Constant(1)})
	tensor.Pack(nil, l, 1)
	x := make([]float32, in)
	for i := range x {
		x[i] = 1
	}
	l.Weight.SetRest(tensor.Int8)
	if y := l.Forward(tensor.NewTape(nil, tensor.Infer).Input(x, 1, in)).Item(); math.Abs(float64(y)/in-1) > 1e-5 {
		t.Errorf("the sum of %d ones is %g", in, y)
	}
}

// apart returns the norm of the difference by the norm of the first.
func apart(a, b []float32) float64 {
	d, n := 0.0, 0.0
	for i, v := range a {
		d += (float64(v) - float64(b[i])) * (float64(v) - float64(b[i]))
		n += float64(v) * float64(v)
	}
	return math.Sqrt(d / n)
}

// Training with rounded weights learns as well as training in float32 and rounding afterwards,
// where rounding costs little.
func TestInt8Training(t *testing.T) {
	const B, T, in, hidden, steps = 32, 10, 3, 6, 1000
	loss := func(further, at tensor.Precision) float64 {
		r := rand.New(rand.NewPCG(5, 6))
		n := &quantNet{RNN: nn.NewLSTM(in, hidden, nil)}
		n.Head = nn.NewLinear(hidden, 1, nil)
		slab := tensor.Pack(nil, n, 1)
		opt := optim.NewAdam(slab, nil)
		one := func(tape *tensor.Tape) *tensor.Tensor {
			x, want := make([]float32, B*T*in), make([]float32, B*T)
			for b := range B {
				sum := float32(0)
				for s := range T {
					for i := range in {
						x[(b*T+s)*in+i] = float32(r.NormFloat64())
					}
					sum = 0.8*sum + 0.3*x[(b*T+s)*in]
					want[b*T+s] = sum
				}
			}
			d := tensor.Sub(n.forward(tape, x, B, T, in), tape.Input(want, B, T, 1))
			return tensor.MeanAll(tensor.Mul(d, d))
		}
		tape := tensor.NewTape(nil, tensor.Train)
		for i := range steps {
			if i == steps/2 {
				tape.SetPrecision(further)
			}
			tape.Reset()
			one(tape).Backward()
			opt.Step(1e-2 * (1 - float32(i)/steps))
		}
		for _, p := range slab.Params {
			if p.Rank() > 1 {
				p.SetRest(at)
			}
		}
		sum := 0.0
		for range 20 {
			sum += float64(one(tensor.NewTape(nil, tensor.Infer)).Item()) / 20
		}
		return sum
	}
	full, after, aware := loss(tensor.Float32, tensor.Float32), loss(tensor.Float32, tensor.Int8), loss(tensor.Int8, tensor.Int8)
	t.Logf("loss in float32 %.5f, rounded afterwards %.5f, trained rounded %.5f", full, after, aware)
	if full >= after || aware > 1.2*after {
		t.Errorf("losses %g in float32, %g rounded afterwards, %g trained rounded", full, after, aware)
	}
}
