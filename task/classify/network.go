package classify

import (
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// network is an embedding, a recurrent stack, pooling and an output layer.
type network struct {
	Embedding *nn.Embedding
	RNN       *nn.RNN
	Query     *nn.Linear // of attention pooling: the score of a step; else nil
	Head      *nn.Linear

	cfg     *Config
	classes int
}

// newNetwork makes an untrained network for a valid configuration.
func newNetwork(cfg *Config, vocabulary, classes int, pad int32) (*network, error) {
	n := &network{cfg: cfg, classes: classes}
	n.Embedding = nn.NewEmbedding(vocabulary, cfg.Embedding, &nn.EmbeddingOptions{Padding: int(pad), HasPadding: pad >= 0, Init: nn.Normal(0.1)})
	var err error
	if n.RNN, err = cfg.RNNConfig.Build(cfg.Embedding); err != nil {
		return nil, err
	}
	width := n.RNN.OutputSize()
	if cfg.Pool == "attention" {
		n.Query = nn.NewLinear(width, 1, &nn.LinearOptions{NoBias: true})
	}
	n.Head = nn.NewLinear(width, classes, nil)
	return n, nil
}

// batch is texts padded to the length of the longest.
type batch struct {
	rows, steps int
	ids         []int32 // [rows,steps]
	lengths     []int32
	class       []int32   // [rows], if texts have one label
	target      []float32 // [rows,classes], if texts may have several
	weight      []float32 // [classes], if classes are balanced
	ones        []float32 // at least rows*steps ones
}

// load fills a batch with texts of c.
func (b *batch) load(c *corpus, list []int, pad int32) {
	b.rows, b.steps = len(list), 1
	for _, i := range list {
		b.steps = max(b.steps, len(c.text(i)))
	}
	b.ids = train.Resize(b.ids, b.rows*b.steps)
	for len(b.ones) < len(b.ids) {
		b.ones = append(b.ones, 1)
	}
	b.lengths = b.lengths[:0]
	for r, i := range list {
		row := b.ids[r*b.steps : (r+1)*b.steps]
		n := copy(row, c.text(i))
		for j := n; j < len(row); j++ {
			row[j] = max(pad, 0)
		}
		b.lengths = append(b.lengths, int32(n))
	}
}

// loadLabels adds the labels. Texts without a known label are not part of the
// loss.
func (b *batch) loadLabels(c *corpus, list []int, classes int, several bool) {
	b.class, b.target = b.class[:0], b.target[:0]
	if several {
		b.target = train.Resize(b.target, len(list)*classes)
		clear(b.target)
	}
	for r, i := range list {
		if several {
			for _, k := range c.labels[i] {
				b.target[r*classes+int(k)] = 1
			}
			continue
		}
		class := int32(-100)
		if len(c.labels[i]) > 0 {
			class = c.labels[i][0]
		}
		b.class = append(b.class, class)
	}
}

// forward returns the logits [rows,classes], the outputs of the recurrent layers
// [rows,steps,width] and, for attention pooling, the weights of the steps
// [rows,1,steps].
func (n *network) forward(t *tensor.Tape, b *batch) (logits, steps, weights *tensor.Tensor) {
	x := n.Embedding.Forward(t.IDs(b.ids, b.lengths, b.rows, b.steps))
	if p := float32(n.cfg.TokenDropout); p > 0 && t.Mode() == tensor.Train {
		// One draw per token: its whole vector is kept or zeroed.
		keep := tensor.Dropout(t.Input(b.ones[:b.rows*b.steps], b.rows, b.steps), p)
		x = tensor.Mul(x, tensor.Repeat(keep, 2, n.cfg.Embedding))
	}
	x = tensor.Dropout(x, float32(n.cfg.Dropout))
	y, final := n.RNN.Forward(x, nil)
	var pooled *tensor.Tensor
	switch n.cfg.Pool {
	case "mean":
		pooled = tensor.MeanPool(y)
	case "last":
		pooled = lastStates(final, n.RNN)
	case "attention":
		scores := tensor.Reshape(n.Query.Forward(tensor.Tanh(y)), b.rows, 1, b.steps)
		weights = tensor.Softmax(scores, b.lengths)
		pooled = tensor.Reshape(tensor.MatMul(weights, y, false), b.rows, n.RNN.OutputSize())
	default:
		pooled = tensor.MaxPool(y)
	}
	return n.Head.Forward(tensor.Dropout(pooled, float32(n.cfg.Dropout))), y, weights
}

// lastStates joins the final states of both directions of the top layer, each of
// which has read the whole text.
func lastStates(final *nn.State, m *nn.RNN) *tensor.Tensor {
	dirs := m.Directions()
	slots := m.Layers() * dirs
	h := tensor.Transpose(tensor.Slice(final.H, 0, slots-dirs, slots), 0, 1)
	return tensor.Reshape(h, h.Dim(0), m.OutputSize())
}

// loss returns the mean loss of a batch with labels.
func (n *network) loss(t *tensor.Tape, b *batch) *tensor.Tensor {
	logits, _, _ := n.forward(t, b)
	if len(b.target) > 0 {
		return tensor.BCE(logits, t.Input(b.target, b.rows, n.classes), nil)
	}
	o := &tensor.CrossEntropyOptions{Smoothing: float32(n.cfg.Smoothing), ClassWeight: b.weight}
	return tensor.CrossEntropy(logits, t.IDs(b.class, nil, b.rows), o)
}
