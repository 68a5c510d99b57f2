package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// byteForms is the products of bytes of all sets and, on some processors, more that run here, by name.
func byteForms() map[string]byteForm {
	forms := map[string]byteForm{}
	for _, s := range Sets() {
		forms[s.Name] = byteForm{s.NR, s.Weights[3]}
	}
	moreByteForms(forms)
	return forms
}

type byteForm struct {
	nr int
	Weights
}

// edgeBytes is n bytes that end where memory begins that may not be touched.
func edgeBytes(t testing.TB, n int) []int8 {
	x := edge(t, (n+3)/4)
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))[4*len(x)-n:]
}

// encodePanels packs w [k,n] as panels of a form, and returns the scales of their columns. With t,
// both end where memory begins that may not be touched.
func encodePanels(t testing.TB, f byteForm, w []float32, n, k int) (panels []int8, scale []float32, pitch int) {
	count := (n + f.nr - 1) / f.nr
	pitch = f.nr * (f.Head + ByteDepth(k))
	if panels, scale = make([]int8, count*pitch), make([]float32, count*f.nr); t != nil {
		panels, scale = edgeBytes(t, count*pitch), edge(t, count*f.nr)
	}
	for p := range count {
		panel := make([]float32, k*f.nr)
		for i := range k {
			copy(panel[i*f.nr:][:f.nr], w[i*n+p*f.nr:min(i*n+n, i*n+(p+1)*f.nr)])
		}
		to := panels[p*pitch:][:pitch]
		f.Encode(unsafe.Slice((*byte)(unsafe.Pointer(&to[0])), pitch), scale[p*f.nr:][:f.nr], panel)
	}
	return panels, scale, pitch
}

// The products of every form have the bits of the reference for all numbers of rows, columns and
// k, read nothing outside of their operands, and write nothing else.
func TestBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(61, 62))
	reference := byteForm{8, byteWeights(8, false, bytesGeneric(8))}
	for name, f := range byteForms() {
		t.Run(name, func(t *testing.T) {
			check := func(m, n, k, k2, form int) {
				matrix := func(size int) []float32 {
					x := normals(r, make([]float32, size))
					if size > 1 {
						x[r.IntN(size)] *= 1000
					}
					return x
				}
				a, a2, w, w2 := matrix(m*k), matrix(m*k2), matrix(n*k), matrix(n*k2)
				turned, spoilt := form&1 > 0, form&2 > 0
				rs, cs := k, 1
				if turned {
					rs, cs = 1, m
				}
				if spoilt {
					a[r.IntN(m)*rs] = float32(math.Inf(-1))
					for i := range k {
						a[r.IntN(m)*rs+i*cs] *= 1e-33 // a row that may be all faint
					}
				}
				ldc := n + 3
				start := normals(r, make([]float32, m*ldc))
				run := func(f byteForm, c []float32) {
					args := ByteArgs{K: k, K2: k2, C: c, LDC: ldc, M: m, N: n}
					rows := func(a []float32, depth, rs, cs int) ([]int8, []float32) {
						dst, scale := edgeBytes(t, m*ByteDepth(depth)), edge(t, m)
						src := append(edge(t, len(a))[:0], a...)
						f.Products.Rows(dst, scale, src, m, depth, rs, cs)
						return dst, scale
					}
					args.A, args.ScaleA = rows(a, k, rs, cs)
					args.B, args.ScaleB, args.Pitch = encodePanels(t, f, w, n, k)
					if k2 > 0 {
						args.A2, args.ScaleA2 = rows(a2, k2, k2, 1)
						args.B2, args.ScaleB2, args.Pitch2 = encodePanels(t, f, w2, n, k2)
					}
					switch form >> 2 % 4 {
					case 1:
						args.From = append(edge(t, n)[:0], start[:n]...) // a bias
					case 2:
						args.From, args.LDFrom = append(edge(t, (m-1)*ldc+n)[:0], start[:(m-1)*ldc+n]...), ldc
					case 3:
						for i := range m {
							copy(c[i*ldc:][:n], start[i*ldc:])
						}
						args.From, args.LDFrom = c, ldc
					}
					f.Products.Run(&args)
				}
				c, want := edge(t, (m-1)*ldc+n), make([]float32, (m-1)*ldc+n)
				for i := range c {
					c[i], want[i] = 77, 77
				}
				run(reference, want)
				if run(f, c); !sameBits(c, want) {
					i := slices.IndexFunc(want, func(float32) bool { return true })
					for i < len(c) && sameBits(c[i:i+1], want[i:i+1]) {
						i++
					}
					t.Fatalf("m=%d n=%d k=%d then %d, form %d: C[%d,%d] = %g, want %g", m, n, k, k2, form, i/ldc, i%ldc, c[i], want[i])
				}
			}
			for m := 1; m <= 15; m++ {
				check(m, 1+r.IntN(3*f.nr), 1+r.IntN(200), r.IntN(3)*40, r.IntN(16))
				check(m, f.nr*(1+r.IntN(4)), 64*(1+r.IntN(3)), 64, r.IntN(4)<<2)
			}
			for range 150 {
				check(1+r.IntN(40), 1+r.IntN(120), 1+r.IntN(150), max(0, r.IntN(200)-100), r.IntN(16))
			}
			check(1, 5*f.nr, 70_000, 3, 0)
			check(3, 70, MaxByteDepth, 0, 4)
		})
	}
}

// What rounding left is at most half a step, and rows with their residuals have 15 bits.
func TestByteResidual(t *testing.T) {
	const m, k, rs = 4, 70, 75
	r := rand.New(rand.NewPCG(67, 68))
	a := normals(r, make([]float32, m*rs))
	clear(a[rs:][:k])                // a row of zeros
	a[2*rs+3] = float32(math.Inf(1)) // and one that is spoilt
	for i := range k {
		a[3*rs+i] *= 1e-33 // and one that is faint
	}
	for name, f := range byteForms() {
		flip := int8(0)
		rounded, scale := make([]int8, m*ByteDepth(k)), make([]float32, m)
		f.Products.Rows(rounded, scale, a, m, k, rs, 1)
		flip = rounded[ByteDepth(k)] // of a zero
		left := make([]float32, m*k)
		f.Products.Residual(left, rounded, scale, a, m, k, rs)
		for i, v := range left {
			x, by := float64(a[i/k*rs+i%k]), float64(scale[i/k])
			if i/k == 2 {
				if v == v {
					t.Fatalf("%s: a row with an infinity left %g", name, v)
				}
				continue
			}
			if q := float64(rounded[i/k*ByteDepth(k)+i%k] ^ flip); math.Abs(x-q*by-float64(v)) > 0x1p-23*math.Abs(x) || by > 0 && math.Abs(float64(v)) > 0.50001*by {
				t.Fatalf("%s: of %g, %g times %g, rounding left %g", name, x, q, by, v)
			}
		}
	}
}

// The greatest sums that there are do not overflow.
func TestBytesGreatest(t *testing.T) {
	for name, f := range byteForms() {
		const k, m = MaxByteDepth, 2
		n := f.nr
		a, w := slices.Repeat([]float32{1}, m*k), slices.Repeat([]float32{1}, n*k)
		for i := range k {
			a[k+i] = -1
		}
		args := ByteArgs{A: make([]int8, m*k), ScaleA: make([]float32, m), K: k, C: make([]float32, m*n), LDC: n, M: m, N: n}
		f.Products.Rows(args.A, args.ScaleA, a, m, k, k, 1)
		args.B, args.ScaleB, args.Pitch = encodePanels(t, f, w, n, k)
		f.Products.Run(&args)
		want := float32(k*127*127) * float32(float32(1)/127*ByteScale(1))
		for i, v := range args.C {
			if i/n == 1 {
				v = -v
			}
			if v != want {
				t.Fatalf("%s: element %d is %g, want %g", name, i, v, want)
			}
		}
	}
}

// BenchmarkBytes compares products of bytes, rows rounded on the way, with those of float32.
func BenchmarkBytes(b *testing.B) {
	r := rand.New(rand.NewPCG(63, 64))
	for _, size := range [][3]int{{1, 1024, 256}, {1, 4096, 1024}, {2, 1024, 256}, {4, 1024, 256}, {16, 1024, 256}, {64, 1024, 256}} {
		m, n, k := size[0], size[1], size[2]
		a, w := normals(r, make([]float32, m*k)), normals(r, make([]float32, n*k))
		for name, f := range byteForms() {
			if name == "generic" {
				continue
			}
			b.Run(fmt.Sprintf("kernel=%s/M=%d/N=%d/K=%d", name, m, n, k), func(b *testing.B) {
				args := ByteArgs{A: make([]int8, m*ByteDepth(k)), ScaleA: make([]float32, m), K: k, C: make([]float32, m*n), LDC: n, M: m, N: n}
				args.B, args.ScaleB, args.Pitch = encodePanels(b, f, w, n, k)
				for b.Loop() {
					f.Products.Rows(args.A, args.ScaleA, a, m, k, k, 1)
					f.Products.Run(&args)
				}
				b.ReportMetric(float64(m)*float64(n)*float64(k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GMAC/s")
			})
		}
	}
}
