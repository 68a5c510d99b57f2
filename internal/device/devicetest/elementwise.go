package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

const alpha = 1.75 // the parameter of RSqrt, Scale and Shift

var unaries = []struct {
	name string
	op   device.Function
	f    func(x float64) float64
}{
	{"Sigmoid", cell.Sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }},
	{"Tanh", cell.Tanh, math.Tanh},
	{"ReLU", cell.ReLU, func(x float64) float64 { return math.Max(x, 0) }},
	{"Exp", device.Exp, math.Exp},
	{"Log", device.Log, math.Log},
	{"Softplus", cell.Softplus, func(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }},
	{"Square", device.Square, func(x float64) float64 { return x * x }},
	{"RSqrt", device.RSqrt, func(x float64) float64 { return 1 / math.Sqrt(x+alpha) }},
	{"Scale", device.Scale, func(x float64) float64 { return x * alpha }},
	{"Shift", device.Shift, func(x float64) float64 { return x + alpha }},
}

func (s *suite) unary() {
	for _, u := range unaries {
		for _, n := range []int{0, 1, 7, 300, 20001} {
			x := s.scaled(n, 3)
			if u.op == device.Log || u.op == device.RSqrt {
				for i := range x {
					x[i] = float32(math.Abs(float64(x[i]))) + 0.05
				}
			}
			s.unaryCase(fmt.Sprintf("%s n=%d", u.name, n), u.op, u.f, x)
		}
		inf := float32(math.Inf(1))
		odd := []float32{float32(math.NaN()), inf, -inf, 0, 100, -100, 1e-30}
		y := s.b.Alloc(len(odd))
		s.b.Unary(u.op, y, s.put(odd), alpha)
		want := make([]float64, len(odd))
		for i, v := range odd {
			want[i] = u.f(float64(v))
			if math.Abs(want[i]) > math.MaxFloat32 {
				want[i] = math.Inf(int(math.Copysign(1, want[i])))
			}
		}
		if u.op == device.Log {
			want[2], want[5] = math.NaN(), math.NaN()
			want[3] = math.Inf(-1)
		}
		s.near(u.name+" of special values", s.get(y), want, 1e-5)
	}
}

func (s *suite) unaryCase(name string, op device.Function, f func(float64) float64, x []float32) {
	n := len(x)
	dy := s.normal(n)
	bx, bdy, by := s.put(x), s.put(dy), s.b.Alloc(n)
	s.b.Unary(op, by, bx, alpha)
	want := wide(x)
	for i := range want {
		want[i] = f(want[i])
	}
	y := s.get(by)
	s.near(name, y, want, 2e-6)
	dx := s.b.Alloc(n)
	s.b.UnaryGrad(op, dx, bdy, bx, by, alpha, false)
	g := s.get(dx)
	for i := range g {
		const h = 1e-5
		at := float64(x[i])
		if slope := float64(dy[i]) * (f(at+h) - f(at-h)) / (2 * h); math.Abs(at) > h && !within(float64(g[i]), slope, 1e-4) {
			s.Fatalf("%s: gradient at %v is %v, want %v", name, at, g[i], slope)
		}
	}
	dx = s.put(filled(n, 5))
	s.b.UnaryGrad(op, dx, bdy, bx, by, alpha, true)
	s.near(name+" grad acc", s.get(dx), wide(plus(g, 5)), 1e-6)
	s.b.Unary(op, bx, bx, alpha)
	s.same(name+" in place", s.get(bx), y)
}

var binaries = []struct {
	name string
	op   device.BinaryOp
	f    func(x, y float64) float64
}{
	{"Add", device.Add, func(x, y float64) float64 { return x + y }},
	{"Sub", device.Sub, func(x, y float64) float64 { return x - y }},
	{"Mul", device.Mul, func(x, y float64) float64 { return x * y }},
	{"Div", device.Div, func(x, y float64) float64 { return x / y }},
}

func (s *suite) binary() {
	for _, op := range binaries {
		for _, size := range [][2]int{{0, 1}, {1, 1}, {9, 9}, {12, 3}, {700, 1}, {20000, 20000}, {21000, 7}, {20000, 1}, {9000, 450}} {
			s.binaryCase(fmt.Sprintf("%s N=%d YN=%d", op.name, size[0], size[1]), op.op, op.f, size[0], size[1])
		}
	}
}

func (s *suite) binaryCase(name string, op device.BinaryOp, f func(x, y float64) float64, n, yn int) {
	x, y, dz := s.normal(n), s.normal(yn), s.normal(n)
	for i := range y {
		y[i] = y[i]/4 + float32(math.Copysign(1.5, float64(y[i]))) // away from 0, for Div
	}
	forward := func(x, y []float64) []float64 {
		z := make([]float64, len(x))
		for i := range z {
			z[i] = f(x[i], y[i%yn])
		}
		return z
	}
	spec := device.BinarySpec{Op: op, N: n, YN: yn, X: s.put(x), Y: s.put(y), Z: s.b.Alloc(n)}
	s.b.Binary(&spec)
	s.near(name, s.get(spec.Z), forward(wide(x), wide(y)), 1e-6)

	if n == 0 {
		return // what a DY summed over nothing holds is not defined
	}
	spec.DZ, spec.DX, spec.DY = s.put(dz), s.b.Alloc(n), s.b.Alloc(yn)
	s.b.BinaryGrad(&spec)
	dx, dy := s.get(spec.DX), s.get(spec.DY)
	// Every op is linear in x, and each z depends on one x only.
	for i := range dx {
		yi := float64(y[i%yn])
		if want := float64(dz[i]) * (f(1, yi) - f(0, yi)); !within(float64(dx[i]), want, 1e-5) {
			s.Fatalf("%s: dx[%d] is %v, want %v", name, i, dx[i], want)
		}
	}
	s.gradient(name+" dy", dy, y, func(v []float64) float64 { return dot(forward(wide(x), v), dz) }, 2e-4)

	spec.DX, spec.DY, spec.AccX, spec.AccY = s.put(filled(n, 3)), s.put(filled(yn, 3)), true, true
	s.b.BinaryGrad(&spec)
	s.near(name+" dx acc", s.get(spec.DX), wide(plus(dx, 3)), 1e-5)
	s.near(name+" dy acc", s.get(spec.DY), wide(plus(dy, 3)), 1e-5)
	spec.DX, spec.DY, spec.AccX = spec.DZ, device.Buffer{}, false
	s.b.BinaryGrad(&spec) // dx in place of dz, no dy
	s.same(name+" dx in place", s.get(spec.DX), dx)
}

func (s *suite) dropout() {
	const n = 1 << 16
	mask := func(p float32, seed, step, node uint64) []float32 {
		spec := device.DropoutSpec{Y: s.b.Alloc(n), X: s.put(filled(n, 1)), N: n, P: p, Seed: seed, Step: step, Node: node}
		s.b.Dropout(&spec)
		return s.get(spec.Y)
	}
	s.same("P=0", mask(0, 1, 2, 3), filled(n, 1))
	for _, p := range []float32{0.01, 0.1, 0.5, 0.9} {
		m := mask(p, 1, 2, 3)
		s.maskStatistics(m, float64(p))
		s.same("repeated", mask(p, 1, 2, 3), m)
	}
	base := mask(0.5, 1, 2, 3)
	for _, key := range [][3]uint64{{2, 2, 3}, {1, 3, 3}, {1, 2, 4}, {2, 1, 3}, {3, 2, 1}} {
		equal := 0
		for i, v := range mask(0.5, key[0], key[1], key[2]) {
			if v == base[i] {
				equal++
			}
		}
		if math.Abs(float64(equal)-n/2) > 5*math.Sqrt(n/4) {
			s.Errorf("key %v shares %d of %d elements with another key's mask", key, equal, n)
		}
	}
	// Backward is the same call with Acc; a short call sees the same mask.
	x := s.normal(n)
	back := device.DropoutSpec{Y: s.put(filled(1001, 2)), X: s.put(x), N: 1001, P: 0.5, Seed: 1, Step: 2, Node: 3, Acc: true}
	s.b.Dropout(&back)
	want := make([]float64, 1001)
	for i := range want {
		want[i] = 2 + float64(x[i])*float64(base[i])
	}
	s.near("acc", s.get(back.Y), want, 1e-6)
}

// maskStatistics checks the values, the rate and that neighbours are independent, each within five standard deviations.
func (s *suite) maskStatistics(m []float32, p float64) {
	keep := float32(1 / (1 - p))
	var dropped, pairs [3]int
	for i, v := range m {
		switch {
		case v == 0:
			dropped[0]++
		case math.Abs(float64(v-keep)) > 1e-6*float64(keep):
			s.Fatalf("P=%v: a factor is %v", p, v)
		}
		for lag := 1; lag <= 2; lag++ {
			if i >= lag && v == 0 && m[i-lag] == 0 {
				pairs[lag]++
			}
		}
	}
	n := float64(len(m))
	if d := math.Abs(float64(dropped[0]) - n*p); d > 5*math.Sqrt(n*p*(1-p)) {
		s.Errorf("P=%v: %d of %v dropped", p, dropped[0], n)
	}
	for lag := 1; lag <= 2; lag++ {
		if d := math.Abs(float64(pairs[lag]) - n*p*p); d > 10*math.Sqrt(n*p*p) {
			s.Errorf("P=%v: %d pairs dropped at lag %d, want about %v", p, pairs[lag], lag, n*p*p)
		}
	}
}
