package optim

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
)

// setScaled sets the gradient of step k as a scaled loss gives it, with one element
// replaced by bad unless that is 0.
func setScaled(s *tensor.Slab, k int, scale, bad float32) {
	setGrads(s, k)
	for i, p := range s.Params {
		g := p.Grad()
		for j := range g {
			g[j] *= scale
		}
		if bad != 0 && i == 1 {
			g[1] = bad
		}
		lo, hi := s.Range(i)
		s.Device().Backend().Upload(s.Grads().Slice(lo, hi), g)
	}
}

var inf = float32(math.Inf(1))

// Steps through a scaler leave the bits of steps without one, however the gradient is
// clipped and read, and those with an overflow leave everything as it was.
func TestGradScalerIsExact(t *testing.T) {
	nan := float32(math.NaN())
	for name, clip := range map[string]func(o *Optimizer){
		"nothing":  func(*Optimizer) {},
		"norm":     func(o *Optimizer) { o.ClipNorm(.75) },
		"value":    func(o *Optimizer) { o.ClipValue(.25) },
		"both":     func(o *Optimizer) { o.ClipValue(.25); o.ClipNorm(.5) },
		"and back": func(o *Optimizer) { o.ClipNorm(.5); o.ClipValue(.25) },
		"twice":    func(o *Optimizer) { o.ClipNorm(.75); o.ClipNorm(.5) },
		"settled":  func(o *Optimizer) { o.Settle(); o.ClipNorm(.75) },
	} {
		for _, scale := range []float32{1 << 16, 1 << 5, 1, 0x1p-10, 0x1p100} {
			plain, scaled := newPair(), newPair()
			frozen := []Group{{Match: isBias, Freeze: true}}
			if name != "norm" {
				frozen = nil
			}
			want, got := NewAdamW(plain, &AdamWOptions{WeightDecay: .1, Groups: frozen}), NewAdamW(scaled, &AdamWOptions{WeightDecay: .1, Groups: frozen})
			scaler := NewGradScaler(&GradScalerOptions{Init: scale, Interval: 3})
			for k := range 20 {
				if bad := []float32{inf, -inf, nan, 0, 0, 0}[k%6]; bad != 0 && frozen == nil {
					before, state, factor := weights(scaled), got.State(), scaler.Factor()
					setScaled(scaled, k, factor, bad)
					scaler.Unscale(got)
					clip(got)
					if scaler.Step(got, .01) {
						t.Fatalf("%s: a step with %v is taken", name, bad)
					}
					scaler.Update()
					if !slices.Equal(weights(scaled), before) || !equalStates(got.State(), state) {
						t.Fatalf("%s: a skipped step changed weights or moments", name)
					}
					if g := slices.Concat(scaled.Params[0].Grad(), scaled.Params[1].Grad()); !slices.Equal(g, make([]float32, len(g))) {
						t.Fatalf("%s: a skipped step leaves the gradient %v", name, g)
					}
					if scaler.Factor() != factor/2 {
						t.Fatalf("%s: the scale went from %v to %v", name, factor, scaler.Factor())
					}
				}
				setGrads(plain, k)
				clip(want)
				want.Step(.01)
				setScaled(scaled, k, scaler.Factor(), 0)
				if name != "nothing" {
					scaler.Unscale(got)
				}
				clip(got)
				if want.GradNorm() != 0 && got.GradNorm() != want.GradNorm() {
					t.Fatalf("%s at scale %v, step %d: norm %v, want %v", name, scaler.Factor(), k, got.GradNorm(), want.GradNorm())
				}
				if !scaler.Step(got, .01) {
					t.Fatalf("%s at scale %v: step %d is skipped", name, scaler.Factor(), k)
				}
				scaler.Update()
				if !slices.Equal(weights(plain), weights(scaled)) {
					t.Fatalf("%s at scale %v: other weights after step %d", name, scale, k)
				}
			}
			if !equalStates(want.State(), got.State()) {
				t.Errorf("%s: other moments", name)
			}
		}
	}
}

func equalStates(a, b *State) bool {
	return a.Steps == b.Steps && slices.EqualFunc(a.Vectors, b.Vectors, func(x, y Vector) bool { return slices.Equal(x.Data, y.Data) })
}

// Gradients are unscaled where Settle is called, and where Update ends a step that was
// not taken.
func TestSettle(t *testing.T) {
	s := newPair()
	setGrads(s, 3)
	want := s.Params[0].Grad()
	for name, f := range map[string]func(*GradScaler, *Optimizer){
		"settle": func(_ *GradScaler, o *Optimizer) { o.Settle(); o.Settle() },
		"update": func(g *GradScaler, _ *Optimizer) { g.Update() },
	} {
		scaler, o := NewGradScaler(nil), NewSGD(s, nil)
		setScaled(s, 3, scaler.Factor(), 0)
		scaler.Unscale(o)
		f(scaler, o)
		if got := s.Params[0].Grad(); !slices.Equal(got, want) {
			t.Errorf("%s: the gradient is %v, want %v", name, got, want)
		}
		s.ZeroGrad()
	}
	// An overflow is known without a step.
	scaler, o := NewGradScaler(nil), NewSGD(s, nil)
	setScaled(s, 3, scaler.Factor(), inf)
	scaler.Unscale(o)
	scaler.Update()
	if scaler.Factor() != 1<<15 {
		t.Errorf("the scale is %v", scaler.Factor())
	}
}

// The scale stays where its inverse is a normal number, for any number of growths and
// backoffs.
func TestGradScalerRange(t *testing.T) {
	s := newPair()
	o, scaler := NewSGD(s, nil), NewGradScaler(&GradScalerOptions{Interval: 1})
	run := func(bad float32, n int) float32 {
		for range n {
			setScaled(s, 1, scaler.Factor(), bad)
			scaler.Step(o, 0)
			scaler.Update()
		}
		return scaler.Factor()
	}
	for _, c := range []struct {
		bad  float32
		n    int
		want float32
	}{{0, 109, 0x1p125}, {0, 1000, 0x1p126}, {inf, 1, 0x1p125}, {inf, 1000, 0x1p-126}, {0, 2, 0x1p-124}} {
		if got := run(c.bad, c.n); got != c.want {
			t.Fatalf("after %d steps with %v the scale is %g, want %g", c.n, c.bad, got, c.want)
		}
	}
}

func TestGradScalerState(t *testing.T) {
	s := newPair()
	run := func(g *GradScaler, o *Optimizer, from, to int) (scales []float32) {
		for k := from; k < to; k++ {
			bad := float32(0)
			if k%7 == 3 {
				bad = inf
			}
			setScaled(s, k, g.Factor(), bad)
			g.Step(o, .1)
			g.Update()
			scales = append(scales, g.Factor())
		}
		return scales
	}
	options := &GradScalerOptions{Interval: 3}
	whole := NewGradScaler(options)
	want := run(whole, NewSGD(s, nil), 0, 30)
	for cut := range 30 {
		first, second := NewGradScaler(options), NewGradScaler(options)
		o := NewSGD(s, nil)
		scales := run(first, o, 0, cut)
		text, err := json.Marshal(first.State())
		if err != nil {
			t.Fatal(err)
		}
		var state ScalerState
		if err := json.Unmarshal(text, &state); err != nil {
			t.Fatal(err)
		}
		if err := second.LoadState(state); err != nil {
			t.Fatal(err)
		}
		if scales = append(scales, run(second, o, cut, 30)...); !slices.Equal(scales, want) || second.State() != whole.State() {
			t.Fatalf("cut at %d: the scales are %v, want %v", cut, scales, want)
		}
	}
	for _, bad := range []ScalerState{{}, {Scale: -1}, {Scale: inf}, {Scale: float32(math.NaN())}, {Scale: 0x1p127}, {Scale: 1, Tracker: -1}} {
		if err := whole.LoadState(bad); err == nil || !strings.Contains(err.Error(), "expected a scale in") {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
}

func TestGradScalerMisuse(t *testing.T) {
	for want, f := range map[string]func(g *GradScaler, o *Optimizer){
		"Unscale called again": func(g *GradScaler, o *Optimizer) { g.Unscale(o); g.Unscale(o) },
		"Unscale after Step":   func(g *GradScaler, o *Optimizer) { g.Step(o, 1); g.Unscale(o) },
		"Step called again":    func(g *GradScaler, o *Optimizer) { g.Step(o, 1); g.Step(o, 1) },
		"Update before Step":   func(g *GradScaler, o *Optimizer) { g.Step(o, 1); g.Update(); g.Update() },
		"Backoff in (0,1)":     func(*GradScaler, *Optimizer) { NewGradScaler(&GradScalerOptions{Backoff: 1}) },
		"Growth above 1":       func(*GradScaler, *Optimizer) { NewGradScaler(&GradScalerOptions{Growth: .5}) },
		"positive Interval":    func(*GradScaler, *Optimizer) { NewGradScaler(&GradScalerOptions{Interval: -1}) },
		"Init in [2^-126":      func(*GradScaler, *Optimizer) { NewGradScaler(&GradScalerOptions{Init: inf}) },
	} {
		if err := tensor.Catch(func() { f(NewGradScaler(nil), NewSGD(newPair(), nil)) }); err == nil || !strings.HasPrefix(err.Error(), "optim: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	g, o := NewGradScaler(nil), NewSGD(newPair(), nil)
	g.Unscale(o)
	g.Step(o, 1)
	g.Update()
	g.Unscale(o) // each is allowed again
	g.Step(o, 1)
}

// Without a scaler the same loop trains as before.
func TestNoGradScaler(t *testing.T) {
	var g *GradScaler
	plain, other := newPair(), newPair()
	a, b := NewAdamW(plain, nil), NewAdamW(other, nil)
	for k := range 3 {
		setGrads(plain, k)
		a.ClipNorm(.75)
		a.Step(.1)
		setGrads(other, k)
		g.Unscale(b)
		b.ClipNorm(.75)
		if !g.Step(b, .1) {
			t.Error("a step is not taken")
		}
		g.Update()
	}
	if !slices.Equal(weights(plain), weights(other)) || g.Factor() != 1 || g.State() != (ScalerState{}) {
		t.Error("a nil scaler changes the training")
	}
	loss := tensor.NewTape(nil, tensor.Train).Input([]float32{1}, 1)
	if g.Scale(loss) != loss {
		t.Error("a nil scaler changes the loss")
	}
}

func TestGradScalerAllocatesNothing(t *testing.T) {
	s := newPair()
	o, g := NewAdamW(s, nil), NewGradScaler(nil)
	if n := testing.AllocsPerRun(50, func() {
		g.Unscale(o)
		o.ClipNorm(1)
		g.Step(o, .1)
		g.Update()
	}); n != 0 {
		t.Errorf("%v allocations a step", n)
	}
}
