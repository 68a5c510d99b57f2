package nn_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// BenchmarkCellCost times a training step (forward and backward) of each cell
// and option against one of the plain LSTM, the two in turn, and reports the
// ratio of their fastest tenths as "of-lstm": other programs only ever add time.
func BenchmarkCellCost(b *testing.B) {
	const B, T, I, H = 32, 32, 256, 256
	step := func(m *nn.RNN) func() time.Duration {
		tensor.Pack(tensor.CPU(), m, 1)
		tape := tensor.NewTape(tensor.CPU(), tensor.Train)
		x := normal(1, B*T*I)
		return func() time.Duration {
			start := time.Now()
			tape.Reset()
			y, _ := m.Forward(tape.Input(x, B, T, I), nil)
			tensor.SumAll(y).Backward()
			return time.Since(start)
		}
	}
	fastest := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/10])
	}
	for _, c := range table {
		b.Run("cell="+c.name, func(b *testing.B) {
			o := c.opt
			if o.Proj > 0 {
				o.Proj = H / 2
			}
			plain, other := step(nn.NewLSTM(I, H, nil)), step(c.new(I, H, &o))
			plain()
			other()
			var p, v []time.Duration
			for b.Loop() {
				p, v = append(p, plain()), append(v, other())
			}
			b.ReportMetric(fastest(v)/fastest(p), "of-lstm")
			b.ReportMetric(fastest(v)/1e6, "ms/step")
		})
	}
}

// BenchmarkOneLongRow times one sequence of 10,000 steps, in which only time and
// units are there to be shared out: for one thread and for all.
func BenchmarkOneLongRow(b *testing.B) {
	const T, I, H = 10_000, 32, 256
	for _, c := range []struct {
		name string
		m    *nn.RNN
	}{{"mingru", nn.NewMinGRU(I, H, nil)}, {"minlstm", nn.NewMinLSTM(I, H, nil)}, {"gru", nn.NewGRU(I, H, nil)}} {
		tensor.Pack(tensor.CPU(), c.m, 1)
		x := normal(1, T*I)
		for _, mode := range []tensor.Mode{tensor.Infer, tensor.Train} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("cell=%s/train=%v/threads=%d", c.name, mode == tensor.Train, threads), func(b *testing.B) {
					par.SetWorkers(threads)
					defer par.SetWorkers(0)
					tape := tensor.NewTape(tensor.CPU(), mode)
					var times []float64
					for b.Loop() {
						start := time.Now()
						tape.Reset()
						y, _ := c.m.Forward(tape.Input(x, 1, T, I), nil)
						if mode == tensor.Train {
							tensor.SumAll(y).Backward()
						}
						times = append(times, float64(time.Since(start)))
					}
					slices.Sort(times)
					b.ReportMetric(times[len(times)/10]/1e6, "ms/fastest-tenth")
				})
			}
		}
	}
}
