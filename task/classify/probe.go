package classify

import (
	"context"
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe returns a function that computes, on a tape in Train mode, the mean loss
// of the first rows texts whose labels the model has: explain gradients measures
// the network with it. Data without such a text is a *data.InputError; rows below
// 1 is an error; a cancelled ctx returns its error.
func (m *Model) Probe(ctx context.Context, d *Data, rows int) (_ func(*tensor.Tape) *tensor.Tensor, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "classify: Probe")
	if rows < 1 {
		return nil, fmt.Errorf("classify: Probe: needs rows, got %d", rows)
	}
	number := numbers(m.classes)
	c, list := &corpus{}, []int(nil)
	for _, e := range d.Of(task.All) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.add(&e, m.tokenizer, m.cfg.Truncate, number)
		if i := c.len() - 1; len(c.labels[i]) > 0 {
			list = append(list, i)
		}
		if len(list) == rows {
			break
		}
	}
	if len(list) == 0 {
		return nil, data.InFile(d.file, data.Errorf("no text has a label of the model"))
	}
	b := &batch{weight: m.classWeights()}
	b.load(c, list, m.tokenizer.Vocabulary().PadID())
	b.loadLabels(c, list, len(m.classes), m.several())
	return func(t *tensor.Tape) *tensor.Tensor { return m.net.loss(t, b) }, nil
}
