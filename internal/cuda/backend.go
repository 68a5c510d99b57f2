//go:build dl && linux

package cuda

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

// Backend is one GPU.
type Backend struct {
	Options
	d       *driver
	nvrtc   compiler
	libs    libraries
	ordinal int
	name    string
	limits  limits
	dnn     *dnn // nil before the first layer that it may run
	context uintptr
	stream  uintptr // everything is done in its order
	capture uintptr // for capturing library calls; nothing runs on it
	dropped *dropped
	lost    atomic.Pointer[device.Error]

	mu        sync.Mutex // guards all below, and the calls of the driver
	queue     queue
	graphs    graphs
	staging   staging
	functions map[kernel]*function
	modules   map[module]uintptr
	scratch   block
	parts     block
	products  block   // of gemm
	barrier   uintptr // words that barriers of blocks count with: that of a whole grid the first
	scanPlans map[planKey]*scanPlan
	blas      *blas // when it was needed first
	counts    Counts
	notes     []string
}

// limits are the device's, as far as they decide what is launched.
type limits struct {
	arch   int // such as 90
	sms    int // multiprocessors
	shared int // bytes of shared memory of a block, with opt-in
	total  uint64
}

// Counts is how often something happened that takes time.
type Counts struct {
	Launches  int // kernels and library calls given to the device one by one
	Graphs    int // launches of whole queues
	Uploads   int // arrays copied to the device
	Downloads int // arrays copied from it
	Waits     int // how often the host waited for it
}

// Counts returns what was counted since the last call.
func (b *Backend) Counts() Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.counts
	b.counts = Counts{}
	return c
}

// block is memory of the device.
type block struct {
	addr  uintptr
	bytes int
}

// open makes a backend of device ordinal of a driver that was initialised.
func open(d *driver, c compiler, libs libraries, ordinal int, o Options) (b *Backend, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var count, dev int32
	if err := d.check("cuDeviceGetCount", dl.Call(d.deviceGetCount, uintptr(unsafe.Pointer(&count)))); err != nil {
		return nil, err
	}
	if ordinal < 0 || ordinal >= int(count) {
		return nil, fmt.Errorf("there is no cuda:%d: the last one that the driver shows is cuda:%d", ordinal, count-1)
	}
	b = &Backend{Options: o, d: d, nvrtc: c, libs: libs, ordinal: ordinal, functions: map[kernel]*function{}, modules: map[module]uintptr{}, dropped: &dropped{}}
	if err := d.check("cuDeviceGet", dl.Call(d.deviceGet, uintptr(unsafe.Pointer(&dev)), uintptr(ordinal))); err != nil {
		return nil, err
	}
	b.name, b.limits = d.describe(dev)
	if b.limits.arch < 80 || d.attribute(dev, attrPools) == 0 || d.attribute(dev, attrCooperative) == 0 {
		return nil, fmt.Errorf("cuda:%d (%s) has compute capability %d.%d: 8.0 or newer is needed, with memory pools and cooperative launches", ordinal, b.name, b.limits.arch/10, b.limits.arch%10)
	}
	var pool uintptr
	keep := ^uint64(0) // freed memory stays with the pool
	for _, call := range []struct {
		what string
		do   func() int32
	}{
		{"cuDevicePrimaryCtxRetain", func() int32 {
			return dl.Call(d.primaryCtxRetain, uintptr(unsafe.Pointer(&b.context)), uintptr(dev))
		}},
		{"cuCtxSetCurrent", func() int32 { return dl.Call(d.ctxSetCurrent, b.context) }},
		{"cuStreamCreate", func() int32 {
			return dl.Call(d.streamCreate, uintptr(unsafe.Pointer(&b.stream)), streamNonBlocking)
		}},
		{"cuStreamCreate", func() int32 {
			return dl.Call(d.streamCreate, uintptr(unsafe.Pointer(&b.capture)), streamNonBlocking)
		}},
		{"cuDeviceGetDefaultMemPool", func() int32 {
			return dl.Call(d.deviceGetDefaultMemPool, uintptr(unsafe.Pointer(&pool)), uintptr(dev))
		}},
		{"cuMemPoolSetAttribute", func() int32 {
			return dl.Call(d.memPoolSetAttribute, pool, poolKeep, uintptr(unsafe.Pointer(&keep)))
		}},
	} {
		if err := d.check(call.what, call.do()); err != nil {
			return nil, fmt.Errorf("cuda:%d (%s): %w", ordinal, b.name, err)
		}
	}
	err = catch(func() {
		b.staging.open(b)
		b.enter()
		defer b.leave()
		b.barrier = b.allocate(4 * 64)
	})
	return b, err
}

// catch returns the *device.Error with which f panicked.
func catch(f func()) (err error) {
	defer func() {
		if e, ok := recover().(*device.Error); ok {
			err = e
		} else if e != nil {
			panic(e)
		}
	}()
	f()
	return nil
}

// Name returns the device's name after "cuda/", and what changes its numbers.
func (b *Backend) Name() string {
	name := "cuda/" + b.name
	if b.TF32 {
		name += "/tf32"
	}
	if b.Deterministic {
		name += "/own"
	}
	return name
}

// Lacks reports whether scans do not take products of a kind with the state.
func (b *Backend) Lacks(k device.Kind) bool { return k == device.INT8 }

// title names the device in errors.
func (b *Backend) title() string { return fmt.Sprintf("cuda:%d (%s)", b.ordinal, b.name) }

// RunsAhead is true.
func (b *Backend) RunsAhead() bool { return true }

// enter locks b and makes its context the thread's.
func (b *Backend) enter() {
	b.mu.Lock()
	runtime.LockOSThread()
	if r := dl.Call(b.d.ctxSetCurrent, b.context); r != 0 { // perhaps an error of earlier work
		b.leave()
		b.must("cuCtxSetCurrent", r)
	}
}

func (b *Backend) leave() {
	runtime.UnlockOSThread()
	b.mu.Unlock()
}

// Alloc returns n zeros.
func (b *Backend) Alloc(n int) device.Buffer { return alloc[float32](b, n) }

// AllocInts returns n zeros.
func (b *Backend) AllocInts(n int) device.Ints { return alloc[int32](b, n) }

// Free ends the use of a buffer after what was queued.
func (b *Backend) Free(m device.Buffer) { free(b, m) }

// FreeInts is Free.
func (b *Backend) FreeInts(m device.Ints) { free(b, m) }

func alloc[T float32 | int32](b *Backend, n int) (m device.Memory[T]) {
	if n == 0 {
		return m
	}
	b.enter()
	defer b.leave()
	m = device.Memory[T]{Addr: b.allocate(4 * n), N: n}
	k := &keeper{}
	k.end = runtime.AddCleanup(k, b.dropped.add, m.Addr)
	m.Keeper = k
	return m
}

// keeper is what all parts of an allocation have. The addresses of a call's memory are read
// while b is entered, so what frees memory comes after what uses it.
type keeper struct {
	end runtime.Cleanup // when nobody has one any more
}

// dropped is memory that was freed, or that nobody can reach any more.
type dropped struct {
	mu    sync.Mutex
	addrs []uintptr
}

func (d *dropped) add(addr uintptr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs = append(d.addrs, addr)
}

func (d *dropped) take() []uintptr {
	d.mu.Lock()
	defer d.mu.Unlock()
	addrs := d.addrs
	d.addrs = nil
	return addrs
}

// freeDropped gives back what was dropped, after what was queued; b is entered.
func (b *Backend) freeDropped() {
	gone := b.dropped.take()
	if len(gone) == 0 {
		return
	}
	b.flush()
	for _, addr := range gone {
		b.must("cuMemFreeAsync", dl.Call(b.d.memFreeAsync, addr, b.stream))
	}
}

// collect lets the garbage collector, which knows nothing of the device's memory, find what nobody
// can reach.
func collect() {
	found := make(chan struct{})
	runtime.AddCleanup(&keeper{}, func(c chan struct{}) { close(c) }, found)
	for range 2 { // what a cleanup held is found by the second
		runtime.GC()
	}
	select {
	case <-found:
	case <-time.After(time.Second): // other cleanups take long
	}
}

// allocate returns zeroed memory, of whole words; b is entered.
func (b *Backend) allocate(bytes int) (addr uintptr) {
	b.freeDropped()
	r := dl.Call(b.d.memAllocAsync, uintptr(unsafe.Pointer(&addr)), uintptr(bytes), b.stream)
	if r == outOfMemory {
		collect()
		b.freeDropped()
		r = dl.Call(b.d.memAllocAsync, uintptr(unsafe.Pointer(&addr)), uintptr(bytes), b.stream)
	}
	if r == outOfMemory {
		var free, total uint64
		dl.Call(b.d.memGetInfo, uintptr(unsafe.Pointer(&free)), uintptr(unsafe.Pointer(&total)))
		panic(&device.Error{Device: b.title(), Memory: true, Text: fmt.Sprintf("%s wanted, and %s of %s are free: use a smaller batch, shorter segments or --precision bf16", gib(uint64(bytes)), gib(free), gib(total))})
	}
	b.must("cuMemAllocAsync", r)
	b.must("cuMemsetD32Async", dl.Call(b.d.memsetD32Async, addr, 0, uintptr(bytes/4), b.stream))
	return addr
}

func gib(bytes uint64) string {
	if bytes < 1<<28 {
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}

// free cannot fail: the device may be lost when those who had memory end. It is given back when
// other memory is wanted, and by Sync.
func free[T float32 | int32](b *Backend, m device.Memory[T]) {
	if m.Zero() {
		return
	}
	m.Keeper.(*keeper).end.Stop()
	b.dropped.add(m.Addr)
}

// work returns memory for the operation that is being queued, as many bytes as it
// asks for, with unspecified contents. The next operation's is the same memory, since
// they run one after the other. b is entered.
func (b *Backend) work(bytes int) uintptr { return b.grown(&b.scratch, bytes) }

// partial is work for the parts of sums, which operations need beside work.
func (b *Backend) partial(bytes int) uintptr { return b.grown(&b.parts, bytes) }

// grown returns the address of m, which has at least so many bytes afterwards.
func (b *Backend) grown(m *block, bytes int) uintptr {
	if bytes > m.bytes {
		b.flush()
		if m.addr != 0 {
			b.must("cuMemFreeAsync", dl.Call(b.d.memFreeAsync, m.addr, b.stream))
		}
		*m = block{} // also if there is not so much
		bytes = (bytes + bytes/4 + 3) &^ 3
		*m = block{b.allocate(bytes), bytes}
	}
	return m.addr
}

// Upload copies src to the device.
func (b *Backend) Upload(dst device.Buffer, src []float32) { upload(b, dst, src) }

// UploadInts copies src to the device.
func (b *Backend) UploadInts(dst device.Ints, src []int32) { upload(b, dst, src) }

func upload[T float32 | int32](b *Backend, dst device.Memory[T], src []T) {
	if len(src) == 0 {
		return
	}
	b.enter()
	defer b.leave()
	b.counts.Uploads++
	if from := b.staging.put(b, unsafe.Pointer(&src[0]), 4*len(src)); from != 0 {
		n := len(src)
		launch(b, copyWords, each(n), &copyArgs{dst.Addr, from, int64(n)})
		return
	}
	b.flush()
	b.must("cuMemcpyHtoDAsync", dl.Call(b.d.memcpyHtoDAsync, dst.Addr, uintptr(unsafe.Pointer(&src[0])), uintptr(4*len(src)), b.stream))
	b.wait()
	runtime.KeepAlive(src)
}

// Download waits for src and copies it.
func (b *Backend) Download(dst []float32, src device.Buffer) { download(b, dst, src) }

// DownloadInts waits for src and copies it.
func (b *Backend) DownloadInts(dst []int32, src device.Ints) { download(b, dst, src) }

func download[T float32 | int32](b *Backend, dst []T, src device.Memory[T]) {
	if len(dst) == 0 {
		return
	}
	b.enter()
	defer b.leave()
	b.flush()
	b.counts.Downloads++
	b.must("cuMemcpyDtoHAsync", dl.Call(b.d.memcpyDtoHAsync, uintptr(unsafe.Pointer(&dst[0])), src.Addr, uintptr(4*len(dst)), b.stream))
	b.wait()
	runtime.KeepAlive(dst)
}

// Sync waits for all work.
func (b *Backend) Sync() {
	b.enter()
	defer b.leave()
	b.flush()
	b.freeDropped()
	b.wait()
}

func (b *Backend) wait() {
	b.counts.Waits++
	b.must("cuStreamSynchronize", dl.Call(b.d.streamSynchronize, b.stream))
}

var (
	fillWords = kernel{file: "moves", name: "fill_words"}
	copyWords = kernel{file: "moves", name: "copy_words"}
)

type fillArgs struct {
	dst uintptr
	n   int64
	v   uint32
}

type copyArgs struct {
	dst, src uintptr
	n        int64
}

// key makes the key of a library call, from all that it depends on.
func key(name string, values ...uint64) string {
	k := []byte(name)
	for _, v := range values {
		k = binary.LittleEndian.AppendUint64(k, v)
	}
	return string(k)
}
