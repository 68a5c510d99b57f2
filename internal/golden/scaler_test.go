package golden_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// TestGradScaler takes the same steps as PyTorch under its GradScaler and compares
// scale, tracker, norms and weights after each.
func TestGradScaler(t *testing.T) {
	forEach(t, "scaler", func(t *testing.T, dev *tensor.Device, c *golden.Case) {
		var s struct {
			Rule       string
			LR         float32
			Clip       float32
			Optimizers int
			Steps      int
			Scaler     struct {
				InitScale, GrowthFactor, BackoffFactor float32
				GrowthInterval                         int
			}
			Bad []struct {
				Step    int
				Param   string
				Element int
				Value   string
			}
			ruleOptions
		}
		settings(t, c, &s)
		a, b := tensor.NewParam("a", nil, 5, 7), tensor.NewParam("b", nil, 19)
		params := []*tensor.Param{a, b}
		groups := []any{&struct{ A, B *tensor.Param }{a, b}}
		if s.Optimizers == 2 {
			groups = []any{&struct{ A *tensor.Param }{a}, &struct{ B *tensor.Param }{b}}
		}
		var opts []*optim.Optimizer
		for _, g := range groups {
			opts = append(opts, newOptimizer(t, tensor.Pack(dev, g, 1), s.Rule, s.ruleOptions))
		}
		for _, p := range params {
			p.Write(c.Tensor("w0." + p.Name).Data)
		}
		scaler := optim.NewGradScaler(&optim.GradScalerOptions{
			Init: s.Scaler.InitScale, Growth: s.Scaler.GrowthFactor, Backoff: s.Scaler.BackoffFactor, Interval: s.Scaler.GrowthInterval,
		})
		tape := tensor.NewTape(dev, tensor.Train)
		var scales, norms []float32
		for step := range s.Steps {
			tape.Reset()
			var parts [2]*tensor.Tensor
			for i, p := range params {
				g := append([]float32(nil), c.Tensor("g." + p.Name).Data[step*p.Len():][:p.Len()]...)
				for _, bad := range s.Bad {
					if bad.Step == step && bad.Param == p.Name {
						v, err := strconv.ParseFloat(bad.Value, 32)
						if err != nil {
							t.Fatal(err)
						}
						g[bad.Element] = float32(v)
					}
				}
				parts[i] = tensor.SumAll(tensor.Mul(p.T(), tape.Input(g, p.Dims()...)))
			}
			scaler.Scale(tensor.Add(parts[0], parts[1])).Backward()
			for _, opt := range opts {
				if s.Clip == 0 {
					continue
				}
				scaler.Unscale(opt)
				opt.ClipNorm(s.Clip)
				norm := opt.GradNorm()
				if norm-norm != 0 {
					norm = 0 // as the file has it
				}
				norms = append(norms, norm)
			}
			for _, opt := range opts {
				before := opt.Steps()
				if taken := scaler.Step(opt, s.LR); taken != (opt.Steps() == before+1) {
					t.Errorf("step %d: taken is %v, steps went from %d to %d", step, taken, before, opt.Steps())
				}
			}
			scaler.Update()
			scales = append(scales, scaler.Factor())
			if got, want := scaler.State().Tracker, int(c.Tensor("tracker").Ints[step]); got != want {
				t.Errorf("step %d: the tracker is %d, want %d", step, got, want)
			}
			for _, p := range params {
				checkValues(t, fmt.Sprintf("step %d: %s", step, p.Name), p.Read(), c.Tensor("w." + p.Name).Data[step*p.Len():][:p.Len()])
			}
		}
		for i, want := range c.Tensor("scale").Data {
			if scales[i] != want {
				t.Errorf("step %d: the scale is %v, want %v", i, scales[i], want)
			}
		}
		if s.Clip > 0 {
			checkGradient(t, "norm", norms, c.Tensor("norm").Data)
		}
	})
}
