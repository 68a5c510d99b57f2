package cpu

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// workspace lends float32 memory that keeps its size between uses, and what
// methods on it need to compute.
type workspace struct {
	set  *simd.Set
	f    []float32
	x    []float32 // of SumSquares
	sums []float64
}

var workspaces par.Pool[workspace]

// floats returns n elements holding whatever was there.
func (w *workspace) floats(n int) []float32 {
	w.f = grow(w.f, n)
	return w.f
}

// chunk is a workspace for values that are made and used up a piece at a time.
type chunk [1024]float32

var chunks par.Pool[chunk]

// grow is s with length n, reallocated on a cache line if its capacity is short; the contents are lost then.
func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return aligned(n)
	}
	return s[:n]
}

// resize is s with length n and unspecified contents.
func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }
