package tensor

import "github.com/carousel-ml/carousel/internal/device"

// arena lends device memory that lives until reset. Its
// blocks stay, so that the next pass of the same shapes finds each piece where it was.
type arena[T float32 | int32] struct {
	get   func(n int) device.Memory[T]
	put   func(device.Memory[T])
	least int // elements of a block
	mem   []device.Memory[T]
	block int // the one being lent from
	used  int // elements of it lent
	total int // elements of all blocks
}

const (
	cacheLine  = 16 // elements; every allocation starts on one
	mostBlocks = 32 // more are joined into one
)

func newArenas(b device.Backend) (arena[float32], arena[int32]) {
	return arena[float32]{get: b.Alloc, put: b.Free, least: 1 << 16}, arena[int32]{get: b.AllocInts, put: b.FreeInts, least: 1 << 10}
}

// alloc lends n elements with unspecified contents.
func (a *arena[T]) alloc(n int) (m device.Memory[T]) {
	if n == 0 {
		return m
	}
	size := (n + cacheLine - 1) &^ (cacheLine - 1)
	for a.block < len(a.mem) && a.used+size > a.mem[a.block].N {
		a.block, a.used = a.block+1, 0
	}
	if a.block == len(a.mem) {
		block := max(size, a.least, a.total/2)
		a.mem = append(a.mem, a.get(block))
		a.total += block
	}
	m = a.mem[a.block].Slice(a.used, a.used+n)
	a.used += size
	return m
}

func (a *arena[T]) reset() {
	a.block, a.used = 0, 0
	if len(a.mem) <= mostBlocks {
		return
	}
	for _, m := range a.mem {
		a.put(m)
	}
	clear(a.mem)
	a.mem = append(a.mem[:0], a.get(a.total))
}

// intArena lends []int32 of the host.
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

// put is a copy of x.
func (c *chunks[T]) put(x T) *T {
	p := c.next()
	*p = x
	return p
}

func (c *chunks[T]) at(i int) *T { return &c.list[i/64][i%64] }
func (c *chunks[T]) len() int    { return c.n }
func (c *chunks[T]) reset()      { c.n = 0 }
