package golden_test

import (
	"fmt"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

type ruleOptions struct {
	Momentum, Dampening float32
	Nesterov            bool
	Beta1, Beta2        float32
	Eps, Alpha          float32
	WeightDecay         float32 `json:"weight_decay"`
}

// newOptimizer decays all parameters, as PyTorch does.
func newOptimizer(t *testing.T, slab *tensor.Slab, rule string, o ruleOptions) *optim.Optimizer {
	switch rule {
	case "sgd":
		return optim.NewSGD(slab, &optim.SGDOptions{Momentum: o.Momentum, Dampening: o.Dampening, Nesterov: o.Nesterov, WeightDecay: o.WeightDecay, DecayAll: true})
	case "adam":
		return optim.NewAdam(slab, &optim.AdamOptions{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay, DecayAll: true})
	case "adamw":
		return optim.NewAdamW(slab, &optim.AdamWOptions{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay, DecayAll: true})
	case "rmsprop":
		return optim.NewRMSprop(slab, &optim.RMSpropOptions{Alpha: o.Alpha, Eps: o.Eps, Momentum: o.Momentum, WeightDecay: o.WeightDecay, DecayAll: true})
	}
	t.Fatalf("unknown rule %s", rule)
	return nil
}

// pair is two parameters; the second is one that decay spares by default.
type pair struct{ A, B *tensor.Param }

func newPair(dev *tensor.Device) *tensor.Slab {
	p := &pair{tensor.NewParam("a", nil, 5, 7), tensor.NewParam("b", nil, 19)}
	p.B.NoDecay = true
	return tensor.Pack(dev, p, 1)
}

func setGradient(slab *tensor.Slab, i int, g []float32) {
	lo, hi := slab.Range(i)
	slab.Device().Backend().Upload(slab.Grads().Slice(lo, hi), g)
}

func TestOptimizers(t *testing.T) {
	forEach(t, "optimizers", func(t *testing.T, dev *tensor.Device, c *golden.Case) {
		var s struct {
			Rule  string
			LR    float32
			Clip  string
			Bound float32
			ruleOptions
		}
		settings(t, c, &s)
		slab := newPair(dev)
		if s.Clip != "" {
			testClip(t, slab, c, s.Clip, s.Bound)
			return
		}
		opt := newOptimizer(t, slab, s.Rule, s.ruleOptions)
		for _, p := range slab.Params {
			p.Write(c.Tensor("w0." + p.Name).Data)
		}
		steps := c.Tensor("w.a").Dims[0]
		if steps != 10 {
			t.Fatalf("%d steps, want 10", steps)
		}
		for step := range steps {
			at := func(name string, n int) []float32 { return c.Tensor(name).Data[step*n : (step+1)*n] }
			for i, p := range slab.Params {
				setGradient(slab, i, at("grads."+p.Name, p.Len()))
			}
			opt.Step(s.LR)
			for _, p := range slab.Params {
				checkValues(t, fmt.Sprintf("step %d: %s", step, p.Name), p.Read(), at("w."+p.Name, p.Len()))
			}
		}
	})
}

// testClip clips and takes one plain step of rate 1 from zero: the weights are then minus the clipped gradient.
func testClip(t *testing.T, slab *tensor.Slab, c *golden.Case, kind string, bound float32) {
	opt := optim.NewSGD(slab, nil)
	for i, p := range slab.Params {
		setGradient(slab, i, c.Tensor("g."+p.Name).Data)
	}
	if kind == "norm" {
		opt.ClipNorm(bound)
		checkValues(t, "norm", []float32{opt.GradNorm()}, c.Tensor("norm").Data)
	} else {
		opt.ClipValue(bound)
	}
	opt.Step(1)
	for _, p := range slab.Params {
		got := p.Read()
		for i := range got {
			got[i] = -got[i]
		}
		checkValues(t, "clipped "+p.Name, got, c.Tensor("clipped."+p.Name).Data)
	}
}
