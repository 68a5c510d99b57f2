package golden

import (
	"fmt"
	"testing"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Run runs f as a subtest for each case of testdata/name.safetensors.
func Run(t *testing.T, name string, f func(t *testing.T, c *Case)) {
	cases, err := Load(name)
	if err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { f(t, c) })
	}
}

// Steps is how gen/training.py trains.
type Steps struct {
	Rule    string // adamw
	Options struct {
		WeightDecay float64 `json:"weight_decay"`
	}
	LR, Min float64
	Clip    float32
	Steps   int
}

// TakeSteps trains a module from the case's first weights as PyTorch did, with
// AdamW, clipping and a falling rate, and reports where losses, norms of
// gradients or final weights differ. loss is the loss of a step's batch.
func (c *Case) TakeSteps(module any, s *Steps, loss func(t *tensor.Tape, step int) *tensor.Tensor) (differences []error) {
	if s.Rule != "adamw" {
		return []error{fmt.Errorf("the rule is %q, want adamw", s.Rule)}
	}
	slab := tensor.Pack(tensor.CPU(), module, 1)
	if got, want := len(slab.Params), len(c.Names("w0.")); got != want {
		return []error{fmt.Errorf("the module has %d parameters, PyTorch's %d", got, want)}
	}
	for _, p := range slab.Params {
		p.Write(c.Tensor("w0." + p.Name).Data)
	}
	opt := optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: float32(s.Options.WeightDecay), DecayAll: true})
	schedule := optim.Cosine(s.LR, s.Min, s.Steps)
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	var losses, norms []float32
	for step := range s.Steps {
		tape.Reset()
		l := loss(tape, step)
		l.Backward()
		opt.ClipNorm(s.Clip)
		opt.Step(schedule(step))
		losses, norms = append(losses, l.Item()), append(norms, opt.GradNorm())
	}
	check := func(what string, err error) {
		if err != nil {
			differences = append(differences, fmt.Errorf("%s: %w", what, err))
		}
	}
	check("losses", CheckValues(losses, c.Tensor("losses").Data))
	check("norms", CheckGradient(norms, c.Tensor("norms").Data))
	for _, p := range slab.Params {
		check("final "+p.Name, CheckGradient(p.Read(), c.Tensor("w."+p.Name).Data))
	}
	return differences
}

// Part is the numbers of a step in a tensor of whole numbers that holds those of all steps.
func (c *Case) Part(name string, step, steps int) []int32 {
	all := c.Tensor(name).Ints
	out := make([]int32, len(all)/steps)
	for i := range out {
		out[i] = int32(all[step*len(out)+i])
	}
	return out
}
