package serve

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
)

// stepProgram is a network of LSTM layers as a graph with states.
func stepProgram(tb testing.TB, input, hidden, layers int) *graphProgram {
	tb.Helper()
	net := struct{ RNN *nn.RNN }{nn.NewLSTM(input, hidden, &nn.RNNOptions{Layers: layers})}
	tensor.Pack(tensor.CPU(), &net, 1)
	m, err := (&onnx.Stack{RNN: net.RNN}).Model("step.onnx", &onnx.ExportOptions{State: true})
	if err != nil {
		tb.Fatal(err)
	}
	p, err := newGraphProgram(m, "test", graphOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	if !p.Batched() {
		tb.Fatal("the graph's batch dimension was not found")
	}
	return p
}

// frame is an input [1,1,width].
func frame(r *rand.Rand, width int) inference.Value {
	v := inference.Value{Dims: []int{1, 1, width}, Floats: make([]float32, width)}
	for i := range v.Floats {
		v.Floats[i] = float32(r.NormFloat64())
	}
	return v
}

func stepJob(p *graphProgram, n *batch.Session, x inference.Value) *batch.Job {
	j := &batch.Job{Session: n, Inputs: make([]inference.Value, len(p.Inputs()))}
	j.Inputs[0] = x
	return j
}

// BenchmarkStep compares streams that are stepped together with as many single steps,
// beside the machine's peak: the ceiling is the smaller of the number of streams and of
// what the peak allows.
func BenchmarkStep(b *testing.B) {
	for _, shape := range []struct{ hidden, layers int }{{256, 1}, {1024, 2}} {
		p := stepProgram(b, shape.hidden, shape.hidden, shape.layers)
		for _, streams := range []int{1, 32} {
			b.Run(fmt.Sprintf("H=%d/layers=%d/streams=%d", shape.hidden, shape.layers, streams), func(b *testing.B) {
				s := batch.New(batch.Options{})
				q := s.Add(p, batch.QueueOptions{})
				t := batch.NewSessions(s, batch.SessionOptions{})
				defer t.Stop(batch.Stopped)
				r := rand.New(rand.NewPCG(1, 1))
				var done sync.WaitGroup
				x := frame(r, shape.hidden)
				each := (b.N + streams - 1) / streams
				b.ResetTimer()
				for range streams {
					n, err := t.Open(q, "m", batch.Opening{})
					if err != nil {
						b.Fatal(err)
					}
					done.Go(func() {
						for range each {
							if err := q.Do(context.Background(), stepJob(p, n, x)); err != nil {
								b.Error(err)
							}
						}
					})
				}
				done.Wait()
				st := q.Stats()
				b.ReportMetric(float64(st.Rows)/float64(st.Batches), "rows/batch")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "steps/s")
			})
		}
	}
}

var _ = math.Pi
var _ = time.Second
