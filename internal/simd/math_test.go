package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

// samples are float32 values of all magnitudes: every bit pattern by a stride
// that is coprime to the powers of two, and a dense cover of where e^x is finite.
func samples() []float32 {
	stride := uint64(2003)
	if testing.Short() {
		stride = 20011
	}
	x := append([]float32{}, special...)
	for bits := uint64(0); bits < 1<<32; bits += stride {
		x = append(x, math.Float32frombits(uint32(bits)))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 1 << 32 / int(stride) / 4 {
		x = append(x, float32(r.Float64()*200-108), float32(r.NormFloat64()))
	}
	return x
}

// ulps is the distance of got from want in units of the last place of want as a
// float32. Zero is as it should be where want is below MinNormal, or within
// rounding of it.
func ulps(got float32, want float64) float64 {
	if want != want {
		if got != got {
			return 0
		}
		return math.Inf(1)
	}
	if rounded := float32(want); got == rounded && math.Abs(want) >= MinNormal || got == 0 && math.Abs(want) < MinNormal*(1+3e-7) {
		return 0
	}
	if got != 0 && math.Abs(float64(got)) < MinNormal {
		return math.Inf(1) // subnormal
	}
	_, exp := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Ldexp(1, exp-24)
}

func TestMathAccuracy(t *testing.T) {
	x := samples()
	got := make([]float32, len(x))
	for _, f := range []struct {
		name  string
		limit float64
		exact func(float64) float64
		run   func(s *Set) func(dst, src []float32)
	}{
		{"exp", 1, math.Exp, func(s *Set) func(dst, src []float32) { return s.Exp }},
		{"sigmoid", 3, func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }, func(s *Set) func(dst, src []float32) { return s.Sigmoid }},
		{"tanh", 5, math.Tanh, func(s *Set) func(dst, src []float32) { return s.Tanh }},
	} {
		want := make([]float64, len(x))
		for i, v := range x {
			want[i] = f.exact(float64(v))
		}
		for _, s := range Sets() {
			f.run(s)(got, x)
			worst, at := 0.0, 0
			for i := range x {
				if d := ulps(got[i], want[i]); !(d <= worst) {
					worst, at = d, i
				}
			}
			t.Logf("%s/%s: at most %.3f ulp, at %g", s.Name, f.name, worst, x[at])
			if !(worst <= f.limit) {
				t.Errorf("%s/%s(%g) = %g, want %g: %.3g ulp, more than %g", s.Name, f.name, x[at], got[at], want[at], worst, f.limit)
			}
		}
	}
}

func TestMathSpecial(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	zero := float32(math.Copysign(0, -1))
	eachSet(t, func(t *testing.T, s *Set) {
		for _, c := range []struct {
			name string
			f    func(dst, src []float32)
			x, y float32
		}{
			{"exp", s.Exp, inf, inf}, {"exp", s.Exp, -inf, 0}, {"exp", s.Exp, nan, nan}, {"exp", s.Exp, 0, 1},
			{"exp", s.Exp, 1e30, inf}, {"exp", s.Exp, -1e30, 0}, {"exp", s.Exp, 88.72284, inf}, {"exp", s.Exp, -103.98, 0},
			{"exp", s.Exp, -87.4, 0}, {"exp", s.Exp, -87.3, 1.2192433e-38},
			{"sigmoid", s.Sigmoid, inf, 1}, {"sigmoid", s.Sigmoid, -inf, 0}, {"sigmoid", s.Sigmoid, nan, nan}, {"sigmoid", s.Sigmoid, 0, 0.5},
			{"sigmoid", s.Sigmoid, -87.4, 0},
			{"tanh", s.Tanh, inf, 1}, {"tanh", s.Tanh, -inf, -1}, {"tanh", s.Tanh, nan, nan}, {"tanh", s.Tanh, zero, zero}, {"tanh", s.Tanh, 1e-40, 0}, {"tanh", s.Tanh, 1.2e-38, 1.2e-38},
			{"tanh", s.Tanh, 20, 1},
		} {
			got := []float32{0}
			c.f(got, []float32{c.x})
			if !sameBits(got, []float32{c.y}) {
				t.Errorf("%s(%g) = %g, want %g", c.name, c.x, got[0], c.y)
			}
		}
	})
}

func TestTanhIsOdd(t *testing.T) {
	x := samples()
	minus := make([]float32, len(x))
	for i, v := range x {
		minus[i] = -v
	}
	eachSet(t, func(t *testing.T, s *Set) {
		a, b := make([]float32, len(x)), make([]float32, len(x))
		s.Tanh(a, x)
		s.Tanh(b, minus)
		for i := range a {
			if a[i] != -b[i] && a[i] == a[i] {
				t.Fatalf("tanh(%g) = %g but tanh(%g) = %g", x[i], a[i], -x[i], b[i])
			}
		}
	})
}
