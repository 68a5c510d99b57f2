package tune

import (
	"context"
	"errors"
	"slices"
	"time"
)

// SetLease sets for how long a worker that is not heard of keeps its piece of work, 30 seconds if it is never
// called. It is for the pieces that are asked for from then on.
func (s *Study) SetLease(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = d
}

// Hold keeps the trial while it is worked on: its lease is renewed at a third of its time. The context
// that it returns is cancelled, with the cause ErrFenced, when another worker has taken the trial or its piece
// is finished. stop ends the renewals and waits for the last one.
//
// A renewal that fails otherwise is tried again: as long as nobody else takes the trial nothing is lost.
func (t *Trial) Hold(ctx context.Context) (held context.Context, stop func()) {
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	lease := t.lease
	go func() {
		defer close(done)
		tick := time.NewTicker(max(lease/3, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-held.Done():
				return
			case <-tick.C:
			}
			try, end := context.WithTimeout(held, lease) // a server that does not answer is asked again
			err := t.study.store.Renew(try, t.Piece.N, t.Piece.Epoch, lease)
			end()
			if errors.Is(err, ErrFenced) {
				cancel(ErrFenced)
				return
			}
		}
	}()
	return held, func() {
		cancel(context.Canceled)
		<-done
	}
}

// Release gives the trial up as it is: another worker may take it at once, rather than when the lease has ended.
func (t *Trial) Release(ctx context.Context) error {
	return t.study.store.Renew(ctx, t.Piece.N, t.Piece.Epoch, 0)
}

// Save keeps what the trial goes on from if its worker is lost, or when it is paused, in place of what was
// saved before. What is reported must be reported before it is saved: see Resume.
func (t *Trial) Save(ctx context.Context, checkpoint []byte) error {
	return t.study.store.Checkpoint(ctx, t.Piece.N, t.Piece.Epoch, checkpoint)
}

// Saved returns what was saved last of the trial, in this piece or an earlier one, by any worker; nil if nothing was.
func (t *Trial) Saved(ctx context.Context) ([]byte, error) {
	return t.study.store.Restore(ctx, t.Number, t.Seed)
}

// Resume says that the work goes on from what was saved after at units of the resource, which may be more
// than From: a worker that was lost had come so far in this piece. It reports what Report did at that point: whether
// the trial is to stop there, so that the worker who takes over decides as the one that was lost.
func (t *Trial) Resume(at int) (stop bool) {
	t.study.mu.Lock()
	defer t.study.mu.Unlock()
	t.curve = slices.DeleteFunc(t.curve, func(p Point) bool { return p.At > at })
	return at > t.From && (t.Until > 0 && at >= t.Until || t.pruned())
}
