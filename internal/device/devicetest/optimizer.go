package devicetest

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
)

func (s *suite) vectors() {
	one := s.b.Alloc(1)
	for _, n := range []int{0, 1, 17, 100003} {
		x := s.normal(n)
		var want float64
		for _, v := range x {
			want += float64(v) * float64(v)
		}
		s.b.SumSquares(one, s.put(x))
		s.near(fmt.Sprintf("SumSquares n=%d", n), s.get(one), []float64{want}, 1e-5)
	}
	factor := s.b.Alloc(1)
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range [][2]float64{{4, 0.5 / (2 + 1e-6)}, {0.01, 1}, {0, 1}, {inf, inf}, {nan, nan}} {
		s.b.ClipFactor(factor, s.put([]float32{float32(c[0])}), 0.5)
		s.near(fmt.Sprintf("ClipFactor of %v", c[0]), s.get(factor), []float64{c[1]}, 1e-6)
	}

	const n = 70001
	x, y := s.normal(n), s.normal(n)
	f := s.put([]float32{0.75})
	check := func(name string, dst device.Buffer, want func(x, y float64) float64) {
		w := make([]float64, n)
		for i := range w {
			w[i] = want(float64(x[i]), float64(y[i]))
		}
		s.near(name, s.get(dst), w, 1e-6)
	}
	dst := s.put(x)
	s.b.ScaleBy(dst, f)
	check("ScaleBy", dst, func(x, _ float64) float64 { return 0.75 * x })
	dst = s.put(x)
	s.b.AddScaled(dst, s.put(y), f, true)
	check("AddScaled acc", dst, func(x, y float64) float64 { return x + 0.75*y })
	s.b.AddScaled(dst, s.put(y), f, false)
	check("AddScaled", dst, func(_, y float64) float64 { return 0.75 * y })
	dst = s.put(x)
	s.b.Lerp(dst, s.put(y), 0.125)
	check("Lerp", dst, func(x, y float64) float64 { return x + 0.125*(y-x) })
	dst = s.put(x)
	s.b.Clamp(dst, -0.5, 0.25)
	check("Clamp", dst, func(x, _ float64) float64 { return math.Min(math.Max(x, -0.5), 0.25) })
	dst = s.put([]float32{float32(nan), float32(inf), float32(-inf)})
	s.b.Clamp(dst, -1, 1)
	s.near("Clamp of special values", s.get(dst), []float64{nan, 1, -1}, 0)
}

// hyper is a StepSpec's constants as the doubles a PyTorch program holds.
type hyper struct {
	kind                     device.StepKind
	beta1, beta2, eps, decay float64
	momentum, dampening      float64
	nesterov, decoupled      bool
}

// update is one step of torch.optim in float64; m and v are the moments.
func (h *hyper) update(w, g, m, v *float64, lr float64, t int) {
	d := *g
	if h.decoupled {
		*w *= 1 - lr*h.decay
	} else {
		d += h.decay * *w
	}
	switch h.kind {
	case device.SGD:
		if h.momentum != 0 {
			if t == 1 {
				*m = d
			} else {
				*m = h.momentum**m + (1-h.dampening)*d
			}
			if h.nesterov {
				d += h.momentum * *m
			} else {
				d = *m
			}
		}
		*w -= lr * d
	case device.Adam:
		*m = h.beta1**m + (1-h.beta1)*d
		*v = h.beta2**v + (1-h.beta2)*d*d
		c1, c2 := 1-math.Pow(h.beta1, float64(t)), 1-math.Pow(h.beta2, float64(t))
		*w -= lr / c1 * *m / (math.Sqrt(*v)/math.Sqrt(c2) + h.eps)
	case device.RMSprop:
		*v = h.beta2**v + (1-h.beta2)*d*d
		d /= math.Sqrt(*v) + h.eps
		if h.momentum != 0 {
			*m = h.momentum**m + d
			d = *m
		}
		*w -= lr * d
	}
}

func (s *suite) steps() {
	rules := map[string]hyper{
		"SGD":              {kind: device.SGD},
		"SGD decay":        {kind: device.SGD, decay: 0.1},
		"SGD momentum":     {kind: device.SGD, momentum: 0.9, dampening: 0.3, decay: 0.01},
		"SGD nesterov":     {kind: device.SGD, momentum: 0.9, nesterov: true},
		"Adam":             {kind: device.Adam, beta1: 0.9, beta2: 0.999, eps: 1e-8},
		"Adam L2":          {kind: device.Adam, beta1: 0.8, beta2: 0.99, eps: 1e-8, decay: 0.1},
		"AdamW":            {kind: device.Adam, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.1, decoupled: true},
		"RMSprop":          {kind: device.RMSprop, beta2: 0.99, eps: 1e-8},
		"RMSprop momentum": {kind: device.RMSprop, beta2: 0.9, eps: 1e-3, momentum: 0.5, decay: 0.01},
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		for _, n := range []int{1, 5, 20003} {
			s.stepCase(fmt.Sprintf("%s n=%d", name, n), rules[name], n)
		}
	}
}

func (s *suite) stepCase(name string, h hyper, n int) {
	w, m, v := s.normal(n), make([]float64, n), make([]float64, n)
	ref := wide(w)
	spec := device.StepSpec{
		Kind: h.kind, W: s.put(w), G: s.b.Alloc(n), M: s.b.Alloc(n), V: s.b.Alloc(n), Scale: s.b.Alloc(1),
		Beta1: float32(h.beta1), Beta2: float32(h.beta2), Eps: float32(h.eps), Momentum: float32(h.momentum),
		Dampening: float32(h.dampening), Nesterov: h.nesterov, Decay: float32(h.decay), Decoupled: h.decoupled,
	}
	for t := 1; t <= 4; t++ {
		g := s.normal(n)
		lr := []float32{0.1, 0.01, 0.05, 0.02}[t-1]
		scale := []float32{1, 0.5, 0.25, 2}[t-1]
		s.b.Upload(spec.G, g)
		s.b.Upload(spec.Scale, []float32{scale})
		spec.T, spec.LR = t, lr
		s.b.Step(&spec)
		for i := range ref {
			d := float64(g[i]) * float64(scale)
			h.update(&ref[i], &d, &m[i], &v[i], float64(lr), t)
		}
		s.near(fmt.Sprintf("%s step %d", name, t), s.get(spec.W), ref, 3e-5)
		s.near(name+" clears the gradient", s.get(spec.G), make([]float64, n), 0)
	}
	before, moment := s.get(spec.W), s.get(spec.M)
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		s.b.Fill(spec.G, 1)
		s.b.Upload(spec.Scale, []float32{float32(bad)})
		s.b.Step(&spec)
		s.same(name+" skipped", s.get(spec.W), before)
		s.same(name+" skipped moment", s.get(spec.M), moment)
		s.near(name+" skipped clears the gradient", s.get(spec.G), make([]float64, n), 0)
	}
	spec.Scale = device.Buffer{}
	s.b.Fill(spec.G, float32(math.NaN()))
	s.b.Step(&spec)
	for _, x := range s.get(spec.W) {
		if x == x {
			s.Fatalf("%s: a NaN gradient without a scale did not reach the weight", name)
		}
	}
}
