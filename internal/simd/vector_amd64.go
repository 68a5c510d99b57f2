//go:build !purego

package simd

import "unsafe"

// vecArgs is the arguments of elementwise kernels and reductions in assembly. Passing
// a pointer to it costs less than passing the arguments.
type vecArgs struct {
	N            int
	Dst, A, B, C *float32
	Alpha        float32
	Out          float32
}

// halfArgs is N numbers in float32 and in 16 bits.
type halfArgs struct {
	N    int
	Wide *float32
	Half *uint16
}

// Elements of one assembly call. It cannot be preempted, so it is kept below about
// 100 microseconds even if memory is slow.
const (
	mapChunk  = 1 << 14 // exp, sigmoid, tanh
	moveChunk = 1 << 15 // bound by memory
	adamChunk = 1 << 13 // seven streams
)

// farFlush is the number of elements from which Flush writes past the caches; copy
// does so from about the same number.
const farFlush = 1 << 18

// vectorOffset returns the number of elements of x's address after a multiple of 64 bytes.
func vectorOffset(x []float32) int { return int(uintptr(unsafe.Pointer(&x[0]))) % 64 / 4 }

// advance moves the pointers by N elements.
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

// packT is Set.PackT by blocks of 8 by 8. If a side is not a multiple of 8, its last
// block overlaps the one before. A strip of fewer columns, the rows of a matrix
// tile, is transposed together with the rows after it; their elements are
// overwritten by the next line of dst.
func packT(dst, src []float32, depth, cols, ld, stride int) {
	const block, most = 8, 512 // most is the limit of blocks per call
	narrow := cols < block
	if depth < block || narrow && (cols < block/2 || cols < stride || len(src) < (block-1)*ld+depth) {
		packTGeneric(dst, src, depth, cols, ld, stride)
		return
	}
	if cols < stride {
		clear(dst[:depth*stride])
	}
	_, _ = dst[(depth-1)*stride+cols-1], src[(cols-1)*ld+depth-1]
	if narrow {
		done := (depth - 2) / block * block // nothing may be written after the last line
		for k, blocks := 0, 0; k < done; k += blocks * block {
			blocks = min(most, (done-k)/block)
			transposeAVX2(&transposeArgs{&dst[k*stride], &src[k], blocks, ld, stride})
		}
		packTGeneric(dst[done*stride:], src[done:], depth-done, cols, ld, stride)
		return
	}
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

// copyArgs is Dst[p*Pitch+k*Width+j] = Src[k*LD+p*Width+j] for k < Depth, p <
// Panels, and j < Width rounded up to a multiple of 8, which is at most 32.
// Depth and Panels are at least 1.
type copyArgs struct {
	Dst, Src                        *float32
	Depth, Panels, LD, Pitch, Width int
}

// pack is Set.Pack. If the width is not a multiple of 8, more than a row is read and
// written, except for the last row, which copy does.
func pack(dst, src []float32, depth, cols, ld, width int) {
	whole, panels := depth, cols/width
	if width%8 != 0 {
		whole--
	}
	if whole <= 0 || panels == 0 || width < 4 || width > 32 {
		packGeneric(dst, src, depth, cols, ld, width)
		return
	}
	pitch := depth * width
	_, _ = dst[panels*pitch-1], src[(depth-1)*ld+panels*width-1]
	for k, n := 0, 0; k < whole; k += n {
		n = min(whole-k, max(1, moveChunk/cols))
		copyPanelsAVX2(&copyArgs{&dst[k*width], &src[k*ld], n, panels, ld, pitch, width})
	}
	for k := whole; k < depth; k++ {
		for p := range panels {
			copy(dst[p*pitch+k*width:][:width], src[k*ld+p*width:])
		}
	}
	if rest := cols - panels*width; rest > 0 {
		packGeneric(dst[panels*pitch:], src[panels*width:], depth, rest, ld, width)
	}
}
