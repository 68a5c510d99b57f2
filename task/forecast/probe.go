package forecast

import (
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe readies about rows windows of a table, spread evenly over the test part,
// and gives the loss of their forecasts on a tape in Train mode: to look into the
// network, as package explain does. An autoregressive network answers for the
// last step alone.
func (m *Model) Probe(panel *data.Panel, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	d, err := m.dataset(panel, false)
	if err != nil {
		return nil, err
	}
	list := d.windows(testPart, 1)
	if len(list) == 0 {
		return nil, data.Errorf("the test part holds no window: it needs %d rows, and %d rows of history before them", d.horizon, d.reach)
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
