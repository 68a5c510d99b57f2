package cpu

import (
	"fmt"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// panels is a matrix B [k,n] of one kind, cut into panels of NR columns; see simd.Weights.
type panels struct {
	*simd.Weights
	k, n  int
	line  int       // words of 4 bytes of a panel's groups that lie side by side
	pitch int       // words of a panel
	words []float32 // the panels: float32, or memory for what another kind makes of them
	scale []float32 // [panels][NR], if the kind has scales

	src   []float32 // what they are being made from, [k,n] or, with trans, [n,k]
	ld    int
	trans bool
}

// from is the words of panel p from depth k0 on, which is a multiple of Group.
func (b *panels) from(p, k0 int) []float32 {
	if b.Group > 1 {
		k0 /= b.Group
	}
	return b.words[p*b.pitch+k0*b.line:]
}

// weights are the set's functions for the kind that a cache keeps; without a cache, float32.
func (b *Backend) weights(c *device.Cache) *simd.Weights {
	kind := device.F32
	if c != nil {
		kind = c.Kind
	}
	if int(kind) >= len(b.set.Weights) {
		panic(fmt.Sprintf("cpu: the kernels %s have none for weights of kind %d", b.set.Name, kind))
	}
	return &b.set.Weights[kind]
}

// pack fills dst with src, [k,n] with row stride ld or, with trans, [n,k]. Its
// kind is the one that it has; its capacity is reused.
func (b *Backend) pack(dst *panels, src []float32, k, n, ld int, trans bool) {
	nr := b.set.NR
	count := ceilDiv(n, nr)
	dst.k, dst.n = k, n
	dst.line = nr * dst.Bytes / 4
	dst.pitch = ceilDiv(k, dst.Group) * dst.line
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
	floats := make([]float32, dst.k*nr)
	for p := lo; p < hi; p++ {
		strip(floats, p, p+1)
		words := dst.words[p*dst.pitch:][:dst.pitch]
		var scale []float32
		if dst.Scales {
			scale = dst.scale[p*nr:][:nr]
		}
		dst.Encode(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 4*len(words)), scale, floats)
	}
}

// packStrip cuts the first cols columns of src, [k,n] or [n,k], into panels.
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

// packWidth is how many columns are packed together, a multiple of NR: rows are
// read in long pieces, but not written to too many places at once.
const packWidth = 512

// cachedIn returns the value that a cache has for a version. If it has none,
// current is false and the caller fills the value, an older or a new one. A nil
// cache has none, and then the value is own.
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
