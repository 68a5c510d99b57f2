package forwardtest_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/device/forwardtest"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

func TestBackend(t *testing.T) { devicetest.Run(t, forwardtest.New(cpu.New(simd.Best()))) }

// tagger has much of what a network may use: ids, lengths, both directions,
// dropout of every kind, a norm, pools and several losses.
type tagger struct {
	Table *nn.Embedding
	RNN   *nn.RNN
	Norm  *nn.LayerNorm
	Head  *nn.Linear
	Level *nn.Linear
}

// learn takes some steps on a device, reads the loss of those it is asked to, and returns the weights.
func learn(dev *tensor.Device, steps int, read func(step int) bool, after func(step int)) (weights, losses []float32) {
	const B, T, V, D, H, K = 5, 7, 13, 6, 9, 4
	m := &tagger{nn.NewEmbedding(V, D, nil), nn.NewLSTM(D, H, &nn.RNNOptions{Layers: 2, Bidirectional: true, Dropout: 0.2, RecurrentDropout: 0.1, Zoneout: 0.1}),
		nn.NewLayerNorm(2 * H), nn.NewLinear(2*H, K, nil), nn.NewLinear(2*H, 3, nil)}
	slab := tensor.Pack(dev, m, 1)
	opt := optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: 0.01})
	tape := tensor.NewTape(dev, tensor.Train)
	r := rand.New(rand.NewPCG(3, 4))
	ids, tags, lengths, levels := make([]int32, B*T), make([]int32, B*T), make([]int32, B), make([]float32, B)
	for step := range steps {
		for i := range ids {
			ids[i], tags[i] = int32(r.IntN(V)), int32(r.IntN(K))
		}
		for i := range lengths {
			lengths[i], levels[i] = int32(r.IntN(T+1)), r.Float32()
		}
		tape.Reset()
		tape.Seed(9, uint64(step))
		y, _ := m.RNN.Forward(m.Table.Forward(tape.IDs(ids, lengths, B, T)), nil)
		loss := tensor.CrossEntropy(m.Head.Forward(m.Norm.Forward(y)), tape.IDs(tags, nil, B, T), nil)
		pooled := tensor.Add(tensor.MaxPool(y), tensor.MeanPool(y))
		loss = tensor.Add(loss, tensor.Pinball(m.Level.Forward(pooled), tape.Input(levels, B), []float32{0.1, 0.5, 0.9}, nil))
		if read(step) {
			losses = append(losses, loss.Item())
		}
		loss.Backward()
		opt.ClipNorm(1)
		opt.Step(0.01)
		if after != nil {
			after(step)
		}
	}
	weights = make([]float32, slab.Values().N)
	dev.Backend().Download(weights, slab.Values())
	return weights, losses
}

func same(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b) && len(a) > 0
}

// Training on a device that runs later gives the CPU's bits, and takes from it
// what is asked for and nothing else.
func TestTrainingReadsWhatIsAskedFor(t *testing.T) {
	const steps = 6
	always := func(int) bool { return true }
	want, wantLosses := learn(tensor.CPU(), steps, always, nil)
	start, _ := learn(tensor.CPU(), 0, always, nil)
	if same(start, want) {
		t.Fatal("training changed nothing")
	}

	b := forwardtest.New(cpu.New(simd.Best()))
	some := func(step int) bool { return step%3 == 0 }
	var uploads []int
	got, losses := learn(tensor.NewDevice(b), steps, some, func(step int) {
		c := b.Counts()
		wantReads := 0
		if some(step) {
			wantReads = 1
		}
		if c.Downloads != wantReads || c.Syncs != 0 {
			t.Errorf("step %d: %d downloads and %d syncs, want %d and 0", step, c.Downloads, c.Syncs, wantReads)
		}
		uploads = append(uploads, c.Uploads)
	})
	for _, n := range uploads[1:] {
		if n != 5 { // ids, their lengths in all forms, tags, levels, quantiles
			t.Errorf("%d uploads a step, want 5: %v", n, uploads)
			break
		}
	}
	if !same(got, want) {
		t.Error("the weights are not those of the CPU")
	}
	if !same(losses, []float32{wantLosses[0], wantLosses[3]}) {
		t.Errorf("losses %v, those of the CPU %v", losses, wantLosses)
	}
}
