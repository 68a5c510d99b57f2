package translate

import (
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
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
	golden.Steps
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
	for _, err := range c.TakeSteps(n, &s.Steps, func(tape *tensor.Tape, step int) *tensor.Tensor {
		return n.loss(tape, goldenBatch(c, &s, step), s.Smoothing)
	}) {
		t.Error(err)
	}
}

func goldenBatch(c *golden.Case, s *goldenSettings, step int) *batch {
	part := func(name string) []int32 { return c.Part(name, step, s.Steps.Steps) }
	b := &batch{rows: s.Batch, S: s.SourceSteps, T: s.TargetSteps,
		source: part("source"), sourceLengths: part("source_lengths"),
		inputs: part("inputs"), outputs: part("outputs"), targetLengths: part("target_lengths")}
	b.tokens = len(slices.DeleteFunc(slices.Clone(b.outputs), func(id int32) bool { return id == ignored }))
	return b
}
