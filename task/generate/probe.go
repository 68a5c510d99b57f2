package generate

import (
	"context"
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe returns a function that computes, on a tape in Train mode, the mean loss of
// the token after each of up to rows segments of Config.BPTT tokens, spread over the
// documents: explain gradients measures the network with it. Data without text is a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Probe(ctx context.Context, d *Data, rows int) (_ func(*tensor.Tape) *tensor.Tensor, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "generate: Probe")
	if rows < 1 {
		return nil, fmt.Errorf("generate: Probe: needs rows, got %d", rows)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := newCorpus(ctx, m.codec, d.Of(task.All), false, "")
	if err != nil {
		return nil, err
	}
	defer c.close(false)
	if c.Tokens == 0 {
		return nil, data.InFile(d.file, data.Errorf("there is no text"))
	}
	rows = min(rows, max(c.Tokens/m.cfg.BPTT, 1))
	b := &batch{}
	if err := newStreams(c, rows, m.cfg.BPTT, false, 0).load(b, 0, 0, 0, rows); err != nil {
		return nil, err
	}
	for r, n := range b.lengths {
		for t := range int(n) - 1 {
			b.targets[r*b.T+t] = ignored
		}
	}
	return func(tape *tensor.Tape) *tensor.Tensor {
		x, _, _, _ := m.net.steps(tape, b.input(tape), nil)
		return m.net.nats(x, b.targets)
	}, nil
}
