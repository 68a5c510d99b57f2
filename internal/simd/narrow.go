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

// Flush returns x, or zero if x is subnormal. It compares bits because even a comparison
// with such a number is slow on some processors.
func Flush(x float32) float32 {
	if math.Float32bits(x)&(0xff<<23) == 0 {
		return 0
	}
	return x
}
