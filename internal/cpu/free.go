package cpu

import "sync"

// pool lends the argument structs and workspaces of parallel loops. A plain
// list, not a sync.Pool: the garbage collector must not empty it, or a steady
// training step would allocate after every collection.
type pool[T any] struct {
	mu   sync.Mutex
	free []*T
}

func newPool[T any]() *pool[T] { return new(pool[T]) }

// get lends a struct; its fields hold whatever their last user left.
func (p *pool[T]) get() *T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		x := p.free[n-1]
		p.free = p.free[:n-1]
		return x
	}
	return new(T)
}

func (p *pool[T]) put(x *T) {
	p.mu.Lock()
	p.free = append(p.free, x)
	p.mu.Unlock()
}
