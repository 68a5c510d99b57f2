package optim

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/tensor"
)

// Group overrides settings of some parameters. A parameter belongs to the first
// group whose Match accepts its full name, such as "rnn.weight_ih_l0".
type Group struct {
	Match       func(name string) bool
	LRScale     float32  // factor on the learning rate; 0 means 1
	WeightDecay *float32 // in place of the rule's, for NoDecay parameters too; nil keeps the rule's
	Freeze      bool     // do not train these parameters; the gradient norm leaves them out
}

// SGDOptions are the settings of stochastic gradient descent. The zero value is plain
// gradient descent.
type SGDOptions struct {
	Momentum    float32 // 0 <= Momentum < 1; 0 keeps no momentum buffer
	Dampening   float32 // the momentum adds the new gradient times 1-Dampening
	Nesterov    bool    // needs Momentum > 0 and Dampening 0
	WeightDecay float32 // L2: added to the gradient as WeightDecay·w
	DecayAll    bool    // decay biases and norms too, as PyTorch does
	Groups      []Group
}

// AdamOptions are the settings of Adam (Kingma and Ba, arXiv:1412.6980).
type AdamOptions struct {
	Beta1, Beta2 float32 // 0 means 0.9 and 0.999
	Eps          float32 // 0 means 1e-8; added outside the root
	WeightDecay  float32 // L2: added to the gradient as WeightDecay·w, as torch.optim.Adam does
	DecayAll     bool    // decay biases and norms too, as PyTorch does
	Groups       []Group
}

// AdamWOptions are the settings of AdamW (Loshchilov and Hutter, arXiv:1711.05101),
// whose weight decay is decoupled: a step subtracts lr·WeightDecay·w. 0 means none;
// PyTorch's default is 0.01.
type AdamWOptions AdamOptions

// RMSpropOptions are the settings of RMSprop, not centred (torch.optim.RMSprop).
type RMSpropOptions struct {
	Alpha       float32 // 0 means 0.99
	Eps         float32 // 0 means 1e-8; added outside the root
	Momentum    float32 // 0 <= Momentum < 1; 0 keeps no momentum buffer
	WeightDecay float32 // L2: added to the gradient as WeightDecay·w
	DecayAll    bool    // decay biases and norms too, as PyTorch does
	Groups      []Group
}

// Optimizer applies one update rule to the parameters of a slab. It is used by
// one goroutine at a time.
type Optimizer struct {
	slab       *tensor.Slab
	backend    device.Backend
	rule       string
	text       string
	runs       []run
	m, v       moment
	norm       device.Buffer // shape [1]: Σg² of the last ClipNorm
	factor     device.Buffer // shape [1]: the factor that the next Step applies to the gradient
	pending    bool          // factor has not been applied yet
	inverse    device.Buffer // shape [1]: 1/scale of a GradScaler
	scaled     bool          // the gradient, and so factor, must be multiplied by inverse
	overflowed bool          // a gradient was not finite when it was unscaled
	steps      int
	spec       device.StepSpec
	scratch    [1]float32
}

// moment is a vector that a rule keeps, with the layout of the slab; absent if the
// rule keeps none.
type moment struct {
	device.Buffer
	name string // PyTorch's
}

// of returns the range of a run.
func (m *moment) of(r run) device.Buffer {
	if m.Zero() {
		return device.Buffer{}
	}
	return m.Slice(r.lo, r.hi)
}

// run is a range of the slab whose parameters have the same settings.
type run struct {
	lo, hi int
	setting
}

type setting struct {
	scale, decay float32
	frozen       bool
}

// NewSGD creates a stochastic gradient descent optimizer (torch.optim.SGD). Like the
// other rules, it panics with a [*tensor.UseError] if a setting is out of range or a
// group matches no parameter. nil options are the zero value.
func NewSGD(slab *tensor.Slab, o *SGDOptions) *Optimizer {
	o = cmp.Or(o, &SGDOptions{})
	below1("Momentum", o.Momentum)
	tensor.Check(!o.Nesterov || o.Momentum != 0 && o.Dampening == 0, "optim", "Nesterov needs Momentum above 0 and no Dampening")
	s := device.StepSpec{Kind: device.SGD, Momentum: o.Momentum, Dampening: o.Dampening, Nesterov: o.Nesterov}
	opt := newOptimizer("sgd", slab, s, o.WeightDecay, o.DecayAll, o.Groups)
	opt.keepMomentum()
	return opt
}

// NewAdam creates an Adam optimizer with L2 decay (torch.optim.Adam).
func NewAdam(slab *tensor.Slab, o *AdamOptions) *Optimizer {
	return newAdam("adam", slab, *cmp.Or(o, &AdamOptions{}))
}

// NewAdamW creates an Adam optimizer with decoupled decay (torch.optim.AdamW).
func NewAdamW(slab *tensor.Slab, o *AdamWOptions) *Optimizer {
	return newAdam("adamw", slab, AdamOptions(*cmp.Or(o, &AdamWOptions{})))
}

func newAdam(rule string, slab *tensor.Slab, o AdamOptions) *Optimizer {
	s := device.StepSpec{Kind: device.Adam, Beta1: cmp.Or(o.Beta1, 0.9), Beta2: cmp.Or(o.Beta2, 0.999), Eps: cmp.Or(o.Eps, 1e-8), Decoupled: rule == "adamw"}
	below1("Beta1", s.Beta1)
	below1("Beta2", s.Beta2)
	notNegative("Eps", s.Eps)
	opt := newOptimizer(rule, slab, s, o.WeightDecay, o.DecayAll, o.Groups)
	opt.m, opt.v = opt.keep("exp_avg"), opt.keep("exp_avg_sq")
	return opt
}

// NewRMSprop creates an RMSprop optimizer (torch.optim.RMSprop, not centred).
func NewRMSprop(slab *tensor.Slab, o *RMSpropOptions) *Optimizer {
	o = cmp.Or(o, &RMSpropOptions{})
	s := device.StepSpec{Kind: device.RMSprop, Beta2: cmp.Or(o.Alpha, 0.99), Eps: cmp.Or(o.Eps, 1e-8), Momentum: o.Momentum}
	below1("Alpha", s.Beta2)
	below1("Momentum", s.Momentum)
	notNegative("Eps", s.Eps)
	opt := newOptimizer("rmsprop", slab, s, o.WeightDecay, o.DecayAll, o.Groups)
	opt.v = opt.keep("square_avg")
	opt.keepMomentum()
	return opt
}

func newOptimizer(rule string, slab *tensor.Slab, spec device.StepSpec, decay float32, decayAll bool, groups []Group) *Optimizer {
	notNegative("WeightDecay", decay)
	b := slab.Device().Backend()
	return &Optimizer{
		slab: slab, backend: b, rule: rule, spec: spec, text: describe(rule, spec, decay, decayAll, groups),
		runs: layOut(slab, decay, decayAll, groups),
		norm: b.Alloc(1), factor: b.Alloc(1), inverse: b.Alloc(1),
	}
}

func (o *Optimizer) keep(name string) moment {
	return moment{o.backend.Alloc(o.slab.Values().N), name}
}

func (o *Optimizer) keepMomentum() {
	if o.spec.Momentum > 0 {
		o.m = o.keep("momentum_buffer")
	}
}

// layOut divides the slab into runs of equal settings. The zeros between two
// parameters of a run are updated too: their gradient is zero, so they stay zero.
func layOut(slab *tensor.Slab, decay float32, decayAll bool, groups []Group) []run {
	var runs []run
	used := make([]bool, len(groups))
	for i, p := range slab.Params {
		s := setting{scale: 1, decay: decay}
		if p.NoDecay && !decayAll {
			s.decay = 0
		}
		for k, g := range groups {
			if !g.Match(p.Name) {
				continue
			}
			used[k] = true
			notNegative("LRScale", g.LRScale)
			s.scale, s.frozen = cmp.Or(g.LRScale, 1), g.Freeze
			if g.WeightDecay != nil {
				notNegative("WeightDecay", *g.WeightDecay)
				s.decay = *g.WeightDecay
			}
			break
		}
		lo, hi := slab.Range(i)
		if n := len(runs); n > 0 && runs[n-1].setting == s {
			runs[n-1].hi = hi
			continue
		}
		runs = append(runs, run{lo, hi, s})
	}
	for k, u := range used {
		tensor.Check(u, "optim", "group %d matches no parameter that no earlier group matches", k)
	}
	return runs
}

// Slab returns the parameters that are trained.
func (o *Optimizer) Slab() *tensor.Slab { return o.slab }

// Rule returns "sgd", "adam", "adamw" or "rmsprop".
func (o *Optimizer) Rule() string { return o.rule }

// String returns the rule with its settings, such as "adamw beta1=0.9
// beta2=0.999 eps=1e-08 decay=0.01". Equal strings mean equal arithmetic.
func (o *Optimizer) String() string { return o.text }

func describe(rule string, s device.StepSpec, decay float32, decayAll bool, groups []Group) string {
	var b strings.Builder
	b.WriteString(rule)
	set := func(name string, v float32) {
		if v != 0 {
			fmt.Fprintf(&b, " %s=%v", name, v)
		}
	}
	set("beta1", s.Beta1)
	if s.Kind == device.RMSprop {
		set("alpha", s.Beta2)
	} else {
		set("beta2", s.Beta2)
	}
	set("eps", s.Eps)
	set("momentum", s.Momentum)
	set("dampening", s.Dampening)
	if s.Nesterov {
		b.WriteString(" nesterov")
	}
	set("decay", decay)
	if decayAll {
		b.WriteString(" decay_all")
	}
	for _, g := range groups {
		b.WriteString(" group")
		set("scale", g.LRScale)
		if g.WeightDecay != nil {
			fmt.Fprintf(&b, " decay=%v", *g.WeightDecay)
		}
		if g.Freeze {
			b.WriteString(" frozen")
		}
	}
	return b.String()
}

// Steps returns the number of steps taken.
func (o *Optimizer) Steps() int { return o.steps }

// ClipNorm scales all gradients by min(1, max/(norm+1e-6)), where norm is the
// Euclidean norm over all of them (torch.nn.utils.clip_grad_norm_). The next
// Step applies the factor. A max of +Inf only measures. It panics with a
// [*tensor.UseError] unless max is positive.
//
// If the norm is not finite, the next Step changes no weight.
func (o *Optimizer) ClipNorm(max float32) {
	if !(max > 0) {
		tensor.Check(false, "optim", "ClipNorm needs a positive norm, got %v", max)
	}
	o.settle()
	for _, r := range o.runs {
		if r.frozen {
			o.backend.Fill(o.slab.Grads().Slice(r.lo, r.hi), 0)
		}
	}
	o.backend.SumSquares(o.norm, o.slab.Grads())
	if o.scaled {
		o.unscaleNorm()
	}
	// The largest float32 clips nothing either, and gives no Inf/Inf.
	o.backend.ClipFactor(o.factor, o.norm, min(max, math.MaxFloat32))
	if o.scaled {
		o.backend.ScaleBy(o.factor, o.inverse)
	}
	o.pending = true
}

// ClipValue clamps each element of the gradients to [-max, max]
// (torch.nn.utils.clip_grad_value_). NaN stays NaN. It panics with a
// [*tensor.UseError] unless max is positive.
func (o *Optimizer) ClipValue(max float32) {
	if !(max > 0) {
		tensor.Check(false, "optim", "ClipValue needs a positive bound, got %v", max)
	}
	o.Settle()
	o.backend.Clamp(o.slab.Grads(), -max, max)
}

// settle applies the pending factor of an earlier ClipNorm.
func (o *Optimizer) settle() {
	if o.pending {
		o.backend.ScaleBy(o.slab.Grads(), o.factor)
		o.pending, o.scaled = false, false
	}
}

// GradNorm waits for the device and returns the norm that the last
// [Optimizer.ClipNorm] measured, before clipping; 0 before the first call.
func (o *Optimizer) GradNorm() float32 {
	o.backend.Download(o.scratch[:], o.norm)
	return float32(math.Sqrt(float64(o.scratch[0])))
}

// Step applies the rule with learning rate lr to every parameter, then clears
// the gradients.
func (o *Optimizer) Step(lr float32) {
	o.measure()
	o.steps++
	s := &o.spec
	s.T = o.steps
	s.Scale = device.Buffer{}
	if o.pending {
		s.Scale = o.factor
	}
	values, grads := o.slab.MutableValues(), o.slab.Grads()
	for _, r := range o.runs {
		s.G = grads.Slice(r.lo, r.hi)
		if r.frozen {
			o.backend.Fill(s.G, 0)
			continue
		}
		s.W, s.M, s.V = values.Slice(r.lo, r.hi), o.m.of(r), o.v.of(r)
		s.LR, s.Decay = lr*r.scale, r.decay
		o.backend.Step(s)
	}
	o.pending, o.scaled = false, false
}

func below1(name string, v float32) {
	tensor.Check(v >= 0 && v < 1, "optim", "%s must be in [0,1), got %v", name, v)
}

func notNegative[F float32 | float64](name string, v F) {
	if !(v >= 0 && v <= math.MaxFloat32) {
		tensor.Check(false, "optim", "%s must be finite and not negative, got %v", name, v)
	}
}
