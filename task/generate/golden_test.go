package generate

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// TestTenSteps takes the same ten steps as PyTorch, with the state carried from
// segment to segment, and compares every loss and gradient norm, the weights at
// the end, and what they say of every token.
func TestTenSteps(t *testing.T) { golden.Run(t, "language", tenSteps) }

func tenSteps(t *testing.T, c *golden.Case) {
	var s struct {
		Vocabulary, Embedding, Hidden, Layers, Batch, Steps int
		Output                                              string
		Cutoffs                                             []int
		LR                                                  float64
		Clip                                                float32
	}
	if err := c.Settings(&s); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden, cfg.Layers, cfg.Output, cfg.Cutoffs, cfg.Dropout = s.Embedding, s.Hidden, s.Layers, s.Output, s.Cutoffs, 0
	cfg.Softmax = "full"
	if len(s.Cutoffs) > 0 {
		cfg.Softmax = "adaptive"
	}
	net, err := newNetwork(&cfg, s.Vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	slab := tensor.Pack(tensor.CPU(), net, 1)
	for _, p := range slab.Params {
		p.Write(c.Tensor("w0." + p.Name).Data)
	}
	if got, want := len(slab.Params), len(c.Names("w0.")); got != want {
		t.Fatalf("the network has %d parameters, PyTorch's %d", got, want)
	}
	var texts [][]int32
	ids := c.Tensor("text")
	for row := range s.Batch {
		var d []int32
		for _, id := range ids.Ints[row*ids.Dims[1] : (row+1)*ids.Dims[1]] {
			d = append(d, int32(id))
		}
		texts = append(texts, d)
	}
	text := newStreams(corpusOf(texts...), s.Batch, s.Steps, true, 1)
	opt, tape, carry := optim.NewAdamW(slab, nil), tensor.NewTape(tensor.CPU(), tensor.Train), nn.NewCarry(net.RNN, s.Batch)
	var losses, norms []float32
	b := &batch{}
	for step := range text.batches {
		if err := text.load(b, 0, step, 0, s.Batch); err != nil {
			t.Fatal(err)
		}
		tape.Reset()
		l, to := net.loss(tape, b, carry.Begin(tape, b.begins))
		carry.End(to)
		l.Backward()
		opt.ClipNorm(s.Clip)
		opt.Step(float32(s.LR))
		losses, norms = append(losses, l.Item()), append(norms, opt.GradNorm())
	}
	compare(t, "losses", golden.CheckValues(losses, c.Tensor("losses").Data))
	compare(t, "gradient norms", golden.CheckGradient(norms, c.Tensor("norms").Data))
	for _, p := range slab.Params {
		compare(t, p.Name, golden.CheckGradient(p.Read(), c.Tensor("w."+p.Name).Data))
	}

	infer := tensor.NewTape(tensor.CPU(), tensor.Infer)
	if err := text.load(b, 0, 0, 0, s.Batch); err != nil {
		t.Fatal(err)
	}
	x, _, _, _ := net.steps(infer, b.input(infer), nil)
	want := c.Tensor("log_prob").Data
	got := net.logProb(x).Data()
	compare(t, "log p", golden.CheckValues(got, want))
	scores := make([]float32, len(b.targets))
	net.score(scores, x, b.targets)
	for i, target := range b.targets {
		compare(t, "score", golden.CheckValues(scores[i:i+1], want[i*s.Vocabulary+int(target):][:1]))
	}
}

func compare(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}
