package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Kinds of weights that live in these tests, to show what a kind may be.
const (
	halves  = device.NumKinds + iota // bfloat16, a link one multiply-add
	quarter                          // a byte a value and a scale a column, a link the sum of four products
)

// withKinds is a backend whose kernels know both.
func withKinds(set *simd.Set) *Backend {
	s := *set
	s.Weights = append(slices.Clone(set.Weights),
		simd.Weights{Name: "halves", Group: 1, Bytes: 2, Encode: encodeHalves, Tiles: func(t *simd.Tiles) { tilesOfHalves(set, t) }},
		simd.Weights{Name: "quarter", Group: 4, Bytes: 4, Scales: true, Encode: func(dst []byte, scale, panel []float32) { encodeQuarter(set.NR, dst, scale, panel) },
			Tiles: func(t *simd.Tiles) { tilesOfQuarter(set.NR, t) }})
	return New(&s)
}

// kindWith is kind for passes with a cache, and float32 for those without.
func kindWith(c *device.Cache, kind device.Kind) device.Kind {
	if c == nil {
		return device.F32
	}
	return kind
}

func encodeHalves(dst []byte, _, panel []float32) {
	to := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(dst))), len(panel))
	half.ToBFloat16s(to, panel)
}

// tilesOfHalves widens each panel and has the kernel of float32 do the rest, so
// that its bits are those of a float32 network with these values.
func tilesOfHalves(set *simd.Set, t *simd.Tiles) {
	wide := func(b *float32, k int) *float32 {
		if k == 0 {
			return nil
		}
		from := unsafe.Slice((*uint16)(unsafe.Pointer(b)), k*set.NR)
		to := make([]float32, len(from))
		half.FromBFloat16s(to, from)
		return &to[0]
	}
	for _, tile := range unsafe.Slice(t.First, t.Count) {
		for j := 0; j < tile.N; j += set.NR {
			part, one := tile, *t
			part.N, part.NextB, part.NextC = min(set.NR, tile.N-j), nil, nil
			part.C = after(tile.C, j)
			if tile.From != nil {
				part.From = after(tile.From, j)
			}
			if t.K > 0 {
				part.B = wide(after(tile.B, j/set.NR*t.Pitch), t.K)
			}
			part.B2 = wide(tile.B2, t.K2)
			one.First, one.Count, one.LDB = &part, 1, set.NR
			set.Weights[device.F32].Tiles(&one)
		}
	}
}

func encodeQuarter(nr int, dst []byte, scale, panel []float32) {
	for j := range nr {
		top := float32(0)
		for i := j; i < len(panel); i += nr {
			top = max(top, panel[i], -panel[i])
		}
		scale[j] = top / 127
		if top == 0 {
			scale[j] = 1
		}
		for k := range len(dst) / nr {
			v := byte(0)
			if at := k*nr + j; at < len(panel) {
				v = byte(int8(math.Round(float64(panel[at] / scale[j]))))
			}
			dst[k/4*4*nr+4*j+k%4] = v
		}
	}
}

// after is the element n places after p.
func after[T any](p *T, n int) *T {
	var zero T
	return (*T)(unsafe.Add(unsafe.Pointer(p), n*int(unsafe.Sizeof(zero))))
}

func tilesOfQuarter(nr int, t *simd.Tiles) {
	chain := func(sum float32, a *float32, cs, k int, b *float32, ldb int, scale float32) float32 {
		for g := 0; g < k; g += 4 {
			link, group := 0.0, (*[4]int8)(unsafe.Pointer(after(b, g/4*ldb)))
			for i := g; i < min(g+4, k); i++ {
				link += float64(*after(a, i*cs)) * float64(group[i-g])
			}
			sum = simd.Narrow(float64(sum) + link*float64(scale))
		}
		return sum
	}
	for _, tile := range unsafe.Slice(t.First, t.Count) {
		for r := range tile.M {
			for c := range tile.N {
				sum := float32(0)
				if tile.From != nil {
					sum = *after(tile.From, r*t.LDFrom+c)
				}
				if t.K > 0 {
					sum = chain(sum, after(tile.A, r*t.RS), tile.CS, t.K, after(tile.B, c/nr*t.Pitch+c%nr), t.LDB, *after(tile.Scale, c))
				}
				if t.K2 > 0 {
					sum = chain(sum, after(tile.A2, r*t.RS2), tile.CS, t.K2, after(tile.B2, c), t.LDB, *after(tile.Scale2, c))
				}
				*after(tile.C, r*t.LDC+c) = sum
			}
		}
	}
}

// rounded is w, [rows,cols] with a row for each output, as a kind keeps it.
func rounded(kind device.Kind, w []float32, cols int) []float32 {
	out := slices.Clone(w)
	switch kind {
	case halves:
		for i, v := range w {
			out[i] = half.FromBFloat16(half.ToBFloat16(v))
		}
	case quarter:
		for ; len(w) > 0; w = w[cols:] {
			row := out[len(out)-len(w):][:cols]
			top := max(slices.Max(row), -slices.Min(row))
			for i, v := range row {
				row[i] = float32(math.Round(float64(v/(top/127)))) * (top / 127)
			}
		}
	}
	return out
}

// A product with weights of another kind, packed once and kept, is the product
// with the values that the kind has, by the kind's law: for any number of rows
// and threads, whether the depth is cut or not, and until the version changes.
func TestKindsOfWeights(t *testing.T) {
	defer par.SetWorkers(0)
	for _, set := range floatSets() {
		t.Run(set.Name, func(t *testing.T) {
			b := withKinds(set)
			r := rand.New(rand.NewPCG(31, 32))
			for _, kind := range []device.Kind{halves, quarter} {
				for _, size := range [][3]int{{1, 70, 5}, {2, 4 * set.NR, 64}, {40, 3*set.NR + 1, 300}, {3, 33, 2*longRun + 7}, {30, 9, 1}, {64, 96, 0}} {
					m, n, k := size[0], size[1], size[2]
					x, w, bias := randoms(r, m*k), randoms(r, n*k), randoms(r, n)
					cache := &device.Cache{}
					gemm := func(b *Backend, m int, w []float32, c *device.Cache) []float32 {
						y := make([]float32, m*n)
						b.Gemm(&device.GemmSpec{M: m, N: n, K: k, Kind: kindWith(c, kind), A: device.HostBuffer(x[:m*k]), B: device.HostBuffer(w), TransB: true,
							Bias: device.HostBuffer(bias), C: device.HostBuffer(y), Cache: c, Version: 1})
						return y
					}
					par.SetWorkers(1)
					want := gemm(New(set), m, rounded(kind, w, k), nil)
					got := gemm(b, m, w, cache)
					compareKind(t, kind, got, want, k)
					clear(w) // it is in the cache
					for _, workers := range []int{1, 3} {
						par.SetWorkers(workers)
						for _, rows := range []int{m, 1, (m + 1) / 2} {
							if again := gemm(b, rows, w, cache); !slices.Equal(again, got[:rows*n]) {
								t.Fatalf("%v: %d rows on %d threads have other bits", size, rows, workers)
							}
						}
					}
				}
			}
		})
	}
}

func compareKind(t *testing.T, kind device.Kind, got, want []float32, k int) {
	t.Helper()
	tolerance := 0.0 // to the bit
	if kind == quarter {
		tolerance = 1e-6 * float64(1+k)
	}
	for i, v := range want {
		if d := math.Abs(float64(got[i]) - float64(v)); !(d <= tolerance) {
			t.Fatalf("kind %d, element %d: %g, want %g", kind, i, got[i], v)
		}
	}
}

// A layer at rest of another kind gives what it gives in float32 with the kind's
// values, whichever way the work is split. Its masters do not change: a pass
// without the cache is float32's.
func TestScanOfKinds(t *testing.T) {
	defer par.SetWorkers(0)
	set := simd.Best()
	b := withKinds(set)
	r := rand.New(rand.NewPCG(33, 34))
	for _, c := range []struct {
		cell       cell.Kind
		B, I, H, P int
	}{
		{cell.LSTM, 40, 33, 64, 0}, // rows, W·x and R·h at once
		{cell.LSTM, 1, 30, 256, 0}, // columns, or units of a gang
		{cell.LSTM, 3, 30, 70, 20},
		{cell.GRU, 5, 7, 96, 0},
		{cell.GRUBefore, 13, 9, 40, 0},
		{cell.MinGRU, 4, 12, 50, 0},
	} {
		const T = 6
		shape := device.ScanSpec{Cell: c.cell, T: T, B: c.B, I: c.I, H: c.H, Proj: c.P}
		gw, out := shape.GateWidth(), shape.Out()
		x, w, rec, proj := randoms(r, T*c.B*c.I), randoms(r, gw*c.I), randoms(r, gw*out), randoms(r, out*c.H)
		var kind device.Kind // of passes with a cache
		run := func(b *Backend, round func([]float32, int) []float32, cache *device.Cache) []float32 {
			s := shape
			s.X, s.Params[cell.W], s.Y, s.YLd = device.HostBuffer(x), device.HostBuffer(round(w, c.I)), b.Alloc(T*c.B*out), out
			if !cell.Table[c.cell].Free {
				s.Params[cell.R] = device.HostBuffer(round(rec, out))
			}
			if c.P > 0 {
				s.Params[cell.P] = device.HostBuffer(round(proj, c.H))
			}
			if cache != nil {
				s.Kinds[cell.W], s.Kinds[cell.R], s.Kinds[cell.P] = kind, kind, kind
			}
			s.HN, s.CN, s.Cache, s.Version = b.Alloc(c.B*out), b.Alloc(c.B*s.CellWidth()), cache, 7
			s.Work = b.Alloc(b.ScanWork(&s))
			b.Scan(&s)
			return slices.Concat(s.Y.Host, s.HN.Host, s.CN.Host)
		}
		same := func(w []float32, _ int) []float32 { return w }
		// Backends of several sets may share pooled panels; each uses its own kernels.
		best := run(New(set), same, nil)
		for _, other := range floatSets() {
			got := run(New(other), same, nil)
			for i, v := range run(New(set), same, nil) {
				if v != best[i] || math.Abs(float64(got[i]-v)) > 1e-3*(1+math.Abs(float64(v))) {
					t.Fatalf("%+v: after %s, element %d is %g on %s and %g on %s", c, set.Name, i, got[i], other.Name, v, set.Name)
				}
			}
		}
		for _, kind = range []device.Kind{halves, quarter} {
			as := func(w []float32, cols int) []float32 { return rounded(kind, w, cols) }
			var first []float32
			for _, workers := range []int{1, 2, 3} {
				par.SetWorkers(workers)
				cache := &device.Cache{}
				got := run(b, same, cache)
				compareKind(t, kind, got, run(New(set), as, nil), 100*(c.I+out))
				if again := run(b, same, cache); !slices.Equal(again, got) {
					t.Fatalf("%+v: panels that were kept give other bits", c)
				}
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					t.Fatalf("%+v, kind %d: %d threads have other bits", c, kind, workers)
				}
			}
			if plain := run(b, same, nil); slices.Equal(plain, first) || !slices.Equal(plain, run(New(set), same, nil)) {
				t.Fatalf("%+v: without a cache it is not the float32 network", c)
			}
		}
	}
}

// Each kind has its name and its row in every set, and what a set lacks it says.
func TestKindsHaveKernels(t *testing.T) {
	for _, set := range simd.Sets() {
		var names []string
		for _, w := range set.Weights {
			names = append(names, w.Name)
			if set.NR*w.Bytes%4 != 0 || (w.Encode == nil) != (w.Name == "float32") {
				t.Errorf("%s: %+v", set.Name, w)
			}
		}
		if !slices.Equal(names, device.Kinds[:]) {
			t.Errorf("%s has kernels for %v, the kinds are %v", set.Name, names, device.Kinds)
		}
	}
	defer func() {
		if s, _ := recover().(string); !strings.Contains(s, fmt.Sprintf("kind %d", device.NumKinds)) {
			t.Errorf("a kind without kernels: %q", s)
		}
	}()
	New(simd.Best()).weights(device.NumKinds)
}
