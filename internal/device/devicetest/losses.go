package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

func log1pexp(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// positive is how a free output becomes a scale, mean or dispersion.
func positive(x float64) float64 { return log1pexp(x) + 1e-6 }

func lgamma(x float64) float64 {
	v, _ := math.Lgamma(x)
	return v
}

const delta = 0.7 // Huber's parameter

var levels = []float32{0.1, 0.5, 0.75, 0.975} // the quantiles under test

// lossKinds are the pointwise losses: one item's value, written as in the textbooks.
var lossKinds = []struct {
	name   string
	kind   device.LossKind
	v      int
	target func(s *suite) float32
	item   func(p []float64, y float64) float64
}{
	{"MSE", device.MSE, 1, anyTarget, func(p []float64, y float64) float64 { return (p[0] - y) * (p[0] - y) }},
	{"MAE", device.MAE, 1, anyTarget, func(p []float64, y float64) float64 { return math.Abs(p[0] - y) }},
	{"Huber", device.Huber, 1, anyTarget, func(p []float64, y float64) float64 {
		if e := math.Abs(p[0] - y); e > delta {
			return delta * (e - delta/2)
		}
		return (p[0] - y) * (p[0] - y) / 2
	}},
	{"Quantile", device.Quantile, len(levels), anyTarget, func(p []float64, y float64) float64 {
		var sum float64
		for i, q := range wide(levels) {
			sum += math.Max(q*(y-p[i]), (q-1)*(y-p[i]))
		}
		return sum / float64(len(levels))
	}},
	{"Gaussian", device.Gaussian, 2, anyTarget, func(p []float64, y float64) float64 {
		sigma := positive(p[1])
		return (y-p[0])*(y-p[0])/(2*sigma*sigma) + math.Log(sigma*math.Sqrt(2*math.Pi))
	}},
	{"StudentT", device.StudentT, 3, anyTarget, func(p []float64, y float64) float64 {
		sigma, nu := positive(p[1]), 2+log1pexp(p[2])
		z := (y - p[0]) / sigma
		density := math.Gamma((nu+1)/2) / (math.Gamma(nu/2) * math.Sqrt(nu*math.Pi) * sigma) * math.Pow(1+z*z/nu, -(nu+1)/2)
		return -math.Log(density)
	}},
	{"NegBinomial", device.NegBinomial, 2, countTarget, func(p []float64, y float64) float64 {
		mu, r := positive(p[0]), 1/positive(p[1])
		choose := lgamma(y+r) - lgamma(r) - lgamma(y+1)
		return -(choose + r*math.Log(r/(r+mu)) + y*math.Log(mu/(r+mu)))
	}},
	{"BCE", device.BCE, 1, shareTarget, func(p []float64, y float64) float64 {
		one := 1 / (1 + math.Exp(-p[0]))
		return -y*math.Log(one) - (1-y)*math.Log(1-one)
	}},
}

func anyTarget(s *suite) float32   { return float32(s.rnd.NormFloat64()) }
func countTarget(s *suite) float32 { return float32(s.rnd.IntN(9)) }
func shareTarget(s *suite) float32 { return float32(s.rnd.IntN(5)) / 4 }

// weighted is Σ w·l/Σ w over n items; nil w is ones, and no weight at all gives 0.
func weighted(n int, w []float32, l func(i int) float64) float64 {
	var sum, total float64
	for i := range n {
		wi := 1.0
		if w != nil {
			wi = float64(w[i])
		}
		if wi != 0 {
			sum += wi * l(i)
			total += wi
		}
	}
	if total == 0 {
		return 0
	}
	return sum / total
}

// weights is nil, or some weights of which a third is 0.
func (s *suite) weights(n int, on bool) []float32 {
	if !on {
		return nil
	}
	w := make([]float32, n)
	for i := range w {
		if i%3 != 1 {
			w[i] = s.rnd.Float32() * 2
		}
	}
	return w
}

func (s *suite) losses() {
	for _, k := range lossKinds {
		for _, n := range []int{0, 1, 7, 6000} {
			for _, on := range []bool{false, true} {
				y, p := make([]float32, n), s.scaled(n*k.v, 1.5)
				for i := range y {
					y[i] = k.target(s)
				}
				w := s.weights(n, on)
				value := func(p []float64) float64 {
					return weighted(n, w, func(i int) float64 { return k.item(p[i*k.v:(i+1)*k.v], float64(y[i])) })
				}
				for i := range w {
					if w[i] == 0 { // a masked item is not read
						y[i] = float32(math.NaN())
					}
				}
				spec := device.LossSpec{Kind: k.kind, N: n, V: k.v, Pred: s.put(p), Target: s.put(y), Param: delta, Quantiles: s.put(levels)}
				s.lossCase(fmt.Sprintf("%s n=%d weighted=%v", k.name, n, on), &spec, p, w, value)
			}
		}
		spec := device.LossSpec{Kind: k.kind, N: 2, V: k.v, Pred: s.put(filled(2*k.v, 0.5)), Param: delta, Quantiles: s.put(levels),
			Target: s.put([]float32{float32(math.NaN()), 1}), Value: s.b.Alloc(1), DPred: s.b.Alloc(2 * k.v)}
		s.b.Loss(&spec)
		if v := s.get(spec.Value)[0]; v == v {
			s.Errorf("%s of a NaN target is %v", k.name, v)
		}
	}
}

// lossCase checks value and gradient, the value without a gradient, and the all-masked case.
func (s *suite) lossCase(name string, spec *device.LossSpec, p, w []float32, value func(p []float64) float64) {
	s.Helper()
	spec.Value, spec.DPred = s.b.Alloc(1), s.put(filled(len(p), 9))
	if w != nil {
		spec.Weight = s.put(w)
	}
	s.b.Loss(spec)
	got := s.get(spec.Value)
	s.near(name, got, []float64{value(wide(p))}, 1e-5)
	d := s.get(spec.DPred)
	n := float32(max(1, spec.N))
	for i := range d {
		d[i] *= n // so that the tolerance applies to one item's gradient
	}
	s.gradient(name, d, p, func(v []float64) float64 { return value(v) * float64(n) }, 3e-4)
	spec.DPred = device.Buffer{}
	s.b.Loss(spec)
	s.same(name+" without gradient", s.get(spec.Value), got)

	spec.Weight, spec.DPred = s.b.Alloc(spec.N), s.put(filled(len(p), 9))
	if spec.N > 0 {
		s.b.Loss(spec)
		s.near(name+" all masked", s.get(spec.Value), []float64{0}, 0)
		s.near(name+" all masked gradient", s.get(spec.DPred), make([]float64, len(p)), 0)
	}
}

// crossEntropyItem is PyTorch's formula with class weights cw and smoothing e, and the item's part of the denominator.
func crossEntropyItem(x []float64, class int, cw []float32, e float64) (l, weight float64) {
	var sum float64
	for _, v := range x {
		sum += math.Exp(v)
	}
	at := func(c int) float64 {
		if cw == nil {
			return 1
		}
		return float64(cw[c])
	}
	nll := func(c int) float64 { return -at(c) * math.Log(math.Exp(x[c])/sum) }
	l = (1 - e) * nll(class)
	for c := range x {
		l += e / float64(len(x)) * nll(c)
	}
	return l, at(class)
}

func (s *suite) crossEntropy() {
	for _, size := range [][2]int{{1, 1}, {1, 3}, {50, 2}, {9, 300}, {3, 5000}} {
		for option := range 8 {
			n, v := size[0], size[1]
			name := fmt.Sprintf("n=%d V=%d option=%d", n, v, option)
			p := s.scaled(n*v, 2)
			spec := device.LossSpec{Kind: device.CrossEntropy, N: n, V: v, Pred: s.put(p), Ignore: -100}
			classes := make([]int32, n)
			for i := range classes {
				classes[i] = int32(s.rnd.IntN(v))
				if n > 1 && i%4 == 2 {
					classes[i] = -100
				}
			}
			spec.Classes = s.ints(classes)
			w := s.weights(n, option&1 != 0)
			var cw []float32
			if option&2 != 0 {
				cw = plus(s.scaled(v, 0.1), 1)
				spec.ClassWeight = s.put(cw)
			}
			if option&4 != 0 {
				spec.Smoothing = 0.1
			}
			value := func(x []float64) float64 {
				var sum, total float64
				for i, c := range classes {
					if c == -100 || w != nil && w[i] == 0 {
						continue
					}
					l, weight := crossEntropyItem(x[i*v:(i+1)*v], int(c), cw, float64(spec.Smoothing))
					wi := 1.0
					if w != nil {
						wi = float64(w[i])
					}
					sum += wi * l
					total += wi * weight
				}
				return sum / total
			}
			s.lossCase(name, &spec, p, w, value)
		}
	}
	p := []float32{1000, -1000, 0, 50, 60, float32(math.Inf(-1))}
	spec := device.LossSpec{Kind: device.CrossEntropy, N: 2, V: 3, Pred: s.put(p), Classes: s.ints([]int32{1, 0}), Ignore: -1,
		Value: s.b.Alloc(1), DPred: s.b.Alloc(6)}
	s.b.Loss(&spec)
	s.near("far apart", s.get(spec.Value), []float64{(2000 + 10) / 2.}, 1e-5)
	high := logistic(10) / 2
	s.near("far apart gradient", s.get(spec.DPred), []float64{0.5, -0.5, 0, -high, high, 0}, 1e-6)
}
