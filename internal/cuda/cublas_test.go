//go:build dl && linux

package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/dl"
)

// ltKernel is a product as cuBLASLt's documentation has it: column-major matrices.
const ltKernel = `
struct lt_args {
	const void *a, *b;
	const float *bias, *c;
	float *d;
	s64 lda, ldb, ldc, ldd, sa, sb, sc, sd;
	int m, n, k, batch, ta, tb, type;
	float beta;
};
DEVICE double load(const void *p, s64 i, int type) {
	return type == 0 ? ((const float *)p)[i] : type == 14 ? from_bf16(((const u16 *)p)[i]) : from_fp16(((const u16 *)p)[i]);
}
KERNEL(lt, lt_args) {
	EACH(i, (s64)a.batch * a.m * a.n) {
		s64 row = i % a.m, col = i / a.m % a.n, b = i / a.m / a.n;
		double sum = a.beta == 0 ? 0 : a.beta * a.c[b * a.sc + col * a.ldc + row];
		for (s64 k = 0; k < a.k; k++)
			sum += load(a.a, b * a.sa + (a.ta ? row * a.lda + k : k * a.lda + row), a.type) * load(a.b, b * a.sb + (a.tb ? k * a.ldb + col : col * a.ldb + k), a.type);
		if (a.bias)
			sum += a.bias[row];
		a.d[b * a.sd + col * a.ldd + row] = sum;
	}
}
`

type ltArgs struct {
	a, b, bias, c, d                       uintptr
	lda, ldb, ldc, ldd, sa, sb, sc, sd     int64
	m, n, k, batch, transA, transB, number int32
	beta                                   float32
}

// ltObject is a descriptor, layout or preference: what it was made with, and its attributes.
type ltObject struct {
	what       string
	made       []uint64
	attributes map[uintptr]uint64
}

func (o *ltObject) get(attribute uintptr, otherwise uint64) uint64 {
	if v, ok := o.attributes[attribute]; ok {
		return v
	}
	return otherwise
}

// lt is a stand-in for cuBLASLt, with the signatures of cublasLt.h, whose products run on an
// emulated device.
type lt struct {
	t          *testing.T
	objects    map[uintptr]*ltObject
	made       uintptr
	algorithms int      // that the library proposes
	ran        []uint64 // the algorithms of products so far
	status     uintptr  // of products
}

// sizes are the bytes of attributes.
var ltSizes = map[string]map[uintptr]uintptr{
	"desc":       {blasDescTransA: 4, blasDescTransB: 4, blasDescEpilogue: 4, blasDescBias: 8},
	"layout":     {blasLayoutBatch: 4, blasLayoutStride: 8},
	"preference": {blasPreferSpace: 8, blasPreferReductions: 4, 5: 4, 6: 4, 7: 4, 8: 4},
}

const ltInvalid = 7 // CUBLAS_STATUS_INVALID_VALUE

func (l *lt) create(to *uintptr, what string, made ...uint64) uintptr {
	l.made++
	*to = l.made
	l.objects[l.made] = &ltObject{what, made, map[uintptr]uint64{}}
	return 0
}

func (l *lt) set(what string) uintptr {
	return purego.NewCallback(func(o, attribute uintptr, from unsafe.Pointer, bytes uintptr) uintptr {
		object := l.objects[o]
		if object == nil || object.what != what || bytes == 0 || ltSizes[what][attribute] != bytes {
			return ltInvalid
		}
		var v [8]byte
		copy(v[:], unsafe.Slice((*byte)(from), bytes))
		object.attributes[attribute] = binary.LittleEndian.Uint64(v[:])
		return 0
	})
}

func (l *lt) destroy(what string) uintptr {
	return purego.NewCallback(func(o uintptr) uintptr {
		if object := l.objects[o]; object == nil || object.what != what {
			return ltInvalid
		}
		delete(l.objects, o)
		return 0
	})
}

// emulatedBlas is emulated with a stand-in for cuBLASLt.
func emulatedBlas(t *testing.T, o Options) (*Backend, *lt) {
	b := emulated(t, o)
	l := &lt{t: t, objects: map[uintptr]*ltObject{}, algorithms: 1}
	k := b.testKernel(t, "lt", ltKernel)
	b.enter()
	defer b.leave()
	product := b.function(k)
	f := &blas{plans: map[blasShape]*blasPlan{}, space: b.allocate(blasSpace), handle: 99, choices: choices{path: filepath.Join(t.TempDir(), "products.json")},
		descSet: l.set("desc"), layoutSet: l.set("layout"), preferenceSet: l.set("preference"),
		descDestroy: l.destroy("desc"), layoutDestroy: l.destroy("layout"), preferenceDestroy: l.destroy("preference"),
		descCreate: purego.NewCallback(func(to *uintptr, compute, scale uintptr) uintptr {
			return l.create(to, "desc", uint64(compute), uint64(scale))
		}),
		layoutCreate: purego.NewCallback(func(to *uintptr, kind, rows, cols, ld uintptr) uintptr {
			if rows == 0 || cols == 0 || ld < rows {
				return ltInvalid
			}
			return l.create(to, "layout", uint64(kind), uint64(rows), uint64(cols), uint64(ld))
		}),
		preferenceCreate: purego.NewCallback(func(to *uintptr) uintptr { return l.create(to, "preference") }),
		heuristic: purego.NewCallback(func(handle, desc, a, b, c, d, preference, wanted uintptr, to *blasResult, found *int32) uintptr {
			if handle != 99 || l.objects[preference].get(blasPreferSpace, 0) != blasSpace || l.objects[preference].get(blasPreferReductions, 7) != 6 {
				return ltInvalid
			}
			results := unsafe.Slice(to, wanted)
			for i := range min(l.algorithms, len(results)) {
				results[i] = blasResult{algo: [8]uint64{uint64(i) + 1}, space: 1000}
				*found++
			}
			return 0
		}),
		matmul: purego.NewCallback(func(handle, desc uintptr, alpha *float32, a, aLayout, x, xLayout uintptr, beta *float32, c, cLayout, d, dLayout uintptr,
			algo *[8]uint64, space, spaceBytes, stream uintptr) uintptr {
			o, ao, bo, co, do := l.objects[desc], l.objects[aLayout], l.objects[xLayout], l.objects[cLayout], l.objects[dLayout]
			if handle != 99 || *alpha != 1 || spaceBytes != blasSpace || space == 0 {
				return ltInvalid
			}
			if l.ran = append(l.ran, algo[0]); l.status != 0 {
				return l.status
			}
			args := &ltArgs{a: a, b: x, c: c, d: d, lda: int64(ao.made[3]), ldb: int64(bo.made[3]), ldc: int64(co.made[3]), ldd: int64(do.made[3]),
				sa: int64(ao.get(blasLayoutStride, 0)), sb: int64(bo.get(blasLayoutStride, 0)), sc: int64(co.get(blasLayoutStride, 0)), sd: int64(do.get(blasLayoutStride, 0)),
				m: int32(do.made[1]), n: int32(do.made[2]), k: int32(ao.made[2]), batch: int32(do.get(blasLayoutBatch, 1)),
				transA: int32(o.get(blasDescTransA, 0)), transB: int32(o.get(blasDescTransB, 0)), number: int32(ao.made[0]), beta: *beta}
			shape := [4]int32{int32(ao.made[1]), int32(ao.made[2]), int32(bo.made[1]), int32(bo.made[2])}
			if args.transA != 0 {
				shape[0], shape[1] = shape[1], shape[0]
				args.k = shape[1]
			}
			if args.transB != 0 {
				shape[2], shape[3] = shape[3], shape[2]
			}
			if shape != [4]int32{args.m, args.k, args.k, args.n} || ao.made[0] != bo.made[0] || co.made[0] != 0 || ao.get(blasLayoutBatch, 1) != uint64(args.batch) {
				return ltInvalid
			}
			if o.get(blasDescEpilogue, 1) == blasEpilogueBias {
				args.bias = uintptr(o.get(blasDescBias, 0))
			}
			params := &[1]unsafe.Pointer{unsafe.Pointer(args)}
			return uintptr(dl.Call(b.d.launchKernel, product.handle, 2, 1, 1, perBlock, 1, 1, 0, stream, uintptr(unsafe.Pointer(params)), 0))
		}),
	}
	for i := range f.events {
		b.must("cuEventCreate", dl.Call(b.d.eventCreate, uintptr(unsafe.Pointer(&f.events[i])), 0))
	}
	b.blas = f
	least := leastBlasWork
	leastBlasWork = 1
	t.Cleanup(func() { leastBlasWork = least })
	return b, l
}

// The library's column-major products are ours: in every order of operands, with distances,
// batches, biases and sums.
func TestGemmByLibrary(t *testing.T) {
	long(t)
	b, l := emulatedBlas(t, Options{})
	devicetest.Run(t, b, "Gemm")
	if len(l.ran) < 100 {
		t.Errorf("the library computed %d products", len(l.ran))
	}
}

func TestGemmByLibraryOfKinds(t *testing.T) {
	long(t)
	for _, kind := range kindsOfSums {
		t.Run(fmt.Sprint(device.Kinds[kind.kind], kind.Options.TF32), func(t *testing.T) {
			b, l := emulatedBlas(t, kind.Options)
			for i, g := range []gemmCase{
				{GemmSpec: device.GemmSpec{M: 5, N: 9, K: 11}},
				{GemmSpec: device.GemmSpec{M: 12, N: 8, K: 30, Acc: true, LDC: 9}, shift: 1},
				{GemmSpec: device.GemmSpec{M: 3, N: 4, K: 5, Batch: 3}, shift: 2},
			} {
				for option := range 4 {
					g.Kind, g.TransA, g.TransB = kind.kind, option&1 != 0, option&2 != 0
					got := g.on(b, uint64(i), i > 0)
					as := kind.as
					if as == tf32 {
						as = device.F32 // the stand-in does not round
					}
					want, bound := g.want(as, uint64(i), i > 0)
					for k, w := range want {
						if d := math.Abs(float64(got[k]) - w); !(d <= bound[k]) {
							t.Fatalf("%+v: element %d is %g, want %g", g, k, got[k], w)
						}
					}
				}
			}
			if len(l.ran) != 12 {
				t.Errorf("the library computed %d products of 12", len(l.ran))
			}
		})
	}
}

// Of several algorithms the fastest by the device's clock is kept, C is what it would be
// without the trials, and a queue with products becomes a graph.
func TestFastestAlgorithm(t *testing.T) {
	b, l := emulatedBlas(t, Options{})
	l.algorithms = 9 // more than are asked for
	times, at := []float32{3, 2, 1, 5}, 0
	b.d.eventElapsedTime = purego.NewCallback(func(ms *float32, from, to uintptr) uintptr {
		*ms = times[at%len(times)]
		at++
		return 0
	})
	const m, n, k = 6, 7, 8
	r := rand.New(rand.NewPCG(1, 1))
	x, y, host := put(b, normal(r, m*k, 1)), put(b, normal(r, k*n, 1)), normal(r, m*n, 1)
	z := put(b, host)
	own := emulated(t, Options{})
	want := own.Alloc(m * n)
	own.Upload(want, host)
	ox, oy := put(own, get(b, x)), put(own, get(b, y))
	b.Counts()
	for range 4 {
		for range 5 {
			b.Gemm(&device.GemmSpec{M: m, N: n, K: k, A: x, B: y, C: z, Acc: true})
			own.Gemm(&device.GemmSpec{M: m, N: n, K: k, A: ox, B: oy, C: want, Acc: true})
		}
		got, w := get(b, z), get(own, want)
		for i := range w {
			if math.Abs(float64(got[i]-w[i])) > 1e-4 {
				t.Fatalf("element %d is %g, want %g", i, got[i], w[i])
			}
		}
	}
	if trials := blasTries * (1 + blasTimed); len(l.ran) != trials+5+5 { // five one by one, and five captured
		t.Errorf("%d products in all: %v", len(l.ran), l.ran)
	}
	for _, algorithm := range l.ran[blasTries*(1+blasTimed):] {
		if algorithm != 3 {
			t.Errorf("algorithm %d, want the fastest, 3", algorithm)
		}
	}
	if c := b.Counts(); c.Graphs != 3 {
		t.Errorf("%d graphs of 3", c.Graphs)
	}
	later, l := emulatedBlas(t, Options{})
	l.algorithms, later.blas.choices.path = 9, b.blas.choices.path
	later.Gemm(&device.GemmSpec{M: m, N: n, K: k, A: put(later, get(b, x)), B: put(later, get(b, y)), C: later.Alloc(m * n), Acc: true})
	if later.Sync(); fmt.Sprint(l.ran) != "[3]" {
		t.Errorf("a later process ran algorithms %v, want the one that was chosen, 3", l.ran)
	}
}

// Weights of 16 bits are rounded once for a version, and a product that the library has no
// algorithm for goes to kernels.
func TestLibraryWithoutAlgorithm(t *testing.T) {
	b, l := emulatedBlas(t, Options{})
	g := gemmCase{GemmSpec: device.GemmSpec{M: 3, N: 40, K: 16, TransB: true, Kind: device.BF16}}
	cache := &device.Cache{}
	run := func() []float32 {
		g.Cache, g.Version = cache, 1
		return g.on(b, 3, true)
	}
	l.algorithms = 0
	plain := run()
	if cache.Load(1) != nil || len(l.ran) != 0 {
		t.Error("weights were kept for nothing")
	}
	clear(b.blas.plans)
	l.algorithms = 1
	first := run()
	b.graphs.off = true
	launches := func() int {
		b.Counts()
		run()
		return b.Counts().Launches
	}
	if with := launches(); cache.Load(1) == nil {
		t.Error("weights were not kept")
	} else if cache = nil; launches() != with+1 {
		t.Error("weights were rounded again")
	}
	for i, v := range plain {
		if math.Abs(float64(v-first[i])) > 1e-4 {
			t.Fatalf("element %d is %g by kernels and %g by the library", i, v, first[i])
		}
	}
	l.status = 13
	err := catch(func() { run() })
	if err == nil || !strings.Contains(err.Error(), "cublasLtMatmul: status 13") {
		t.Errorf("a failure of the library is %v", err)
	}
	l.status = 0
}

func TestManyPlans(t *testing.T) {
	b, l := emulatedBlas(t, Options{})
	b.enter()
	defer b.leave()
	for i := range mostBlasPlans + 10 {
		b.productPlan(blasShape{m: i + 1, n: 2, k: 3, batch: 1, lda: 3, ldb: 2, ldc: 2})
	}
	if len(b.blas.plans) != 10 || len(l.objects) != 4*10 {
		t.Errorf("%d plans and %d descriptors are left", len(b.blas.plans), len(l.objects))
	}
}

// What is written to descriptors is read back by NVIDIA's library, which needs no GPU for that:
// so the order of arguments and the values of the headers are right.
func TestRealBlasDescriptors(t *testing.T) {
	wheels := os.Getenv("CAROUSEL_NVIDIA_WHEELS")
	if wheels == "" {
		t.Skip("needs NVIDIA's libraries: CAROUSEL_NVIDIA_WHEELS=/path/of/site-packages/nvidia")
	}
	found, _ := filepath.Glob(wheels + "/*/lib*/libcublasLt.so.1?")
	if len(found) == 0 {
		t.Skip("no libcublasLt.so below " + wheels)
	}
	lib, err := dl.Open(found[0], false)
	if err != nil {
		t.Fatal(err)
	}
	l, err := bindBlas(lib)
	if err != nil {
		t.Fatal(err)
	}
	var getDesc, getLayout uintptr
	if err := lib.Bind(map[string]*uintptr{"cublasLtMatmulDescGetAttribute": &getDesc, "cublasLtMatrixLayoutGetAttribute": &getLayout}); err != nil {
		t.Fatal(err)
	}
	read := func(get, object uintptr, bytes int, attributes ...uintptr) (values []int64) {
		for _, a := range attributes {
			var v int64
			var written uint64
			if r := dl.Call(get, object, a, uintptr(unsafe.Pointer(&v)), uintptr(bytes), uintptr(unsafe.Pointer(&written))); r != 0 || written != uint64(bytes) {
				t.Fatalf("attribute %d: status %d, %d bytes of %d", a, r, written, bytes)
			}
			values = append(values, v)
		}
		return values
	}
	for _, c := range []struct {
		shape blasShape
		want  string
	}{
		{blasShape{m: 5, n: 7, k: 11, batch: 1, lda: 12, ldb: 13, ldc: 14, transB: true, kind: device.F32},
			"[68 0 1 0 1] [0 11 5 12] [0 11 7 13] [0 7 5 14] [1 1 1] [0 0 0]"},
		{blasShape{m: 5, n: 7, k: 11, batch: 3, lda: 16, ldb: 8, ldc: 7, strideA: 176, strideC: 35, transA: true, bias: true, kind: device.BF16},
			"[68 0 0 1 4] [14 5 11 16] [14 7 11 8] [0 7 5 7] [3 3 3] [176 0 35]"},
		{blasShape{m: 5, n: 7, k: 11, batch: 1, lda: 16, ldb: 8, ldc: 7, kind: device.FP16},
			"[68 0 0 0 1] [2 11 5 16] [2 7 11 8] [0 7 5 7] [1 1 1] [0 0 0]"},
		{blasShape{m: 5, n: 7, k: 11, batch: 1, lda: 16, ldb: 8, ldc: 7, kind: tf32},
			"[77 0 0 0 1] [0 11 5 16] [0 7 11 8] [0 7 5 7] [1 1 1] [0 0 0]"},
	} {
		p := &blasPlan{blasShape: c.shape}
		if r := l.describe(p); r != 0 {
			t.Fatalf("%+v: status %d", c.shape, r)
		}
		var batches, strides []int64
		got := fmt.Sprint(read(getDesc, p.desc, 4, 0, 1, blasDescTransA, blasDescTransB, blasDescEpilogue))
		for _, layout := range []uintptr{p.a, p.b, p.c} {
			got += fmt.Sprint(" ", append(append(read(getLayout, layout, 4, 0), read(getLayout, layout, 8, 2, 3)...), read(getLayout, layout, 8, 4)...))
			batches = append(batches, read(getLayout, layout, 4, blasLayoutBatch)...)
			strides = append(strides, read(getLayout, layout, 8, blasLayoutStride)...)
		}
		if got += fmt.Sprint(" ", batches, " ", strides); got != c.want {
			t.Errorf("%+v\n is %s\nwant %s", c.shape, got, c.want)
		}
		bias := uintptr(0x1230)
		if r := dl.Call(l.descSet, p.desc, blasDescBias, uintptr(unsafe.Pointer(&bias)), 8); r != 0 || read(getDesc, p.desc, 8, blasDescBias)[0] != 0x1230 {
			t.Errorf("the bias: status %d", r)
		}
		// Without a GPU there is no handle, and so no algorithm; what comes before is taken.
		if r := l.ask(p); r == 0 || len(p.algorithms) != 0 {
			t.Errorf("algorithms without a handle: status %d, %v", r, p.algorithms)
		}
		l.destroy(p)
	}
	if r := dl.Call(l.create, uintptr(unsafe.Pointer(&l.handle))); r == 0 {
		t.Skip("there is a GPU")
	} else if r != 1 {
		t.Errorf("cublasLtCreate without a GPU: status %d, want 1", r)
	}
}
