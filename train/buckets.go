package train

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Buckets groups samples of similar length into batches, so that little of a
// padded batch is padding. Which samples of one length share a batch, and the
// order of the batches, are drawn anew for each epoch.
type Buckets struct {
	lengths []int
	cuts    []int // where batches end, in the samples sorted by length
	seed    uint64
}

// NewBuckets makes batches of at most rows samples and at most items padded
// items (rows times the length of the longest sample, where a length of 0
// counts as 1). A sample longer than items forms a batch alone. It panics
// unless items and rows are positive.
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

// cut sorts samples by length, keeping the order of equal lengths, and divides
// them into batches.
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
