package cpu

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/internal/device"
)

// Weights after five steps of torch.optim 1.13 with the gradient
// (t·(0.3, -0.1, 2) - w/2) at step t.
func TestStepAsPyTorch(t *testing.T) {
	for _, c := range []struct {
		name string
		s    device.StepSpec
		want [3]float64
	}{
		{"SGD", device.StepSpec{Kind: device.SGD, LR: 0.1, Momentum: 0.9, Dampening: 0.25, Decay: 0.01},
			[3]float64{0.792570173740387, -2.9049007892608643, -4.486828327178955}},
		{"Nesterov", device.StepSpec{Kind: device.SGD, LR: 0.1, Momentum: 0.9, Nesterov: true},
			[3]float64{0.5289727449417114, -3.5559160709381104, -8.978005409240723}},
		{"Adam", device.StepSpec{Kind: device.Adam, LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.1},
			[3]float64{0.9828736186027527, -2.0486204624176025, 0.45169785618782043}},
		{"AdamW", device.StepSpec{Kind: device.Adam, LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.1, Decoupled: true},
			[3]float64{0.9885271787643433, -2.039027214050293, 0.4493566155433655}},
		{"RMSprop", device.StepSpec{Kind: device.RMSprop, LR: 0.01, Beta2: 0.95, Eps: 1e-4, Momentum: 0.5},
			[3]float64{0.8939774036407471, -2.232677459716797, 0.19119665026664734}},
	} {
		eachSet(t, func(t *testing.T, b *Backend) {
			s := c.s
			s.W, s.G, s.M, s.V = device.HostBuffer([]float32{1, -2, 0.5}), b.Alloc(3), b.Alloc(3), b.Alloc(3)
			for s.T = 1; s.T <= 5; s.T++ {
				for i, g := range []float32{0.3, -0.1, 2} {
					s.G.Host[i] = g*float32(s.T) - s.W.Host[i]*0.5
				}
				b.Step(&s)
			}
			for i, want := range c.want {
				if !closeTo(float64(s.W.Host[i]), want, 5e-7) {
					t.Errorf("%s: weight %d is %v, want %v", c.name, i, s.W.Host[i], want)
				}
			}
		})
	}
}

// A sum of squares too large for float32 must make the step a skipped one.
func TestOverflowingNormSkips(t *testing.T) {
	eachSet(t, func(t *testing.T, b *Backend) {
		g, sum, factor := device.HostBuffer([]float32{1e30, 1}), b.Alloc(1), b.Alloc(1)
		b.SumSquares(sum, g)
		b.ClipFactor(factor, sum, 1)
		if !math.IsInf(float64(factor.Host[0]), 1) {
			t.Fatalf("factor %v, want +Inf", factor.Host[0])
		}
		s := device.StepSpec{Kind: device.SGD, W: device.HostBuffer([]float32{3, 4}), G: g, Scale: factor, LR: 1, T: 1}
		b.Step(&s)
		if s.W.Host[0] != 3 || s.W.Host[1] != 4 || g.Host[0] != 0 {
			t.Errorf("weights %v, gradient %v after a skipped step", s.W.Host, g.Host)
		}
	})
}
