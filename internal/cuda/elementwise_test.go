//go:build dl && linux

package cuda

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/simd"
)

func TestElementwise(t *testing.T) {
	devicetest.Run(t, emulated(t, Options{}), "Permute", "SumRows", "Unary", "Binary", "Dropout", "Vectors", "Step")
}

// TestMaskBits: a mask is the CPU's to the bit, whatever the device.
func TestMaskBits(t *testing.T) {
	const n = 100_003
	host, gpu := cpu.New(simd.Best()), emulated(t, Options{})
	ones := slices.Repeat([]float32{1}, n)
	var masks [2][]float32
	for i, b := range []device.Backend{host, gpu} {
		x, y := b.Alloc(n), b.Alloc(n)
		b.Upload(x, ones)
		b.Dropout(&device.DropoutSpec{X: x, Y: y, N: n, P: 0.3, Seed: 7, Step: 1 << 40, Node: 5})
		masks[i] = make([]float32, n)
		b.Download(masks[i], y)
	}
	if !slices.Equal(masks[0], masks[1]) {
		t.Error("the masks differ")
	}
}

// TestStepBits takes steps of each rule with the plain arithmetic of the CPU: float64, rounded once.
func TestStepBits(t *testing.T) {
	plain, err := simd.Named("generic")
	if err != nil {
		t.Fatal(err)
	}
	const n = 10_000
	r := rand.New(rand.NewPCG(1, 2))
	draw := func() []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	w, grads := draw(), [][]float32{draw(), draw(), draw()}
	for _, rule := range []device.StepSpec{
		{Kind: device.Adam, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, Decoupled: true},
		{Kind: device.Adam, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Decay: 0.1},
		{Kind: device.SGD, Momentum: 0.9, Dampening: 0.1},
		{Kind: device.SGD, Momentum: 0.9, Nesterov: true},
		{Kind: device.RMSprop, Beta2: 0.9, Eps: 1e-7, Momentum: 0.5},
	} {
		var weights [2][]float32
		for i, b := range []device.Backend{cpu.New(plain), emulated(t, Options{})} {
			s := rule
			s.W, s.G, s.M, s.V, s.LR, s.Scale = b.Alloc(n), b.Alloc(n), b.Alloc(n), b.Alloc(n), 0.01, b.Alloc(1)
			b.Upload(s.W, w)
			b.Upload(s.Scale, []float32{0.5})
			for k, g := range grads {
				b.Upload(s.G, g)
				s.T = k + 1
				b.Step(&s)
			}
			weights[i] = make([]float32, n)
			b.Download(weights[i], s.W)
		}
		differ := 0
		for i, v := range weights[0] {
			if d := math.Abs(float64(v - weights[1][i])); d > 1e-7*max(1, math.Abs(float64(v))) {
				differ++
			}
		}
		if differ > 0 {
			t.Errorf("rule %d: %d of %d weights differ by more than a rounding", rule.Kind, differ, n)
		}
	}
}
