package classify

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/tensor"
)

// stepSettings are those of internal/golden/gen/classifying.py.
type stepSettings struct {
	golden.Steps
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
func TestTenStepsOfPyTorch(t *testing.T) { golden.Run(t, "steps", takeSteps) }

func takeSteps(t *testing.T, c *golden.Case) {
	var s stepSettings
	if err := c.Settings(&s); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden, cfg.Layers, cfg.Pool, cfg.Smoothing = 6, 5, 2, s.Pool, s.Smoothing
	cfg.Dropout, cfg.RNNDropout, cfg.TokenDropout = 0, 0, 0
	n, err := newNetwork(&cfg, s.Words, s.Classes, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range c.TakeSteps(n, &s.Steps, func(tape *tensor.Tape, step int) *tensor.Tensor {
		return n.loss(tape, goldenBatch(c, &s, step))
	}) {
		t.Error(err)
	}
}

// goldenBatch is the batch of a step as the case has it.
func goldenBatch(c *golden.Case, s *stepSettings, step int) *batch {
	part := func(name string) []int32 { return c.Part(name, step, s.Steps.Steps) }
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
