package graph

import (
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// flush is simd.Narrow without the rounding: for the plain recurrent cell, which
// computes in float64, so that no state becomes subnormal there.
func flush(x float64) float64 {
	if math.Abs(x) < simd.MinNormal {
		return math.Copysign(0, x)
	}
	return x
}

const exponent = 0xff << 23 // the bits of a float32's exponent

// fromBits returns the float32 of the bits, flushed. It uses the bits because a
// comparison of subnormal numbers is slow.
func fromBits(bits uint32) float32 {
	if bits&exponent == 0 {
		bits &= 1 << 31
	}
	return math.Float32frombits(bits)
}

// subnormal reports whether fromBits would change x.
func subnormal(x float32) bool {
	bits := math.Float32bits(x)
	return bits&exponent == 0 && bits<<1 != 0
}
