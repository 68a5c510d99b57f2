//go:build !purego

package simd

import "golang.org/x/sys/cpu"

//go:generate go -C _asm run .

// machineSets returns the assembly sets that the processor and the operating system support, best first.
func machineSets() []*Set {
	var sets []*Set
	x := &cpu.X86
	if hasAVX512() {
		plain := withBytes(&setAVX512, byteAVX512, byteVNNI)
		if hasAMX() {
			sets = append(sets, withBlocks(withBytes(&setAVX512, byteAVX512, byteVNNI, byteAMX), "amx", &amxBlocks))
		}
		switch dot := withBlocks(plain, "avx512bf16", &dotBlocks); {
		case !x.HasAVX512BF16:
			sets = append(sets, plain)
		case dotShare() < dotPays:
			sets = append(sets, dot, plain)
		default:
			sets = append(sets, plain, dot)
		}
	}
	if hasAVX2() {
		sets = append(sets, withBytes(&setAVX2, byteAVX2, byteAVXVNNI))
	}
	return sets
}

func hasAVX2() bool {
	x := &cpu.X86
	return x.HasAVX2 && x.HasFMA && x.HasBMI2 // and so F16C, which x does not tell
}

func hasAVX512() bool {
	x := &cpu.X86
	return hasAVX2() && x.HasAVX512F && x.HasAVX512DQ && x.HasAVX512BW && x.HasAVX512VL
}
