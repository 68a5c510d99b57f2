package tag

import (
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// network reads words, by their vectors and by their spelling, in both directions
// and computes scores of tags (Lample et al. 2016; Ma and Hovy 2016). Spellings
// are computed once per distinct word of a batch.
type network struct {
	Words   *nn.Embedding // 0, the unknown, is a zero
	Pairs   *nn.Embedding // nil without
	Affixes *nn.Embedding // nil without
	Chars   *chars        // nil without
	RNN     *nn.RNN
	Head    *nn.Linear
	CRF     *nn.CRF // nil: a softmax for each token

	cfg *Config
}

// chars reads a word's characters: by a convolution over three neighbours, which
// for single characters is a sum of three vectors, and a maximum over the word;
// or by a bidirectional LSTM.
type chars struct {
	Before, At, After *nn.Embedding // the convolution; At alone is the LSTM's input
	Bias              *tensor.Param
	RNN               *nn.RNN
}

// charEmbedding is the size of a character's vector that an LSTM reads.
const charEmbedding = 32

func newChars(cfg *Config, size int) *chars {
	o := &nn.EmbeddingOptions{Padding: unknown, HasPadding: true, Init: nn.Normal(0.3)}
	switch cfg.Chars {
	case "cnn":
		n := cfg.CharHidden
		return &chars{Before: nn.NewEmbedding(size, n, o), At: nn.NewEmbedding(size, n, o), After: nn.NewEmbedding(size, n, o),
			Bias: tensor.NewParam("bias", nil, n)}
	case "lstm":
		return &chars{At: nn.NewEmbedding(size, charEmbedding, o),
			RNN: nn.NewLSTM(charEmbedding, (cfg.CharHidden+1)/2, &nn.RNNOptions{Bidirectional: true, ForgetBias: 1})}
	}
	return nil
}

// width returns the size of the vector of a word.
func (c *chars) width() int {
	if c.RNN != nil {
		return c.RNN.OutputSize()
	}
	return c.Bias.Len()
}

// forward returns one vector per distinct word of the batch [distinct,width].
func (c *chars) forward(t *tensor.Tape, b *batch) *tensor.Tensor {
	n, m := len(b.distinct), b.longest
	at := c.At.Forward(t.IDs(b.chars[1], b.letters, n, m))
	if c.RNN != nil {
		_, final := c.RNN.Forward(at, nil)
		h := tensor.Transpose(final.H, 0, 1)
		return tensor.Reshape(h, n, c.RNN.OutputSize())
	}
	y := tensor.Add(at, c.Before.Forward(t.IDs(b.chars[0], b.letters, n, m)))
	y = tensor.Add(y, c.After.Forward(t.IDs(b.chars[2], b.letters, n, m)))
	return tensor.Tanh(tensor.Add(tensor.MaxPool(y), c.Bias.T()))
}

// newNetwork makes an untrained network for a valid, settled configuration.
func newNetwork(cfg *Config, v *vocabularies, tags []string, spans bool) (*network, error) {
	n := &network{cfg: cfg}
	o := &nn.EmbeddingOptions{Padding: unknown, HasPadding: true, Init: nn.Normal(0.3)}
	n.Words = nn.NewEmbedding(v.Known, cfg.Embedding, o)
	width := cfg.Embedding
	if cfg.Pairs == "on" {
		n.Pairs = nn.NewEmbedding(v.Pairs.Len(), pairWidth(cfg), o)
		width += 2 * pairWidth(cfg)
	}
	if cfg.Affixes > 0 {
		n.Affixes = nn.NewEmbedding(v.Affixes.Len(), cfg.Affixes, o)
		width += affixCount * cfg.Affixes
	}
	if n.Chars = newChars(cfg, v.Chars.Len()); n.Chars != nil {
		width += n.Chars.width()
	}
	var err error
	if n.RNN, err = cfg.RNNConfig.Build(width); err != nil {
		return nil, err
	}
	n.Head = nn.NewLinear(n.RNN.OutputSize(), len(tags), nil)
	if cfg.Decoder == "crf" {
		n.CRF = nn.NewCRF(len(tags), rules(tags, spans))
	}
	return n, nil
}

// rules returns the forbidden transitions between tags; nil without spans.
func rules(tags []string, spans bool) *nn.CRFOptions {
	if !spans {
		return nil
	}
	return &nn.CRFOptions{Forbidden: forbidden(tags)}
}

// pairWidth returns the size of a pair's vector.
func pairWidth(cfg *Config) int { return (cfg.Embedding + 1) / 2 }

// decoder returns the decoder of the network's scores.
func (n *network) decoder(tags []string, spans bool) *Decoder {
	if n.CRF != nil {
		return NewDecoder(n.CRF.Read())
	}
	return NewDecoder(rules(tags, spans).Costs(len(tags)))
}

// batch is pieces padded to the length of the longest.
type batch struct {
	rows, steps int
	items       int // number of tokens without padding
	lengths     []int32
	ids         []int32 // [rows,steps] words
	pairs       []int32 // [rows,steps,2]
	tags        []int32 // [rows,steps]
	ones        []float32

	distinct []int32    // the distinct words
	gather   []int32    // [rows,steps] indices in distinct
	place    []int32    // by word of the corpus: its index in distinct; -1 if it is not there
	affixes  []int32    // [distinct,affixCount]
	longest  int        // characters of the longest word word
	letters  []int32    // [distinct]
	chars    [3][]int32 // [distinct,longest] the character before, at, and after each position
}

// load fills a batch with pieces of d, and with their tags if they are numbered.
func (b *batch) load(d *corpus, list []int) {
	b.rows, b.steps, b.items = len(list), 1, 0
	for _, i := range list {
		b.steps = max(b.steps, d.pieces[i].len())
		b.items += d.pieces[i].len()
	}
	n := b.rows * b.steps
	b.ids, b.gather, b.tags, b.pairs = train.Resize(b.ids, n), train.Resize(b.gather, n), train.Resize(b.tags, n), train.Resize(b.pairs, 2*n)
	b.lengths, b.distinct = b.lengths[:0], b.distinct[:0]
	for len(b.place) < len(d.words) {
		b.place = append(b.place, -1)
	}
	for r, i := range list {
		p := d.pieces[i]
		b.lengths = append(b.lengths, int32(p.len()))
		for t := range b.steps {
			at := r*b.steps + t
			if t >= p.len() {
				b.ids[at], b.gather[at], b.tags[at], b.pairs[2*at], b.pairs[2*at+1] = unknown, 0, 0, unknown, unknown
				continue
			}
			w := d.tokens[p.from+t]
			if b.place[w] < 0 {
				b.place[w] = int32(len(b.distinct))
				b.distinct = append(b.distinct, w)
			}
			b.ids[at], b.gather[at] = d.words[w].id, b.place[w]
			if d.gold != nil {
				b.tags[at] = max(d.gold[p.from+t], 0) // a tag that does not occur in training is replaced by the first
			}
			if d.pairs != nil {
				copy(b.pairs[2*at:], d.pairs[2*(p.from+t):][:2])
			}
		}
	}
	b.loadSpelling(d)
	for _, w := range b.distinct {
		b.place[w] = -1
	}
	for len(b.ones) < n {
		b.ones = append(b.ones, 1)
	}
}

// loadSpelling sets the characters and affixes of the distinct words.
func (b *batch) loadSpelling(d *corpus) {
	b.affixes, b.letters, b.longest = b.affixes[:0], b.letters[:0], 1
	for _, w := range b.distinct {
		b.affixes = append(b.affixes, d.words[w].affixes...)
		b.longest = max(b.longest, len(d.words[w].chars)-2)
	}
	for k := range b.chars {
		b.chars[k] = train.Resize(b.chars[k], len(b.distinct)*b.longest)
		clear(b.chars[k])
	}
	for i, w := range b.distinct {
		c := d.words[w].chars
		n := max(len(c)-2, 0)
		b.letters = append(b.letters, int32(n))
		for k := range b.chars {
			copy(b.chars[k][i*b.longest:(i+1)*b.longest], c[min(k, len(c)):][:n])
		}
	}
}

// scores returns the scores of the tags [rows,steps,tags].
func (n *network) scores(t *tensor.Tape, b *batch) *tensor.Tensor {
	x := n.Words.Forward(t.IDs(b.ids, b.lengths, b.rows, b.steps))
	if p := float32(n.cfg.WordDropout); p > 0 && t.Mode() == tensor.Train {
		// The vector of a hidden word is that of the unknown: zero. The others are not scaled.
		keep := tensor.Dropout(t.Input(b.ones[:b.rows*b.steps], b.rows, b.steps, 1), p)
		x = tensor.Mul(x, tensor.Repeat(tensor.Reshape(tensor.MulScalar(keep, 1-p), b.rows, b.steps), 2, n.cfg.Embedding))
	}
	parts := make([]*tensor.Tensor, 0, 3)
	parts = append(parts, x)
	if n.Pairs != nil {
		pairs := n.Pairs.Forward(t.IDs(b.pairs, nil, b.rows, b.steps, 2))
		parts = append(parts, tensor.Reshape(pairs, b.rows, b.steps, 2*pairWidth(n.cfg)))
	}
	if spelled := n.spelling(t, b); spelled != nil {
		parts = append(parts, tensor.Embed(spelled, t.IDs(b.gather, b.lengths, b.rows, b.steps), -1))
	}
	if len(parts) > 1 {
		x = tensor.Concat(-1, parts...)
	}
	y, _ := n.RNN.Forward(tensor.Dropout(x, float32(n.cfg.Dropout)), nil)
	return n.Head.Forward(tensor.Dropout(y, float32(n.cfg.Dropout)))
}

// spelling returns a vector per distinct word of the batch [distinct,width], or
// nil.
func (n *network) spelling(t *tensor.Tape, b *batch) *tensor.Tensor {
	var affixes *tensor.Tensor
	if n.Affixes != nil {
		affixes = n.Affixes.Forward(t.IDs(b.affixes, nil, len(b.distinct), affixCount))
		affixes = tensor.Reshape(affixes, len(b.distinct), affixCount*n.cfg.Affixes)
	}
	if n.Chars == nil {
		return affixes
	}
	c := n.Chars.forward(t, b)
	if affixes == nil {
		return c
	}
	return tensor.Concat(-1, affixes, c)
}

// loss returns the mean loss over a batch's tokens.
func (n *network) loss(t *tensor.Tape, b *batch) *tensor.Tensor {
	return n.lossOf(t, b, n.scores(t, b))
}

func (n *network) lossOf(t *tensor.Tape, b *batch, scores *tensor.Tensor) *tensor.Tensor {
	tags := t.IDs(b.tags, nil, b.rows, b.steps)
	if n.CRF != nil {
		return n.CRF.Loss(scores, tags)
	}
	return tensor.CrossEntropy(scores, tags, nil)
}
