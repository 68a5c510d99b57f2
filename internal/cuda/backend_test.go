//go:build dl && linux

package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/cuda/cudatest"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

// scaleAdd is y = y*s + x, an operation whose result depends on the order.
const scaleAdd = `
struct scale_add_args { float *y; const float *x; s64 n; float s; };
KERNEL(scale_add, scale_add_args) { EACH(i, a.n) a.y[i] = a.y[i] * a.s + a.x[i]; }
`

type scaleAddArgs struct {
	y, x uintptr
	n    int64
	s    float32
}

// scaler queues scaleAdd; with a library, as if by a call of one.
type scaler struct {
	*Backend
	k kernel
}

func newScaler(t *testing.T, b *Backend) scaler {
	return scaler{b, b.testKernel(t, "scale_add", scaleAdd)}
}

func (s scaler) do(y, x device.Buffer, by float32) {
	s.enter()
	defer s.leave()
	launch(s.Backend, s.k, each(y.N), &scaleAddArgs{y.Addr, x.Addr, int64(y.N), by})
}

// asLibrary queues it as a library's call is queued.
func (s scaler) asLibrary(y, x device.Buffer, by float32) {
	s.enter()
	defer s.leave()
	fn := s.function(s.k)
	s.call("scale_add", key("scale_add", uint64(y.Addr), uint64(x.Addr), uint64(y.N), uint64(math.Float32bits(by))), func(stream uintptr) int32 {
		args := &scaleAddArgs{y.Addr, x.Addr, int64(y.N), by}
		params := &[1]unsafe.Pointer{unsafe.Pointer(args)}
		return dl.Call(s.d.launchKernel, fn.handle, 2, 1, 1, perBlock, 1, 1, 0, stream, uintptr(unsafe.Pointer(params)), 0)
	})
}

func get(b device.Backend, m device.Buffer) []float32 {
	v := make([]float32, m.N)
	b.Download(v, m)
	return v
}

// TestQueue runs random queues several times with other arguments, once as graphs
// and once one by one: the numbers must be the same, and what the host computes.
func TestQueue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := emulated(t, Options{})
	s := newScaler(t, b)
	const n, memories = 300, 6
	host := make([][]float32, memories)
	on := make([][2]device.Buffer, memories) // by graphs, one by one
	for i := range on {
		host[i] = make([]float32, n)
		for k := range host[i] {
			host[i][k] = float32(rnd.IntN(64))
		}
		for w := range on[i] {
			on[i][w] = b.Alloc(n)
			b.Upload(on[i][w], host[i])
		}
	}
	b.Sync()
	for queue := range 12 {
		type step struct {
			y, x    int
			lo, hi  int
			by      float32
			library bool
		}
		steps := make([]step, leastGraph+queue) // no graph serves two of them
		for i := range steps {
			steps[i].lo = rnd.IntN(n)
			steps[i].hi = steps[i].lo + 1 + rnd.IntN(n-steps[i].lo)
			steps[i].library = queue%3 == 2 && i%4 == 1
			steps[i].y = rnd.IntN(memories)
			steps[i].x = (steps[i].y + 1 + rnd.IntN(memories-1)) % memories
		}
		b.Counts()
		for range 4 {
			for i, p := range steps {
				if !p.library { // whose calls have the same arguments each time
					steps[i].y = rnd.IntN(memories)
					steps[i].x = (steps[i].y + 1 + rnd.IntN(memories-1)) % memories
					steps[i].by = float32(rnd.IntN(3)-1) / 2
				}
			}
			for way := range 2 {
				b.graphs.off = way == 1
				for _, p := range steps {
					y, x := on[p.y][way].Slice(p.lo, p.hi), on[p.x][way].Slice(p.lo, p.hi)
					if p.library {
						s.asLibrary(y, x, p.by)
					} else {
						s.do(y, x, p.by)
					}
				}
				b.Sync()
			}
			for _, p := range steps {
				for k := p.lo; k < p.hi; k++ {
					host[p.y][k] = host[p.y][k]*p.by + host[p.x][k]
				}
			}
			for i := range on {
				for way := range 2 {
					if got := get(b, on[i][way]); !equalBits(got, host[i]) {
						t.Fatalf("queue %d, memory %d, way %d: the numbers differ", queue, i, way)
					}
				}
			}
		}
		if c := b.Counts(); c.Graphs != 3 || c.Launches != 5*len(steps) {
			t.Errorf("queue %d of %d: %d graphs and %d launches, want 3 of the 4 first ways, and 5 queues one by one", queue, len(steps), c.Graphs, c.Launches)
		}
	}
}

func equalBits(x, y []float32) bool {
	for i := range x {
		if math.Float32bits(x[i]) != math.Float32bits(y[i]) {
			return false
		}
	}
	return len(x) == len(y)
}

// TestGraphsForgotten makes more graphs than are kept.
func TestGraphsForgotten(t *testing.T) {
	b := emulated(t, Options{})
	s := newScaler(t, b)
	x, y := b.Alloc(8), b.Alloc(8)
	b.Upload(x, []float32{1, 1, 1, 1, 1, 1, 1, 1})
	b.Sync()
	b.Counts()
	var want float32
	for range 2 {
		for length := range mostGraphs + 10 {
			for range 2 {
				for range leastGraph + length {
					s.do(y, x, 1)
					want++
				}
				b.Sync()
			}
		}
	}
	if got := get(b, y)[7]; got != want {
		t.Errorf("%v additions were done of %v", got, want)
	}
	if n := len(b.graphs.all); n != mostGraphs {
		t.Errorf("%d graphs are kept, want %d", n, mostGraphs)
	}
	if c := b.Counts(); c.Graphs != 2*(mostGraphs+10) {
		t.Errorf("%d queues were launched as graphs, want each that came a second time at once: %d", c.Graphs, 2*(mostGraphs+10))
	}
}

// TestGridsInGraphs launches kernels whose blocks wait for each other as a graph, with other arguments.
func TestGridsInGraphs(t *testing.T) {
	b := emulated(t, Options{})
	k := b.testKernel(t, "shift", `
struct shift_args { float *x; u32 *count; int by; };
KERNEL(shift, shift_args) { // x[i] += x[i + by], of a ring of all threads
	u32 n = gridDim.x * 256, i = blockIdx.x * 256 + threadIdx.x;
	float other = load_l2(&a.x[(i + a.by) % n]);
	sync_grid(a.count);
	a.x[i] += other;
}
`)
	const grid = 4
	x := b.Alloc(grid * perBlock)
	want := make([]float32, x.N)
	for i := range want {
		want[i] = float32(i % 7)
	}
	b.Upload(x, want)
	b.Sync()
	b.Counts()
	for round := range 4 {
		for i := range leastGraph {
			by := 300*i + round
			b.enter()
			s := blocks(grid, 0)
			s.cooperative = true
			launch(b, k, s, &struct {
				x, count uintptr
				by       int32
			}{x.Addr, b.barrier, int32(by)})
			b.leave()
			before := slices.Clone(want)
			for j := range want {
				want[j] += before[(j+by)%len(want)]
			}
		}
		if got := get(b, x); !equalBits(got, want) {
			t.Fatalf("round %d: the numbers differ", round)
		}
	}
	if c := b.Counts(); c.Graphs != 3 {
		t.Errorf("%d graphs were launched, want 3", c.Graphs)
	}
}

// TestNotCaptured queues calls that cannot be captured: the queues run one by one, and the numbers are the same.
func TestNotCaptured(t *testing.T) {
	for name, spoil := range map[string]func(b *Backend, stream uintptr) int32{
		"an error":     func(*Backend, uintptr) int32 { return 3 },
		"it waits":     func(b *Backend, stream uintptr) int32 { return dl.Call(b.d.streamSynchronize, stream) },
		"it is silent": func(b *Backend, stream uintptr) int32 { dl.Call(b.d.streamSynchronize, stream); return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			b := emulated(t, Options{})
			s := newScaler(t, b)
			x, y := b.Alloc(8), b.Alloc(8)
			b.Upload(x, []float32{1})
			b.Sync()
			b.Counts()
			queue := func(bad bool) {
				for range leastGraph {
					s.do(y, x, 1)
				}
				s.asLibrary(y, x, 1)
				if bad {
					b.enter()
					b.call("spoil", key("spoil"), func(stream uintptr) int32 {
						if stream == b.capture {
							return spoil(b, stream)
						}
						return 0
					})
					b.leave()
				}
				b.Sync()
			}
			for range 4 {
				queue(true)
				queue(false) // is captured all the same
			}
			if got, want := get(b, y)[0], float32(8*(leastGraph+1)); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if c := b.Counts(); c.Graphs != 3 {
				t.Errorf("%d graphs were launched, want 3", c.Graphs)
			}
			if n := b.Notes(); len(n) != 1 || !strings.Contains(n[0], "spoil") {
				t.Errorf("the notes are %q, want one about the call", n)
			}
		})
	}
}

// TestUploads sends more than the ring of pinned memory holds, and what does not go
// through it, and changes the sources at once.
func TestUploads(t *testing.T) {
	b := emulated(t, Options{})
	var on []device.Buffer
	sizes := []int{1, 2, 17, 1000, pageBytes / 16, pageBytes/4 - 5, pageBytes/4 + 1, pageBytes / 8}
	for i := range 41 {
		n := sizes[i%len(sizes)]
		if i == 40 { // by the driver
			if c := b.Counts(); c.Waits != 0 {
				t.Errorf("the host waited %d times for arrays that are small", c.Waits)
			}
			n = largestStage/4 + 1
		}
		src := make([]float32, n)
		for k := range src {
			src[k] = float32(i*31 + k%1009)
		}
		on = append(on, b.Alloc(n))
		b.Upload(on[i], src)
		clear(src)
	}
	for i, m := range on {
		for k, v := range get(b, m) {
			if v != float32(i*31+k%1009) {
				t.Fatalf("upload %d of %d numbers: number %d is %v", i, m.N, k, v)
			}
		}
	}
	ints := b.AllocInts(3)
	b.UploadInts(ints, []int32{-1, 0, 1 << 30})
	got := make([]int32, 3)
	b.DownloadInts(got, ints)
	if fmt.Sprint(got) != "[-1 0 1073741824]" {
		t.Errorf("integers are %v", got)
	}
	b.Upload(device.Buffer{}, nil)
	b.Download(nil, device.Buffer{})
}

// TestFree frees what queued work still reads, and allocates again.
func TestFree(t *testing.T) {
	b := emulated(t, Options{})
	s := newScaler(t, b)
	sum := b.Alloc(1000)
	ones := make([]float32, 1000)
	for i := range ones {
		ones[i] = 1
	}
	for range 50 {
		x := b.Alloc(1000)
		b.Upload(x, ones)
		s.do(sum, x, 1)
		b.Free(x)
	}
	if got := get(b, sum); got[0] != 50 || got[999] != 50 {
		t.Errorf("the sums are %v to %v, want 50", got[0], got[999])
	}
	b.Free(device.Buffer{})
}

func TestWork(t *testing.T) {
	b := emulated(t, Options{})
	b.enter()
	defer b.leave()
	p := b.work(1001)
	if p == 0 || p%256 != 0 || b.work(10) != p || b.work(1200) != p {
		t.Error("memory for operations is not the same for all that it is enough for")
	}
	if b.work(1<<20) == p {
		t.Error("memory for operations does not grow")
	}
}

func TestGoroutines(t *testing.T) {
	b := emulated(t, Options{})
	s := newScaler(t, b)
	var wait sync.WaitGroup
	for g := range 2 {
		wait.Go(func() {
			x, y := b.Alloc(64), b.Alloc(64)
			for i := range 40 {
				b.Upload(x, []float32{float32(g + 1)})
				for range 5 {
					s.do(y, x, 1)
				}
				if i%8 == g {
					b.Sync()
				}
			}
			if got := get(b, y)[0]; got != float32(200*(g+1)) {
				t.Errorf("goroutine %d has %v", g, got)
			}
		})
	}
	wait.Wait()
}

// deviceError is the *device.Error with which f panics.
func deviceError(t *testing.T, f func()) *device.Error {
	t.Helper()
	var e *device.Error
	if err := catch(f); !errors.As(err, &e) {
		t.Fatalf("want an error of the device, got %v", err)
	}
	if strings.Contains(e.Error(), "\n") {
		t.Errorf("more than one line: %s", e)
	}
	return e
}

func TestOutOfMemory(t *testing.T) {
	b := mustOpenEmulated(t, Options{})
	cudatest.Set(b.d.lib, "memory=104857600")
	x := b.Alloc(20 << 20)
	e := deviceError(t, func() { b.Alloc(10 << 20) })
	want := "cuda:0 (Emulated): 40.0 MiB wanted, and 20.0 MiB of 100.0 MiB are free: use a smaller batch, shorter segments or --precision bf16"
	if !e.Memory || e.Error() != want {
		t.Errorf("got %v (Memory %v), want %s", e, e.Memory, want)
	}
	b.Free(x)
	y := b.Alloc(10 << 20)
	if v := get(b, y); v[0] != 0 || v[len(v)-1] != 0 {
		t.Error("memory that was had after others was freed is not zero")
	}
}

// TestLost loses the device amid a queue.
func TestLost(t *testing.T) {
	for _, graphs := range []bool{false, true} {
		b := mustOpenEmulated(t, Options{})
		s := newScaler(t, b)
		x, y := b.Alloc(8), b.Alloc(8)
		queue := func() {
			for range 6 {
				s.do(y, x, 1)
			}
		}
		if graphs {
			queue()
			b.Sync()
		}
		cudatest.Set(b.d.lib, "fail=719 after=3")
		e := deviceError(t, func() { queue(); b.Sync() })
		if e.Memory || !strings.Contains(e.Error(), "cuda:0 (Emulated): cuStreamSynchronize: unspecified launch failure") || !strings.HasSuffix(e.Error(), "(CUDA_ERROR_LAUNCH_FAILED)") {
			t.Errorf("got %v", e)
		}
		for range 2 {
			deviceError(t, b.Sync)
			deviceError(t, func() { b.Alloc(1) })
			deviceError(t, func() { b.Upload(x, []float32{1}) })
		}
	}
}

func TestOpenErrors(t *testing.T) {
	for settings, want := range map[string]string{
		"devices=0":    "the NVIDIA driver shows no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES if it is set",
		"driver=11080": "the NVIDIA driver knows CUDA 11.8, and 12.0 is needed: install driver 525 or newer",
		"arch=75":      "cuda:0 (Emulated) has compute capability 7.5: 8.0 or newer is needed, with memory pools and cooperative launches",
	} {
		if _, err := openEmulated(t, Options{}, settings); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", settings, err, want)
		}
	}
	b := mustOpenEmulated(t, Options{})
	if _, err := open(b.d, b.nvrtc, libraries{}, 1, Options{}); err == nil || err.Error() != "there is no cuda:1: the last one that the driver shows is cuda:0" {
		t.Errorf("device 1: got %v", err)
	}
	cudatest.Set(b.d.lib, "memory=1000")
	if _, err := open(b.d, b.nvrtc, libraries{}, 0, Options{}); err != nil {
		t.Errorf("a small device: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, o := range []Options{{}, {TF32: true}, {Deterministic: true}, {TF32: true, Deterministic: true}} {
		want := "cuda/Emulated"
		if o.TF32 {
			want += "/tf32"
		}
		if o.Deterministic {
			want += "/own"
		}
		if b := mustOpenEmulated(t, o); b.Name() != want || !b.RunsAhead() {
			t.Errorf("the name is %q, want %q", b.Name(), want)
		}
	}
}

// TestUnreachable checks that memory which nobody frees is given back: there is room for one such
// buffer only.
func TestUnreachable(t *testing.T) {
	b := mustOpenEmulated(t, Options{})
	cudatest.Set(b.d.lib, "memory=104857600")
	held := b.Alloc(1<<20).Slice(1<<10, 1<<20)
	b.Upload(held, []float32{5})
	for range 4 {
		b.Fill(b.Alloc(15<<20).Slice(0, 10), 1)
	}
	if v := get(b, held)[0]; v != 5 {
		t.Errorf("a part of memory that is still had holds %v, want 5", v)
	}
	runtime.KeepAlive(held)
}

// TestScratchLack checks that work memory which could not grow is not used as if it were there.
func TestScratchLack(t *testing.T) {
	b := mustOpenEmulated(t, Options{})
	cudatest.Set(b.d.lib, "memory=104857600")
	work := func(bytes int) (addr uintptr) {
		b.enter()
		defer b.leave()
		return b.work(bytes)
	}
	work(1 << 20)
	deviceError(t, func() { work(200 << 20) })
	addr := work(4096)
	if x := b.Alloc(1 << 20); addr == 0 || x.Addr <= addr && addr < x.Addr+4<<20 {
		t.Error("work memory is part of another allocation")
	}
}
