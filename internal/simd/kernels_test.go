package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// special are values that trip careless kernels. None is subnormal: the sets may
// differ in what they take such an operand for.
var special = []float32{
	0, float32(math.Copysign(0, -1)), 1, -1, 0.5, -0.5, 1.2e-38, -1.2e-38, 1e-30, 88.7, -87.4, 89, -103.9, -104.5, 1e30, -1e30,
	math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
}

const lengths = 130 // every length up to this one is tried

func eachSet(t *testing.T, f func(t *testing.T, s *Set)) {
	for _, s := range Sets() {
		t.Run(s.Name, func(t *testing.T) { f(t, s) })
	}
}

func normals(r *rand.Rand, x []float32) []float32 {
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// mixed fills x with ordinary numbers and, here and there, special ones.
func mixed(r *rand.Rand, x []float32) []float32 {
	for i := range normals(r, x) {
		x[i] *= 3
		if r.IntN(4) == 0 {
			x[i] = special[r.IntN(len(special))]
		}
	}
	return x
}

// near reports whether a and b agree to a relative error, with a floor for
// small values; NaN agrees with NaN and an infinity with itself.
func near(a, b, rel, floor float64) bool {
	if a == b || a != a && b != b {
		return true
	}
	return math.Abs(a-b) <= rel*max(math.Abs(a), math.Abs(b))+floor
}

// elementwise runs every kernel that works element by element, on dst and two sources.
var elementwise = []struct {
	name string
	rel  float64 // allowed difference between sets
	run  func(s *Set, dst, a, b []float32)
}{
	// Those up to Div may have dst as a source.
	{"Exp", 4e-7, func(s *Set, dst, a, _ []float32) { s.Exp(dst, a) }},
	{"Sigmoid", 6e-7, func(s *Set, dst, a, _ []float32) { s.Sigmoid(dst, a) }},
	{"Tanh", 6e-7, func(s *Set, dst, a, _ []float32) { s.Tanh(dst, a) }},
	{"Add", 0, func(s *Set, dst, a, b []float32) { s.Add(dst, a, b) }},
	{"Sub", 0, func(s *Set, dst, a, b []float32) { s.Sub(dst, a, b) }},
	{"Mul", 0, func(s *Set, dst, a, b []float32) { s.Mul(dst, a, b) }},
	{"Div", 1e-9, func(s *Set, dst, a, b []float32) { s.Div(dst, a, b) }},
	{"Max", 0, func(s *Set, dst, a, b []float32) { s.Max(dst, a, b) }},
	{"MulAdd", 0, func(s *Set, dst, a, b []float32) { s.MulAdd(dst, a, b) }},
	{"SigmoidGrad", 4e-7, func(s *Set, dst, a, _ []float32) { s.SigmoidGrad(dst, a) }},
	{"TanhGrad", 4e-7, func(s *Set, dst, a, _ []float32) { s.TanhGrad(dst, a) }},
	{"Lerp", 0, func(s *Set, dst, a, b []float32) { s.Lerp(dst, a, b, dst) }},
	{"Axpy", 0, func(s *Set, dst, a, _ []float32) { s.Axpy(-1.25, dst, a) }},
	{"EMA", 0, func(s *Set, dst, a, _ []float32) { s.EMA(0.002, dst, a) }},
	{"Flush", 0, func(s *Set, dst, a, _ []float32) { s.Flush(dst, a) }},
	{"Shift", 0, func(s *Set, dst, a, _ []float32) { s.Shift(-1.25, dst, a) }},
	{"Scale", 0, func(s *Set, dst, _, _ []float32) { s.Scale(0.3, dst) }},
}

// Each kernel agrees with the reference, touches nothing past the end, and
// gives an element the same bits whatever the length and the alignment.
func TestElementwise(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		for _, k := range elementwise {
			t.Run(k.name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, 2))
				a, b, start := mixed(r, make([]float32, lengths)), mixed(r, make([]float32, lengths)), mixed(r, make([]float32, lengths))
				// Fused and separate rounding differ by an ulp of the product.
				want, size := slices.Clone(start), slices.Clone(start)
				k.run(&generic, want, a, b)
				all := slices.Clone(start)
				k.run(s, all, a, b)
				for i := range size {
					size[i] = float32(math.Abs(float64(start[i])) + math.Abs(1.25*float64(a[i])) + math.Abs(float64(a[i])*float64(b[i])) +
						math.Abs(float64(start[i]))*(math.Abs(float64(a[i]))*(1+math.Abs(float64(start[i])))+math.Abs(float64(b[i]))))
					floor := 2e-45
					if k.rel == 0 && !math.IsInf(float64(size[i]), 0) {
						floor += 1.2e-7 * float64(size[i])
					}
					if !near(float64(all[i]), float64(want[i]), k.rel, floor) {
						t.Fatalf("a=%g b=%g dst=%g: %g, the reference gives %g", a[i], b[i], start[i], all[i], want[i])
					}
				}
				dst, x, y := edge(t, lengths), edge(t, lengths), edge(t, lengths)
				for n := range lengths + 1 {
					d := dst[lengths-n:]
					copy(d, start)
					k.run(s, d, x[lengths-n:][:copy(x[lengths-n:], a)], y[lengths-n:][:copy(y[lengths-n:], b)])
					if !sameBits(d, all[:n]) {
						t.Fatalf("length %d: an element's bits depend on the length or the alignment", n)
					}
				}
				for off := range 16 {
					n := 40 + off
					buf := slices.Repeat([]float32{7}, n+off+20)
					copy(buf[off:], start[:n])
					k.run(s, buf[off:][:n], a[:n], b[:n])
					if !sameBits(buf[off:][:n], all[:n]) {
						t.Fatalf("offset %d: bits differ", off)
					}
					for _, v := range append(buf[:off:off], buf[off+n:]...) {
						if v != 7 {
							t.Fatalf("offset %d: written outside", off)
						}
					}
				}
			})
		}
	})
}

// sameBits compares bit patterns, but takes all NaNs as one.
func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool {
		return math.Float32bits(x) == math.Float32bits(y) || x != x && y != y
	})
}

func TestInPlace(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		for _, k := range elementwise[:7] {
			a := mixed(rand.New(rand.NewPCG(3, 4)), make([]float32, 77))
			want := slices.Clone(a)
			k.run(s, want, a, a)
			got := slices.Clone(a)
			k.run(s, got, got, got)
			if !sameBits(got, want) {
				t.Errorf("%s: differs when dst is the source", k.name)
			}
		}
	})
}

// Long slices are cut into calls; the cuts must not show.
func TestLongSlices(t *testing.T) {
	const n = 1<<16 + 5
	r := rand.New(rand.NewPCG(5, 6))
	a, b := normals(r, make([]float32, n)), normals(r, make([]float32, n))
	eachSet(t, func(t *testing.T, s *Set) {
		for _, k := range elementwise {
			got, want := slices.Clone(b), slices.Clone(b)
			k.run(s, got, a, b)
			for lo := 0; lo < n; lo += 1000 {
				hi := min(n, lo+1000)
				k.run(s, want[lo:hi], a[lo:hi], b[lo:hi])
			}
			if !sameBits(got, want) {
				t.Errorf("%s: a long slice differs from its pieces", k.name)
			}
		}
		for name, sums := range map[string][2]float64{
			"Sum":   {float64(s.Sum(a)), exactDot(a, nil)},
			"SumSq": {float64(s.SumSq(a)), exactDot(a, a)},
			"Dot":   {float64(s.Dot(a, b)), exactDot(a, b)},
		} {
			if !near(sums[0], sums[1], 2e-6, 2e-2) {
				t.Errorf("%s is %g, want %g", name, sums[0], sums[1])
			}
		}
		w, g, m, v := slices.Clone(a), slices.Clone(b), make([]float32, n), make([]float32, n)
		args := adamExample(w, g, m, v)
		s.Adam(args)
		w2, g2, m2, v2 := slices.Clone(a), slices.Clone(b), make([]float32, n), make([]float32, n)
		for lo := 0; lo < n; lo += 1000 {
			hi := min(n, lo+1000)
			s.Adam(adamExample(w2[lo:hi], g2[lo:hi], m2[lo:hi], v2[lo:hi]))
		}
		if !sameBits(w, w2) || !sameBits(m, m2) || !sameBits(v, v2) || !sameBits(g, g2) {
			t.Error("Adam: a long slice differs from its pieces")
		}
	})
}

// exactDot is the dot product in float64; a nil y is ones.
func exactDot(x, y []float32) (sum float64) {
	for i, v := range x {
		p := float64(v)
		if y != nil {
			p *= float64(y[i])
		}
		sum += p
	}
	return sum
}

func TestReductions(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		r := rand.New(rand.NewPCG(7, 8))
		x, y := normals(r, edge(t, lengths)), normals(r, edge(t, lengths))
		for n := range lengths + 1 {
			a, b := x[lengths-n:], y[lengths-n:]
			for name, sums := range map[string][2]float64{
				"Sum":   {float64(s.Sum(a)), exactDot(a, nil)},
				"SumSq": {float64(s.SumSq(a)), exactDot(a, a)},
				"Dot":   {float64(s.Dot(a, b)), exactDot(a, b)},
			} {
				if !near(sums[0], sums[1], 1e-6, 1e-5) {
					t.Fatalf("%s of %d elements is %g, want %g", name, n, sums[0], sums[1])
				}
			}
			// The order of the sum depends on the length alone.
			moved := slices.Insert(slices.Clone(a), 0, 9)[1:]
			if s.Sum(moved) != s.Sum(a) || s.Dot(moved, b) != s.Dot(a, b) {
				t.Fatalf("length %d: a sum depends on the alignment", n)
			}
			for i := range n {
				old := a[i]
				a[i] = float32(math.NaN())
				if v := s.Sum(a); v == v {
					t.Fatalf("length %d: Sum loses the NaN at %d", n, i)
				}
				if v := s.Dot(a, b); v == v {
					t.Fatalf("length %d: Dot loses the NaN at %d", n, i)
				}
				a[i] = old
			}
		}
	})
}

// The assembly sets fuse alike and fold alike, so they agree to the bit.
func TestAssemblySetsAgree(t *testing.T) {
	all := Sets()
	if len(all) < 3 {
		t.Skip("needs two assembly sets")
	}
	p, q := all[0], all[len(all)-2]
	r := rand.New(rand.NewPCG(9, 10))
	a, b := make([]float32, 5003), make([]float32, 5003)
	for i := range a {
		a[i], b[i] = math.Float32frombits(r.Uint32()), float32(r.NormFloat64())
	}
	for _, k := range elementwise {
		x, y := slices.Clone(b), slices.Clone(b)
		k.run(p, x, a, b)
		k.run(q, y, a, b)
		if !sameBits(x, y) {
			t.Errorf("%s: %s and %s differ", k.name, p.Name, q.Name)
		}
	}
	for n := range 300 {
		if x, y := b[:n], b[n:2*n]; p.Sum(x) != q.Sum(x) || p.SumSq(x) != q.SumSq(x) || p.Dot(x, y) != q.Dot(x, y) {
			t.Fatalf("sums of %d elements differ", n)
		}
	}
}

// A moving average has the same bits in all sets, also where it overflows, or rounds to
// MinNormal from below; and it follows numbers that float32 would lose.
func TestEMASameBits(t *testing.T) {
	const n = 1 << 16
	r := rand.New(rand.NewPCG(13, 14))
	dst, src := mixed(r, make([]float32, n)), mixed(r, make([]float32, n))
	for i := range n / 2 { // any numbers, and averages of about MinNormal
		dst[i], src[i] = Flush(math.Float32frombits(r.Uint32())), Flush(math.Float32frombits(r.Uint32()))
		if i%2 == 0 {
			dst[i], src[i] = MinNormal*(1+r.Float32()*0x1p-10), Flush(float32(r.NormFloat64()*0x1p-126))
		}
	}
	dst[0], src[0], dst[1], src[1] = MinNormal, 0, -MinNormal, 0
	lifted := false
	for _, alpha := range []float32{0, 1, 0.002, 0x1p-12, 0x1p-26, 0.1, -3} {
		want := slices.Clone(dst)
		for i, v := range want {
			x := float64(v) + float64(float64(alpha)*(float64(src[i])-float64(v)))
			if want[i] = float32(x); math.Abs(x) < 0x1p-126 {
				lifted = lifted || want[i] == MinNormal
				want[i] = float32(math.Copysign(0, x))
			}
		}
		eachSet(t, func(t *testing.T, s *Set) {
			got := slices.Clone(dst)
			s.EMA(alpha, got, src)
			for i := range got {
				if !sameBits(got[i:i+1], want[i:i+1]) {
					t.Fatalf("%g + %g*(%g-%g) is %g, want %g", dst[i], alpha, src[i], dst[i], got[i], want[i])
				}
			}
		})
	}
	if !lifted {
		t.Error("no average rounds to MinNormal from below")
	}
}

func adamExample(w, g, m, v []float32) *AdamArgs {
	a := &AdamArgs{
		N: len(w), GScale: 0.5, L2: 0.01, Keep: 0.999, OneMinusBeta1: 0.1, Beta2: 0.999, OneMinusBeta2: 0.001,
		StepSize: 0.01, SqrtBias2: 0.05, Eps: 1e-8,
	}
	if len(w) > 0 {
		a.W, a.G, a.M, a.V = &w[0], &g[0], &m[0], &v[0]
	}
	return a
}

func TestAdam(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		r := rand.New(rand.NewPCG(11, 12))
		w, g, m, v := edge(t, lengths), edge(t, lengths), edge(t, lengths), edge(t, lengths)
		for n := range lengths + 1 {
			w, g, m, v := w[lengths-n:], g[lengths-n:], m[lengths-n:], v[lengths-n:]
			normals(r, w)
			normals(r, g)
			normals(r, m)
			for i := range normals(r, v) {
				v[i] *= v[i]
			}
			a := adamExample(w, g, m, v)
			want := make([][3]float64, n)
			for i := range want {
				grad := float64(a.GScale)*float64(g[i]) + float64(a.L2)*float64(w[i])
				mean := float64(m[i]) + float64(a.OneMinusBeta1)*(grad-float64(m[i]))
				square := float64(a.Beta2)*float64(v[i]) + float64(a.OneMinusBeta2)*grad*grad
				weight := float64(a.Keep)*float64(w[i]) - float64(a.StepSize)*mean/(math.Sqrt(square)/float64(a.SqrtBias2)+float64(a.Eps))
				want[i] = [3]float64{weight, mean, square}
			}
			s.Adam(a)
			for i := range want {
				if !near(float64(w[i]), want[i][0], 2e-6, 1e-7) || !near(float64(m[i]), want[i][1], 1e-6, 1e-7) ||
					!near(float64(v[i]), want[i][2], 1e-6, 1e-9) || g[i] != 0 {
					t.Fatalf("length %d: element %d is w=%g m=%g v=%g g=%g, want %g and a cleared gradient", n, i, w[i], m[i], v[i], g[i], want[i])
				}
			}
		}
	})
}

func TestPackT(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		r := rand.New(rand.NewPCG(13, 14))
		for _, depth := range []int{0, 1, 3, 7, 8, 9, 15, 16, 17, 33, 64, 100} {
			for cols := 1; cols <= 33; cols++ {
				for gap := range 3 {
					ld, stride := depth+2*gap, cols+gap
					src := normals(r, edge(t, max(0, (cols-1)*ld+depth)))
					dst := edge(t, depth*stride)
					for i := range dst {
						dst[i] = 5
					}
					s.PackT(dst, src, depth, cols, ld, stride)
					for i, got := range dst {
						k, j := i/stride, i%stride
						want := float32(0)
						if j < cols {
							want = src[j*ld+k]
						}
						if got != want {
							t.Fatalf("depth=%d cols=%d ld=%d stride=%d: dst[%d][%d] = %g, want %g", depth, cols, ld, stride, k, j, got, want)
						}
					}
				}
			}
		}
	})
}

// oneTile is a call with one tile.
type oneTile struct {
	Tile
	Tiles
}

func (t *oneTile) run(s *Set) {
	t.First, t.Count = &t.Tile, 1
	s.Weights[0].Tiles(&t.Tiles)
}

// Tiles of every shape agree with float64, read and write only what they may,
// and give one row the same bits in tiles of any height.
func TestGemmTile(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		r := rand.New(rand.NewPCG(15, 16))
		for _, k := range []int{0, 1, 2, 3, 4, 5, 8, 11, 70} {
			a := normals(r, edge(t, s.MR*k))
			b := normals(r, edge(t, k*(s.NR+2)))
			from := normals(r, edge(t, s.MR*s.NR))
			for m := 1; m <= s.MR; m++ {
				for n := 1; n <= s.NR; n++ {
					for mode := range 4 {
						tile := oneTile{Tile{M: m, N: n, CS: 1}, Tiles{K: k, RS: k, LDB: s.NR + 2, LDC: n + 1, LDFrom: n}}
						if mode&1 == 1 { // transposed
							tile.RS, tile.CS = 1, m
						}
						a, b, from := a[(s.MR-m)*k:], b[min(2, len(b)):], from[len(from)-m*n:]
						c := edgeGuarded(t, s, m, n)
						if k > 0 {
							tile.A, tile.B = &a[0], &b[0]
						}
						tile.C = &c[0]
						if mode&2 == 2 {
							tile.From = &from[0]
						}
						tile.run(s)
						checkTile(t, &tile, a, b, from, c)
					}
				}
			}
		}
	})
}

// A second product in the same call continues the chains of the first, bit for bit.
func TestGemmTileGoesOn(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		r := rand.New(rand.NewPCG(19, 20))
		for m := 1; m <= s.MR; m++ {
			for _, depth := range [][2]int{{0, 3}, {1, 1}, {5, 4}, {8, 70}, {70, 8}} {
				k, k2 := depth[0], depth[1]
				n := 1 + r.IntN(s.NR)
				a, b := normals(r, edge(t, m*k)), normals(r, edge(t, k*s.NR))
				a2, b2 := normals(r, edge(t, m*(k2+3)-3)), normals(r, edge(t, k2*s.NR))
				got, want := make([]float32, m*n), make([]float32, m*n)
				tile := oneTile{Tile{M: m, N: n, CS: 1, C: &want[0]}, Tiles{K: k, RS: k, LDB: s.NR, LDC: n}}
				if k > 0 {
					tile.A, tile.B = &a[0], &b[0]
				}
				tile.run(s)
				next := tile
				next.A, next.RS, next.B, next.K, next.From, next.LDFrom = &a2[0], k2+3, &b2[0], k2, &want[0], n
				next.run(s)
				tile.C = &got[0]
				tile.A2, tile.RS2, tile.B2, tile.K2 = &a2[0], k2+3, &b2[0], k2
				tile.run(s)
				if !sameBits(got, want) {
					t.Fatalf("m=%d n=%d k=%d then %d: %v, want %v", m, n, k, k2, got, want)
				}
			}
		}
	})
}

// Elements of A in places that a table lists give the bits of the same elements side by side.
func TestGemmTilePlaces(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		r := rand.New(rand.NewPCG(21, 22))
		for m := 1; m <= s.MR; m++ {
			for _, n := range []int{1 + r.IntN(s.NR), s.NR, s.NR * Abreast(m)} {
				for _, k := range []int{0, 1, 2, 5, 40} {
					const step = 7
					at, last := make([]int, k+1), 0
					for i := range k {
						at[i] = 3 + r.IntN(50)
						last = max(last, at[i])
					}
					from := normals(r, edge(t, (m-1)*step+last+1))
					side := make([]float32, 0, m*k)
					for row := range m {
						for _, p := range at[:k] {
							side = append(side, from[row*step+p])
						}
					}
					b, b2 := normals(r, edge(t, k*s.NR*Abreast(m))), normals(r, edge(t, 2*s.NR))
					got, want := make([]float32, m*n), make([]float32, m*n)
					tile := oneTile{Tile{M: m, N: n, CS: 1, C: &want[0]}, Tiles{K: k, RS: k, LDB: s.NR, Pitch: k * s.NR, LDC: n}}
					if n <= s.NR {
						tile.A2, tile.RS2, tile.B2, tile.K2 = &from[0], 1, &b2[0], min(k, 2)
					}
					if k > 0 {
						tile.A, tile.B = &side[0], &b[0]
					}
					tile.run(s)
					tile.C, tile.RS, tile.CS, tile.At = &got[0], step, 1, &at[0]
					if k > 0 {
						tile.A = &from[at[0]]
					}
					tile.run(s)
					if !sameBits(got, want) {
						t.Fatalf("m=%d n=%d k=%d: %v, want %v", m, n, k, got, want)
					}
				}
			}
		}
	})
}

var tileBuffer []float32

// Panels side by side have the bits of panels one by one.
func TestGemmTileAbreast(t *testing.T) {
	eachSet(t, func(t *testing.T, s *Set) {
		r := rand.New(rand.NewPCG(17, 18))
		for m := 1; m <= s.MR; m++ {
			panels := Abreast(m)
			if panels == 1 {
				continue
			}
			n := panels * s.NR
			for _, k := range []int{0, 1, 2, 7, 40} {
				for _, gap := range []int{0, 3} { // whole panels, or a matrix with rows of n
					ldb, pitch := s.NR+gap, k*(s.NR+gap)
					if gap > 0 {
						ldb, pitch = n+gap, s.NR
					}
					a := normals(r, edge(t, m*k))
					b := normals(r, edge(t, max(0, (panels-1)*pitch+(k-1)*ldb+s.NR)))
					from := normals(r, edge(t, m*n))
					for mode := range 3 {
						tile := oneTile{Tile{M: m, N: n, CS: m}, Tiles{K: k, RS: 1, LDB: ldb, Pitch: pitch, LDC: n}}
						if k > 0 {
							tile.A, tile.B = &a[0], &b[0]
						}
						if mode > 0 {
							tile.From, tile.LDFrom = &from[0], n*(mode-1)
						}
						got, want := edge(t, m*n), make([]float32, m*n)
						tile.C = &got[0]
						tile.run(s)
						for j := range panels {
							one := tile
							one.N, one.C = s.NR, &want[j*s.NR]
							if k > 0 {
								one.B = &b[j*pitch]
							}
							if mode > 0 {
								one.From = &from[j*s.NR]
							}
							one.run(s)
						}
						if !slices.Equal(got, want) {
							t.Fatalf("%+v: %v, one by one %v", tile, got, want)
						}
					}
				}
			}
		}
	})
}

// edgeGuarded is an output tile with row stride n+1 that ends at the edge of memory; gaps hold 7.
func edgeGuarded(t *testing.T, s *Set, m, n int) []float32 {
	size := 12 * 33
	if tileBuffer == nil {
		tileBuffer = edge(t, size)
		t.Cleanup(func() { tileBuffer = nil })
	}
	c := tileBuffer[size-((m-1)*(n+1)+n):]
	for i := range c {
		c[i] = 7
	}
	return c
}

func checkTile(t *testing.T, tile *oneTile, a, b, from, c []float32) {
	t.Helper()
	for i, got := range c {
		r, j := i/tile.LDC, i%tile.LDC
		if j == tile.N {
			if got != 7 {
				t.Fatalf("%+v: wrote past column %d of row %d", tile, tile.N, r)
			}
			continue
		}
		want, size := 0.0, 0.0
		if tile.From != nil {
			want = float64(from[r*tile.LDFrom+j])
			size = math.Abs(want)
		}
		for k := range tile.K {
			p := float64(a[r*tile.RS+k*tile.CS]) * float64(b[k*tile.LDB+j])
			want += p
			size += math.Abs(p)
		}
		if !near(float64(got), want, 0, 1e-6*size) {
			t.Fatalf("%+v: C[%d][%d] = %g, want %g", tile, r, j, got, want)
		}
	}
}

func TestNamed(t *testing.T) {
	names := []string{}
	for _, s := range Sets() {
		names = append(names, s.Name)
		t.Setenv(EnvVar, s.Name)
		if got, err := Named(""); err != nil || got != s {
			t.Errorf("%s=%s gives %v, %v", EnvVar, s.Name, got, err)
		}
	}
	if names[len(names)-1] != "generic" {
		t.Errorf("sets are %v, want generic last", names)
	}
	t.Setenv(EnvVar, "sse9")
	if _, err := Named(""); err == nil || !strings.Contains(err.Error(), "sse9") || !strings.Contains(err.Error(), strings.Join(names, ", ")) || !strings.Contains(err.Error(), EnvVar) {
		t.Errorf("an unknown set gives %v", err)
	}
	if s, err := Named("generic"); err != nil || s != &generic {
		t.Errorf("a name given outweighs the environment, but got %v, %v", s, err)
	}
}

func TestAllocatesNothing(t *testing.T) {
	x, y := make([]float32, 100), make([]float32, 100)
	eachSet(t, func(t *testing.T, s *Set) {
		adam := adamExample(x, y, make([]float32, 100), make([]float32, 100))
		cell := &CellArgs{Rows: 1, H: 20, Units: 20, Gates: &x[0], CPrev: &y[0], C: &y[20], Hid: &y[40], Out: &y[40], LDOut: 20}
		back := &CellArgs{Rows: 1, H: 20, Units: 20, Gates: &x[0], CPrev: &y[0], C: &y[20], DHid: &y[40], DC: &y[60]}
		tile := &oneTile{Tile{M: 1, N: 8, CS: 1, A: &x[0], B: &x[0], C: &y[0]}, Tiles{RS: 1, LDB: 8, LDC: 8, K: 4}}
		gru := &CellArgs{Rows: 1, H: 20, Units: 20, Gates: &x[0], Side: &y[0], HPrev: &y[20], Hid: &y[40], Out: &y[40], LDOut: 20}
		gruBack := &CellArgs{Rows: 1, H: 20, Units: 20, Gates: &x[0], Side: &y[0], HPrev: &y[20], DHid: &y[40]}
		blocks, packed := s.Weights[1].Blocks, make([]uint16, 3<<9)
		block := &BlockArgs{A: packed, B: packed[1<<9:], Pitch: 1 << 10, C: y, LDC: 40, M: 2, N: 31, K: 32}
		bytes := s.Weights[3].Products
		panel, scale, pitch := encodePanels(nil, byteForm{s.NR, s.Weights[3]}, x, 4, 25)
		byteArgs := &ByteArgs{A: make([]int8, 2*ByteDepth(25)), ScaleA: make([]float32, 2), B: panel, ScaleB: scale, Pitch: pitch, C: y, LDC: 4, K: 25, M: 2, N: 4}
		if n := testing.AllocsPerRun(10, func() {
			bytes.Rows(byteArgs.A, byteArgs.ScaleA, x, 2, 25, 25, 1)
			bytes.Run(byteArgs)
			if blocks != nil {
				blocks.PackA(packed, x, 2, 32, 32, 1, 32*blocks.Rows)
				blocks.Run(block)
			}
			for _, k := range elementwise {
				k.run(s, y, x, x)
			}
			s.Sum(x)
			s.SumSq(x)
			s.Dot(x, y)
			s.Adam(adam)
			s.LSTM(cell)
			s.LSTMGrad(back)
			s.GRU(gru)
			s.GRUGrad(gruBack)
			tile.run(s)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func BenchmarkElementwise(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{256, 1 << 20} {
		x, y, dst := normals(r, make([]float32, n)), normals(r, make([]float32, n)), make([]float32, n)
		for _, k := range elementwise {
			for _, s := range Sets() {
				b.Run(fmt.Sprintf("kernel=%s/set=%s/n=%d", k.name, s.Name, n), func(b *testing.B) {
					b.SetBytes(int64(4 * n))
					for b.Loop() {
						k.run(s, dst, x, y)
					}
				})
			}
		}
	}
}
