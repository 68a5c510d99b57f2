// Package simdtest watches, for tests, what the processor met while code ran.
package simdtest

import (
	"runtime"
	"testing"
)

// Subnormals runs f and says whether an instruction outside the assembly kernels
// read a subnormal number, or made one (or a zero in its place), of float32 or
// float64: instructions that some processors are a hundred times slower at.
// Kernels put the processor's flags back as they found them, so they do not count.
// The answer is about the calling goroutine alone: with par.SetWorkers(1) that is
// all that works. Where the processor does not tell, the test is skipped.
func Subnormals(t testing.TB, f func()) (read, made bool) {
	t.Helper()
	if !watches {
		t.Skip("this processor does not tell when it meets subnormal numbers")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	clearFlags()
	f()
	flags := flags()
	return flags&(1<<1) != 0, flags&(1<<4) != 0
}
