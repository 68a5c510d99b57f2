package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
)

// LossOptions changes a loss; nil is the mean over all items.
//
// Of predictions that carry lengths, a padded batch [B,T,...], only the true steps
// count. A loss without items is 0. The loss functions return a tensor [1] and panic
// with a [*ShapeError] if shapes do not fit or the target needs a gradient.
type LossOptions struct {
	Weight *Tensor // weight of each item, of the target's shape: the loss is Σ w·l / Σ w. Items of weight 0 are not read
}

// MSE returns the mean of (pred-target)² (torch.nn.MSELoss). The shapes are equal.
func MSE(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("MSE", device.LossSpec{Kind: device.MSE, V: 1}, pred, target, o)
}

// MAE returns the mean of |pred-target| (torch.nn.L1Loss). The shapes are equal.
func MAE(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("MAE", device.LossSpec{Kind: device.MAE, V: 1}, pred, target, o)
}

// Huber returns the mean of a loss that is quadratic within delta, above 0, of the
// target and linear beyond (torch.nn.HuberLoss). The shapes are equal.
func Huber(pred, target *Tensor, delta float32, o *LossOptions) *Tensor {
	if !(delta > 0) {
		failf("Huber", "delta must be positive, got %v", delta)
	}
	return regression("Huber", device.LossSpec{Kind: device.Huber, V: 1, Param: delta}, pred, target, o)
}

// Pinball returns the quantile loss, averaged over the quantiles: pred [...,Q],
// target [...], quantiles [Q], each in (0,1).
func Pinball(pred, target *Tensor, quantiles []float32, o *LossOptions) *Tensor {
	for _, q := range quantiles {
		if !(q > 0 && q < 1) {
			failf("Pinball", "quantiles must be in (0,1), got %v", q)
		}
	}
	q := tapeOf("Pinball", pred, target).Input(quantiles, len(quantiles))
	return regression("Pinball", device.LossSpec{Kind: device.Quantile, V: len(quantiles), Quantiles: q.value}, pred, target, o)
}

// Gaussian returns the mean negative log-likelihood of a normal distribution: pred
// [...,2] holds the mean and the standard deviation before a softplus, target [...].
func Gaussian(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("Gaussian", device.LossSpec{Kind: device.Gaussian, V: 2}, pred, target, o)
}

// StudentT returns the mean negative log-likelihood of Student's t distribution:
// pred [...,3] holds the location, the scale before a softplus, and a number whose
// softplus plus 2 is the degrees of freedom; target [...].
func StudentT(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("StudentT", device.LossSpec{Kind: device.StudentT, V: 3}, pred, target, o)
}

// NegBinomial returns the mean negative log-likelihood of a negative binomial
// distribution with mean m and variance m + alpha·m²: pred [...,2] holds m and alpha
// before a softplus, target [...] holds counts.
func NegBinomial(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("NegBinomial", device.LossSpec{Kind: device.NegBinomial, V: 2}, pred, target, o)
}

// BCE returns the mean binary cross-entropy of logits with targets in [0,1]
// (torch.nn.BCEWithLogitsLoss). The shapes are equal.
func BCE(logits, target *Tensor, o *LossOptions) *Tensor {
	return regression("BCE", device.LossSpec{Kind: device.BCE, V: 1}, logits, target, o)
}

// regression computes a loss whose target has pred's shape or, for a loss with V
// outputs per item, pred's without the last dimension.
func regression(op string, spec device.LossSpec, pred, target *Tensor, o *LossOptions) *Tensor {
	t := tapeOf(op, pred, target)
	perItem := spec.Kind == device.Quantile || spec.Kind == device.Gaussian || spec.Kind == device.StudentT || spec.Kind == device.NegBinomial
	ok := pred.sameShape(target)
	if perItem {
		n := target.rank
		ok = pred.rank == n+1 && pred.dims[n] == spec.V && slices.Equal(pred.dims[:n], target.dims[:n])
	}
	if !ok {
		failf(op, "predictions %s with %d outputs per item do not fit targets %s", describe(pred), spec.V, describe(target))
	}
	if target.needs {
		failf(op, "the target must not need a gradient")
	}
	spec.N, spec.Target = target.Len(), target.value
	if o != nil && o.Weight != nil {
		if o.Weight.Len() != spec.N {
			failf(op, "targets %s need one weight each, got %s", describe(target), describe(o.Weight))
		}
		spec.Weight = o.Weight.value
	}
	return t.loss(op, &spec, pred)
}

// CrossEntropyOptions are those of torch.nn.CrossEntropyLoss.
type CrossEntropyOptions struct {
	Ignore      int32     // the class, a negative number, of items that do not count; 0 means -100
	Smoothing   float32   // label smoothing in [0,1)
	ClassWeight []float32 // [V]; the mean divides by the sum of the items' weights
}

// CrossEntropy returns the mean of -log softmax(logits)[class], a tensor [1]: logits
// [...,V], classes [...]. Without an item it is 0. It panics with a [*ShapeError] if
// shapes do not fit or a class is outside 0 to V-1 and is not Ignore.
func CrossEntropy(logits *Tensor, classes *Ints, o *CrossEntropyOptions) *Tensor {
	t := tapeOf("CrossEntropy", logits)
	classes.check("CrossEntropy", t)
	v := logits.dims[logits.rank-1]
	s := device.LossSpec{Kind: device.CrossEntropy, N: len(classes.v), V: v, Classes: classes.on, Ignore: -100}
	if logits.rows() != s.N {
		failf("CrossEntropy", "logits %s need %d classes, got %d", describe(logits), logits.rows(), s.N)
	}
	if o != nil {
		if o.Ignore != 0 {
			s.Ignore = o.Ignore
		}
		s.Smoothing = o.Smoothing
		if o.ClassWeight != nil {
			if len(o.ClassWeight) != v {
				failf("CrossEntropy", "%d classes need %d weights, got %d", v, v, len(o.ClassWeight))
			}
			s.ClassWeight = t.Input(o.ClassWeight, v).value
		}
	}
	for i, c := range classes.v {
		if (c < 0 || int(c) >= v) && c != s.Ignore {
			failf("CrossEntropy", "class %d at position %d is outside 0..%d", c, i, v-1)
		}
	}
	return t.loss("CrossEntropy", &s, logits)
}

func (t *Tape) loss(op string, spec *device.LossSpec, pred *Tensor) *Tensor {
	s := t.specs.loss.put(*spec)
	if pred.seq != nil {
		t.maskLoss(op, s, pred)
	}
	value, grads := t.scalar(pred)
	s.Pred, s.Value, s.DPred = pred.value, value.value, grads[0]
	t.backend.Loss(s)
	return value
}

// scalar returns the result of a loss of xs, at most four, and memory for its
// gradients, which the forward pass computes together with the value and the
// backward pass scales. The memory is absent if the loss is not recorded.
func (t *Tape) scalar(xs ...*Tensor) (value *Tensor, grads [4]device.Buffer) {
	value = t.Empty(1)
	if n := t.record(scalarGrad, value, xs...); n != nil {
		for i, x := range xs {
			n.grads[i] = t.arena.alloc(x.memory().N)
		}
		grads = n.grads
	}
	return value, grads
}

func scalarGrad(t *Tape, n *node) {
	for i, d := range n.grads {
		if x := n.in[i]; d.Zero() {
			continue
		} else if x.adopt(d) {
			t.backend.ScaleBy(d, n.out.grad)
		} else if dx, acc := x.into(); !dx.Zero() {
			t.backend.AddScaled(dx, d, n.out.grad, acc)
		}
	}
}

// maskLoss sets the weights of the steps past each row's length to zero.
func (t *Tape) maskLoss(op string, s *device.LossSpec, pred *Tensor) {
	if pred.timeMajor {
		failf(op, "needs batch-major predictions, got a time-major %s", describe(pred))
	}
	B, T := pred.dims[0], pred.dims[1]
	if s.N%max(1, B*T) != 0 {
		failf(op, "%d items cannot be divided among the steps of a padded batch %s", s.N, describe(pred))
	}
	per := s.N / max(1, B*T) // items per step
	mask := device.PermuteSpec{Dims: [4]int{1, B, T, per}, Src: s.Weight, SrcStride: [4]int{0, T * per, per, 1}, Dst: t.arena.alloc(max(1, s.N)),
		DstStride: [4]int{0, T * per, per, 1}, Lens: pred.lens(), RowDim: 1, TimeDim: 2}
	if s.Weight.Zero() {
		mask.Src, mask.SrcStride = t.arena.alloc(1), [4]int{}
		t.backend.Fill(mask.Src, 1)
	}
	t.permute(mask)
	s.Weight = mask.Dst
}

// SumAll returns the sum of all elements, a tensor [1].
func SumAll(x *Tensor) *Tensor {
	t := tapeOf("SumAll", x)
	y := t.Empty(1)
	t.backend.SumRows(y.value, x.value, x.Len(), 1, 1, false)
	t.record(sumGrad, y, x)
	return y
}

func sumGrad(t *Tape, n *node) {
	dx, acc := n.in[0].into()
	t.permute(device.PermuteSpec{Src: n.out.grad, Dst: dx, Dims: [4]int{1, 1, 1, dx.N}, DstStride: [4]int{0, 0, 0, 1}, Acc: acc})
}

// MeanAll returns the mean of all elements, a tensor [1]; 0 if there are none.
func MeanAll(x *Tensor) *Tensor { return MulScalar(SumAll(x), 1/float32(max(1, x.Len()))) }
