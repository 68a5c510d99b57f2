//go:build !purego

package bench

import "math"

// probeArgs is what the loops in assembly take.
type probeArgs struct {
	N          int
	A          *float32
	Alpha, Out float32
}

// machineProbe is the assembly probe of a set. Chains and blocks are those of probeFMA and probeRead in _asm.
func machineProbe(set string) (probe, bool) {
	switch set {
	case "avx512", "avx512bf16", "amx": // the share is of float32 arithmetic
		return probe{24 * 16 * 2, fmaAVX512, 8 * 16, readAVX512}, true
	case "avx2":
		return probe{12 * 8 * 2, fmaAVX2, 8 * 8, readAVX2}, true
	}
	return probe{}, false
}

func fmaAVX512(rounds int, alpha float32) float32 {
	a := probeArgs{Alpha: alpha}
	for ; rounds > 0; rounds -= probeRounds {
		a.N = min(rounds, probeRounds)
		probeFMAAVX512(&a)
	}
	return a.Out
}

func fmaAVX2(rounds int, alpha float32) float32 {
	a := probeArgs{Alpha: alpha}
	for ; rounds > 0; rounds -= probeRounds {
		a.N = min(rounds, probeRounds)
		probeFMAAVX2(&a)
	}
	return a.Out
}

func readAVX512(x []float32) (bits uint32) {
	for x = x[:len(x)&^127]; len(x) > 0; {
		a := probeArgs{N: min(len(x), probeChunk), A: &x[0]}
		probeReadAVX512(&a)
		bits ^= math.Float32bits(a.Out)
		x = x[a.N:]
	}
	return bits
}

func readAVX2(x []float32) (bits uint32) {
	for x = x[:len(x)&^63]; len(x) > 0; {
		a := probeArgs{N: min(len(x), probeChunk), A: &x[0]}
		probeReadAVX2(&a)
		bits ^= math.Float32bits(a.Out)
		x = x[a.N:]
	}
	return bits
}
