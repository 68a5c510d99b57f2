package generate

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// zipf draws tokens whose frequency falls with their number.
func zipf(n, vocabulary int) (ids []int32, counts []int64) {
	r := rand.New(rand.NewPCG(1, 2))
	counts = make([]int64, vocabulary)
	for range n {
		id := int32(math.Pow(float64(vocabulary), r.Float64())) - 1
		ids = append(ids, id)
		counts[id]++
	}
	return ids, counts
}

// stepper takes training steps of a network on made-up tokens.
func stepper(b testing.TB, cfg Config, vocabulary int) func() {
	ids, counts := zipf(cfg.Batch*(4*cfg.BPTT+1), vocabulary)
	cfg.settle(len(ids), counts)
	net, err := newNetwork(&cfg, vocabulary)
	if err != nil {
		b.Fatal(err)
	}
	slab := tensor.Pack(tensor.CPU(), net, 1)
	net.startAtFrequencies((*rare)(nil).expected(counts))
	opt := optim.NewAdamW(slab, nil)
	tape, carry := tensor.NewTape(tensor.CPU(), tensor.Train), nn.NewCarry(net.RNN, cfg.Batch)
	s := newStreams(corpusOf(ids), cfg.Batch, cfg.BPTT, false, 1)
	bt, n := &batch{}, 0
	return func() {
		_ = s.load(bt, 0, n%4, 0, cfg.Batch)
		n++
		tape.Reset()
		l, to := net.loss(tape, bt, carry.Begin(tape, bt.begins))
		carry.End(to)
		l.Backward()
		opt.ClipNorm(1)
		opt.Step(1e-3)
	}
}

func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name       string
		vocabulary int
		set        func(*Config)
	}{
		{"unit=char/H=512", 70, func(c *Config) { c.Hidden, c.Batch, c.BPTT = 512, 64, 128 }},
		{"unit=word/H=2x650/V=10000/softmax=full", 10000, func(c *Config) {
			c.Hidden, c.Layers, c.Batch, c.BPTT, c.Output, c.Embedding, c.Softmax = 650, 2, 20, 35, "free", 650, "full"
		}},
		{"unit=word/H=512/V=33278/softmax=adaptive", 33278, func(c *Config) { c.Hidden, c.Batch, c.BPTT, c.Output = 512, 32, 64, "tied" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg := Defaults()
			c.set(&cfg)
			step := stepper(b, cfg, c.vocabulary)
			step()
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
			b.ReportMetric(float64(cfg.Batch*cfg.BPTT)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
