package train

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestBuckets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	lengths := make([]int, 500)
	for i := range lengths {
		lengths[i] = r.IntN(40)
	}
	lengths[17] = 1000 // longer than the budget
	const items, rows = 256, 24
	b := NewBuckets(lengths, items, rows, 9)
	real, padded := 0, 0
	for epoch := range 3 {
		batches := b.Batches(epoch)
		if len(batches) != b.Len() {
			t.Fatalf("epoch %d has %d batches, want %d", epoch, len(batches), b.Len())
		}
		seen := make([]int, len(lengths))
		for _, batch := range batches {
			longest := 1
			for _, i := range batch {
				seen[i]++
				longest = max(longest, lengths[i])
				real += lengths[i]
			}
			padded += longest * len(batch)
			if len(batch) > rows || len(batch) > 1 && longest*len(batch) > items {
				t.Errorf("a batch of %d samples with up to %d items", len(batch), longest)
			}
		}
		if slices.Min(seen) != 1 || slices.Max(seen) != 1 {
			t.Error("not every sample is in one batch")
		}
	}
	if float64(padded) > 1.1*float64(real) {
		t.Errorf("%d items are padded to %d", real, padded)
	}
	if !reflect.DeepEqual(b.Batches(1), b.Batches(1)) || reflect.DeepEqual(b.Batches(1), b.Batches(2)) {
		t.Error("the batches must depend on the epoch and nothing else")
	}
	last := 0
	for _, batch := range b.InOrder() {
		for _, i := range batch {
			if lengths[i] < last {
				t.Fatal("InOrder does not rise")
			}
			last = lengths[i]
		}
	}
}
