package tensor

import "github.com/carousel-ml/carousel/internal/device"

// arena allocates memory that is valid until reset. It keeps its blocks, so the
// next pass of the same shapes gets each piece at the same place.
type arena[T float32 | int32] struct {
	get   func(n int) device.Memory[T]
	put   func(device.Memory[T])
	least int // elements of the smallest block
	mem   []device.Memory[T]
	used  []int // elements of each block that are allocated
	total int   // elements of all blocks
}

const (
	cacheLine  = 16 // elements; every allocation starts on one
	mostBlocks = 32 // reset joins more than these into one
)

// alloc returns n elements with unspecified contents.
func (a *arena[T]) alloc(n int) (m device.Memory[T]) {
	if n == 0 {
		return m
	}
	size := (n + cacheLine - 1) &^ (cacheLine - 1)
	i := 0 // the first block with room, so that what is small fills what is left of blocks
	for i < len(a.mem) && a.used[i]+size > a.mem[i].N {
		i++
	}
	if i == len(a.mem) {
		block := max(size, a.least)
		if size < a.total/16 {
			block = max(block, a.total/8) // not a block for each of many
		}
		a.mem, a.used = append(a.mem, a.get(block)), append(a.used, 0)
		a.total += block
	}
	m = a.mem[i].Slice(a.used[i], a.used[i]+n)
	a.used[i] += size
	return m
}

func (a *arena[T]) reset() {
	clear(a.used)
	if len(a.mem) <= mostBlocks {
		return
	}
	for _, m := range a.mem {
		a.put(m)
	}
	clear(a.mem)
	a.mem, a.used = append(a.mem[:0], a.get(a.total)), a.used[:1]
}

// hostInts allocates []int32 that are valid until reset.
type hostInts []int32

// alloc returns n elements with unspecified contents. If the block is full, a larger
// one replaces it, so that later passes need only one.
func (a *hostInts) alloc(n int) []int32 {
	if len(*a)+n > cap(*a) {
		*a = make([]int32, 0, 2*(cap(*a)+n))
	}
	*a = (*a)[:len(*a)+n]
	return (*a)[len(*a)-n : len(*a) : len(*a)]
}

func (a *hostInts) reset() { *a = (*a)[:0] }

// chunks is a growing list of structs that keep their addresses and are reused
// after reset.
type chunks[T any] struct {
	list []*[64]T
	n    int
}

// put appends a copy of x and returns its address.
func (c *chunks[T]) put(x T) *T {
	if c.n == len(c.list)*64 {
		c.list = append(c.list, new([64]T))
	}
	p := c.at(c.n)
	c.n++
	*p = x
	return p
}

// next appends a zero struct and returns its address.
func (c *chunks[T]) next() *T { return c.put(*new(T)) }

func (c *chunks[T]) at(i int) *T { return &c.list[i/64][i%64] }
func (c *chunks[T]) len() int    { return c.n }
func (c *chunks[T]) reset()      { c.n = 0 }
