package simd

import "math"

// Probe is two loops that do nothing but run into a limit of one core, for
// measured kernels to be compared with. A probe may be used by any number of
// goroutines at once.
type Probe struct {
	// FlopPerRound is the floating-point operations of one round of FMA.
	FlopPerRound int
	// FMA runs rounds of multiply-adds in registers: x = alpha*x + alpha in
	// many independent chains, begun again at 0 every probeRounds. It returns
	// a sum over the chains, one lane of each.
	FMA func(rounds int, alpha float32) float32
	// ReadBlock is the number of elements that Read takes at a time.
	ReadBlock int
	// Read loads every element of x once, whole blocks only, and returns the
	// exclusive or of the bits of some of them.
	Read func(x []float32) uint32
}

// Probe is the probe with the instructions that s uses.
func (s *Set) Probe() Probe {
	if p, ok := machineProbe(s.Name); ok {
		return p
	}
	return Probe{FlopPerRound: 16, FMA: fmaGeneric, ReadBlock: 8, Read: readGeneric}
}

// Rounds and elements of one assembly call; see mapChunk.
const (
	probeRounds = 1 << 12
	probeChunk  = 1 << 15
)

func fmaGeneric(rounds int, alpha float32) float32 {
	var a, b, c, d, e, f, g, h float32
	for range rounds {
		a = float32(alpha*a) + alpha
		b = float32(alpha*b) + alpha
		c = float32(alpha*c) + alpha
		d = float32(alpha*d) + alpha
		e = float32(alpha*e) + alpha
		f = float32(alpha*f) + alpha
		g = float32(alpha*g) + alpha
		h = float32(alpha*h) + alpha
	}
	return a + b + c + d + e + f + g + h
}

func readGeneric(x []float32) uint32 {
	var a, b uint32
	for ; len(x) >= 8; x = x[8:] {
		y := x[:8:8]
		a ^= math.Float32bits(y[0]) ^ math.Float32bits(y[1]) ^ math.Float32bits(y[2]) ^ math.Float32bits(y[3])
		b ^= math.Float32bits(y[4]) ^ math.Float32bits(y[5]) ^ math.Float32bits(y[6]) ^ math.Float32bits(y[7])
	}
	return a ^ b
}
