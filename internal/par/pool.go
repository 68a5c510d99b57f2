package par

import "sync"

// Pool lends the argument structs and workspaces of parallel loops. It is a
// plain list, not a sync.Pool: the garbage collector must not empty it, or a
// steady training step would allocate after every collection. The zero Pool is ready.
type Pool[T any] struct {
	mu   sync.Mutex
	free []*T
}

// Get lends a struct; its fields hold whatever their last user left.
func (p *Pool[T]) Get() *T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		x := p.free[n-1]
		p.free = p.free[:n-1]
		return x
	}
	return new(T)
}

// Put takes a struct back.
func (p *Pool[T]) Put(x *T) {
	p.mu.Lock()
	p.free = append(p.free, x)
	p.mu.Unlock()
}
