package train

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// World is the processes that train one model together, its ranks: each has the
// whole model and data, and takes its own batches. R ranks that accumulate A
// batches train as one process that accumulates R·A: the weights, the history and
// the checkpoints are the same bits, and a run may go on with another R and A of
// the same product. A must be a power of two, the job must have no Carry, and
// the ranks must use one kernel set.
//
// The batches of a step are numbered through all ranks, rank r taking r·A up to
// (r+1)·A of each step. Data order and dropout go by these numbers, and so does
// the sum of the gradients: that of each batch is formed by itself, and they are
// added as the leaves of a binary tree, 0 with 1, 2 with 3, then 0-1 with 2-3 and
// so on; where a number is missing at the end its neighbour goes up alone. Each
// rank's share is a subtree.
//
// Every rank calls Sum and Gather equally often, in the same order and with
// slices of the same length.
type World interface {
	Rank() int // of this process, from 0
	Size() int // number of ranks

	// Sum replaces v, on every rank, by the sum of all ranks' v in the order above:
	// the leaves of its tree are the ranks. Recursive halving and doubling add in
	// this order. A sum nearer to zero than 2^-126 is a zero of its sign, as
	// everywhere.
	Sum(v []float32) error

	// Gather fills all with every rank's own, by rank: len(own)·Size numbers.
	Gather(own, all []float64) error

	// Abort ends the world because of err: the calls of all other ranks, those that
	// wait and those to come, give an error that says so. Fit calls it where it
	// fails, so that no rank waits for one that has gone.
	Abort(err error)
}

// alone is the world of one process.
type alone struct{}

func (alone) Rank() int                       { return 0 }
func (alone) Size() int                       { return 1 }
func (alone) Sum([]float32) error             { return nil }
func (alone) Gather(own, all []float64) error { copy(all, own); return nil }
func (alone) Abort(error)                     {}

// world is the run's, or that of one.
func (r *Run) world() World {
	if r.World == nil {
		return alone{}
	}
	return r.World
}

// Writes says whether this process writes files: to Dir, and of several ranks the
// first alone.
func (r *Run) Writes() bool { return r.Dir != "" && r.world().Rank() == 0 }

// agree makes sure that all ranks begin with the same weights, settings and step.
func (t *trainer[B]) agree() error {
	if t.size == 1 {
		return nil
	}
	text, err := json.Marshal(t.Settings)
	if err != nil {
		return err
	}
	text = append(text, t.slab.Device().Name()...)
	sum := checksum(string(text), vectors(nil, "", t.slab, t.slab.Values()))
	// 32 bits are a whole number of float64.
	own := []float64{float64(crc32.Checksum([]byte(sum), castagnoli)), float64(t.Step)}
	all := make([]float64, len(own)*t.size)
	if err := t.world.Gather(own, all); err != nil {
		return err
	}
	for rank := range t.size {
		if their := all[rank*len(own):][:len(own)]; !slices.Equal(their, all[:len(own)]) {
			return fmt.Errorf("train: rank %d has other settings, data or weights, another kernel set or another checkpoint than rank 0: start all ranks alike", rank)
		}
	}
	return nil
}

// meet is where the ranks hear, before each step, what time it is by rank 0 and
// whether one of them was asked to stop.
func (t *trainer[B]) meet(stop bool) (stops bool, err error) {
	own, all := t.meeting[:2], t.meeting[2:]
	own[0], own[1] = 0, t.elapsed().Seconds()
	if stop {
		own[0] = 1
	}
	if err := t.world.Gather(own, all); err != nil {
		return false, err
	}
	t.told = time.Duration(all[1] * float64(time.Second))
	for i := 0; i < len(all); i += 2 {
		stops = stops || all[i] != 0
	}
	return stops, nil
}

// clock is the wall time that limits and schedules go by, the same on all ranks.
func (t *trainer[B]) clock() time.Duration {
	if t.size == 1 {
		return t.elapsed()
	}
	return t.told
}

// takeFirst makes all ranks take rank 0's values, which may have been computed on
// another machine than theirs.
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
