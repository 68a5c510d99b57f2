package optim

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// GradScalerOptions are the settings of a [GradScaler]; the zero value is PyTorch's
// default. Powers of two change no digit of a gradient.
type GradScalerOptions struct {
	Init     float32 // the first scale, in [2^-126,2^126]; 0 means 65536
	Growth   float32 // factor on the scale, above 1; 0 means 2
	Backoff  float32 // factor on the scale after an overflow, in (0,1); 0 means 0.5
	Interval int     // steps in a row without overflow after which the scale grows; 0 means 2000
}

// Filled returns the options with PyTorch's defaults in place of zeros. It panics with
// a [*tensor.UseError] if one is out of range.
func (o GradScalerOptions) Filled() GradScalerOptions {
	o = GradScalerOptions{cmp.Or(o.Init, 1<<16), cmp.Or(o.Growth, 2), cmp.Or(o.Backoff, 0.5), cmp.Or(o.Interval, 2000)}
	tensor.Check(inRange(o.Init) && o.Growth > 1 && finite(o.Growth) && o.Backoff > 0 && o.Backoff < 1 && o.Interval > 0, "optim",
		"a GradScaler needs Init in [2^-126,2^126], Growth above 1, Backoff in (0,1) and a positive Interval, got %+v", o)
	return o
}

// GradScaler keeps the gradients of a training in [tensor.Float16] within its range
// (torch.amp.GradScaler): the loss is multiplied by a scale, the gradients are divided
// by it before they are used, and a step whose gradients are not all finite is left out
// and lowers the scale.
//
//	scaler.Scale(loss).Backward()
//	scaler.Unscale(opt) // only before clipping
//	opt.ClipNorm(1)
//	scaler.Step(opt, lr)
//	scaler.Update()
//
// Several optimizers may share one: Step and Unscale once for each of them, then one
// Update. A nil GradScaler leaves losses and gradients as they are, for the other
// precisions.
type GradScaler struct {
	o     GradScalerOptions
	state ScalerState
	uses  []scalerUse // of each optimizer since the last Update
}

// ScalerState is what a GradScaler needs to continue; it survives JSON unchanged.
type ScalerState struct {
	Scale   float32
	Tracker int // steps since the last overflow or growth
}

type scalerUse struct {
	o                        *Optimizer
	unscaled, stepped, found bool
}

const minScale, maxScale = 0x1p-126, 0x1p126

func inRange(scale float32) bool { return scale >= minScale && scale <= maxScale }

// NewGradScaler creates a scaler; nil options are the zero value. It panics with a
// [*tensor.UseError] if an option is out of range.
func NewGradScaler(o *GradScalerOptions) *GradScaler {
	s := &GradScaler{o: cmp.Or(o, &GradScalerOptions{}).Filled()}
	s.state.Scale = s.o.Init
	return s
}

// Scale returns the loss times the scale, for its Backward.
func (s *GradScaler) Scale(loss *tensor.Tensor) *tensor.Tensor {
	if s == nil {
		return loss
	}
	return tensor.MulScalar(loss, s.state.Scale)
}

// Factor returns the current scale; 1 for a nil scaler.
func (s *GradScaler) Factor() float32 {
	if s == nil {
		return 1
	}
	return s.state.Scale
}

// Unscale divides the optimizer's gradients by the scale, so that clipping sees their
// true size. It takes no pass of its own: the next ClipNorm, ClipValue or Step applies
// it, or [Optimizer.Settle] for code that reads gradients. Call it once per optimizer
// between two Updates and before Step; otherwise it panics with a [*tensor.UseError].
func (s *GradScaler) Unscale(o *Optimizer) {
	if s == nil {
		return
	}
	u := s.use(o)
	never(u.stepped, "Unscale after Step")
	never(u.unscaled, "Unscale called again for one optimizer before Update")
	u.unscaled = true
	o.settle() // of a ClipNorm before
	o.scaled, o.overflowed = true, false
	o.scratch[0] = 1 / s.state.Scale
	o.backend.Upload(o.inverse, o.scratch[:])
}

// Step takes the optimizer's step with learning rate lr and clears the gradients. If a
// gradient, or the norm that ClipNorm measured, is not finite, it only clears them: it
// changes neither weights nor moments nor Steps, and returns false. It waits for the
// device. A second Step of an optimizer before Update panics with a [*tensor.UseError].
func (s *GradScaler) Step(o *Optimizer, lr float32) (taken bool) {
	if s == nil {
		o.Step(lr)
		return true
	}
	u := s.use(o)
	never(u.stepped, "Step called again for one optimizer before Update")
	if !u.unscaled {
		s.Unscale(o)
	}
	o.measure()
	u.stepped, u.found = true, o.overflowed || o.pending && !finite(o.GradNorm())
	if u.found {
		o.slab.ZeroGrad()
		o.pending, o.scaled = false, false
		return false
	}
	o.Step(lr)
	return true
}

// Update ends a step of all optimizers. If one met an overflow, the scale is multiplied
// by Backoff; otherwise, after Interval steps in a row without one, by Growth. It stays
// within 2^-126 and 2^126, where it and its inverse are normal numbers (PyTorch: as long
// as it is finite). It panics with a [*tensor.UseError] if there was neither Step
// nor Unscale since the last Update.
func (s *GradScaler) Update() {
	if s == nil {
		return
	}
	never(len(s.uses) == 0, "Update before Step or Unscale")
	found := false
	for _, u := range s.uses {
		if !u.stepped {
			u.o.Settle()
			u.found = u.o.overflowed
		}
		found = found || u.found
	}
	s.uses = s.uses[:0]
	t := &s.state
	t.Tracker++
	switch {
	case found:
		t.Scale, t.Tracker = max(t.Scale*s.o.Backoff, minScale), 0
	case t.Tracker >= s.o.Interval:
		t.Tracker = 0
		if grown := t.Scale * s.o.Growth; inRange(grown) {
			t.Scale = grown
		}
	}
}

// State returns a copy of the state to save; the zero ScalerState for a nil scaler.
func (s *GradScaler) State() ScalerState {
	if s == nil {
		return ScalerState{}
	}
	return s.state
}

// LoadState continues from a saved state. It returns an error, and changes nothing, if
// that is of no scaler: a scale outside [2^-126,2^126], or a negative tracker.
func (s *GradScaler) LoadState(t ScalerState) error {
	if !inRange(t.Scale) || t.Tracker < 0 {
		return fmt.Errorf("the saved scale is %v after %d steps without overflow, expected a scale in [2^-126,2^126] and 0 steps or more", t.Scale, t.Tracker)
	}
	s.state = t
	return nil
}

// use returns what was done with an optimizer since the last Update.
func (s *GradScaler) use(o *Optimizer) *scalerUse {
	i := slices.IndexFunc(s.uses, func(u scalerUse) bool { return u.o == o })
	if i < 0 {
		i = len(s.uses)
		s.uses = append(s.uses, scalerUse{o: o})
	}
	return &s.uses[i]
}

// never panics with a [*tensor.UseError] if what must not happen has.
func never(happened bool, what string) {
	if happened {
		tensor.Check(false, "optim: GradScaler", "%s", what)
	}
}

// Settle applies to the gradients what the next Step would: the factors of
// [Optimizer.ClipNorm] and [GradScaler.Unscale]. Call it before gradients are read or
// changed.
func (o *Optimizer) Settle() {
	o.measure()
	o.settle()
}

// measure finds out whether a gradient that is to be unscaled is finite, unless
// ClipNorm has done so.
func (o *Optimizer) measure() {
	if o.scaled && !o.pending {
		o.ClipNorm(float32(math.Inf(1)))
	}
}

// unscaleNorm turns the sum of squares of the scaled gradient into that of the true
// one, and notes whether an element is not finite.
func (o *Optimizer) unscaleNorm() {
	o.backend.Download(o.scratch[:], o.norm)
	if !finite(o.scratch[0]) {
		o.overflowed = slices.ContainsFunc(o.slab.Params, func(p *tensor.Param) bool {
			return slices.ContainsFunc(p.Grad(), func(g float32) bool { return !finite(g) })
		})
		if !o.overflowed { // only the squares are beyond float32
			o.backend.ScaleBy(o.slab.Grads(), o.inverse)
			o.scaled = false
			o.backend.SumSquares(o.norm, o.slab.Grads())
			return
		}
	}
	o.backend.ScaleBy(o.norm, o.inverse)
	o.backend.ScaleBy(o.norm, o.inverse)
}

func finite(x float32) bool { return x-x == 0 }
