//go:build dl && linux

package mpi

import (
	"syscall"
	"unsafe"
)

// A sigaction is the kernel's record of a signal's handler, whose parts nobody
// reads here. It has at most 32 bytes on every architecture.
type sigaction [8]uint64

const lastSignal = 64

// keepHandlers runs f and then puts back each signal's handler that f replaced.
// MPI libraries (UCX inside MPICH) take SIGSEGV and others for their own reports;
// a nil dereference in Go would end the process instead of being a panic.
func keepHandlers(f func()) {
	var before [lastSignal + 1]sigaction
	for s := 1; s <= lastSignal; s++ {
		handler(s, nil, &before[s])
	}
	f()
	for s := 1; s <= lastSignal; s++ {
		var now sigaction
		if handler(s, nil, &now); now != before[s] {
			handler(s, &before[s], nil)
		}
	}
}

// handler is rt_sigaction(2). It fails for numbers without a handler only.
func handler(signal int, set, get *sigaction) {
	const maskBytes = 8
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), maskBytes, 0, 0)
}
