package cpu

import "github.com/carousel-ml/carousel/internal/device"

// moveGrain is the smallest share of a memory-bound loop worth another core.
const moveGrain = 1 << 15

// elemGrain is the smallest share of elements worth another core where each
// costs some nanoseconds.
const elemGrain = 1 << 13

// rowGrain is elemGrain in rows of cols elements.
func rowGrain(cols int) int { return 1 + elemGrain/max(cols, 1) }

// minGemmWork is the smallest number of multiply-adds worth another core.
const minGemmWork = 1 << 17

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// part is the first of equal parts of n, none above limit; limit if n is 0.
func part(n, limit int) int {
	if n == 0 {
		return limit
	}
	return ceilDiv(n, ceilDiv(n, limit))
}

// rowBlock is how many rows of cols elements one partial sum over rows covers.
// It depends on the width alone, so sums never depend on the worker count.
func rowBlock(cols int) int { return max(64, 4096/max(cols, 1)) }

// lengthOf is the i-th of some lengths that are n at most; n where there are none.
func lengthOf(lens device.Ints, i, n int) int {
	if lens.Zero() {
		return n
	}
	return min(int(lens.Host[i]), n)
}
