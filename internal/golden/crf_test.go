package golden_test

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/tensor"
)

func TestCRF(t *testing.T) {
	forEach(t, "crf", func(t *testing.T, dev *tensor.Device, c *golden.Case) {
		tape := tensor.NewTape(dev, tensor.Train)
		w := c.Tensor("scores")
		scores := tape.Sequences(w.Data, ids32(c, "lengths"), w.Dims[0], w.Dims[1], w.Dims[2]).RequireGrad()
		trans, start, end := input(tape, c, "trans"), input(tape, c, "start"), input(tape, c, "end")
		loss := tensor.CRF(scores, trans, start, end, tape.IDs(ids32(c, "tags"), nil, w.Dims[0], w.Dims[1]))
		checkValues(t, "loss", loss.Data(), c.Tensor("loss").Data)
		loss.Backward()
		checkGradient(t, "scores", scores.Grad(), c.Tensor("dscores").Data)
		checkGradient(t, "transitions", trans.Grad(), c.Tensor("dtrans").Data)
		checkGradient(t, "start", start.Grad(), c.Tensor("dstart").Data)
		checkGradient(t, "end", end.Grad(), c.Tensor("dend").Data)
	})
}
