package tensor

import "github.com/carousel-ml/carousel/internal/device"

// arena lends device memory that lives until reset. What one pass needed in
// several pieces the next pass gets in one.
type arena struct {
	backend device.Backend
	blocks  []device.Buffer
	used    int // elements lent from the last block
	total   int // elements of all blocks before the last
}

const (
	cacheLine     = 16      // elements; every allocation starts on one
	smallestBlock = 1 << 16 // elements
)

// alloc lends n elements with unspecified contents.
func (a *arena) alloc(n int) device.Buffer {
	if n == 0 {
		return device.Buffer{}
	}
	size := (n + cacheLine - 1) &^ (cacheLine - 1)
	last := len(a.blocks) - 1
	if last < 0 || a.used+size > a.blocks[last].N {
		want := max(size, smallestBlock)
		if last >= 0 {
			a.total += a.blocks[last].N
			want = max(want, a.total)
		}
		a.blocks = append(a.blocks, a.backend.Alloc(want))
		a.used = 0
		last++
	}
	b := a.blocks[last].Slice(a.used, a.used+n)
	a.used += size
	return b
}

func (a *arena) reset() {
	if len(a.blocks) > 1 {
		n := 0
		for _, b := range a.blocks {
			n += b.N
			a.backend.Free(b)
		}
		a.blocks = append(a.blocks[:0], a.backend.Alloc(n))
	}
	a.used, a.total = 0, 0
}

// intArena lends []int32 the same way.
type intArena struct {
	block []int32
	used  int
	need  int
}

func (a *intArena) alloc(n int) []int32 {
	a.need += n
	if a.used+n > len(a.block) {
		return make([]int32, n) // the next pass gets a block that is large enough
	}
	s := a.block[a.used : a.used+n : a.used+n]
	a.used += n
	return s
}

func (a *intArena) copy(v []int32) []int32 {
	s := a.alloc(len(v))
	copy(s, v)
	return s
}

func (a *intArena) reset() {
	if a.need > len(a.block) {
		a.block = make([]int32, a.need)
	}
	a.used, a.need = 0, 0
}

// chunks is a growing list of structs that keep their address and are used
// again after reset.
type chunks[T any] struct {
	list []*[64]T
	n    int
}

// next is a zeroed struct.
func (c *chunks[T]) next() *T {
	if c.n == len(c.list)*64 {
		c.list = append(c.list, new([64]T))
	}
	x := c.at(c.n)
	c.n++
	var zero T
	*x = zero
	return x
}

func (c *chunks[T]) at(i int) *T { return &c.list[i/64][i%64] }
func (c *chunks[T]) len() int    { return c.n }
func (c *chunks[T]) reset()      { c.n = 0 }
