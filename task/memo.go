package task

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// Memo keeps what was computed from data before a training, for other trainings on the same data: a
// search of settings trains hundreds of times, and most of its trials differ in what comes later. The Data of a task
// embeds it or has it as a field, and the task computes by [Once]. The zero Memo is empty.
type Memo struct {
	mu   sync.Mutex
	kept []*memory // the oldest first
}

// mostKept bounds what a Memo keeps.
const mostKept = 4

type memory struct {
	key   string
	done  chan struct{} // closed when it has been computed
	value any
	err   error
}

var errUnfinished = errors.New("task: a computation that others wait for did not return")

// Once returns what f returned for the key, or calls f: callers with the same key at the same time wait for the first. The
// key must have all that f depends on besides the data; the value must not be changed. Errors are not kept, and if the first
// caller fails another one calls its own f. A cancelled ctx returns its error.
func Once[T any](ctx context.Context, m *Memo, key string, f func() (T, error)) (T, error) {
	for {
		m.mu.Lock()
		at := slices.IndexFunc(m.kept, func(one *memory) bool { return one.key == key })
		if at < 0 {
			own := &memory{key: key, done: make(chan struct{}), err: errUnfinished}
			if m.kept = append(m.kept, own); len(m.kept) > mostKept {
				m.kept = slices.Delete(m.kept, 0, 1)
			}
			m.mu.Unlock()
			return compute(m, own, f)
		}
		one := m.kept[at]
		m.mu.Unlock()
		select {
		case <-one.done:
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		}
		if one.err == nil {
			return one.value.(T), nil
		}
	}
}

// compute calls f for all that wait.
func compute[T any](m *Memo, own *memory, f func() (T, error)) (v T, err error) {
	defer func() { // also after a panic
		if own.err != nil {
			m.mu.Lock()
			m.kept = slices.DeleteFunc(m.kept, func(one *memory) bool { return one == own })
			m.mu.Unlock()
		}
		close(own.done)
	}()
	v, err = f()
	own.value, own.err = v, err
	return v, err
}
