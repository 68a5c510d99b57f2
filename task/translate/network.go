package translate

import (
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// network is an encoder and a decoder that attends to the encoder's output
// (Sutskever et al. 2014; Bahdanau et al. 2015; Luong et al. 2015):
//
//	m₁..m_S, state = encoder(source)       h_t = decoder(y_{t-1}, h_{t-1}), begun with bridge(state)
//	c_t = Σ a_ts m_s, a_t = attention(h_t, m)
//	o_t = tanh(W_c [h_t; c_t])             y_t ~ softmax(E o_t + b)
//
// With input feeding the decoder also reads o_{t-1}. Without it and without
// coverage the decoder's steps depend only on the target, so all of them run as
// one scan and attention is two products over all steps.
type network struct {
	Source    *nn.Embedding
	Target    *nn.Embedding // the same as Source if both languages share a vocabulary
	Encoder   *nn.RNN
	BridgeH   []*nn.Linear // one per layer; with the dense bridge only
	BridgeC   []*nn.Linear // likewise, if the cell has a second state
	Decoder   *nn.RNN
	Attention *nn.Attention
	Combine   *nn.Linear
	Output    *nn.Linear

	cfg *Config
}

func newNetwork(cfg *Config, sourceTokens, targetTokens int) (*network, error) {
	n := &network{cfg: cfg}
	init := &nn.EmbeddingOptions{Init: nn.Uniform(0.1)}
	n.Source = nn.NewEmbedding(sourceTokens, cfg.Embedding, init)
	n.Target = n.Source
	if cfg.Separate {
		n.Target = nn.NewEmbedding(targetTokens, cfg.Embedding, init)
	}
	encoder, decoder := cfg.encoder(), cfg.decoder()
	var err error
	if n.Encoder, err = encoder.Build(cfg.Embedding); err != nil {
		return nil, data.Errorf("%v", err)
	}
	if n.Decoder, err = decoder.Build(cfg.Embedding + n.fed()); err != nil {
		return nil, data.Errorf("%v", err)
	}
	memory, query := n.Encoder.OutputSize(), n.Decoder.OutputSize()
	if cfg.Bridge == "dense" {
		for range cfg.Layers {
			n.BridgeH = append(n.BridgeH, nn.NewLinear(memory, n.Decoder.StateSize(), nil))
			if n.Decoder.CellSize() > 0 {
				n.BridgeC = append(n.BridgeC, nn.NewLinear(n.Encoder.Directions()*n.Encoder.CellSize(), n.Decoder.CellSize(), nil))
			}
		}
	}
	kind := map[string]nn.AttentionKind{"dot": nn.Dot, "general": nn.General, "additive": nn.Additive}[cfg.Attention]
	n.Attention = nn.NewAttention(kind, query, memory, query)
	if cfg.Coverage {
		n.Attention = nn.NewCoverageAttention(kind, query, memory, query)
	}
	n.Combine = nn.NewLinear(query+memory, n.width(), nil)
	n.Output = nn.NewLinear(n.width(), targetTokens, nil)
	if cfg.Output == "tied" {
		n.Output.Weight = n.Target.Weight
	}
	return n, nil
}

// width returns the size of o.
func (n *network) width() int {
	if n.cfg.Output == "free" {
		return n.cfg.Hidden
	}
	return n.cfg.Embedding
}

// fed returns the size of the part of o that the decoder reads.
func (n *network) fed() int {
	if n.cfg.InputFeeding {
		return n.width()
	}
	return 0
}

// memory is an encoded batch on a tape.
type memory struct {
	values *tensor.Tensor // [B,S,M], with lengths
	keys   *tensor.Tensor // [B,S,query]
}

// encode reads sources [B,S] from a state of the encoder (nil: the initial one)
// and returns the memory, the decoder's first state and the encoder's last.
func (n *network) encode(source *tensor.Ints, from *nn.State) (m memory, decoder, last *nn.State) {
	x := n.drop(n.dropTokens(n.Source.Forward(source)))
	y, last := n.Encoder.Forward(x, from)
	m.values = n.drop(y)
	m.keys = n.Attention.Keys(m.values)
	return m, n.bridge(last), last
}

func (n *network) drop(x *tensor.Tensor) *tensor.Tensor {
	return tensor.Dropout(x, float32(n.cfg.Dropout))
}

// dropTokens zeroes whole vectors of x [B,T,E] on a training tape, and scales the
// rest (Gal and Ghahramani 2016).
func (n *network) dropTokens(x *tensor.Tensor) *tensor.Tensor {
	tape, p := x.Tape(), float32(n.cfg.TokenDropout)
	if p == 0 || tape.Mode() != tensor.Train {
		return x
	}
	kept := tensor.Dropout(tensor.AddScalar(tape.Zeros(x.Dim(0), x.Dim(1)), 1), p)
	return tensor.Mul(x, tensor.Repeat(kept, 2, x.Dim(2)))
}

// bridge returns the decoder's first state for the encoder's last.
func (n *network) bridge(last *nn.State) *nn.State {
	if n.cfg.Bridge == "zero" {
		return nil
	}
	state := last.H.Tape().NewState(0, 0, 0, 0)
	state.H = n.join(last.H)
	if n.BridgeH != nil {
		state.H = tensor.Tanh(perLayer(n.BridgeH, state.H))
	}
	if last.C != nil {
		state.C = n.join(last.C)
		if n.BridgeC != nil {
			state.C = perLayer(n.BridgeC, state.C)
		}
	}
	return state
}

// join concatenates both directions of each layer: [L*D,B,H] to [L,B,D*H].
func (n *network) join(x *tensor.Tensor) *tensor.Tensor {
	d := n.Encoder.Directions()
	if d == 1 {
		return x
	}
	layers, B, h := x.Dim(0)/d, x.Dim(1), x.Dim(2)
	x = tensor.Transpose(tensor.Reshape(x, layers, d, B, h), 1, 2)
	return tensor.Reshape(x, layers, B, d*h)
}

// perLayer applies a linear map to the state of each layer [L,B,F].
func perLayer(maps []*nn.Linear, x *tensor.Tensor) *tensor.Tensor {
	parts := make([]*tensor.Tensor, len(maps))
	for i, m := range maps {
		parts[i] = m.Forward(tensor.Slice(x, 0, i, i+1))
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return tensor.Concat(0, parts...)
}

// attend computes o [B,Q,width] and the weights [B,Q,S] for decoder outputs h
// [B,Q,query].
func (n *network) attend(h *tensor.Tensor, m memory, coverage *tensor.Tensor) (o, weights *tensor.Tensor) {
	context, weights := n.Attention.Attend(h, m.keys, m.values, coverage)
	return n.drop(tensor.Tanh(n.Combine.Forward(tensor.Concat(-1, h, context)))), weights
}

// decode runs the decoder over inputs [B,T], which begin with the begin token,
// and returns o [B,T,width] for all steps; for coverage also the weights of each
// step and their sums before it [B,T,S].
func (n *network) decode(inputs *tensor.Ints, m memory, state *nn.State) (o, weights, coverage *tensor.Tensor) {
	x := n.drop(n.dropTokens(n.Target.Forward(inputs)))
	if !n.cfg.sequential() {
		h, _ := n.Decoder.Forward(x, state)
		o, weights = n.attend(h, m, nil)
		return o, weights, nil
	}
	tape, B, T := x.Tape(), x.Dim(0), x.Dim(1)
	feed := tape.Zeros(B, 1, n.width())
	var sum *tensor.Tensor
	if n.cfg.Coverage {
		sum = tape.Zeros(B, 1, m.values.Dim(1))
	}
	outs, looks, sums := make([]*tensor.Tensor, T), make([]*tensor.Tensor, T), make([]*tensor.Tensor, T)
	for t := range T {
		step := tensor.Slice(x, 1, t, t+1)
		if n.cfg.InputFeeding {
			step = tensor.Concat(-1, step, feed)
		}
		var h *tensor.Tensor
		h, state = n.Decoder.Forward(step, state)
		sums[t] = sum
		feed, looks[t] = n.attend(h, m, sum)
		outs[t] = feed
		if sum != nil {
			sum = tensor.Add(sum, looks[t])
		}
	}
	if n.cfg.Coverage {
		coverage = tensor.Concat(1, sums...)
	}
	return tensor.Concat(1, outs...), tensor.Concat(1, looks...), coverage
}

// loss returns the mean cross-entropy of a batch's target tokens, with the
// coverage loss.
func (n *network) loss(tape *tensor.Tape, b *batch, smoothing float32) *tensor.Tensor {
	m, state, _ := n.encode(tape.IDs(b.source, b.sourceLengths, b.rows, b.S), b.from(n, tape))
	lengths := b.targetLengths
	if n.cfg.sequential() {
		lengths = nil // a slice of one step has none; the loss ignores the padding
	}
	o, weights, coverage := n.decode(tape.IDs(b.inputs, lengths, b.rows, b.T), m, state)
	loss := tensor.CrossEntropy(n.Output.Forward(o), tape.IDs(b.outputs, nil, b.rows, b.T), &tensor.CrossEntropyOptions{Smoothing: smoothing})
	if n.cfg.CoverageLoss > 0 && tape.Mode() == tensor.Train {
		loss = tensor.Add(loss, tensor.MulScalar(n.repeated(tape, b, weights, coverage), float32(n.cfg.CoverageLoss)))
	}
	return loss
}

// repeated returns the mean over target tokens of Σ_s min(a_ts, Σ_{t'<t} a_t's),
// the repeated attention (See et al. 2017).
func (n *network) repeated(tape *tensor.Tape, b *batch, weights, coverage *tensor.Tensor) *tensor.Tensor {
	both := tensor.Sub(weights, tensor.ReLU(tensor.Sub(weights, coverage)))
	counts := make([]float32, b.rows*b.T)
	for i := range b.rows {
		for t := range b.targetLengths[i] {
			counts[i*b.T+int(t)] = 1 / float32(b.tokens)
		}
	}
	return tensor.SumAll(tensor.Mul(both, tensor.Repeat(tape.Input(counts, b.rows, b.T), 2, b.S)))
}
