package bench

import "math"

// probe is two loops that do nothing but run into a limit of one core, for
// measured kernels to be compared with. A probe may be used by any number of
// goroutines at once.
type probe struct {
	// flopPerRound is the floating-point operations of one round of fma.
	flopPerRound int
	// fma runs rounds of multiply-adds in registers: x = alpha*x + alpha in
	// many independent chains, begun again at 0 every probeRounds. It returns
	// a sum over the chains, one lane of each.
	fma func(rounds int, alpha float32) float32
	// readBlock is the number of elements that read takes at a time.
	readBlock int
	// read loads every element of x once, whole blocks only, and returns the
	// exclusive or of the bits of some of them.
	read func(x []float32) uint32
}

// probeOf is the probe with the instructions of a kernel set.
func probeOf(set string) probe {
	if p, ok := machineProbe(set); ok {
		return p
	}
	return probe{flopPerRound: 16, fma: fmaGeneric, readBlock: 8, read: readGeneric}
}

// Rounds and elements of one assembly call, which Go cannot preempt.
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
