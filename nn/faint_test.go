package nn_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// Where gradients vanish, gates shut or states die away in silence, no cell and
// no option leaves a subnormal number, and no Go code meets one on the way: so
// that the time of a pass depends on its shape alone.
func TestNothingIsSubnormal(t *testing.T) {
	par.SetWorkers(1)
	defer par.SetWorkers(0)
	const B, T = 3, 260
	for _, c := range table {
		for _, kernels := range tensortest.Kernels() {
			for _, way := range []struct {
				name    string
				weight  float32 // scale of the weights
				bias    float32
				silence int // the step at which the input ends
			}{
				{"vanishing", 0.1, 0, T},
				{"shut", 0.1, -20, T},
				{"shut hard", 0.1, -60, T},
				{"silence", 0.1, 0, 3},
			} {
				t.Run(fmt.Sprintf("%s %s %s", c.name, kernels, way.name), func(t *testing.T) {
					o := c.opt
					o.Layers = 2
					m := c.new(width, hidden, &o)
					slab := tensor.Pack(tensortest.CPUWith(kernels), m, 1)
					for i, p := range slab.Params {
						w := normal(uint64(i), p.Len())
						for j := range w {
							w[j] *= way.weight
							if len(p.Dims()) == 1 && p.Len() >= hidden*m.Cell().Gates() {
								w[j] += way.bias / 2
							}
						}
						p.Write(w)
					}
					x := normal(100, B*T*width)
					for i := range x {
						if i/width%T >= way.silence {
							x[i] = 0
						}
					}
					tape := tensor.NewTape(slab.Device(), tensor.Train)
					pass := func() []*tensor.Tensor {
						slab.ZeroGrad()
						tape.Reset()
						in := tape.Input(x, B, T, width)
						in.RequireGrad()
						y, s := m.Forward(in, nil)
						tensor.SumAll(tensor.Mul(s.H, s.H)).Backward()
						return []*tensor.Tensor{in, y, s.H}
					}
					pass() // whatever is drawn and made once
					var all []*tensor.Tensor
					read, made := simdtest.Subnormals(t, func() { all = pass() })
					// A user's own cell computes as it likes; and with gates this far shut the
					// generic set's products of tiny states and tiny gradients come below 2^-222.
					excused := c.name == "custom" || kernels == "generic" && way.name == "shut hard"
					if (read || made) && !excused {
						t.Errorf("Go code read (%v) or made (%v) subnormal numbers", read, made)
					}
					check := func(what string, v []float32) {
						for i, x := range v {
							if x != 0 && math.Abs(float64(x)) < simd.MinNormal {
								t.Fatalf("%s: element %d is %g", what, i, x)
							}
						}
					}
					for i, x := range all {
						check(fmt.Sprint("tensor ", i), x.Data())
					}
					dx := all[0].Grad()
					check("input gradient", dx)
					for _, p := range slab.Params {
						check("gradient of "+p.Name, p.Grad())
					}
				})
			}
		}
	}
}
