package par

import "sync"

// Pool is a pool of argument structs and workspaces of parallel loops. It is a list
// and not a sync.Pool, because the garbage collector would empty that and training
// steps would allocate after every collection. The zero Pool is empty and ready. All
// methods may be called by several goroutines.
type Pool[T any] struct {
	mu   sync.Mutex
	free []*T
}

// Get returns a struct whose fields have the values that its last user left.
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

// Put returns a struct to the pool.
func (p *Pool[T]) Put(x *T) {
	p.mu.Lock()
	p.free = append(p.free, x)
	p.mu.Unlock()
}
