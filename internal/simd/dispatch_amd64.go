//go:build !purego

package simd

import "golang.org/x/sys/cpu"

//go:generate go -C _asm run .

// machineSets returns the assembly sets that the processor and the operating system support, best first.
func machineSets() []*Set {
	var sets []*Set
	x := &cpu.X86
	avx2 := x.HasAVX2 && x.HasFMA && x.HasBMI2 // and so F16C, which x does not tell
	if avx2 && x.HasAVX512F && x.HasAVX512DQ && x.HasAVX512BW && x.HasAVX512VL {
		if hasAMX() {
			sets = append(sets, withBlocks(&setAVX512, "amx", &amxBlocks))
		}
		switch dot := withBlocks(&setAVX512, "avx512bf16", &dotBlocks); {
		case !x.HasAVX512BF16:
			sets = append(sets, &setAVX512)
		case dotShare() < dotPays:
			sets = append(sets, dot, &setAVX512)
		default:
			sets = append(sets, &setAVX512, dot)
		}
	}
	if avx2 {
		sets = append(sets, &setAVX2)
	}
	return sets
}
