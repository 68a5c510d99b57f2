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

// Probe gives the loss of the first rows sounds whose labels the model knows, on a
// tape in Train mode: to look into the network, as explain gradients does. Data
// without such a sound is a *data.InputError.
func (m *Model) Probe(d *Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
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
		return nil, data.Errorf("there is no sound with a label that the model knows")
	}
	c, err := m.frontend.Dataset(context.Background(), list, d)
	if err != nil {
		return nil, err
	}
	if c.Labels, err = labelsOf(list, m.classes); err != nil {
		return nil, err
	}
	b, err := c.First(rows)
	return func(t *tensor.Tape) *tensor.Tensor { return m.loss(t, b) }, err
}
