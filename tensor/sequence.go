package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
)

// sequence holds the lengths of the rows of a padded batch. The recurrent engine
// works time-major on rows sorted by length, longest first, so the rows that have
// not ended at a step are always the first ones.
type sequence struct {
	lengths []int32 // [B], in the user's order
	order   []int32 // [B], the user's row at each sorted place
	sorted  []int32 // [B], lengths by sorted place
	active  []int32 // [T], the number of rows longer than t
	on      struct{ lengths, order, sorted, active device.Ints }
}

// sequence checks and sorts the lengths of B rows of T steps.
func (t *Tape) sequence(op string, lengths []int32, B, T int) *sequence {
	if len(lengths) != B {
		failf(op, "%d rows need %d lengths, got %d", B, B, len(lengths))
	}
	for b, n := range lengths {
		if n < 0 || int(n) > T {
			failf(op, "length of row %d must be 0 to %d, got %d", b, T, n)
		}
	}
	s := t.seqs.next()
	all := t.ints.alloc(3*B + T)
	s.lengths, s.order, s.sorted, s.active = all[:B:B], all[B:2*B], all[2*B:3*B], all[3*B:]
	copy(s.lengths, lengths)
	clear(s.active)
	for _, n := range s.lengths {
		for i := range n {
			s.active[i]++
		}
	}
	for b := range s.order {
		s.order[b] = int32(b)
	}
	slices.SortStableFunc(s.order, func(a, b int32) int { return int(s.lengths[b]) - int(s.lengths[a]) })
	for i, b := range s.order {
		s.sorted[i] = s.lengths[b]
	}
	on := t.upload(all)
	s.on.lengths, s.on.order, s.on.sorted, s.on.active = on.Slice(0, B), on.Slice(B, 2*B), on.Slice(2*B, 3*B), on.Slice(3*B, 3*B+T)
	return s
}

// length returns the length of row b; s may be nil, then it is T.
func (s *sequence) length(b, T int) int {
	if s == nil {
		return T
	}
	return int(s.lengths[b])
}

// checkBatch panics unless x is a batch [B,T,F].
func checkBatch(op string, x *Tensor) {
	if x.rank != 3 || x.timeMajor {
		failf(op, "needs a batch [B,T,F], not time-major, got %s", describe(x))
	}
}

// checkTime panics unless x is a time-major batch [T,B,F].
func checkTime(op string, x *Tensor) {
	if x.rank != 3 || x.seq != nil && !x.timeMajor {
		failf(op, "needs a time-major batch [T,B,F], got %s", describe(x))
	}
}

// TimeMajor transposes a batch [B,T,F] to the layout of recurrent layers, [T,B,F].
// If x carries lengths, rows are sorted by length and padding is set to zero;
// [BatchMajor] restores the order. It panics with a [*ShapeError] unless x has three
// dimensions, and if x is a padded batch in that layout already.
func TimeMajor(x *Tensor) *Tensor { return transposeTime("TimeMajor", x, true) }

// BatchMajor undoes [TimeMajor]: [T,B,F] to [B,T,F]. Past the length of a row the
// result is zero. It panics as TimeMajor does.
func BatchMajor(x *Tensor) *Tensor { return transposeTime("BatchMajor", x, false) }

func transposeTime(op string, x *Tensor, toTime bool) *Tensor {
	t := tapeOf(op, x)
	if x.rank != 3 {
		failf(op, "needs three dimensions, got %s", describe(x))
	}
	if x.seq != nil && x.timeMajor == toTime {
		failf(op, "a padded batch %s already has that layout", describe(x))
	}
	y := t.Empty(x.dims[1], x.dims[0], x.dims[2])
	y.layout = layout{x.seq, x.seq != nil && toTime}
	t.move(y, x, timePermute(x, y, toTime), true)
	return y
}

// timePermute moves src to dst, of which one is [B,T,F] and the other [T,B,F], with
// loops over sorted row, time and feature.
func timePermute(src, dst *Tensor, toTime bool) device.PermuteSpec {
	batch := src
	if !toTime {
		batch = dst
	}
	B, T, F := batch.dims[0], batch.dims[1], batch.dims[2]
	s := device.PermuteSpec{Dims: [4]int{1, B, T, F}, RowDim: 1, TimeDim: 2, RowsDst: !toTime}
	batchStride, timeStride := [4]int{0, T * F, F, 1}, [4]int{0, F, B * F, 1}
	s.SrcStride, s.DstStride = batchStride, timeStride
	if !toTime {
		s.SrcStride, s.DstStride = timeStride, batchStride
	}
	if src.seq != nil {
		s.Rows, s.Lens = src.seq.on.order, src.seq.on.sorted
	}
	return s
}
