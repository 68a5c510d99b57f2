package translate

import (
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// TestLikePyTorch takes the same ten steps as PyTorch, batch by batch, and
// compares every loss and gradient norm, and the weights at the end.
func TestLikePyTorch(t *testing.T) {
	cases, err := golden.LoadFrom("../../internal/golden/testdata", "translation")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { takeSteps(t, c) })
	}
}

type goldenSettings struct {
	Rule           string
	Options        map[string]float64
	LR, Min        float64
	Clip           float32
	Steps          int
	Batch          int
	SourceSteps    int     `json:"source_steps"`
	TargetSteps    int     `json:"target_steps"`
	InputFeeding   bool    `json:"input_feeding"`
	CoverageLoss   float64 `json:"coverage_loss"`
	Coverage       bool
	Embedding      int
	Hidden, Layers int
	Vocabulary     int
	Attention      string
	Smoothing      float32
}

func takeSteps(t *testing.T, c *golden.Case) {
	var s goldenSettings
	if err := c.Settings(&s); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden, cfg.Layers, cfg.Attention, cfg.Dropout = s.Embedding, s.Hidden, s.Layers, s.Attention, 0
	cfg.InputFeeding, cfg.Coverage, cfg.CoverageLoss = s.InputFeeding, s.Coverage, s.CoverageLoss
	n, err := newNetwork(&cfg, s.Vocabulary, s.Vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	slab := tensor.Pack(tensor.CPU(), n, 1)
	if got, want := len(slab.Params), len(c.Names("w0.")); got != want {
		t.Fatalf("the model has %d parameters, PyTorch's %d", got, want)
	}
	for _, p := range slab.Params {
		p.Write(c.Tensor("w0." + p.Name).Data)
	}
	opt := optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: float32(s.Options["weight_decay"]), DecayAll: true})
	schedule := optim.Cosine(s.LR, s.Min, s.Steps)
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	var losses, norms []float32
	for step := range s.Steps {
		tape.Reset()
		loss := n.loss(tape, goldenBatch(c, &s, step), s.Smoothing)
		loss.Backward()
		opt.ClipNorm(s.Clip)
		opt.Step(schedule(step))
		losses, norms = append(losses, loss.Item()), append(norms, opt.GradNorm())
	}
	if err := golden.CheckValues(losses, c.Tensor("losses").Data); err != nil {
		t.Errorf("loss: %v", err)
	}
	if err := golden.CheckGradient(norms, c.Tensor("norms").Data); err != nil {
		t.Errorf("norm: %v", err)
	}
	for _, p := range slab.Params {
		if err := golden.CheckGradient(p.Read(), c.Tensor("w."+p.Name).Data); err != nil {
			t.Errorf("final %s: %v", p.Name, err)
		}
	}
}

func goldenBatch(c *golden.Case, s *goldenSettings, step int) *batch {
	part := func(name string, width int) []int32 {
		out := make([]int32, s.Batch*width)
		for i, v := range c.Tensor(name).Ints[step*len(out):][:len(out)] {
			out[i] = int32(v)
		}
		return out
	}
	b := &batch{rows: s.Batch, S: s.SourceSteps, T: s.TargetSteps,
		source: part("source", s.SourceSteps), sourceLengths: part("source_lengths", 1),
		inputs: part("inputs", s.TargetSteps), outputs: part("outputs", s.TargetSteps), targetLengths: part("target_lengths", 1)}
	b.tokens = len(slices.DeleteFunc(slices.Clone(b.outputs), func(id int32) bool { return id == ignored }))
	return b
}
