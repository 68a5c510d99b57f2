package speech

import (
	"math/rand/v2"
	"slices"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// network is the model's trained part: recurrent layers over the steps, and a
// linear layer from each step to the classes.
type network struct {
	RNN  *nn.RNN
	Head *nn.Linear

	drop *nn.Dropout
}

func newNetwork(c *Setup, in, classes int) (*network, error) {
	rnn, err := c.RNNConfig.Build(in)
	if err != nil {
		return nil, err
	}
	return &network{RNN: rnn, Head: nn.NewLinear(rnn.OutputSize(), classes, nil), drop: nn.NewDropout(float32(c.Dropout))}, nil
}

// forward is the logits [B,T,classes] of steps [B,T,in], and the state after them.
func (n *network) forward(x *tensor.Tensor, state *nn.State) (*tensor.Tensor, *nn.State) {
	y, state := n.RNN.Forward(x, state)
	return n.Head.Forward(n.drop.Forward(y)), state
}

// batch is padded utterances and what is said in them.
type batch struct {
	x           []float32 // [rows, steps, in]
	lengths     []int32
	labels      []int32 // [rows, most]
	labelCounts []int32
	steps       int
	most        int
	err         error // what kept it from being loaded
}

// fill pads utterances into the batch.
func (b *batch) fill(features [][]float32, labels [][]int32, in int) {
	b.steps, b.most = 0, 0
	b.lengths, b.labelCounts = b.lengths[:0], b.labelCounts[:0]
	for i, f := range features {
		b.lengths = append(b.lengths, int32(len(f)/in))
		b.labelCounts = append(b.labelCounts, int32(len(labels[i])))
		b.steps = max(b.steps, len(f)/in)
		b.most = max(b.most, len(labels[i]))
	}
	b.x = slices.Grow(b.x[:0], len(features)*b.steps*in)[:len(features)*b.steps*in]
	b.labels = slices.Grow(b.labels[:0], len(features)*b.most)[:len(features)*b.most]
	clear(b.x)
	clear(b.labels)
	for i, f := range features {
		copy(b.x[i*b.steps*in:], f)
		copy(b.labels[i*b.most:], labels[i])
	}
}

func (b *batch) input(t *tensor.Tape) *tensor.Tensor {
	rows := len(b.lengths)
	return t.Sequences(b.x, b.lengths, rows, b.steps, len(b.x)/max(1, rows*b.steps))
}

// loss is the mean over rows of the CTC loss, each by its number of labels.
func (b *batch) loss(t *tensor.Tape, logits *tensor.Tensor) *tensor.Tensor {
	value, _ := tensor.CTC(logits, t.IDs(b.labels, b.labelCounts, len(b.lengths), b.most), nil)
	return value
}

// corpus is utterances ready for training.
type corpus struct {
	*dataset
	labels [][]int32
}

// load fills a batch with utterances. Numbers beyond the list are those of a
// later epoch, whose augmentation is drawn anew.
func (c *corpus) load(b *batch, samples []int, augment bool) {
	features, labels := make([][]float32, len(samples)), make([][]int32, len(samples))
	in := c.cfg.inputs(c.width)
	b.err = nil
	for k, s := range samples {
		i := s % len(c.list)
		var r *rand.Rand
		if augment {
			r = rand.New(rand.NewPCG(c.cfg.Seed^0x73706565636821, uint64(s)))
		}
		f, err := c.features(i, r)
		if err != nil {
			b.err = err
			return
		}
		features[k], labels[k] = f, c.labels[i]
	}
	b.fill(features, labels, in)
}
