package tune

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
)

// halving is a made-up training of 27 units, whose value depends on all that went before.
func halving(ctx context.Context, t *Trial, began func(at int)) ([]float64, error) {
	blob, err := t.Saved(ctx)
	if err != nil {
		return nil, err
	}
	at := len(blob)
	began(at)
	value := func() float64 { return t.Float("x") + math.Sin(float64(7*t.Number+3*at*t.Number)+float64(t.Seed)) }
	for stop := t.Resume(at); !stop && at < 27; {
		at++
		if stop, err = t.Report(ctx, at, at, value()); err != nil {
			return nil, err
		}
		if err := t.Save(ctx, bytes.Repeat([]byte{1}, at)); err != nil {
			return nil, err
		}
	}
	return []float64{value()}, nil
}

func outcome(t *testing.T, s *Study) (text string) {
	list, err := s.Trials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		text += fmt.Sprintln(r.Number, r.Values, r.State, r.Results, r.Curve)
	}
	return text
}

// checkpoints returns the number of trials that have one.
func checkpoints(t *testing.T, store Store) (n int) {
	for trial := range 100 {
		blob, err := store.Restore(t.Context(), trial, 0)
		if err != nil {
			t.Fatal(err)
		}
		if blob != nil {
			n++
		}
	}
	return n
}

// keeping is a store that keeps all checkpoints.
type keeping struct{ Store }

func (keeping) Discard(context.Context, []int) error { return nil }

// The checkpoints of trials that never go on are removed while a study is at work, all others are there when they are
// needed, and none is left in the end. When the study goes on with more trials it has those of one that has kept them.
func TestDiscard(t *testing.T) {
	for _, o := range []Options{
		{Pruner: "asha", Lag: 0}, {Pruner: "asha", Lag: 5}, {Pruner: "hyperband", Lag: 2}, {Pruner: "asha", Reduction: 2, Lag: 7},
		{Pruner: "asha", Asynchronous: true}, {Pruner: "hyperband", Sampler: "grid"},
	} {
		t.Run(fmt.Sprint(o.Pruner, o.Reduction, o.Lag, o.Asynchronous, o.Sampler), func(t *testing.T) {
			o.Resource, o.Least, o.Resumable, o.Seed, o.Trials = 27, 1, true, 3, 40
			if o.Sampler == "" {
				o.Sampler = "random"
			}
			open := func(store Store, trials int) *Study {
				o.Trials = trials
				s, err := Open(t.Context(), store, &Header{Options: o}, &Space{Params: []*Param{{Name: "x", Low: 0, High: 1, Step: 1. / 64}}})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			work := func(s *Study, again bool) (most int) {
				err := s.Run(t.Context(), func(ctx context.Context, trial *Trial) ([]float64, error) {
					most = max(most, checkpoints(t, s.Store()))
					return halving(ctx, trial, func(at int) {
						if at != trial.From && !again {
							t.Errorf("trial %d went on after %d units, and its checkpoint is of %d", trial.Number, trial.From, at)
						}
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				return most
			}
			store, all := NewMemory(), keeping{NewMemory()}
			s := open(store, 40)
			most := work(s, false)
			paused := len(s.paused())
			if left := checkpoints(t, store); left > 0 || paused < 20 || most > paused*9/10 {
				t.Errorf("of %d trials that are paused in the end %d had a checkpoint at once, and %d have one at the end", paused, most, left)
			}
			work(open(all, 40), false)
			if left := checkpoints(t, all); left != paused {
				t.Errorf("%d of %d", left, paused)
			}
			more, want := open(store, 70), open(all, 70)
			again := work(more, true)
			work(want, false)
			if got, want := outcome(t, more), outcome(t, want); got != want {
				t.Errorf("without the checkpoints:\n%s\nwith them:\n%s", got, want)
			}
			if left := checkpoints(t, store); left > 0 || again == 0 {
				t.Errorf("%d checkpoints are left of %d", left, again)
			}
		})
	}
}

// Repeats have their own checkpoints and leases, and no trial follows from them: a study that goes on after they were made has the trials of one
// without any.
func TestRepeats(t *testing.T) {
	o := Options{Trials: 12, Sampler: "tpe", Startup: 4, Pruner: "asha", Resource: 27, Least: 3, Resumable: true, Lag: 3, Seed: 5}
	begin := func(store Store) *Study { return openLeased(t, store, o) }
	work := func(s *Study) {
		if err := s.Run(t.Context(), func(ctx context.Context, trial *Trial) ([]float64, error) {
			return halving(ctx, trial, func(int) {})
		}); err != nil {
			t.Fatal(err)
		}
	}
	store := NewMemory()
	a, b := begin(store), begin(store)
	work(a)
	one, err := a.Repeat(t.Context(), 2, 1)
	if err != nil || one.Number != 2 || one.Seed != 1 || one.Until != 0 {
		t.Fatal(one, err)
	}
	if two, err := b.Repeat(t.Context(), 2, 1); !errors.Is(err, ErrWait) {
		t.Fatal(two, err)
	}
	if err := one.Save(t.Context(), []byte{1, 1, 1}); err != nil {
		t.Fatal(err)
	}
	if err := one.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.Trials = 20 // another process adds trials meanwhile
	more := begin(store)
	next, err := more.Ask(t.Context()) // and takes up what was lost
	if err != nil || next.Number != 2 || next.Seed != 1 || next.Piece.Epoch != 2 {
		t.Fatal(next, err)
	}
	values, err := halving(t.Context(), next, func(at int) {
		if at != 3 {
			t.Errorf("the repeat goes on after %d units, not 3", at)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Report(t.Context(), 4, 4, 1); !errors.Is(err, ErrFenced) {
		t.Error("a repeat that was taken is reported on:", err)
	}
	if err := next.Tell(t.Context(), nil, values...); err != nil {
		t.Fatal(err)
	}
	if blob, err := store.Restore(t.Context(), 2, 1); blob != nil || err != nil {
		t.Error("the checkpoint of a finished repeat is left", blob, err)
	}
	if three, err := b.Repeat(t.Context(), 2, 1); !errors.Is(err, ErrDone) {
		t.Error(three, err)
	}
	other, err := b.Repeat(t.Context(), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	work(more) // while a repeat is at work
	if err := other.Fail(t.Context(), errors.New("out of luck")); err != nil {
		t.Fatal(err)
	}
	list, err := b.Repeats(t.Context())
	if err != nil || len(list) != 2 || list[0].Number != 2 || list[0].Seed != 1 || list[0].State != Complete || *list[0].Value != values[0] || list[1].State != Failed || list[1].Seed != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if none, err := b.Repeat(t.Context(), 99, 1); err == nil {
		t.Error(none)
	}
	without := NewMemory()
	for _, o.Trials = range []int{12, 20} {
		work(begin(without))
	}
	if got, want := outcome(t, more), outcome(t, begin(without)); got != want {
		t.Errorf("after repeats:\n%s\nwithout:\n%s", got, want)
	}
}
