package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// window is the geometry of a convolution or a pool along one axis: output i reads
// the inputs i·stride - before + j·dilation for 0 <= j < kernel, those that exist.
type window struct {
	in, out, kernel, stride, dilation, before int
}

// valid returns the range of j for which output i reads an existing input.
func (w *window) valid(i int) (lo, hi int) {
	at := i*w.stride - w.before
	if at < 0 {
		lo = (-at + w.dilation - 1) / w.dilation
	}
	if at < w.in {
		hi = min(w.kernel, (w.in-1-at)/w.dilation+1)
	}
	return min(lo, hi), hi
}

// spatial returns an attribute with one number of at least least for each spatial
// axis, as height and width; def if it is not given. A single axis is the width.
func (n *node) spatial(name string, axes int, least, def int64) [2]int {
	list := n.intsAttr(name)
	if list == nil {
		list = slices.Repeat([]int64{def}, axes)
	}
	if len(list) != axes {
		n.failf("attribute %s has %d numbers, expected %d", name, len(list), axes)
	}
	both := [2]int{int(max(least, 1)), 0}
	if least == 0 {
		both[0] = 0
	}
	for i, v := range list {
		if v < least || v > math.MaxInt32 {
			n.failf("attribute %s is %d, expected %d or more", name, v, least)
		}
		both[2-axes+i] = int(v)
	}
	return both
}

// windows returns the geometry along height and width for an operand [N,C,W] or
// [N,C,H,W] and a kernel.
func (n *node) windows(x *value, kernel [2]int) (h, w window) {
	axes := x.rank() - 2
	if axes != 1 && axes != 2 {
		n.failf("its operand of shape %s has %d spatial dimensions, 1 or 2 are supported", shape(x.dims), axes)
	}
	in := [2]int{1, x.dims[x.rank()-1]}
	if axes == 2 {
		in[0] = x.dims[2]
	}
	strides, dilations := n.spatial("strides", axes, 1, 1), n.spatial("dilations", axes, 1, 1)
	pads := n.intsAttr("pads")
	if pads == nil {
		pads = make([]int64, 2*axes)
	}
	if len(pads) != 2*axes {
		n.failf("attribute pads has %d numbers, expected %d", len(pads), 2*axes)
	}
	auto := n.stringAttr("auto_pad", "NOTSET")
	var both [2]window
	for i := range both {
		v := &both[i]
		*v = window{in: in[i], kernel: kernel[i], stride: strides[i], dilation: dilations[i]}
		extent := (v.kernel-1)*v.dilation + 1
		total := 0
		switch axis := i - 2 + axes; {
		case auto == "SAME_UPPER" || auto == "SAME_LOWER":
			v.out = (v.in + v.stride - 1) / v.stride
			total = max(0, (v.out-1)*v.stride+extent-v.in)
			if v.before = total / 2; auto == "SAME_LOWER" {
				v.before = total - total/2
			}
			continue
		case auto == "NOTSET" && axis >= 0:
			a, b := pads[axis], pads[axes+axis]
			if min(a, b) < 0 || max(a, b) > math.MaxInt32 {
				n.failf("pads %v must be 0 or more", pads)
			}
			v.before, total = int(a), int(a+b)
		case auto != "NOTSET" && auto != "VALID":
			n.failf("attribute auto_pad: %q is not supported", clip(auto))
		}
		room := v.in + total - extent
		if room < 0 {
			n.failf("a kernel over %d does not fit %d with padding", extent, v.in+total)
		}
		v.out = room/v.stride + 1
		if n.intAttr("ceil_mode", 0) != 0 && room%v.stride > 0 && v.out*v.stride < v.in+v.before {
			v.out++ // a last window that begins inside
		}
	}
	return both[0], both[1]
}

// windowed returns the shape of a result for x, with channels and the windows' outputs.
func (x *value) windowed(channels int, h, w window) []int {
	if x.rank() == 3 {
		return []int{x.dims[0], channels, w.out}
	}
	return []int{x.dims[0], channels, h.out, w.out}
}

// kernelOf returns a kernel's sizes from the attribute kernel_shape.
func (n *node) kernelOf(axes int) [2]int {
	if n.intsAttr("kernel_shape") == nil {
		n.failf("attribute kernel_shape is missing")
	}
	return n.spatial("kernel_shape", axes, 1, 1)
}

// runConv multiplies patches of the input [N,C,...] by weights [M,C/groups,...].
func runConv(r *run, n *node, in []*value) []*value {
	x, wt, b := in[0], in[1], in[2]
	if x.kind != floats || wt.kind != floats || x.rank() < 3 || wt.rank() != x.rank() {
		n.failf("needs floats of the same rank from 3, got %s of shape %s and %s of shape %s", x.kind, shape(x.dims), wt.kind, shape(wt.dims))
	}
	if x.rank() > 4 {
		n.failf("its operand of shape %s has %d spatial dimensions, 1 or 2 are supported", shape(x.dims), x.rank()-2)
	}
	groups, batch, channels, outs := n.intAttr("group", 1), x.dims[0], x.dims[1], wt.dims[0]
	if groups < 1 || groups > int64(outs) || channels != wt.dims[1]*int(groups) || outs%int(groups) != 0 {
		n.failf("%d groups of %d channels do not fit weights of shape %s", groups, channels, shape(wt.dims))
	}
	kernel := [2]int{1, wt.dims[wt.rank()-1]}
	if wt.rank() == 4 {
		kernel[0] = wt.dims[2]
	}
	if n.intsAttr("kernel_shape") != nil && n.kernelOf(x.rank()-2) != kernel {
		n.failf("attribute kernel_shape %v does not fit weights of shape %s", n.intsAttr("kernel_shape"), shape(wt.dims))
	}
	if b != nil && (b.kind != floats || b.len() != outs) {
		n.failf("bias of shape %s does not fit %d channels", shape(b.dims), outs)
	}
	if kernel[0] == 0 || kernel[1] == 0 || channels == 0 {
		n.failf("its weights of shape %s are empty", shape(wt.dims))
	}
	h, w := n.windows(x, kernel)
	dims := x.windowed(outs, h, w)
	out := r.newFloats(n, dims)
	if out.len() == 0 {
		return one(out)
	}
	g := int(groups)
	area, each, depth := h.out*w.out, outs/g, wt.len()/outs
	patches, products := r.newFloats(n, []int{batch * area, depth}), r.newFloats(n, []int{batch * area, each})
	r.onTape(func() {
		for group := range g {
			for i := range batch {
				image := x.floats()[(i*channels+group*wt.dims[1])*h.in*w.in:]
				unfold(patches.host[i*area*depth:], image, wt.dims[1], h, w)
			}
			weights := r.tape.Input(wt.floats()[group*each*depth:(group+1)*each*depth], each, depth)
			y := products.host
			tensor.MatMul(r.tape.Input(patches.host, batch*area, depth), weights, true).CopyTo(y)
			for i := range batch {
				for c := range each {
					to := out.host[((i*g+group)*each+c)*area:][:area]
					start := float32(0)
					if b != nil {
						start = b.floats()[group*each+c]
					}
					for p := range to {
						to[p] = y[(i*area+p)*each+c] + start
					}
				}
			}
		}
		n.activate(out.host)
	})
	return one(out)
}

// unfold writes the patches of an image [channels,h.in,w.in], one row
// [channels,h.kernel,w.kernel] for each output.
func unfold(dst, image []float32, channels int, h, w window) {
	clear(dst[:h.out*w.out*channels*h.kernel*w.kernel])
	for oh := range h.out {
		h0, h1 := h.valid(oh)
		for ow := range w.out {
			w0, w1 := w.valid(ow)
			for c := range channels {
				for j := h0; j < h1; j++ {
					src := image[(c*h.in+oh*h.stride-h.before+j*h.dilation)*w.in:][:w.in]
					to := dst[(c*h.kernel+j)*w.kernel:]
					for k := w0; k < w1; k++ {
						to[k] = src[ow*w.stride-w.before+k*w.dilation]
					}
				}
			}
			dst = dst[channels*h.kernel*w.kernel:]
		}
	}
}

// runMaxPool returns the maxima of windows and, if asked for, their flat indices in
// the operand.
func runMaxPool(r *run, n *node, in []*value) []*value {
	x := in[0]
	h, w := n.poolWindows(x)
	dims := x.windowed(x.dims[1], h, w)
	var where *value
	if len(n.out) > 1 && n.out[1] >= 0 {
		where = r.newInts(n, typeInt64, dims)
	}
	columns := n.intAttr("storage_order", 0) == 1
	index := func() []int64 {
		if where == nil {
			return nil
		}
		return where.ints
	}
	if x.kind == floats {
		out := r.newFloats(n, dims)
		r.do(func() { maxPool(out.host, index(), x.floats(), h, w, columns) })
		return []*value{out, where}
	}
	out := r.newInts(n, x.dtype, dims)
	r.do(func() { maxPool(out.ints, index(), x.ints, h, w, columns) })
	return []*value{out, where}
}

// poolWindows returns the geometry of a pool, whose padding must be less than its
// kernel, so that each window has an element.
func (n *node) poolWindows(x *value) (h, w window) {
	if x.rank() != 3 && x.rank() != 4 {
		n.failf("its operand of shape %s has %d spatial dimensions, 1 or 2 are supported", shape(x.dims), x.rank()-2)
	}
	h, w = n.windows(x, n.kernelOf(x.rank()-2))
	for _, v := range []window{h, w} {
		for i := range min(v.out, maxElements) { // of more, the result is refused
			if lo, hi := v.valid(i); lo == hi {
				n.failf("a window of shape %s lies in the padding", shape([]int{h.kernel, w.kernel}))
			}
		}
	}
	return h, w
}

func maxPool[T float32 | int64](dst []T, index []int64, x []T, h, w window, columns bool) {
	area := h.in * w.in
	for base := 0; len(dst) > 0; base += area {
		image := x[base : base+area]
		for oh := range h.out {
			h0, h1 := h.valid(oh)
			for ow := range w.out {
				w0, w1 := w.valid(ow)
				best := -1
				for j := h0; j < h1; j++ {
					row := (oh*h.stride - h.before + j*h.dilation) * w.in
					for k := w0; k < w1; k++ {
						at := row + ow*w.stride - w.before + k*w.dilation
						if v := image[at]; best < 0 || v > image[best] || v != v && image[best] == image[best] {
							best = at
						}
					}
				}
				dst[oh*w.out+ow] = image[best]
				if index != nil {
					at := best
					if columns {
						at = best%w.in*h.in + best/w.in
					}
					index[oh*w.out+ow] = int64(base + at)
				}
			}
		}
		dst = dst[h.out*w.out:]
		if index != nil {
			index = index[h.out*w.out:]
		}
	}
}
