package classify

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// stepSettings are those of internal/golden/gen/classifying.py.
type stepSettings struct {
	Rule      string
	Options   struct{}
	LR, Min   float64
	Clip      float32
	Steps     int
	Pool      string
	Smoothing float64
	Balanced  bool
	Several   bool
	Words     int
	Classes   int
	Batch     int
	Window    int
}

// TestTenStepsOfPyTorch takes the same ten steps as PyTorch from the same
// weights, batch by batch.
func TestTenStepsOfPyTorch(t *testing.T) {
	cases, err := golden.Load("steps")
	if err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { takeSteps(t, c) })
	}
}

func takeSteps(t *testing.T, c *golden.Case) {
	var s stepSettings
	if err := c.Settings(&s); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden, cfg.Layers, cfg.Pool, cfg.Smoothing = 6, 5, 2, s.Pool, s.Smoothing
	cfg.Dropout, cfg.RNNDropout, cfg.WordDropout = 0, 0, 0
	n, err := newNetwork(&cfg, s.Words, s.Classes, 0)
	if err != nil {
		t.Fatal(err)
	}
	slab := tensor.Pack(tensor.CPU(), n, 1)
	if got, want := len(slab.Params), len(c.Names("w0.")); got != want {
		t.Fatalf("%d parameters, PyTorch has %d", got, want)
	}
	for _, p := range slab.Params {
		p.Write(c.Tensor("w0." + p.Name).Data)
	}
	opt, schedule := optim.NewAdamW(slab, nil), optim.Cosine(s.LR, s.Min, s.Steps)
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	var losses, norms []float32
	for step := range s.Steps {
		tape.Reset()
		l := n.loss(tape, goldenBatch(c, &s, step))
		l.Backward()
		opt.ClipNorm(s.Clip)
		opt.Step(schedule(step))
		losses, norms = append(losses, l.Item()), append(norms, opt.GradNorm())
	}
	if err := golden.CheckValues(losses, c.Tensor("losses").Data); err != nil {
		t.Errorf("losses: %v", err)
	}
	if err := golden.CheckGradient(norms, c.Tensor("norms").Data); err != nil {
		t.Errorf("norms: %v", err)
	}
	for _, p := range slab.Params {
		if err := golden.CheckGradient(p.Read(), c.Tensor("w."+p.Name).Data); err != nil {
			t.Errorf("final %s: %v", p.Name, err)
		}
	}
}

// goldenBatch is the batch of a step as the case has it.
func goldenBatch(c *golden.Case, s *stepSettings, step int) *batch {
	part := func(name string) []int32 {
		all := c.Tensor(name).Ints
		n := len(all) / s.Steps
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(all[step*n+i])
		}
		return out
	}
	b := &batch{rows: s.Batch, steps: s.Window, ids: part("ids"), lengths: part("lengths"), class: part("class")}
	if s.Balanced {
		b.weight = []float32{0.5, 1, 2}
	}
	if s.Several {
		for _, y := range part("target") {
			b.target = append(b.target, float32(y))
		}
	}
	return b
}
