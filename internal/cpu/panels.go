package cpu

import (
	"fmt"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// panels is a matrix B [k,n] of one kind, divided into panels of NR columns; see simd.Weights.
type panels struct {
	*simd.Weights
	k, n  int
	line  int       // 4-byte words of one row of a panel's groups
	pitch int       // 4-byte words of a panel
	words []float32 // the panels, as float32 or as memory for another kind
	scale []float32 // [panels][NR], if the kind has scales

	src   []float32 // during pack: the source, [k,n] or, with trans, [n,k]
	ld    int
	trans bool
}

// from returns the words of panel p from depth k0 on. k0 is a multiple of Group.
func (b *panels) from(p, k0 int) []float32 {
	if b.Group > 1 {
		k0 /= b.Group
	}
	return b.words[p*b.pitch+k0*b.line:]
}

// weights returns the set's functions for a kind. It panics if the set has none.
func (b *Backend) weights(kind device.Kind) *simd.Weights {
	if int(kind) >= len(b.set.Weights) {
		panic(fmt.Sprintf("cpu: the kernels %s have none for weights of kind %d", b.set.Name, kind))
	}
	return &b.set.Weights[kind]
}

// pack fills dst with src, which is [k,n] with row stride ld or, with trans,
// [n,k]. It keeps the kind of dst and reuses its memory. For float32,
//
//	words[j/NR*pitch + i*NR + j%NR] = src[i,j]  for i < k, j < n, and 0 for n <= j
func (b *Backend) pack(dst *panels, src []float32, k, n, ld int, trans bool) {
	nr := b.set.NR
	count := ceilDiv(n, nr)
	dst.k, dst.n = k, n
	dst.line = nr * dst.Bytes / 4
	dst.pitch = ceilDiv(k, dst.Group)*dst.line + nr*dst.Head/4
	dst.words = grow(dst.words, count*dst.pitch)
	if dst.Scales {
		dst.scale = grow(dst.scale, count*nr)
	}
	dst.src, dst.ld, dst.trans = src, ld, trans
	par.Each(count, ceilDiv(moveGrain, max(k*nr, 1)), b, dst, (*Backend).packPanels)
	dst.src = nil
}

func (b *Backend) packPanels(dst *panels, lo, hi int) {
	nr, step := b.set.NR, b.set.NR
	if dst.trans {
		step *= dst.ld
	}
	strip := func(to []float32, lo, hi int) {
		packStrip(b.set, to, dst.src[lo*step:], dst.k, min(hi*nr, dst.n)-lo*nr, dst.ld, dst.trans)
	}
	if dst.Encode == nil {
		strip(dst.words[lo*dst.pitch:hi*dst.pitch], lo, hi)
		return
	}
	if dst.Blocks != nil {
		if dst.k > 0 {
			dst.Blocks.PackB(asHalves(dst.words[lo*dst.pitch:hi*dst.pitch]), dst.src[lo*step:], dst.k, min(hi*nr, dst.n)-lo*nr, dst.ld, dst.trans)
		}
		return
	}
	floats := make([]float32, dst.k*nr)
	for p := lo; p < hi; p++ {
		strip(floats, p, p+1)
		words := dst.words[p*dst.pitch:][:dst.pitch]
		dst.Encode(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 4*len(words)), within(dst.scale, p*nr, (p+1)*nr), floats)
	}
}

// packStrip divides the first cols columns of src, [k,n] or with trans [n,k], into panels.
func packStrip(set *simd.Set, panels, src []float32, k, cols, ld int, trans bool) {
	if k == 0 {
		return
	}
	nr := set.NR
	width := packWidth
	if trans {
		width = nr
	}
	for j := 0; j < cols; j += width {
		n := min(width, cols-j)
		to := panels[j*k:][:ceilDiv(n, nr)*nr*k]
		if trans {
			set.PackT(to, src[j*ld:], k, n, ld, nr)
		} else {
			set.Pack(to, src[j:], k, n, ld, nr)
		}
	}
}

// packWidth is the number of columns that are packed together, a multiple of NR:
// enough to read rows in long pieces, few enough to limit the places written to.
const packWidth = 512

// cachedIn returns the value of a version from a cache. If the cache has none,
// current is false, and the caller has to fill the value, an older or a new one.
// If c is nil, the value is own and not current.
func cachedIn[T any](c *device.Cache, version uint64, own *T) (value *T, current bool) {
	if c == nil {
		return own, false
	}
	if value, current = c.Load(version).(*T); current {
		return value, true
	}
	if value, _ = c.Stale(version).(*T); value == nil {
		value = new(T)
	}
	return value, false
}
