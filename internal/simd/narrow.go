package simd

import "math"

// MinNormal is 2^-126, the smallest float32 with full precision. Smaller numbers are
// subnormal: on some processors an instruction that reads or produces one takes a
// hundred times as long, and vanishing gradients pass through them before they are
// zero. So no kernel produces one: a result smaller than MinNormal is zero.
const MinNormal = 0x1p-126

// Narrow returns x rounded to float32, or a zero with the sign of x if |x| is below
// MinNormal. Float32 arithmetic whose result may be that small is done in float64,
// which can represent the product of any eight float32 numbers, and narrowed once.
func Narrow(x float64) float32 {
	if math.Abs(x) < MinNormal {
		return float32(math.Copysign(0, x))
	}
	return float32(x)
}
