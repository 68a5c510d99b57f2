package simd

import (
	"math"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/half"
)

// panelFloats is the memory of a panel of a kind whose panels are float32 numbers with the values of
// 16 bits: where no instruction multiplies those faster, products of float32 are as fast and
// need no conversion.
func panelFloats(panel []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(panel))), len(panel)/4)
}

func roundBF16Generic(dst, src []float32) {
	for i, v := range src {
		dst[i] = half.FromBFloat16(toBF16(v))
	}
}

func roundFP16Generic(dst, src []float32) {
	for i, v := range src {
		dst[i] = half.FromFloat16(half.ToFloat16(v))
	}
}

// toBF16 is without subnormal numbers.
func toBF16(v float32) uint16 {
	return half.ToBFloat16(math.Float32frombits(math.Float32bits(v)&(1<<31) | math.Float32bits(Flush(v))))
}

func narrowBF16Generic(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = toBF16(v)
	}
}

func narrowUnitGeneric(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	for i, v := range src {
		if v > 0.5 {
			dst[i] = half.ToFloat16(1-v) | 1<<15
		} else {
			dst[i] = half.ToFloat16(v)
		}
	}
}

func widenUnitGeneric(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, h := range src {
		if h>>15 == 1 {
			dst[i] = 1 + half.FromFloat16(h)
		} else {
			dst[i] = half.FromFloat16(h)
		}
	}
}

func widenBF16Generic(dst []float32, src []uint16)  { half.FromBFloat16s(dst, src) }
func narrowFP16Generic(dst []uint16, src []float32) { half.ToFloat16s(dst, src) }
func widenFP16Generic(dst []float32, src []uint16)  { half.FromFloat16s(dst, src) }
