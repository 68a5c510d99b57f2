package train

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Buckets puts samples of like length together, so that little of a padded
// batch is padding. Which samples of a length meet, and the order of the
// batches, are drawn anew each epoch.
type Buckets struct {
	lengths []int
	cuts    []int // where batches end, in the samples sorted by length
	seed    uint64
}

// NewBuckets makes batches of at most items padded items (rows times the length
// of the longest, where a length of 0 counts as 1) and at most rows samples; a
// sample longer than items is a batch by itself. Both must be positive.
func NewBuckets(lengths []int, items, rows int, seed uint64) *Buckets {
	b := &Buckets{lengths: lengths, seed: seed}
	sorted := slices.Sorted(slices.Values(lengths))
	first := 0
	for i, n := range sorted {
		if i > first && ((i-first+1)*max(n, 1) > items || i-first >= rows) {
			b.cuts = append(b.cuts, i)
			first = i
		}
	}
	if len(sorted) > 0 {
		b.cuts = append(b.cuts, len(sorted))
	}
	return b
}

// Len is the number of batches of each epoch.
func (b *Buckets) Len() int { return len(b.cuts) }

// Batches lists the samples of each batch of an epoch; it is a [Job]'s Batches.
func (b *Buckets) Batches(epoch int) [][]int {
	order := make([]int, len(b.lengths))
	shuffle(order, b.seed, epoch)
	batches := b.cut(order)
	r := rand.New(rand.NewPCG(b.seed^0x6275636b6574, uint64(epoch)))
	r.Shuffle(len(batches), func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
	return batches
}

// InOrder lists the batches from the shortest samples to the longest, for
// passes that draw nothing, such as validation.
func (b *Buckets) InOrder() [][]int {
	order := make([]int, len(b.lengths))
	for i := range order {
		order[i] = i
	}
	return b.cut(order)
}

// cut sorts samples by length, those of one length as they come, and divides them.
func (b *Buckets) cut(order []int) [][]int {
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(b.lengths[i], b.lengths[j]) })
	batches := make([][]int, len(b.cuts))
	first := 0
	for i, end := range b.cuts {
		batches[i] = order[first:end]
		first = end
	}
	return batches
}
