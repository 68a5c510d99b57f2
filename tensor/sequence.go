package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
)

// sequence is what a padded batch knows of its rows. The recurrent engine works
// time-major on rows sorted by length, longest first, so that the rows still
// inside their sequence are always the first ones.
type sequence struct {
	lengths   []int32 // [B], in the user's order; nil: every row is T long
	order     []int32 // [B], the user's row at each sorted place
	sorted    []int32 // [B], lengths by sorted place
	active    []int32 // [T], rows still inside their sequence at t
	on        struct{ lengths, order, sorted, active device.Ints }
	timeMajor bool // the tensor is [T,B,F] in sorted order
	flipped   *sequence
}

// sequence checks lengths and sorts them.
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
	// A counting sort by length: active counts rows longer than t, which is
	// also where the rows of the next shorter length begin.
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

// length is that of row b, or T where every row is so long.
func (s *sequence) length(b, T int) int {
	if s == nil {
		return T
	}
	return int(s.lengths[b])
}

// flip is the same rows in the other layout.
func (t *Tape) flip(s *sequence) *sequence {
	if s.flipped == nil {
		f := t.seqs.next()
		*f = *s
		f.timeMajor = !s.timeMajor
		f.flipped, s.flipped = s, f
	}
	return s.flipped
}

// TimeMajor turns [B,T,F] into the recurrent engine's [T,B,F], rows sorted by
// length and padding made zero; [BatchMajor] turns it back, in the first order.
func TimeMajor(x *Tensor) *Tensor { return transposeTime("TimeMajor", x, true) }

// BatchMajor undoes [TimeMajor]. Past each row's length the result is zero.
func BatchMajor(x *Tensor) *Tensor { return transposeTime("BatchMajor", x, false) }

func transposeTime(op string, x *Tensor, toTime bool) *Tensor {
	t := tapeOf(op, x)
	if x.rank != 3 {
		failf(op, "needs three dimensions, got %s", describe(x))
	}
	if x.seq != nil && x.seq.timeMajor == toTime {
		failf(op, "a padded batch %s already has that layout", describe(x))
	}
	y := t.Empty(x.dims[1], x.dims[0], x.dims[2])
	if x.seq != nil {
		y.seq = t.flip(x.seq)
	}
	t.move(y, x, timePermute(x, y, toTime), true)
	return y
}

// timePermute moves src to dst, one [B,T,F] and the other [T,B,F]; the loop runs over sorted row, time and feature.
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
