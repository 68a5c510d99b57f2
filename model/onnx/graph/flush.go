package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
)

// flush is simd.Narrow without the rounding: for the plain recurrent cell, which
// works in float64, so that no state sinks to where float64 has no digits for it either.
func flush(x float64) float64 {
	if math.Abs(x) < simd.MinNormal {
		return math.Copysign(0, x)
	}
	return x
}

const exponent = 0xff << 23 // the bits of a float32's exponent

// fromBits is the float32 of the bits, flushed. It works on the bits because a
// comparison would itself be a slow instruction.
func fromBits(bits uint32) float32 {
	if bits&exponent == 0 {
		bits &= 1 << 31
	}
	return math.Float32frombits(bits)
}

// subnormal says whether fromBits would change x.
func subnormal(x float32) bool {
	bits := math.Float32bits(x)
	return bits&exponent == 0 && bits<<1 != 0
}

// flushed is x itself, or if it holds subnormal numbers a flushed copy: it may be the caller's.
func flushed(x []float32) []float32 {
	if !slices.ContainsFunc(x, subnormal) {
		return x
	}
	own := make([]float32, len(x))
	for i, v := range x {
		own[i] = fromBits(math.Float32bits(v))
	}
	return own
}
