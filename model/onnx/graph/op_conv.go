package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// Convolutions, pools and their kin compute with channels last; see layout.go.

// spatial returns an attribute with one number of at least least for each spatial
// axis; def if it is not given.
func (n *node) spatial(name string, axes int, least, def int64) (both [2]int) {
	list := n.intsAttr(name)
	if list == nil {
		list = slices.Repeat([]int64{def}, axes)
	}
	if len(list) != axes {
		n.failf("attribute %s has %d numbers, expected %d", name, len(list), axes)
	}
	for i, v := range list {
		if v < least || v > math.MaxInt32 {
			n.failf("attribute %s is %d, expected %d or more", name, v, least)
		}
		both[i] = int(v)
	}
	return both
}

// checkSpatial returns the number of spatial dimensions of an operand [N,C,...] of floats.
func (n *node) checkSpatial(x *value) int {
	if x.kind != floats || x.rank() < 3 {
		n.failf("needs floats of shape [N,C,...], got %s of shape %s", x.kind, shape(x.dims))
	}
	if x.rank() > 4 {
		n.failf("its operand of shape %s has %d spatial dimensions, 1 or 2 are supported", shape(x.dims), x.rank()-2)
	}
	return x.rank() - 2
}

// extent returns the number of inputs that a kernel spans along an axis.
func extent(w *tensor.Windows, axis int) int { return (w.Kernel[axis]-1)*w.Dilation[axis] + 1 }

// windows returns the windows of a kernel over the spatial dimensions of an operand
// [N,C,...], and the shape of the result with channels.
func (n *node) windows(x []int, kernel [2]int, channels int) (w tensor.Windows, out []int) {
	axes := len(x) - 2
	w = tensor.Windows{Kernel: kernel, Stride: n.spatial("strides", axes, 1, 1), Dilation: n.spatial("dilations", axes, 1, 1), Ceil: n.intAttr("ceil_mode", 0) != 0}
	n.pads(&w, axes)
	auto := n.stringAttr("auto_pad", "NOTSET")
	out = []int{x[0], channels}
	for i := range axes {
		in, stride := x[2+i], w.Stride[i]
		if auto == "SAME_UPPER" || auto == "SAME_LOWER" {
			w.Padding[i] = split(max(0, ((in+stride-1)/stride-1)*stride+extent(&w, i)-in), auto)
		}
		room := in + w.Padding[i][0] + w.Padding[i][1] - extent(&w, i)
		if room < 0 || in == 0 {
			n.failf("a kernel over %d does not fit %d with padding", extent(&w, i), in+w.Padding[i][0]+w.Padding[i][1])
		}
		size := room/stride + 1
		if w.Ceil && room%stride > 0 && size*stride < in+w.Padding[i][0] {
			size++ // a last window that begins inside
		}
		out = append(out, size)
	}
	return w, out
}

// pads reads the attribute pads, if auto_pad does not replace it.
func (n *node) pads(w *tensor.Windows, axes int) {
	switch auto := n.stringAttr("auto_pad", "NOTSET"); auto {
	case "NOTSET":
	case "VALID", "SAME_UPPER", "SAME_LOWER":
		return
	default:
		n.failf("attribute auto_pad: %q is not supported", clip(auto))
	}
	list := n.intsAttr("pads")
	if list == nil {
		return
	}
	if len(list) != 2*axes {
		n.failf("attribute pads has %d numbers, expected %d", len(list), 2*axes)
	}
	for i, v := range list {
		if v < 0 || v > math.MaxInt32 {
			n.failf("pads %v must be 0 or more", list)
		}
		w.Padding[i%axes][i/axes] = int(v)
	}
}

// split divides padding between both ends.
func split(total int, auto string) [2]int {
	less, more := total/2, total-total/2
	if auto == "SAME_LOWER" {
		return [2]int{more, less}
	}
	return [2]int{less, more}
}

// convolution is the constant weights of a Conv or ConvTranspose.
type convolution struct{ weight, bias *tensor.Param }

func prepareConv(m *Model, n *node) any {
	w, b := m.constant(n, 1), m.constant(n, 2)
	if w == nil || w.kind != floats || w.len() == 0 || w.rank() < 3 || w.rank() > 4 || n.has(2) && b == nil || b != nil && (b.kind != floats || b.len() == 0) {
		return nil
	}
	c := &convolution{}
	if n.op == "Conv" {
		c.weight = m.weight(n, 1, "convolution", nil, w.dims...)
	} else {
		c.weight = m.param(w.host, w.dims...)
	}
	if b != nil {
		c.bias = m.param(b.host, b.len())
	}
	return c
}

// operands returns weights and bias on the tape or as parameters.
func (c *convolution) operands(r *run, in []*value) (w, b *tensor.Tensor) {
	if c != nil {
		return c.weight.T(), c.bias.T()
	}
	w = r.tensor(in[1], in[1].dims...)
	if in[2] != nil {
		b = r.tensor(in[2], in[2].len())
	}
	return w, b
}

// convOptions checks the operands of a convolution or, with turned, a transposed one, whose
// weights are [C,M/groups,...] and not [M,C/groups,...], and returns the kernel.
func (n *node) convOptions(in []*value, turned bool) (o tensor.ConvOptions, kernel [2]int, channels int) {
	x, wt, b := in[0], in[1], in[2]
	axes := n.checkSpatial(x)
	if wt.kind != floats || wt.rank() != x.rank() || wt.len() == 0 {
		n.failf("needs weights of %d dimensions, got %s of shape %s", x.rank(), wt.kind, shape(wt.dims))
	}
	copy(kernel[:], wt.dims[2:])
	if n.intsAttr("kernel_shape") != nil && n.spatial("kernel_shape", axes, 1, 1) != kernel {
		n.failf("attribute kernel_shape %v does not fit weights of shape %s", n.intsAttr("kernel_shape"), shape(wt.dims))
	}
	groups := n.intAttr("group", 1)
	ok := groups >= 1 && groups <= int64(wt.dims[0]) && wt.dims[0]%int(groups) == 0
	if ok {
		all := wt.dims[1] * int(groups)
		if channels = wt.dims[0]; turned {
			channels, all = all, channels
		}
		ok = x.dims[1] == all
	}
	if !ok {
		n.failf("%d groups of %d channels do not fit weights of shape %s", groups, x.dims[1], shape(wt.dims))
	}
	if b != nil && (b.kind != floats || b.len() != channels) {
		n.failf("bias of shape %s does not fit %d channels", shape(b.dims), channels)
	}
	return tensor.ConvOptions{Groups: int(groups), Activation: n.act}, kernel, channels
}

func runConv(r *run, n *node, in []*value) []*value {
	o, kernel, channels := n.convOptions(in, false)
	var dims []int
	o.Windows, dims = n.windows(in[0].dims, kernel, channels)
	x, out := r.lastLayout(n, in[0]), r.newLast(n, dims)
	if out.len() == 0 {
		return one(out)
	}
	r.work(n, out.len(), product(in[1].dims[1:]))
	c, _ := n.prepared.(*convolution)
	var work []float32
	if o.Into = out.host; n.tail != nil {
		work = r.newFloats(n, []int{chunk}).host
	}
	r.onTape(func() {
		w, b := c.operands(r, in)
		tensor.Conv(r.images(x), w, b, o).CopyTo(out.host)
		n.finish(out.host, work)
	})
	return one(out)
}

func runConvTranspose(r *run, n *node, in []*value) []*value {
	o, kernel, channels := n.convOptions(in, true)
	x := in[0]
	axes := x.rank() - 2
	o.Windows = tensor.Windows{Kernel: kernel, Stride: n.spatial("strides", axes, 1, 1), Dilation: n.spatial("dilations", axes, 1, 1)}
	n.pads(&o.Windows, axes)
	more := n.spatial("output_padding", axes, 0, 0)
	auto, wanted := n.stringAttr("auto_pad", "NOTSET"), n.intsAttr("output_shape")
	if wanted != nil && len(wanted) != axes {
		n.failf("attribute output_shape has %d numbers, expected %d", len(wanted), axes)
	}
	dims, size := []int{x.dims[0], channels}, [2]int{}
	for i := range axes {
		full := (x.dims[2+i]-1)*o.Stride[i] + more[i] + extent(&o.Windows, i)
		if wanted != nil || auto == "SAME_UPPER" || auto == "SAME_LOWER" {
			want := min(int64(x.dims[2+i]*o.Stride[i]), int64(full))
			if wanted != nil {
				want = wanted[i]
			}
			if auto != "SAME_UPPER" {
				auto = "SAME_LOWER"
			}
			if o.Padding[i] = split(int(max(0, int64(full)-want)), auto); want > int64(full) { // more than its inputs make
				full = int(min(want, math.MaxInt32+1))
			}
		}
		size[i] = full - o.Padding[i][0] - o.Padding[i][1]
		if size[i] < 1 || x.dims[2+i] == 0 || size[i] > math.MaxInt32 {
			n.failf("padding %v leaves nothing of %d outputs, or too much", o.Padding[i], full)
		}
		dims = append(dims, size[i])
	}
	images, out := r.lastLayout(n, x), r.newLast(n, dims)
	if out.len() == 0 {
		return one(out)
	}
	r.work(n, x.len(), product(in[1].dims[1:]))
	c, _ := n.prepared.(*convolution)
	o.Into = out.host
	r.onTape(func() {
		w, b := c.operands(r, in)
		tensor.ConvTranspose(r.images(images), w, b, o, size).CopyTo(out.host)
	})
	return one(out)
}

// runPool computes MaxPool, AveragePool and, over the whole of the spatial dimensions,
// GlobalMaxPool and GlobalAveragePool.
func runPool(r *run, n *node, in []*value) []*value {
	x := in[0]
	var w tensor.Windows
	var dims []int
	mean := n.op == "AveragePool" || n.op == "GlobalAveragePool"
	if n.op == "MaxPool" || n.op == "AveragePool" {
		axes := x.rank() - 2
		if axes != 1 && axes != 2 {
			n.failf("its operand of shape %s has %d spatial dimensions, 1 or 2 are supported", shape(x.dims), axes)
		}
		if n.intsAttr("kernel_shape") == nil {
			n.failf("attribute kernel_shape is missing")
		}
		w, dims = n.windows(x.dims, n.spatial("kernel_shape", axes, 1, 1), x.dims[1])
		w.CountPad = n.intAttr("count_include_pad", 0) != 0
		n.checkPool(&w, x.dims[2:], dims[2:])
	} else {
		if x.rank() < 3 {
			n.failf("needs an operand of shape [N,C,...], got %s", shape(x.dims))
		}
		dims = slices.Repeat([]int{1}, x.rank())
		copy(dims, x.dims[:2])
		x = x.reshaped([]int{x.dims[0], x.dims[1], product(x.dims[2:])})
		if w.Kernel[0] = x.dims[2]; x.dims[2] == 0 {
			n.failf("its operand of shape %s is empty", shape(in[0].dims))
		}
	}
	if len(n.out) > 1 && n.out[1] >= 0 || x.kind != floats {
		if mean {
			n.failf("its operand is %s", x.kind)
		}
		return r.maxPool(n, r.firstLayout(n, x), w, dims)
	}
	pool := tensor.WindowMax
	if mean {
		pool = tensor.WindowMean
	}
	images, out := r.lastLayout(n, x), r.newLast(n, dims)
	if w.Into = out.host; out.len() > 0 {
		r.onTape(func() { pool(r.images(images), w).CopyTo(out.host) })
	}
	return one(out)
}

// checkPool checks that each window has an input.
func (n *node) checkPool(w *tensor.Windows, in, out []int) {
	for axis := range in {
		if max(w.Padding[axis][0], w.Padding[axis][1]) >= extent(w, axis) {
			n.failf("padding %v is as long as its kernel", w.Padding[axis])
		}
		for i := range min(out[axis], maxElements) { // of more, the result is refused
			if lo, hi := taps(w, axis, in[axis], i); lo == hi {
				n.failf("window %d lies in the padding", i)
			}
		}
	}
}

// taps returns the range of places in a kernel for which output i reads one of n inputs.
func taps(w *tensor.Windows, axis, n, i int) (lo, hi int) {
	first, step := i*w.Stride[axis]-w.Padding[axis][0], w.Dilation[axis]
	if first < 0 {
		lo = (step - 1 - first) / step
	}
	if first < n {
		hi = min(w.Kernel[axis], (n-1-first)/step+1)
	}
	return min(lo, hi), hi
}

// maxPool returns the maxima of windows and their flat indices in the operand.
func (r *run) maxPool(n *node, x *value, w tensor.Windows, dims []int) []*value {
	out, where := r.newLike(n, x, dims), r.newInts(n, typeInt64, dims)
	columns := n.intAttr("storage_order", 0) == 1
	h, hOut := 1, 1
	if x.rank() == 4 {
		h, hOut = x.dims[2], dims[2]
	} else { // the only axis is the width
		w.Kernel, w.Stride, w.Dilation = [2]int{1, w.Kernel[0]}, [2]int{1, w.Stride[0]}, [2]int{1, w.Dilation[0]}
		w.Padding = [2][2]int{{}, w.Padding[0]}
	}
	width, outs := x.dims[x.rank()-1], hOut*dims[len(dims)-1]
	r.do(func() {
		for i := range where.ints {
			image := i / outs * h * width
			oh, ow := i%outs/dims[len(dims)-1], i%dims[len(dims)-1]
			h0, h1 := taps(&w, 0, h, oh)
			w0, w1 := taps(&w, 1, width, ow)
			best := -1
			for j := h0; j < h1; j++ {
				for k := w0; k < w1; k++ {
					at := (oh*w.Stride[0]-w.Padding[0][0]+j*w.Dilation[0])*width + ow*w.Stride[1] - w.Padding[1][0] + k*w.Dilation[1]
					if best < 0 || exceeds(x, image+at, image+best) {
						best = at
					}
				}
			}
			if x.kind == floats {
				out.host[i] = x.host[image+best]
			} else {
				out.ints[i] = x.ints[image+best]
			}
			if where.ints[i] = int64(image + best); columns {
				where.ints[i] = int64(image + best%width*h + best/width)
			}
		}
	})
	return []*value{out, where}
}

// exceeds reports whether element i is larger than j, or NaN and j is not.
func exceeds(x *value, i, j int) bool {
	if x.kind != floats {
		return x.ints[i] > x.ints[j]
	}
	a, b := x.host[i], x.host[j]
	return a > b || a != a && b == b
}
