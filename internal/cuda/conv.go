//go:build dl && linux

package cuda

import (
	"math/bits"

	"github.com/carousel-ml/carousel/internal/device"
)

// convWindow and convArgs are conv_window and conv_args of conv.cu.
type convWindow struct{ in, out, kernel, stride, dilation, before int32 }

type convArgs struct {
	x, weight, bias     uintptr
	dy                  uintptr
	y, dx, dWeight      uintptr
	lens                uintptr
	patch, turned, part uintptr
	first, places       int64
	images, in, out     int32
	groups              int32
	h, w                convWindow
	lanes, acc          int32
}

const (
	convChunk  = 4096  // places of one sum of conv_alone_dw
	mostImages = 65535 // of a launch: the limit of a grid's second dimension
)

// patchFloats is how much of the patches is made at once, so that it is still in the L2 cache
// when it is read. Tests lower it.
var patchFloats = 8 << 20

var (
	convPatches  = kernel{file: "conv", name: "conv_patches"}
	convResidual = kernel{file: "conv", name: "conv_residual"}
	convTurn     = kernel{file: "conv", name: "conv_turn"}
	convGather   = kernel{file: "conv", name: "conv_gather"}
	convAlone    = kernel{file: "conv", name: "conv_alone"}
	convAloneDX  = kernel{file: "conv", name: "conv_alone_dx"}
	convAloneDW  = kernel{file: "conv", name: "conv_alone_dw"}
	convAloneSum = kernel{file: "conv", name: "conv_alone_sum"}
)

// conv is one call of Conv or ConvGrad.
type conv struct {
	*device.ConvSpec
	b    *Backend
	args convArgs
}

func (b *Backend) conv(s *device.ConvSpec) *conv {
	window := func(w *device.Window) convWindow {
		return convWindow{int32(w.In), int32(w.Out), int32(w.Kernel), int32(w.Stride), int32(w.Dilation), int32(w.Before)}
	}
	c := &conv{ConvSpec: s, b: b}
	c.args = convArgs{x: s.X.Addr, weight: s.Weight.Addr, bias: s.Bias.Addr, dy: s.DY.Addr, y: s.Y.Addr, dx: s.DX.Addr, dWeight: s.DWeight.Addr, lens: s.Lens.Addr,
		images: int32(s.B), in: int32(s.I), out: int32(s.O), groups: int32(s.Groups), h: window(&s.H), w: window(&s.W), acc: flag(s.AccX)}
	c.args.lanes = int32(min(32, 1<<bits.Len(uint(c.patch()-1))))
	return c
}

func (c *conv) taps() int   { return c.H.Kernel * c.W.Kernel }
func (c *conv) depth() int  { return c.I / c.Groups * c.taps() } // of a product
func (c *conv) patch() int  { return c.I * c.taps() }            // the patches of all groups
func (c *conv) image() int  { return c.H.Out * c.W.Out }         // places of an image
func (c *conv) places() int { return c.B * c.image() }

// alone reports whether each group has one channel in and one out.
func (c *conv) alone() bool { return c.I == c.Groups && c.O == c.Groups && c.O > 1 }

// plain reports whether X is its own patches.
func (c *conv) plain() bool {
	for _, w := range [...]*device.Window{&c.H, &c.W} {
		if w.Kernel != 1 || w.Stride != 1 || w.Before != 0 || w.In != w.Out {
			return false
		}
	}
	return c.Lens.Zero()
}

// chunk is the number of places whose patches are made at once.
func (c *conv) chunk() int { return min(max(patchFloats/c.patch(), 1), c.places()) }

// patches queues the making of the patches of n places from first on, and returns them [n,patch].
func (c *conv) patches(first, n int) device.Buffer {
	if c.plain() && c.Kind != device.INT8 { // whose patches are changed
		return c.X.Slice(first*c.I, (first+n)*c.I)
	}
	c.args.first, c.args.places = int64(first), int64(n)
	launch(c.b, convPatches, blocks((n*int(c.args.lanes)+perBlock-1)/perBlock, 0), &c.args)
	return device.Buffer{Addr: c.args.patch, N: n * c.patch()}
}

// Conv queues s: products of patches, some places at a time.
func (b *Backend) Conv(s *device.ConvSpec) {
	c := b.conv(s)
	if c.places() == 0 {
		return
	}
	grouped := s.Groups > 1 && !s.Bias.Zero() && !c.alone()
	if grouped { // a batch of products has no bias for each
		b.Permute(&device.PermuteSpec{Dst: s.Y, Src: s.Bias, Dims: [4]int{1, 1, c.places(), s.O}, DstStride: [4]int{0, 0, s.O, 1}, SrcStride: [4]int{0, 0, 0, 1}})
	}
	b.enter()
	if c.alone() {
		c.eachImage(convAlone, c.image()*c.O, 0, c.B)
	} else {
		c.forward(grouped)
	}
	b.leave()
	if s.Act != 0 {
		b.Unary(s.Act, s.Y, s.Y, 0)
	}
}

// eachImage queues a kernel over n numbers of each of so many images.
func (c *conv) eachImage(k kernel, n, first, images int) {
	for end := first + images; first < end; first += mostImages {
		s := each(n)
		s.grid[1] = min(mostImages, end-first)
		c.args.first = int64(first)
		launch(c.b, k, s, &c.args)
	}
}

// forward queues the products; acc tells that they are added to Y.
func (c *conv) forward(acc bool) {
	n := c.chunk()
	c.args.patch = c.b.work(4 * n * c.patch())
	o, depth := c.O/c.Groups, c.depth()
	for first := 0; first < c.places(); first += n {
		n := min(n, c.places()-first)
		p := device.GemmSpec{M: n, N: o, K: depth, A: c.patches(first, n), LDA: c.patch(), StrideA: depth, B: c.Weight, TransB: true, StrideB: o * depth,
			C: c.Y.Slice(first*c.O, (first+n)*c.O), LDC: c.O, StrideC: o, Acc: acc, Kind: c.Kind, Batch: c.Groups}
		if c.Groups == 1 {
			p.Bias, p.Cache, p.Version = c.Bias, c.Cache, c.Version
		}
		c.multiply(p)
		if c.Kind == device.INT8 {
			launch(c.b, convResidual, warps(n*c.Groups), &c.args)
			p.Bias, p.Acc = device.Buffer{}, true
			c.multiply(p)
		}
	}
}

// multiply queues a product for each group: a batch, or, since products of 8 bits have one matrix
// of weights, one by one.
func (c *conv) multiply(p device.GemmSpec) {
	groups := 1
	if p.Kind == device.INT8 {
		groups, p.Batch = p.Batch, 1
	}
	a, b, o := p.A, p.B, p.C
	for g := range groups {
		p.A, p.B, p.C = a.Slice(g*p.StrideA, a.N), b.Slice(g*p.StrideB, b.N), o.Slice(g*p.StrideC, o.N)
		c.b.gemm(&p)
	}
}

// ConvGrad queues the gradients of s. It derives nothing from Weight that would be worth caching.
func (b *Backend) ConvGrad(s *device.ConvSpec) {
	c := b.conv(s)
	b.enter()
	if c.alone() {
		c.aloneGrad()
	} else {
		c.grad()
	}
	b.leave()
	if !s.DBias.Zero() && c.places() > 0 {
		b.SumRows(s.DBias, s.DY, c.places(), s.O, s.O, true)
	}
}

// grad queues the gradients of X, images at a time, and of the weights, places at a time.
func (c *conv) grad() {
	images := min(max(patchFloats/max(c.image()*c.patch(), 1), 1), c.B, mostImages)
	var w layout
	w.add(&c.args.turned, 4*c.Weight.N)
	w.add(&c.args.patch, 4*c.patch()*max(images*c.image(), c.chunk()))
	w.place(c.b)
	o, depth := c.O/c.Groups, c.depth()
	dy := func(first, n int) device.Buffer { return c.DY.Slice(first*c.O, (first+n)*c.O) }
	switch {
	case c.DX.Zero():
	case c.plain():
		c.b.gemm(&device.GemmSpec{M: c.places(), N: depth, K: o, A: c.DY, LDA: c.O, StrideA: o, B: c.Weight, StrideB: o * depth,
			C: c.DX, LDC: c.I, StrideC: depth, Acc: c.AccX, Batch: c.Groups})
	default:
		launch(c.b, convTurn, each(c.Weight.N), &c.args)
		turned := device.Buffer{Addr: c.args.turned, N: c.Weight.N}
		for first := 0; first < c.B; first += images {
			n := min(images, c.B-first)
			if rows := n * c.image(); rows > 0 {
				c.b.gemm(&device.GemmSpec{M: rows, N: depth, K: o, A: dy(first*c.image(), rows), LDA: c.O, StrideA: o, B: turned, StrideB: o * depth,
					C: device.Buffer{Addr: c.args.patch, N: rows * c.patch()}, LDC: c.patch(), StrideC: depth, Batch: c.Groups})
			}
			c.eachImage(convGather, c.H.In*c.W.In*c.I, first, n)
		}
	}
	if c.DWeight.Zero() {
		return
	}
	for first, step := 0, c.chunk(); first < c.places(); first += step {
		n := min(step, c.places()-first)
		c.b.gemm(&device.GemmSpec{M: o, N: depth, K: n, TransA: true, A: dy(first, n), LDA: c.O, StrideA: o, B: c.patches(first, n), LDB: c.patch(), StrideB: depth,
			C: c.DWeight, LDC: depth, StrideC: o * depth, Acc: true, Batch: c.Groups})
	}
}

// aloneGrad is grad for channels by themselves.
func (c *conv) aloneGrad() {
	if !c.DX.Zero() {
		c.eachImage(convAloneDX, c.H.In*c.W.In*c.I, 0, c.B)
	}
	if c.DWeight.Zero() || c.places() == 0 {
		return
	}
	chunks := (c.places() + convChunk - 1) / convChunk
	c.args.places, c.args.part = int64(c.places()), c.b.work(4*chunks*c.Weight.N)
	launch(c.b, convAloneDW, shape{grid: [3]int{(c.O + 31) / 32, c.taps(), chunks}, threads: perBlock, shared: 4 * perBlock}, &c.args)
	launch(c.b, convAloneSum, each(c.Weight.N), &c.args)
}
