package keywords

import (
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe returns a function that computes, on a tape in Train mode, the mean loss
// of the first rows sounds whose labels the model has: explain gradients measures
// the network with it. Data without such a sound and files that cannot be used
// are a *data.InputError; rows below 1 is an error; a cancelled ctx
// returns its error.
func (m *Model) Probe(ctx context.Context, d *Data, rows int) (_ func(*tensor.Tape) *tensor.Tensor, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "keywords: Probe")
	if rows < 1 {
		return nil, fmt.Errorf("keywords: Probe: needs rows, got %d", rows)
	}
	var list []speech.Utterance
	for _, u := range d.Of(task.All) {
		if _, known := slices.BinarySearch(m.classes, u.Text); known && len(list) < rows {
			list = append(list, u)
		}
	}
	if len(list) == 0 {
		return nil, data.Errorf("no sound has a label of the model")
	}
	c, err := m.frontend.Dataset(ctx, list, &d.Data)
	if err != nil {
		return nil, err
	}
	if c.Labels, err = labelsOf(list, m.classes); err != nil {
		return nil, err
	}
	b, err := c.First(rows)
	return func(t *tensor.Tape) *tensor.Tensor { return m.loss(t, b) }, err
}
