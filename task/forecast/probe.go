package forecast

import (
	"context"
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe returns a function that computes, on a tape in Train mode, the mean loss
// of about rows windows, spread evenly over the test part: explain gradients
// measures the network, of several members the first, with it. For an autoregressive network only the last step
// has a loss. A table that does not fit the model and a test part without a
// window are a *data.InputError; rows below 1 is an error; a cancelled ctx returns
// its error.
func (m *Model) Probe(ctx context.Context, from *Data, rows int) (_ func(*tensor.Tape) *tensor.Tensor, err error) {
	defer tensor.Recover(&err)
	task.NeedData(from, "forecast: Probe")
	task.NeedData(from.Panel, "forecast: Probe")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d, list, _, err := m.scored(from.Panel, task.Test, 0)
	if err != nil { // such as of the table of training, without its test part
		d, list, _, err = m.scored(from.Panel, task.All, 0)
	}
	if err != nil {
		return nil, data.InFile(from.Name, err)
	}
	if rows < 1 {
		return nil, fmt.Errorf("forecast: Probe: needs rows, got %d", rows)
	}
	b := &batch{}
	d.load(b, thin(list, (len(list)+rows-1)/rows), true)
	if m.cfg.Head == "autoregressive" {
		steps := len(b.weight) / (b.rows * d.channels)
		for r := range b.rows {
			clear(b.weight[r*steps*d.channels : ((r+1)*steps-1)*d.channels])
		}
	}
	return func(t *tensor.Tape) *tensor.Tensor { return m.net.loss(t, b) }, nil
}
