package train_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Segments cover every step of every document once, in order, each document in one row.
func TestSegments(t *testing.T) {
	lengths := []int{5, 0, 12, 1, 4, 7, 0, 3}
	const rows, steps = 3, 4
	at := make([]int, len(lengths))
	row := map[int]int{}
	for seg := train.NewSegments(lengths, rows, steps); seg.Next(); {
		for b, doc := range seg.Doc {
			if doc < 0 {
				if seg.Length[b] != 0 {
					t.Fatalf("a row without a document has %d steps", seg.Length[b])
				}
				continue
			}
			if r, ok := row[doc]; ok && r != b {
				t.Fatalf("document %d is in rows %d and %d", doc, r, b)
			}
			row[doc] = b
			if seg.Begins[b] != (at[doc] == 0) || seg.From[b] != at[doc] || seg.Length[b] < 1 || seg.Length[b] > steps {
				t.Fatalf("document %d at step %d: from %d, length %d, begins %v", doc, at[doc], seg.From[b], seg.Length[b], seg.Begins[b])
			}
			at[doc] += int(seg.Length[b])
		}
	}
	if !slices.Equal(at, lengths) {
		t.Errorf("steps covered %v, want %v", at, lengths)
	}
}

// Truncated backpropagation: documents of any length in two rows, three steps at
// a time, the state carried on within a document and never across.
func ExampleSegments() {
	documents := [][]float32{{1, 2, 3, 4, 5}, {6, 7}, {8, 9, 10, 11}}
	const rows, steps = 2, 3
	m := nn.NewGRU(1, 4, nil)
	slab := tensor.Pack(tensor.CPU(), m, 1)
	opt := optim.NewSGD(slab, nil)
	tape, carry := tensor.NewTape(tensor.CPU(), tensor.Train), nn.NewCarry(m, rows)
	x := make([]float32, rows*steps)
	for seg := train.NewSegments([]int{5, 2, 4}, rows, steps); seg.Next(); {
		for b, doc := range seg.Doc {
			if doc >= 0 {
				copy(x[b*steps:(b+1)*steps], documents[doc][seg.From[b]:])
			}
		}
		tape.Reset()
		y, final := m.Forward(tape.Sequences(x, seg.Length, rows, steps, 1), carry.Begin(tape, seg.Begins))
		tensor.ActivityPenalty(y, 1).Backward()
		opt.Step(0.1)
		carry.End(final)
		fmt.Println("documents", seg.Doc, "from", seg.From, "steps", seg.Length, "begin", seg.Begins)
	}
	// Output:
	// documents [0 1] from [0 0] steps [3 2] begin [true true]
	// documents [0 2] from [3 0] steps [2 3] begin [false true]
	// documents [-1 2] from [0 3] steps [0 1] begin [false false]
}
