// Package cpu computes device specs on the machine's cores: the kernels of
// internal/simd under the worker team of internal/par.
package cpu

import (
	"math"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Backend implements device.Backend in ordinary memory. Every method has finished
// when it returns. A Backend holds no state of a computation, so any number of
// goroutines may use it.
type Backend struct {
	set   *simd.Set
	gates int // the most elements of Gates in a Scan without Keep
}

var _ device.Backend = (*Backend)(nil)

// New returns a backend with a set of kernels.
func New(set *simd.Set) *Backend { return &Backend{set, scanGates} }

// Name returns "cpu/" and the name of the kernel set.
func (b *Backend) Name() string { return "cpu/" + b.set.Name }

// RunsAhead returns false: methods have finished when they return.
func (b *Backend) RunsAhead() bool { return false }

// alignFloats is a cache line in elements.
const alignFloats = 16

// Alloc returns n zeroed elements beginning on a cache line.
func (b *Backend) Alloc(n int) device.Buffer {
	if n == 0 {
		return device.Buffer{}
	}
	return device.HostBuffer(aligned(n))
}

func aligned(n int) []float32 {
	device.Admit(4 * n)
	s := make([]float32, n+alignFloats-1)
	off := 0
	if rem := int(uintptr(unsafe.Pointer(&s[0])) % (4 * alignFloats)); rem != 0 {
		off = alignFloats - rem/4
	}
	s = s[off : off+n : off+n]
	adviseHuge(s)
	return s
}

// AllocInts returns n zeros.
func (b *Backend) AllocInts(n int) device.Ints { return device.HostInts(make([]int32, n)) }

// Free leaves the memory to the garbage collector.
func (b *Backend) Free(device.Buffer) {}

// FreeInts leaves the memory to the garbage collector.
func (b *Backend) FreeInts(device.Ints) {}

// Upload copies src to the front of dst and flushes subnormal numbers to zero, since
// Go code does not.
func (b *Backend) Upload(dst device.Buffer, src []float32) {
	b.loop(moveGrain, vector{dst: dst.Host[:len(src)], src: src}, func(v *vector, lo, hi int) { v.set.Flush(v.dst[lo:hi], v.src[lo:hi]) })
}

// Download copies the front of src to dst, which may be the same memory.
func (b *Backend) Download(dst []float32, src device.Buffer) {
	if len(dst) > 0 && &dst[0] != &src.Host[0] {
		copy(dst, src.Host)
	}
}

// UploadInts copies src to the front of dst.
func (b *Backend) UploadInts(dst device.Ints, src []int32) { copy(dst.Host[:len(src)], src) }

// DownloadInts copies the front of src to dst.
func (b *Backend) DownloadInts(dst []int32, src device.Ints) { copy(dst, src.Host[:len(dst)]) }

// Sync returns at once.
func (b *Backend) Sync() {}

// vector is the arguments of a loop over slices of one length.
type vector struct {
	set            *simd.Set
	dst, src, from []float32
	p, q           float32
	f              *function // of Unary and UnaryGrad
	acc            bool
}

var vectorPool par.Pool[vector]

// loop calls body on ranges of v's elements, each of at least grain.
func (b *Backend) loop(grain int, of vector, body func(v *vector, lo, hi int)) {
	v := vectorPool.Get()
	*v = of
	v.set = b.set
	par.For(len(v.dst), grain, v, body)
	*v = vector{} // src may belong to the caller
	vectorPool.Put(v)
}

// Fill sets every element of dst to v.
func (b *Backend) Fill(dst device.Buffer, v float32) {
	b.loop(moveGrain, vector{dst: dst.Host, p: v}, func(v *vector, lo, hi int) {
		d := v.dst[lo:hi]
		if math.Float32bits(v.p) == 0 { // not -0
			clear(d)
			return
		}
		for i := range d {
			d[i] = v.p
		}
	})
}

// Copy computes dst = src or, with acc, dst += src.
func (b *Backend) Copy(dst, src device.Buffer, acc bool) {
	body := func(v *vector, lo, hi int) { copy(v.dst[lo:hi], v.src[lo:hi]) }
	if acc {
		body = func(v *vector, lo, hi int) { v.set.Add(v.dst[lo:hi], v.dst[lo:hi], v.src[lo:hi]) }
	}
	b.loop(moveGrain, vector{dst: dst.Host[:src.N], src: src.Host}, body)
}
