package nn_test

import (
	"slices"
	"testing"
	"time"

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
