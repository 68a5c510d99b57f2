package nn_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

func mixedStack() *nn.Stack {
	return nn.NewStack([]*nn.RNN{
		nn.NewLSTM(width, 7, &nn.RNNOptions{Bidirectional: true}),
		nn.NewGRU(14, 14, nil),
		nn.NewLSTM(14, 20, &nn.RNNOptions{Proj: 14, Peephole: true}),
		nn.NewMinGRU(14, 3, nil),
	}, &nn.StackOptions{Residual: true})
}

// A stack is its layers one by one, with their inputs added where widths allow.
func TestStackIsItsLayers(t *testing.T) {
	s := mixedStack()
	slab := tensor.Pack(tensor.CPU(), s, 1)
	if slab.Lookup("layers.2.weight_hr_l0") == nil {
		t.Errorf("no parameter layers.2.weight_hr_l0 among %d", len(slab.Params))
	}
	const B, T = 4, 5
	lengths := []int32{2, 5, 0, 3}
	x := normal(1, B*T*width)
	for b, n := range lengths {
		for i := (b*T + int(n)) * width; i < (b+1)*T*width; i++ {
			x[i] = float32(math.NaN())
		}
	}
	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	y, final := s.Forward(tape.Sequences(x, lengths, B, T, width), nil)
	z := tape.Sequences(x, lengths, B, T, width)
	for i, m := range s.Layers {
		in := z
		out, state := m.Forward(z, nil)
		z = out
		if i == 1 || i == 2 {
			z = tensor.Add(out, in)
		}
		sameBits(t, fmt.Sprintf("state of layer %d", i), final[i].H.Data(), state.H.Data())
	}
	sameBits(t, "output", y.Data(), z.Data())
	for b, n := range lengths {
		for i, v := range y.Data()[b*T*3 : (b+1)*T*3] {
			if i >= 3*int(n) && v != 0 {
				t.Fatalf("row %d has the output %v past its end", b, v)
			}
		}
	}
}

func TestStackGradients(t *testing.T) {
	s := mixedStack()
	slab := tensor.Pack(tensor.CPU(), s, 1)
	x := normal(1, 3*4*width)
	tensortest.CheckGrad(t, slab, func(tape *tensor.Tape) *tensor.Tensor {
		y, final := s.Forward(tape.Sequences(x, []int32{2, 4, 3}, 3, 4, width), nil)
		_, final = s.Forward(tape.Input(x, 3, 4, width), []*nn.State{final[0], nil, final[2], nil})
		return tensor.Add(tensor.MeanAll(tensor.Square(y)), tensor.MeanAll(tensor.Square(final[2].C)))
	})
}

func TestStackAllocatesNothing(t *testing.T) {
	par.SetWorkers(2)
	defer par.SetWorkers(0)
	s := mixedStack()
	tensor.Pack(tensor.CPU(), s, 1)
	x := normal(1, 8*6*width)
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	step := func() {
		tape.Reset()
		y, _ := s.Forward(tape.Input(x, 8, 6, width), nil)
		tensor.SumAll(y).Backward()
	}
	for range 40 {
		step()
	}
	if n := testing.AllocsPerRun(20, step); n != 0 {
		t.Fatalf("%v allocations a step, want 0", n)
	}
}

func TestStackRefuses(t *testing.T) {
	a, b := nn.NewLSTM(3, 4, nil), nn.NewLSTM(5, 6, nil)
	for _, c := range []struct {
		layers []*nn.RNN
		opt    *nn.StackOptions
		want   string
	}{
		{nil, nil, "needs a layer"},
		{[]*nn.RNN{a, b}, nil, "the output of layer 0 has 4 features, and the input of layer 1 has 5"},
		{[]*nn.RNN{a}, &nn.StackOptions{Residual: true}, "Residual needs"},
		{[]*nn.RNN{a}, &nn.StackOptions{Dropout: 0.1}, "one layer"},
		{[]*nn.RNN{nn.NewLSTM(3, 4, &nn.RNNOptions{TimeMajor: true})}, nil, "TimeMajor"},
	} {
		err := tensor.Catch(func() { nn.NewStack(c.layers, c.opt) })
		if got := fmt.Sprint(err); !strings.HasPrefix(got, "nn: Stack: ") || !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q in it", got, c.want)
		}
	}
}
