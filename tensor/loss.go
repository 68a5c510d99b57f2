package tensor

import "github.com/carousel-ml/carousel/internal/device"

// LossOptions changes a loss; nil is the plain mean over all items.
//
// A prediction that is a padded batch [B,T,...] counts only its true steps.
type LossOptions struct {
	Weight *Tensor // one weight an item, the target's shape: Σ w·l / Σ w. Items of weight 0 are not looked at
}

// MSE is the mean of (pred-target)², a tensor [1]. Shapes are equal.
func MSE(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("MSE", device.LossSpec{Kind: device.MSE, V: 1}, pred, target, o)
}

// MAE is the mean of |pred-target| (torch.nn.L1Loss).
func MAE(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("MAE", device.LossSpec{Kind: device.MAE, V: 1}, pred, target, o)
}

// Huber is quadratic within delta of the target and linear beyond (torch.nn.HuberLoss).
func Huber(pred, target *Tensor, delta float32, o *LossOptions) *Tensor {
	if !(delta > 0) {
		failf("Huber", "delta must be positive, got %v", delta)
	}
	return regression("Huber", device.LossSpec{Kind: device.Huber, V: 1, Param: delta}, pred, target, o)
}

// Pinball is the quantile loss, averaged over the quantiles: pred [...,Q],
// target [...], each quantile in (0,1).
func Pinball(pred, target *Tensor, quantiles []float32, o *LossOptions) *Tensor {
	for _, q := range quantiles {
		if !(q > 0 && q < 1) {
			failf("Pinball", "quantiles must be in (0,1), got %v", q)
		}
	}
	q := tapeOf("Pinball", pred, target).Input(quantiles, len(quantiles))
	return regression("Pinball", device.LossSpec{Kind: device.Quantile, V: len(quantiles), Quantiles: q.value}, pred, target, o)
}

// Gaussian is the negative log-likelihood of a normal distribution: pred
// [...,2] holds mean and the scale before a softplus, target [...].
func Gaussian(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("Gaussian", device.LossSpec{Kind: device.Gaussian, V: 2}, pred, target, o)
}

// StudentT is the negative log-likelihood of Student's t: pred [...,3] holds
// location, scale before a softplus, and degrees of freedom as 2 + softplus.
func StudentT(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("StudentT", device.LossSpec{Kind: device.StudentT, V: 3}, pred, target, o)
}

// NegBinomial is the negative log-likelihood of a negative binomial with mean m
// and variance m + alpha·m²: pred [...,2] holds m and alpha before a softplus,
// target [...] counts.
func NegBinomial(pred, target *Tensor, o *LossOptions) *Tensor {
	return regression("NegBinomial", device.LossSpec{Kind: device.NegBinomial, V: 2}, pred, target, o)
}

// BCE is binary cross-entropy on logits, targets in [0,1] (torch.nn.BCEWithLogitsLoss).
func BCE(logits, target *Tensor, o *LossOptions) *Tensor {
	return regression("BCE", device.LossSpec{Kind: device.BCE, V: 1}, logits, target, o)
}

// regression runs a loss whose target is a tensor of pred's shape, or of pred's
// without the last dimension where an item has V outputs.
func regression(op string, spec device.LossSpec, pred, target *Tensor, o *LossOptions) *Tensor {
	t := tapeOf(op, pred, target)
	perItem := spec.Kind == device.Quantile || spec.Kind == device.Gaussian || spec.Kind == device.StudentT || spec.Kind == device.NegBinomial
	ok := pred.sameShape(target)
	if perItem {
		d := target.dims
		if ok = target.rank < maxRank; ok {
			d[target.rank] = spec.V
			ok = pred.rank == target.rank+1 && pred.dims == d
		}
	}
	if !ok {
		failf(op, "predictions %s with %d outputs an item do not fit targets %s", describe(pred), spec.V, describe(target))
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

// CrossEntropyOptions follows torch.nn.CrossEntropyLoss.
type CrossEntropyOptions struct {
	Ignore      int32     // a negative class that does not count; 0 means -100
	Smoothing   float32   // label smoothing in [0,1)
	ClassWeight []float32 // [V]; the mean divides by the sum of the items' weights
}

// CrossEntropy is the mean of -log softmax(logits)[class]: logits [...,V],
// classes of the leading shape. No item at all gives 0.
func CrossEntropy(logits *Tensor, classes *Ints, o *CrossEntropyOptions) *Tensor {
	t := tapeOf("CrossEntropy", logits)
	if classes.tapeOf("CrossEntropy") != t {
		failf("CrossEntropy", "logits and classes live on different tapes")
	}
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
			failf("CrossEntropy", "class %d at place %d is outside 0..%d", c, i, v-1)
		}
	}
	return t.loss("CrossEntropy", &s, logits)
}

// loss runs a loss; its gradient is computed in the same pass and scaled on the way back.
func (t *Tape) loss(op string, spec *device.LossSpec, pred *Tensor) *Tensor {
	value := t.Empty(1)
	s := t.specs.loss.put(*spec)
	s.Pred, s.Value = pred.value, value.value
	if pred.seq != nil {
		t.maskLoss(op, s, pred)
	}
	if n := t.record(lossGrad, value, pred); n != nil {
		s.DPred = t.arena.alloc(pred.Len())
		n.spec = s
	}
	t.backend.Loss(s)
	return value
}

func lossGrad(t *Tape, n *node) {
	d := n.spec.(*device.LossSpec).DPred
	if n.in[0].adopt(d) {
		t.backend.ScaleBy(d, n.out.grad)
		return
	}
	if dp, acc := n.in[0].into(); !dp.Zero() {
		t.backend.AddScaled(dp, d, n.out.grad, acc)
	}
}

// maskLoss gives the steps past each row's length the weight zero.
func (t *Tape) maskLoss(op string, s *device.LossSpec, pred *Tensor) {
	if pred.seq.timeMajor {
		failf(op, "needs batch-major predictions, got a time-major %s", describe(pred))
	}
	B, T := pred.dims[0], pred.dims[1]
	if s.N%max(1, B*T) != 0 {
		failf(op, "%d items do not divide over a padded batch %s", s.N, describe(pred))
	}
	per := s.N / max(1, B*T) // items a step
	mask := device.PermuteSpec{Dims: [4]int{1, B, T, per}, Src: s.Weight, SrcStride: [4]int{0, T * per, per, 1}, Dst: t.arena.alloc(max(1, s.N)),
		DstStride: [4]int{0, T * per, per, 1}, Lens: pred.lens(), RowDim: 1, TimeDim: 2}
	if s.Weight.Zero() {
		mask.Src, mask.SrcStride = t.arena.alloc(1), [4]int{}
		t.backend.Fill(mask.Src, 1)
	}
	t.permute(mask)
	s.Weight = mask.Dst
}

// SumAll is the sum of all elements, a tensor [1].
func SumAll(x *Tensor) *Tensor {
	t := tapeOf("SumAll", x)
	y := t.Empty(1)
	t.backend.SumRows(y.value, x.value, x.Len(), 1, 1, false)
	t.record(sumGrad, y, x)
	return y
}

func sumGrad(t *Tape, n *node) {
	if dx, acc := n.in[0].into(); !dx.Zero() {
		s := device.PermuteSpec{Src: n.out.grad, Dst: dx, Dims: [4]int{1, 1, 1, dx.N}, DstStride: [4]int{0, 0, 0, 1}, Acc: acc}
		t.permute(s)
	}
}

// MeanAll is the mean of all elements, a tensor [1].
func MeanAll(x *Tensor) *Tensor { return MulScalar(SumAll(x), 1/float32(max(1, x.Len()))) }
