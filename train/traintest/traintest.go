// Package traintest has worlds of several ranks within one process, for tests of
// what trains on them.
package traintest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/train"
)

// Worlds are the ranks of one world, each for a goroutine of its own.
func Worlds(ranks int) []train.World {
	h := &hub{calls: make([]call, ranks)}
	h.turn = sync.NewCond(&h.mu)
	list := make([]train.World, ranks)
	for i := range list {
		list[i] = &member{h, i}
	}
	return list
}

type member struct {
	*hub
	rank int
}

// hub is where the ranks meet.
type hub struct {
	mu    sync.Mutex
	turn  *sync.Cond
	calls []call // of this round, by rank
	here  int    // how many have come
	round int
	err   error // why the world has ended
}

// call is what a rank brings to a method.
type call struct {
	method      method
	v, residual []float32
	own, all    []float64
	bytes       []byte
	shared      *[][]byte
}

type method string

const (
	sum    method = "Sum"
	gather method = "Gather"
	share  method = "Share"
)

func (m *member) Rank() int { return m.rank }
func (m *member) Size() int { return len(m.calls) }

func (m *member) Sum(v, residual []float32) error {
	return m.meet(call{method: sum, v: v, residual: residual})
}

func (m *member) Gather(own, all []float64) error {
	return m.meet(call{method: gather, own: own, all: all})
}

func (m *member) Share(own []byte) (all [][]byte, err error) {
	err = m.meet(call{method: share, bytes: own, shared: &all})
	return all, err
}

func (m *member) Abort(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end(fmt.Errorf("rank %d ended the run: %w", m.rank, err))
}

func (h *hub) end(err error) {
	if h.err == nil {
		h.err = err
		h.turn.Broadcast()
	}
}

// meet waits for the other ranks; the last to come does the work of all.
func (m *member) meet(c call) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if m.calls[m.rank].method != "" {
		m.end(fmt.Errorf("traintest: rank %d calls %s while its %s is going on", m.rank, c.method, m.calls[m.rank].method))
		return m.err
	}
	m.calls[m.rank] = c
	round := m.round
	if m.here++; m.here == len(m.calls) {
		if err := m.work(); err != nil {
			m.end(err)
			return err
		}
		clear(m.calls)
		m.here, m.round = 0, round+1
		m.turn.Broadcast()
		return nil
	}
	for m.round == round {
		if m.err != nil {
			return m.err
		}
		m.turn.Wait()
	}
	return nil
}

func (h *hub) work() error {
	first := h.calls[0]
	for rank, c := range h.calls {
		if c.method != first.method || len(c.v) != len(first.v) || len(c.own) != len(first.own) || len(c.all) != len(c.own)*len(h.calls) ||
			(c.residual == nil) != (first.residual == nil) || c.residual != nil && len(c.residual) != len(c.v) {
			return fmt.Errorf("traintest: rank %d calls %s where rank 0 calls %s, or with other lengths", rank, c.method, first.method)
		}
	}
	switch first.method {
	case sum:
		h.sum()
	case gather:
		var all []float64
		for _, c := range h.calls {
			all = append(all, c.own...)
		}
		for _, c := range h.calls {
			copy(c.all, all)
		}
	case share:
		for _, c := range h.calls {
			for _, from := range h.calls {
				*c.shared = append(*c.shared, bytes.Clone(from.bytes))
			}
		}
	}
	return nil
}

func (h *hub) sum() {
	compressed := h.calls[0].residual != nil
	for _, c := range h.calls {
		for i := range c.residual {
			c.v[i] += c.residual[i]
			c.residual[i] = round(&c.v[i])
		}
	}
	total := tree(h.calls)
	for rank, c := range h.calls {
		if compressed { // a rank owns the sums of its part
			n := len(total)
			for i := n * rank / len(h.calls); i < n*(rank+1)/len(h.calls); i++ {
				c.residual[i] += round(&total[i])
			}
		}
	}
	for _, c := range h.calls {
		copy(c.v, total)
	}
}

// round rounds v to a bfloat16 and returns what that loses.
func round(v *float32) float32 {
	exact := *v
	*v = half.FromBFloat16(half.ToBFloat16(exact))
	return exact - *v
}

// tree adds vectors as train.World says, from the root down: the left branch of n
// leaves has the largest power of two below n.
func tree(calls []call) []float32 {
	if len(calls) == 1 {
		return slices.Clone(calls[0].v)
	}
	left := 1
	for 2*left < len(calls) {
		left *= 2
	}
	a, b := tree(calls[:left]), tree(calls[left:])
	for i := range a {
		a[i] = simd.Narrow(float64(a[i]) + float64(b[i]))
	}
	return a
}
