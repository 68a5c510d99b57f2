//go:build dl && linux

package cuda

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/simd"
)

func TestCTC(t *testing.T) { devicetest.Run(t, emulated(t, Options{}), "CTC") }

// Rows with more states than threads, and with more classes than a warp.
func TestCTCLarge(t *testing.T) {
	long(t)
	r := rand.New(rand.NewPCG(1, 2))
	const B, T, V, L = 3, 560, 70, 530
	x := normal(r, B*T*V, 2)
	labels := make([]int32, B*L)
	for i := range labels {
		labels[i] = int32(i*i*7%(V-1)) + 1
	}
	run := func(b device.Backend) []float32 {
		s := device.CTCSpec{B: B, T: T, V: V, L: L, Logits: put(b, x), Lens: putInts(b, []int32{T, 401, 530}), Labels: putInts(b, labels),
			LabelLens: putInts(b, []int32{L - 13, 390, 1}), PerLabel: true, Value: b.Alloc(1), DLogits: b.Alloc(len(x))}
		b.CTC(&s)
		return append(get(b, s.Value), get(b, s.DLogits)...)
	}
	near(t, "CTC", run(emulated(t, Options{})), run(cpu.New(simd.Best())), 1e-6)
}

func TestCTCOfTooManyLabels(t *testing.T) {
	b := emulated(t, Options{})
	const T, L = 4, 20000
	s := device.CTCSpec{B: 1, T: T, V: 3, L: L, Logits: b.Alloc(T * 3), Labels: b.AllocInts(L), Value: b.Alloc(1)}
	err := catch(func() { b.CTC(&s) })
	if e := new(device.Error); !errors.As(err, &e) || !strings.Contains(e.Text, "20000 labels") {
		t.Errorf("got %v", err)
	}
}

func normal(r *rand.Rand, n int, deviation float32) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = deviation * float32(r.NormFloat64())
	}
	return v
}

func put(b device.Backend, v []float32) device.Buffer {
	on := b.Alloc(len(v))
	b.Upload(on, v)
	return on
}

func putInts(b device.Backend, v []int32) device.Ints {
	on := b.AllocInts(len(v))
	b.UploadInts(on, v)
	return on
}

// near compares with a tolerance relative to 1 + |want|.
func near(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= tol*(1+math.Abs(float64(w)))) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], w)
		}
	}
}
