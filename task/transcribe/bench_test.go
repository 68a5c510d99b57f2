package transcribe

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/tensor"
)

// untrained is a model of the default size that spells the 26 letters.
func untrained(b *testing.B, bidirectional bool) *Model {
	cfg := Defaults()
	cfg.Rate, cfg.Bidirectional = 16000, bidirectional
	cfg.FillDefaults()
	stats := &speech.Statistics{Mean: make([]float64, cfg.Bands), Deviation: make([]float64, cfg.Bands)}
	for i := range cfg.Bands {
		stats.Mean[i], stats.Deviation[i] = -10, 5
	}
	m, err := newModel(cfg, newAlphabet("char", strings.Split(" 'abcdefghijklmnopqrstuvwxyz", ""), nil), &speech.Frontend{Width: cfg.Bands, Statistics: stats}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// BenchmarkStream transcribes ten seconds in pieces of a tenth; realtime is the share
// of the sound's length that it takes.
func BenchmarkStream(b *testing.B) {
	m := untrained(b, false)
	r := rand.New(rand.NewPCG(1, 1))
	sound := make([]float32, 160_000)
	for i := range sound {
		sound[i] = float32(0.1 * r.NormFloat64())
	}
	for b.Loop() {
		s, err := m.NewStream(b.Context(), 16000, nil)
		if err != nil {
			b.Fatal(err)
		}
		for x := sound; len(x) > 0; x = x[1600:] {
			s.Write(x[:1600])
		}
		s.Finish()
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/10, "realtime")
}

// BenchmarkTrainStep is a step of training: 16 utterances of 100 steps, 30
// characters each, 3 layers of 256 units in both directions, CTC, clipping, AdamW.
func BenchmarkTrainStep(b *testing.B) {
	m := untrained(b, true)
	r := rand.New(rand.NewPCG(1, 1))
	const rows, steps, most = 16, 100, 30
	x := &speech.Batch{Steps: steps, Most: most, X: make([]float32, rows*steps*m.frontend.Inputs()), Labels: make([]int32, rows*most)}
	for range rows {
		x.Lengths, x.LabelCounts = append(x.Lengths, steps), append(x.LabelCounts, most)
	}
	for i := range x.X {
		x.X[i] = float32(r.NormFloat64())
	}
	for i := range x.Labels {
		x.Labels[i] = 1 + int32(r.IntN(28))
	}
	tape := tensor.NewTape(m.slab.Device(), tensor.Train)
	o := optim.NewAdamW(m.slab, nil)
	for b.Loop() {
		tape.Reset()
		m.loss(tape, x).Backward()
		o.ClipNorm(1)
		o.Step(1e-4)
	}
	b.ReportMetric(rows*steps*float64(b.N)/b.Elapsed().Seconds(), "steps/s")
}
