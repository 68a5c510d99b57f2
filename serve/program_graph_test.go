package serve

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// sharedGraph is a graph of x[n,4] and of an input without rows, which decides what is computed.
func sharedGraph(t *testing.T, build func(g *graph.Builder)) *graphProgram {
	t.Helper()
	var g graph.Builder
	g.Input("x", "", "n", 4)
	build(&g)
	m, err := g.Model("shared.onnx")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newGraphProgram(m, "test", graphOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestSharedInputs: an input that all rows share may decide what is computed, such as the axis
// of a sum. Requests must get the answer that they have alone, for each value of it.
func TestSharedInputs(t *testing.T) {
	ints := func(v ...int64) inference.Value { return inference.Value{Dims: []int{len(v)}, Ints: v} }
	scalar := func(v int64) inference.Value { return inference.Value{Dims: []int{}, Ints: []int64{v}} }
	for _, test := range []struct {
		name     string
		build    func(g *graph.Builder)
		shared   inference.Value
		together bool // in the end
	}{
		{"sum over rows", func(g *graph.Builder) {
			g.InputInts("a", "")
			g.Node("CumSum", []string{"x", "a"}, []string{"y"})
			g.Output("y", "")
		}, scalar(0), false},
		{"sum in rows", func(g *graph.Builder) {
			g.InputInts("a", "")
			g.Node("CumSum", []string{"x", "a"}, []string{"y"})
			g.Output("y", "")
		}, scalar(-1), true},
		{"sum of rows", func(g *graph.Builder) {
			g.InputInts("a", "", 1)
			g.Node("ReduceSum", []string{"x", "a"}, []string{"y"}, graph.Attr{Name: "keepdims", Value: 1})
			g.Output("y", "")
		}, ints(0), false},
		{"repeated rows", func(g *graph.Builder) {
			g.InputInts("a", "", 2)
			g.Node("Tile", []string{"x", "a"}, []string{"y"})
			g.Output("y", "")
		}, ints(3, 1), false},
		{"another place of rows", func(g *graph.Builder) {
			g.InputInts("a", "", 1)
			g.Node("Unsqueeze", []string{"x", "a"}, []string{"y"})
			g.Output("y", "")
		}, ints(0), false},
		{"the first rows", func(g *graph.Builder) {
			g.InputInts("a", "", 1)
			g.Node("Slice", []string{"x", g.Ints("", 0), g.Op("Add", []string{"a", g.Ints("", 5)}), g.Ints("", 0)}, []string{"y"})
			g.Output("y", "")
		}, ints(7), false},
		{"mean of rows", func(g *graph.Builder) {
			g.Input("a", "")
			m := g.Op("ReduceMean", []string{"x", g.Ints("", 0)}, graph.Attr{Name: "keepdims", Value: 1})
			above := g.Op("Greater", []string{"a", g.Float(10)})
			g.Node("Add", []string{"x", g.Op("Where", []string{above, m, g.Float(0)})}, []string{"y"})
			g.Output("y", "")
		}, inference.Value{Dims: []int{}, Floats: []float32{11}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := sharedGraph(t, test.build)
			if !p.Batched() {
				t.Fatal("rows are not computed together for any value")
			}
			job := func(rows int, from float32) *batch.Job {
				x := inference.Value{Dims: []int{rows, 4}}
				for i := range 4 * rows {
					x.Floats = append(x.Floats, from+float32(i*i))
				}
				j := &batch.Job{Inputs: []inference.Value{x, test.shared}}
				if err := p.Check(j); err != nil {
					t.Fatal(err)
				}
				return j
			}
			all := func() []*batch.Job {
				return []*batch.Job{job(1, 1), job(1, 20), job(9, 300), job(2, 4000)}
			}
			var want []inference.Value
			for _, j := range all() {
				if err := p.m.Apply(t.Context(), []graph.Value{{Dims: j.Inputs[0].Dims, Data: j.Inputs[0].Floats}, {Dims: test.shared.Dims, Data: test.shared.Floats, Ints: test.shared.Ints}}, func(outs []graph.Value) {
					want = append(want, p.part(0, &outs[0], -1, 0, 0))
				}); err != nil {
					t.Fatal(err)
				}
			}
			same := func() {
				t.Helper()
				jobs := all()
				p.Run(t.Context(), jobs)
				for k, j := range jobs {
					if j.Err != nil || !sameBits(&j.Outputs[0], &want[k]) {
						t.Fatalf("request %d of %d rows: %v, error %v; alone %v", k, j.Rows, j.Outputs, j.Err, want[k])
					}
				}
				j := all()[2] // which would be filled up
				if p.Run(t.Context(), []*batch.Job{j}); j.Err != nil || !sameBits(&j.Outputs[0], &want[2]) {
					t.Fatalf("a request of %d rows: %v, error %v; want %v", j.Rows, j.Outputs, j.Err, want[2])
				}
			}
			same()
			sum := all()[0].Key.(graphKey).shared
			for {
				p.tried.mu.Lock()
				_, known := p.tried.known[sum]
				p.tried.mu.Unlock()
				if known {
					break
				}
				time.Sleep(time.Millisecond)
			}
			same()
			if got := p.tried.known[sum]; got != test.together {
				t.Errorf("rows are computed together: %v, want %v", got, test.together)
			}
		})
	}
}

// TestSharedInputsAreForgotten: keys do not hold large inputs, the verdicts of them are bounded,
// and the memory of a batch holds nothing of a request.
func TestSharedInputsAreForgotten(t *testing.T) {
	p := sharedGraph(t, func(g *graph.Builder) {
		g.Input("bias", "", "k", 4)
		g.Node("Add", []string{"x", g.Op("ReduceSum", []string{"bias", g.Ints("", 0)}, graph.Attr{Name: "keepdims", Value: 1})}, []string{"y"})
		g.Output("y", "")
	})
	if !p.Batched() || p.inAxis[1] >= 0 {
		t.Fatal("the graph has no shared input")
	}
	bias := inference.Value{Dims: []int{1000, 4}, Floats: make([]float32, 4000)}
	job := func() *batch.Job {
		return &batch.Job{Inputs: []inference.Value{{Dims: []int{1, 4}, Floats: make([]float32, 4)}, bias}}
	}
	a, b := job(), job()
	if err := cmp.Or(p.Check(a), p.Check(b)); err != nil || a.Key != b.Key {
		t.Fatalf("keys of equal inputs: %v and %v, error %v", a.Key, b.Key, err)
	}
	if n := len(a.Key.(graphKey).free); n > 16 {
		t.Errorf("the key of %d shared elements has %d bytes of text", len(bias.Floats), n)
	}
	bias.Floats = slices.Clone(bias.Floats)
	bias.Floats[3999] = 1
	if c := job(); p.Check(c) != nil || c.Key == a.Key {
		t.Error("different shared inputs have one key")
	}
	p.Run(t.Context(), []*batch.Job{a})
	if r, _ := p.scratch.Get().(*room); r != nil && r.in[1].Data != nil {
		t.Error("the memory of a batch holds a request's input")
	}
	for i := range 2 * mostVerdicts {
		p.tried.note(valueHash{byte(i), byte(i >> 8)}, true)
	}
	if n := len(p.tried.known); n > mostVerdicts {
		t.Errorf("%d verdicts are kept, want at most %d", n, mostVerdicts)
	}
}

// TestDoublesBeyondFloat32: a number that the model would take as infinite is refused.
func TestDoublesBeyondFloat32(t *testing.T) {
	const double = 11 // of elements, in the format of graphs
	for _, noBatch := range []bool{false, true} {
		var g graph.Builder
		g.InputOf(double, "x", "", "n", 2)
		g.Node("Identity", []string{"x"}, []string{"y"})
		g.OutputOf(double, "y", "", "n", 2)
		m, err := g.Model("doubles.onnx")
		if err != nil {
			t.Fatal(err)
		}
		p, err := newGraphProgram(m, "test", graphOptions{noBatch: noBatch})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []float64{1, math.MaxFloat32, math.Inf(-1), 1e300, -3.5e38} {
			j := &batch.Job{Inputs: []inference.Value{{Dims: []int{1, 2}, Doubles: []float64{0, x}}}}
			err := p.Check(j)
			if beyond := math.Abs(x) > math.MaxFloat32 && !math.IsInf(x, 0); beyond != (err != nil) || err != nil && !strings.Contains(err.Error(), "outside the range of float32") {
				t.Errorf("batched %v, %g: error %v", !noBatch, x, err)
			}
		}
	}
}
