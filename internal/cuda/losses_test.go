//go:build dl && linux

package cuda

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
)

func TestLosses(t *testing.T) {
	long(t)
	devicetest.Run(t, emulated(t, Options{}), "Loss", "CrossEntropy")
}

func TestManyItemsAndWideClasses(t *testing.T) {
	long(t)
	b := emulated(t, Options{})
	asCPU(t, b, 1e-6, func(r *rig) []device.Buffer { // more items than threads at once
		const n = 300000
		s := device.LossSpec{Kind: device.MSE, N: n, V: 1, Pred: r.normal(n), Target: r.normal(n), Weight: r.floats(alternating(n)), Value: r.Alloc(1), DPred: r.normal(n)}
		r.Loss(&s)
		return []device.Buffer{s.Value, s.DPred}
	})
	for _, size := range [][2]int{{3, 50000}, {20000, 5}} {
		asCPU(t, b, 1e-6, func(r *rig) []device.Buffer {
			n, v := size[0], size[1]
			s := device.LossSpec{Kind: device.CrossEntropy, N: n, V: v, Pred: r.normal(n * v), Classes: r.ints(n, func(i int) int { return i % v }), Ignore: 1,
				Weight: r.floats(alternating(n)), ClassWeight: r.floats(alternating(v)), Smoothing: 0.2, Value: r.Alloc(1), DPred: r.normal(n * v)}
			r.Loss(&s)
			return []device.Buffer{s.Value, s.DPred}
		})
	}
}

// alternating is 0, 0.5, 1, 1.5 and so on.
func alternating(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i%4) / 2
	}
	return v
}

func TestLossOfUnknownClass(t *testing.T) {
	b := newRig(emulated(t, Options{}))
	for _, class := range []int{3, -2} {
		s := device.LossSpec{Kind: device.CrossEntropy, N: 2, V: 3, Pred: b.normal(6), Ignore: -1, Value: b.Alloc(1), DPred: b.Alloc(6),
			Classes: b.ints(2, func(i int) int { return i * class })}
		b.Loss(&s)
		v := make([]float32, 1)
		b.Download(v, s.Value)
		if v[0] == v[0] {
			t.Errorf("class %d of 3: the loss is %v, want NaN", class, v[0])
		}
	}
}
