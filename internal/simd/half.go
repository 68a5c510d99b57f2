package simd

import (
	"math"
	"unsafe"
)

// encodeRounded is Weights.Encode of kinds whose panels are float32 numbers with the
// values of 16 bits: where no instruction multiplies those faster, products of float32
// are as fast and need no conversion.
func encodeRounded(dst []byte, panel []float32, narrow func([]uint16, []float32), widen func([]float32, []uint16)) {
	Round(unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(dst))), len(panel)), panel, narrow, widen)
}

// Round sets dst to src rounded to the values of 16 bits. dst may be src.
func Round(dst, src []float32, narrow func([]uint16, []float32), widen func([]float32, []uint16)) {
	var half [1024]uint16
	for len(src) > 0 {
		n := min(len(src), len(half))
		narrow(half[:n], src[:n])
		widen(dst[:n], half[:n])
		dst, src = dst[n:], src[n:]
	}
}

func narrowBF16Generic(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	for i, v := range src {
		u := math.Float32bits(v)
		abs := u & 0x7fffffff
		switch {
		case abs > 0x7f800000: // a NaN is quiet
			abs |= 0x400000
		case abs < 0x800000: // subnormal
			abs = 0
		}
		abs = min(abs+0x7fff+abs>>16&1, 0x7fffffff) // the greatest NaN stays one
		dst[i] = uint16(u>>31<<15 | abs>>16)
	}
}

func widenBF16Generic(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, h := range src {
		dst[i] = math.Float32frombits(uint32(h) << 16)
	}
}

func narrowFP16Generic(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	for i, v := range src {
		u := math.Float32bits(v)
		sign, abs := uint16(u>>16&0x8000), u&0x7fffffff
		switch {
		case abs > 0x7f800000:
			dst[i] = sign | 0x7e00 | uint16(abs>>13&0x3ff)
		case abs >= 0x47800000: // 65,536 and more
			dst[i] = sign | 0x7c00
		case abs >= 0x38800000: // 2^-14: normal. A carry goes to the exponent, up to infinity
			dst[i] = sign | uint16((abs-0x38000000+0xfff+abs>>13&1)>>13)
		default: // a multiple of 2^-24; the sum's last bits are those of the multiple
			dst[i] = sign | uint16(math.Float32bits(math.Float32frombits(abs)+0.5)-0x3f000000)
		}
	}
}

func widenFP16Generic(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, h := range src {
		sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10&31), uint32(h&0x3ff)
		switch exp {
		case 0:
			dst[i] = math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
		case 31:
			if frac != 0 {
				frac |= 0x200
			}
			dst[i] = math.Float32frombits(sign | 0x7f800000 | frac<<13)
		default:
			dst[i] = math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
		}
	}
}
