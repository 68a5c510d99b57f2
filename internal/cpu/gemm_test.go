package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// floatSets is the kernel sets that work on this machine, without those that differ from another
// in products of 16 bits alone.
func floatSets() []*simd.Set {
	return slices.DeleteFunc(slices.Clone(simd.Sets()), func(s *simd.Set) bool { return s.Weights[device.BF16].Blocks != nil })
}

// eachSet runs a test of float32 on every kernel set.
func eachSet(t *testing.T, f func(t *testing.T, b *Backend)) {
	for _, set := range floatSets() {
		t.Run(set.Name, func(t *testing.T) { f(t, New(set)) })
	}
}

// eachKind runs a test on every kernel set for every kind of operands that are floats.
func eachKind(t *testing.T, f func(t *testing.T, b *Backend, kind device.Kind)) {
	for _, set := range simd.Sets() {
		for kind, name := range device.Kinds[:device.INT8] {
			if set.Weights[device.BF16].Blocks == nil || device.Kind(kind) == device.BF16 {
				t.Run(set.Name+"/"+name, func(t *testing.T) { f(t, New(set), device.Kind(kind)) })
			}
		}
	}
}

func randoms(r *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(r.NormFloat64())
	}
	return s
}

// matrixSpan is the number of elements a rows x cols matrix with row stride ld covers.
func matrixSpan(rows, cols, ld int) int {
	if rows == 0 || cols == 0 {
		return 0
	}
	return (rows-1)*ld + cols
}

// gemmCase is a random product; pads widen the row strides.
type gemmCase struct {
	M, N, K                 int
	PadA, PadB, PadC        int
	TransA, TransB          bool
	Acc, Bias               bool
	Batch, GapA, GapB, GapC int
	Kind                    device.Kind
}

// build makes a spec with random operands. C is between guard elements.
func (g gemmCase) build(r *rand.Rand) *device.GemmSpec {
	ra, ca, rb, cb := g.M, g.K, g.K, g.N
	if g.TransA {
		ra, ca = ca, ra
	}
	if g.TransB {
		rb, cb = cb, rb
	}
	s := &device.GemmSpec{
		M: g.M, N: g.N, K: g.K, TransA: g.TransA, TransB: g.TransB, Acc: g.Acc, Batch: g.Batch, Kind: g.Kind,
		LDA: ca + g.PadA, LDB: cb + g.PadB, LDC: g.N + g.PadC,
	}
	spanA, spanB, spanC := matrixSpan(ra, ca, s.LDA), matrixSpan(rb, cb, s.LDB), matrixSpan(g.M, g.N, s.LDC)
	s.StrideA, s.StrideB, s.StrideC = spanA+g.GapA, spanB+g.GapB, spanC+g.GapC
	more := max(g.Batch, 1) - 1
	// Exact lengths: a kernel that reads or writes past an operand's end is caught by the race of a bounds check or a guard.
	s.A = device.HostBuffer(randoms(r, more*s.StrideA+spanA))
	s.B = device.HostBuffer(randoms(r, more*s.StrideB+spanB))
	s.C = device.HostBuffer(randoms(r, more*s.StrideC+spanC))
	if g.Bias {
		s.Bias = device.HostBuffer(randoms(r, g.N))
	}
	return s
}

// naiveGemm is the product in float64, and for each element the sum of magnitudes that bounds its error.
func naiveGemm(s *device.GemmSpec, c []float32) (want, scale []float64) {
	want, scale = make([]float64, len(c)), make([]float64, len(c))
	for i, v := range c {
		want[i] = float64(v)
	}
	rowsOf := func(x []float32, rows, ld int, trans bool) [][]float64 { // of K numbers each
		out := make([][]float64, rows)
		for i := range out {
			out[i] = make([]float64, s.K)
			for k := range out[i] {
				at := i*ld + k
				if trans {
					at = k*ld + i
				}
				out[i][k] = float64(x[at])
			}
		}
		return out
	}
	for n := range max(s.Batch, 1) {
		a, columns := rowsOf(s.A.Host[n*s.StrideA:], s.M, s.LDA, s.TransA), rowsOf(s.B.Host[n*s.StrideB:], s.N, s.LDB, !s.TransB)
		for i := range s.M {
			for j := range s.N {
				e := n*s.StrideC + i*s.LDC + j
				sum := 0.0
				if s.Acc {
					sum = float64(c[e])
				}
				if !s.Bias.Zero() {
					sum += float64(s.Bias.Host[j])
				}
				mag := math.Abs(sum)
				for k, v := range a[i] {
					p := v * columns[j][k]
					sum += p
					mag += math.Abs(p)
				}
				want[e], scale[e] = sum, mag
			}
		}
	}
	return want, scale
}

// checkGemm runs one case and compares every element of C, gaps included.
func checkGemm(t *testing.T, b *Backend, g gemmCase, seed uint64) {
	t.Helper()
	s := g.build(rand.New(rand.NewPCG(seed, 1)))
	round := *s
	round.A, round.B = roundedTo(g.Kind, s.A), roundedTo(g.Kind, s.B)
	want, scale := naiveGemm(&round, s.C.Host)
	b.Gemm(s)
	for i, got := range s.C.Host {
		if d := math.Abs(float64(got) - want[i]); !(d <= 1e-6*scale[i]*math.Sqrt(float64(g.K+1))) {
			t.Fatalf("%+v: C[%d] = %g, want %g", g, i, got, want[i])
		}
	}
}

// roundedTo is a buffer's numbers as a kind has them.
func roundedTo(kind device.Kind, x device.Buffer) device.Buffer {
	out := slices.Clone(x.Host)
	for i, v := range out {
		switch kind {
		case device.BF16:
			out[i] = half.FromBFloat16(half.ToBFloat16(v))
		case device.FP16:
			out[i] = half.FromFloat16(half.ToFloat16(v))
		}
	}
	return device.HostBuffer(out)
}

func TestGemm(t *testing.T) {
	eachKind(t, func(t *testing.T, b *Backend, kind device.Kind) {
		mr, nr, depth := b.set.MR, b.set.NR, panelPart/b.set.NR
		var cases []gemmCase
		for m := range mr + 2 {
			for _, n := range []int{0, 1, 2, nr/2 - 1, nr / 2, nr/2 + 1, nr - 1, nr, nr + 1, 2*nr + 3} {
				for _, k := range []int{0, 1, 2, 3, 4, 5, 7, 8, 33} {
					cases = append(cases, gemmCase{M: m, N: n, K: k}, gemmCase{M: m, N: n, K: k, PadC: 5, TransB: true, Acc: true})
				}
			}
		}
		for _, size := range [][3]int{{1, 1, 1}, {23, 300, 0}, {3, 70, 9}, {29, 67, 41}, {130, 5, 66}, {4*nr + 7, nr / 2, 70}, {5, 230, depth + 1}, {blockSize/depth + 13, nr + 1, depth + 5}, {61, 103, 200}} {
			for bits := range 32 {
				on := func(i int) bool { return bits>>i&1 == 1 }
				g := gemmCase{M: size[0], N: size[1], K: size[2], TransA: on(0), TransB: on(1), Acc: on(2), Bias: on(3)}
				if on(4) {
					g.PadA, g.PadB, g.PadC = 3, 1, 2
				}
				cases = append(cases, g)
			}
		}
		for _, batch := range []int{2, 3, 9} {
			for bits := range 4 {
				g := gemmCase{M: 17, N: 35, K: 12, TransA: bits&1 == 1, TransB: bits&2 == 2, Batch: batch, GapA: 2, GapB: 1, GapC: 3, Bias: bits == 3}
				cases = append(cases, g)
				g.M, g.N, g.K = 100, 90, 80
				cases = append(cases, g)
			}
		}
		for i, g := range cases {
			if g.Kind = kind; kind != device.F32 && i%4 != 0 {
				continue
			}
			checkGemm(t, b, g, uint64(i))
		}
	})
}

func TestGemmDefaultStrides(t *testing.T) {
	eachSet(t, func(t *testing.T, b *Backend) {
		for bits := range 4 {
			g := gemmCase{M: 9, N: 37, K: 11, TransA: bits&1 == 1, TransB: bits&2 == 2}
			s := g.build(rand.New(rand.NewPCG(1, 2)))
			b.Gemm(s)
			want := slices.Clone(s.C.Host)
			s.LDA, s.LDB, s.LDC = 0, 0, 0
			clear(s.C.Host)
			b.Gemm(s)
			if !slices.Equal(want, s.C.Host) {
				t.Fatalf("%+v: strides of 0 are not dense", g)
			}
		}
	})
}

// A row's bits may depend neither on the other rows nor on how the work was split.
func TestGemmSameBits(t *testing.T) {
	defer par.SetWorkers(0)
	eachKind(t, func(t *testing.T, b *Backend, kind device.Kind) {
		for bits := range 16 {
			n := 140
			if bits&8 == 8 {
				n = 5 // computed transposed where there are many rows
			}
			g := gemmCase{M: 150, N: n, K: panelPart/b.set.NR + 17, TransA: bits&1 == 1, TransB: bits&2 == 2, Bias: bits&4 == 4, Kind: kind}
			s := g.build(rand.New(rand.NewPCG(5, 6)))
			par.SetWorkers(1)
			b.Gemm(s)
			want := slices.Clone(s.C.Host)
			for _, workers := range []int{2, 7} {
				par.SetWorkers(workers)
				clear(s.C.Host)
				b.Gemm(s)
				if !slices.Equal(want, s.C.Host) {
					t.Fatalf("%+v: %d workers change bits", g, workers)
				}
			}
			for _, m := range []int{1, 2, 5, 30} { // fewer rows: other tiles, B perhaps not packed
				s.M = m
				clear(s.C.Host)
				b.Gemm(s)
				if !slices.Equal(want[:m*s.LDC], s.C.Host[:m*s.LDC]) {
					t.Fatalf("%+v: %d rows alone differ from the same rows of %d", g, m, g.M)
				}
			}
		}
	})
}

func TestGemmPropagatesNaN(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	eachSet(t, func(t *testing.T, b *Backend) {
		for _, bad := range []float32{nan, inf} {
			s := gemmCase{M: 14, N: 35, K: 6, TransB: true}.build(rand.New(rand.NewPCG(7, 8)))
			clear(s.A.Host) // 0·NaN and 0·Inf are NaN
			s.B.Host[34*s.LDB+5] = bad
			b.Gemm(s)
			for i, v := range s.C.Host {
				if isBad := v != v; isBad != (i%s.N == 34) {
					t.Fatalf("B with %g: C[%d] = %g", bad, i, v)
				}
			}
			s = gemmCase{M: 14, N: 35, K: 6}.build(rand.New(rand.NewPCG(7, 8)))
			clear(s.B.Host)
			s.A.Host[13*s.LDA] = bad
			b.Gemm(s)
			for i, v := range s.C.Host {
				if isBad := v != v; isBad != (i/s.N == 13) {
					t.Fatalf("A with %g: C[%d] = %g", bad, i, v)
				}
			}
		}
	})
}

// A product on packed panels, as the scan engine makes it, gives the very bits of Gemm.
func TestProductOnPanels(t *testing.T) {
	eachKind(t, func(t *testing.T, b *Backend, kind device.Kind) {
		r := rand.New(rand.NewPCG(9, 10))
		var p panels
		for _, trans := range []bool{false, true} {
			for _, size := range [][3]int{{1, 4, 3}, {5, 100, 30}, {20, 67, 257}, {64, 256, 64}, {3, 5, 0}, {0, 5, 3}} {
				m, n, k := size[0], size[1], size[2]
				s := gemmCase{M: m, N: n, K: k, PadA: 1, PadC: 2, TransB: trans, Acc: true, Kind: kind}.build(r)
				got := slices.Clone(s.C.Host)
				p.Weights = b.weights(kind)
				b.pack(&p, s.B.Host, k, n, s.LDB, trans)
				onPanels(b, m, s, &p, got)
				b.Gemm(s)
				if !slices.Equal(got, s.C.Host) {
					t.Fatalf("%v trans=%v: the product differs from Gemm", size, trans)
				}
				s.Acc = false
				onPanels(b, m, s, &p, got)
				b.Gemm(s)
				if !slices.Equal(got, s.C.Host) {
					t.Fatalf("%v trans=%v: the product differs from Gemm when it overwrites", size, trans)
				}
			}
		}
	})
}

func onPanels(b *Backend, m int, s *device.GemmSpec, p *panels, c []float32) {
	if m > 0 {
		x := product{set: b.set, m: m, n: p.n, k: p.k, a: s.A.Host, rs: s.LDA, cs: 1, panels: p, c: c, ldc: s.LDC, acc: s.Acc}
		x.part(0, m, 0, ceilDiv(p.n, b.set.NR))
	}
}

// A product with an addend has the bits of one product after the other, for any
// number of rows; and runs of panels leave the other columns alone.
func TestProductWithAddend(t *testing.T) {
	eachKind(t, func(t *testing.T, b *Backend, kind device.Kind) {
		r := rand.New(rand.NewPCG(19, 20))
		nr := b.set.NR
		for m := 1; m <= 3*b.set.MR; m++ {
			k, k2, n := 1+r.IntN(40), 1+r.IntN(300), 6*nr-3
			if m == 5 {
				k = longRun + 3
			}
			x, h, bias := randoms(r, m*k), randoms(r, m*(k2+1)), randoms(r, n)
			var w1, w2 panels
			w1.Weights = b.weights(kind)
			w2.Weights = w1.Weights
			b.pack(&w1, randoms(r, n*k), k, n, k, true)
			b.pack(&w2, randoms(r, n*k2), k2, n, k2, true)
			first := product{set: b.set, m: m, n: n, k: k, a: x, rs: k, cs: 1, panels: &w1, c: randoms(r, m*n), ldc: n, bias: bias}
			both := first
			both.c = slices.Clone(first.c)
			both.then = addend{k2, h, k2 + 1, &w2}
			first.part(0, m, 0, 6)
			second := product{set: b.set, m: m, n: n, k: k2, a: h, rs: k2 + 1, cs: 1, panels: &w2, c: first.c, ldc: n, acc: true}
			second.part(0, m, 0, 6)
			both.part(0, m, 0, 6)
			if !slices.Equal(both.c, second.c) {
				t.Fatalf("m=%d k=%d then %d: not the bits of two products", m, k, k2)
			}

			some := second
			start := randoms(r, m*n)
			some.c, second.c = slices.Clone(start), slices.Clone(start)
			second.part(0, m, 0, 6)
			some.some = runs{1, 2, 3, m%2 == 0} // panels 1, 2, 4, 5
			some.part(0, m, 0, 4)
			for i, v := range some.c {
				want := second.c[i]
				if p := i % n / nr; p == 0 || p == 3 {
					want = start[i]
				}
				if v != want {
					t.Fatalf("m=%d: panel %d of row %d is %g, want %g", m, i%n/nr, i/n, v, want)
				}
			}
		}
	})
}

// Two products of one A beside each other have the bits of each alone, on any
// number of threads and over several strips of B.
func TestProductsBeside(t *testing.T) {
	defer par.SetWorkers(0)
	eachKind(t, func(t *testing.T, b *Backend, kind device.Kind) {
		r := rand.New(rand.NewPCG(21, 22))
		for _, size := range [][4]int{{300, 40, 33, 50}, {20, 40, 33, 50}, {2, 70, 9, 5}, {64, 32, 100, 7}, {40, 97, 64, 300}, {50, 900, 1400, 260}, {33, 1, 1, 1}} {
			m, n1, n2, k := size[0], size[1], size[2], size[3]
			a, b1, b2 := randoms(r, k*m), randoms(r, k*n1), randoms(r, k*(n2+3))
			first := product{set: b.set, round: kind, m: m, n: n1, k: k, a: a, rs: 1, cs: m, b: b1, ldb: n1, c: randoms(r, m*(n1+1)), ldc: n1 + 1, acc: true}
			second := product{set: b.set, round: kind, m: m, n: n2, k: k, a: a, rs: 1, cs: m, b: b2, ldb: n2 + 3, c: randoms(r, m*n2), ldc: n2, acc: true}
			start1, start2 := slices.Clone(first.c), slices.Clone(second.c)
			par.SetWorkers(1)
			first.compute()
			second.compute()
			for _, workers := range []int{1, 2, 3} {
				par.SetWorkers(workers)
				both := first
				both.c = slices.Clone(start1)
				both.beside = &beside{n: n2, b: b2, ldb: n2 + 3, c: slices.Clone(start2), ldc: n2}
				both.compute()
				if !slices.Equal(both.c, first.c) || !slices.Equal(both.beside.c, second.c) {
					t.Fatalf("%v with %d threads: not the bits of two products", size, workers)
				}
			}
		}
	})
}

func TestSumRows(t *testing.T) {
	defer par.SetWorkers(0)
	eachSet(t, func(t *testing.T, b *Backend) {
		r := rand.New(rand.NewPCG(11, 12))
		for _, size := range [][2]int{{0, 3}, {1, 1}, {7, 5}, {50, 8}, {9, 31}, {9, 32}, {9, 33}, {3*longRun + 5, 67}, {300, 512}} {
			rows, cols := size[0], size[1]
			ld := cols + 3
			src := randoms(r, matrixSpan(rows, cols, ld))
			start := randoms(r, cols)
			for _, acc := range []bool{false, true} {
				want := make([]float32, cols)
				if acc {
					copy(want, start)
				}
				for i := range rows {
					for j := range cols {
						want[j] += src[i*ld+j]
					}
				}
				for _, workers := range []int{1, 2, 7} {
					par.SetWorkers(workers)
					got := slices.Clone(start)
					b.SumRows(device.HostBuffer(got), device.HostBuffer(src), rows, cols, ld, acc)
					if !slices.Equal(got, want) {
						t.Fatalf("rows=%d cols=%d acc=%v workers=%d: sums differ from the plain loop", rows, cols, acc, workers)
					}
				}
			}
		}
	})
}

func TestGemmAllocatesNothing(t *testing.T) {
	eachKind(t, func(t *testing.T, b *Backend, kind device.Kind) {
		r := rand.New(rand.NewPCG(13, 14))
		specs := []*device.GemmSpec{
			gemmCase{M: 64, N: 200, K: 200, TransB: true, Bias: true}.build(r),
			gemmCase{M: 200, N: 64, K: 64, TransA: true, Acc: true}.build(r),
			gemmCase{M: 4, N: 100, K: 50}.build(r),
			gemmCase{M: 200, N: 6, K: 64, TransA: true, Acc: true}.build(r),
			gemmCase{M: 40, N: 40, K: 40, Batch: 8, TransB: true}.build(r),
		}
		for _, s := range specs {
			s.Kind = kind
		}
		sum := device.HostBuffer(make([]float32, 64))
		if n := testing.AllocsPerRun(20, func() {
			for _, s := range specs {
				b.Gemm(s)
			}
			b.SumRows(sum, specs[1].A, 64, 64, 200, false)
		}); n != 0 {
			t.Errorf("%v allocations a run", n)
		}
	})
}

func FuzzGemm(f *testing.F) {
	f.Add(uint8(3), uint8(5), uint16(7), uint16(0), uint64(1))
	f.Add(uint8(64), uint8(33), uint16(200), uint16(0x7f), uint64(2))
	f.Fuzz(func(t *testing.T, m, n uint8, k, bits uint16, seed uint64) {
		on := func(i int) bool { return bits>>i&1 == 1 }
		g := gemmCase{M: int(m), N: int(n), K: int(k % 512), TransA: on(0), TransB: on(1), Acc: on(2), Bias: on(3),
			PadA: int(bits >> 4 & 3), PadB: int(bits >> 6 & 3), PadC: int(bits >> 8 & 3), Kind: device.Kind(seed % uint64(device.INT8))}
		if on(10) {
			g.Batch, g.GapA, g.GapB, g.GapC = 1+int(bits>>11&3), int(bits>>13&1), int(bits>>14&1), int(bits>>15)
		}
		for _, set := range simd.Sets() {
			checkGemm(t, New(set), g, seed)
		}
	})
}

func BenchmarkGemm(b *testing.B) {
	shapes := []gemmCase{
		{M: 1024, N: 1024, K: 1024},
		{M: 1024, N: 1024, K: 1024, TransB: true},
		{M: 1024, N: 512, K: 1024, TransA: true, Acc: true},
		{M: 64, N: 1024, K: 256, TransB: true},
		{M: 16, N: 1024, K: 256},
		{M: 1, N: 1024, K: 256},
	}
	for _, set := range simd.Sets() {
		for _, g := range shapes {
			for _, workers := range []int{1, par.Workers()} {
				name := fmt.Sprintf("set=%s/M=%d/N=%d/K=%d/transA=%v/transB=%v/workers=%d", set.Name, g.M, g.N, g.K, g.TransA, g.TransB, workers)
				b.Run(name, func(b *testing.B) {
					defer par.SetWorkers(0)
					par.SetWorkers(workers)
					s := g.build(rand.New(rand.NewPCG(1, 2)))
					back := New(set)
					b.ReportAllocs()
					for b.Loop() {
						back.Gemm(s)
					}
					b.ReportMetric(2*float64(g.M)*float64(g.N)*float64(g.K)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
				})
			}
		}
	}
}
