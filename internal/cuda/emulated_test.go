//go:build dl && linux

package cuda

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/cuda/cudatest"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
	"github.com/carousel-ml/carousel/internal/half"
)

// gpuVariable, when it is set, makes the tests run on the machine's first GPU, except those
// that are about the emulated device.
const gpuVariable = "CAROUSEL_TEST_GPU"

// emulated returns a backend on a device that the CPU plays, of its own for each call,
// which must be in order at the end of the test.
func emulated(t testing.TB, o Options) *Backend {
	t.Helper()
	if os.Getenv(gpuVariable) != "" {
		b, err := Open(0, o)
		if err != nil {
			t.Fatal(err)
		}
		return b.(*Backend)
	}
	b := mustOpenEmulated(t, o)
	t.Cleanup(func() {
		if err := catch(b.Sync); err != nil {
			t.Error(err)
		}
		if err := cudatest.Check(b.d.lib); err != nil {
			t.Error(err)
		}
		cudatest.End(b.d.lib)
	})
	return b
}

// openEmulated is Open with a device of other properties than usual. No library of the
// system is looked for.
func openEmulated(t testing.TB, o Options, settings string) (*Backend, error) {
	t.Helper()
	dir := cudatest.Libraries(t)
	lib, err := dl.Open(filepath.Join(dir, "libcuda.so.1"), false)
	if err != nil {
		t.Fatal(err)
	}
	cudatest.Set(lib, settings)
	l := &loaded{search: &search{given: []string{dir}, folders: []string{dir}}}
	if err := l.loadDriver(); err != nil {
		return nil, err
	}
	if _, err := l.loadNVRTC(); err != nil {
		return nil, err
	}
	return open(l.driver, l.nvrtc, libraries{}, 0, o)
}

func mustOpenEmulated(t testing.TB, o Options) *Backend {
	t.Helper()
	b, err := openEmulated(t, o, "")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testKernel is a kernel of a source that only a test has.
func (b *Backend) testKernel(t *testing.T, name, text string) kernel {
	t.Helper()
	b.enter()
	defer b.leave()
	prelude, err := sources.ReadFile("kernels/prelude.cu")
	if err != nil {
		t.Fatal(err)
	}
	image, err := b.nvrtc.compile("test", string(prelude)+"#line 1 \"test.cu\"\n"+text, "", b.limits.arch)
	if err != nil {
		t.Fatal(err)
	}
	var loaded uintptr
	b.must("cuModuleLoadData", dl.Call(b.d.moduleLoadData, uintptr(unsafe.Pointer(&loaded)), uintptr(unsafe.Pointer(&image[0]))))
	k := kernel{file: "test " + name, name: name}
	b.modules[module{k.file, ""}] = loaded
	return k
}

// TestEmulatorFaults checks that the emulated device finds what would go wrong on a GPU, with words that
// lead to it.
func TestEmulatorFaults(t *testing.T) {
	type args struct {
		x, count uintptr
		n        int32
	}
	const head = "struct args { float *x; u32 *count; int n; };\nKERNEL(faulty, args) {\n"
	for _, c := range []struct {
		name, body  string
		n           int32
		shared      int
		cooperative bool
		want        string
	}{
		{"write past the end", "a.x[a.n + threadIdx.x] = 1;", 1000, 0, false, "kernel faulty, block (1,0,0) of (2,1,1), thread (255,0,0) of (256,1,1) accesses byte 5020 of an allocation of 4000"},
		{"write before the start", "if (threadIdx.x == 3) a.x[-1024] = a.n;", 0, 0, false, "thread (3,0,0) of (256,1,1) accesses memory at"},
		{"write close to the end", "a.x[1000] = a.n;", 0, 0, false, "a kernel has written around an allocation of 4000 bytes"},
		{"null", "((float *)0)[a.n] = 1;", 5, 0, false, "accesses memory at 0x14"},
		{"misaligned", "*(float4 *)(a.x + a.n) = float4{1, 2, 3, 4};", 1, 0, false, "an int that overflows, at test.cu:3"},
		{"array", "float v[4] = {1, 2, 3, 4}; a.x[0] = v[a.n];", 4, 0, false, "an index outside of an array"},
		{"overflow", "a.x[0] = a.n * 65536;", 65536, 0, false, "an int that overflows"},
		{"zero", "a.x[0] = 7 / a.n;", 0, 0, false, "divides by zero"},
		{"shared memory", "SHARED(float, s); s[threadIdx.x] = 1; sync_block(); a.x[0] = s[0];", 0, 1000, false, "writes outside of its shared memory of 1000 bytes"},
		{"no shared memory", "SHARED(float, s); s[threadIdx.x] = 1;", 0, 0, false, "accesses memory at"},
		{"barrier without a thread", "if (threadIdx.x != 5) sync_block();", 0, 0, false, "sync_block, but"},
		{"barrier with a warp's", "if (threadIdx.x < 32) sync_warp(); else if (threadIdx.x < 40) { sync_block(); sync_warp(); } else sync_block();", 0, 0, false, "waits in sync_block"},
		{"shuffle of half a warp", "if (threadIdx.x % 2) a.x[0] = shuffle_xor(1.f, 2);", 0, 0, false, "a shuffle, but"},
		{"shuffle against a barrier", "if (threadIdx.x % 2) a.x[0] = shuffle_xor(1.f, 2); else sync_warp();", 0, 0, false, "while others of its warp wait in"},
		{"wait for ever", "while (load_acquire(a.count) == 0) pause();", 0, 0, false, "waits in a loop with pause for ever"},
		{"grid's barrier without a cooperative launch", "sync_grid(a.count);", 0, 0, false, "waits in a loop with pause for ever"},
		{"too many blocks at once", "sync_grid(a.count);", 0, 150 << 10, true, "too many blocks in cooperative launch: kernel faulty with 5 blocks, of which 4 run at once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mustOpenEmulated(t, Options{})
			k := b.testKernel(t, "faulty", head+c.body+"\n}\n")
			x, count := b.Alloc(1000), b.AllocInts(1)
			b.Sync()
			e := deviceError(t, func() {
				func() {
					b.enter()
					defer b.leave()
					s := blocks(2, c.shared)
					if c.cooperative {
						s.cooperative, s.grid[0] = true, 5
					}
					launch(b, k, s, &args{x.Addr, count.Addr, c.n})
				}()
				b.Free(x) // looks around it
				b.Sync()
			})
			if !strings.Contains(e.Text, c.want) {
				t.Errorf("got %q, want words like %q", e.Text, c.want)
			}
		})
	}
	t.Run("freed memory", func(t *testing.T) {
		b := mustOpenEmulated(t, Options{})
		s := newScaler(t, b)
		x, y := b.Alloc(1000), b.Alloc(1000)
		b.Free(x)
		b.Sync()
		if e := deviceError(t, func() { s.do(y, x, 1); b.Sync() }); !strings.Contains(e.Text, "kernel scale_add") {
			t.Errorf("got %v", e)
		}
	})
	t.Run("memory that was not written", func(t *testing.T) {
		b := mustOpenEmulated(t, Options{})
		b.enter()
		scratch := device.Buffer{Addr: b.work(400), N: 100}
		var raw uintptr
		b.must("cuMemAllocAsync", dl.Call(b.d.memAllocAsync, uintptr(unsafe.Pointer(&raw)), 400, b.stream))
		b.leave()
		if v := get(b, scratch)[99]; v != 0 {
			t.Errorf("allocated memory is %v", v)
		}
		if v := get(b, device.Buffer{Addr: raw, N: 100})[99]; v == v {
			t.Errorf("memory that nobody wrote is %v, want NaN", v)
		}
	})
}

// TestPrelude runs the words of prelude.cu: on the emulated device this tells that its meaning of them is
// the one that they are described with.
func TestPrelude(t *testing.T) {
	b := emulated(t, Options{})
	out := b.Alloc(8 * perBlock)
	run := func(name, body string, s shape, args *preludeArgs) []float32 {
		t.Helper()
		k := b.testKernel(t, name, "struct args { float *x; const float *y; u32 *count; };\nKERNEL("+name+", args) {\n"+body+"\n}\n")
		b.enter()
		launch(b, k, s, args)
		b.leave()
		return get(b, out)
	}
	in := b.Alloc(1024)
	numbers := make([]float32, 1024)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range numbers {
		numbers[i] = float32(rnd.IntN(17) - 8)
	}
	b.Upload(in, numbers)
	count := b.AllocInts(1)
	a := &preludeArgs{out.Addr, in.Addr, count.Addr}

	// Sums: thread i of block b brings i*(b+1).
	got := run("sums", `SHARED(float, tmp);
	float v = threadIdx.x * (blockIdx.x + 1), most = block_max(v == 77 ? 1e6f : v, tmp);
	a.x[blockIdx.x * 256 + threadIdx.x] = block_sum(v, tmp) + warp_sum(1.f) * 1e6f + (most == 1e6f ? .5f : 0);`, blocks(2, 4*(32+1)), a)
	for i, want := range map[int]float32{0: 32640 + 32e6 + .5, 255: 32640 + 32e6 + .5, 256: 65280 + 32e6, 511: 65280 + 32e6} {
		if got[i] != want {
			t.Errorf("sums: thread %d has %v, want %v", i, got[i], want)
		}
	}

	// A chain through the blocks of grids of several sizes: each block adds its number to what the one before
	// it wrote, in turns that only the barrier separates.
	for _, n := range []int{8, 3, 5, 1, 8} {
		s := blocks(n, 0)
		s.cooperative = true
		got := run("turns", `for (u32 turn = 0; turn < gridDim.x; turn++) {
		if (turn == blockIdx.x)
			a.x[turn * 256 + threadIdx.x] = (turn ? load_l2(&a.x[(turn - 1) * 256 + (threadIdx.x + 1) % 256]) : threadIdx.x) + turn;
		sync_grid(a.count);
	}`, s, a)
		for i := range perBlock {
			if want := (i+n-1)%perBlock + n*(n-1)/2; got[(n-1)*perBlock+i] != float32(want) {
				t.Fatalf("a grid of %d: thread %d of the last block has %v, want %d", n, i, got[(n-1)*perBlock+i], want)
			}
		}
	}

	// Products on tensor cores, of whole numbers, which every kind has.
	product := func(depth int) []float32 { // A [16,depth], then B [depth,8]
		c := make([]float32, 16*8)
		for i := range 16 {
			for j := range 8 {
				c[i*8+j] = float32(100*i + j)
				for k := range depth {
					c[i*8+j] += numbers[i*depth+k] * numbers[16*depth+k*8+j]
				}
			}
		}
		return c
	}
	const store = `
	for (int e = 0; e < 4; e++)
		a.x[(g + e / 2 * 8) * 8 + 2 * t + e % 2] = d[e];`
	const load = `int g = threadIdx.x / 4, t = threadIdx.x % 4;
	if (threadIdx.x >= 32) return;
	float d[4];
	for (int e = 0; e < 4; e++)
		d[e] = 100 * (g + e / 2 * 8) + 2 * t + e % 2;
`
	for _, kind := range []string{"bf16", "fp16"} {
		got := run("mma_"+kind+"_test", load+`
	u32 x[4], y[2];
	for (int r = 0; r < 4; r++) {
		const float *p = a.y + (g + r % 2 * 8) * 16 + 2 * t + r / 2 * 8;
		x[r] = to_`+kind+`(p[0]) | (u32)to_`+kind+`(p[1]) << 16;
	}
	for (int r = 0; r < 2; r++) {
		const float *p = a.y + 256 + (2 * t + r * 8) * 8 + g;
		y[r] = to_`+kind+`(p[0]) | (u32)to_`+kind+`(p[8]) << 16;
	}
	mma_`+kind+`(d, x, y);`+store, blocks(1, 0), a)
		if !equalBits(got[:128], product(16)) {
			t.Errorf("%s: the product is %v, want %v", kind, got[:128], product(16))
		}
	}
	got = run("mma_tf32_test", load+`
	u32 x[4], y[2];
	for (int r = 0; r < 4; r++)
		x[r] = to_tf32(a.y[(g + r % 2 * 8) * 8 + t + r / 2 * 4]);
	for (int r = 0; r < 2; r++)
		y[r] = to_tf32(a.y[128 + (t + r * 4) * 8 + g]);
	mma_tf32(d, x, y);`+store, blocks(1, 0), a)
	if !equalBits(got[:128], product(8)) {
		t.Errorf("tf32: the product is %v, want %v", got[:128], product(8))
	}
}

type preludeArgs struct{ x, y, count uintptr }

// TestRounding compares the conversions of prelude.cu with package half's.
func TestRounding(t *testing.T) {
	b := emulated(t, Options{})
	rnd := rand.New(rand.NewPCG(5, 6))
	var numbers []float32
	for e := range 256 { // all exponents, and mantissas at and around ties
		for _, m := range []uint32{0, 1, 0xfff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001, 0x18000, 0x17fff, 0x7fffff, rnd.Uint32() >> 9, rnd.Uint32() >> 9} {
			f := math.Float32frombits(uint32(e)<<23 | m)
			numbers = append(numbers, f, -f)
		}
	}
	n := len(numbers)
	in, out := b.Alloc(n), b.Alloc(4*n)
	b.Upload(in, numbers)
	k := b.testKernel(t, "rounding", `struct args { float *x; const float *y; s64 n; };
KERNEL(rounding, args) {
	EACH(i, a.n) {
		a.x[4 * i] = from_bf16(to_bf16(a.y[i]));
		a.x[4 * i + 1] = from_fp16(to_fp16(a.y[i]));
		a.x[4 * i + 2] = __uint_as_float(to_tf32(a.y[i]));
		a.x[4 * i + 3] = to_fp16(a.y[i]);
	}
}
`)
	b.enter()
	launch(b, k, each(n), &struct {
		x, y uintptr
		n    int64
	}{out.Addr, in.Addr, int64(n)})
	b.leave()
	got := get(b, out)
	for i, f := range numbers {
		if f != f {
			if got[4*i] == got[4*i] || got[4*i+1] == got[4*i+1] || got[4*i+2] == got[4*i+2] {
				t.Fatalf("NaN is %v", got[4*i:4*i+3])
			}
			continue
		}
		if want := half.FromBFloat16(half.ToBFloat16(f)); got[4*i] != want {
			t.Fatalf("bfloat16 of %g is %g, want %g", f, got[4*i], want)
		}
		if want := half.ToFloat16(f); got[4*i+3] != float32(want) || got[4*i+1] != half.FromFloat16(want) {
			t.Fatalf("float16 of %g is %g (%x), want %g (%x)", f, got[4*i+1], int(got[4*i+3]), half.FromFloat16(want), want)
		}
		// The nearest multiple of the unit of 10 bits, ties away from zero.
		unit := math.Ldexp(1, max(math.Ilogb(float64(f)), -126)-10)
		want := float32(math.Copysign(math.Floor(math.Abs(float64(f))/unit+0.5)*unit, float64(f)))
		if f == 0 || math.IsInf(float64(f), 0) {
			want = f
		}
		if got[4*i+2] != want {
			t.Fatalf("tf32 of %g is %g, want %g", f, got[4*i+2], want)
		}
	}
}
