//go:build dl && linux

package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/simd"
)

func TestConv(t *testing.T) {
	long(t)
	devicetest.Run(t, emulated(t, Options{}), "Conv")
}

// convCase is a convolution of random numbers.
type convCase struct {
	device.ConvSpec
	lens []int32
}

// run returns Y, DX, DWeight and DBias, and the last one again as summed in float64.
func (c convCase) run(b device.Backend) [][]float32 {
	s, r := c.ConvSpec, rand.New(rand.NewPCG(7, uint64(c.O)))
	nx, ny, nw := s.B*s.H.In*s.W.In*s.I, s.B*s.H.Out*s.W.Out*s.O, s.O*s.I/s.Groups*s.H.Kernel*s.W.Kernel
	x := normal(r, nx, 1)
	for i := range x {
		if s.Kind == device.INT8 {
			x[i] *= float32(math.Exp(2 * r.NormFloat64())) // small numbers beside large ones
		}
	}
	scale := float32(1 / math.Sqrt(float64(nw)/float64(s.O))) // so that sums are near 1, however long
	s.Lens, s.X, s.Weight, s.Bias, s.Y = putInts(b, c.lens), put(b, x), put(b, normal(r, nw, scale)), put(b, normal(r, s.O, 1)), b.Alloc(ny)
	b.Conv(&s)
	all := [][]float32{get(b, s.Y)}
	if s.Kind != device.F32 {
		return all
	}
	s.Act, s.AccX = 0, true
	dy, dx, dw, dbias := normal(r, ny, 0.1), normal(r, nx, 1), normal(r, nw, 1), normal(r, s.O, 1)
	s.DY, s.DX, s.DWeight, s.DBias = put(b, dy), put(b, dx), put(b, dw), put(b, dbias)
	b.ConvGrad(&s)
	for o := range dbias {
		sum := float64(dbias[o])
		for i := o; i < len(dy); i += s.O {
			sum += float64(dy[i])
		}
		dbias[o] = float32(sum)
	}
	return append(all, get(b, s.DX), get(b, s.DWeight), get(b, s.DBias), dbias)
}

// Shapes whose patches are made in several pieces, of whole images and of parts; that need none;
// and many places of channels by themselves.
func TestConvLarge(t *testing.T) {
	long(t)
	line := func(in, out, kernel, stride, before int) device.Window {
		return device.Window{In: in, Out: out, Kernel: kernel, Stride: stride, Dilation: 1, Before: before}
	}
	one := line(1, 1, 1, 1, 0)
	defer func(n int) { patchFloats = n }(patchFloats)
	patchFloats = 400_000
	for name, c := range map[string]convCase{
		"pieces of images": {ConvSpec: device.ConvSpec{B: 5, I: 40, O: 3, Groups: 1, H: line(21, 21, 5, 1, 2), W: line(24, 2, 21, 2, 0)}, lens: []int32{21, 3, 0, 10, 20}},
		"image of pieces":  {ConvSpec: device.ConvSpec{B: 1, I: 1, O: 2, Groups: 1, H: one, W: line(3000, 2000, 1001, 1, 0), Act: cell.Tanh}},
		"plain":            {ConvSpec: device.ConvSpec{B: 3, I: 12, O: 9, Groups: 3, H: line(5, 5, 1, 1, 0), W: line(7, 7, 1, 1, 0), Act: cell.ReLU}},
		"plain, ragged":    {ConvSpec: device.ConvSpec{B: 3, I: 12, O: 8, Groups: 1, H: line(5, 5, 1, 1, 0), W: line(7, 7, 1, 1, 0)}, lens: []int32{2, 0, 5}},
		"multiplied":       {ConvSpec: device.ConvSpec{B: 2, I: 6, O: 18, Groups: 6, H: line(30, 15, 3, 2, 1), W: one}, lens: []int32{30, 11}},
		"channels alone":   {ConvSpec: device.ConvSpec{B: 3, I: 37, O: 37, Groups: 37, H: line(3001, 3001, 2, 1, 1), W: one}, lens: []int32{3000, 1, 2000}},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := c.run(emulated(t, Options{})), c.run(cpu.New(simd.Best()))
			if len(want) > 1 {
				want[3] = want[4] // the CPU's sum in float32, of up to 9,000 terms, is off by 1e-5 itself
			}
			for i, what := range []string{"y", "dx", "dweight", "dbias"}[:min(len(want), 4)] {
				near(t, what, got[i], want[i], 1e-5)
			}
		})
	}
}

// Convolutions of 16 and of 8 bits. Those of 8 have the bits of the CPU.
func TestConvKinds(t *testing.T) {
	long(t)
	defer func(n int) { patchFloats = n }(patchFloats)
	patchFloats = 3000
	if !rounds(emulated(t, Options{})) {
		t.Skip("products do not round their operands yet")
	}
	for kind := device.BF16; kind < device.NumKinds; kind++ {
		for _, c := range []device.ConvSpec{
			{B: 1, I: 1, O: 258, Groups: 1, H: device.Window{In: 640, Out: 4, Kernel: 256, Stride: 128, Dilation: 1}, W: device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}},
			{B: 3, I: 33, O: 40, Groups: 1, H: device.Window{In: 9, Out: 5, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}, W: device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}},
			{B: 2, I: 6, O: 10, Groups: 2, H: device.Window{In: 12, Out: 12, Kernel: 3, Stride: 1, Dilation: 2, Before: 2}, W: device.Window{In: 20, Out: 9, Kernel: 4, Stride: 2, Dilation: 1}},
			{B: 2, I: 6, O: 10, Groups: 2, H: device.Window{In: 3, Out: 3, Kernel: 1, Stride: 1, Dilation: 1}, W: device.Window{In: 4, Out: 4, Kernel: 1, Stride: 1, Dilation: 1}},
			{B: 5, I: 1, O: 1, Groups: 1, H: device.Window{In: 7, Out: 7, Kernel: 1, Stride: 1, Dilation: 1}, W: device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}},
		} {
			c.Kind = kind
			got, want := convCase{ConvSpec: c}.run(emulated(t, Options{})), convCase{ConvSpec: c}.run(cpu.New(simd.Best()))
			tol := 1e-5
			if kind == device.INT8 {
				tol = 0
			}
			near(t, device.Kinds[kind], got[0], want[0], tol)
		}
	}
}

// rounds reports whether products of 16 bits round their operands.
func rounds(b *Backend) bool {
	c := b.Alloc(1)
	b.Gemm(&device.GemmSpec{M: 1, N: 1, K: 1, A: put(b, []float32{1 + 0x1p-20}), B: put(b, []float32{1}), C: c, Kind: device.BF16})
	return get(b, c)[0] == 1
}

// What rounding left of patches, to the bit: of zeros, faint numbers, infinities and NaN too.
func TestConvResidual(t *testing.T) {
	const rows, depth = 9, 70
	x := normal(rand.New(rand.NewPCG(5, 6)), rows*depth, 3)
	clear(x[:depth])
	for i := range depth {
		x[depth+i] *= 0x1p-120
		x[2*depth+i] *= 1e30
	}
	x[3*depth+2], x[4*depth+69], x[5*depth] = float32(math.Inf(-1)), float32(math.NaN()), -500
	b := emulated(t, Options{})
	on := put(b, x)
	b.enter()
	launch(b, convResidual, warps(rows), &convArgs{patch: on.Addr, places: 3, in: 3 * depth, groups: 3, h: convWindow{kernel: 1}, w: convWindow{kernel: 1}})
	b.leave()
	got := get(b, on)
	for _, kind := range simd.Best().Weights {
		if kind.Products == nil {
			continue
		}
		rounded, scale, want := make([]int8, rows*simd.ByteDepth(depth)), make([]float32, rows), make([]float32, len(x))
		kind.Products.Rows(rounded, scale, x, rows, depth, depth, 1)
		kind.Products.Residual(want, rounded, scale, x, rows, depth, depth)
		for i, w := range want {
			if math.Float32bits(got[i]) != math.Float32bits(w) && (got[i] == got[i] || w == w) {
				t.Errorf("element %d of row %d is %g, want %g", i%depth, i/depth, got[i], w)
			}
		}
	}
}
