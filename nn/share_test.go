package nn_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Models of one process share its cores: with more goroutines than cores each
// gets on, whether its passes are many short loops, few long ones, steps at which
// cores meet, or too small for more than one core. A share is the rate of passes
// beside the others by that alone; how large it is is for the system to say, but
// none is a small fraction of the usual one.
func TestModelsShareTheCores(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	models := []struct {
		name  string
		m     *nn.RNN
		B, T  int
		train bool
	}{
		{"tiny", nn.NewLSTM(8, 32, nil), 1, 20, false},
		{"one step of a stream", nn.NewLSTM(512, 512, &nn.RNNOptions{Layers: 2}), 1, 1, false},
		{"a gang", nn.NewLSTM(64, 512, nil), 1, 40, false},
		{"a gang in training", nn.NewGRU(64, 384, nil), 2, 30, true},
		{"small in training", nn.NewLSTM(8, 64, nil), 32, 40, true},
		{"large in training", nn.NewLSTM(128, 256, nil), 64, 20, true},
		{"units", nn.NewMinGRU(32, 256, nil), 1, 1000, false},
		{"a batch", nn.NewGRU(64, 128, nil), 48, 30, false},
	}
	// rate is the passes a second of model i over a time.
	rate := func(i int, d time.Duration) float64 {
		c := models[i]
		tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
		if c.train {
			tape = tensor.NewTape(tensor.CPU(), tensor.Train)
		}
		in := c.m.Weights[0].Dims()[1]
		x, n, start := normal(1, c.B*c.T*in), 0, time.Now()
		for time.Since(start) < d {
			tape.Reset()
			y, _ := c.m.Forward(tape.Input(x, c.B, c.T, in), nil)
			if c.train {
				tensor.SumAll(y).Backward()
			}
			n++
		}
		return float64(n) / time.Since(start).Seconds()
	}
	for _, c := range models {
		tensor.Pack(tensor.CPU(), c.m, 1)
	}
	starved := map[string]int{}
	const tries = 3 // other programs may take the cores from one model for seconds
	for range tries {
		alone, shares := make([]float64, len(models)), make([]float64, len(models))
		for i := range models {
			for range 4 { // other programs only ever add time
				alone[i] = max(alone[i], rate(i, 50*time.Millisecond))
			}
		}
		var wg sync.WaitGroup
		for i := range models {
			wg.Go(func() { shares[i] = rate(i, 2*time.Second) / alone[i] })
		}
		wg.Wait()
		usual, fair := slices.Sorted(slices.Values(shares))[len(shares)/2], true
		for i, c := range models {
			t.Logf("%-22s %7.1f passes/s alone, a share of %.3f", c.name, alone[i], shares[i])
			if shares[i] < usual/20 {
				starved[c.name]++
				fair = false
			}
		}
		if fair {
			return
		}
	}
	for name, n := range starved {
		if n == tries {
			t.Errorf("%s: a twentieth of the usual share, in each of %d tries", name, tries)
		}
	}
}
