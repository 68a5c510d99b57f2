package serve

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// looked is a context whose time runs out when a run has looked so often whether it has.
type looked struct {
	context.Context
	mu          sync.Mutex
	looks, most int
	done        chan struct{}
}

func (c *looked) Done() <-chan struct{} { return c.done }

func (c *looked) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looks++; c.looks < c.most {
		return nil
	}
	if c.looks == c.most {
		close(c.done)
	}
	return context.DeadlineExceeded
}

// TestLongSequenceEndsWithItsTime: a request whose time runs out while its sequence is computed
// frees the machine at once, and the next one is answered. The network has a function that only
// the plain cell knows, which looks before each step.
func TestLongSequenceEndsWithItsTime(t *testing.T) {
	const T, H, most = 20_000, 4, 50
	var g graph.Builder
	g.Input("x", "", T, "batch", 1)
	g.Node("RNN", []string{"x", g.Floats("w", make([]float32, H), 1, H, 1), g.Floats("r", make([]float32, H*H), 1, H, H)}, []string{"", "y"},
		graph.Attr{Name: "hidden_size", Value: H}, graph.Attr{Name: "activations", Value: []string{"Affine"}}, graph.Attr{Name: "activation_alpha", Value: []float32{1}})
	g.Output("y", "", 1, "batch", H)
	m, err := g.Model("long.onnx")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newGraphProgram(m, "test", graphOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := batch.New(batch.Options{Executors: 1})
	q := s.Add(p, batch.QueueOptions{})
	job := func() *batch.Job {
		return &batch.Job{Inputs: []inference.Value{{Dims: []int{T, 1, 1}, Floats: make([]float32, T)}}}
	}
	whole := &looked{Context: t.Context(), most: 1 << 30, done: make(chan struct{})}
	if err := q.Do(whole, job()); err != nil {
		t.Fatal(err)
	}
	if whole.looks < T {
		t.Fatalf("a whole run looks %d times, want one for each of %d steps", whole.looks, T)
	}
	for _, short := range []bool{true, false, true} {
		ctx := &looked{Context: t.Context(), most: most, done: make(chan struct{})}
		if !short {
			ctx.most = 1 << 30
		}
		j := job()
		err := q.Do(ctx, j)
		if err := q.Quiet(t.Context()); err != nil {
			t.Fatal(err)
		}
		switch {
		case !short && (err != nil || !slices.Equal(j.Outputs[0].Dims, []int{1, 1, H})):
			t.Fatalf("the next request: %v, error %v", j.Outputs, err)
		case short && (err == nil || codeOf(err) != inference.Deadline || ctx.looks > most+10):
			t.Fatalf("error %v after %d looks, want the time's after %d", err, ctx.looks, most)
		}
	}
	if st := q.Stats(); st.Canceled != 2 || st.Failed != 0 || st.Succeeded != 2 {
		t.Errorf("%+v", st)
	}
}
