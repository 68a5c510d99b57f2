//go:build unix

package main

import "syscall"

// processorTime is the seconds that the threads of this process have computed so far.
func processorTime() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for no valid arguments
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
