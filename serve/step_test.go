package serve

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/internal/bench"
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

// BenchmarkStreams compares streams that are stepped together with as many single steps,
// and both with the machine's peak, a round after the other. The ceiling of the gain is the
// smaller of the number of streams and of the gain at the peak, with the peak and the single step of
// the same round. In ready, the next input of each stream is there when its step ends, as of
// sensors and sound; in turns, each stream asks after its answer.
func BenchmarkStreams(b *testing.B) {
	const streams = 32
	for _, shape := range []struct{ hidden, layers int }{{256, 1}, {1024, 2}} {
		for _, ahead := range []int{2, 1} {
			name := map[int]string{1: "turns", 2: "ready"}[ahead]
			b.Run(fmt.Sprintf("H=%d/layers=%d/%s", shape.hidden, shape.layers, name), func(b *testing.B) {
				p := stepProgram(b, shape.hidden, shape.hidden, shape.layers)
				flop := float64(shape.layers * 2 * 4 * shape.hidden * 2 * shape.hidden)
				s := batch.New(batch.Options{})
				q := s.Add(p, batch.QueueOptions{Latency: time.Second})
				t := batch.NewSessions(s, batch.SessionOptions{Life: time.Hour})
				defer t.Stop(batch.Stopped)
				x := frame(rand.New(rand.NewPCG(1, 1)), shape.hidden)
				var list []*batch.Session
				for range streams {
					n, err := t.Open(q, "m", batch.Opening{})
					if err != nil {
						b.Fatal(err)
					}
					list = append(list, n)
				}
				// steps returns the seconds of a step of some streams.
				steps := func(list []*batch.Session, ahead int) float64 {
					var left atomic.Int64
					const each = 200 * time.Millisecond
					var done sync.WaitGroup
					began := time.Now()
					for _, n := range list {
						for range ahead {
							done.Go(func() {
								for time.Since(began) < each {
									if err := q.Do(context.Background(), stepJob(p, n, x)); err != nil {
										b.Error(err)
									}
									left.Add(1)
								}
							})
						}
					}
					done.Wait()
					return time.Since(began).Seconds() / float64(left.Load())
				}
				var single, together, gain, ceiling, share, rows []float64
				for b.Loop() {
					peak := bench.Peak(runtime.GOMAXPROCS(0), 50*time.Millisecond) * 1e9
					one := steps(list[:1], 1)
					before := q.Stats()
					many := steps(list, ahead)
					after := q.Stats()
					peak = max(peak, bench.Peak(runtime.GOMAXPROCS(0), 50*time.Millisecond)*1e9)
					most := min(streams, one*peak/flop)
					single, together = append(single, one*1e6), append(together, many*streams*1e6)
					gain, ceiling, share = append(gain, one/many), append(ceiling, most), append(share, one/many/most)
					rows = append(rows, float64(after.Rows-before.Rows)/float64(after.Batches-before.Batches))
				}
				b.ReportMetric(0, "ns/op")
				for unit, list := range map[string][]float64{"us/step": single, "us/32steps": together, "gain": gain, "ceiling": ceiling, "share": share, "rows/batch": rows} {
					b.ReportMetric(bench.Quantile(list, 0.5), unit)
				}
			})
		}
	}
}
