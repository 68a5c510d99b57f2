package cpu

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// workspace is memory that keeps its size between uses, and arguments for the
// methods of workspace.
type workspace struct {
	set  *simd.Set
	f    []float32
	x    []float32 // of SumSquares
	sums []float64
}

var workspaces par.Pool[workspace]

// floats returns n elements with unspecified contents.
func (w *workspace) floats(n int) []float32 {
	w.f = grow(w.f, n)
	return w.f
}

// chunk is a workspace for intermediate values that are computed and used piece by piece.
type chunk [1024]float32

var chunks par.Pool[chunk]

// grow returns s with length n and unspecified contents. If its capacity is too small, the result is new memory that begins on a cache line.
func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return aligned(n)
	}
	return s[:n]
}

// resize returns s with length n and unspecified contents.
func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }
