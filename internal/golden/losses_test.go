package golden_test

import (
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/tensor"
)

type lossSettings struct {
	Loss      string
	Delta     float32
	Quantiles []float32
	Ignore    int32
	Smoothing float32

	Blank        int
	Sum          bool
	Short        []int
	Lengths      []int32
	LabelLengths []int32 `json:"label_lengths"`
}

func TestLosses(t *testing.T) {
	forEach(t, "losses", func(t *testing.T, dev *tensor.Device, c *golden.Case) {
		var s lossSettings
		settings(t, c, &s)
		tape := tensor.NewTape(dev, tensor.Train)
		pred := input(tape, c, "pred")
		if s.Lengths != nil {
			w := c.Tensor("pred")
			pred = tape.Sequences(w.Data, s.Lengths, w.Dims[0], w.Dims[1], w.Dims[2]).RequireGrad()
		}
		loss := lossOf(t, tape, c, &s, pred)
		checkValues(t, "loss", loss.Data(), c.Tensor("loss").Data)
		loss.Backward()
		checkGradient(t, "prediction", pred.Grad(), c.Tensor("dpred").Data)
	})
}

func lossOf(t *testing.T, tape *tensor.Tape, c *golden.Case, s *lossSettings, pred *tensor.Tensor) *tensor.Tensor {
	if s.Loss == "cross_entropy" {
		o := &tensor.CrossEntropyOptions{Ignore: s.Ignore, Smoothing: s.Smoothing}
		if c.Has("class_weight") {
			o.ClassWeight = c.Tensor("class_weight").Data
		}
		return tensor.CrossEntropy(pred, tape.IDs(ids32(c, "classes"), nil, c.Tensor("classes").Dims...), o)
	}
	if s.Loss == "ctc" {
		labels := tape.IDs(ids32(c, "classes"), s.LabelLengths, c.Tensor("classes").Dims...)
		loss, short := tensor.CTC(pred, labels, &tensor.CTCOptions{Blank: s.Blank, Sum: s.Sum})
		if !slices.Equal(short, s.Short) {
			t.Errorf("rows too short for their labels are %v, want %v", short, s.Short)
		}
		return loss
	}
	target := constant(tape, c, "target")
	o := &tensor.LossOptions{Weight: constant(tape, c, "weight")}
	switch s.Loss {
	case "mse":
		return tensor.MSE(pred, target, o)
	case "mae":
		return tensor.MAE(pred, target, o)
	case "huber":
		return tensor.Huber(pred, target, s.Delta, o)
	case "pinball":
		return tensor.Pinball(pred, target, s.Quantiles, o)
	case "gaussian":
		return tensor.Gaussian(pred, target, o)
	case "student_t":
		return tensor.StudentT(pred, target, o)
	case "neg_binomial":
		return tensor.NegBinomial(pred, target, o)
	case "bce":
		return tensor.BCE(pred, target, o)
	}
	t.Fatalf("unknown loss %s", s.Loss)
	return nil
}
