//go:build dl && linux

package cuda_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/cuda"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

type tagger struct {
	Table *nn.Embedding
	RNN   *nn.RNN
	Norm  *nn.LayerNorm
	Head  *nn.Linear
}

// learn takes steps and returns the weights. It reads the loss of every third step, and
// calls after at the end of each.
func learn(dev *tensor.Device, o *nn.RNNOptions, steps int, after func(step int)) []float32 {
	const B, T, V, D, H, K = 5, 7, 13, 6, 9, 4
	dirs := 1
	if o.Bidirectional {
		dirs = 2
	}
	m := &tagger{nn.NewEmbedding(V, D, nil), nn.NewLSTM(D, H, o), nn.NewLayerNorm(dirs * H), nn.NewLinear(dirs*H, K, nil)}
	slab := tensor.Pack(dev, m, 1)
	opt := optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: 0.01})
	tape := tensor.NewTape(dev, tensor.Train)
	r := rand.New(rand.NewPCG(3, 4))
	ids, tags, lengths := make([]int32, B*T), make([]int32, B*T), make([]int32, B)
	for step := range steps {
		for i := range ids {
			ids[i], tags[i] = int32(r.IntN(V)), int32(r.IntN(K))
		}
		for i := range lengths {
			lengths[i] = int32(1 + r.IntN(T))
		}
		tape.Reset()
		tape.Seed(9, uint64(step))
		y, _ := m.RNN.Forward(m.Table.Forward(tape.IDs(ids, lengths, B, T)), nil)
		loss := tensor.CrossEntropy(m.Head.Forward(m.Norm.Forward(y)), tape.IDs(tags, nil, B, T), nil)
		loss.Backward()
		opt.ClipNorm(1)
		opt.Step(0.01)
		if step%3 == 0 {
			loss.Item()
		}
		after(step)
	}
	weights := make([]float32, slab.Values().N)
	dev.Backend().Download(weights, slab.Values())
	return weights
}

// TestStepIsOneLaunch trains on an emulated GPU: a step whose shapes came before is one
// launch of a graph, the batch goes to the device and the loss comes back when it is read,
// and nothing else is copied or waited for. The weights are nearly the CPU's.
func TestStepIsOneLaunch(t *testing.T) {
	for name, o := range map[string]*nn.RNNOptions{
		"plain":    {Layers: 2, Bidirectional: true, Dropout: 0.2},
		"variants": {Layers: 2, Peephole: true, LayerNorm: true, Zoneout: 0.1, RecurrentDropout: 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			const steps, first = 12, 3
			b := cuda.Emulated(t, cuda.Options{})
			var sum cuda.Counts
			got := learn(tensor.NewDevice(b), o, steps, func(step int) {
				c := b.Counts()
				if step < first { // the first of its shapes, and one that is given to the device with what follows
					return
				}
				sum.Launches += c.Launches
				sum.Graphs += c.Graphs
				sum.Uploads += c.Uploads
				sum.Downloads += c.Downloads
				sum.Waits += c.Waits
			})
			const n = steps - first // of each step ids, their lengths in all forms, tags; of every third the loss
			if want := (cuda.Counts{Graphs: n, Uploads: 3 * n, Downloads: n / 3, Waits: n / 3}); sum != want {
				t.Errorf("%d steps: %+v, want %+v", n, sum, want)
			}
			want := learn(tensor.CPU(), o, steps, func(int) {})
			for i, w := range want {
				if d := math.Abs(float64(got[i] - w)); d > 2e-4 {
					t.Fatalf("weight %d is %g, on the CPU %g", i, got[i], w)
				}
			}
		})
	}
}
