//go:build dl && linux

package cuda

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/internal/simd"
)

func TestGemm(t *testing.T) {
	long(t)
	devicetest.Run(t, emulated(t, Options{}), "Gemm")
}

// gemmCase is a product of random numbers with everything that a spec may have.
type gemmCase struct {
	device.GemmSpec
	shift int // elements by which operands are off a multiple of 16 bytes
}

// operands returns A, B, the bias and C before, as the spec lays them out.
func (g *gemmCase) operands(seed uint64) (a, b, bias, c []float32) {
	r := rand.New(rand.NewPCG(seed, uint64(g.K)))
	side := func(rows, cols, ld int, turned bool) int {
		if turned {
			rows, cols = cols, rows
		}
		return max(rows, 1) * max(ld, cols)
	}
	batch := max(g.Batch, 1)
	sa, sb, sc := side(g.M, g.K, g.LDA, g.TransA), side(g.K, g.N, g.LDB, g.TransB), side(g.M, g.N, g.LDC, false)
	if g.Batch > 1 {
		g.StrideA, g.StrideB, g.StrideC = sa, sb, sc
	}
	return normal(r, g.shift+batch*sa, 1), normal(r, g.shift+batch*sb, 1), normal(r, g.N, 1), normal(r, g.shift+batch*sc, 1)
}

// on puts the operands on a device and returns C after the product.
func (g gemmCase) on(b device.Backend, seed uint64, bias bool) []float32 {
	x, y, v, c := g.operands(seed)
	s := g.GemmSpec
	tail := func(v []float32) device.Buffer { return put(b, v).Slice(g.shift, len(v)) }
	s.A, s.B, s.C = tail(x), tail(y), tail(c)
	if bias {
		s.Bias = put(b, v)
	}
	b.Gemm(&s)
	return get(b, s.C)
}

// rounded is what a kind makes of a number.
func rounded(kind device.Kind, v float32) float64 {
	switch kind {
	case device.BF16:
		return float64(half.FromBFloat16(half.ToBFloat16(v)))
	case device.FP16:
		return float64(half.FromFloat16(half.ToFloat16(v)))
	case tf32:
		return float64(math.Float32frombits((math.Float32bits(v) + 0x1000) &^ 0x1fff))
	}
	return float64(v)
}

// want is the product in float64, of rounded operands, and its largest error in float32.
func (g gemmCase) want(kind device.Kind, seed uint64, bias bool) (want, bound []float64) {
	a, b, v, c := g.operands(seed)
	a, b, c = a[g.shift:], b[g.shift:], c[g.shift:]
	lda, ldb, ldc := g.LDA, g.LDB, g.LDC
	for _, ld := range []struct {
		of     *int
		turned bool
		d, t   int
	}{{&lda, g.TransA, g.K, g.M}, {&ldb, g.TransB, g.N, g.K}, {&ldc, false, g.N, 0}} {
		if *ld.of == 0 {
			if *ld.of = ld.d; ld.turned {
				*ld.of = ld.t
			}
		}
	}
	at := func(m []float32, ld, i, j int, turned bool) float64 {
		if turned {
			i, j = j, i
		}
		return rounded(kind, m[i*ld+j])
	}
	for i := range c {
		want, bound = append(want, float64(c[i])), append(bound, 0)
	}
	for n := range max(g.Batch, 1) {
		for i := range g.M {
			for j := range g.N {
				sum, size := 0.0, 0.0
				for k := range g.K {
					p := at(a[n*g.StrideA:], lda, i, k, g.TransA) * at(b[n*g.StrideB:], ldb, k, j, g.TransB)
					sum, size = sum+p, size+math.Abs(p)
				}
				to := n*g.StrideC + i*ldc + j
				if bias {
					sum += float64(v[j])
				}
				if g.Acc {
					sum += want[to]
				}
				want[to], bound[to] = sum, 1e-6*(size+math.Abs(sum)+4)
			}
		}
	}
	return want, bound
}

// kindsOfSums are those whose sums are of float32, with the options they are computed under.
var kindsOfSums = []struct {
	kind device.Kind // of the product
	as   device.Kind // that operands are rounded to
	Options
}{
	{device.F32, device.F32, Options{}},
	{device.F32, tf32, Options{TF32: true}},
	{device.BF16, device.BF16, Options{}},
	{device.FP16, device.FP16, Options{}},
}

// Every tile of every kind, with operands in both orders, at odd addresses and distances,
// in parts and not, against float64.
func TestGemmOfEveryTile(t *testing.T) {
	long(t)
	sizes := []gemmCase{
		{GemmSpec: device.GemmSpec{M: 131, N: 140, K: 33}},
		{GemmSpec: device.GemmSpec{M: 70, N: 65, K: 300, Acc: true}},
		{GemmSpec: device.GemmSpec{M: 1, N: 132, K: 520}},
		{GemmSpec: device.GemmSpec{M: 13, N: 68, K: 70, LDC: 71}},
		{GemmSpec: device.GemmSpec{M: 130, N: 1, K: 260}},
		{GemmSpec: device.GemmSpec{M: 133, N: 8, K: 64, Batch: 2, Acc: true}},
		{GemmSpec: device.GemmSpec{M: 20, N: 12, K: 270, Batch: 3}},
	}
	for _, kind := range kindsOfSums {
		t.Run(fmt.Sprint(device.Kinds[kind.kind], kind.Options.TF32), func(t *testing.T) {
			b := emulated(t, kind.Options)
			sms := b.limits.sms
			for i, g := range sizes {
				for option := range 8 {
					if kind.as != device.F32 && (i+bits.OnesCount(uint(option)))%2 == 1 {
						continue // which the emulator takes long for
					}
					g := g
					g.Kind, g.TransA, g.TransB = kind.kind, option&1 != 0, option&2 != 0
					if option&4 != 0 {
						g.shift, g.LDA, g.LDB = i%4, max(g.M, g.K)+i, max(g.N, g.K)+3
					}
					b.limits.sms = sms
					if (i+option)%3 == 0 {
						b.limits.sms = 0
					}
					got := g.on(b, uint64(i), i%2 == 0)
					want, bound := g.want(kind.as, uint64(i), i%2 == 0)
					for k, w := range want {
						if d := math.Abs(float64(got[k]) - w); !(d <= bound[k]) {
							t.Fatalf("%+v: element %d is %g, want %g", g, k, got[k], w)
						}
					}
				}
			}
		})
	}
}

// No bit of a row depends on how many rows there are, and so on the tile, nor on whether blocks
// of k are computed apart; and a product is the same as those of its blocks of k one by one.
func TestGemmBits(t *testing.T) {
	long(t)
	const n, k = 70, 2*leastBlock + 40
	for _, kind := range kindsOfSums {
		t.Run(fmt.Sprint(device.Kinds[kind.kind], kind.Options.TF32), func(t *testing.T) {
			b := emulated(t, kind.Options)
			sms := b.limits.sms
			r := rand.New(rand.NewPCG(5, 6))
			x, w, bias := put(b, normal(r, 140*k, 1)), put(b, normal(r, k*n, 1)), put(b, normal(r, n, 1))
			var whole []float32
			for _, m := range []int{140, 1, 4, 5, 16, 17, 70} {
				for _, b.limits.sms = range []int{sms, 0} {
					y := b.Alloc(m * n)
					b.Gemm(&device.GemmSpec{M: m, N: n, K: k, A: x, B: w, TransB: true, Bias: bias, C: y, Kind: kind.kind})
					got := get(b, y)
					if whole == nil {
						whole = got
					}
					sameBits(t, fmt.Sprintf("%d rows, sms=%d", m, b.limits.sms), got, whole[:m*n])
				}
			}
			y := b.Alloc(140 * n)
			for at := 0; at < k; at += leastBlock {
				s := device.GemmSpec{M: 140, N: n, K: min(leastBlock, k-at), A: x.Slice(at, x.N), LDA: k, B: w.Slice(at, w.N), LDB: k, TransB: true, C: y, Acc: at > 0, Kind: kind.kind}
				if at == 0 {
					s.Bias = bias
				}
				b.Gemm(&s)
			}
			sameBits(t, "blocks one by one", get(b, y), whole)
		})
	}
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			t.Fatalf("%s: element %d is %g, want exactly %g", what, i, got[i], w)
		}
	}
}

func TestBlocksOfSums(t *testing.T) {
	long(t)
	for _, c := range [][2]int{{0, 256}, {1, 256}, {8192, 256}, {8193, 512}, {1 << 20, 1 << 15}} {
		if got := blockOf(c[0]); got != c[1] {
			t.Errorf("K=%d has blocks of %d, want %d", c[0], got, c[1])
		}
	}
}

// Products of 8 bits have the CPU's bits.
func TestGemmOfBytes(t *testing.T) {
	long(t)
	b, host := emulated(t, Options{}), cpu.New(simd.Best())
	for i, g := range []gemmCase{
		{GemmSpec: device.GemmSpec{M: 1, N: 70, K: 333, TransB: true}},
		{GemmSpec: device.GemmSpec{M: 130, N: 129, K: 64, TransB: true, Acc: true}},
		{GemmSpec: device.GemmSpec{M: 17, N: 65, K: 65}},
		{GemmSpec: device.GemmSpec{M: 80, N: 3, K: 18, TransA: true}, shift: 1},
		{GemmSpec: device.GemmSpec{M: 9, N: 9, K: 0, Acc: true}},
	} {
		g.Kind = device.INT8
		sameBits(t, fmt.Sprintf("%+v", g), g.on(b, uint64(i), i%2 == 0), g.on(host, uint64(i), i%2 == 0))
	}
	// Rows of zeros, of faint numbers, and with an infinity or a NaN.
	x := []float32{0, 0, 0, 0x1p-120, 0x1p-110, 0, 1, float32(math.Inf(1)), 2, 1, float32(math.NaN()), 2, 3, -1, 2.5}
	w := []float32{1, -3, 2, 0, 0, 0, 0x1p-101, 1e-35, 0}
	run := func(b device.Backend) []float32 {
		y := b.Alloc(15)
		b.Gemm(&device.GemmSpec{M: 5, N: 3, K: 3, A: put(b, x), B: put(b, w), TransB: true, C: y, Kind: device.INT8})
		return get(b, y)
	}
	want := run(host)
	for i, v := range run(b) {
		if v != want[i] && (v == v || want[i] == want[i]) {
			t.Errorf("element %d is %g, want %g", i, v, want[i])
		}
	}
}

// Weights are rounded once for a version, into the same memory for each.
func TestGemmCache(t *testing.T) {
	b := emulated(t, Options{})
	const m, n, k = 3, 20, 40
	r := rand.New(rand.NewPCG(8, 9))
	x, cache := put(b, normal(r, m*k, 1)), &device.Cache{}
	w, other := put(b, normal(r, n*k, 1)), put(b, normal(r, n*k, 1))
	run := func(w device.Buffer, c *device.Cache, version uint64) []float32 {
		y := b.Alloc(m * n)
		b.Gemm(&device.GemmSpec{M: m, N: n, K: k, A: x, B: w, TransB: true, C: y, Kind: device.INT8, Cache: c, Version: version})
		return get(b, y)
	}
	first, second := run(w, nil, 0), run(other, nil, 0)
	sameBits(t, "with a cache", run(w, cache, 1), first)
	addr := cache.Load(1).(*weights).addr
	sameBits(t, "the same version", run(other, cache, 1), first)
	sameBits(t, "the next version", run(other, cache, 2), second)
	if next := cache.Load(2).(*weights).addr; next != addr {
		t.Error("the next version has other memory")
	}
	cache.Store(3, nil)
	runtime.GC() // frees the memory, at some time
	sameBits(t, "after another backend's", run(w, cache, 3), first)
}
