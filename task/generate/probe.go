package generate

import (
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe reads up to rows segments of Config.Steps tokens, spread over documents,
// and gives the loss of the token after each on a tape in Train mode: to look into
// the network, as package explain does.
func (m *Model) Probe(docs []data.Document, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	if rows < 1 {
		return nil, fmt.Errorf("generate: Probe: needs rows, got %d", rows)
	}
	c := newCorpus(m.codec, docs)
	if c.tokens == 0 {
		return nil, data.Errorf("there is no text to look at")
	}
	rows = min(rows, max(c.tokens/m.cfg.BPTT, 1))
	b := &batch{}
	newStreams(c, rows, m.cfg.BPTT, false, 0).load(b, 0, 0)
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
