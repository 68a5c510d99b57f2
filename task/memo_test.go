package task_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carousel-ml/carousel/task"
)

// What callers with the same key want at the same time is computed once; errors and panics are not kept.
func TestOnce(t *testing.T) {
	var m task.Memo
	var calls atomic.Int64
	get := func(key string) (string, error) {
		return task.Once(t.Context(), &m, key, func() (string, error) {
			calls.Add(1)
			return "of " + key, nil
		})
	}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			key := fmt.Sprint(i % 4)
			if got, err := get(key); err != nil || got != "of "+key {
				t.Error(got, err)
			}
		})
	}
	all.Wait()
	if calls.Load() != 4 {
		t.Errorf("%d calls for 4 keys", calls.Load())
	}
	_, _ = get("4")
	if _, _ = get("4"); calls.Load() != 5 {
		t.Error("the latest was not kept")
	}
	for _, key := range []string{"0", "1", "2", "3"} { // the oldest of these, and then each that its return put out
		_, _ = get(key)
	}
	if n := calls.Load(); n < 6 || n > 9 {
		t.Errorf("%d calls after all five keys, expected the oldest to have been let go", n)
	}

	broken := errors.New("broken")
	begun, end := make(chan struct{}), make(chan struct{})
	all.Go(func() {
		_, err := task.Once(t.Context(), &m, "x", func() (int, error) {
			close(begun)
			<-end
			return 0, broken
		})
		if !errors.Is(err, broken) {
			t.Error(err)
		}
	})
	<-begun
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := task.Once(cancelled, &m, "x", func() (int, error) { return 1, nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	all.Go(func() {
		if got, err := task.Once(t.Context(), &m, "x", func() (int, error) { return 2, nil }); err != nil || got != 2 {
			t.Error(got, err)
		}
	})
	close(end)
	all.Wait()
	func() {
		defer func() { _ = recover() }()
		_, _ = task.Once(t.Context(), &m, "y", func() (int, error) { panic("y") })
	}()
	if got, err := task.Once(t.Context(), &m, "y", func() (int, error) { return 3, nil }); err != nil || got != 3 {
		t.Error(got, err)
	}
}
