package find

import (
	"context"
	"math"

	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Noise is the noise of the gradient at one point of a training: the simple noise scale
// of McCandlish et al. 2018 (arXiv:1812.06162, section 2.2).
type Noise struct {
	Trained  int     `json:"trained_steps"`    // optimizer steps taken before
	Batches  int     `json:"batches"`          // batches whose gradients were compared, all at the same weights
	Samples  float64 `json:"batch_samples"`    // training samples of each, the mean
	Gradient float64 `json:"gradient_squared"` // estimate of the squared norm of the gradient of the mean loss, |G|²; its error can make it negative
	Variance float64 `json:"variance"`         // estimate of the sum of the variances of a single sample's gradient, tr(Σ)
	Scale    float64 `json:"scale"`            // tr(Σ)/|G|², the noise scale, in samples; null where the noise hides the gradient, so that it is above batches · batch_samples
}

const (
	noiseBatches = 32  // gradients that are compared
	fewestNoise  = 2   // of them
	trainedSteps = 100 // before the second measurement
)

// MeasureNoise measures the noise of the gradient before training and after a hundred of
// the task's steps. For each measurement the learning rate is 0 for some steps, so that
// their gradients g are of the same weights and of batches of one epoch, which have no
// sample in common. With b samples in each of K batches, the estimates are those of the
// paper's appendix A.1 for batches of b and K·b: tr(Σ) is b times the variance of g, and
// |G|² is |mean(g)|² less the variance of that mean. Both are unbiased, their ratio is
// not quite. If an epoch has fewer than three steps the result is empty. Errors are
// those of fit.
func MeasureNoise(ctx context.Context, fit Fit) ([]Noise, error) {
	var list []Noise
	var g *gradients
	frozen, trained, since := true, 0, 0
	begin := func() { g, frozen, since = &gradients{}, true, 0 }
	begin()
	run := training(nil, func(o *train.Options) {
		own, plateau := o.Schedule, o.Plateau
		o.EMA, o.Plateau = 0, nil
		o.Schedule = func(int) float32 {
			switch {
			case frozen:
				return 0
			case plateau != nil:
				return plateau.LR()
			}
			return own(trained)
		}
	}, func(s train.Step) error {
		n := min(noiseBatches, s.PerEpoch-1) // the last of an epoch may be smaller
		if n < fewestNoise {
			return errDone
		}
		if !frozen {
			trained++
		} else if since++; g.n >= n || since >= 2*n {
			list = append(list, g.noise(trained, s.Samples))
			if len(list) == 2 {
				return errDone
			}
			frozen = false
		}
		if left := s.PerEpoch - s.Step%s.PerEpoch; trained >= trainedSteps && !frozen && left > n {
			begin()
		}
		return nil
	})
	run.OnGradients = func(s *tensor.Slab) {
		if frozen {
			g.add(s)
		}
	}
	if err := ended(fit(ctx, run)); err != nil {
		return nil, err
	}
	return list, nil
}

// gradients are sums over gradients of the same weights.
type gradients struct {
	n       int
	sum     []float64
	squares float64 // of the norms
}

// add adds the gradient of a slab. One that is not finite, which a scaler would skip, is
// left out.
func (g *gradients) add(s *tensor.Slab) {
	var all []float32
	square := 0.
	for _, p := range s.Params {
		all = append(all, p.Grad()...)
	}
	for _, v := range all {
		square += float64(v) * float64(v)
	}
	if square-square != 0 {
		return
	}
	if g.sum == nil {
		g.sum = make([]float64, len(all))
	}
	for i, v := range all {
		g.sum[i] += float64(v)
	}
	g.n++
	g.squares += square
}

// noise estimates the noise from batches of so many samples.
func (g *gradients) noise(trained int, samples float64) Noise {
	n := float64(g.n)
	mean := 0. // the squared norm of the mean
	for _, v := range g.sum {
		mean += v / n * v / n
	}
	variance := (g.squares/n - mean) * n / (n - 1) // of a batch's gradient
	r := Noise{Trained: trained, Batches: g.n, Samples: samples, Variance: samples * variance, Gradient: mean - variance/n}
	r.Scale = math.NaN()
	if r.Gradient > 0 {
		r.Scale = r.Variance / r.Gradient
	}
	return r
}
