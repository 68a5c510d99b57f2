// Package half converts between float32 and the two floats of 16 bits: float16, which is
// binary16 of IEEE 754 (11 significant bits, 2^-24 to 65504), and bfloat16, the upper half
// of a float32 (8 significant bits, its range). Both are kept as their bits.
//
// A conversion to float32 is exact. One from float32 rounds to the nearest value, of two
// equally near ones to the even one, and beyond the greatest to infinity. Subnormal numbers
// are values as all others: who computes in float32 flushes them himself. A NaN stays a NaN
// of its sign; from float32 it becomes a quiet one with the upper bits of its payload.
package half

import "math"

// FromFloat16 returns the value of a float16.
func FromFloat16(bits uint16) float32 {
	sign, exp, frac := uint32(bits>>15)<<31, uint32(bits>>10)&31, uint32(bits)&0x3ff
	switch exp {
	case 0: // zero and subnormals
		return math.Float32frombits(sign | math.Float32bits(float32(frac)/(1<<24)))
	case 31: // infinities and NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// ToFloat16 returns the float16 nearest to x: from 65520 on infinity.
func ToFloat16(x float32) uint16 {
	bits := math.Float32bits(x)
	sign, rest := uint16(bits>>16)&0x8000, bits&^(1<<31)
	switch {
	case rest > 0xff<<23:
		return sign | 0x7e00 | uint16(rest>>13)&0x3ff
	case rest >= (127+16)<<23: // 65536
		return sign | 0x7c00
	case rest < (127-14)<<23: // 2^-14: the result is subnormal, in steps of 2^-24
		// The sum's last bit is worth 2^-24, so that the addition does the rounding.
		return sign | uint16(math.Float32bits(math.Float32frombits(rest)+0.5)-math.Float32bits(0.5))
	}
	rest -= (127 - 15) << 23
	return sign | uint16((rest+0xfff+rest>>13&1)>>13)
}

// FromBFloat16 returns the value of a bfloat16.
func FromBFloat16(bits uint16) float32 { return math.Float32frombits(uint32(bits) << 16) }

// ToBFloat16 returns the bfloat16 nearest to x.
func ToBFloat16(x float32) uint16 {
	bits := math.Float32bits(x)
	if x != x {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// FromFloat16s sets the first elements of dst to the values of src. Like the other
// functions of slices it panics if dst is shorter than src.
func FromFloat16s(dst []float32, src []uint16) {
	dst = dst[:len(src):len(dst)] // not up to its capacity
	for i, bits := range src {
		dst[i] = FromFloat16(bits)
	}
}

// ToFloat16s sets the first elements of dst to the float16s nearest to those of src.
func ToFloat16s(dst []uint16, src []float32) {
	dst = dst[:len(src):len(dst)]
	for i, x := range src {
		dst[i] = ToFloat16(x)
	}
}

// FromBFloat16s sets the first elements of dst to the values of src.
func FromBFloat16s(dst []float32, src []uint16) {
	dst = dst[:len(src):len(dst)]
	for i, bits := range src {
		dst[i] = FromBFloat16(bits)
	}
}

// ToBFloat16s sets the first elements of dst to the bfloat16s nearest to those of src.
func ToBFloat16s(dst []uint16, src []float32) {
	dst = dst[:len(src):len(dst)]
	for i, x := range src {
		dst[i] = ToBFloat16(x)
	}
}
