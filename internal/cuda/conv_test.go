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

// hostOps computes by the CPU what convolutions use and this package has not yet.
type hostOps struct {
	device.Backend
	b *Backend
}

func (h hostOps) Unary(f device.Function, y, x device.Buffer, alpha float32) {
	v := get(h.b, x)
	cpu.New(simd.Best()).Unary(f, device.HostBuffer(v), device.HostBuffer(v), alpha)
	h.b.Upload(y, v)
}

func (h hostOps) SumRows(dst, src device.Buffer, rows, cols, ld int, acc bool) {
	to := get(h.b, dst)
	cpu.New(simd.Best()).SumRows(device.HostBuffer(to), device.HostBuffer(get(h.b, src)), rows, cols, ld, acc)
	h.b.Upload(dst, to)
}

func (h hostOps) Permute(s *device.PermuteSpec) {
	p, to := *s, get(h.b, s.Dst)
	p.Src, p.Dst = device.HostBuffer(get(h.b, s.Src)), device.HostBuffer(to)
	cpu.New(simd.Best()).Permute(&p)
	h.b.Upload(s.Dst, to)
}

func convolver(t *testing.T) *Backend {
	b := emulated(t, Options{})
	b.Backend = hostOps{b: b}
	return b
}

func TestConv(t *testing.T) { devicetest.Run(t, convolver(t), "Conv") }

// convCase is a convolution of random numbers.
type convCase struct {
	device.ConvSpec
	lens []int32
}

// run returns Y, DX, DWeight and DBias.
func (c convCase) run(b device.Backend) [][]float32 {
	s, r := c.ConvSpec, rand.New(rand.NewPCG(7, uint64(c.O)))
	nx, ny, nw := s.B*s.H.In*s.W.In*s.I, s.B*s.H.Out*s.W.Out*s.O, s.O*s.I/s.Groups*s.H.Kernel*s.W.Kernel
	x := normal(r, nx, 1)
	for i := range x {
		if s.Kind == device.INT8 {
			x[i] *= float32(math.Exp(2 * r.NormFloat64())) // small numbers beside large ones
		}
	}
	s.Lens, s.X, s.Weight, s.Bias, s.Y = putInts(b, c.lens), put(b, x), put(b, normal(r, nw, 0.1)), put(b, normal(r, s.O, 1)), b.Alloc(ny)
	b.Conv(&s)
	all := [][]float32{get(b, s.Y)}
	if s.Kind != device.F32 {
		return all
	}
	s.Act, s.AccX = 0, true
	s.DY, s.DX, s.DWeight, s.DBias = put(b, normal(r, ny, 0.1)), put(b, normal(r, nx, 1)), put(b, normal(r, nw, 1)), put(b, normal(r, s.O, 1))
	b.ConvGrad(&s)
	return append(all, get(b, s.DX), get(b, s.DWeight), get(b, s.DBias))
}

// Shapes whose patches are made in several pieces, of whole images and of parts; that need none;
// and many places of channels by themselves.
func TestConvLarge(t *testing.T) {
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
			got, want := c.run(convolver(t)), c.run(cpu.New(simd.Best()))
			for i, what := range []string{"y", "dx", "dweight", "dbias"} {
				near(t, what, got[i], want[i], 1e-5)
			}
		})
	}
}
