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

// TestFunctionsOfOddNumbers: every function and its gradient, also where they saturate, and of
// numbers that are none.
func TestFunctionsOfOddNumbers(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	x := []float32{nan, inf, -inf, 0, 1, -1, 2.5, -2.5, 20, -20, 88.5, -88.5, 104, -104, 1e-30, -1e-30, 1e10, -1e10}
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		x = append(x, float32(3*r.NormFloat64()))
	}
	dy := slices.Repeat([]float32{1.25}, len(x))
	for f := device.Function(1); f < device.NumFunctions; f++ {
		var results [2][2][]float32
		for i, b := range []device.Backend{cpu.New(simd.Best()), emulated(t, Options{})} {
			bx, y, dx := put(b, x), b.Alloc(len(x)), b.Alloc(len(x))
			b.Unary(f, y, bx, 1.75)
			b.UnaryGrad(f, dx, put(b, dy), bx, y, 1.75, false)
			results[i] = [2][]float32{get(b, y), get(b, dx)}
		}
		for k, what := range []string{"value", "gradient"} {
			for i, want := range results[0][k] {
				got := results[1][k][i]
				same := got == want || got != got && want != want
				if !same && !(math.Abs(float64(got-want)) <= 2e-6*(1+math.Abs(float64(want)))) {
					t.Errorf("function %d: %s at %v is %v, the CPU's %v", f, what, x[i], got, want)
				}
			}
		}
	}
}

// TestSums sums more rows than one part has, of matrices with gaps, and no rows.
func TestSums(t *testing.T) {
	b := emulated(t, Options{})
	r := rand.New(rand.NewPCG(7, 8))
	numbers := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(1 + r.NormFloat64())
		}
		return v
	}
	for _, size := range [][3]int{{0, 5, 5}, {31, 3, 5}, {33, 1, 1}, {8193, 7, 7}, {100_000, 2, 3}, {5, 3000, 3001}} {
		rows, cols, ld := size[0], size[1], size[2]
		x := numbers(rows*ld + 1)
		want, terms := slices.Repeat([]float64{3}, cols), slices.Repeat([]float64{3}, cols) // terms: their magnitudes, which roundings are relative to
		for i := range rows * cols {
			v := float64(x[i/cols*ld+i%cols])
			want[i%cols] += v
			terms[i%cols] += math.Abs(v)
		}
		dst := put(b, slices.Repeat([]float32{3}, cols))
		b.SumRows(dst, put(b, x), rows, cols, ld, true)
		for j, got := range get(b, dst) {
			if math.Abs(float64(got)-want[j]) > 1e-6*terms[j] {
				t.Errorf("%v: column %d has the sum %v, want %v", size, j, got, want[j])
			}
		}
	}
	for _, n := range []int{1, 4097, 3_000_001} {
		x, want := numbers(n), 0.0
		for _, v := range x {
			want += float64(v) * float64(v)
		}
		dst := b.Alloc(1)
		b.SumSquares(dst, put(b, x))
		if got := get(b, dst)[0]; math.Abs(float64(got)-want) > 1e-7*want {
			t.Errorf("the sum of %d squares is %v, want %v", n, got, want)
		}
	}
}
