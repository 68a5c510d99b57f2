// Package forwardtest is a Backend for tests of everything above the seam: a device
// whose memory the host cannot see, and which does nothing until somebody waits.
//
// Each method is queued. When a number is read, what was queued is done in
// order: an operation's operands are taken to another backend, computed there and
// brought back, as a backend for new hardware may begin. So code that looks into a
// Buffer, that counts on a method to be done when it returns, or that changes what
// a queued method still needs does not pass its tests here.
package forwardtest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/carousel-ml/carousel/internal/device"
)

// Backend forwards to another one.
type Backend struct {
	inner  device.Backend
	mu     sync.Mutex
	floats memory[float32]
	ints   memory[int32]
	queue  []func()
	counts Counts
}

// Counts is how often numbers crossed the seam, or somebody waited.
type Counts struct{ Uploads, Downloads, Syncs int }

var _ device.Backend = (*Backend)(nil)

// New is a device that lets inner compute.
func New(inner device.Backend) *Backend { return &Backend{inner: inner} }

// Counts is what was counted since the last call.
func (b *Backend) Counts() Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.counts
	b.counts = Counts{}
	return c
}

// Name is "forward:" and the name of the backend behind.
func (b *Backend) Name() string { return "forward:" + b.inner.Name() }

// RunsAhead is true.
func (b *Backend) RunsAhead() bool { return true }

// memory is the device's memory of one type: allocations in the order of their
// addresses, with room between them so that none runs into the next.
type memory[T any] struct {
	blocks []block[T]
	end    uintptr
}

type block[T any] struct {
	addr uintptr
	data []T
}

const line = 64

func (m *memory[T]) alloc(n int) uintptr {
	addr := m.end + line
	m.blocks = append(m.blocks, block[T]{addr, make([]T, n)})
	m.end = addr + (uintptr(4*n)+line-1)&^(line-1)
	return addr
}

func (m *memory[T]) find(addr uintptr) (int, bool) {
	i, exact := slices.BinarySearchFunc(m.blocks, addr, func(b block[T], addr uintptr) int { return cmp.Compare(b.addr, addr) })
	if !exact {
		i--
	}
	return i, i >= 0
}

func (m *memory[T]) free(addr uintptr) {
	if i, ok := m.find(addr); ok && m.blocks[i].addr == addr {
		m.blocks = slices.Delete(m.blocks, i, i+1)
		return
	}
	panic(fmt.Sprintf("forward: freed %#x, where nothing begins", addr))
}

// at is n elements of the device's memory.
func (m *memory[T]) at(addr uintptr, n int) []T {
	if n == 0 {
		return nil
	}
	if i, ok := m.find(addr); ok {
		b := m.blocks[i]
		if lo := int(addr-b.addr) / 4; lo+n <= len(b.data) {
			return b.data[lo : lo+n]
		}
	}
	panic(fmt.Sprintf("forward: %d elements at %#x are no memory of this device", n, addr))
}

// later queues f.
func (b *Backend) later(f func()) {
	b.mu.Lock()
	b.queue = append(b.queue, f)
	b.mu.Unlock()
}

// wait does what was queued; b.mu is held.
func (b *Backend) wait() {
	queue := b.queue
	b.queue = nil
	for _, f := range queue {
		f()
	}
}

// Alloc is memory in a place of its own.
func (b *Backend) Alloc(n int) device.Buffer {
	if n == 0 {
		return device.Buffer{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return device.Buffer{Addr: b.floats.alloc(n), N: n}
}

// AllocInts likewise.
func (b *Backend) AllocInts(n int) device.Ints {
	if n == 0 {
		return device.Ints{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return device.Ints{Addr: b.ints.alloc(n), N: n}
}

// Free ends the use of the memory once what was queued before it is done.
func (b *Backend) Free(x device.Buffer) {
	if !x.Zero() {
		b.later(func() { b.floats.free(x.Addr) })
	}
}

// FreeInts likewise.
func (b *Backend) FreeInts(x device.Ints) {
	if !x.Zero() {
		b.later(func() { b.ints.free(x.Addr) })
	}
}

// Upload reads src now and writes dst in its turn.
func (b *Backend) Upload(dst device.Buffer, src []float32) {
	src = slices.Clone(src)
	b.later(func() { copy(b.floats.at(dst.Addr, len(src)), src) })
	b.count(&b.counts.Uploads)
}

// UploadInts likewise.
func (b *Backend) UploadInts(dst device.Ints, src []int32) {
	src = slices.Clone(src)
	b.later(func() { copy(b.ints.at(dst.Addr, len(src)), src) })
	b.count(&b.counts.Uploads)
}

func (b *Backend) count(n *int) {
	b.mu.Lock()
	*n++
	b.mu.Unlock()
}

// Download waits.
func (b *Backend) Download(dst []float32, src device.Buffer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.Downloads++
	b.wait()
	copy(dst, b.floats.at(src.Addr, len(dst)))
}

// DownloadInts waits.
func (b *Backend) DownloadInts(dst []int32, src device.Ints) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.Downloads++
	b.wait()
	copy(dst, b.ints.at(src.Addr, len(dst)))
}

// Sync waits.
func (b *Backend) Sync() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.Syncs++
	b.wait()
}

// operand is a Buffer or Ints of an operation, and where it lies.
type operand[T, M any] struct {
	to   *M
	addr uintptr
	n    int
}

// bring takes operands to the backend behind, each stretch of memory that some of
// them share as one, and returns what brings them back.
func bring[T, M any](m *memory[T], list []operand[T, M], alloc func(int) M, slice func(M, int, int) M, up func(M, []T), down func([]T, M)) (back func()) {
	type stretch struct {
		host M
		data []T
	}
	var all []stretch
	slices.SortFunc(list, func(a, b operand[T, M]) int { return cmp.Compare(a.addr, b.addr) })
	for len(list) > 0 {
		first, end, k := list[0].addr, list[0].addr, 0
		for ; k < len(list) && (k == 0 || list[k].addr < end); k++ {
			end = max(end, list[k].addr+uintptr(4*list[k].n))
		}
		n := int(end-first) / 4
		s := stretch{alloc(n), m.at(first, n)}
		up(s.host, s.data)
		for _, o := range list[:k] {
			lo := int(o.addr-first) / 4
			*o.to = slice(s.host, lo, lo+o.n)
		}
		all, list = append(all, s), list[k:]
	}
	return func() {
		for _, s := range all {
			down(s.data, s.host)
		}
	}
}

// compute runs an operation on the backend behind; b.mu is held.
func (b *Backend) compute(run func(), bufs []*device.Buffer, ints []*device.Ints) {
	var fs []operand[float32, device.Buffer]
	for _, x := range bufs {
		if !x.Zero() {
			fs = append(fs, operand[float32, device.Buffer]{x, x.Addr, x.N})
		}
	}
	var is []operand[int32, device.Ints]
	for _, x := range ints {
		if !x.Zero() {
			is = append(is, operand[int32, device.Ints]{x, x.Addr, x.N})
		}
	}
	in := b.inner
	floatsBack := bring(&b.floats, fs, in.Alloc, device.Buffer.Slice, in.Upload, in.Download)
	intsBack := bring(&b.ints, is, in.AllocInts, device.Ints.Slice, in.UploadInts, in.DownloadInts)
	run()
	floatsBack()
	intsBack()
}

// forward queues an operation that a spec describes.
func forward[S any](b *Backend, s *S, run func(*S)) {
	spec := *s
	b.later(func() {
		var bufs []*device.Buffer
		var ints []*device.Ints
		v := reflect.ValueOf(&spec).Elem()
		for i := range v.NumField() {
			switch p := v.Field(i).Addr().Interface().(type) {
			case *device.Buffer:
				bufs = append(bufs, p)
			case *device.Ints:
				ints = append(ints, p)
			case *device.ScanParams:
				for k := range p {
					bufs = append(bufs, &p[k])
				}
			}
		}
		b.compute(func() { run(&spec) }, bufs, ints)
	})
}

// on queues an operation on some buffers.
func (b *Backend) on(run func(), bufs ...*device.Buffer) {
	b.later(func() { b.compute(run, bufs, nil) })
}

func (b *Backend) Fill(dst device.Buffer, v float32) { b.on(func() { b.inner.Fill(dst, v) }, &dst) }
func (b *Backend) Copy(dst, src device.Buffer, acc bool) {
	b.on(func() { b.inner.Copy(dst, src, acc) }, &dst, &src)
}
func (b *Backend) Permute(s *device.PermuteSpec) { forward(b, s, b.inner.Permute) }
func (b *Backend) Gemm(s *device.GemmSpec)       { forward(b, s, b.inner.Gemm) }
func (b *Backend) SumRows(dst, src device.Buffer, rows, cols, ld int, acc bool) {
	b.on(func() { b.inner.SumRows(dst, src, rows, cols, ld, acc) }, &dst, &src)
}
func (b *Backend) ScanWork(s *device.ScanSpec) int { return b.inner.ScanWork(s) }
func (b *Backend) Scan(s *device.ScanSpec)         { forward(b, s, b.inner.Scan) }
func (b *Backend) ScanGrad(s *device.ScanSpec)     { forward(b, s, b.inner.ScanGrad) }
func (b *Backend) Unary(op device.Function, y, x device.Buffer, alpha float32) {
	b.on(func() { b.inner.Unary(op, y, x, alpha) }, &y, &x)
}
func (b *Backend) UnaryGrad(op device.Function, dx, dy, x, y device.Buffer, alpha float32, acc bool) {
	b.on(func() { b.inner.UnaryGrad(op, dx, dy, x, y, alpha, acc) }, &dx, &dy, &x, &y)
}
func (b *Backend) Binary(s *device.BinarySpec)         { forward(b, s, b.inner.Binary) }
func (b *Backend) BinaryGrad(s *device.BinarySpec)     { forward(b, s, b.inner.BinaryGrad) }
func (b *Backend) Dropout(s *device.DropoutSpec)       { forward(b, s, b.inner.Dropout) }
func (b *Backend) Norm(s *device.NormSpec)             { forward(b, s, b.inner.Norm) }
func (b *Backend) NormGrad(s *device.NormSpec)         { forward(b, s, b.inner.NormGrad) }
func (b *Backend) Softmax(s *device.SoftmaxSpec)       { forward(b, s, b.inner.Softmax) }
func (b *Backend) SoftmaxGrad(s *device.SoftmaxSpec)   { forward(b, s, b.inner.SoftmaxGrad) }
func (b *Backend) Embed(s *device.EmbedSpec)           { forward(b, s, b.inner.Embed) }
func (b *Backend) EmbedGrad(s *device.EmbedSpec)       { forward(b, s, b.inner.EmbedGrad) }
func (b *Backend) Pool(s *device.PoolSpec)             { forward(b, s, b.inner.Pool) }
func (b *Backend) PoolGrad(s *device.PoolSpec)         { forward(b, s, b.inner.PoolGrad) }
func (b *Backend) Conv(s *device.ConvSpec)             { forward(b, s, b.inner.Conv) }
func (b *Backend) ConvGrad(s *device.ConvSpec)         { forward(b, s, b.inner.ConvGrad) }
func (b *Backend) WindowPool(s *device.WindowPoolSpec) { forward(b, s, b.inner.WindowPool) }
func (b *Backend) WindowPoolGrad(s *device.WindowPoolSpec) {
	forward(b, s, b.inner.WindowPoolGrad)
}
func (b *Backend) Additive(s *device.AdditiveSpec)     { forward(b, s, b.inner.Additive) }
func (b *Backend) AdditiveGrad(s *device.AdditiveSpec) { forward(b, s, b.inner.AdditiveGrad) }
func (b *Backend) Loss(s *device.LossSpec)             { forward(b, s, b.inner.Loss) }
func (b *Backend) CTC(s *device.CTCSpec)               { forward(b, s, b.inner.CTC) }
func (b *Backend) CRF(s *device.CRFSpec)               { forward(b, s, b.inner.CRF) }
func (b *Backend) SumSquares(dst, src device.Buffer) {
	b.on(func() { b.inner.SumSquares(dst, src) }, &dst, &src)
}
func (b *Backend) ClipFactor(factor, sumsq device.Buffer, max float32) {
	b.on(func() { b.inner.ClipFactor(factor, sumsq, max) }, &factor, &sumsq)
}
func (b *Backend) ScaleBy(x, factor device.Buffer) {
	b.on(func() { b.inner.ScaleBy(x, factor) }, &x, &factor)
}
func (b *Backend) AddScaled(dst, src, factor device.Buffer, acc bool) {
	b.on(func() { b.inner.AddScaled(dst, src, factor, acc) }, &dst, &src, &factor)
}
func (b *Backend) Clamp(x device.Buffer, lo, hi float32) {
	b.on(func() { b.inner.Clamp(x, lo, hi) }, &x)
}
func (b *Backend) Lerp(dst, src device.Buffer, w float32) {
	b.on(func() { b.inner.Lerp(dst, src, w) }, &dst, &src)
}
func (b *Backend) Step(s *device.StepSpec) { forward(b, s, b.inner.Step) }
