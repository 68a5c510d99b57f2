//go:build !purego

package simd

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// byteArgs is tiles of C = From + A·B + A2·B2, in panels of two vectors of columns: at most the
// kernel's Rows, and Panels of whole width. Strides count bytes.
type byteArgs struct {
	Links        [2]byteOperands
	C, From      *float32
	LDC, LDFrom  int
	FromStep     int // from a panel's From to the next one's
	Rows, Panels int

	Config *tileConfig // of tiles, and memory for their sums
	Sums   *int32
}

// byteOperands is one product of byteArgs. The second one has a Depth of 0 if there is none.
type byteOperands struct {
	A, B           *int8
	ScaleA, ScaleB *float32
	RS, Pitch      int
	Depth          int // sixteens of k
}

// byteRowsArgs is Rows rows of Depth elements Stride bytes apart, and the same as bytes Pitch apart. Flip is xored.
type byteRowsArgs struct {
	Dst                        *int8
	Scale                      *float32
	Src                        *float32
	Rows, Depth, Stride, Pitch int
	Flip                       uint32
}

// byteKernel is the kernels of Bytes for one instruction set.
type byteKernel int

const (
	byteAVX2 byteKernel = iota
	byteAVXVNNI
	byteAVX512 // without VNNI
	byteVNNI
	byteAMX // with VNNI
	byteKernels
)

var byteNames = [byteKernels]string{"avx2", "avxvnni", "avx512bw", "avx512vnni", "amx-int8"}

// runs reports whether the processor has the kernel's instructions.
func (k byteKernel) runs() bool {
	x := &cpu.X86
	switch k {
	case byteAVXVNNI:
		return hasAVX2() && x.HasAVXVNNI
	case byteAVX512:
		return hasAVX512()
	case byteVNNI:
		return hasAVX512() && x.HasAVX512VNNI
	case byteAMX:
		return byteVNNI.runs() && x.HasAMXTile && x.HasAMXInt8 && permitTiles()
	}
	return hasAVX2()
}

func (k byteKernel) shape() (rows, cols int) {
	switch k {
	case byteAVX2:
		return 4, 16
	case byteAVXVNNI:
		return 6, 16
	case byteAMX:
		return 32, 32
	}
	return 12, 32
}

// unsigned reports whether the kernel takes rows of A plus 128.
func (k byteKernel) unsigned() bool { return k == byteAVXVNNI || k >= byteVNNI }

// flip is what the bytes of rows of A are xored with.
func (k byteKernel) flip() int8 {
	if k.unsigned() {
		return -128
	}
	return 0
}

// tiles is a switch because a call through a function value would move its argument to the heap.
func (k byteKernel) tiles(a *byteArgs) {
	switch k {
	case byteAVX2:
		byteTilesAVX2(a)
	case byteAVXVNNI:
		byteTilesAVXVNNI(a)
	case byteAVX512:
		byteTilesAVX512(a)
	case byteAMX:
		if a.Rows > byteFew {
			var sums [tileRows*2*32 + 16]int32
			t := *a
			t.Config, t.Sums = &tileConfigs[a.Rows], &sums[-uintptr(unsafe.Pointer(&sums))%64/4]
			amxBytes(&t)
			return
		}
		fallthrough
	case byteVNNI:
		byteTilesVNNI(a)
	}
}

// byteFew is the rows of which a product reads its panels no faster by tiles.
const byteFew = 4

// withBytes returns a set with the products of bytes of the last of the kernels that runs.
func withBytes(set *Set, kernels ...byteKernel) *Set {
	s := *set
	for _, k := range kernels {
		if k.runs() {
			s.Weights = append(set.Weights[:len(set.Weights):len(set.Weights)], k.weights())
		}
	}
	return &s
}

func (k byteKernel) weights() Weights {
	_, cols := k.shape()
	return byteWeights(cols, k.unsigned(), &Bytes{Name: byteNames[k], Rows: k.round, Residual: byteResidual(k.flip()), Run: k.run})
}

// round is Bytes.Rows.
func (k byteKernel) round(dst []int8, scale, src []float32, rows, depth, rs, cs int) {
	flip := k.flip()
	if cs != 1 {
		byteRowsGeneric(dst, scale, src, rows, depth, rs, cs)
		for i := range dst[:rows*ByteDepth(depth)] {
			dst[i] ^= flip
		}
		return
	}
	pitch := ByteDepth(depth)
	_, _, _ = dst[rows*pitch-1], scale[rows-1], src[(rows-1)*rs+depth-1]
	for n := 0; rows > 0; rows -= n {
		n = min(rows, max(1, moveChunk/depth))
		byteRowsAVX2(&byteRowsArgs{&dst[0], &scale[0], &src[0], n, depth, 4 * rs, pitch, 0x01010101 * uint32(uint8(flip))})
		if n < rows {
			dst, scale, src = dst[n*pitch:], scale[n:], src[n*rs:]
		}
	}
}

// Bytes of panels of one call: all those that few rows take, read once, and those that stay in
// the first cache while several tiles of rows take them.
const (
	byteStream = 1 << 20
	byteStay   = 16 << 10
)

var noFrom [4 * 32]float32 // for as many panels as are taken abreast

// run is Bytes.Run.
func (k byteKernel) run(p *ByteArgs) {
	most, cols := k.shape()
	tiles := (p.M + most - 1) / most
	panels := byteStream
	if tiles > 1 {
		panels = byteStay
	}
	panels = max(1, panels/(p.Pitch+p.Pitch2))
	var a byteArgs
	for j := 0; j < p.N; j += a.Panels * cols {
		a.Panels = max(1, min(panels, (p.N-j)/cols))
		for r, tile := 0, 0; tile < tiles; tile++ {
			a.Rows = p.M / tiles
			if tile < p.M%tiles {
				a.Rows++
			}
			a.Links[0].aim(p.A, p.B, p.ScaleA, p.ScaleB, p.K, p.Pitch, r, j, cols, &a)
			if p.K2 > 0 {
				a.Links[1].aim(p.A2, p.B2, p.ScaleA2, p.ScaleB2, p.K2, p.Pitch2, r, j, cols, &a)
			}
			left := a.Panels
			if p.N-j < cols {
				k.edge(p, a, r, j, p.N-j)
			} else {
				last := j + a.Panels*cols - 1
				_ = p.C[(r+a.Rows-1)*p.LDC+last]
				a.C, a.LDC = &p.C[r*p.LDC+j], 4*p.LDC
				a.From, a.LDFrom, a.FromStep = &noFrom[0], 0, 0
				if p.From != nil {
					_ = p.From[(r+a.Rows-1)*p.LDFrom+last]
					a.From, a.LDFrom, a.FromStep = &p.From[r*p.LDFrom+j], 4*p.LDFrom, 4*cols
				}
				k.tiles(&a)
			}
			r, a.Panels = r+a.Rows, left
		}
	}
}

// aim sets a link to the operands of rows from r on and of columns from j on.
func (l *byteOperands) aim(a, b []int8, scaleA, scaleB []float32, depth, pitch, r, j, cols int, of *byteArgs) {
	l.RS, l.Pitch, l.Depth = ByteDepth(depth), pitch, (depth+15)/16
	_, _ = a[(r+of.Rows)*l.RS-1], scaleA[r+of.Rows-1]
	_, _ = b[(j/cols+of.Panels)*pitch-1], scaleB[j+of.Panels*cols-1]
	l.A, l.ScaleA = &a[r*l.RS], &scaleA[r]
	l.B, l.ScaleB = &b[j/cols*pitch], &scaleB[j]
}

// edge computes the n columns from j on, which fill no panel, in memory of its own.
func (k byteKernel) edge(p *ByteArgs, a byteArgs, r, j, n int) {
	const width = 32
	var c [2 * tileRows * width]float32
	a.C, a.LDC = &c[0], 4*width
	a.From, a.LDFrom = &noFrom[0], 0
	if p.From != nil {
		for i := range a.Rows {
			copy(c[width*i:][:n], p.From[(r+i)*p.LDFrom+j:])
		}
		a.From, a.LDFrom = &c[0], 4*width
	}
	k.tiles(&a)
	for i := range a.Rows {
		copy(p.C[(r+i)*p.LDC+j:][:n], c[width*i:])
	}
}
