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
			sets = append(sets, withAMX(&setAVX512))
		}
		sets = append(sets, &setAVX512)
	}
	if avx2 {
		sets = append(sets, &setAVX2)
	}
	return sets
}
