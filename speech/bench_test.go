package speech

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// untrained is a model of the default size that spells the 26 letters.
func untrained(b *testing.B, bidirectional bool) *Model {
	cfg := Defaults()
	cfg.Rate, cfg.Bidirectional = 16000, bidirectional
	cfg.settle()
	stats := newMoments(cfg.Bands)
	frame := make([]float32, cfg.Bands)
	for i := range 2 {
		for k := range frame {
			frame[k] = float32(10*i - 15)
		}
		stats.add(frame)
	}
	m, err := newModel(cfg, newAlphabet("char", strings.Split(" 'abcdefghijklmnopqrstuvwxyz", ""), nil), cfg.Bands, stats.statistics(), nil)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// BenchmarkStream hears ten seconds in pieces of a tenth; realtime is the share
// of the sound's length that it takes.
func BenchmarkStream(b *testing.B) {
	m := untrained(b, false)
	r := rand.New(rand.NewPCG(1, 1))
	sound := make([]float32, 160_000)
	for i := range sound {
		sound[i] = float32(0.1 * r.NormFloat64())
	}
	for b.Loop() {
		s, err := m.NewStream(16000, nil)
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
	x := &batch{steps: steps, most: most, x: make([]float32, rows*steps*m.inputs()), labels: make([]int32, rows*most)}
	for range rows {
		x.lengths, x.labelCounts = append(x.lengths, steps), append(x.labelCounts, most)
	}
	for i := range x.x {
		x.x[i] = float32(r.NormFloat64())
	}
	for i := range x.labels {
		x.labels[i] = 1 + int32(r.IntN(28))
	}
	tape := tensor.NewTape(m.slab.Device(), tensor.Train)
	o := optim.NewAdamW(m.slab, nil)
	for b.Loop() {
		tape.Reset()
		logits, _ := m.net.forward(x.input(tape), nil)
		x.loss(tape, logits).Backward()
		o.ClipNorm(1)
		o.Step(1e-4)
	}
	b.ReportMetric(rows*steps*float64(b.N)/b.Elapsed().Seconds(), "steps/s")
}
