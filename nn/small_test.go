package nn_test

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// A loss may be as small as its owner likes, down to where the gradient's own
// parts come below 2^-126: the gradient of a loss of size 1e-30 is that of one
// of size 1, to float32's precision. The figures are those of ARCHITECTURE.md.
func TestSmallLosses(t *testing.T) {
	const B, T = 4, 40
	for _, kernels := range tensortest.Kernels() {
		for _, c := range []struct {
			name string
			new  maker
		}{{"lstm", nn.NewLSTM}, {"gru", nn.NewGRU}, {"rnn", nn.NewRNN}} {
			m := c.new(width, hidden, &nn.RNNOptions{Layers: 2})
			slab := tensor.Pack(tensortest.CPUWith(kernels), m, 1)
			grads := func(scale float32) (all []float64) {
				slab.ZeroGrad()
				tape := tensor.NewTape(slab.Device(), tensor.Train)
				y, _ := m.Forward(tape.Input(normal(1, B*T*width), B, T, width), nil)
				d := tensor.Sub(y, tape.Input(normal(2, B*T*hidden), B, T, hidden))
				tensor.MulScalar(tensor.MeanAll(tensor.Mul(d, d)), scale).Backward()
				for _, p := range slab.Params {
					for _, g := range p.Grad() {
						all = append(all, float64(g)/float64(scale))
					}
				}
				return all
			}
			want := grads(1)
			for _, s := range []struct{ scale, most float64 }{{1e-10, 1e-6}, {1e-20, 1e-6}, {1e-28, 1e-6}, {1e-30, 1e-4}, {1e-32, 5e-2}} {
				var off, size float64
				for i, g := range grads(float32(s.scale)) {
					off += (g - want[i]) * (g - want[i])
					size += want[i] * want[i]
				}
				off = math.Sqrt(off / size)
				t.Logf("%s %s: a loss of size %g has a gradient off by %.1e of its norm", c.name, kernels, s.scale, off)
				if off > s.most {
					t.Errorf("%s %s: a loss of size %g has a gradient off by %.1e of its norm, want at most %g", c.name, kernels, s.scale, off, s.most)
				}
			}
		}
	}
}
