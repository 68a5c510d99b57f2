package tensor

import (
	"cmp"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// Windows is the windows of a convolution or pool over dimension 1 of its operand, the
// time of a batch [B,T,C] or the height of images [B,H,W,C], and over dimension 2, the
// width. The zero value of a field is that of PyTorch's defaults; of a batch [B,T,C]
// only the first number of each counts.
type Windows struct {
	Kernel   [2]int    // of a pool; a convolution's is that of its weights
	Stride   [2]int    // 0 means 1, and for a pool its kernel
	Dilation [2]int    // 0 means 1
	Padding  [2][2]int // before and after: zeros of a convolution, nothing of a pool
	Ceil     bool      // of a pool: a last window may pass the end, if it begins before it
	CountPad bool      // of [WindowMean]: zeros of the padding count
	Into     []float32 // memory for the result, used where the device computes in the host's; nil for the tape's
}

// window returns the geometry along dimension 1+axis, of which n elements are read.
func (o *Windows) window(op string, axis, n, kernel int) device.Window {
	w := device.Window{In: n, Kernel: kernel, Stride: cmp.Or(o.Stride[axis], 1), Dilation: cmp.Or(o.Dilation[axis], 1), Before: o.Padding[axis][0]}
	after := o.Padding[axis][1]
	if min(w.Stride, w.Dilation, w.Kernel) < 1 || min(w.Before, after) < 0 {
		failf(op, "kernel %v, stride %v and dilation %v must be positive, padding %v not negative", w.Kernel, w.Stride, w.Dilation, o.Padding[axis])
	}
	w.Out = o.outputs(&w, n, axis)
	return w
}

// outputs returns the number of outputs for n inputs.
func (o *Windows) outputs(w *device.Window, n, axis int) int {
	room := w.Before + n + o.Padding[axis][1] - (w.Kernel-1)*w.Dilation - 1
	if room < 0 || n == 0 {
		return 0
	}
	out := room/w.Stride + 1
	if o.Ceil && room%w.Stride > 0 && out*w.Stride < n+w.Before {
		out++
	}
	return out
}

// single is the window of an axis of length 1.
var single = device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}

// geometry returns the windows of x, [B,T,C] or [B,H,W,C], in which a batch has a width of 1.
func (o *Windows) geometry(op string, x *Tensor, kernel [2]int) (h, w device.Window) {
	if x.rank < 3 || x.timeMajor {
		failf(op, "needs a batch [B,T,C] or [B,H,W,C], not time-major, got %s", describe(x))
	}
	h, w = o.window(op, 0, x.dims[1], kernel[0]), single
	if x.rank == 4 {
		w = o.window(op, 1, x.dims[2], kernel[1])
	}
	return h, w
}

// windowed returns a new tensor of channels for the outputs of windows over x. If x
// carries lengths, it has those that remain.
func (o *Windows) windowed(op string, t *Tape, x *Tensor, h, w *device.Window, channels int) *Tensor {
	d := [maxRank]int{x.dims[0], h.Out, w.Out, channels}
	if x.rank == 3 {
		d[2] = channels
	}
	y := o.result(t, d[:x.rank])
	if x.seq != nil {
		left := t.ints.alloc(x.dims[0])
		for b, n := range x.seq.lengths {
			left[b] = int32(o.outputs(h, int(n), 0))
		}
		y.seq = t.sequence(op, left, x.dims[0], h.Out)
	}
	return y
}

func (o *Windows) result(t *Tape, dims []int) *Tensor {
	if o.Into != nil {
		return t.Share(o.Into, dims...)
	}
	return t.Empty(dims...)
}

// ConvOptions changes a convolution; the zero value is PyTorch's default.
type ConvOptions struct {
	Windows
	Groups     int             // parts of the channels that are convolved separately; 0 means 1
	Activation cell.Activation // of the result; [cell.Own] means none
}

// Conv returns the convolution of x with weights w, as torch.nn.functional.conv1d and
// conv2d, and the bias b [O] or nil: x [B,T,I] and w [O,I/groups,K] give [B,T',O],
// x [B,H,W,I] and w [O,I/groups,KH,KW] give [B,H',W',O]. Channels are last in x and the
// result, while w has PyTorch's order. If x carries lengths, what is past them is
// padding as well, and the result has the lengths that remain, with zeros after them; a
// row of length 0 stays empty. It panics with a [*ShapeError] if shapes or options do not fit.
func Conv(x, w, b *Tensor, o ConvOptions) *Tensor {
	t := tapeOf("Conv", x, w, b)
	s := convSpec("Conv", t, x, w, &o)
	if s.O%s.Groups != 0 || w.dims[1]*s.Groups != s.I {
		failf("Conv", "input %s in %d groups does not fit weight %s", describe(x), s.Groups, describe(w))
	}
	y := o.windowed("Conv", t, x, &s.H, &s.W, s.O)
	checkBias("Conv", b, s.O)
	s.X, s.Y, s.Weight, s.Bias, s.Lens = x.value, y.value, w.value, b.memory(), x.lens()
	if s.Kind = t.kindOf(w); s.Kind.Half() && !w.rests() {
		s.Kind = device.F32
	}
	s.Cache, s.BackCache, s.Version = t.caches(s.Kind, s.B*s.H.Out*s.W.Out, w)
	if t.mode == Infer {
		s.Act = o.Activation
	}
	spec := t.specs.conv.put(s)
	t.backend.Conv(spec)
	t.record(convGrad, y, x, w, b).keeps(spec)
	if o.Activation != s.Act {
		y = unary("Conv", o.Activation, y, 0)
	}
	return cut(y)
}

func checkBias(op string, b *Tensor, n int) {
	if b != nil && (b.rank != 1 || b.dims[0] != n) {
		failf(op, "needs bias [%d], got %s", n, describe(b))
	}
}

// convSpec returns the shapes of a convolution over x.
func convSpec(op string, t *Tape, x, w *Tensor, o *ConvOptions) device.ConvSpec {
	if w.rank != x.rank || o.Groups < 0 {
		failf(op, "input %s in %d groups does not fit weight %s", describe(x), o.Groups, describe(w))
	}
	s := device.ConvSpec{B: x.dims[0], I: x.dims[x.rank-1], O: w.dims[0], Groups: cmp.Or(o.Groups, 1)}
	s.H, s.W = o.geometry(op, x, [2]int{w.dims[2], w.dims[3]})
	return s
}

func convGrad(t *Tape, n *node) {
	s := n.spec.(*device.ConvSpec)
	s.DY, s.DWeight, s.DBias = n.out.grad, n.in[1].intoZeroed(), device.Buffer{}
	if n.in[2] != nil {
		s.DBias = n.in[2].intoZeroed()
	}
	s.DX, s.AccX = n.in[0].into()
	t.backend.ConvGrad(s)
}

// WindowMax returns the maxima of the channels of x [B,T,C] or [B,H,W,C] over windows
// (torch.nn.functional.max_pool1d, max_pool2d), with lengths as in [Conv]. Padding does
// not count; a window of nothing else gives zeros. It panics with a [*ShapeError] if
// shapes or options do not fit, as does [WindowMean].
func WindowMax(x *Tensor, o Windows) *Tensor { return windowPool("WindowMax", x, &o, false) }

// WindowMean returns the means over windows (avg_pool1d, avg_pool2d). Padding counts
// with o.CountPad only, which is PyTorch's default.
func WindowMean(x *Tensor, o Windows) *Tensor { return windowPool("WindowMean", x, &o, true) }

func windowPool(op string, x *Tensor, o *Windows, mean bool) *Tensor {
	t := tapeOf(op, x)
	for i, k := range o.Kernel {
		o.Stride[i] = cmp.Or(o.Stride[i], k)
	}
	s := device.WindowPoolSpec{B: x.dims[0], C: x.dims[x.rank-1], Mean: mean, CountPad: o.CountPad, After: [2]int{o.Padding[0][1], o.Padding[1][1]}}
	s.H, s.W = o.geometry(op, x, o.Kernel)
	y := o.windowed(op, t, x, &s.H, &s.W, s.C)
	if s.X, s.Y, s.Lens = x.value, y.value, x.lens(); !mean && t.mode == Train {
		s.Arg = t.numbers.alloc(y.Len())
	}
	spec := t.specs.windows.put(s)
	t.backend.WindowPool(spec)
	t.record(windowPoolGrad, y, x).keeps(spec)
	return cut(y)
}

func windowPoolGrad(t *Tape, n *node) {
	s := n.spec.(*device.WindowPoolSpec)
	s.DY = n.out.grad
	s.DX, s.AccX = n.in[0].into()
	t.backend.WindowPoolGrad(s)
}

// ConvTranspose returns the transpose of the linear map that [Conv] without bias and
// activation is in its input, plus the bias b [O] or nil (conv_transpose1d,
// conv_transpose2d): x [B,T,I] and w [I,O/groups,K] give [B,T',O], x [B,H,W,I] and w
// [I,O/groups,KH,KW] give [B,H',W',O]. size is T' or H' and W'; where it is 0, it is
// the smallest one from which Conv makes x's. It panics with a [*ShapeError] if shapes
// or options do not fit, or if x carries lengths.
func ConvTranspose(x, w, b *Tensor, o ConvOptions, size [2]int) *Tensor {
	t := tapeOf("ConvTranspose", x, w, b)
	s := convSpec("ConvTranspose", t, x, w, &o)
	groups := s.Groups
	if s.O != s.I || s.O%groups != 0 || x.seq != nil {
		failf("ConvTranspose", "input %s in %d groups, without lengths, does not fit weight %s", describe(x), groups, describe(w))
	}
	s.I = w.dims[1] * groups // of the convolution, whose output is x
	d := [maxRank]int{s.B, 0, s.I, s.I}
	for axis, v := range []*device.Window{&s.H, &s.W}[:x.rank-2] {
		v.In, v.Out = size[axis], v.In
		if v.In == 0 {
			v.In = max(0, (v.Out-1)*v.Stride+(v.Kernel-1)*v.Dilation+1-o.Padding[axis][0]-o.Padding[axis][1])
		}
		d[1+axis] = v.In
	}
	y := o.result(t, d[:x.rank])
	checkBias("ConvTranspose", b, s.I)
	s.DY, s.DX, s.Weight = x.value, y.value, w.value
	s.Cache, s.BackCache, s.Version = t.caches(device.F32, s.B*s.H.Out*s.W.Out, w)
	spec := t.specs.conv.put(s)
	t.backend.ConvGrad(spec)
	t.record(convTransposeGrad, y, x, w).keeps(spec)
	if b != nil {
		y = Add(y, b)
	}
	if o.Activation != cell.Own {
		y = unary("ConvTranspose", o.Activation, y, 0)
	}
	return y
}

func convTransposeGrad(t *Tape, n *node) {
	s := n.spec.(*device.ConvSpec)
	s.X, s.DX, s.DWeight = n.out.grad, device.Buffer{}, n.in[1].intoZeroed()
	t.backend.ConvGrad(s)
	dx, acc := n.in[0].into()
	if dx.Zero() {
		return
	}
	s.Y = dx
	if acc {
		s.Y = t.arena.alloc(dx.N)
	}
	t.backend.Conv(s)
	if acc {
		t.backend.Copy(dx, s.Y, true)
	}
}

// BatchNorm normalises each feature of x [...,F] over all other dimensions to mean 0
// and variance 1 (biased, with eps inside the root), then multiplies by gamma and adds
// beta, both [F] (Ioffe and Szegedy 2015; torch.nn.functional.batch_norm). If x carries
// lengths, only the true steps count.
//
// On a tape in Train mode mean and variance are those of x, and the running ones, mean
// and variance [F], move towards them by the share momentum, the variance to the
// unbiased one. In Infer mode the running ones are used. They are parameters without a
// gradient, for which an optimizer must not decay weights; see also [Param.Running] and
// [Tape.OnRunning]. It panics with a [*ShapeError] if shapes do not fit.
func BatchNorm(x, gamma, beta *Tensor, mean, variance *Param, momentum, eps float32) *Tensor {
	t := tapeOf("BatchNorm", x, gamma, beta)
	f := x.dims[x.rank-1]
	for _, p := range []*Tensor{gamma, beta, mean.T(), variance.T()} {
		if p.rank != 1 || p.dims[0] != f {
			failf("BatchNorm", "input %s needs vectors [%d], got %s", describe(x), f, describe(p))
		}
	}
	if x.timeMajor {
		failf("BatchNorm", "needs a batch that is not time-major, got %s", describe(x))
	}
	x = cut(x)
	var center, spread *Tensor
	if t.mode == Infer {
		center, spread = t.Param(mean), t.Param(variance)
		x = Sub(x, center)
	} else {
		var n int
		center, n = meanRows(x)
		x = Sub(x, center)
		spread, _ = meanRows(Square(x))
		t.moveRunning(mean, center, momentum)
		unbiased := t.Empty(f)
		t.backend.Unary(device.Scale, unbiased.value, spread.value, float32(n)/float32(max(n-1, 1)))
		t.moveRunning(variance, unbiased, momentum)
	}
	scale := Mul(unary("BatchNorm", device.RSqrt, spread, eps), gamma)
	return Add(Mul(x, scale), beta)
}

// OnRunning makes training passes call f in place of moving a running statistic p by
// share towards the values to, which are valid until the tape is reset: for processes
// that train together and have to move it alike. f must not use the tape. A nil f
// removes the function.
func (t *Tape) OnRunning(f func(p *Param, to *Tensor, share float32)) { t.running = f }

// moveRunning moves p by share towards to.
func (t *Tape) moveRunning(p *Param, to *Tensor, share float32) {
	if t.running != nil {
		t.running(p, to, share)
		return
	}
	t.backend.Lerp(p.value, to.value, share)
}

// meanRows returns the mean [F] of x over the other dimensions, and the number of its
// vectors; only the true steps count.
func meanRows(x *Tensor) (mean *Tensor, n int) {
	t, f := x.tape, x.dims[x.rank-1]
	b, steps, width := 1, 1, 1
	switch x.rank {
	case 2:
		steps = x.dims[0]
	case 3, 4:
		b, steps, width = x.dims[0], x.dims[1], x.Len()/max(x.dims[0]*x.dims[1]*f, 1)
	}
	n = b * steps * width
	mean = MeanPool(Reshape(x, b, steps, width*f))
	if x.seq == nil {
		mean = MeanPool(Reshape(mean, 1, b, width*f))
	} else { // rows count by their lengths
		n = 0
		for _, steps := range x.seq.lengths {
			n += int(steps) * width
		}
		t.floats = slices.Grow(t.floats[:0], b)[:b]
		for i, steps := range x.seq.lengths {
			t.floats[i] = float32(int(steps)*width) / float32(max(n, 1))
		}
		mean = MatMul(t.Input(t.floats, 1, b), mean, false)
	}
	if width > 1 {
		mean = MeanPool(Reshape(mean, 1, width, f))
	}
	return Reshape(mean, f), n
}

// cut returns x, [B,T,...], with zeros past its lengths.
func cut(x *Tensor) *Tensor {
	if x.seq == nil {
		return x
	}
	y, b, steps := x.tape.like(x), x.dims[0], x.dims[1]
	rest := x.Len() / max(b*steps, 1)
	stride := [4]int{0, steps * rest, rest, 1}
	x.tape.move(y, x, device.PermuteSpec{Dims: [4]int{1, b, steps, rest}, SrcStride: stride, DstStride: stride, Lens: x.lens(), RowDim: 1, TimeDim: 2}, true)
	return y
}
