package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

// eachRank runs a function on ranks at once, each with a context of its own, and returns
// their errors. It fails where a rank waits for ever.
func eachRank(t *testing.T, ranks int, run func(ctx context.Context, rank int, cancel func()) error) []error {
	t.Helper()
	errs := make([]error, ranks)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all sync.WaitGroup
		for rank, w := range traintest.Worlds(ranks) {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				errs[rank] = run(train.WithWorld(ctx, w), rank, cancel)
			})
		}
		all.Wait()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a rank still waits")
	}
	return errs
}

// Every rank uses the results of all parts in their order, with all their bits, and
// computes no more than its part of them.
func TestShare(t *testing.T) {
	odd := []float64{math.Copysign(0, -1), math.Float64frombits(0x7ff8000000000123), math.Inf(-1), math.SmallestNonzeroFloat64}
	for ranks := 1; ranks <= 5; ranks++ {
		for _, n := range []int{0, 1, 2, 7, 8, 9, 40, 81} {
			var lock sync.Mutex
			computed := make([]int, ranks)
			errs := eachRank(t, ranks, func(ctx context.Context, rank int, _ func()) error {
				var used []uint64
				buffer := make([]float64, 0, 8)
				err := train.Share(ctx, n, func(_ context.Context, i int) ([]float64, error) {
					lock.Lock()
					defer lock.Unlock()
					computed[rank]++
					buffer = append(buffer[:0], odd[:i%5%len(odd)]...)
					return append(buffer, float64(i)), nil
				}, func(i int, result []float64) error {
					if len(result) != 1+i%5%len(odd) {
						return fmt.Errorf("part %d has %d numbers", i, len(result))
					}
					for _, v := range result {
						used = append(used, math.Float64bits(v))
					}
					return nil
				})
				var want []uint64
				for i := range n {
					for _, v := range append(odd[:i%5%len(odd):i%5%len(odd)], float64(i)) {
						want = append(want, math.Float64bits(v))
					}
				}
				if !slices.Equal(used, want) {
					t.Errorf("%d parts, rank %d of %d: got %x, want %x", n, rank, ranks, used, want)
				}
				return err
			})
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			sum := 0
			for rank, c := range computed {
				if sum += c; c > (n+ranks-1)/ranks {
					t.Errorf("%d parts, rank %d of %d computed %d", n, rank, ranks, c)
				}
			}
			if sum != n {
				t.Errorf("%d parts of %d were computed by %d ranks", sum, n, ranks)
			}
		}
	}
	kinds := eachRank(t, 3, func(ctx context.Context, _ int, _ func()) error {
		return errors.Join(shareKind[uint8](ctx), shareKind[int32](ctx), shareKind[float32](ctx))
	})
	if err := errors.Join(kinds...); err != nil {
		t.Fatal(err)
	}
}

func shareKind[T train.Number](ctx context.Context) error {
	return train.Share(ctx, 20, func(_ context.Context, i int) ([]T, error) { return []T{T(i), T(7 * i)}, nil }, func(i int, result []T) error {
		if !slices.Equal(result, []T{T(i), T(7 * i)}) {
			return fmt.Errorf("%T %d: %v", result, i, result)
		}
		return nil
	})
}

// Alone a part is used before the next one is computed.
func TestShareAlone(t *testing.T) {
	var order []string
	err := train.Share(t.Context(), 3, func(_ context.Context, i int) ([]int32, error) {
		order = append(order, fmt.Sprint("part ", i))
		return []int32{int32(i)}, nil
	}, func(i int, _ []int32) error {
		order = append(order, fmt.Sprint("use ", i))
		return nil
	})
	if want := "part 0, use 0, part 1, use 1, part 2, use 2"; err != nil || strings.Join(order, ", ") != want {
		t.Errorf("%v, %v", order, err)
	}
	if w := traintest.Worlds(1)[0]; train.WithWorld(t.Context(), w) != t.Context() || train.WithWorld(t.Context(), nil) != t.Context() {
		t.Error("one rank has a context of its own")
	}
}

// An error or a cancellation on one rank ends the computation on all, at whatever part it comes.
func TestShareEnds(t *testing.T) {
	fault := errors.New("no such sound")
	for at := range 30 {
		for _, cancels := range []bool{false, true} {
			after := 0
			errs := eachRank(t, 3, func(ctx context.Context, rank int, cancel func()) error {
				err := train.Share(ctx, 30, func(_ context.Context, i int) ([]uint8, error) {
					if i == at && cancels {
						cancel()
					} else if i == at {
						return nil, fault
					}
					return nil, nil
				}, func(int, []uint8) error { return nil })
				if i := at + 3; cancels && i < 30 && ctx.Err() == nil {
					return fmt.Errorf("returned %v, and the context is not cancelled", err)
				}
				if !cancels || ctx.Err() == nil {
					return err
				}
				return errors.Join(err, train.Share(ctx, 30, func(context.Context, int) ([]uint8, error) { after++; return nil, nil }, nil))
			})
			for rank, err := range errs {
				own := rank == at%3
				switch {
				case cancels && at+3 >= 30: // the last part of its rank
				case cancels && !errors.Is(err, context.Canceled),
					!cancels && own && err != fault,
					!cancels && !own && (err == nil || err.Error() != fmt.Sprintf("train: rank %d failed: no such sound", at%3)):
					t.Errorf("part %d, cancels %v: rank %d returned %v", at, cancels, rank, err)
				}
			}
			if after > 0 {
				t.Errorf("%d parts were computed after the end", after)
			}
		}
	}
	// One that ends the world.
	var all sync.WaitGroup
	for rank, w := range traintest.Worlds(2) {
		all.Go(func() {
			if rank == 1 {
				w.Abort(fault)
				return
			}
			err := train.Share(train.WithWorld(t.Context(), w), 1, func(context.Context, int) ([]uint8, error) { return nil, nil }, nil)
			if !errors.Is(err, fault) || !strings.Contains(err.Error(), "rank 1") {
				t.Errorf("rank 1 ended the world: %v", err)
			}
		})
	}
	all.Wait()
}

// A context that was cancelled is used on without its cancellation, as after an
// interrupted training.
func TestShareWithoutCancel(t *testing.T) {
	errs := eachRank(t, 2, func(ctx context.Context, rank int, cancel func()) error {
		if rank == 1 {
			cancel()
		}
		n := 0
		if err := train.Share(ctx, 4, func(context.Context, int) ([]uint8, error) { return nil, nil }, func(int, []uint8) error { n++; return nil }); !errors.Is(err, context.Canceled) || n > 0 {
			return fmt.Errorf("%w: %d parts", err, n)
		}
		err := train.Share(context.WithoutCancel(ctx), 4, func(context.Context, int) ([]uint8, error) { return nil, nil }, func(int, []uint8) error { n++; return nil })
		if err == nil && n != 4 {
			err = fmt.Errorf("%d parts of 4", n)
		}
		return err
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// A rank that is asked to stop in the middle of a validation interrupts all, and the run
// resumes to the bits of one that was not. Between parts no rank leaves the others.
func TestInterruptedValidation(t *testing.T) {
	validate := func(job *train.Job[ragged], cancel func()) {
		alone, epoch := job.Validate, 0
		job.Validate = func(ctx context.Context, tape *tensor.Tape) (map[string]float64, error) {
			epoch++
			if sum, err := shareSum(ctx, func(i int) {
				if epoch == 2 && i >= 4 && cancel != nil {
					cancel()
				}
			}); err != nil || sum != 45 {
				return nil, fmt.Errorf("sum %v: %w", sum, err)
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if _, err := shareSum(ctx, func(int) {}); err != nil {
				return nil, err
			}
			return alone(ctx, tape)
		}
	}
	want, errs := together(t, 1, 2, func(m member) { validate(m.job, nil) })
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	for stops := range 2 {
		dir := t.TempDir()
		run := func(cancels bool) []outcome {
			got, errs := together(t, 2, 1, func(m member) {
				m.o.Dir, m.o.Resume = dir, true
				if !cancels || m.rank != stops {
					m.cancel = nil
				}
				validate(m.job, m.cancel)
			})
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			return got
		}
		for rank, o := range run(true) {
			var history []train.Record
			if err := json.Unmarshal([]byte(o.history), &history); err != nil || o.stopped != train.StopInterrupted || len(history) != 1 {
				t.Errorf("rank %d stops, rank %d: %s after %d epochs (%v)", stops, rank, o.stopped, len(history), err)
			}
		}
		for rank, o := range run(false) {
			if !slices.Equal(o.bits, want[0].bits) || o.history != want[0].history {
				t.Errorf("rank %d stopped; rank %d resumed to other bits", stops, rank)
			}
		}
	}
}

// shareSum adds the numbers 0 to 9 in parts.
func shareSum(ctx context.Context, before func(i int)) (sum float64, err error) {
	err = train.Share(ctx, 10, func(_ context.Context, i int) ([]float64, error) { before(i); return []float64{float64(i)}, nil },
		func(_ int, v []float64) error { sum += v[0]; return nil })
	return sum, err
}
