// Package tensortest checks gradients of operations built on package tensor,
// those of this module and a user's own, and selects the kernels of a test.
package tensortest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Kernels returns the names of the kernel sets that run on this machine, fastest first.
func Kernels() []string {
	var names []string
	for _, s := range simd.Sets() {
		names = append(names, s.Name)
	}
	return names
}

// CPUWith returns the processor with a kernel set of [Kernels], or nil if it has no
// set of that name.
func CPUWith(kernels string) *tensor.Device {
	for _, s := range simd.Sets() {
		if s.Name == kernels {
			return tensor.NewDevice(cpu.New(s))
		}
	}
	return nil
}

// CheckGrad compares the gradient that Backward leaves in slab with differences
// of the loss along random directions in parameter space. The loss is recorded
// on the tape given, must be one element, and must be the same each time; it
// should be smooth within about 0.02 of the parameters' values.
//
// float32 leaves about three digits: a difference beyond 0.3 % of the largest
// slope seen fails. The exact checks of the kernels are in double precision elsewhere.
func CheckGrad(t *testing.T, slab *tensor.Slab, loss func(*tensor.Tape) *tensor.Tensor) {
	t.Helper()
	const directions, h = 6, 8e-3
	dev := slab.Device()
	value := func() float64 {
		tape := tensor.NewTape(dev, tensor.Train)
		return float64(loss(tape).Item())
	}
	slab.ZeroGrad()
	loss(tensor.NewTape(dev, tensor.Train)).Backward()
	start, grad := snapshot(slab)

	r := rand.New(rand.NewPCG(7, 7))
	for d := range directions {
		// One parameter a direction, in turn, and all of them at first.
		dir := make([][]float64, len(start))
		norm := 0.0
		for i := range dir {
			dir[i] = make([]float64, len(start[i]))
			if d > 0 && (d-1)%len(dir) != i {
				continue
			}
			for j := range dir[i] {
				dir[i][j] = r.NormFloat64()
				norm += dir[i][j] * dir[i][j]
			}
		}
		norm = math.Sqrt(norm)
		slope, scale := 0.0, 0.0
		for i := range dir {
			for j := range dir[i] {
				dir[i][j] /= norm
				slope += dir[i][j] * float64(grad[i][j])
				scale += math.Abs(dir[i][j] * float64(grad[i][j]))
			}
		}
		at := func(step float64) float64 {
			for i, p := range slab.Params {
				w := make([]float32, len(start[i]))
				for j := range w {
					w[j] = start[i][j] + float32(step*dir[i][j])
				}
				p.Write(w)
			}
			return value()
		}
		// Fourth order in h.
		numeric := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
		for i, p := range slab.Params {
			p.Write(start[i])
		}
		if diff := math.Abs(numeric - slope); !(diff <= 3e-3*scale+1e-4) {
			t.Errorf("direction %d: Backward's slope is %.6g, differences give %.6g", d, slope, numeric)
		}
	}
}

func snapshot(slab *tensor.Slab) (values, grads [][]float32) {
	for _, p := range slab.Params {
		values = append(values, p.Read())
		grads = append(grads, p.Grad())
	}
	return values, grads
}
