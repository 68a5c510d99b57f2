package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

// product is the definition of GemmSpec in float64.
func product(g *device.GemmSpec, a, b, bias []float32, c []float64) {
	lda, ldb, ldc := g.LDA, g.LDB, g.LDC
	if lda == 0 {
		if lda = g.K; g.TransA {
			lda = g.M
		}
	}
	if ldb == 0 {
		if ldb = g.N; g.TransB {
			ldb = g.K
		}
	}
	if ldc == 0 {
		ldc = g.N
	}
	for n := range max(g.Batch, 1) {
		a, b, c := a[n*g.StrideA:], b[n*g.StrideB:], c[n*g.StrideC:]
		for i := range g.M {
			for j := range g.N {
				var sum float64
				for k := range g.K {
					x, y := i*lda+k, k*ldb+j
					if g.TransA {
						x = k*lda + i
					}
					if g.TransB {
						y = j*ldb + k
					}
					sum += float64(a[x]) * float64(b[y])
				}
				if bias != nil {
					sum += float64(bias[j])
				}
				if g.Acc {
					sum += c[i*ldc+j]
				}
				c[i*ldc+j] = sum
			}
		}
	}
}

func (s *suite) gemm() {
	sizes := [][3]int{{0, 4, 4}, {4, 0, 4}, {4, 4, 0}, {1, 1, 1}, {1, 70, 3}, {5, 1, 33}, {7, 17, 9}, {33, 65, 130}, {70, 40, 260}}
	for _, size := range sizes {
		for option := range 64 {
			if option%7 > 1 && size[0]*size[1] > 500 {
				continue // the large sizes take a part of the combinations
			}
			g := device.GemmSpec{M: size[0], N: size[1], K: size[2], TransA: option&1 != 0, TransB: option&2 != 0, Acc: option&4 != 0}
			name := fmt.Sprintf("M=%d N=%d K=%d option=%d", g.M, g.N, g.K, option)
			if option&8 != 0 { // rows apart
				g.LDA, g.LDB, g.LDC = max(g.M, g.K)+3, max(g.N, g.K)+1, g.N+5
			}
			if option&32 != 0 {
				g.Batch = 3
			}
			side := max(g.M, g.N, g.K) + 5
			g.StrideA, g.StrideB, g.StrideC = side*side, side*side, side*side
			if g.Batch > 0 && option&8 != 0 {
				g.StrideB = 0 // one B for the batch
			}
			total := side * side * max(g.Batch, 1)
			a, b, c := s.normal(total), s.normal(total), s.normal(total)
			var bias []float32
			if option&16 != 0 {
				bias = s.normal(g.N)
				g.Bias = s.put(bias)
			}
			g.A, g.B, g.C = s.put(a), s.put(b), s.put(c)
			s.b.Gemm(&g)
			want := wide(c)
			product(&g, a, b, bias, want)
			s.near(name, s.get(g.C), want, 1e-5*math.Sqrt(float64(g.K+1)))
		}
	}
	s.sub("rows do not see each other", (*suite).gemmRows)
	s.sub("NaN meets zero", (*suite).gemmNaN)
}

func (s *suite) gemmRows() {
	const m, n, k = 37, 41, 300
	a, b := s.normal(m*k), s.put(s.normal(n*k))
	all := device.GemmSpec{M: m, N: n, K: k, A: s.put(a), B: b, TransB: true, C: s.b.Alloc(m * n)}
	s.b.Gemm(&all)
	whole := s.get(all.C)
	for i := range m {
		one := device.GemmSpec{M: 1, N: n, K: k, A: s.put(a[i*k : (i+1)*k]), B: b, TransB: true, C: s.b.Alloc(n)}
		s.b.Gemm(&one)
		s.same(fmt.Sprintf("row %d", i), s.get(one.C), whole[i*n:(i+1)*n])
	}
}

func (s *suite) gemmNaN() {
	nan := float32(math.NaN())
	a, b := make([]float32, 4*5), s.normal(5*6)
	b[2*6+3] = nan
	g := device.GemmSpec{M: 4, N: 6, K: 5, A: s.put(a), B: s.put(b), C: s.b.Alloc(24)}
	s.b.Gemm(&g)
	for i, v := range s.get(g.C) {
		if (v != v) != (i%6 == 3) {
			s.Fatalf("element %d of 0·B with a NaN in column 3 is %v", i, v)
		}
	}
}

func (s *suite) sumRows() {
	for _, size := range [][2]int{{0, 3}, {1, 1}, {3, 70}, {500, 9}, {5000, 33}} {
		rows, cols := size[0], size[1]
		ld := cols + 2
		x := s.normal(rows*ld + 1)
		for _, acc := range []bool{false, true} {
			y := s.normal(cols)
			want := make([]float64, cols)
			for j := range want {
				if acc {
					want[j] = float64(y[j])
				}
				for i := range rows {
					want[j] += float64(x[i*ld+j])
				}
			}
			dst := s.put(y)
			s.b.SumRows(dst, s.put(x), rows, cols, ld, acc)
			s.near(fmt.Sprintf("%dx%d acc=%v", rows, cols, acc), s.get(dst), want, 1e-4)
		}
	}
}
