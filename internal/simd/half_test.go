package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// format is a 16-bit format by its definition, to compare the conversions with.
type format struct {
	name     string
	kind     int // index of Set.Weights
	exponent int // bits
	fraction int
	tiny     bool // has subnormal numbers
}

var formats = []format{{"bfloat16", 1, 8, 7, false}, {"float16", 2, 5, 10, true}}

// value is the number of 16 bits, in float64.
func (f format) value(h uint16) float64 {
	bias := 1<<(f.exponent-1) - 1
	exp := int(h>>f.fraction) & (1<<f.exponent - 1)
	frac := float64(h & (1<<f.fraction - 1))
	sign := 1 - 2*float64(h>>15)
	unit := math.Ldexp(1, -f.fraction)
	switch {
	case exp == 1<<f.exponent-1 && frac == 0:
		return math.Inf(int(sign))
	case exp == 1<<f.exponent-1:
		return math.NaN()
	case exp == 0 && !f.tiny:
		return math.Copysign(0, sign)
	case exp == 0:
		return sign * math.Ldexp(frac*unit, 1-bias)
	}
	return sign * math.Ldexp(1+frac*unit, exp-bias)
}

// Every value of 16 bits widens to what its format says and narrows to itself, and the
// numbers around the middle between two neighbours narrow to the nearer one, or at the
// middle to the even one.
func TestHalfFormats(t *testing.T) {
	for _, set := range Sets() {
		for _, f := range formats {
			w := set.Weights[f.kind]
			if w.Name != f.name {
				t.Fatalf("%s: kind %d is %s", set.Name, f.kind, w.Name)
			}
			half, wide := make([]uint16, 1<<16), make([]float32, 1<<16)
			for i := range half {
				half[i] = uint16(i)
			}
			w.Widen(wide, half)
			back := make([]uint16, len(half))
			w.Narrow(back, wide)
			var in []float32
			var want []uint16
			for i, h := range half {
				v := f.value(h)
				subnormal := !f.tiny && h&0x7fff != 0 && v == 0
				switch {
				case math.IsNaN(v):
					if wide[i] == wide[i] || !math.IsNaN(f.value(back[i])) || back[i]>>15 != h>>15 {
						t.Fatalf("%s, %s: NaN %#x is %g, and back %#x", set.Name, f.name, h, wide[i], back[i])
					}
					continue
				case subnormal: // a bfloat16 below the normal ones is never written
					if back[i] != h&0x8000 {
						t.Fatalf("%s, %s: %#x narrows to %#x", set.Name, f.name, h, back[i])
					}
					continue
				case float64(wide[i]) != v || math.Signbit(float64(wide[i])) != math.Signbit(v) || back[i] != h:
					t.Fatalf("%s, %s: %#x is %g, want %g, and back %#x", set.Name, f.name, h, wide[i], v, back[i])
				}
				next := f.value(h + 1)
				if h&0x7fff >= 1<<15-1-1<<f.fraction || !f.tiny && h&0x7fff == 0 {
					continue
				}
				if math.IsInf(next, 0) { // beyond the largest number the next would be
					next = math.Copysign(math.Ldexp(1, 1<<(f.exponent-1)), v)
				}
				mid := float32((v + next) / 2)
				in = append(in, mid, math.Nextafter32(mid, 0), math.Nextafter32(mid, mid*2))
				want = append(want, h+h&1, h, h+1)
			}
			in = append(in, float32(math.Inf(1)), 1e30, -3e38)
			want = append(want, 0, 0, 0)
			for i := range 3 {
				w := uint16(1<<15 - 1<<f.fraction) // infinity
				switch {
				case i > 0 && f.kind == 1: // 1e30 and -3e38 are in its range
					narrowBF16Generic(want[len(want)-3+i:][:1], in[len(in)-3+i:][:1])
					continue
				case in[len(in)-3+i] < 0:
					w |= 0x8000
				}
				want[len(want)-3+i] = w
			}
			got := make([]uint16, len(in))
			w.Narrow(got, in)
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("%s, %s: %g narrows to %#x, want %#x", set.Name, f.name, in[i], got[i], want[i])
				}
			}
			for n := range 70 { // every length
				short := make([]uint16, n+1)
				short[n] = 77
				w.Narrow(short[:n], in[:n])
				if !slices.Equal(short[:n], want[:n]) || short[n] != 77 {
					t.Fatalf("%s, %s: %d elements", set.Name, f.name, n)
				}
			}
		}
	}
}

// fusedAdd is a·b + c for bfloat16 a and b, rounded once, without subnormal numbers: the
// product is exact in float64, and the sum is rounded to odd before it is rounded to float32.
func fusedAdd(a, b, c float32) float32 {
	p := float64(a) * float64(b)
	s := p + float64(c)
	t := s - p
	if e := (p - (s - t)) + (float64(c) - t); e != 0 {
		if u := math.Float64bits(s); u&1 == 0 {
			if (e > 0) == (s > 0) {
				u++
			} else {
				u--
			}
			s = math.Float64frombits(u)
		}
	}
	return Narrow(s)
}

// blockLaws is the law of each set's products of packed operands.
var blockLaws = map[string]func(sum float32, a, b []float32) float32{"amx": tileLaw, "avx512bf16": pairLaw}

// tileLaw is the law of products of bfloat16 by tiles: a link is 32 k, those of even and those
// of odd k in a chain each, and both added to the sum.
func tileLaw(sum float32, a, b []float32) float32 {
	for k := 0; k < len(a); k += 32 {
		var even, odd float32
		for i := k; i < min(k+32, len(a)); i++ {
			if i%2 == 0 {
				even = fusedAdd(a[i], b[i], even)
			} else {
				odd = fusedAdd(a[i], b[i], odd)
			}
		}
		sum = Narrow(float64(sum) + float64(Narrow(float64(even)+float64(odd))))
	}
	return sum
}

// pairLaw is the law of products of bfloat16 by pairs: a link is two k, of which the odd one is
// added first.
func pairLaw(sum float32, a, b []float32) float32 {
	for k := 0; k < len(a); k += 2 {
		if k+1 < len(a) {
			sum = fusedAdd(a[k+1], b[k+1], sum)
		}
		sum = fusedAdd(a[k], b[k], sum)
	}
	return sum
}

// Products of packed operands have the bits of their law, for all forms of the operands
// and sizes, also where numbers become too small, and write nothing else.
func TestBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(51, 52))
	tested := false
	for _, set := range Sets() {
		kind := &set.Weights[1]
		x := kind.Blocks
		if x == nil {
			continue
		}
		tested = true
		law := blockLaws[set.Name]
		for at, size := range [][3]int{{1, 32, 32}, {1, 1, 1}, {16, 64, 32}, {17, 33, 33}, {5, 96, 31}, {32, 32, 64}, {33, 100, 70}, {64, 64, 257}, {100, 47, 40}, {70, 129, 96}, {31, 16, 5}, {2, 65, 33}, {3, 97, 40}, {4, 128, 64}, {6, 48, 12}, {20, 40, 800}} {
			for form := range 32 {
				m, n, k := size[0], size[1], size[2]
				if (at+form)%2 == 0 && m*n*k > 1<<14 {
					continue // half of the forms of a large product
				}
				transA, transB, from, bias, second := form&1 > 0, form&2 > 0, form&4 > 0, form&8 > 0, form&16 > 0
				k2 := 0
				if second {
					k2 = 40
				}
				scale := 0
				if (at+form)%3 == 0 {
					scale = -62 // products and sums around the smallest normal number
				}
				a, b, a2, b2 := make([]float32, m*k), make([]float32, k*n), make([]float32, m*k2), make([]float32, k2*n)
				for _, v := range [][]float32{a, b, a2, b2} {
					for i := range v {
						v[i] = float32(r.NormFloat64()) * float32(math.Ldexp(1, r.IntN(20)-10+scale))
					}
				}
				const gap = 3 // before each row of C; after the last it ends
				ldc := gap + n
				c, start := edge(t, m*ldc), make([]float32, m*ldc)
				for i := range start {
					start[i] = Flush(float32(math.Ldexp(r.NormFloat64(), 2*scale)))
				}
				for i := range c {
					c[i] = 99
				}
				rs, cs, ldb := k, 1, n
				if transA {
					rs, cs = 1, m
				}
				if transB {
					ldb = k
				}
				deep, deep2 := (k+31)/32*32, (k2+31)/32*32
				pitch := (deep + deep2) * x.Rows
				pa, pb, pb2 := make([]uint16, (m+15)/16*pitch), make([]uint16, (n+31)/32*32*deep), make([]uint16, (n+31)/32*32*deep2)
				for i := range pa {
					pa[i] = 0x7fc1 // what is not packed must not count
				}
				for i := range pb {
					pb[i] = 0x7fc1
				}
				x.PackA(pa, a, m, k, rs, cs, pitch)
				x.PackB(pb, b, k, n, ldb, transB)
				p := &BlockArgs{A: pa, B: pb, Pitch: 32 * deep, C: c[gap:], LDC: ldc, M: m, N: n, K: k}
				if second {
					x.PackA(pa[deep*x.Rows:], a2, m, k2, k2, 1, pitch)
					x.PackB(pb2, b2, k2, n, n, false)
					p.B2, p.Pitch2, p.K2 = pb2, 32*deep2, k2
				}
				if from {
					p.From, p.LDFrom = start, ldc
					if bias {
						p.LDFrom = 0
					}
				}
				x.Run(p)
				kind.Round(a, a)
				kind.Round(b, b)
				kind.Round(a2, a2)
				kind.Round(b2, b2)
				for i := range m {
					for j := range ldc {
						want := float32(99)
						if j := j - gap; j >= 0 {
							want = 0
							if from {
								want = start[i*p.LDFrom+j]
							}
							row, col := make([]float32, k), make([]float32, k)
							for q := range k {
								row[q] = a[i*rs+q*cs]
								if transB {
									col[q] = b[j*ldb+q]
								} else {
									col[q] = b[q*ldb+j]
								}
							}
							want = law(want, row, col)
							row, col = row[:0], col[:0]
							for q := range k2 {
								row, col = append(row, a2[i*k2+q]), append(col, b2[q*n+j])
							}
							want = law(want, row, col)
						}
						if got := c[i*ldc+j]; got != want {
							t.Fatalf("%s, %v, form %d: C[%d,%d] = %g, want %g", set.Name, size, form, i, j-gap, got, want)
						}
					}
				}
			}
		}
	}
	if !tested {
		t.Skip("no kernel set here takes both operands in 16 bits")
	}
}

// BenchmarkBlocks compares products of bfloat16 by each set on one thread: with B packed, as
// weights are at rest, and A on the way.
func BenchmarkBlocks(b *testing.B) {
	const n, k = 1024, 256
	r := rand.New(rand.NewPCG(53, 54))
	for _, m := range []int{1, 16, 64, 512} {
		x, y, c := normals(r, make([]float32, m*k)), normals(r, make([]float32, k*n)), make([]float32, m*n)
		for _, set := range Sets() {
			kind := &set.Weights[1]
			run := func() {}
			if block := kind.Blocks; block != nil {
				pa, pb := make([]uint16, (m+15)/16*16*k), make([]uint16, n*k)
				block.PackB(pb, y, k, n, n, false)
				run = func() {
					block.PackA(pa, x, m, k, k, 1, block.Rows*k)
					block.Run(&BlockArgs{A: pa, B: pb, Pitch: 32 * k, C: c, LDC: n, M: m, N: n, K: k})
				}
			} else {
				tiles := (m + set.MR - 1) / set.MR
				rows := (m + tiles - 1) / tiles
				px, panels := make([]float32, (m+rows)*k), make([]float32, (n+set.NR-1)/set.NR*set.NR*k)
				set.Pack(panels, y, k, n, n, set.NR)
				run = func() {
					for i := 0; i < m; i += rows {
						set.PackT(px[i*k:], x[i*k:], k, min(rows, m-i), k, rows)
					}
					for j, wide := 0, Abreast(m)*set.NR; j < n; j += wide {
						for i := 0; i < m; i += rows {
							tile := Tile{M: min(rows, m-i), N: min(wide, n-j), CS: rows, A: &px[i*k], B: &panels[j*k], C: &c[i*n+j]}
							kind.Tiles(&Tiles{First: &tile, Count: 1, RS: 1, K: k, LDB: set.NR, Pitch: set.NR * k, LDC: n})
						}
					}
				}
			}
			b.Run(fmt.Sprintf("set=%s/M=%d", set.Name, m), func(b *testing.B) {
				for b.Loop() {
					run()
				}
				b.ReportMetric(2*float64(m)*n*k*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
			})
		}
	}
}

// Gates keep their digits near 0 and near 1, and 0 and 1 are exact.
func TestUnits(t *testing.T) {
	var in []float32
	for e := range 30 {
		d := float32(math.Ldexp(1.37, -e-1))
		in = append(in, d, 1-d)
	}
	in = append(in, 0, 1, 0.5, math.Nextafter32(0.5, 1), math.Nextafter32(1, 0))
	for _, set := range Sets() {
		half, out := make([]uint16, len(in)), make([]float32, len(in))
		for n := range len(in) + 1 { // every length
			set.NarrowUnit(half[:n], in[:n])
			set.WidenUnit(out[:n], half[:n])
		}
		for i, v := range in {
			near := min(v, 1-v) // what is kept: 11 bits, or down to 2^-24 a multiple of it
			if d := math.Abs(float64(out[i]) - float64(v)); d > math.Max(float64(near)*0x1p-11, 0x1p-25) || near == 0 && d != 0 {
				t.Errorf("%s: %g is kept as %g", set.Name, v, out[i])
			}
		}
	}
}
