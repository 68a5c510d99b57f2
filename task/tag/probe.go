package tag

import (
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe returns a function that computes, on a tape in Train mode, the mean loss of
// those of the first rows sentences whose tags are known: explain gradients measures
// the network with it. Data without such a sentence is a *data.InputError;
// a cancelled ctx returns its error.
func (m *Model) Probe(ctx context.Context, of *Data, rows int) (_ func(*tensor.Tape) *tensor.Tensor, err error) {
	defer tensor.Recover(&err)
	task.NeedData(of, "tag: Probe")
	if rows < 1 {
		return nil, fmt.Errorf("tag: Probe: needs rows, got %d", rows)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sentences := of.Of(task.All)
	d, err := encode(ctx, sentences[:min(rows, len(sentences))], m.cfg.PieceLength)
	if err != nil {
		return nil, data.InFile(of.file, err)
	}
	m.vocabularies.apply(d, &m.cfg)
	d.number(m.tags, m.spans())
	var list []int
	for i, p := range d.pieces {
		if len(list) < rows && !slices.Contains(d.gold[p.from:p.to], -1) {
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		return nil, data.InFile(of.file, data.Errorf("no sentence has only tags of the model"))
	}
	b := &batch{}
	b.load(d, list)
	return func(t *tensor.Tape) *tensor.Tensor { return m.net.loss(t, b) }, nil
}
