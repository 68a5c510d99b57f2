package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// A convolution is a product: the patches of the input that outputs read, one row for
// each place of the output, times the weights. Float32 kernels read patches where they
// are, in the order [I/Groups][H.Kernel][W.Kernel] of the weights. For other weights
// and for the gradient of the weights, the patches of a tile of rows are copied
// together as [H.Kernel][W.Kernel][I/Groups], which needs fewer copies. If each group
// has one channel in and one out, a row of products of its own would be empty, and
// channels are computed side by side instead.
//
// In the comments, places are the rows of Y [places,O], and depth is the length of a
// patch.

// patchSize is the number of elements of the patches of a tile and of its results,
// unless the least number of rows has more.
const patchSize = 32 << 10

// conv is one call of Conv or ConvGrad.
type conv struct {
	device.ConvSpec
	b       *Backend
	weights *convWeights
	own     convWeights // without a cache
	rows    int         // of a tile
	patch   []float32
	grad    []float32 // of the weights, as they are multiplied
	reach   []int     // the places of a patch in X, from its first
	biases  []panels  // of each group, in bias
	bias    []float32
	strips  strips
}

// strips divides the places of the output into strips whose patches are evenly spaced in X.
type strips struct {
	rows, tiles  int // of a strip
	x, y         int // from a row to the next, in X and in Y
	count        int // of an image
	nextX, nextY int // from a strip to the next
}

// convWeights is weights as they are multiplied: B of the product of each group, or, if
// channels are side by side, [H.Kernel,W.Kernel,O].
type convWeights struct {
	groups []panels
	flat   []float32
}

var convPool par.Pool[conv]

func (b *Backend) conv(s *device.ConvSpec) *conv {
	c := convPool.Get()
	c.ConvSpec, c.b = *s, b
	c.rows = max(4*b.set.MR, patchSize/max(c.depth(), c.O, 1))
	return c
}

func (c *conv) put() {
	c.ConvSpec, c.weights = device.ConvSpec{}, nil
	convPool.Put(c)
}

func (c *conv) depth() int      { return c.H.Kernel * c.W.Kernel * (c.I / c.Groups) }
func (c *conv) places() int     { return c.B * c.H.Out * c.W.Out }
func (c *conv) eachAlone() bool { return c.I == c.Groups && c.O == c.Groups && c.O > 1 }

// transpose copies weights [n,inner,taps] to [n,taps,inner], the order of copied patches, or
// with back adds them the other way.
func (c *conv) transpose(to, from []float32, n, inner, taps int, back bool) {
	for r := range n {
		a, b := to[r*inner*taps:][:inner*taps], from[r*inner*taps:][:inner*taps]
		for i := range inner {
			for t := range taps {
				if back {
					a[i*taps+t] = simd.Narrow(float64(a[i*taps+t]) + float64(b[t*inner+i]))
				} else {
					a[t*inner+i] = b[i*taps+t]
				}
			}
		}
	}
}

// prepare makes the weights for a forward or a backward pass, or takes them from the cache.
func (c *conv) prepare(cache *device.Cache, kind device.Kind, backward bool) {
	w, current := cachedIn(cache, c.Version, &c.own)
	if c.weights = w; current {
		return
	}
	taps, o, depth := c.H.Kernel*c.W.Kernel, c.O/c.Groups, c.depth()
	src := c.Weight.Host
	switch {
	case c.eachAlone():
		w.flat = grow(w.flat, c.Weight.N)
		c.transpose(w.flat, src, 1, c.O, taps, false)
	case backward || !c.inPlace():
		w.flat = grow(w.flat, c.Weight.N)
		c.transpose(w.flat, src, c.O, c.I/c.Groups, taps, false)
		src = w.flat
		fallthrough
	default:
		w.groups = resize(w.groups, c.Groups)
		for g := range w.groups {
			p := &w.groups[g]
			p.Weights = c.b.weights(kind)
			if backward {
				c.b.pack(p, src[g*o*depth:], o, depth, depth, false)
			} else {
				c.b.pack(p, src[g*o*depth:], depth, o, depth, true)
			}
		}
	}
	if cache != nil {
		cache.Store(c.Version, w)
	}
}

// Conv computes s. Work is divided by places.
func (b *Backend) Conv(s *device.ConvSpec) {
	c := b.conv(s)
	c.prepare(s.Cache, s.Kind, false)
	each := ceilDiv(minGemmWork, max(c.rows*c.O*c.depth(), 1))
	if c.places() > 0 && c.inPlace() {
		c.pad()
		c.arrange()
		par.For(c.places()/c.strips.rows*c.strips.tiles, each, c, (*conv).forwardInPlace)
	} else {
		par.For(ceilDiv(c.places(), c.rows), each, c, (*conv).forward)
	}
	c.put()
}

func (c *conv) forward(lo, hi int) {
	w := workspaces.Get()
	patch := w.floats(c.rows * c.depth())
	for ; lo < hi; lo++ {
		r0, r1 := lo*c.rows, min((lo+1)*c.rows, c.places())
		y := c.Y.Host[r0*c.O : r1*c.O]
		if c.eachAlone() {
			c.alone(r0, r1)
		} else {
			for g := range c.Groups {
				o := c.O / c.Groups
				c.unfold(patch, g, r0, r1)
				p := product{set: c.b.set, m: r1 - r0, n: o, k: c.depth(), a: patch, rs: c.depth(), cs: 1, panels: &c.weights.groups[g],
					c: y[g*o:], ldc: c.O, bias: within(c.Bias.Host, g*o, (g+1)*o), twice: c.Kind == device.INT8}
				p.part(0, p.m, 0, p.own())
			}
		}
		c.activate(y)
	}
	workspaces.Put(w)
}

func (c *conv) activate(y []float32) {
	if c.Act != 0 {
		functions[c.Act].forward(c.b.set, y, y, 0)
	}
}

// inPlace reports whether patches are read where they are.
func (c *conv) inPlace() bool {
	return !c.eachAlone() && c.b.weights(c.Kind).Encode == nil
}

// pad replaces X by a copy with its padding, if some patches have padding.
func (c *conv) pad() {
	if !c.padded() {
		return
	}
	h, w := c.H, c.W
	for _, v := range [...]*device.Window{&c.H, &c.W} {
		v.In, v.Before = (v.Out-1)*v.Stride+(v.Kernel-1)*v.Dilation+1, 0
	}
	c.patch = grow(c.patch, c.B*c.H.In*c.W.In*c.I)
	left := min(w.Before, c.W.In) * c.I
	right := left + max(min(w.In, c.W.In-w.Before), 0)*c.I // end of the inputs of a line
	for i := range c.B * c.H.In {
		line, row := c.patch[i*c.W.In*c.I:][:c.W.In*c.I], i%c.H.In-h.Before
		if row < 0 || row >= lengthOf(c.Lens, i/c.H.In, h.In) {
			clear(line)
			continue
		}
		clear(line[:left])
		copy(line[left:right], c.X.Host[(i/c.H.In*h.In+row)*w.In*c.I:])
		clear(line[right:])
	}
	c.X, c.Lens = device.HostBuffer(c.patch), device.Ints{}
}

// arrange sets strips, reach and biases.
func (c *conv) arrange() {
	line, s := c.W.In*c.I, &c.strips
	switch h, w := &c.H, &c.W; {
	case h.Stride*w.In == w.Stride*w.Out: // lines follow each other as places do
		*s = strips{rows: h.Out * w.Out, x: w.Stride * c.I, y: c.O, count: 1}
	case h.Out > w.Out: // columns, because long strips have fuller tiles
		*s = strips{rows: h.Out, x: h.Stride * line, y: w.Out * c.O, count: w.Out, nextX: w.Stride * c.I, nextY: c.O}
	default:
		*s = strips{rows: w.Out, x: w.Stride * c.I, y: c.O, count: h.Out, nextX: h.Stride * line, nextY: w.Out * c.O}
	}
	s.tiles = ceilDiv(s.rows, c.rows)
	if c.reach = c.reach[:0]; c.I > c.Groups || c.H.Kernel > 1 || c.W.Dilation*c.I > 1 { // otherwise a patch is one piece
		for i := range c.I / c.Groups {
			for j := range c.H.Kernel {
				for k := range c.W.Kernel {
					c.reach = append(c.reach, j*c.H.Dilation*line+k*c.W.Dilation*c.I+i)
				}
			}
		}
		c.reach = append(c.reach, 0)
	}
	if c.biases = c.biases[:0]; c.Bias.Zero() {
		return
	}
	o := c.O / c.Groups
	pitch := ceilDiv(o, c.b.set.NR) * c.b.set.NR
	c.bias, c.biases = grow(c.bias, c.Groups*pitch), resize(c.biases, c.Groups)
	clear(c.bias)
	for g := range c.biases {
		words := c.bias[g*pitch : (g+1)*pitch]
		copy(words, c.Bias.Host[g*o:(g+1)*o])
		c.biases[g] = panels{Weights: c.weights.groups[g].Weights, k: 1, n: o, line: c.b.set.NR, pitch: c.b.set.NR, words: words}
	}
}

// forwardInPlace computes tiles [lo,hi) of strips. The bias is the last link of a chain.
func (c *conv) forwardInPlace(lo, hi int) {
	s, o := &c.strips, c.O/c.Groups
	for ; lo < hi; lo++ {
		strip, r := lo/s.tiles, lo%s.tiles*c.rows
		image, rows := strip/s.count, min(c.rows, s.rows-r)
		x := c.X.Host[image*c.H.In*c.W.In*c.I+strip%s.count*s.nextX+r*s.x:]
		y := c.Y.Host[image*c.H.Out*c.W.Out*c.O+strip%s.count*s.nextY+r*s.y:]
		for g := range c.Groups {
			p := product{set: c.b.set, m: rows, n: o, k: c.depth(), a: x[g*(c.I/c.Groups):], rs: s.x, cs: 1, places: c.reach,
				panels: &c.weights.groups[g], c: y[g*o:], ldc: s.y}
			if len(c.biases) > 0 {
				p.then = addend{k: 1, a: unit, panels: &c.biases[g]}
			}
			p.part(0, p.m, 0, p.own())
		}
		if s.y == c.O {
			c.activate(y[:rows*c.O])
			continue
		}
		for i := range rows {
			c.activate(y[i*s.y:][:c.O])
		}
	}
}

// taps calls f for each piece of inputs that the places [r0,r1) read: the place, where
// the piece begins in X, and the taps of the kernel that are adjacent there, n from tap
// on.
func (c *conv) taps(r0, r1 int, f func(place, at, tap, n int)) {
	rows, adjacent := c.H, c.W.Dilation == 1 && c.Groups == 1
	for r0 < r1 { // a line of places
		image, w := r0/c.W.Out/c.H.Out, r0%c.W.Out
		rows.In = lengthOf(c.Lens, image, c.H.In)
		top, h0, h1 := rows.Reads(r0 / c.W.Out % c.H.Out)
		for ; w < c.W.Out && r0 < r1; w, r0 = w+1, r0+1 {
			left, w0, w1 := c.W.Reads(w)
			at := ((image*c.H.In+top)*c.W.In + left) * c.I // of the first tap
			if adjacent && c.W.In == c.W.Kernel && w1-w0 == c.W.In && c.H.Dilation == 1 && h0 < h1 {
				f(r0, at+h0*c.W.In*c.I, h0*c.W.Kernel, (h1-h0)*c.W.Kernel)
				continue
			}
			for j := h0; j < h1 && w0 < w1; j++ {
				line, tap := at+j*c.H.Dilation*c.W.In*c.I, j*c.W.Kernel
				if adjacent {
					f(r0, line+w0*c.I, tap+w0, w1-w0)
					continue
				}
				for k := w0; k < w1; k++ {
					f(r0, line+k*c.W.Dilation*c.I, tap+k, 1)
				}
			}
		}
	}
}

// unfold copies the patches of places [r0,r1) in group g.
func (c *conv) unfold(patch []float32, g, r0, r1 int) {
	depth, n := c.depth(), c.I/c.Groups
	if c.padded() {
		clear(patch[:(r1-r0)*depth])
	}
	c.taps(r0, r1, func(place, at, tap, count int) {
		copy(patch[(place-r0)*depth+tap*n:][:count*n], c.X.Host[at+g*n:])
	})
}

// padded reports whether some patches have padding.
func (c *conv) padded() bool {
	if !c.Lens.Zero() {
		return true
	}
	for _, w := range [...]*device.Window{&c.H, &c.W} {
		if _, lo, _ := w.Reads(0); lo > 0 {
			return true
		}
		if _, _, hi := w.Reads(w.Out - 1); hi < w.Kernel {
			return true
		}
	}
	return false
}

// alone computes places of channels side by side.
func (c *conv) alone(r0, r1 int) {
	y := c.Y.Host
	clear(y[r0*c.O : r1*c.O])
	c.taps(r0, r1, func(place, at, tap, _ int) {
		c.b.set.MulAdd(y[place*c.O:][:c.O], c.X.Host[at:][:c.O], c.weights.flat[tap*c.O:][:c.O])
	})
	for r := r0; r < r1 && !c.Bias.Zero(); r++ {
		c.b.set.Add(y[r*c.O:][:c.O], y[r*c.O:][:c.O], c.Bias.Host)
	}
}

// ConvGrad computes the gradients of s. That of X is divided by images, those of the
// weights by weights.
func (b *Backend) ConvGrad(s *device.ConvSpec) {
	c := b.conv(s)
	if !s.DX.Zero() {
		c.prepare(s.BackCache, device.F32, true)
		par.For(c.B, 1, c, (*conv).inputGrad)
	}
	if !s.DWeight.Zero() && c.places() > 0 {
		c.weightGrad()
	}
	if !s.DBias.Zero() {
		b.SumRows(s.DBias, s.DY, c.places(), c.O, c.O, true)
	}
	c.put()
}

func (c *conv) inputGrad(lo, hi int) {
	w := workspaces.Get()
	depth, image, n, o, set := c.depth(), c.H.Out*c.W.Out, c.I/c.Groups, c.O/c.Groups, c.b.set
	dx, dy := c.DX.Host, c.DY.Host
	patch := w.floats(c.rows * depth)
	if size := c.H.In * c.W.In * c.I; !c.AccX {
		clear(dx[lo*size : hi*size])
	}
	for r0 := lo * image; r0 < hi*image; r0 += c.rows {
		r1 := min(r0+c.rows, hi*image)
		if c.eachAlone() {
			c.taps(r0, r1, func(place, at, tap, _ int) {
				set.MulAdd(dx[at:][:c.O], dy[place*c.O:][:c.O], c.weights.flat[tap*c.O:][:c.O])
			})
			continue
		}
		for g := range c.Groups {
			p := product{set: set, m: r1 - r0, n: depth, k: o, a: dy[r0*c.O+g*o:], rs: c.O, cs: 1, panels: &c.weights.groups[g], c: patch, ldc: depth}
			p.part(0, p.m, 0, p.own())
			c.taps(r0, r1, func(place, at, tap, count int) {
				d := dx[at+g*n:][:count*n]
				set.Add(d, d, patch[(place-r0)*depth+tap*n:][:count*n])
			})
		}
	}
	workspaces.Put(w)
}

// weightGrad sums over places in ascending order, a tile at a time.
func (c *conv) weightGrad() {
	depth, o, taps := c.depth(), c.O/c.Groups, c.H.Kernel*c.W.Kernel
	c.grad = grow(c.grad, c.DWeight.N)
	if c.eachAlone() {
		clear(c.grad)
		par.For(taps, 1, c, (*conv).aloneGrad)
		c.transpose(c.DWeight.Host, c.grad, 1, c.O, taps, true)
		return
	}
	c.patch = grow(c.patch, c.rows*depth)
	for g := range c.Groups {
		for r := 0; r < c.places(); r += c.rows {
			m := min(c.rows, c.places()-r)
			c.unfold(c.patch, g, r, r+m)
			q := gemmPool.Get()
			q.p = product{set: c.b.set, m: o, n: depth, k: m, a: c.DY.Host[r*c.O+g*o:], rs: 1, cs: c.O, b: c.patch, ldb: depth,
				c: c.grad[g*o*depth:], ldc: depth, acc: r > 0}
			q.p.compute()
			q.put()
		}
	}
	c.transpose(c.DWeight.Host, c.grad, c.O, c.I/c.Groups, taps, true)
}

// aloneGrad sums the gradients of taps [lo,hi) of channels side by side.
func (c *conv) aloneGrad(lo, hi int) {
	c.taps(0, c.places(), func(place, at, tap, _ int) {
		if tap >= lo && tap < hi {
			c.b.set.MulAdd(c.grad[tap*c.O:][:c.O], c.DY.Host[place*c.O:][:c.O], c.X.Host[at:][:c.O])
		}
	})
}
