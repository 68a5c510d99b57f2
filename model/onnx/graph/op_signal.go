package graph

import (
	"math"
	"math/bits"
	"slices"

	"gonum.org/v1/gonum/dsp/fourier"

	"github.com/carousel-ml/carousel/internal/simd"
)

// runWindow makes the windows of Hann, Hamming and Blackman, as the factors of up to
// three cosines.
func runWindow(r *run, n *node, in []*value) []*value {
	factors := map[string][]float64{"HannWindow": {0.5, 0.5}, "HammingWindow": {25. / 46, 21. / 46}, "BlackmanWindow": {0.42, 0.5, 0.08}}[n.op]
	if in[0].len() != 1 {
		n.failf("needs one size, got shape %s", shape(in[0].dims))
	}
	size := n.size(r.fixed(n, in[0], "the size")[0], "the size")
	out := r.newFloats(n, []int{size})
	period := float64(size)
	if n.intAttr("periodic", 1) == 0 {
		period = max(1, period-1)
	}
	r.do(func() {
		for i := range out.host {
			sum, sign := 0.0, 1.0
			for k, f := range factors {
				sum += sign * f * math.Cos(2*math.Pi*float64(k)*float64(i)/period)
				sign = -sign
			}
			out.host[i] = simd.Narrow(sum)
		}
	})
	return one(out)
}

// transform is a discrete Fourier transform of one length, with its memory.
type transform struct {
	fft               dft
	from, to          []complex128
	inverse, onesided bool
}

// dft is a Fourier transform without scale, in either direction. Coefficients and
// Sequence write their result to dst and return it.
type dft interface {
	Len() int
	Coefficients(dst, src []complex128) []complex128
	Sequence(dst, coeff []complex128) []complex128
}

// newDFT returns a transform whose time grows little faster than its size. That of
// Gonum takes the size times its largest prime factor.
func newDFT(size int) dft {
	if largestFactor(size) <= maxFactor {
		return fourier.NewCmplxFFT(size)
	}
	return newChirp(size)
}

// maxFactor is the largest prime factor of sizes that are transformed directly.
const maxFactor = 64

// largestFactor returns the largest prime factor of n, 1 for 1.
func largestFactor(n int) int {
	largest := 1
	for p := 2; n > 1; p++ {
		if p*p > n {
			return max(largest, n)
		}
		for ; n%p == 0; n /= p {
			largest = p
		}
	}
	return largest
}

// chirp is Bluestein's transform: with jk = (j²+k²-(k-j)²)/2 it is a convolution with
// exp(πij²/n), computed by transforms of a power of two.
type chirp struct {
	fft       *fourier.CmplxFFT
	factors   []complex128 // exp(-πij²/n)
	spectrum  []complex128 // of their conjugates, with the scale of the inverse
	from, mid []complex128
}

func newChirp(n int) *chirp {
	long := 1 << bits.Len(uint(2*n-2)) // at least 2n-1
	c := &chirp{fft: fourier.NewCmplxFFT(long), factors: make([]complex128, n), from: make([]complex128, long), mid: make([]complex128, long)}
	for j := range c.factors {
		sin, cos := math.Sincos(math.Pi * float64(uint64(j)*uint64(j)%uint64(2*n)) / float64(n))
		c.factors[j] = complex(cos, -sin)
		v := complex(cos/float64(long), sin/float64(long))
		c.from[j], c.from[(long-j)%long] = v, v
	}
	c.spectrum = c.fft.Coefficients(nil, c.from)
	return c
}

func (c *chirp) Len() int { return len(c.factors) }

func (c *chirp) Coefficients(dst, src []complex128) []complex128 {
	for j, f := range c.factors {
		c.from[j] = src[j] * f
	}
	clear(c.from[len(c.factors):])
	c.fft.Coefficients(c.mid, c.from)
	for i, v := range c.spectrum {
		c.mid[i] *= v
	}
	c.fft.Sequence(c.from, c.mid)
	for k, f := range c.factors {
		dst[k] = c.from[k] * f
	}
	return dst
}

// Sequence is the transform of the elements in the opposite order.
func (c *chirp) Sequence(dst, coeff []complex128) []complex128 {
	c.Coefficients(dst, coeff)
	slices.Reverse(dst[1:])
	return dst
}

func (r *run) newTransform(n *node, size int, inverse, onesided bool) *transform {
	if size < 1 {
		n.failf("a transform of %d elements", size)
	}
	memory := 16
	if largestFactor(size) > maxFactor {
		memory = 96
	}
	r.spend(n, []int{size, memory})
	return &transform{newDFT(size), make([]complex128, size), make([]complex128, size), inverse, onesided}
}

// bins returns the length of the result, and the numbers of each of its elements.
func (t *transform) bins() (count, parts int) {
	switch size := t.fft.Len(); {
	case t.onesided && t.inverse:
		return size, 1
	case t.onesided:
		return size/2 + 1, 2
	default:
		return size, 2
	}
}

// run transforms from and writes the result with a distance between its elements.
func (t *transform) run(dst []float32, step int) {
	size := t.fft.Len()
	if !t.inverse {
		t.fft.Coefficients(t.to, t.from)
	} else {
		if t.onesided { // the other half is symmetric
			for k := size/2 + 1; k < size; k++ {
				v := t.from[size-k]
				t.from[k] = complex(real(v), -imag(v))
			}
			t.from[0] = complex(real(t.from[0]), 0)
			if size%2 == 0 {
				t.from[size/2] = complex(real(t.from[size/2]), 0)
			}
		}
		t.fft.Sequence(t.to, t.from)
		for i, v := range t.to {
			t.to[i] = complex(real(v)/float64(size), imag(v)/float64(size))
		}
	}
	count, parts := t.bins()
	for i, v := range t.to[:count] {
		dst[i*step] = simd.Narrow(real(v))
		if parts == 2 {
			dst[i*step+1] = simd.Narrow(imag(v))
		}
	}
}

// load reads count elements of 1 or 2 numbers and sets the others to zero.
func (t *transform) load(src []float32, step, parts, count int) {
	clear(t.from)
	for i := range min(count, len(t.from)) {
		im := 0.0
		if parts == 2 {
			im = float64(src[i*step+1])
		}
		t.from[i] = complex(float64(src[i*step]), im)
	}
}

// scalar returns an optional integer that decides a shape.
func (r *run) scalar(n *node, v *value, what string, def int64) int64 {
	if v == nil {
		return def
	}
	if v.len() != 1 {
		n.failf("%s must be one integer, got shape %s", what, shape(v.dims))
	}
	return r.fixed(n, v, what)[0]
}

func runDFT(r *run, n *node, in []*value) []*value {
	x := in[0]
	end := x.rank() - 1
	if x.kind != floats || end < 1 || x.dims[end] != 1 && x.dims[end] != 2 {
		n.failf("its operand is %s of shape %s, expected floats of real or complex numbers: a last axis of 1 or 2", x.kind, shape(x.dims))
	}
	a := n.intAttr("axis", 1)
	if n.opset >= 20 {
		a = r.scalar(n, in[2], "the axis", -2)
	}
	axis := n.axis(a, x.rank())
	if axis == end {
		n.failf("axis %d holds the parts of numbers", a)
	}
	inverse, onesided := n.intAttr("inverse", 0) != 0, n.intAttr("onesided", 0) != 0
	length := int64(x.dims[axis])
	if inverse && onesided {
		length = 2 * (length - 1)
	}
	t := r.newTransform(n, n.size(r.scalar(n, in[1], "the length", length), "the length"), inverse, onesided)
	before, size, after := around(x.dims[:end], axis)
	count, parts := t.bins()
	dims := slices.Clone(x.dims)
	dims[axis], dims[end] = count, parts
	out := r.newFloats(n, dims)
	if out.len() == 0 {
		return one(out)
	}
	given := x.dims[end]
	r.do(func() {
		for b := range before {
			for a := range after {
				t.load(x.host[(b*size*after+a)*given:], after*given, given, size)
				t.run(out.host[(b*count*after+a)*parts:], after*parts)
			}
		}
	})
	return one(out)
}

func runSTFT(r *run, n *node, in []*value) []*value {
	x, window := in[0], in[2]
	if x.kind != floats || x.rank() < 2 || x.rank() > 3 || x.rank() == 3 && x.dims[2] != 1 && x.dims[2] != 2 {
		n.failf("its operand is %s of shape %s, expected floats [batch,samples,1 or 2]", x.kind, shape(x.dims))
	}
	parts := 1
	if x.rank() == 3 {
		parts = x.dims[2]
	}
	length := int64(x.dims[1])
	if window != nil {
		length = int64(window.len())
	}
	size := n.size(r.scalar(n, in[3], "the length of a frame", length), "the length of a frame")
	if window != nil && (window.kind != floats || window.rank() != 1 || window.len() != size) {
		n.failf("the window has shape %s, expected [%d]", shape(window.dims), size)
	}
	step := n.size(r.scalar(n, in[1], "the step", 1), "the step")
	if step < 1 || size > x.dims[1] {
		n.failf("frames of %d of %d samples, in steps of %d", size, x.dims[1], step)
	}
	t := r.newTransform(n, size, false, n.intAttr("onesided", 1) != 0)
	frames := (x.dims[1]-size)/step + 1
	count, _ := t.bins()
	out := r.newFloats(n, []int{x.dims[0], frames, count, 2})
	r.do(func() {
		for i := range x.dims[0] * frames {
			at := i/frames*x.dims[1] + i%frames*step
			t.load(x.host[at*parts:], parts, parts, size)
			if window != nil {
				for k, w := range window.host {
					t.from[k] *= complex(float64(w), 0)
				}
			}
			t.run(out.host[i*count*2:], 2)
		}
	})
	return one(out)
}

// runMelWeights makes triangles on the mel scale, which turn a spectrum into bands.
func runMelWeights(r *run, n *node, in []*value) []*value {
	var sizes [3]int
	for i := range sizes {
		sizes[i] = n.size(r.scalar(n, in[i], "a size", 0), "a size")
	}
	var edges [2]float64
	for i := range edges {
		v := in[3+i]
		if v.kind != floats || v.len() != 1 {
			n.failf("an edge must be one float")
		}
		edges[i] = float64(r.pinned(v).host[0])
	}
	bands, length, rate := sizes[0], sizes[1], sizes[2]
	out := r.newFloats(n, []int{length/2 + 1, bands})
	r.spend(n, []int{bands + 2})
	low, high := 2595*math.Log10(1+edges[0]/700), 2595*math.Log10(1+edges[1]/700)
	at := make([]int, bands+2)
	for i := range at {
		mel := low + float64(i)*(high-low)/float64(len(at))
		bin := math.Floor(float64(length+1) * 700 * (math.Pow(10, mel/2595) - 1) / float64(rate))
		if !(bin >= 0 && bin <= float64(length/2)) {
			n.failf("a band from %v to %v Hz of %d samples per second", edges[0], edges[1], rate)
		}
		at[i] = int(bin)
	}
	r.do(func() {
		clear(out.host)
		for i := range bands {
			left, center, right := at[i], at[i+1], at[i+2]
			for j := left; j < center; j++ {
				out.host[j*bands+i] = float32(j-left) / float32(center-left)
			}
			out.host[center*bands+i] = 1
			for j := center; j < right; j++ {
				out.host[j*bands+i] = float32(right-j) / float32(right-center)
			}
		}
	})
	return one(out)
}
