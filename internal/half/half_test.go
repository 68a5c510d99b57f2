package half

import (
	"math"
	"testing"
)

// formats are both formats, with the bits that their values have.
var formats = []struct {
	name           string
	from           func(uint16) float32
	to             func(float32) uint16
	fromAll        func([]float32, []uint16)
	toAll          func([]uint16, []float32)
	fraction, bias int
}{
	{"float16", FromFloat16, ToFloat16, FromFloat16s, ToFloat16s, 10, 15},
	{"bfloat16", FromBFloat16, ToBFloat16, FromBFloat16s, ToBFloat16s, 7, 127},
}

// valueOf is the definition of a format with this many bits of the fraction.
func valueOf(bits uint16, fraction, bias int) float64 {
	sign := 1 - 2*float64(bits>>15)
	exp, frac := int(bits&0x7fff)>>fraction, int(bits)&(1<<fraction-1)
	switch {
	case exp == 1<<(15-fraction)-1 && frac != 0:
		return math.NaN()
	case exp == 1<<(15-fraction)-1:
		return sign * math.Inf(1)
	case exp == 0:
		return sign * math.Ldexp(float64(frac), 1-bias-fraction)
	}
	return sign * math.Ldexp(float64(1<<fraction+frac), exp-bias-fraction)
}

// TestAll takes all values of both formats there and back, and rounds what lies between
// each two of them: the middle, and its neighbours among the float32s.
func TestAll(t *testing.T) {
	for _, f := range formats {
		src, wide, back := make([]uint16, 1<<16), make([]float32, 1<<16+1), make([]uint16, 1<<16+1)
		for i := range src {
			src[i] = uint16(i)
		}
		wide[1<<16], back[1<<16] = 7, 7
		f.fromAll(wide, src)
		f.toAll(back, wide[:1<<16])
		if wide[1<<16] != 7 || back[1<<16] != 7 {
			t.Errorf("%s: elements after those of src change", f.name)
		}
		infinity := uint16(1<<15 - 1<<f.fraction)
		for i, x := range wide[:1<<16] {
			bits := uint16(i)
			want := valueOf(bits, f.fraction, f.bias)
			if want != want {
				quiet := bits | 1<<(f.fraction-1)
				if x == x || back[i] != quiet || math.Signbit(float64(x)) != (bits>>15 == 1) {
					t.Fatalf("%s: the NaN %#x is %v of bits %#x, which becomes %#x, expected %#x", f.name, bits, x, math.Float32bits(x), back[i], quiet)
				}
				continue
			}
			if float64(x) != want || math.Signbit(float64(x)) != (bits>>15 == 1) || back[i] != bits {
				t.Fatalf("%s: %#x is %v, expected %v; it becomes %#x", f.name, bits, x, want, back[i])
			}
			if bits&0x7fff == infinity {
				continue
			}
			// The neighbour away from zero; in place of infinity the next power of two, at whose
			// middle the rounding to infinity begins.
			next := valueOf(bits+1, f.fraction, f.bias)
			if math.IsInf(next, 0) {
				next = want + (want - valueOf(bits-1, f.fraction, f.bias))
			}
			middle, even := float32((want+next)/2), bits+bits&1
			if float64(middle) != (want+next)/2 {
				t.Fatalf("%s: the middle of %v and %v is no float32", f.name, want, next)
			}
			for x, want := range map[float32]uint16{middle: even, math.Nextafter32(middle, x): bits, math.Nextafter32(middle, float32(next)): bits + 1} {
				if got := f.to(x); got != want {
					t.Fatalf("%s: %v after %#x becomes %#x, expected %#x", f.name, x, bits, got, want)
				}
			}
		}
	}
}

// TestBeyond rounds float32s of all exponents outside the range of float16, and NaNs whose
// payload the formats lack.
func TestBeyond(t *testing.T) {
	for e := range 256 {
		for _, frac := range []uint32{0, 1, 0x7fffff} {
			for sign := range uint32(2) {
				x := math.Float32frombits(sign<<31 | uint32(e)<<23 | frac)
				want := uint16(sign << 15)
				switch {
				case e == 255 && frac != 0:
					for _, f := range formats {
						if back := f.from(f.to(x)); back == back || f.to(x)>>15 != uint16(sign) {
							t.Errorf("%s: the NaN %#x becomes %#x", f.name, math.Float32bits(x), f.to(x))
						}
					}
					continue
				case math.Abs(float64(x)) >= 65520:
					want |= 0x7c00
				case math.Abs(float64(x)) > 0x1p-25:
					continue // of the test above
				}
				if got := ToFloat16(x); got != want {
					t.Errorf("float16: %v becomes %#x, expected %#x", x, got, want)
				}
			}
		}
	}
	if got := ToBFloat16(math.MaxFloat32); got != 0x7f80 {
		t.Errorf("bfloat16: the greatest float32 becomes %#x, expected infinity", got)
	}
}

func TestShort(t *testing.T) {
	for _, f := range formats {
		for name, call := range map[string]func(){
			"from": func() { f.fromAll(make([]float32, 1, 4), make([]uint16, 3)) },
			"to":   func() { f.toAll(make([]uint16, 1, 4), make([]float32, 3)) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: %s a slice that is longer than dst does not panic", f.name, name)
					}
				}()
				call()
			}()
		}
	}
}
