package classify

import (
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// Probe reads up to rows texts with known labels from the beginning of a source
// and gives their loss on a tape in Train mode: to look into the network, as
// package explain does.
func (m *Model) Probe(source Source, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	if rows < 1 {
		return nil, fmt.Errorf("classify: Probe: needs rows, got %d", rows)
	}
	number := map[string]int32{}
	for k, name := range m.classes {
		number[name] = int32(k)
	}
	c, list := &corpus{}, []int(nil)
	for e, err := range source() {
		if err != nil {
			return nil, err
		}
		c.add(&e, m.tokenizer, m.cfg.MaxLength, number)
		if i := c.len() - 1; i >= 0 && len(c.labels[i]) > 0 {
			list = append(list, i)
		}
		if len(list) == rows {
			break
		}
	}
	if len(list) == 0 {
		return nil, data.Errorf("there is no text with a label that the model knows")
	}
	b := &batch{weight: m.classWeights()}
	b.load(c, list, m.tokenizer.Vocabulary().PadID())
	b.loadLabels(c, list, len(m.classes), m.several())
	return func(t *tensor.Tape) *tensor.Tensor { return m.net.loss(t, b) }, nil
}
