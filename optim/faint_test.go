package optim

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// Rows that have no gradient any more, gradients that fade, and rates and clipping
// norms near the end of float32's range leave no subnormal number in weights,
// moments or averages, and a step meets none.
func TestNoStepIsSubnormal(t *testing.T) {
	par.SetWorkers(1)
	defer par.SetWorkers(0)
	const n = 203
	for name, rule := range map[string]func(s *tensor.Slab) *Optimizer{
		"sgd":      func(s *tensor.Slab) *Optimizer { return NewSGD(s, &SGDOptions{WeightDecay: 0.1, DecayAll: true}) },
		"momentum": func(s *tensor.Slab) *Optimizer { return NewSGD(s, &SGDOptions{Momentum: 0.9, Dampening: 0.1}) },
		"nesterov": func(s *tensor.Slab) *Optimizer { return NewSGD(s, &SGDOptions{Momentum: 0.9, Nesterov: true}) },
		"adam":     func(s *tensor.Slab) *Optimizer { return NewAdam(s, &AdamOptions{Beta1: 0.5, Beta2: 0.7, Eps: 1e-30}) },
		"adamw":    func(s *tensor.Slab) *Optimizer { return NewAdamW(s, &AdamWOptions{WeightDecay: 0.1, DecayAll: true}) },
		"rmsprop": func(s *tensor.Slab) *Optimizer {
			return NewRMSprop(s, &RMSpropOptions{Momentum: 0.9, Alpha: 0.9, Eps: 1e-37})
		},
	} {
		for _, kernels := range tensortest.Kernels() {
			for _, at := range []struct{ lr, clip float32 }{{0.9, 1}, {1e-3, 1e-37}, {1e-37, 1}, {simd.MinNormal, 1e-30}} {
				m := &struct{ W *tensor.Param }{tensor.NewParam("w", func(r *rand.Rand, w []float32, _ []int) {
					for i := range w {
						w[i] = float32(r.NormFloat64())
					}
				}, 7, 29)}
				s := tensor.Pack(tensortest.CPUWith(kernels), m, 1)
				o, ema := rule(s), NewEMA(s, 0.99)
				r, g := rand.New(rand.NewPCG(1, 2)), make([]float32, n)
				for k := range 1000 {
					for i := range g {
						switch v := r.NormFloat64(); {
						case i%29 < 9 && k < 5:
							g[i] = float32(v)
						case i%29 > 20:
							g[i] = simd.Narrow(v * math.Exp(-float64(k)/5))
						default:
							g[i] = 0
						}
					}
					s.Device().Backend().Upload(s.Grads().Slice(0, n), g)
					if read, made := simdtest.Subnormals(t, func() { o.ClipNorm(at.clip); o.Step(at.lr); ema.Update() }); read || made {
						t.Fatalf("%s on %s, %+v, step %d: read %v, made %v", name, kernels, at, k, read, made)
					}
				}
				kept, _ := ema.State()
				for _, v := range append(append(kept, o.State().Vectors...), Vector{Name: "w", Data: m.W.Read()}) {
					for i, x := range v.Data {
						if x != 0 && math.Abs(float64(x)) < simd.MinNormal {
							t.Fatalf("%s on %s, %+v: %s[%d] is %g", name, kernels, at, v.Name, i, x)
						}
					}
				}
			}
		}
	}
}
