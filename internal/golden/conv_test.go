package golden_test

import (
	"encoding/json"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/tensor"
)

type convSettings struct {
	Op      string
	Options struct {
		Stride          numbers
		Padding         numbers
		Dilation        numbers
		Output_padding  numbers //nolint:revive // PyTorch's name
		Kernel_size     numbers //nolint:revive // PyTorch's name
		Groups          int
		Ceil_mode       bool  //nolint:revive // PyTorch's name
		CountIncludePad *bool `json:"count_include_pad"`
	}
	Lengths []int32
}

// numbers is one number or one per axis.
type numbers [2]int

func (n *numbers) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &n[0]) == nil {
		return nil
	}
	return json.Unmarshal(b, (*[2]int)(n))
}

func TestConvolutions(t *testing.T) {
	forEach(t, "convolutions", func(t *testing.T, dev *tensor.Device, c *golden.Case) {
		var s convSettings
		settings(t, c, &s)
		tape := tensor.NewTape(dev, tensor.Train)
		x := input(tape, c, "x")
		if s.Lengths != nil {
			v := c.Tensor("x")
			x = tape.Sequences(v.Data, s.Lengths, v.Dims[0], v.Dims[1], v.Dims[2]).RequireGrad()
		}
		var in []*tensor.Tensor
		for _, n := range c.Names("in.") {
			in = append(in, input(tape, c, "in."+n))
		}
		var y *tensor.Tensor
		if s.Op == "batch_norm" {
			y = testBatchNorm(t, dev, c, x, in[0], in[1])
		} else {
			y = windowed(&s, x, append(in, nil, nil))
		}
		checkValues(t, "y", y.Data(), c.Tensor("y").Data)
		weighted(y, constant(tape, c, "py")).Backward()
		checkGradient(t, "x", x.Grad(), c.Tensor("dx").Data)
		for i, n := range c.Names("in.") {
			checkGradient(t, "operand "+n, in[i].Grad(), c.Tensor("d."+n).Data)
		}
	})
}

// windowed calls an operation as torch.nn.functional does.
func windowed(s *convSettings, x *tensor.Tensor, in []*tensor.Tensor) *tensor.Tensor {
	o := s.Options
	w := tensor.Windows{Kernel: o.Kernel_size, Stride: o.Stride, Dilation: o.Dilation, Ceil: o.Ceil_mode, CountPad: o.CountIncludePad == nil || *o.CountIncludePad}
	for i, p := range o.Padding {
		w.Padding[i] = [2]int{p, p}
	}
	conv := tensor.ConvOptions{Windows: w, Groups: o.Groups}
	switch s.Op {
	case "conv1d", "conv2d":
		return tensor.Conv(x, in[0], in[1], conv)
	case "conv_transpose1d", "conv_transpose2d":
		var size [2]int
		for i := range x.Rank() - 2 {
			size[i] = (x.Dim(1+i)-1)*max(o.Stride[i], 1) - 2*o.Padding[i] + max(o.Dilation[i], 1)*(in[0].Dim(2+i)-1) + o.Output_padding[i] + 1
		}
		return tensor.ConvTranspose(x, in[0], in[1], conv, size)
	case "max_pool1d", "max_pool2d":
		return tensor.WindowMax(x, w)
	}
	return tensor.WindowMean(x, w)
}

// testBatchNorm checks running statistics and inference, and returns the result in training.
func testBatchNorm(t *testing.T, dev *tensor.Device, c *golden.Case, x, gamma, beta *tensor.Tensor) *tensor.Tensor {
	stats := struct{ Mean, Var *tensor.Param }{tensor.NewParam("mean", nil, 5), tensor.NewParam("var", nil, 5)}
	tensor.Pack(dev, stats, 0)
	stats.Mean.Write(c.Tensor("mean").Data)
	stats.Var.Write(c.Tensor("var").Data)
	tape := tensor.NewTape(dev, tensor.Infer)
	of := func(x *tensor.Tensor) *tensor.Tensor { return tape.Input(x.Data(), x.Dims()...) }
	checkValues(t, "inference", tensor.BatchNorm(of(x), of(gamma), of(beta), stats.Mean, stats.Var, 0.25, 1e-5).Data(), c.Tensor("infer").Data)
	y := tensor.BatchNorm(x, gamma, beta, stats.Mean, stats.Var, 0.25, 1e-5)
	checkValues(t, "running mean", stats.Mean.Read(), c.Tensor("mean_after").Data)
	checkValues(t, "running variance", stats.Var.Read(), c.Tensor("var_after").Data)
	return y
}
