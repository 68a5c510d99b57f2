package simd

import "math"

// MinNormal is 2^-126, the smallest number that float32 holds with all its
// digits. What is nearer to zero is subnormal: on some processors an instruction
// that meets one takes a hundred times as long, and where gradients vanish they
// pass through these numbers before they are zero. So no kernel makes one: a
// result nearer to zero than MinNormal is zero.
const MinNormal = 0x1p-126

// Narrow rounds x to float32, and to a zero of its sign where it is below MinNormal.
// Float32 arithmetic that may come that low is done in float64, which has room
// for the product of any eight float32, and narrowed once.
func Narrow(x float64) float32 {
	if math.Abs(x) < MinNormal {
		return float32(math.Copysign(0, x))
	}
	return float32(x)
}
