//go:build !purego

package simd

import "unsafe"

// vecArgs is what elementwise kernels and reductions in assembly take: one
// pointer to it costs less than the arguments themselves.
type vecArgs struct {
	N         int
	Dst, A, B *float32
	Alpha     float32
	Out       float32
}

// Elements of one assembly call. The goroutine cannot be preempted inside, so
// a call is kept below about 100 microseconds even when memory is slow.
const (
	mapChunk  = 1 << 14 // exp, sigmoid, tanh
	moveChunk = 1 << 15 // bound by memory
	adamChunk = 1 << 13 // seven streams
)

// advance moves the pointers past the N elements done.
func (a *AdamArgs) advance() {
	for _, p := range []**float32{&a.W, &a.G, &a.M, &a.V} {
		*p = (*float32)(unsafe.Add(unsafe.Pointer(*p), 4*a.N))
	}
}
