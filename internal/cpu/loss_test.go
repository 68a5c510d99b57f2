package cpu

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/device"
)

// slope is the derivative of f at x[i]: central differences with one Richardson step.
func slope(f func(x []float64) float64, x []float64, i int) float64 {
	at := x[i]
	diff := func(h float64) float64 {
		x[i] = at + h
		up := f(x)
		x[i] = at - h
		down := f(x)
		x[i] = at
		return (up - down) / (2 * h)
	}
	return (4*diff(1e-4) - diff(2e-4)) / 3
}

func closeTo(got, want, tol float64) bool { return math.Abs(got-want) <= tol*(1+math.Abs(want)) }

func TestLossGradientsInFloat64(t *testing.T) {
	quantiles := []float64{0.05, 0.5, 0.9}
	for _, c := range []struct {
		name string
		kind device.LossKind
		v    int
		y    func(r *rand.Rand) float64
	}{
		{"MAE", device.MAE, 1, (*rand.Rand).NormFloat64},
		{"Huber", device.Huber, 1, (*rand.Rand).NormFloat64},
		{"Quantile", device.Quantile, 3, (*rand.Rand).NormFloat64},
		{"Gaussian", device.Gaussian, 2, (*rand.Rand).NormFloat64},
		{"StudentT", device.StudentT, 3, (*rand.Rand).NormFloat64},
		{"NegBinomial", device.NegBinomial, 2, func(r *rand.Rand) float64 { return float64(r.IntN(30)) }},
		{"BCE", device.BCE, 1, (*rand.Rand).Float64},
	} {
		r := rand.New(rand.NewPCG(3, 4))
		for range 200 {
			p, y := make([]float64, c.v), c.y(r)
			for i := range p {
				p[i] = r.NormFloat64() * 2
			}
			value := func(p []float64) float64 { return itemLoss(c.kind, p, y, 0.8, quantiles, make([]float64, c.v)) }
			if e := p[0] - y; math.Abs(e) < 1e-3 || math.Abs(math.Abs(e)-0.8) < 1e-3 {
				continue // a corner
			}
			d := make([]float64, c.v)
			itemLoss(c.kind, p, y, 0.8, quantiles, d)
			for i := range d {
				if want := slope(value, p, i); !closeTo(d[i], want, 1e-6) {
					t.Fatalf("%s at %v, y=%v: gradient %d is %v, want %v", c.name, p, y, i, d[i], want)
				}
			}
		}
	}
}

func TestCrossEntropyGradientInFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, smoothing := range []float64{0, 0.2} {
		for _, weighted := range []bool{false, true} {
			x, d := make([]float64, 7), make([]float64, 7)
			var w []float64
			for i := range x {
				x[i] = r.NormFloat64()
				if weighted {
					w = append(w, r.Float64())
				}
			}
			crossEntropy(x, 3, smoothing, w, d)
			for i := range d {
				want := slope(func(x []float64) float64 { return crossEntropy(x, 3, smoothing, w, nil) }, x, i)
				if !closeTo(d[i], want, 1e-6) {
					t.Errorf("smoothing %v weighted %v: gradient %d is %v, want %v", smoothing, weighted, i, d[i], want)
				}
			}
		}
	}
}

// The row kernel and its reference agree whatever the width, one chunk or many.
func TestCrossEntropyRow(t *testing.T) {
	eachSet(t, func(t *testing.T, b *Backend) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, v := range []int{1, 2, 17, 1024, 3001} {
			for _, smoothing := range []float32{0, 0.1} {
				for _, weighted := range []bool{false, true} {
					x, d := randoms(r, v), make([]float32, v)
					x64, d64 := make([]float64, v), make([]float64, v)
					for i := range x {
						x64[i] = float64(x[i])
					}
					s := &device.LossSpec{V: v, Smoothing: smoothing}
					var w64 []float64
					if weighted {
						w := randoms(r, v)
						for i := range w {
							w[i] = w[i]*w[i] + 0.1
							w64 = append(w64, float64(w[i]))
						}
						s.ClassWeight = device.HostBuffer(w)
					}
					c := r.IntN(v)
					got := crossEntropyRow(b.set, s, x, c, d, 0.5)
					want := crossEntropy(x64, c, float64(smoothing), w64, d64)
					if !closeTo(float64(got), want, 1e-5) {
						t.Fatalf("V=%d: %v, want %v", v, got, want)
					}
					for i := range d {
						if !closeTo(float64(d[i]), d64[i]/2, 2e-6) {
							t.Fatalf("V=%d: gradient %d is %v, want %v", v, i, d[i], d64[i]/2)
						}
					}
				}
			}
		}
	})
}

// Values of torch.nn.functional.cross_entropy 1.13 on the same inputs.
func TestCrossEntropyAsPyTorch(t *testing.T) {
	x := []float32{0.5, -1.25, 2, 1.5, 0.25, -0.75, -2, 0, 1, 0.1, 0.2, 0.3}
	weight := []float32{0.5, 2, 1.25}
	for _, c := range []struct {
		weight    []float32
		smoothing float32
		value     float32
		gradient  [4]float32 // of items 0, 1 (first logit) and 3 (first two)
	}{
		{nil, 0, 0.55507916, [4]float32{0.05894006, -0.09385322, 0.1002032, -0.22259168}},
		{weight, 0, 0.70933324, [4]float32{0.05894006, -0.037541289, 0.160325125, -0.35614669}},
		{weight, 0.1, 0.8049078, [4]float32{0.05449561, -0.0142835835, 0.14986847, -0.32723561}},
		{nil, 0.1, 0.64674586, [4]float32{0.04782894, -0.07163099, 0.089092076, -0.20036945}},
	} {
		eachSet(t, func(t *testing.T, b *Backend) {
			value, d := b.Alloc(1), b.Alloc(12)
			b.Loss(&device.LossSpec{
				Kind: device.CrossEntropy, N: 4, V: 3, Pred: device.HostBuffer(x), Classes: device.HostInts([]int32{2, 0, -100, 1}), Ignore: -100,
				ClassWeight: device.HostBuffer(c.weight), Smoothing: c.smoothing, Value: value, DPred: d,
			})
			got := [4]float32{d.Host[0], d.Host[3], d.Host[9], d.Host[10]}
			if !closeTo(float64(value.Host[0]), float64(c.value), 1e-6) {
				t.Errorf("weight %v smoothing %v: %v, want %v", c.weight, c.smoothing, value.Host[0], c.value)
			}
			for i, g := range got {
				if !closeTo(float64(g), float64(c.gradient[i]), 1e-6) {
					t.Errorf("weight %v smoothing %v: gradients %v, want %v", c.weight, c.smoothing, got, c.gradient)
				}
			}
		})
	}
}

// Values of torch.distributions 1.13 at double precision.
func TestDensitiesAsPyTorch(t *testing.T) {
	g, _, _ := gaussian(0.25, -0.4, 1.5)
	s, _, _, _ := studentT(0.25, -0.4, 0.7, 1.5)
	n, _, _ := negBinomial(1.3, -0.2, 4.)
	for name, c := range map[string][2]float64{
		"gaussian": {g, 3.21992741441484}, "studentT": {s, 2.524433790527638}, "negBinomial": {n, 2.87009922045024},
	} {
		if !closeTo(c[0], c[1], 1e-12) {
			t.Errorf("%s: %v, want %v", name, c[0], c[1])
		}
	}
}

func TestDigamma(t *testing.T) {
	for x, want := range map[float64]float64{
		1: -0.5772156649015328, 0.5: -1.9635100260214229, 1e-3: -1000.5755719318104,
		10: 2.251752589066721, 123.456: 4.811829323828985, 1e6: 13.81551005796419,
	} {
		if got := digamma(x); math.Abs(got-want) > 3e-15*(1+math.Abs(want)) {
			t.Errorf("digamma(%v) = %v, want %v", x, got, want)
		}
	}
}

// Outputs far from the data must still give a finite loss and gradient.
func TestDensitiesFarOut(t *testing.T) {
	for _, p := range []float64{-100, -30, 0, 30, 100} {
		for _, y := range []float64{0, 1, 1000} {
			g, g0, g1 := gaussian(0, p, y)
			s, s0, s1, s2 := studentT(0, p, -p, y)
			n, n0, n1 := negBinomial(p, -p, y)
			m, m0, m1 := negBinomial(p, p, y)
			for i, v := range []float64{g, g0, g1, s, s0, s1, s2, n, n0, n1, m, m0, m1} {
				if !finite(float32(v)) {
					t.Errorf("p=%v y=%v: number %d is %v", p, y, i, v)
				}
			}
		}
	}
}

func TestLossPanicsOnAClassOutOfRange(t *testing.T) {
	eachSet(t, func(t *testing.T, b *Backend) {
		defer func() {
			if msg, _ := recover().(string); !strings.Contains(msg, "class 3 at item 1, want 0 to 2") {
				t.Errorf("panic %q", msg)
			}
		}()
		b.Loss(&device.LossSpec{Kind: device.CrossEntropy, N: 2, V: 3, Pred: b.Alloc(6), Classes: device.HostInts([]int32{0, 3}), Ignore: -100, Value: b.Alloc(1)})
	})
}

// Squares whose sum is beyond float32 may have a mean that is not.
func TestLargeSquares(t *testing.T) {
	eachSet(t, func(t *testing.T, b *Backend) {
		const n = 4096
		p := make([]float32, n)
		for i := range p {
			p[i] = 1e18
		}
		s := &device.LossSpec{Kind: device.MSE, N: n, V: 1, Pred: device.HostBuffer(p), Target: b.Alloc(n), Value: b.Alloc(1)}
		if b.Loss(s); !closeTo(float64(s.Value.Host[0])/1e36, 1, 1e-6) {
			t.Errorf("the mean of squares of 1e18 is %g", s.Value.Host[0])
		}
	})
}

// crossEntropy is the reference for one row of CrossEntropy: the loss
//
//	(1-s)·w[c]·(-log p[c]) + s/V·Σ_j w[j]·(-log p[j])
//
// with p the softmax of the logits x, c the class, s the smoothing and w the
// class weights (nil: ones). If d is not nil it receives the gradient in x.
func crossEntropy[F float](x []F, c int, s F, w, d []F) F {
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	var sum float64
	for _, v := range x {
		sum += math.Exp(float64(v - top))
	}
	norm := float64(top) + math.Log(sum)
	hit, each := 1-s, s/F(len(x))
	if w != nil {
		hit *= w[c]
	}
	l, total := hit*F(norm-float64(x[c])), hit
	for j, v := range x {
		wj := each
		if w != nil {
			wj *= w[j]
		}
		if each != 0 {
			l += wj * F(norm-float64(v))
		}
		total += wj
	}
	for j := range d {
		wj := each
		if w != nil {
			wj *= w[j]
		}
		d[j] = F(math.Exp(float64(x[j])-norm))*total - wj
	}
	if d != nil {
		d[c] -= hit
	}
	return l
}
