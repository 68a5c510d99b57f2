package train

import "github.com/carousel-ml/carousel/tensor"

// Segments divides documents into segments of at most steps steps and assigns them to
// the rows of batches, for truncated backpropagation through time (Williams and Peng
// 1990): a row runs through a document segment by segment with its state carried, and
// starts the next document with a state of zeros. A segment ends at the end of its
// document, and a row without further documents has length 0.
//
//	carry := nn.NewCarry(net.RNN, rows)
//	for seg := train.NewSegments(lengths, rows, steps); seg.Next(); {
//		tape.Reset()
//		// fill x from seg.Doc, seg.From and seg.Length
//		y, final := net.RNN.Forward(tape.Sequences(x, seg.Length, rows, steps, features), carry.Begin(tape, seg.Begins))
//		...
//		loss.Backward()
//		opt.Step(lr)
//		carry.End(final)
//	}
//
// Validation needs another carry.
type Segments struct {
	Doc    []int   // by row: the number of its document, -1 if it has none
	From   []int   // the step of the document at which the segment begins
	Length []int32 // the segment's length, 0 to steps
	Begins []bool  // the segment is its document's first

	lengths []int
	steps   int
	next    int // the first document that is not assigned to a row
}

// NewSegments returns the segments of documents of the given lengths in steps, in this
// order, so shuffle them before; documents of length 0 are skipped. It panics with a
// [*tensor.UseError] unless rows and steps are positive.
func NewSegments(lengths []int, rows, steps int) *Segments {
	tensor.Check(rows > 0 && steps > 0, "train: Segments", "needs rows and steps, got %d and %d", rows, steps)
	s := &Segments{Doc: make([]int, rows), From: make([]int, rows), Length: make([]int32, rows), Begins: make([]bool, rows),
		lengths: lengths, steps: steps}
	for b := range s.Doc {
		s.Doc[b] = -1
	}
	return s
}

// Next moves every row to its next segment and reports whether any row has one. The
// slices are overwritten.
func (s *Segments) Next() bool {
	any := false
	for b := range s.Doc {
		s.From[b] += int(s.Length[b])
		s.Begins[b] = false
		if s.Doc[b] < 0 || s.From[b] >= s.lengths[s.Doc[b]] {
			s.begin(b)
		}
		s.Length[b] = 0
		if s.Doc[b] >= 0 {
			s.Length[b] = int32(min(s.steps, s.lengths[s.Doc[b]]-s.From[b]))
			any = true
		}
	}
	return any
}

func (s *Segments) begin(b int) {
	s.Doc[b], s.From[b] = -1, 0
	for s.next < len(s.lengths) && s.Doc[b] < 0 {
		if s.lengths[s.next] > 0 {
			s.Doc[b], s.Begins[b] = s.next, true
		}
		s.next++
	}
}
