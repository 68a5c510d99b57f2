package train

import (
	"context"
	"fmt"
	"time"
)

// World connects the processes, called ranks, that train one model together:
// each has the whole model and data, and takes its own batches. R ranks that
// accumulate A batches train exactly as one process that accumulates R·A: the
// weights, the history and the checkpoints are equal bit for bit, and a run may
// resume with another R and A of the same product. A must be a power of two,
// and all ranks must use the same program, kernel set, settings and data.
//
// The batches of a step are numbered across all ranks: rank r takes r·A up to
// (r+1)·A of each step. Data order and dropout depend on these numbers, and so
// does the sum of the gradients: each batch's gradient is computed separately,
// and they are added as the leaves of a binary tree: 0 with 1, 2 with 3, then
// 0-1 with 2-3 and so on. Where a number is missing at the end, its neighbour
// moves up unchanged. Each rank's batches form a subtree.
//
// Every rank calls Sum, Gather and Share the same number of times, in the same
// order, and Sum and Gather with slices of the same length. Calls do not overlap, but
// may come from different goroutines; Abort may come at any time.
type World interface {
	Rank() int // of this process, from 0
	Size() int // number of ranks

	// Sum replaces v, on every rank, by the sum of all ranks' v in the order
	// above, with the ranks as the leaves of the tree. A sum nearer to zero than
	// 2^-126 is a zero of its sign, as in all arithmetic of the library. An error
	// (a lost connection, another rank's Abort) makes Fit return it.
	//
	// With a residual, which has the length of v, values travel as bfloat16,
	// outside the law of equal bits: residual is added to v first, and then holds
	// what rounding lost on this rank, to be added at the next Sum of the same
	// part (error feedback; Seide et al. 2014). All ranks get the same bits.
	Sum(v, residual []float32) error

	// Gather fills all with every rank's own, by rank; len(all) is
	// len(own)·Size. It fails as Sum does.
	Gather(own, all []float64) error

	// Share returns every rank's own bytes, by rank; they may differ in length.
	// It fails as Sum does.
	Share(own []byte) (all [][]byte, err error)

	// Abort ends the world because of err: the calls of all other ranks,
	// pending and later ones, return an error that names it. Fit calls it when
	// it fails, so that no rank waits for one that has ended.
	Abort(err error)
}

// alone is the world of one process.
type alone struct{}

func (alone) Rank() int                          { return 0 }
func (alone) Size() int                          { return 1 }
func (alone) Sum(v, residual []float32) error    { return nil }
func (alone) Gather(own, all []float64) error    { copy(all, own); return nil }
func (alone) Share(own []byte) ([][]byte, error) { return [][]byte{own}, nil }
func (alone) Abort(error)                        {}

// world returns the run's World, or that of a single process.
func (r *Run) world() World {
	if r.World == nil {
		return alone{}
	}
	return r.World
}

// Ranks returns the number of processes that train together, 1 without a World.
func (r *Run) Ranks() int { return r.world().Size() }

// CheckRanks returns an error if ranks that accumulate so many batches each cannot train
// as one process does; see [World].
func CheckRanks(ranks, accumulate int) error {
	if ranks < 2 || accumulate&(accumulate-1) == 0 {
		return nil
	}
	n := ranks * accumulate
	return fmt.Errorf("accumulate must be a power of two with several ranks, got %d with %d ranks; %d batches to a step can be had with %s", accumulate, ranks, n, divisions(n))
}

// Writes reports whether this process writes files: Dir is set and it is rank
// 0.
func (r *Run) Writes() bool { return r.Dir != "" && r.world().Rank() == 0 }

// wish is what a rank wants of all.
type wish int

const (
	goOn   wish = iota
	finish      // as a limit does
	stop        // at once
	pause       // likewise, with ErrPause
)

// wishOf is stop or pause if ctx is cancelled, or this rank's own context.
func wishOf(ctx context.Context) wish {
	if s := sharingOf(ctx); s != nil {
		ctx = s.own
	}
	switch {
	case ctx.Err() == nil:
		return goOn
	case context.Cause(ctx) == ErrPause:
		return pause
	}
	return stop
}

// meet tells all ranks, before each step and at the end of an epoch, the time on rank
// 0's clock and what each wishes. If one of them does not wish to go on, it returns
// ErrStop, errInterrupted or ErrPause.
func (t *trainer[B]) meet(w wish) error {
	own, all := t.meeting[:2], t.meeting[2:]
	own[0], own[1] = float64(w), t.elapsed().Seconds()
	if err := t.world.Gather(own, all); err != nil {
		return err
	}
	t.told = time.Duration(all[1] * float64(time.Second))
	for i := 0; i < len(all); i += 2 {
		w = max(w, wish(all[i]))
	}
	return [...]error{goOn: nil, finish: ErrStop, stop: errInterrupted, pause: ErrPause}[min(w, pause)]
}

// clock returns the wall time used by limits and schedules, the same on all
// ranks.
func (t *trainer[B]) clock() time.Duration {
	if t.size == 1 {
		return t.elapsed()
	}
	return t.told
}

// takeFirst makes all ranks use rank 0's values, because other machines may
// compute slightly different ones.
func (t *trainer[B]) takeFirst(values map[string]float64, names []string) error {
	own, all := make([]float64, len(names)), make([]float64, len(names)*t.size)
	for i, k := range names {
		own[i] = values[k]
	}
	if err := t.world.Gather(own, all); err != nil {
		return err
	}
	for i, k := range names {
		values[k] = all[i]
	}
	return nil
}
