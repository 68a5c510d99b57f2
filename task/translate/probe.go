package translate

import (
	"context"
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe returns the loss of a batch of the first rows pairs of all data, as a function
// of a tape in Train mode, for explain gradients. Pairs with an empty side or more than
// MaxLength tokens are left out. The error is a *data.InputError if none is left, or
// about rows if it is less than 1; a cancelled ctx returns its error.
func (m *Model) Probe(ctx context.Context, d *Data, rows int) (_ func(*tensor.Tape) *tensor.Tensor, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "translate: Probe")
	if rows < 1 {
		return nil, fmt.Errorf("translate: Probe: needs rows, got %d", rows)
	}
	pairs := d.Of(task.All)
	c, err := encodePairs(ctx, pairs[:min(rows, len(pairs))], &m.cfg, m.tok)
	if err != nil {
		return nil, err
	}
	if c.source.len() == 0 {
		return nil, data.InFile(d.file, data.Errorf("no usable pair of sentences among the first %d", rows))
	}
	samples := make([]int, c.source.len())
	for i := range samples {
		samples[i] = i
	}
	b := &batch{}
	v := m.tok.target.Vocabulary()
	b.load(c, samples, v.BeginID(), v.EndID(), false)
	return func(t *tensor.Tape) *tensor.Tensor { return m.net.loss(t, b, float32(m.cfg.Smoothing)) }, nil
}
