//go:build dl && linux

package cuda_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/cuda"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// TestWeightsAtRest checks that weights which rest in 8 bits are used as they are where recurrent
// products in 8 bits are not computed: as the CPU does with the same values in float32.
func TestWeightsAtRest(t *testing.T) {
	const B, T, in, hidden = 3, 5, 6, 8
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, B*T*in)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	outputs := func(dev *tensor.Device, rest tensor.Precision) []float32 {
		m := nn.NewLSTM(in, hidden, nil)
		slab := tensor.Pack(dev, m, 1)
		for _, p := range slab.Params {
			if p.Rank() > 1 {
				p.SetRest(tensor.Int8)
				if rest == tensor.Float32 {
					p.SetRest(tensor.Float32) // the values stay
				}
			}
		}
		y, _ := m.Forward(tensor.NewTape(dev, tensor.Infer).Input(x, B, T, in), nil)
		return y.Data()
	}
	want := outputs(tensor.CPU(), tensor.Float32)
	for i, v := range outputs(tensor.NewDevice(cuda.Emulated(t, cuda.Options{})), tensor.Int8) {
		if math.Abs(float64(v-want[i])) > 1e-5 {
			t.Fatalf("output %d is %g, want %g", i, v, want[i])
		}
	}
}

// TestTwoDevices checks that parameters of one device are refused on a tape of another, where their
// addresses mean something else.
func TestTwoDevices(t *testing.T) {
	on := tensor.NewDevice(cuda.Emulated(t, cuda.Options{}))
	m := &tagger{nn.NewEmbedding(4, 3, nil), nn.NewLSTM(3, 5, nil), nn.NewLayerNorm(5), nn.NewLinear(5, 2, nil)}
	tensor.Pack(on, m, 1)
	for name, f := range map[string]func(t *tensor.Tape){
		"Linear":    func(t *tensor.Tape) { m.Head.Forward(t.Input(make([]float32, 5), 1, 5)) },
		"Embed":     func(t *tensor.Tape) { m.Table.Forward(t.IDs([]int32{1}, nil, 1)) },
		"LayerNorm": func(t *tensor.Tape) { m.Norm.Forward(t.Input(make([]float32, 5), 1, 5)) },
		"Scan":      func(t *tensor.Tape) { m.RNN.Forward(t.Input(make([]float32, 6), 1, 2, 3), nil) },
	} {
		tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
		err := tensor.Catch(func() { f(tape) })
		if err == nil || !strings.Contains(err.Error(), "is on cuda/Emulated, the tape on cpu/") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
