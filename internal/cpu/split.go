package cpu

import "github.com/carousel-ml/carousel/internal/device"

// moveGrain is the smallest share of a memory-bound loop worth another core.
const moveGrain = 1 << 15

// elemGrain is the smallest share of elements worth another core where each
// costs some nanoseconds.
const elemGrain = 1 << 13

// rowGrain returns elemGrain in rows of cols elements.
func rowGrain(cols int) int { return 1 + elemGrain/max(cols, 1) }

// minGemmWork is the smallest number of multiply-adds worth another core.
const minGemmWork = 1 << 17

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// part returns the length of the first of equal parts of n, of which none exceeds limit; limit if n is 0.
func part(n, limit int) int {
	if n == 0 {
		return limit
	}
	return ceilDiv(n, ceilDiv(n, limit))
}

// rowBlock returns the number of rows of cols elements in one partial sum over
// rows. It depends on the width alone, so that no sum depends on the worker count.
func rowBlock(cols int) int { return max(64, 4096/max(cols, 1)) }

// lengthOf returns the i-th length, n at most, or n if lens is absent.
func lengthOf(lens device.Ints, i, n int) int {
	if lens.Zero() {
		return n
	}
	return min(int(lens.Host[i]), n)
}
