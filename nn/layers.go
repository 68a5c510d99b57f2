package nn

import (
	"cmp"
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// Linear is y = x·Wᵀ + b along the last dimension (torch.nn.Linear).
type Linear struct {
	Weight *tensor.Param // weight [out,in], U(-1/√in, 1/√in)
	Bias   *tensor.Param // bias [out], likewise; nil without
}

// LinearOptions changes a Linear; nil means a bias and PyTorch's initial values.
type LinearOptions struct {
	NoBias bool
	Init   tensor.Init // of the weight; nil means PyTorch's
}

// noDecay returns a parameter without weight decay.
func noDecay(name string, init tensor.Init, dims ...int) *tensor.Param {
	p := tensor.NewParam(name, init, dims...)
	p.NoDecay = true
	return p
}

// NewLinear returns a layer from in features to out. Sizes must be positive; others
// panic with a [*tensor.ShapeError], as for [NewEmbedding] and [NewLayerNorm].
func NewLinear(in, out int, o *LinearOptions) *Linear {
	o = cmp.Or(o, &LinearOptions{})
	uniform := Uniform(1 / math.Sqrt(float64(in)))
	init := o.Init
	if init == nil {
		init = uniform
	}
	l := &Linear{Weight: tensor.NewParam("weight", init, out, in)}
	if !o.NoBias {
		l.Bias = noDecay("bias", uniform, out)
	}
	return l
}

// Forward maps x [...,in] to [...,out].
func (l *Linear) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.Linear(x, l.Weight.T(), l.Bias.T())
}

// Embedding is a table of vectors, one per token (torch.nn.Embedding, initial values
// N(0,1)). To tie an output layer to it, share its weight: &Linear{Weight: e.Weight}.
type Embedding struct {
	Weight  *tensor.Param // weight [V,D]
	padding int
}

// EmbeddingOptions changes an Embedding; nil means no padding.
type EmbeddingOptions struct {
	Padding    int // with HasPadding: the id, 0 to V-1, whose row starts as zeros and gets no gradient
	HasPadding bool
	Init       tensor.Init // nil means N(0,1)
}

// NewEmbedding returns a table of vocabulary rows of dim numbers.
func NewEmbedding(vocabulary, dim int, o *EmbeddingOptions) *Embedding {
	o = cmp.Or(o, &EmbeddingOptions{})
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
	e.Weight.Rows = true
	return e
}

// Forward returns the vectors of ids [...], [...,dim], with the lengths of ids. It
// panics with a [*tensor.ShapeError] for an id outside 0 to V-1.
func (e *Embedding) Forward(ids *tensor.Ints) *tensor.Tensor {
	return tensor.Embed(e.Weight.T(), ids, e.padding)
}

// LayerNorm normalises the last dimension (torch.nn.LayerNorm).
type LayerNorm struct {
	Weight *tensor.Param // weight [F], ones
	Bias   *tensor.Param // bias [F], zeros
	Eps    float32       // inside the root; NewLayerNorm sets PyTorch's 1e-5, Keras has 1e-3
}

// NewLayerNorm returns a normalisation of n features.
func NewLayerNorm(n int) *LayerNorm {
	return &LayerNorm{noDecay("weight", Constant(1), n), noDecay("bias", nil, n), 1e-5}
}

// Forward normalises each vector of x [...,F].
func (l *LayerNorm) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.LayerNorm(x, l.Weight.T(), l.Bias.T(), l.Eps)
}

// Dropout zeroes elements with probability P on a training tape (torch.nn.Dropout).
type Dropout struct{ P float32 }

// NewDropout returns a dropout with probability p in [0,1).
func NewDropout(p float32) *Dropout { return &Dropout{p} }

// Forward applies [tensor.Dropout], which in Infer mode returns x itself.
func (d *Dropout) Forward(x *tensor.Tensor) *tensor.Tensor { return tensor.Dropout(x, d.P) }
