package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// byteLaw is the product with operands in 8 bits, as device.INT8 defines it: x [m,k], w [n,k].
func byteLaw(start []float32, x, w []float32, m, n, k int) []float32 {
	y := slices.Clone(start)
	greatest := func(row []float32) (top float32) {
		for _, v := range row {
			top = max(top, v, -v)
		}
		return top
	}
	values, scales := make([]float64, n*k), make([]float32, n)
	for j := range n {
		s := float64(greatest(w[j*k:(j+1)*k]) / 127)
		unit := math.Ldexp(1, math.Ilogb(s)-15) // 16 significant bits
		s = math.Ceil(s/unit) * unit
		scales[j] = float32(s)
		for i, v := range w[j*k : (j+1)*k] {
			values[j*k+i] = math.RoundToEven(float64(v) / s)
		}
	}
	for r := range m {
		row := x[r*k : (r+1)*k]
		top, rounded := greatest(row), make([]float64, k)
		for i, v := range row {
			if top > 0 {
				rounded[i] = math.RoundToEven(float64(v * (127 / top)))
			}
		}
		for j := range n {
			sum := 0.0
			for i, v := range rounded {
				sum += v * values[j*k+i]
			}
			y[r*n+j] += float32(float32(sum) * float32(top/127*scales[j]))
		}
	}
	return y
}

// Products in 8 bits have the bits of their law on every kernel set, for any number of rows
// and threads and whether the weights are cached.
func TestByteProducts(t *testing.T) {
	defer par.SetWorkers(0)
	for _, size := range [][3]int{{1, 70, 5}, {2, 128, 64}, {3, 33, 130}, {7, 97, 300}, {40, 65, 1}, {61, 40, 256}, {30, 9, 77}, {1, 512, 1024}, {5, 3, 2*longRun + 7}} {
		m, n, k := size[0], size[1], size[2]
		r := rand.New(rand.NewPCG(uint64(m), uint64(k)))
		x, w, bias := randoms(r, m*k), randoms(r, n*k), randoms(r, n)
		if m > 2 {
			clear(x[k : 2*k]) // a row of zeros
		}
		start := make([]float32, 0, m*n)
		for range m {
			start = append(start, bias...)
		}
		want := byteLaw(start, x, w, m, n, k)
		for _, set := range simd.Sets() {
			b := New(set)
			for _, trans := range []bool{true, false} {
				weights := w
				if !trans {
					weights = make([]float32, n*k)
					for j := range n {
						for i := range k {
							weights[i*n+j] = w[j*k+i]
						}
					}
				}
				cache := &device.Cache{}
				for _, workers := range []int{1, 3} {
					par.SetWorkers(workers)
					for _, rows := range []int{m, 1, (m + 1) / 2} {
						for _, c := range []*device.Cache{cache, nil} {
							y := make([]float32, rows*n)
							b.Gemm(&device.GemmSpec{M: rows, N: n, K: k, A: device.HostBuffer(x[:rows*k]), B: device.HostBuffer(weights), TransB: trans,
								Bias: device.HostBuffer(bias), C: device.HostBuffer(y), Kind: device.INT8, Cache: c, Version: 1})
							if i := differ(y, want); i >= 0 {
								t.Fatalf("%s, %v, trans %v, %d rows, %d threads: element %d is %g, want %g", set.Name, size, trans, rows, workers, i, y[i], want[i])
							}
						}
					}
				}
			}
		}
	}
}

// leftByRounding is what byteLaw's rounding of the rows x [m,k] takes from them.
func leftByRounding(x []float32, m, k int) []float32 {
	left := make([]float32, len(x))
	for r := range m {
		top := float32(0)
		for _, v := range x[r*k : (r+1)*k] {
			top = max(top, v, -v)
		}
		for i, v := range x[r*k : (r+1)*k] {
			if left[r*k+i] = v; top > 0 {
				left[r*k+i] = v - float32(float32(math.RoundToEven(float64(v*(127/top))))*(top/127))
			}
		}
	}
	return left
}

// Convolutions in 8 bits have the bits of two products of the law, of patches and of what their rounding left, on every
// kernel set and for any number of threads and images; they are as close to those of float64 as 15 bits are.
func TestByteConv(t *testing.T) {
	defer par.SetWorkers(0)
	for _, c := range []struct {
		B, I, O, G int
		H, W       device.Window
	}{
		{1, 1, 258, 1, device.Window{In: 640, Out: 4, Kernel: 256, Stride: 128, Dilation: 1}, device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}},
		{3, 33, 40, 1, device.Window{In: 9, Out: 5, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}, device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}},
		{2, 6, 10, 2, device.Window{In: 12, Out: 12, Kernel: 3, Stride: 1, Dilation: 2, Before: 2}, device.Window{In: 20, Out: 9, Kernel: 4, Stride: 2, Dilation: 1}},
		{5, 1, 1, 1, device.Window{In: 7, Out: 7, Kernel: 1, Stride: 1, Dilation: 1}, device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}},
	} {
		r := rand.New(rand.NewPCG(41, uint64(c.O)))
		image, places := c.H.In*c.W.In*c.I, c.H.Out*c.W.Out
		i, o := c.I/c.G, c.O/c.G
		depth := i * c.H.Kernel * c.W.Kernel
		x, w, bias := randoms(r, c.B*image), randoms(r, c.O*depth), randoms(r, c.O)
		for n := range x {
			x[n] *= float32(math.Exp(3 * r.NormFloat64())) // small numbers beside large ones
		}
		clear(x[:image/4])
		want := make([]float32, c.B*places*c.O)
		for g := range c.G {
			patches := make([]float32, 0, c.B*places*depth)
			start := make([]float32, 0, c.B*places*o)
			for b := range c.B {
				for h := range c.H.Out {
					for v := range c.W.Out {
						start = append(start, bias[g*o:(g+1)*o]...)
						for n := range i {
							for j := range c.H.Kernel {
								for k := range c.W.Kernel {
									p, q := h*c.H.Stride-c.H.Before+j*c.H.Dilation, v*c.W.Stride-c.W.Before+k*c.W.Dilation
									value := float32(0) // padding
									if p >= 0 && p < c.H.In && q >= 0 && q < c.W.In {
										value = x[b*image+(p*c.W.In+q)*c.I+g*i+n]
									}
									patches = append(patches, value)
								}
							}
						}
					}
				}
			}
			rows, weights := c.B*places, w[g*o*depth:(g+1)*o*depth]
			part := byteLaw(byteLaw(start, patches, weights, rows, o, depth), leftByRounding(patches, rows, depth), weights, rows, o, depth)
			rounded := slices.Clone(weights)
			simd.RoundBytes(rounded, depth, simd.Levels8)
			for row := range rows {
				copy(want[row*c.O+g*o:], part[row*o:(row+1)*o])
				top := 0.0
				for _, v := range patches[row*depth:][:depth] {
					top = max(top, math.Abs(float64(v)))
				}
				for j := range o {
					sum, most := float64(start[row*o+j]), 0.0
					for k, v := range patches[row*depth:][:depth] {
						sum += float64(v) * float64(rounded[j*depth+k])
						most += math.Abs(float64(rounded[j*depth+k]))
					}
					if d := math.Abs(sum - float64(part[row*o+j])); d > most*top*0x1p-15+1e-6*math.Abs(sum) {
						t.Fatalf("%+v: element %d,%d is %g, in float64 %g", c, row, g*o+j, part[row*o+j], sum)
					}
				}
			}
		}
		for _, set := range simd.Sets() {
			b := New(set)
			for _, workers := range []int{1, 3} {
				par.SetWorkers(workers)
				for _, images := range []int{c.B, 1} {
					y := make([]float32, images*places*c.O)
					b.Conv(&device.ConvSpec{B: images, I: c.I, O: c.O, Groups: c.G, H: c.H, W: c.W, X: device.HostBuffer(x[:images*image]), Y: device.HostBuffer(y),
						Weight: device.HostBuffer(w), Bias: device.HostBuffer(bias), Kind: device.INT8})
					if n := differ(y, want); n >= 0 {
						t.Fatalf("%s, %+v, %d images, %d threads: element %d is %g, want %g", set.Name, c, images, workers, n, y[n], want[n])
					}
				}
			}
		}
	}
}

// differ returns the first element whose bits are not those of want, or -1.
func differ(got, want []float32) int {
	for i, v := range got {
		if math.Float32bits(v) != math.Float32bits(want[i]) {
			return i
		}
	}
	return -1
}

// A number that is not finite spoils its row, and no other.
func TestByteProductsOfNaN(t *testing.T) {
	const m, n, k = 5, 40, 70
	r := rand.New(rand.NewPCG(7, 8))
	x, w := randoms(r, m*k), randoms(r, n*k)
	x[1*k+3], x[3*k+69] = float32(math.NaN()), float32(math.Inf(-1))
	for _, set := range simd.Sets() {
		y := make([]float32, m*n)
		New(set).Gemm(&device.GemmSpec{M: m, N: n, K: k, A: device.HostBuffer(x), B: device.HostBuffer(w), TransB: true, C: device.HostBuffer(y), Kind: device.INT8})
		for i, v := range y {
			if row := i / n; (v != v) != (row == 1 || row == 3) {
				t.Fatalf("%s: row %d has %g", set.Name, row, v)
			}
		}
	}
}

// A layer whose matrices are in 8 bits, all or some, computes the cell of the law's products:
// step by step, for every split.
func TestByteScan(t *testing.T) {
	defer par.SetWorkers(0)
	for _, c := range []struct{ B, I, H int }{{1, 30, 256}, {3, 30, 70}, {40, 33, 64}, {17, 1, 96}} {
		const T = 5
		r := rand.New(rand.NewPCG(33, uint64(c.H)))
		x, w, rec, bias := randoms(r, T*c.B*c.I), randoms(r, 4*c.H*c.I), randoms(r, 4*c.H*c.H), randoms(r, 4*c.H)
		for i := range rec {
			rec[i] /= 16
		}
		for _, set := range simd.Sets() {
			b := New(set)
			for _, kinds := range [][2]device.Kind{{device.INT8, device.INT8}, {device.INT8, device.F32}, {device.F32, device.INT8}} {
				scan := func(x, h0, c0 []float32, steps int) (y, cn []float32) {
					s := device.ScanSpec{Cell: cell.LSTM, T: steps, B: c.B, I: c.I, H: c.H, YLd: c.H}
					s.Kinds[cell.W], s.Kinds[cell.R] = kinds[0], kinds[1]
					s.X, s.Y, s.HN, s.CN = device.HostBuffer(x), b.Alloc(steps*c.B*c.H), b.Alloc(c.B*c.H), b.Alloc(c.B*c.H)
					for p, v := range map[cell.Param][]float32{cell.W: w, cell.R: rec, cell.BW: bias, cell.H0: h0, cell.C0: c0} {
						if v != nil {
							s.Params[p] = device.HostBuffer(v)
						}
					}
					s.Work = b.Alloc(b.ScanWork(&s))
					b.Scan(&s)
					return s.Y.Host, s.CN.Host
				}
				par.SetWorkers(1)
				whole, _ := scan(x, nil, nil, T)
				for _, workers := range []int{2, 3} {
					par.SetWorkers(workers)
					if got, _ := scan(x, nil, nil, T); !slices.Equal(got, whole) {
						t.Fatalf("%s, %+v, %v: %d threads have other bits", set.Name, c, kinds, workers)
					}
				}
				par.SetWorkers(1)
				h, cs := make([]float32, c.B*c.H), make([]float32, c.B*c.H)
				product := func(kind device.Kind, start, x, w []float32, k int) []float32 {
					if kind == device.INT8 {
						return byteLaw(start, x, w, c.B, 4*c.H, k)
					}
					y := slices.Clone(start)
					b.Gemm(&device.GemmSpec{M: c.B, N: 4 * c.H, K: k, A: device.HostBuffer(x), B: device.HostBuffer(w), TransB: true, C: device.HostBuffer(y), Acc: true})
					return y
				}
				for step := range T {
					gates := make([]float32, 0, c.B*4*c.H)
					for range c.B {
						gates = append(gates, bias...)
					}
					gates = product(kinds[0], gates, x[step*c.B*c.I:][:c.B*c.I], w, c.I)
					gates = product(kinds[1], gates, h, rec, c.H)
					hid := make([]float32, len(h))
					set.LSTM(&simd.CellArgs{Rows: c.B, H: c.H, Units: c.H, Gates: &gates[0], CPrev: &cs[0], C: &cs[0], Hid: &hid[0], Out: &h[0], LDOut: c.H})
					if i := differ(whole[step*c.B*c.H:][:len(hid)], hid); i >= 0 {
						t.Fatalf("%s, %+v, %v: step %d, element %d is %g, want %g", set.Name, c, kinds, step, i, whole[step*c.B*c.H+i], hid[i])
					}
				}
			}
		}
	}
}

// BenchmarkByteStep runs steps of two layers in float32 and in 8 bits by turns, and reports the
// median time of each and their ratio.
func BenchmarkByteStep(b *testing.B) {
	for _, c := range []struct{ H, B, T int }{{1024, 1, 1}, {1024, 1, 16}, {1024, 8, 1}, {256, 1, 1}, {256, 1, 64}, {256, 4, 1}, {256, 16, 1}, {256, 16, 32}, {256, 64, 1}, {256, 64, 32}, {64, 1, 32}} {
		b.Run(fmt.Sprintf("H=%d/B=%d/T=%d", c.H, c.B, c.T), func(b *testing.B) {
			r := rand.New(rand.NewPCG(35, 36))
			back := New(simd.Best())
			layers := func(kind device.Kind) func() {
				var specs [2]device.ScanSpec
				x := device.HostBuffer(randoms(r, c.T*c.B*c.H))
				for i := range specs {
					s := &specs[i]
					*s = device.ScanSpec{Cell: cell.LSTM, T: c.T, B: c.B, I: c.H, H: c.H, YLd: c.H, X: x, Y: back.Alloc(c.T * c.B * c.H),
						HN: back.Alloc(c.B * c.H), CN: back.Alloc(c.B * c.H), Cache: &device.Cache{}, Version: 1}
					s.Kinds[cell.W], s.Kinds[cell.R] = kind, kind
					for p, n := range map[cell.Param]int{cell.W: 4 * c.H * c.H, cell.R: 4 * c.H * c.H, cell.BW: 4 * c.H} {
						s.Params[p] = device.HostBuffer(randoms(r, n))
					}
					s.Params[cell.H0], s.Params[cell.C0] = s.HN, s.CN
					s.Work = back.Alloc(back.ScanWork(s))
					x = s.Y
				}
				return func() {
					back.Scan(&specs[0])
					back.Scan(&specs[1])
				}
			}
			kinds := []func(){layers(device.F32), layers(device.INT8)}
			for _, step := range kinds {
				step() // packs the weights
			}
			var times [2][]float64
			for b.Loop() {
				for i, step := range kinds {
					step() // each finds what a stream of its own steps leaves in the caches
					start := time.Now()
					step()
					times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/1e3)
				}
			}
			var median [2]float64
			for i, t := range times {
				slices.Sort(t)
				median[i] = t[len(t)/2]
			}
			b.ReportMetric(median[0], "us/float32")
			b.ReportMetric(median[1], "us/int8")
			b.ReportMetric(median[0]/median[1], "ratio")
		})
	}
}
