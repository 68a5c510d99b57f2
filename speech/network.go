package speech

import (
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Network is recurrent layers over the steps, and a linear layer to the classes
// of each step or, with a pool, of the utterance.
type Network struct {
	RNN  *nn.RNN
	Head *nn.Linear

	drop *nn.Dropout
	pool func(*tensor.Tensor) *tensor.Tensor
}

// NewNetwork makes an untrained network for steps of in features. pool reduces
// the steps of an utterance to one vector, such as tensor.Max; nil keeps the
// steps. Settings that exclude each other are an error of [task.RNNConfig.Build].
func NewNetwork(c *Setup, in, classes int, pool func(*tensor.Tensor) *tensor.Tensor) (*Network, error) {
	rnn, err := c.RNNConfig.Build(in)
	if err != nil {
		return nil, err
	}
	return &Network{RNN: rnn, Head: nn.NewLinear(rnn.OutputSize(), classes, nil), drop: nn.NewDropout(float32(c.Dropout)), pool: pool}, nil
}

// Forward returns the logits for steps [B,T,in], as [B,T,classes] or, with a
// pool, [B,classes], and the final state. A state of nil is the initial one.
func (n *Network) Forward(x *tensor.Tensor, state *nn.State) (*tensor.Tensor, *nn.State) {
	y, state := n.RNN.Forward(x, state)
	if n.pool != nil {
		y = n.pool(y)
	}
	return n.Head.Forward(n.drop.Forward(y)), state
}

// Batch is padded utterances with their classes.
type Batch struct {
	X           []float32 // [rows, Steps, in]
	Lengths     []int32   // [rows] steps
	Labels      []int32   // [rows, Most]
	LabelCounts []int32   // [rows] classes
	Steps       int       // of the longest row
	Most        int       // classes of the row with the most

	err error // why it could not be loaded
}

// fill sets the batch to utterances, padded.
func (b *Batch) fill(features [][]float32, labels [][]int32, in int) {
	b.Steps, b.Most = 0, 0
	b.Lengths, b.LabelCounts = b.Lengths[:0], b.LabelCounts[:0]
	for i, f := range features {
		b.Lengths = append(b.Lengths, int32(len(f)/in))
		b.LabelCounts = append(b.LabelCounts, int32(len(labels[i])))
		b.Steps = max(b.Steps, len(f)/in)
		b.Most = max(b.Most, len(labels[i]))
	}
	b.X = train.Resize(b.X, len(features)*b.Steps*in)
	b.Labels = train.Resize(b.Labels, len(features)*b.Most)
	clear(b.X)
	clear(b.Labels)
	for i, f := range features {
		copy(b.X[i*b.Steps*in:], f)
		copy(b.Labels[i*b.Most:], labels[i])
	}
}

// Input returns the steps [rows,Steps,in] on a tape.
func (b *Batch) Input(t *tensor.Tape) *tensor.Tensor {
	rows := len(b.Lengths)
	return t.Sequences(b.X, b.Lengths, rows, b.Steps, len(b.X)/max(1, rows*b.Steps))
}
