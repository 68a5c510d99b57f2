package nn

import (
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// Linear is y = x·Wᵀ + b along the last dimension (torch.nn.Linear).
type Linear struct {
	Weight *tensor.Param // weight [out,in], U(-1/√in, 1/√in)
	Bias   *tensor.Param // bias [out], likewise; nil without
}

// LinearOptions changes a Linear; nil has a bias.
type LinearOptions struct {
	NoBias bool
	Init   tensor.Init // of the weight; nil is PyTorch's
}

// NewLinear maps in features to out.
func NewLinear(in, out int, o *LinearOptions) *Linear {
	if o == nil {
		o = &LinearOptions{}
	}
	uniform := Uniform(1 / math.Sqrt(float64(in)))
	init := o.Init
	if init == nil {
		init = uniform
	}
	l := &Linear{Weight: tensor.NewParam("weight", init, out, in)}
	if !o.NoBias {
		l.Bias = tensor.NewParam("bias", uniform, out)
		l.Bias.NoDecay = true
	}
	return l
}

// Forward maps x [...,in] to [...,out].
func (l *Linear) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.Linear(x, l.Weight.T(), l.Bias.T())
}

// Embedding is a table of vectors, one a token (torch.nn.Embedding, initial
// values N(0,1)). To tie it to an output layer, use its Weight there:
// &Linear{Weight: e.Weight}.
type Embedding struct {
	Weight  *tensor.Param // weight [V,D]
	padding int
}

// EmbeddingOptions changes an Embedding.
type EmbeddingOptions struct {
	Padding    int // with HasPadding: the id whose row starts at zero and gets no gradient
	HasPadding bool
	Init       tensor.Init // nil is N(0,1)
}

// NewEmbedding has vocabulary rows of dim numbers.
func NewEmbedding(vocabulary, dim int, o *EmbeddingOptions) *Embedding {
	if o == nil {
		o = &EmbeddingOptions{}
	}
	init := o.Init
	if init == nil {
		init = Normal(1)
	}
	e := &Embedding{padding: -1}
	if o.HasPadding {
		e.padding = o.Padding
		init = zeroRow(init, o.Padding)
	}
	e.Weight = tensor.NewParam("weight", init, vocabulary, dim)
	return e
}

// Forward looks up ids [...] as [...,dim]; lengths of the ids pass on.
func (e *Embedding) Forward(ids *tensor.Ints) *tensor.Tensor {
	return tensor.Embed(e.Weight.T(), ids, e.padding)
}

// LayerNorm normalises the last dimension (torch.nn.LayerNorm).
type LayerNorm struct {
	Weight *tensor.Param // weight [F], ones
	Bias   *tensor.Param // bias [F], zeros
	Eps    float32       // inside the root; NewLayerNorm gives PyTorch's 1e-5, Keras has 1e-3
}

// NewLayerNorm is over n features.
func NewLayerNorm(n int) *LayerNorm {
	l := &LayerNorm{tensor.NewParam("weight", Constant(1), n), tensor.NewParam("bias", nil, n), 1e-5}
	l.Weight.NoDecay, l.Bias.NoDecay = true, true
	return l
}

// Forward normalises each vector of x [...,F].
func (l *LayerNorm) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.LayerNorm(x, l.Weight.T(), l.Bias.T(), l.Eps)
}

// Dropout zeroes elements with probability P on a training tape (torch.nn.Dropout).
type Dropout struct{ P float32 }

// NewDropout drops with probability p in [0,1).
func NewDropout(p float32) *Dropout { return &Dropout{p} }

// Forward drops elements of x, or returns x itself on a tape that infers.
func (d *Dropout) Forward(x *tensor.Tensor) *tensor.Tensor { return tensor.Dropout(x, d.P) }
