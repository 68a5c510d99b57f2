package transcribe

import (
	"context"
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe returns a function that computes, on a tape in Train mode, the mean loss
// of the first rows utterances whose texts have only tokens of the model: explain
// gradients measures the network with it. Data without such an utterance and
// files that cannot be used are a *data.InputError; rows below 1 is an error; a
// cancelled ctx returns its error.
func (m *Model) Probe(ctx context.Context, d *Data, rows int) (_ func(*tensor.Tape) *tensor.Tensor, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "transcribe: Probe")
	if rows < 1 {
		return nil, fmt.Errorf("transcribe: Probe: needs rows, got %d", rows)
	}
	var list []speech.Utterance
	for _, u := range d.Of(task.All) {
		if _, unknown := m.alphabet.encode(u.Text); unknown == nil && len(list) < rows {
			list = append(list, u)
		}
	}
	c, err := m.frontend.Dataset(ctx, list, &d.Data)
	if err != nil {
		return nil, err
	}
	m.alphabet.spell(c)
	if len(c.List) == 0 {
		return nil, data.Errorf("no utterance has only tokens of the model")
	}
	b, err := c.First(rows)
	return func(t *tensor.Tape) *tensor.Tensor { return m.loss(t, b) }, err
}
