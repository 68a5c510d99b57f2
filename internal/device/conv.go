package device

// Window is the geometry of a convolution or pool along one axis: output i reads the
// inputs i·Stride - Before + j·Dilation for 0 <= j < Kernel, those that exist; the
// others are padding. A Window of ones is an axis of length 1.
type Window struct{ In, Out, Kernel, Stride, Dilation, Before int }

// Reads returns the first of the inputs of output i, which may be padding, and the range
// [lo,hi) of j for which inputs exist.
func (w *Window) Reads(i int) (first, lo, hi int) {
	first = i*w.Stride - w.Before
	if first < 0 {
		lo = (w.Dilation - 1 - first) / w.Dilation
	}
	if first < w.In {
		hi = min(w.Kernel, (w.In-1-first)/w.Dilation+1)
	}
	return first, min(lo, hi), hi
}

// ConvSpec is the convolution (without reversal, as in PyTorch) of images of I channels, in Groups equal parts,
// with O kernels and their Bias, and then the function Act:
//
//	Y[b,h,w,o] = Act(Σ_i Σ_j Σ_k X[b, H.Reads(h)+j·H.Dilation, W.Reads(w)+k·W.Dilation, g·I/Groups+i] · Weight[o,i,j,k] + Bias[o])
//
// where g is the group of o. Each element is one chain in the order of the sums. ConvGrad is for specs without Act.
//
// Of INT8 a row of the left operand is the part of X that a place of Y reads. What its rounding left, x - q·scale in
// float32, is rounded in turn, with a scale of its own, and its product with the same weights is a second link. So an
// element has 15 bits: patches of spectra hold many numbers that matter far below their greatest, and states of cells do not.
type ConvSpec struct {
	B, I, O, Groups int
	H, W            Window
	Lens            Ints     // [B], inputs of H in each image, the others are padding; absent: H.In
	X, Y            Buffer   // [B,H.In,W.In,I], [B,H.Out,W.Out,O]
	Weight          Buffer   // [O,I/Groups,H.Kernel,W.Kernel]
	Bias            Buffer   // [O] or absent
	Act             Function // 0 for none
	Kind            Kind     // that X and Weight are rounded to, in Conv alone; of INT8, X twice

	// For what Conv and ConvGrad derive from Weight for this kind and version; nil: not cached.
	Cache, BackCache *Cache
	Version          uint64

	// ConvGrad only. A gradient that is absent is not computed.
	DY, DX         Buffer
	AccX           bool
	DWeight, DBias Buffer // accumulate
}

// WindowPoolSpec is the maximum or, with Mean, the mean of each channel of X over windows. Padding is no part of
// a maximum; it counts as zeros in a mean with CountPad, where After is the padding at the ends of H and W, and
// otherwise it is no part of it. A window without an input gives zeros.
type WindowPoolSpec struct {
	B, C     int
	H, W     Window
	Lens     Ints // as in ConvSpec
	Mean     bool
	CountPad bool
	After    [2]int
	X, Y     Buffer // [B,H.In,W.In,C], [B,H.Out,W.Out,C]
	Arg      Ints   // like Y, of a maximum: the place h·W.In+w of the first one (-1: none), for backward and on request
	DY, DX   Buffer
	AccX     bool
}
