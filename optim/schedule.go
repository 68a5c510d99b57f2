package optim

import (
	"cmp"
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// Schedule returns the learning rate of each step, counted from 0. It is a pure
// function, so resuming needs only the step. The functions that make one panic with a
// [*tensor.UseError] if a setting is out of range; rates are finite and not negative.
type Schedule func(step int) float32

// Constant returns lr at every step.
func Constant(lr float64) Schedule {
	notNegative("lr", lr)
	return func(int) float32 { return float32(lr) }
}

// Cosine falls from max at step 0 to min at step steps along half a cosine
// wave: min + (max-min)·(1+cos(π·step/steps))/2 (Loshchilov and Hutter,
// arXiv:1608.03983, without restarts). After that it stays at min, where
// PyTorch's CosineAnnealingLR rises again.
func Cosine(max, min float64, steps int) Schedule { return WarmupCosine(max, min, 0, steps) }

// WarmupCosine rises linearly for warmup steps, from max/(warmup+1) at step 0 to
// max at step warmup, then falls as [Cosine] over the rest and is min from step
// steps on.
func WarmupCosine(max, min float64, warmup, steps int) Schedule {
	notNegative("max", max)
	notNegative("min", min)
	tensor.Check(0 <= warmup && warmup < steps, "optim", "a cosine schedule needs 0 <= warmup < steps, got %d and %d", warmup, steps)
	return func(step int) float32 {
		switch {
		case step < warmup:
			return float32(max * float64(step+1) / float64(warmup+1))
		case step >= steps:
			return float32(min)
		}
		return float32(cosine(max, min, float64(step-warmup)/float64(steps-warmup)))
	}
}

// cosine goes from a at x = 0 to b at x = 1.
func cosine(a, b, x float64) float64 { return b + (a-b)*(1+math.Cos(math.Pi*x))/2 }

// StepDecay is lr·gamma^⌊step/every⌋ (PyTorch's StepLR, counted in steps).
func StepDecay(lr, gamma float64, every int) Schedule {
	notNegative("lr", lr)
	notNegative("gamma", gamma)
	tensor.Check(every > 0, "optim", "StepDecay needs a positive number of steps, got %d", every)
	return func(step int) float32 { return float32(lr * math.Pow(gamma, float64(step/every))) }
}

// Exponential is lr·gamma^step (PyTorch's ExponentialLR, counted in steps).
func Exponential(lr, gamma float64) Schedule {
	notNegative("lr", lr)
	notNegative("gamma", gamma)
	return func(step int) float32 { return float32(lr * math.Pow(gamma, float64(step))) }
}

// OneCycleOptions are the settings of [OneCycle]; the zero value is PyTorch's default.
type OneCycleOptions struct {
	Rise     float64 // the fraction of the steps in which the rate rises, in (0,1); 0 means 0.3
	Div      float64 // the first rate is max/Div; 0 means 25
	FinalDiv float64 // the last rate is max/Div/FinalDiv; 0 means 1e4
}

// OneCycle rises from max/Div to max and falls to max/Div/FinalDiv over steps
// steps, both along half a cosine wave (Smith and Topin, arXiv:1708.07120;
// PyTorch's OneCycleLR with cosine annealing and two phases; momentum is not
// cycled). After the last step it stays constant, where PyTorch raises an
// error.
func OneCycle(max float64, steps int, o *OneCycleOptions) Schedule {
	notNegative("max", max)
	o = cmp.Or(o, &OneCycleOptions{})
	s := OneCycleOptions{cmp.Or(o.Rise, 0.3), cmp.Or(o.Div, 25), cmp.Or(o.FinalDiv, 1e4)}
	tensor.Check(steps > 0 && s.Rise > 0 && s.Rise < 1 && s.Div > 0 && s.FinalDiv > 0, "optim",
		"OneCycle needs positive steps and divisors and a rise in (0,1), got %d steps and %+v", steps, s)
	first := max / s.Div
	last := first / s.FinalDiv
	peak, end := s.Rise*float64(steps)-1, float64(steps-1)
	return func(step int) float32 {
		x := float64(step)
		switch {
		case x >= end:
			return float32(last)
		case x <= peak && peak > 0:
			return float32(cosine(first, max, x/peak))
		}
		return float32(cosine(max, last, (x-peak)/(end-peak)))
	}
}

// PlateauOptions are the settings of a [Plateau]; the zero value is PyTorch's default.
type PlateauOptions struct {
	Factor    float64 // factor on the rate, in (0,1); 0 means 0.1
	Patience  int     // validations without improvement that are tolerated; 0 means 10, below 0 none
	Threshold float64 // least improvement that counts; 0 means 1e-4, below 0 any
	Absolute  bool    // the threshold is a difference, not a fraction of the best
	Maximize  bool    // larger is better
	Cooldown  int     // number of validations after a reduction that are not counted
	Min       float64 // lower bound of the rate
}

// Plateau lowers the learning rate by a factor when a metric has stopped
// improving (PyTorch's ReduceLROnPlateau, with its eps of 1e-8).
type Plateau struct {
	o     PlateauOptions
	state PlateauState
}

// PlateauState is what a Plateau needs to continue; it survives JSON unchanged.
type PlateauState struct {
	LR       float64
	Best     *float64 // nil before the first finite value
	Bad      int      // validations since the best
	Cooldown int      // validations of cooldown left
}

// NewPlateau starts with learning rate lr. It panics with a [*tensor.UseError] if a
// setting is out of range.
func NewPlateau(lr float64, o *PlateauOptions) *Plateau {
	notNegative("lr", lr)
	p := &Plateau{o: *cmp.Or(o, &PlateauOptions{}), state: PlateauState{LR: lr}}
	p.o.Factor = cmp.Or(p.o.Factor, 0.1)
	p.o.Patience, p.o.Threshold = max(cmp.Or(p.o.Patience, 10), 0), max(cmp.Or(p.o.Threshold, 1e-4), 0)
	tensor.Check(p.o.Factor > 0 && p.o.Factor < 1, "optim", "the factor of a plateau must be in (0,1), got %v", p.o.Factor)
	notNegative("min", p.o.Min)
	return p
}

// Maximizes reports whether larger metrics are better.
func (p *Plateau) Maximizes() bool { return p.o.Maximize }

// LR returns the current learning rate.
func (p *Plateau) LR() float32 { return float32(p.state.LR) }

// Observe records the metric of one validation and returns the learning rate from
// then on. A metric that is not finite counts as no improvement.
func (p *Plateau) Observe(metric float64) float32 {
	s := &p.state
	if p.better(metric) {
		s.Best, s.Bad = &metric, 0
	} else {
		s.Bad++
	}
	if s.Cooldown > 0 {
		s.Cooldown--
		s.Bad = 0
	}
	if s.Bad > p.o.Patience {
		if lr := max(s.LR*p.o.Factor, p.o.Min); s.LR-lr > 1e-8 {
			s.LR = lr
		}
		s.Cooldown, s.Bad = p.o.Cooldown, 0
	}
	return p.LR()
}

func (p *Plateau) better(metric float64) bool {
	if math.IsNaN(metric) || math.IsInf(metric, 0) {
		return false
	}
	if p.state.Best == nil {
		return true
	}
	bar, t := *p.state.Best, p.o.Threshold
	switch {
	case p.o.Maximize && p.o.Absolute:
		return metric > bar+t
	case p.o.Maximize:
		return metric > bar*(1+t)
	case p.o.Absolute:
		return metric < bar-t
	}
	return metric < bar*(1-t)
}

// State returns a copy of the state to save.
func (p *Plateau) State() PlateauState { return p.state }

// SetState continues from a saved state.
func (p *Plateau) SetState(s PlateauState) { p.state = s }
