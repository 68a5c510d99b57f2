package train

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/tensor"
)

// sum adds the gradients of a rank's batches in the order that [World]
// describes, as they arrive: level l holds the sum of 2^l batches that waits
// for its neighbour. After batch i the occupied levels are the set bits of i+1,
// and adding a batch works like counting in binary.
type sum struct {
	slab   *tensor.Slab
	levels []device.Buffer
}

// put moves the gradient of batch i out of the slab and leaves zeros.
func (s *sum) put(i int) {
	b, g := s.slab.Device().Backend(), s.slab.Grads()
	level := 0
	for ; i>>level&1 == 1; level++ {
		b.Copy(g, s.levels[level], true)
	}
	if level == len(s.levels) {
		s.levels = append(s.levels, b.Alloc(g.N))
	}
	b.Copy(s.levels[level], g, false)
	b.Fill(g, 0)
}

// finish adds all waiting sums to [lo,hi) of the slab's gradient, which is that
// of the last batch, i.
func (s *sum) finish(i, lo, hi int) {
	b, g := s.slab.Device().Backend(), s.slab.Grads().Slice(lo, hi)
	for level := 0; i>>level > 0; level++ {
		if i>>level&1 == 1 {
			b.Copy(g, s.levels[level].Slice(lo, hi), true)
		}
	}
}
