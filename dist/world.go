package dist

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/simd"
)

// World is the collective operations of the ranks on a Transport; it implements
// train.World. All ranks call the same methods in the same order, with slices of
// the same length. Calls do not overlap, but may come from different goroutines;
// only Abort may be called at any time. Sum and Gather allocate nothing once
// they were called with their greatest lengths.
type World struct {
	t    Transport
	set  *simd.Set
	bf16 *simd.Weights // conversions

	send, recv [][]byte    // of an Exchange, by rank
	leaves     [][]float32 // operands of a tree, by rank
	values     []float32   // received for the own chunk, by rank
	wire       []uint16    // as values, in bfloat16
	rounded    []uint16    // a whole vector in bfloat16
}

// NewWorld returns the World of t's ranks.
func NewWorld(t Transport) *World {
	set := simd.Best()
	bf16 := slices.IndexFunc(set.Weights, func(w simd.Weights) bool { return w.Name == "bfloat16" })
	return &World{
		t: t, set: set, bf16: &set.Weights[bf16],
		send: make([][]byte, t.Size()), recv: make([][]byte, t.Size()), leaves: make([][]float32, t.Size()),
	}
}

// Rank returns the number of this process, from 0.
func (w *World) Rank() int { return w.t.Rank() }

// Size returns the number of ranks.
func (w *World) Size() int { return w.t.Size() }

// Abort ends the job as [Transport].Abort does.
func (w *World) Abort(err error) { w.t.Abort(err) }

// Close ends the connections as [Transport].Close does.
func (w *World) Close() error { return w.t.Close() }

// Sum replaces v, on every rank, by the sum of all ranks' v. Ranks are added as
// the leaves of a binary tree: 0 with 1, 2 with 3, then 0-1 with 2-3 and so on;
// where a number is missing at the end, its neighbour moves up unchanged. A sum
// nearer to zero than 2^-126 is a zero.
//
// With a residual, of the length of v, values travel as bfloat16, in half the
// bytes. What a rank loses by rounding stays in its residual and is added to its
// v at the next call with the same residual (error feedback: Seide et al. 2014,
// "1-Bit Stochastic Gradient Descent"); the residual starts as zeros. All ranks
// still get the same bits. The loss of a value that is not finite, or is rounded
// to infinity, is dropped.
//
// Each rank adds its own chunk of v (reduce-scatter), then sends the result to
// the others (all-gather). The error is that of [Transport].Exchange.
func (w *World) Sum(v, residual []float32) error {
	if w.Size() == 1 {
		return nil
	}
	if residual != nil {
		return w.sumRounded(v, residual)
	}
	lo, hi := w.chunk(len(v), w.Rank())
	own := v[lo:hi]
	w.values = grown(w.values, w.Size()*len(own))
	for r := range w.send {
		lo, hi := w.chunk(len(v), r)
		w.send[r], w.recv[r] = bytesOf(v[lo:hi]), bytesOf(w.values[r*len(own):][:len(own)])
	}
	if err := w.t.Exchange(w.send, w.recv); err != nil {
		return err
	}
	for i := 0; i < len(own); i += block {
		n := min(block, len(own)-i)
		for r := range w.leaves {
			w.leaves[r] = w.values[r*len(own)+i:][:n]
		}
		w.leaves[w.Rank()] = own[i:][:n]
		copy(own[i:], w.tree())
	}
	for r := range w.send {
		lo, hi := w.chunk(len(v), r)
		w.send[r], w.recv[r] = bytesOf(own), bytesOf(v[lo:hi])
	}
	return w.t.Exchange(w.send, w.recv)
}

// sumRounded is Sum with bfloat16 on the way.
func (w *World) sumRounded(v, residual []float32) error {
	if len(residual) != len(v) {
		return fmt.Errorf("dist: a residual of %d numbers for a sum of %d: they must have the same length", len(residual), len(v))
	}
	lo, hi := w.chunk(len(v), w.Rank())
	own, lost := v[lo:hi], residual[lo:hi]
	w.rounded = grown(w.rounded, len(v))
	w.wire = grown(w.wire, w.Size()*len(own))
	w.values = grown(w.values, w.Size()*block)
	sum := w.rounded[lo:hi]
	for i := 0; i < len(v); i += block {
		n := min(block, len(v)-i)
		w.set.Add(v[i:][:n], v[i:][:n], residual[i:][:n])
		w.round(w.rounded[i:][:n], residual[i:][:n], v[i:][:n])
	}
	for r := range w.send {
		lo, hi := w.chunk(len(v), r)
		w.send[r], w.recv[r] = bytesOf(w.rounded[lo:hi]), bytesOf(w.wire[r*len(own):][:len(own)])
	}
	if err := w.t.Exchange(w.send, w.recv); err != nil {
		return err
	}
	for i := 0; i < len(own); i += block {
		n := min(block, len(own)-i)
		for r := range w.leaves {
			w.leaves[r] = w.values[r*block:][:n]
			w.bf16.Widen(w.leaves[r], w.wire[r*len(own)+i:][:n])
		}
		w.leaves[w.Rank()] = own[i:][:n] // not rounded, and so without a residual of its own
		copy(own[i:], w.tree())
		w.round(sum[i:][:n], lost[i:][:n], own[i:][:n])
	}
	for r := range w.send {
		lo, hi := w.chunk(len(v), r)
		w.send[r], w.recv[r] = bytesOf(sum), bytesOf(w.rounded[lo:hi])
	}
	if err := w.t.Exchange(w.send, w.recv); err != nil {
		return err
	}
	w.bf16.Widen(v, w.rounded)
	return nil
}

// block is the number of values of all leaves that are added before the next
// ones: the leaves of some ranks fit a core's cache.
const block = 2048

// tree adds the leaves, which it overwrites.
func (w *World) tree() []float32 {
	for step := 1; step < len(w.leaves); step *= 2 {
		for i := 0; i+step < len(w.leaves); i += 2 * step {
			w.set.Add(w.leaves[i], w.leaves[i], w.leaves[i+step])
		}
	}
	return w.leaves[0]
}

// round sets dst to v as bfloat16 and lost to what that loses.
func (w *World) round(dst []uint16, lost, v []float32) {
	w.bf16.Narrow(dst, v)
	w.bf16.Widen(lost, dst)
	w.set.Sub(lost, v, lost)
	if s := w.set.Sum(lost); s-s == 0 {
		return
	}
	for i, x := range lost {
		if x-x != 0 { // infinite or not a number
			lost[i] = 0
		}
	}
}

// chunk returns the range of n values that a rank adds.
func (w *World) chunk(n, rank int) (lo, hi int) {
	return rank * n / w.Size(), (rank + 1) * n / w.Size()
}

// Gather fills all with every rank's own, by rank; len(all) is len(own)·Size.
// The error is that of [Transport].Exchange.
func (w *World) Gather(own, all []float64) error {
	if len(all) != len(own)*w.Size() {
		return fmt.Errorf("dist: %d numbers of each of %d ranks for a slice of %d", len(own), w.Size(), len(all))
	}
	copy(all[w.Rank()*len(own):], own)
	for r := range w.send {
		w.send[r], w.recv[r] = bytesOf(own), bytesOf(all[r*len(own):][:len(own)])
	}
	return w.t.Exchange(w.send, w.recv)
}

// Share returns every rank's bytes, which may have any lengths, by rank. The
// entry of this rank is own itself. The error is that of [Transport].Exchange.
func (w *World) Share(own []byte) (all [][]byte, err error) {
	lengths := make([]float64, w.Size())
	if err := w.Gather([]float64{float64(len(own))}, lengths); err != nil {
		return nil, err
	}
	all = make([][]byte, w.Size())
	for r, n := range lengths {
		all[r], w.send[r] = make([]byte, int(n)), own
	}
	all[w.Rank()] = own
	if err := w.t.Exchange(w.send, all); err != nil {
		return nil, err
	}
	return all, nil
}

// grown returns a slice of n elements, s if it has them.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// bytesOf returns the memory of v. Ranks of one job run on machines of one byte
// order: they run the same binary.
func bytesOf[T float32 | float64 | uint16](v []T) []byte {
	var t T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(t)))
}
