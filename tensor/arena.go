package tensor

import "github.com/carousel-ml/carousel/internal/device"

// arena lends device memory that lives until reset. Its blocks stay, so that
// the next pass of the same shapes finds each piece where it was.
type arena struct {
	backend device.Backend
	blocks  []device.Buffer
	block   int // the one being lent from
	used    int // elements of it lent
	total   int // elements of all blocks
}

const (
	cacheLine     = 16      // elements; every allocation starts on one
	smallestBlock = 1 << 16 // elements
	mostBlocks    = 32      // more are joined into one
)

// alloc lends n elements with unspecified contents.
func (a *arena) alloc(n int) device.Buffer {
	if n == 0 {
		return device.Buffer{}
	}
	size := (n + cacheLine - 1) &^ (cacheLine - 1)
	for a.block < len(a.blocks) && a.used+size > a.blocks[a.block].N {
		a.block, a.used = a.block+1, 0
	}
	if a.block == len(a.blocks) {
		b := a.backend.Alloc(max(size, smallestBlock, a.total/2))
		a.blocks = append(a.blocks, b)
		a.total += b.N
	}
	b := a.blocks[a.block].Slice(a.used, a.used+n)
	a.used += size
	return b
}

func (a *arena) reset() {
	a.block, a.used = 0, 0
	if len(a.blocks) <= mostBlocks {
		return
	}
	for _, b := range a.blocks {
		a.backend.Free(b)
	}
	clear(a.blocks)
	a.blocks = append(a.blocks[:0], a.backend.Alloc(a.total))
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
