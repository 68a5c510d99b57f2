package generate

import (
	"math"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// network is the vectors of the tokens, a recurrent stack, and a softmax over the
// next token. Either Full or Adaptive is set.
type network struct {
	Embedding *nn.Embedding
	RNN       *nn.RNN
	Project   *nn.Linear // to the size of the vectors, if tied weights need it
	Full      *nn.Linear
	Adaptive  *nn.AdaptiveSoftmax

	vocabulary       int
	scale            float32 // factor of the vectors at the input of the stack
	embeddingDropout float32
	output           float32 // dropout of the stack's output, if not applied by the stack
	ar, tar          float32
	ones             []float32 // [V,1]
}

// newNetwork makes the network of a settled configuration.
func newNetwork(cfg *Config, vocabulary int) (*network, error) {
	r := cfg.RNNConfig
	or := func(p *float64, p2 float64) {
		if *p == 0 {
			*p = p2
		}
	}
	or(&r.InputDropout, cfg.Dropout)
	or(&r.OutputDropout, cfg.Dropout)
	if r.Layers > 1 && r.RNNDropout == 0 && cfg.Dropout > 0 {
		r.RNNDropout, r.Variational = cfg.Dropout, true
	}
	n := &network{vocabulary: vocabulary, embeddingDropout: float32(cfg.EmbeddingDropout), ar: float32(cfg.AR), tar: float32(cfg.TAR)}
	if n.tar > 0 { // it needs the output before dropout
		n.output, r.OutputDropout = float32(r.OutputDropout), 0
	}
	// The inputs of the stack have a standard deviation of 1. Tied vectors are
	// smaller, for the softmax, and scaled up at the input (Vaswani et al. 2017).
	n.scale = 1
	if cfg.Output == "tied" {
		n.scale = float32(math.Sqrt(float64(cfg.Embedding)))
	}
	n.Embedding = nn.NewEmbedding(vocabulary, cfg.Embedding, &nn.EmbeddingOptions{Init: nn.Normal(1 / float64(n.scale))})
	var err error
	if n.RNN, err = r.Build(cfg.Embedding); err != nil {
		return nil, err
	}
	width := n.RNN.OutputSize()
	var table *tensor.Param
	if cfg.Output == "tied" {
		table = n.Embedding.Weight
		if width != cfg.Embedding {
			n.Project = nn.NewLinear(width, cfg.Embedding, nil)
			width = cfg.Embedding
		}
	}
	if cfg.Softmax == "adaptive" {
		n.Adaptive = nn.NewAdaptiveSoftmax(width, vocabulary, cfg.Cutoffs, &nn.AdaptiveOptions{Tied: table, HeadBias: true})
	} else {
		n.Full = nn.NewLinear(width, vocabulary, nil)
		if table != nil {
			n.Full.Weight = table
		}
	}
	return n, nil
}

// steps reads ids [B,T] from a state and returns the inputs of the softmax
// [B·T,D], the stack's output before and after dropout [B,T,D], and the final
// state.
func (n *network) steps(tape *tensor.Tape, ids *tensor.Ints, from *nn.State) (x, raw, dropped *tensor.Tensor, to *nn.State) {
	e := n.Embedding.Forward(ids)
	if n.scale != 1 {
		e = tensor.MulScalar(e, n.scale)
	}
	if n.embeddingDropout > 0 && tape.Mode() == tensor.Train {
		e = n.dropTokens(tape, e, ids)
	}
	raw, to = n.RNN.Forward(e, from)
	dropped = raw
	if n.output > 0 {
		dropped = tensor.BatchMajor(tensor.DropoutSequence(tensor.TimeMajor(raw), n.output))
	}
	x = tensor.Reshape(dropped, raw.Dim(0)*raw.Dim(1), raw.Dim(2))
	if n.Project != nil {
		x = n.Project.Forward(x)
	}
	return x, raw, dropped, to
}

// dropTokens zeroes the vectors of whole tokens, the same ones everywhere in the
// batch, and scales the others (Merity et al. 2018).
func (n *network) dropTokens(tape *tensor.Tape, e *tensor.Tensor, ids *tensor.Ints) *tensor.Tensor {
	for len(n.ones) < n.vocabulary {
		n.ones = append(n.ones, 1)
	}
	mask := tensor.Embed(tensor.Dropout(tape.Input(n.ones, n.vocabulary, 1), n.embeddingDropout), ids, -1)
	B, T, D := e.Dim(0), e.Dim(1), e.Dim(2)
	return tensor.Mul(e, tensor.Repeat(tensor.Reshape(mask, B, T), 2, D))
}

// loss returns the mean of -log p over a batch's targets, with the penalties, and
// the final state.
func (n *network) loss(tape *tensor.Tape, b *batch, from *nn.State) (*tensor.Tensor, *nn.State) {
	x, raw, dropped, to := n.steps(tape, b.input(tape), from)
	l := n.nats(x, b.targets)
	if n.ar > 0 {
		l = tensor.Add(l, tensor.ActivityPenalty(dropped, n.ar))
	}
	if n.tar > 0 {
		l = tensor.Add(l, tensor.TemporalPenalty(raw, n.tar))
	}
	return l, to
}

// input returns the batch's inputs on a tape.
func (b *batch) input(tape *tensor.Tape) *tensor.Ints {
	if b.ragged {
		return tape.IDs(b.ids, b.lengths, b.B, b.T)
	}
	return tape.IDs(b.ids, nil, b.B, b.T)
}

// nats returns the mean of -log p(target) over the rows of x that have a target.
func (n *network) nats(x *tensor.Tensor, targets []int32) *tensor.Tensor {
	if n.Adaptive != nil {
		return n.Adaptive.Loss(x, targets)
	}
	return tensor.CrossEntropy(n.Full.Forward(x), x.Tape().IDs(targets, nil, len(targets)), nil)
}

// score writes log p(target) for each row of x to dst, 0 if there is no target.
func (n *network) score(dst []float32, x *tensor.Tensor, targets []int32) {
	if n.Adaptive != nil {
		n.Adaptive.Score(dst, x, targets)
		return
	}
	p := tensor.LogSoftmax(n.Full.Forward(x)).Data()
	for i, t := range targets {
		dst[i] = 0
		if t >= 0 {
			dst[i] = p[i*n.vocabulary+int(t)]
		}
	}
}

// logProb returns log p of every token after each row of x [N,V].
func (n *network) logProb(x *tensor.Tensor) *tensor.Tensor {
	if n.Adaptive != nil {
		return n.Adaptive.LogProb(x)
	}
	return tensor.LogSoftmax(n.Full.Forward(x))
}

// startAtFrequencies sets the biases of the output to the logarithms of the
// counts, so that the untrained network predicts the frequencies.
func (n *network) startAtFrequencies(counts []float64) {
	logs := func(counts []float64) []float32 {
		out := make([]float32, len(counts))
		for i, c := range counts {
			out[i] = logCount(c)
		}
		return out
	}
	if n.Full != nil {
		n.Full.Bias.Write(logs(counts))
		return
	}
	a := n.Adaptive
	bounds := append(a.Cutoffs(), len(counts))
	var clusters []float64
	for k, lo := range bounds[:len(bounds)-1] {
		sum := 0.0
		for _, c := range counts[lo:bounds[k+1]] {
			sum += c
		}
		clusters = append(clusters, sum)
	}
	if a.Table != nil {
		a.Bias.Write(logs(counts))
		a.Clusters.Bias.Write(logs(clusters))
		return
	}
	a.Head.Bias.Write(append(logs(counts[:bounds[0]]), logs(clusters)...))
}
