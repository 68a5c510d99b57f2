package forecast

import (
	"fmt"

	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe gives the loss of about rows windows, spread evenly over the test part, on
// a tape in Train mode: to look into the network, as explain gradients does. An
// autoregressive network answers for the last step alone. A test part without a
// window is a *data.InputError.
func (m *Model) Probe(from *Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	d, list, err := m.scored(from.Panel, task.Test, 1)
	if err != nil {
		return nil, err
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
