//go:build !purego

package simd

import "syscall"

// permitTiles asks the system for the state of tiles, which it saves only for processes
// that have asked (arch_prctl(2), ARCH_REQ_XCOMP_PERM). It counts for all threads.
func permitTiles() bool {
	const request, tiles = 0x1023, 18
	_, _, err := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, request, tiles, 0)
	return err == 0
}
