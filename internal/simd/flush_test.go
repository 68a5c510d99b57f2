package simd

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/simd/simdtest"
)

// faint is numbers of all magnitudes from MinNormal to 1, so that most products of two are below it.
func faint(r *rand.Rand, x []float32) []float32 {
	for i := range x {
		x[i] = float32(math.Ldexp(1+r.Float64(), -r.IntN(127)))
		if r.IntN(2) == 0 {
			x[i] = -x[i]
		}
		if r.IntN(8) == 0 {
			x[i] = 0
		}
	}
	return x
}

// faintRuns calls every kernel of a set that computes. Each gives what it wrote.
func faintRuns(s *Set) map[string]func() []float32 {
	const rows, h = 3, 37
	r := rand.New(rand.NewPCG(1, 2))
	n := 4 * rows * h
	a, b, c, d, e := faint(r, make([]float32, n)), faint(r, make([]float32, n)), faint(r, make([]float32, n)), faint(r, make([]float32, n)), faint(r, make([]float32, n))
	low := slices.Repeat([]float32{-86}, n) // pre-activations whose logistic function is about MinNormal
	for i := range low {
		low[i] -= 4 * r.Float32()
	}
	gates := func() []float32 { return slices.Clone(low) }
	shut := slices.Clone(a) // gates' values
	for i := range shut {
		shut[i] = min(abs32(shut[i]), 1)
	}
	runs := map[string]func() []float32{}
	for _, k := range elementwise {
		runs[k.name] = func() []float32 {
			dst := slices.Clone(c)
			k.run(s, dst, a, b)
			return dst
		}
	}
	delete(runs, "Exp") // below, on numbers that show it
	delete(runs, "Sigmoid")
	runs["Flush"] = func() []float32 {
		dst := make([]float32, n)
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(i * 50000))
		}
		s.Flush(dst, dst)
		return dst
	}
	runs["Exp of small"] = func() []float32 { dst := make([]float32, n); s.Exp(dst, low); return dst }
	runs["Sigmoid of small"] = func() []float32 { dst := make([]float32, n); s.Sigmoid(dst, low); return dst }
	runs["Axpy faint"] = func() []float32 { dst := slices.Clone(c); s.Axpy(3e-30, dst, a); return dst }
	runs["Shift"] = func() []float32 {
		dst := slices.Clone(c)
		s.Shift(-a[0]*(1+1e-6), dst, slices.Repeat(a[:1], n))
		s.Shift(-3e-38, dst, slices.Repeat([]float32{2.9e-38}, n))
		return dst
	}
	runs["EMA faint"] = func() []float32 { dst := slices.Clone(c); s.EMA(0.9, dst, a); return dst }
	runs["Scale faint"] = func() []float32 { dst := slices.Clone(c); s.Scale(3e-30, dst); return dst }
	runs["sums"] = func() []float32 {
		var out []float32
		for i := range a[:100] {
			x := []float32{a[i], -a[i] * (1 + 1e-6), b[i]}
			out = append(out, s.SumSq(a[i:i+1]), s.Dot(a[i:i+2], b[i:i+2]), s.Sum(x[:2]))
		}
		return out
	}
	runs["LSTM"] = func() []float32 {
		g, out := gates(), [3][]float32{make([]float32, n), make([]float32, n), make([]float32, n)}
		s.LSTM(&CellArgs{Rows: rows, H: h, Units: h, Gates: &g[0], CPrev: &a[0], C: &out[0][0], Hid: &out[1][0], Out: &out[2][0], LDOut: h})
		return slices.Concat(g, out[0], out[1], out[2])
	}
	runs["LSTMGrad"] = func() []float32 {
		g, dc := slices.Clone(shut), slices.Clone(d)
		s.LSTMGrad(&CellArgs{Rows: rows, H: h, Units: h, Gates: &g[0], CPrev: &a[0], C: &b[0], DHid: &c[0], DC: &dc[0]})
		return slices.Concat(g, dc)
	}
	runs["GRU"] = func() []float32 {
		g, out := gates(), [2][]float32{make([]float32, n), make([]float32, n)}
		s.GRU(&CellArgs{Rows: rows, H: h, Units: h, Gates: &g[0], Side: &a[0], HPrev: &b[0], Hid: &out[0][0], Out: &out[1][0], LDOut: h})
		return slices.Concat(g, out[0], out[1])
	}
	runs["GRUGrad"] = func() []float32 {
		g, side, dh := slices.Clone(shut), slices.Clone(a), slices.Clone(c)
		s.GRUGrad(&CellArgs{Rows: rows, H: h, Units: h, Gates: &g[0], Side: &side[0], HPrev: &b[0], DHid: &dh[0]})
		return slices.Concat(g, side, dh)
	}
	runs["Adam"] = func() []float32 {
		w, g, m, v := slices.Clone(a), slices.Clone(b), slices.Clone(c), slices.Clone(d)
		for i := range v {
			v[i] = abs32(v[i])
		}
		for range 3 {
			s.Adam(adamExample(w, g, m, v))
			copy(g, e)
		}
		return slices.Concat(w, m, v)
	}
	runs["GemmTiles"] = func() []float32 {
		var out []float32
		for m := 1; m <= s.MR; m++ {
			for _, cols := range []int{s.NR, s.NR - 3, Abreast(m) * s.NR} {
				for _, k := range []int{1, 2, 3} {
					c := make([]float32, m*cols)
					t := oneTile{Tile{M: m, N: cols, CS: 1, A: &a[0], B: &b[0], C: &c[0]}, Tiles{K: k, RS: k, LDB: cols, Pitch: s.NR, LDC: cols}}
					t.run(s)
					out = append(out, c...)
				}
			}
		}
		return out
	}
	runs["Bytes"] = func() []float32 {
		const m, k = 2, 5
		f := byteForm{s.NR, s.Weights[3]}
		args := ByteArgs{A: make([]int8, m*ByteDepth(k)), ScaleA: make([]float32, m), K: k, LDC: s.NR, M: m, N: s.NR}
		var out []float32
		for i := range n/(m*k) - 1 {
			x, w := slices.Clone(a[i*m*k:][:m*k]), slices.Clone(b[:k*s.NR])
			for j := range x {
				x[j] *= 1 + 1e9*float32(i*j%2) // so that others of the row are small beside the greatest
				x[j] = Narrow(float64(x[j]) * 1e-12)
			}
			for j := range w {
				w[j] = Narrow(float64(w[j]) * 1e-12)
			}
			f.Products.Rows(args.A, args.ScaleA, x, m, k, k, 1)
			args.B, args.ScaleB, args.Pitch = encodePanels(nil, f, w, s.NR, k)
			args.C = make([]float32, m*s.NR)
			f.Products.Run(&args)
			args.From, args.LDFrom = slices.Clone(args.C), s.NR // and the difference of two sums
			for j := range args.From {
				args.From[j] = Narrow(float64(args.From[j]) * -(1 + 1e-6))
			}
			out = append(out, args.C...)
			f.Products.Run(&args)
			out = append(out, args.C...)
			args.From = nil
		}
		return out
	}
	return runs
}

// No kernel writes a subnormal number, and none leaves the processor changed for Go.
func TestKernelsFlush(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		for name, run := range faintRuns(s) {
			flushed := false
			for i, v := range run() {
				if v != 0 && abs32(v) < MinNormal {
					t.Fatalf("%s: element %d is %g", name, i, v)
				}
				flushed = flushed || v == 0
			}
			if !flushed {
				t.Errorf("%s: nothing came low enough for this test to show anything", name)
			}
			x := float32(1e-20)
			if y := x * x; y == 0 {
				t.Fatalf("%s: Go code is left with flush to zero", name)
			}
		}
	})
}

// The assembly takes subnormal operands for zeros, so that one that slipped in costs nothing.
func TestSubnormalOperands(t *testing.T) {
	for _, s := range Sets() {
		if s == &generic {
			continue
		}
		x, y := slices.Repeat([]float32{1e-39}, 50), slices.Repeat([]float32{1e30}, 50)
		s.Mul(x, x, y)
		if sum := s.Sum(x); sum != 0 {
			t.Errorf("%s: 50 times 1e-39*1e30 is %g", s.Name, sum)
		}
		x, c := slices.Repeat([]float32{1e-39}, 50), make([]float32, s.NR)
		tile := oneTile{Tile{M: 1, N: s.NR, CS: 1, A: &x[0], B: &y[0], C: &c[0]}, Tiles{K: 1, LDC: s.NR}}
		if tile.run(s); c[0] != 0 {
			t.Errorf("%s: the product of 1e-39 and 1e30 is %g", s.Name, c[0])
		}
	}
}

// The portable kernels meet no subnormal number on their way either, but in
// products below 2^-222.
func TestGenericMeetsNoSubnormals(t *testing.T) {
	for name, run := range faintRuns(&generic) {
		if name == "GemmTiles" {
			continue
		}
		if read, made := simdtest.Subnormals(t, func() { run() }); read || made {
			t.Errorf("%s: read %v, made %v", name, read, made)
		}
	}
	k, m := 64, generic.MR
	a, b, c := make([]float32, m*k), make([]float32, k*generic.NR), make([]float32, m*generic.NR)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range a {
		a[i] = float32(math.Ldexp(r.NormFloat64(), -90-r.IntN(30)))
	}
	for i := range b {
		b[i] = float32(math.Ldexp(1+r.Float64(), -r.IntN(90)))
	}
	tile := oneTile{Tile{M: m, N: generic.NR, CS: 1, A: &a[0], B: &b[0], C: &c[0]}, Tiles{K: k, RS: k, LDB: generic.NR, LDC: generic.NR}}
	if read, made := simdtest.Subnormals(t, func() { tile.run(&generic) }); read || made {
		t.Errorf("GemmTiles: read %v, made %v", read, made)
	}
}

// A sum that has no room above its value is what it would be without.
func TestGenericLargeSums(t *testing.T) {
	for _, big := range []float32{1e9, 1e12, 1e30, float32(math.Inf(1))} {
		a, b, c := []float32{big, 3, -1}, slices.Repeat([]float32{1.5}, 24), make([]float32, 8)
		tile := oneTile{Tile{M: 1, N: 8, CS: 1, A: &a[0], B: &b[0], C: &c[0]}, Tiles{K: 3, RS: 3, LDB: 8, LDC: 8}}
		tile.run(&generic)
		want := float32(big*1.5) + float32(4.5) - float32(1.5)
		for _, v := range c {
			if v != want {
				t.Errorf("%g gives %g, want %g", big, v, want)
			}
		}
	}
}

// What stands in a column beside such a sum changes nothing, and a small sum that
// was large on the way is not subnormal either.
func TestGenericColumnsBesideLargeSums(t *testing.T) {
	a, b, c := []float32{1e-19, 3e15, -3e15}, make([]float32, 24), make([]float32, 8)
	b[1], b[2] = 1e-20, 5e-19
	alone := oneTile{Tile{M: 1, N: 8, CS: 1, A: &a[0], B: &b[0], C: &c[0]}, Tiles{K: 3, RS: 3, LDB: 8, LDC: 8}}
	alone.run(&generic)
	want := slices.Clone(c)
	for k := range 3 {
		b[8*k] = 1e10 // a sum that comes and goes
	}
	a = []float32{3e15, -3e15, 1e-19}
	b[2*8+1], b[2*8+2], b[1], b[2] = b[1], b[2], 0, 0
	b[2*8] = 1e-20
	beside := oneTile{Tile{M: 1, N: 8, CS: 1, A: &a[0], B: &b[0], C: &c[0]}, Tiles{K: 3, RS: 3, LDB: 8, LDC: 8}}
	beside.run(&generic)
	if want[0] = 0; !slices.Equal(c, want) {
		t.Errorf("got %g, want %g", c, want)
	}
}
