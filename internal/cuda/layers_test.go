//go:build dl && linux

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/simd"
)

func TestLayers(t *testing.T) {
	devicetest.Run(t, emulated(t, Options{}), "Norm", "Softmax", "Embed", "Pool", "WindowPool", "Additive")
}

// rig is a backend with inputs that depend on nothing but the order of the calls.
type rig struct {
	device.Backend
	rnd *rand.Rand
}

func newRig(b device.Backend) *rig { return &rig{b, rand.New(rand.NewPCG(1, 2))} }

func (r *rig) normal(n int) device.Buffer { return r.scaled(n, 1) }

func (r *rig) scaled(n int, sd float64) device.Buffer {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.rnd.NormFloat64() * sd)
	}
	return r.floats(v)
}

func (r *rig) floats(v []float32) device.Buffer {
	m := r.Alloc(len(v))
	r.Upload(m, v)
	return m
}

func (r *rig) ints(n int, next func(i int) int) device.Ints {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(next(i))
	}
	m := r.AllocInts(n)
	r.UploadInts(m, v)
	return m
}

// asCPU compares what a function computes with what it computes on the CPU. The
// difference may be tol times 1 + the magnitude; 0 is the same bits, but for those of NaN.
func asCPU(t *testing.T, b *Backend, tol float64, compute func(r *rig) []device.Buffer) {
	t.Helper()
	on, host := newRig(b), newRig(cpu.New(simd.Best()))
	got, want := compute(on), compute(host)
	for k := range want {
		g, w := make([]float32, got[k].N), want[k].Host
		b.Download(g, got[k])
		for i := range w {
			if math.Float32bits(g[i]) != math.Float32bits(w[i]) && !(g[i] != g[i] && w[i] != w[i]) && !(math.Abs(float64(g[i]-w[i])) <= tol*(1+math.Abs(float64(w[i])))) {
				t.Fatalf("result %d: element %d is %v, and %v on the CPU", k, i, g[i], w[i])
			}
		}
	}
}

func TestEmbedGradIsOneChain(t *testing.T) {
	b := emulated(t, Options{})
	for _, c := range []struct {
		n, v, d int
		padding int32
		next    func(r *rand.Rand, i int) int
	}{
		{3000, 1000, 40, 0, func(r *rand.Rand, i int) int { return int(1000 * math.Pow(r.Float64(), 4)) }}, // some words are frequent
		{5000, 3, 5, -1, func(*rand.Rand, int) int { return 1 }},                                           // more than a block lists
		{1100, 700, 300, -1, func(r *rand.Rand, i int) int { return r.IntN(700) }},                         // two blocks of columns
		{100, 1, 1, -1, func(*rand.Rand, int) int { return 0 }},
		{50, 9, 100, 4, func(_ *rand.Rand, i int) int { return i % 9 }}, // warps that have no columns
	} {
		t.Run(fmt.Sprintf("n=%d V=%d D=%d", c.n, c.v, c.d), func(t *testing.T) {
			asCPU(t, b, 0, func(r *rig) []device.Buffer {
				s := device.EmbedSpec{V: c.v, D: c.d, Padding: c.padding, IDs: r.ints(c.n, func(i int) int { return c.next(r.rnd, i) }),
					DY: r.normal(c.n * c.d), DTable: r.normal(c.v * c.d)}
				r.EmbedGrad(&s)
				return []device.Buffer{s.DTable}
			})
		})
	}
}

func TestEmbedOutsideTheTable(t *testing.T) {
	b := newRig(emulated(t, Options{}))
	s := device.EmbedSpec{Table: b.floats([]float32{1, 2}), V: 2, D: 1, Padding: -1, IDs: b.ints(4, func(i int) int { return i*2 - 2 }), Y: b.Alloc(4),
		DY: b.floats([]float32{1, 1, 1, 1}), DTable: b.Alloc(2)} // ids -2, 0, 2, 4
	b.Embed(&s)
	b.EmbedGrad(&s)
	y, d := make([]float32, 4), make([]float32, 2)
	b.Download(y, s.Y)
	b.Download(d, s.DTable)
	if got := fmt.Sprint(y, d); got != "[NaN 1 NaN NaN] [1 0]" {
		t.Errorf("got %s", got)
	}
}

func TestWideAndLongLayers(t *testing.T) {
	long(t)
	b := emulated(t, Options{})
	for _, log := range []bool{false, true} {
		asCPU(t, b, 2e-6, func(r *rig) []device.Buffer { // a vocabulary
			const rows, cols = 3, 50000
			s := device.SoftmaxSpec{Rows: rows, Cols: cols, X: r.normal(rows * cols), Y: r.normal(rows * cols), Log: log,
				Lens: r.ints(rows, func(i int) int { return []int{cols, 600, 0}[i] }), DY: r.normal(rows * cols), DX: r.normal(rows * cols), AccX: log}
			r.Softmax(&s)
			r.SoftmaxGrad(&s)
			return []device.Buffer{s.Y, s.DX}
		})
	}
	for _, size := range [][2]int{{600, 513}, {70000, 2}} { // a block for each row; more rows than warps at once
		asCPU(t, b, 2e-5, func(r *rig) []device.Buffer {
			rows, cols := size[0], size[1]
			s := device.NormSpec{Rows: rows, Cols: cols, X: r.normal(rows * cols), Y: r.Alloc(rows * cols), Gamma: r.normal(cols), Beta: r.normal(cols), Eps: 1e-2,
				Mean: r.Alloc(rows), RStd: r.Alloc(rows), DY: r.scaled(rows*cols, 1/math.Sqrt(float64(rows))), DX: r.Alloc(rows * cols), DGamma: r.normal(cols), DBeta: r.normal(cols)}
			r.Norm(&s)
			r.NormGrad(&s)
			return []device.Buffer{s.Y, s.Mean, s.RStd, s.DX, s.DGamma, s.DBeta}
		})
	}
	for kind := device.PoolLast; kind <= device.PoolMax; kind++ {
		asCPU(t, b, 1e-6, func(r *rig) []device.Buffer {
			const B, T, F = 3, 300, 70
			x := make([]float32, B*T*F) // many are equal, and some NaN
			for i := range x {
				x[i] = float32(r.rnd.IntN(3))
				if r.rnd.IntN(5*T) == 0 {
					x[i] = float32(math.NaN())
				}
			}
			s := device.PoolSpec{Kind: kind, B: B, T: T, F: F, X: r.floats(x), Y: r.Alloc(B * F), Arg: r.AllocInts(B * F),
				Lens: r.ints(B, func(i int) int { return []int{T, 5, 290}[i] }), DY: r.normal(B * F), DX: r.normal(B * T * F), AccX: true}
			r.Pool(&s)
			r.PoolGrad(&s)
			return []device.Buffer{s.Y, s.DX}
		})
	}
	asCPU(t, b, 2e-5, func(r *rig) []device.Buffer { // more queries than at a time, more steps than warps
		const B, Q, T, U = 3, 9, 21, 70
		s := device.AdditiveSpec{B: B, Q: Q, T: T, U: U, Query: r.normal(B * Q * U), Key: r.normal(B * T * U), V: r.normal(U), Cover: r.normal(B * Q * T), W: r.normal(U),
			Lens: r.ints(B, func(i int) int { return []int{T, 0, 13}[i] }), Score: r.normal(B * Q * T), DScore: r.normal(B * Q * T),
			DQuery: r.normal(B * Q * U), DKey: r.normal(B * T * U), DV: r.normal(U), DCover: r.normal(B * Q * T), DW: r.normal(U)}
		r.Additive(&s)
		r.AdditiveGrad(&s)
		return []device.Buffer{s.Score, s.DQuery, s.DKey, s.DV, s.DCover, s.DW}
	})
}

// No bit of a row depends on the rows beside it.
func TestRowsAlone(t *testing.T) {
	b := newRig(emulated(t, Options{}))
	for _, cols := range []int{33, 700} {
		const rows = 50
		x, y, mean, rstd := b.normal(rows*cols), b.Alloc(rows*cols), b.Alloc(rows), b.Alloc(rows)
		for _, f := range []func(n int, x, y device.Buffer){
			func(n int, x, y device.Buffer) { b.Softmax(&device.SoftmaxSpec{Rows: n, Cols: cols, X: x, Y: y}) },
			func(n int, x, y device.Buffer) {
				b.Norm(&device.NormSpec{Rows: n, Cols: cols, X: x, Y: y, Eps: 1e-5, Mean: mean, RStd: rstd})
			},
		} {
			all, one := make([]float32, rows*cols), make([]float32, cols)
			f(rows, x, y)
			b.Download(all, y)
			last := y.Slice(0, cols)
			f(1, x.Slice((rows-1)*cols, rows*cols), last)
			b.Download(one, last)
			for i, v := range one {
				if w := all[(rows-1)*cols+i]; math.Float32bits(v) != math.Float32bits(w) {
					t.Fatalf("%d columns: element %d is %v alone and %v in a batch", cols, i, v, w)
				}
			}
		}
	}
}
