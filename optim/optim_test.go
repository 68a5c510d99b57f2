package optim

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
)

// pair is a weight and a bias whose start and gradients are exact in binary, so
// that PyTorch could be given the same.
type pair struct{ W, B *tensor.Param }

func newPair() *tensor.Slab {
	p := &pair{
		tensor.NewParam("weight", func(_ *rand.Rand, w []float32, _ []int) {
			for i := range w {
				w[i] = float32(i%5-2) / 4
			}
		}, 2, 3),
		tensor.NewParam("bias", func(_ *rand.Rand, w []float32, _ []int) { copy(w, []float32{0.5, -0.25}) }, 2),
	}
	p.B.NoDecay = true
	return tensor.Pack(tensor.CPU(), p, 1)
}

func setGrads(s *tensor.Slab, k int) {
	n := 0
	for i := range s.Params {
		lo, hi := s.Range(i)
		g := make([]float32, hi-lo)
		for j := range g {
			g[j] = float32((n*7+k*5)%11-5) / 8
			n++
		}
		s.Device().Backend().Upload(s.Grads().Slice(lo, hi), g)
	}
}

func weights(s *tensor.Slab) []float32 { return slices.Concat(s.Params[0].Read(), s.Params[1].Read()) }

func isBias(name string) bool { return strings.HasSuffix(name, "bias") }

// TestRules compares ten steps with torch 1.13, given
//
//	w = [(i%5-2)/4 for i in range(6)], b = [0.5, -0.25], grad_i at step k = ((i*7+k*5)%11-5)/8
//
// and the torch.optim expression beside each case. A list of two settings is one group for w and one for b.
func TestRules(t *testing.T) {
	fifth := float32(0.2)
	none := float32(0)
	for _, c := range []struct {
		name string
		lr   float32
		new  func(*tensor.Slab) *Optimizer
		runs int
		want []float32
	}{
		{"SGD(lr=.1)", .1, func(s *tensor.Slab) *Optimizer { return NewSGD(s, nil) }, 1,
			[]float32{-0.487500012, -0.287499994, 0.0500000007, 0.25, 0.449999988, -0.462500006, 0.487500012, -0.3125}},
		{"SGD(lr=.1, momentum=.9, dampening=.5, weight_decay=[.01, 0])", .1, func(s *tensor.Slab) *Optimizer {
			return NewSGD(s, &SGDOptions{Momentum: .9, Dampening: .5, WeightDecay: .01})
		}, 2,
			[]float32{-0.307076484, -0.295395911, 0.234102607, -0.165026575, 0.377422661, -0.192238376, 0.317694962, -0.482618093}},
		{"SGD(lr=.1, momentum=.9, nesterov=True, weight_decay=.01)", .1, func(s *tensor.Slab) *Optimizer {
			return NewSGD(s, &SGDOptions{Momentum: .9, Nesterov: true, WeightDecay: .01, DecayAll: true})
		}, 1,
			[]float32{-0.503133357, -0.225345165, 0.322939783, -0.126281157, 0.299889356, -0.130709201, 0.43409586, -0.709851623}},
		{"Adam(lr=.01, weight_decay=[.1, 0])", .01, func(s *tensor.Slab) *Optimizer { return NewAdam(s, &AdamOptions{WeightDecay: .1}) }, 2,
			[]float32{-0.48183009, -0.244150028, 0.0241774973, 0.210312665, 0.479821533, -0.458341122, 0.484801352, -0.282816589}},
		{"AdamW(lr=.01, weight_decay=[.1, 0])", .01, func(s *tensor.Slab) *Optimizer { return NewAdamW(s, &AdamWOptions{WeightDecay: .1}) }, 2,
			[]float32{-0.486352473, -0.246952102, 0.0242714807, 0.212152824, 0.484942019, -0.46307379, 0.484801352, -0.282816589}},
		{"AdamW(lr=.01, betas=(.8,.95), eps=1e-6, weight_decay=.1)", .01, func(s *tensor.Slab) *Optimizer {
			return NewAdamW(s, &AdamWOptions{Beta1: .8, Beta2: .95, Eps: 1e-6, WeightDecay: .1, DecayAll: true})
		}, 1,
			[]float32{-0.489335686, -0.249453679, 0.0236551054, 0.218868703, 0.482570082, -0.467524081, 0.484788567, -0.276369393}},
		{"RMSprop(lr=.01, weight_decay=[.1, 0])", .01, func(s *tensor.Slab) *Optimizer { return NewRMSprop(s, &RMSpropOptions{WeightDecay: .1}) }, 2,
			[]float32{-0.426552445, -0.286887258, 0.0992287919, 0.18035613, 0.359574646, -0.362986863, 0.453193694, -0.356829941}},
		{"RMSprop(lr=.01, alpha=.9, eps=1e-6, momentum=.5)", .01, func(s *tensor.Slab) *Optimizer {
			return NewRMSprop(s, &RMSpropOptions{Alpha: .9, Eps: 1e-6, Momentum: .5})
		}, 1,
			[]float32{-0.490370929, -0.281353951, 0.0715138018, 0.20083569, 0.433137178, -0.436977983, 0.484340698, -0.318881661}},
		{"SGD([dict(params=[w], lr=.05), dict(params=[b], weight_decay=.2)], lr=.1)", .1, func(s *tensor.Slab) *Optimizer {
			return NewSGD(s, &SGDOptions{WeightDecay: .7, Groups: []Group{
				{Match: isBias, WeightDecay: &fifth},
				{Match: func(string) bool { return true }, LRScale: .5, WeightDecay: &none},
			}})
		}, 2,
			[]float32{-0.493750006, -0.268749982, 0.0250000004, 0.25, 0.475000054, -0.481249988, 0.398062944, -0.255087525}},
		{"AdamW(lr=.01, weight_decay=0) after clip_grad_norm_(.75)", .01, func(s *tensor.Slab) *Optimizer { return NewAdamW(s, nil) }, 1,
			[]float32{-0.49253878, -0.249908403, 0.0252974723, 0.213661298, 0.490192711, -0.4674263, 0.484148026, -0.281844676}},
		{"SGD(lr=.1) after clip_grad_norm_(.75)", .1, func(s *tensor.Slab) *Optimizer { return NewSGD(s, nil) }, 1,
			[]float32{-0.496656477, -0.275565594, 0.0347379148, 0.247095019, 0.46871683, -0.47490868, 0.491377443, -0.287531734}},
		{"SGD(lr=.1) after clip_grad_value_(.25) and clip_grad_norm_(.5)", .1, func(s *tensor.Slab) *Optimizer { return NewSGD(s, nil) }, 1,
			[]float32{-0.491514266, -0.270854205, 0.0211258437, 0.248291552, 0.480388403, -0.478485763, 0.488874137, -0.269145757}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newPair()
			o := c.new(s)
			if len(o.runs) != c.runs {
				t.Errorf("%d runs, want %d: %v", len(o.runs), c.runs, o.runs)
			}
			for k := range 10 {
				setGrads(s, k)
				switch {
				case strings.Contains(c.name, "value"):
					o.ClipValue(.25)
					o.ClipNorm(.5)
				case strings.Contains(c.name, "norm"):
					o.ClipNorm(.75)
				}
				o.Step(c.lr)
			}
			for i, w := range weights(s) {
				if math.Abs(float64(w-c.want[i])) > 2e-6 {
					t.Errorf("element %d is %.9g, want %.9g", i, w, c.want[i])
				}
			}
			for i, p := range s.Params {
				if g := p.Grad(); slices.ContainsFunc(g, func(v float32) bool { return v != 0 }) {
					t.Errorf("gradient %d is not cleared: %v", i, g)
				}
			}
			// torch.nn.utils.clip_grad_norm_'s result in the last step.
			want := map[bool]float64{true: 0.6373774409294128, false: 1.1524430513381958}[strings.Contains(c.name, "value")]
			if strings.Contains(c.name, "clip") && math.Abs(float64(o.GradNorm())-want) > 1e-6 {
				t.Errorf("norm %v, want %v", o.GradNorm(), want)
			}
		})
	}
}

func TestFreeze(t *testing.T) {
	s := newPair()
	before := weights(s)
	o := NewAdamW(s, &AdamWOptions{WeightDecay: 1, Groups: []Group{{Match: isBias, Freeze: true}}})
	setGrads(s, 0)
	var sum float64
	for i := range 6 { // the weight's gradients only
		g := float64((i*7)%11-5) / 8
		sum += g * g
	}
	o.ClipNorm(float32(math.Inf(1)))
	if got := float64(o.GradNorm()); math.Abs(got-math.Sqrt(sum)) > 1e-6 {
		t.Errorf("norm %v, want %v, without the frozen part", got, math.Sqrt(sum))
	}
	for k := range 3 {
		setGrads(s, k) // the second and third step go without ClipNorm
		o.Step(.1)
	}
	after := weights(s)
	if !slices.Equal(before[6:], after[6:]) {
		t.Errorf("frozen bias moved from %v to %v", before[6:], after[6:])
	}
	for i := range 6 {
		if before[i] == after[i] {
			t.Errorf("weight %d did not move", i)
		}
	}
	if g := s.Params[1].Grad(); g[0] != 0 || g[1] != 0 {
		t.Errorf("frozen gradient is not cleared: %v", g)
	}
}

// TestNotFinite wants a step whose gradient norm is NaN or infinite to change no weight and no moment.
func TestNotFinite(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), math.MaxFloat32} {
		s := newPair()
		o := NewAdamW(s, &AdamWOptions{WeightDecay: .1})
		setGrads(s, 0)
		o.ClipNorm(1)
		o.Step(.1)
		before, moments := weights(s), o.State()
		setGrads(s, 1)
		s.Device().Backend().Upload(s.Grads().Slice(3, 4), []float32{bad})
		o.ClipNorm(1)
		if n := float64(o.GradNorm()); !math.IsNaN(n) && !math.IsInf(n, 0) {
			t.Errorf("gradient %v: norm %v is finite", bad, n)
		}
		o.Step(.1)
		if !slices.Equal(weights(s), before) {
			t.Errorf("gradient %v changed the weights", bad)
		}
		for i, v := range o.State().Vectors {
			if !slices.Equal(v.Data, moments.Vectors[i].Data) {
				t.Errorf("gradient %v changed %s", bad, v.Name)
			}
		}
		if g := s.Params[0].Grad(); g[3] != 0 {
			t.Errorf("gradient %v is not cleared", g[3])
		}
	}
}

// TestClipTwice wants the second call to see what the first one left.
func TestClipTwice(t *testing.T) {
	s := newPair()
	o := NewSGD(s, nil)
	setGrads(s, 0)
	o.ClipNorm(.5)
	o.ClipNorm(.25)
	if n := o.GradNorm(); math.Abs(float64(n)-.5) > 1e-5 {
		t.Errorf("second norm %v, want 0.5", n)
	}
	o.ClipValue(.1) // after a norm: bounds the scaled gradient
	for _, g := range slices.Concat(s.Params[0].Grad(), s.Params[1].Grad()) {
		if g > .1 || g < -.1 {
			t.Errorf("gradient %v is not within 0.1", g)
		}
	}
}

// TestClipValueAfterClipNorm compares both clippings, in this order, with their definitions in float64.
func TestClipValueAfterClipNorm(t *testing.T) {
	s := newPair()
	o := NewSGD(s, nil)
	setGrads(s, 0)
	raw := slices.Concat(s.Params[0].Grad(), s.Params[1].Grad())
	sum := 0.0
	for _, g := range raw {
		sum += float64(g) * float64(g)
	}
	const norm, bound = .5, .2
	factor := norm / (math.Sqrt(sum) + 1e-6)
	o.ClipNorm(norm)
	o.ClipValue(bound)
	within := 0
	before := weights(s)
	o.Step(1)
	for i, w := range weights(s) {
		want := max(-bound, min(bound, factor*float64(raw[i])))
		if got := float64(before[i] - w); math.Abs(got-want) > 1e-6 {
			t.Errorf("gradient %v was stepped with as %v, want %v", raw[i], got, want)
		}
		if math.Abs(want) < bound {
			within++
		}
	}
	if within == 0 || within == len(raw) {
		t.Errorf("%d of %d gradients are within the bound: one of the clippings is not tried", within, len(raw))
	}
}

func TestString(t *testing.T) {
	tenth := float32(0.1)
	for want, o := range map[string]*Optimizer{
		"adamw beta1=0.9 beta2=0.999 eps=1e-08 decay=0.01":              NewAdamW(newPair(), &AdamWOptions{WeightDecay: .01}),
		"sgd momentum=0.5 nesterov decay=0.25 decay_all":                NewSGD(newPair(), &SGDOptions{Momentum: .5, Nesterov: true, WeightDecay: .25, DecayAll: true}),
		"rmsprop alpha=0.99 eps=1e-08 group scale=0.5 decay=0.1":        NewRMSprop(newPair(), &RMSpropOptions{Groups: []Group{{Match: isBias, LRScale: .5, WeightDecay: &tenth}}}),
		"adam beta1=0.5 beta2=0.999 eps=1e-08 decay=1e-05 group frozen": NewAdam(newPair(), &AdamOptions{Beta1: .5, WeightDecay: 1e-5, Groups: []Group{{Match: isBias, Freeze: true}}}),
	} {
		if o.String() != want {
			t.Errorf("got %q, want %q", o, want)
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	for name, rule := range map[string]func(*tensor.Slab) *Optimizer{
		"sgd":     func(s *tensor.Slab) *Optimizer { return NewSGD(s, &SGDOptions{Momentum: .9}) },
		"adamw":   func(s *tensor.Slab) *Optimizer { return NewAdamW(s, nil) },
		"rmsprop": func(s *tensor.Slab) *Optimizer { return NewRMSprop(s, &RMSpropOptions{Momentum: .3}) },
	} {
		t.Run(name, func(t *testing.T) {
			run := func(s *tensor.Slab, o *Optimizer, from, to int) {
				for k := from; k < to; k++ {
					setGrads(s, k)
					o.Step(.01)
				}
			}
			whole := newPair()
			wo := rule(whole)
			run(whole, wo, 0, 9)

			first := newPair()
			fo := rule(first)
			run(first, fo, 0, 4)
			saved := fo.State()
			second := newPair()
			so := rule(second)
			for i, p := range first.Params {
				second.Params[i].Write(p.Read())
			}
			run(first, fo, 4, 9) // the saved state is a copy, so this must not reach it
			if err := so.LoadState(saved); err != nil {
				t.Fatal(err)
			}
			run(second, so, 4, 9)
			if !slices.Equal(weights(whole), weights(second)) {
				t.Errorf("continued %v, uninterrupted %v", weights(second), weights(whole))
			}
			ws, ss := wo.State(), so.State()
			if ws.Steps != ss.Steps || ss.Steps != 9 || ws.Rule != name {
				t.Errorf("rule %s, steps %d and %d", ws.Rule, ws.Steps, ss.Steps)
			}
			for i := range ws.Vectors {
				if !slices.Equal(ws.Vectors[i].Data, ss.Vectors[i].Data) {
					t.Errorf("%s differs", ws.Vectors[i].Name)
				}
			}
		})
	}
}

func TestLoadStateRefuses(t *testing.T) {
	good := func() *State { return NewAdamW(newPair(), nil).State() }
	for want, spoil := range map[string]func(*State){
		"of rule sgd":                         func(s *State) { s.Rule = "sgd" },
		"-1 steps":                            func(s *State) { s.Steps = -1 },
		"exp_avg_sq.bias is missing":          func(s *State) { s.Vectors = s.Vectors[:3] },
		"exp_avg.weight has shape [3 2]":      func(s *State) { s.Vectors[0].Dims = []int{3, 2} },
		"exp_avg.bias has shape [2]":          func(s *State) { s.Vectors[1].Data = nil },
		"has 5 vectors, this optimizer needs": func(s *State) { s.Vectors = append(s.Vectors, Vector{Name: "x"}) },
	} {
		s := good()
		spoil(s)
		o := NewAdamW(newPair(), nil)
		if err := o.LoadState(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestPanics(t *testing.T) {
	nan := float32(math.NaN())
	for want, f := range map[string]func(s *tensor.Slab){
		"Momentum must be in":    func(s *tensor.Slab) { NewSGD(s, &SGDOptions{Momentum: 1}) },
		"Nesterov needs":         func(s *tensor.Slab) { NewSGD(s, &SGDOptions{Nesterov: true}) },
		"Beta2 must be in":       func(s *tensor.Slab) { NewAdam(s, &AdamOptions{Beta2: 1.5}) },
		"Alpha must be in":       func(s *tensor.Slab) { NewRMSprop(s, &RMSpropOptions{Alpha: nan}) },
		"WeightDecay must be":    func(s *tensor.Slab) { NewAdamW(s, &AdamWOptions{WeightDecay: -1}) },
		"LRScale must be":        func(s *tensor.Slab) { NewAdamW(s, &AdamWOptions{Groups: []Group{{Match: isBias, LRScale: -1}}}) },
		"group 1 matches no":     func(s *tensor.Slab) { NewSGD(s, &SGDOptions{Groups: []Group{{Match: isBias}, {Match: isBias}}}) },
		"ClipNorm needs":         func(s *tensor.Slab) { NewSGD(s, nil).ClipNorm(0) },
		"ClipValue needs":        func(s *tensor.Slab) { NewSGD(s, nil).ClipValue(nan) },
		"decay of an EMA":        func(s *tensor.Slab) { NewEMA(s, 1) },
		"0 <= warmup < steps":    func(*tensor.Slab) { WarmupCosine(1, 0, 5, 5) },
		"positive number":        func(*tensor.Slab) { StepDecay(1, .5, 0) },
		"OneCycle needs":         func(*tensor.Slab) { OneCycle(1, 10, &OneCycleOptions{Rise: 1}) },
		"lr must be finite":      func(*tensor.Slab) { Constant(math.Inf(1)) },
		"the factor of a platea": func(*tensor.Slab) { NewPlateau(1, &PlateauOptions{Factor: 2}) },
	} {
		if err := tensor.Catch(func() { f(newPair()) }); err == nil || !strings.HasPrefix(err.Error(), "optim: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	s := newPair()
	o := NewAdamW(s, &AdamWOptions{WeightDecay: .1})
	e := NewEMA(s, .9)
	lr := WarmupCosine(1e-2, 1e-4, 5, 50)
	k := 0
	if n := testing.AllocsPerRun(50, func() {
		o.ClipValue(1)
		o.ClipNorm(1)
		o.Step(lr(k))
		e.Update()
		_ = o.GradNorm()
		k++
	}); n != 0 {
		t.Errorf("%v allocations a step", n)
	}
}

// TestEMA follows avg = .9·avg + .1·w by hand, the first update being a copy.
func TestEMA(t *testing.T) {
	s := newPair()
	e := NewEMA(s, .9)
	e.Swap() // nothing yet
	var want []float64
	for k := range 5 {
		w := []float32{float32(k), 1, -float32(k * k), 0, 2, 3}
		s.Params[0].Write(w)
		e.Update()
		for i, v := range w {
			if k == 0 {
				want = append(want, float64(v))
			} else {
				want[i] = .9*want[i] + .1*float64(v)
			}
		}
	}
	last := weights(s)
	e.Swap()
	for i, v := range s.Params[0].Read() {
		if math.Abs(float64(v)-want[i]) > 1e-5 {
			t.Errorf("average %d is %v, want %v", i, v, want[i])
		}
	}
	e.Swap()
	if !slices.Equal(weights(s), last) {
		t.Error("swapping twice does not restore the weights")
	}
	vs, n := e.State()
	fresh := newPair()
	f := NewEMA(fresh, .9)
	if err := f.LoadState(vs, n); err != nil || f.updates != 5 {
		t.Fatal(err, f.updates)
	}
	f.Swap()
	e.Swap()
	if !slices.Equal(weights(fresh), weights(s)) {
		t.Error("a restored average differs")
	}
	if err := f.LoadState(vs[1:], n); err == nil || !strings.Contains(err.Error(), "ema.weight is missing") {
		t.Errorf("got %v", err)
	}
}
