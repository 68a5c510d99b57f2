package tag

import (
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe reads up to rows tagged sentences from the beginning of a source and
// gives the loss of those whose tags are known on a tape in Train mode: to look
// into the network, as package explain does.
func (m *Model) Probe(source Source, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	if rows < 1 {
		return nil, fmt.Errorf("tag: Probe: needs rows, got %d", rows)
	}
	d := newCorpus()
	err := d.read(func(yield func(data.Sentence, error) bool) {
		n := 0
		for s, err := range source {
			if n++; !yield(s, err) || n == rows {
				return
			}
		}
	}, m.cfg.MaxLength, nil)
	if err != nil {
		return nil, err
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
		return nil, data.Errorf("there is no sentence whose tags the model knows")
	}
	b := &batch{}
	b.load(d, list)
	return func(t *tensor.Tape) *tensor.Tensor { return m.net.loss(t, b) }, nil
}
