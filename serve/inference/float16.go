package inference

import "math"

// widenHalf returns an IEEE 754 binary16 value as float32, exactly.
func widenHalf(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := uint32(h>>10)&31, uint32(h)&0x3ff
	switch exp {
	case 0: // zero and subnormals
		return math.Float32frombits(sign | math.Float32bits(float32(frac)/(1<<24)))
	case 31: // infinities and NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// narrowHalf returns the binary16 value nearest to f, of two the even one. From 65520 on
// that is infinity; a NaN stays one.
func narrowHalf(f float32) uint16 {
	bits := math.Float32bits(f)
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

// widenBrain returns a bfloat16 value as float32, exactly.
func widenBrain(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// narrowBrain returns the bfloat16 value nearest to f, of two the even one; a NaN stays one.
func narrowBrain(f float32) uint16 {
	bits := math.Float32bits(f)
	if f != f {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
