package tune

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// openLeased returns a worker's view of a study with leases of 3 s.
func openLeased(t *testing.T, store Store, o Options) *Study {
	s, err := Open(t.Context(), store, &Header{Options: o}, testSpace(t))
	if err != nil {
		t.Fatal(err)
	}
	s.SetLease(3 * time.Second)
	return s
}

// A trial that is held is not taken however long it lasts; one that is not held is.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory()
		o := Options{Trials: 1, Sampler: "random"}
		first, second := openLeased(t, store, o), openLeased(t, store, o)
		a, err := first.Ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held, stop := a.Hold(t.Context())
		time.Sleep(time.Hour)
		if b, err := second.Ask(t.Context()); !errors.Is(err, ErrWait) || held.Err() != nil {
			t.Fatal("a trial that was held was taken", b, err, held.Err())
		}
		stop()
		time.Sleep(3 * time.Second)
		b, err := second.Ask(t.Context())
		if err != nil || b.Piece.Epoch != 2 {
			t.Fatal(b, err)
		}
		late, stop := a.Hold(t.Context())
		defer stop()
		time.Sleep(2 * time.Second)
		if !errors.Is(context.Cause(late), ErrFenced) {
			t.Error("the worker that lost its trial was not told:", context.Cause(late))
		}
		if context.Cause(held) == ErrFenced {
			t.Error("a trial that was given up is told to be taken")
		}
	})
}

// failing is a store that cannot be reached for a while.
type failing struct {
	Store
	until time.Time
}

func (f *failing) Renew(ctx context.Context, n, epoch int, lease time.Duration) error {
	if time.Now().Before(f.until) {
		return errors.New("no answer")
	}
	return f.Store.Renew(ctx, n, epoch, lease)
}

// A store that was away does not end the work, unless somebody else has taken it.
func TestHoldAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failing{NewMemory(), time.Now().Add(10 * time.Second)}
		o := Options{Trials: 1, Sampler: "random"}
		a, err := openLeased(t, store, o).Ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held, stop := a.Hold(t.Context())
		defer stop()
		time.Sleep(11 * time.Second)
		if held.Err() != nil {
			t.Fatal(context.Cause(held))
		}
		if lost, err := store.Expired(t.Context()); err != nil || len(lost) > 0 {
			t.Error("the lease was not taken up again", lost, err)
		}
	})
}

// Run holds its trials.
func TestRunHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory()
		counts := make([]int, 6)
		var wg sync.WaitGroup
		for range 3 {
			s := openLeased(t, store, Options{Trials: 6, Sampler: "random", Lag: 2})
			wg.Go(func() {
				err := s.Run(t.Context(), func(_ context.Context, trial *Trial) ([]float64, error) {
					counts[trial.Number]++
					time.Sleep(time.Minute)
					return []float64{1}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if !slices.Equal(counts, []int{1, 1, 1, 1, 1, 1}) {
			t.Error("trials were done again:", counts)
		}
	})
}

// A worker that is told to end leaves its trial to the others at once.
func TestRunReleases(t *testing.T) {
	store := NewMemory()
	o := Options{Trials: 1, Sampler: "random"}
	ctx, cancel := context.WithCancel(t.Context())
	err := openLeased(t, store, o).Run(ctx, func(held context.Context, trial *Trial) ([]float64, error) {
		cancel()
		<-held.Done()
		return nil, held.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b, err := openLeased(t, store, o).Ask(t.Context())
	if err != nil || b.Piece.Epoch != 2 {
		t.Error(b, err)
	}
}

// A worker that takes over a trial part way stops it where the lost one would have.
func TestResume(t *testing.T) {
	curve := []float64{5, 4, 4.5, 4.6, 4.7, 4.8, 4.9, 5, 5, 5} // patient with 2 of 10 units ends it at 4
	run := func(trial *Trial, from, until int) (stopped int) {
		for at := from + 1; at <= until; at++ {
			if stop, err := trial.Report(t.Context(), at, at, curve[at-1]); err != nil {
				t.Fatal(err)
			} else if stop {
				return at
			}
		}
		return 0
	}
	o := Options{Trials: 1, Sampler: "random", Pruner: "patient", Resource: 10}
	for lost := range 5 { // the worker is lost after as many units
		for saved := range lost + 1 {
			synctest.Test(t, func(t *testing.T) {
				store := NewMemory()
				a, err := openLeased(t, store, o).Ask(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				run(a, 0, lost)
				if err := a.Save(t.Context(), []byte{byte(saved)}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				s := openLeased(t, store, o)
				b, err := s.Ask(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				blob, err := b.Saved(t.Context())
				if err != nil || len(blob) != 1 || int(blob[0]) != saved {
					t.Fatal(blob, err)
				}
				at := saved
				if !b.Resume(saved) {
					at = run(b, saved, 10)
				}
				if err := s.Tell(t.Context(), b, curve[at-1]); err != nil || at != 4 {
					t.Errorf("lost after %d, saved at %d: stopped at %d, expected 4: %v", lost, saved, at, err)
				}
				list, err := s.Trials(t.Context())
				if err != nil || list[0].State != Pruned || len(list[0].Curve) != 4 {
					t.Errorf("lost after %d, saved at %d: %v %v", lost, saved, list[0], err)
				}
			})
		}
	}
}
