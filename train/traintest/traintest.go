// Package traintest has worlds of several ranks within one process, for tests of
// what trains on them.
package traintest

import (
	"fmt"
	"slices"
	"sync"

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

// call is what a rank brings to a Sum, a Gather or a Share.
type call struct {
	v        []float32
	own, all []float64
	bytes    [][]byte // of Share: this rank's, and then those of all
}

func (m *member) Rank() int { return m.rank }
func (m *member) Size() int { return len(m.calls) }

func (m *member) Sum(v []float32) error { return m.meet(call{v: v}) }

func (m *member) Gather(own, all []float64) error { return m.meet(call{own: own, all: all}) }

func (m *member) Share(own []byte) ([][]byte, error) {
	bytes := make([][]byte, len(m.calls))
	bytes[m.rank] = own
	return bytes, m.meet(call{bytes: bytes})
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
	m.calls[m.rank] = c
	round := m.round
	if m.here++; m.here == len(m.calls) {
		if err := m.work(); err != nil {
			m.end(err)
			return err
		}
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
		if len(c.v) != len(first.v) || len(c.own) != len(first.own) || len(c.all) != len(c.own)*len(h.calls) || len(c.bytes) != len(first.bytes) {
			return fmt.Errorf("traintest: rank %d calls another method than rank 0, or with other lengths", rank)
		}
	}
	if first.bytes != nil {
		for _, c := range h.calls {
			for from := range h.calls {
				c.bytes[from] = slices.Clone(h.calls[from].bytes[from])
			}
		}
		return nil
	}
	if first.v == nil {
		var all []float64
		for _, c := range h.calls {
			all = append(all, c.own...)
		}
		for _, c := range h.calls {
			copy(c.all, all)
		}
		return nil
	}
	total := tree(h.calls)
	for _, c := range h.calls {
		copy(c.v, total)
	}
	return nil
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
