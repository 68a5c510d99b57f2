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

// transposeArgs is Dst[k*Stride+j] = Src[j*LD+k] for j < 8, k < 8*Blocks. Blocks is at least 1.
type transposeArgs struct {
	Dst, Src           *float32
	Blocks, LD, Stride int
}

// packT is Set.PackT by blocks of 8 by 8. What is left of a side that is no
// multiple of 8 is covered by a last block that overlaps the one before.
func packT(dst, src []float32, depth, cols, ld, stride int) {
	const block, most = 8, 512 // most bounds the blocks of one call
	if depth < block || cols < block {
		packTGeneric(dst, src, depth, cols, ld, stride)
		return
	}
	if cols < stride {
		clear(dst[:depth*stride])
	}
	_, _ = dst[(depth-1)*stride+cols-1], src[(cols-1)*ld+depth-1]
	for j := 0; j < cols; j += block {
		j := min(j, cols-block)
		for k := 0; k < depth; {
			blocks := min(most, (depth-k)/block)
			if blocks == 0 {
				k, blocks = depth-block, 1
			}
			transposeAVX2(&transposeArgs{&dst[k*stride+j], &src[j*ld+k], blocks, ld, stride})
			k += blocks * block
		}
	}
}
