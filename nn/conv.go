package nn

import (
	"cmp"
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// Conv1d is a convolution along time (torch.nn.Conv1d) of a batch [B,T,in] to
// [B,T',out]: features are last, as in all layers, while the weight has PyTorch's
// order. T' is (T + 2·padding - dilation·(kernel-1) - 1)/stride + 1, rounded down, and
// likewise for the lengths of rows; what is past a length is padding.
type Conv1d struct {
	Weight *tensor.Param // weight [out,in/groups,kernel], U(-b, b), b = 1/√(in/groups·kernel)
	Bias   *tensor.Param // bias [out], likewise; nil without

	options tensor.ConvOptions
}

// Conv1dOptions changes a Conv1d; a 0 means PyTorch's default.
type Conv1dOptions struct {
	Stride, Dilation, Groups int // 0 means 1
	Padding                  int // zeros at both ends of time
	NoBias                   bool
}

// NewConv1d returns a layer from in to out features. Sizes must be positive, and groups
// divide in and out; others panic with a [*tensor.ShapeError] or [*tensor.UseError], as
// for [NewConv2d].
func NewConv1d(in, out, kernel int, o *Conv1dOptions) *Conv1d {
	o = cmp.Or(o, &Conv1dOptions{})
	l := &Conv1d{options: tensor.ConvOptions{Groups: o.Groups,
		Windows: tensor.Windows{Stride: [2]int{o.Stride}, Dilation: [2]int{o.Dilation}, Padding: [2][2]int{{o.Padding, o.Padding}}}}}
	l.Weight, l.Bias = convParams("nn: Conv1d", in, out, o.Groups, o.NoBias, kernel)
	return l
}

// convParams returns the weight and the bias of a convolution.
func convParams(op string, in, out, groups int, noBias bool, kernel ...int) (w, b *tensor.Param) {
	groups = cmp.Or(groups, 1)
	tensor.Check(groups > 0 && in%groups == 0 && out%groups == 0, op, "%d groups must divide %d and %d features", groups, in, out)
	fan := in / groups
	for _, k := range kernel {
		fan *= k
	}
	init := Uniform(1 / math.Sqrt(float64(fan)))
	w = tensor.NewParam("weight", init, append([]int{out, in / groups}, kernel...)...)
	if !noBias {
		b = noDecay("bias", init, out)
	}
	return w, b
}

// Forward convolves x [B,T,in].
func (l *Conv1d) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.Conv(x, l.Weight.T(), l.Bias.T(), l.options)
}

// Conv2d is a convolution (torch.nn.Conv2d) of images [B,H,W,in] to [B,H',W',out]:
// features are last, while the weight has PyTorch's order. If x carries lengths, as
// after a [tensor.Reshape] of a batch [B,T,F] to [B,T,F,1], they are those of H.
type Conv2d struct {
	Weight *tensor.Param // weight [out,in/groups,kernel[0],kernel[1]], as in Conv1d
	Bias   *tensor.Param // bias [out], likewise; nil without

	options tensor.ConvOptions
}

// Conv2dOptions changes a Conv2d, with numbers for height and width; a 0 means PyTorch's default.
type Conv2dOptions struct {
	Stride, Dilation [2]int // 0 means 1
	Padding          [2]int // zeros at both ends
	Groups           int    // 0 means 1
	NoBias           bool
}

// NewConv2d returns a layer from in to out features with a kernel of that height and width.
func NewConv2d(in, out int, kernel [2]int, o *Conv2dOptions) *Conv2d {
	o = cmp.Or(o, &Conv2dOptions{})
	p := o.Padding
	l := &Conv2d{options: tensor.ConvOptions{Groups: o.Groups,
		Windows: tensor.Windows{Stride: o.Stride, Dilation: o.Dilation, Padding: [2][2]int{{p[0], p[0]}, {p[1], p[1]}}}}}
	l.Weight, l.Bias = convParams("nn: Conv2d", in, out, o.Groups, o.NoBias, kernel[0], kernel[1])
	return l
}

// Forward convolves x [B,H,W,in].
func (l *Conv2d) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.Conv(x, l.Weight.T(), l.Bias.T(), l.options)
}

// MaxPool1d is the maximum of each feature over windows along time
// (torch.nn.MaxPool1d): [B,T,F] to [B,T',F], with lengths as in [Conv1d].
type MaxPool1d struct {
	Kernel, Stride, Padding int // a stride of 0 means Kernel
	Ceil                    bool
}

// Forward pools x [B,T,F].
func (l *MaxPool1d) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.WindowMax(x, tensor.Windows{Kernel: [2]int{l.Kernel}, Stride: [2]int{l.Stride}, Padding: [2][2]int{{l.Padding, l.Padding}}, Ceil: l.Ceil})
}

// MaxPool2d is the maximum of each feature over windows (torch.nn.MaxPool2d): [B,H,W,F]
// to [B,H',W',F], with numbers for height and width and lengths as in [Conv2d].
type MaxPool2d struct {
	Kernel, Stride, Padding [2]int // a stride of 0 means Kernel
	Ceil                    bool
}

// Forward pools x [B,H,W,F].
func (l *MaxPool2d) Forward(x *tensor.Tensor) *tensor.Tensor {
	p := l.Padding
	return tensor.WindowMax(x, tensor.Windows{Kernel: l.Kernel, Stride: l.Stride, Padding: [2][2]int{{p[0], p[0]}, {p[1], p[1]}}, Ceil: l.Ceil})
}

// BatchNorm normalises each feature over a batch, with running statistics for inference
// (torch.nn.BatchNorm1d, BatchNorm2d), then scales and shifts; see [tensor.BatchNorm].
type BatchNorm struct {
	Weight      *tensor.Param // weight [n], ones
	Bias        *tensor.Param // bias [n], zeros
	RunningMean *tensor.Param // running_mean [n], zeros: a training pass sets it, no optimizer
	RunningVar  *tensor.Param // running_var [n], ones, likewise
	Momentum    float32       // share of a batch in the running statistics; NewBatchNorm sets PyTorch's 0.1
	Eps         float32       // added to the variance; NewBatchNorm sets PyTorch's 1e-5
}

// NewBatchNorm returns a normalisation of n features.
func NewBatchNorm(n int) *BatchNorm {
	mean, variance := noDecay("running_mean", nil, n), noDecay("running_var", Constant(1), n)
	mean.Running, variance.Running = true, true
	return &BatchNorm{noDecay("weight", Constant(1), n), noDecay("bias", nil, n), mean, variance, 0.1, 1e-5}
}

// Forward normalises each feature of x [B,T,n], [B,H,W,n] or [B,n].
func (l *BatchNorm) Forward(x *tensor.Tensor) *tensor.Tensor {
	return tensor.BatchNorm(x, l.Weight.T(), l.Bias.T(), l.RunningMean, l.RunningVar, l.Momentum, l.Eps)
}
