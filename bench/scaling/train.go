package main

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// A model predicts a class for each word of a sequence.
type model struct{ Vocabulary, Embedded, Hidden, Layers, Classes int }

type tagger struct {
	Embedding *nn.Embedding
	LSTM      *nn.RNN
	Output    *nn.Linear
}

// A trial is a short training of a model on random words.
type trial struct {
	model   model
	device  *tensor.Device
	world   train.World // nil: one rank
	half    bool
	rows    int
	lengths []int // of the batches of an epoch, in the order of their numbers
	epochs  int
	begin   func(length int) // of a batch on this rank
	now     func() float64   // seconds
}

// A batchTime is what a trial measures of a step.
type batchTime struct {
	length int
	times
	exposed float64
}

// run returns the steps of this rank, and the parameters in the order in which they were ready.
func (t *trial) run(ctx context.Context) (steps []batchTime, order []param, err error) {
	net := &tagger{
		nn.NewEmbedding(t.model.Vocabulary, t.model.Embedded, nil),
		nn.NewLSTM(t.model.Embedded, t.model.Hidden, &nn.RNNOptions{Layers: t.model.Layers, TimeMajor: true}),
		nn.NewLinear(t.model.Hidden, t.model.Classes, nil),
	}
	slab := tensor.Pack(t.device, net, 1)
	type batch struct {
		length       int
		ids, targets []int32
	}
	list := make([][]int, len(t.lengths))
	for i := range list {
		list[i] = []int{i}
	}
	var now batchTime
	var mark float64
	lap := func() float64 {
		last := mark
		mark = t.now()
		return mark - last
	}
	var backward float64 // its beginning
	job := &train.Job[batch]{
		Slab: slab, Optimizer: optim.NewAdam(slab, nil), Samples: len(list),
		NewBatch: func() *batch { return new(batch) },
		Load: func(b *batch, samples []int) {
			b.length = t.lengths[samples[0]]
			b.ids, b.targets = t.words(samples[0], t.model.Vocabulary, b.length), t.words(samples[0], t.model.Classes, b.length)
		},
		Batches: func(int) [][]int { return list },
		Loss: func(tape *tensor.Tape, b *batch) *tensor.Tensor {
			now = batchTime{length: b.length}
			if t.begin != nil {
				t.begin(now.length)
			}
			lap()
			y, _ := net.LSTM.Forward(net.Embedding.Forward(tape.IDs(b.ids, nil, b.length, t.rows)), nil)
			loss := tensor.CrossEntropy(net.Output.Forward(y), tape.IDs(b.targets, nil, b.length, t.rows), nil)
			now.Forward = lap()
			backward = mark
			return loss
		},
	}
	o := &train.Options{Epochs: t.epochs, Clip: 1, Schedule: optim.Constant(1e-3)}
	o.World, o.Compress = t.world, t.half
	o.OnReady = func(lo, hi int) {
		lap()
		now.Ready = append(now.Ready, mark-backward)
		if len(steps) == 0 {
			for i, p := range slab.Params {
				if from, _ := slab.Range(i); from == lo {
					one := param{Name: p.Name, Numbers: p.Len()}
					if p.Rows {
						one.Table = p.Dim(0)
					}
					order = append(order, one)
				}
			}
		}
	}
	o.OnStep = func(s train.Step) error {
		now.exposed = s.Exposed.Seconds()
		now.Tail = lap() - now.exposed
		steps = append(steps, now)
		return nil
	}
	_, err = train.Fit(ctx, job, o)
	return steps, order, err
}

// words are those of a batch, by Zipf's law.
func (t *trial) words(batch, vocabulary, length int) []int32 {
	r := rand.New(rand.NewPCG(uint64(batch), uint64(vocabulary)))
	list := make([]int32, length*t.rows)
	for i := range list {
		list[i] = int32(min(math.Exp(r.Float64()*math.Log(float64(vocabulary+1)))-1, float64(vocabulary-1)))
	}
	return list
}

// draws are the numbers of the lengths that the batches of an epoch have.
func draws(batches, lengths int) []int {
	r := rand.New(rand.NewPCG(1, uint64(lengths)))
	list := make([]int, batches)
	for i := range list {
		list[i] = r.IntN(lengths)
	}
	return list
}
