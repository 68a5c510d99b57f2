package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
)

// resize is Resize or Upsample for one shape.
type resize struct {
	n                          *node
	mode, coordinates, nearest string // of interpolation, of coordinates, of rounding
	antialias, exclusive       bool
	cubic                      float64
	outside                    float32
}

// resizeAxis is how one axis is resized.
type resizeAxis struct {
	in, out    int
	scale      float32
	begin, end float32 // the part of the axis that is taken, for coordinates "tf_crop_and_resize"
}

// same reports whether the axis stays as it is.
func (a *resizeAxis) same(coordinates string) bool {
	return a.in == a.out && a.scale == 1 && coordinates != "tf_crop_and_resize"
}

func runResize(r *run, n *node, in []*value) []*value {
	x := in[0]
	s := resize{n, n.stringAttr("mode", "nearest"), "asymmetric", "floor",
		n.intAttr("antialias", 0) != 0, n.intAttr("exclude_outside", 0) != 0,
		float64(n.floatAttr("cubic_coeff_a", -0.75)), n.floatAttr("extrapolation_value", 0)}
	if n.opset >= 11 {
		s.coordinates, s.nearest = n.stringAttr("coordinate_transformation_mode", "half_pixel"), n.stringAttr("nearest_mode", "round_prefer_floor")
	} else if n.op == "Resize" {
		s.nearest = "" // up: floor, down: ceil
	}
	axes := s.axes(r, in)
	dims := make([]int, len(axes))
	for i, a := range axes {
		dims[i] = a.out
	}
	if product(dims) == 0 || x.rank() == 0 {
		return one(r.view(n, x, dims, make([]int, len(dims)), 0))
	}
	if product(x.dims) == 0 {
		n.failf("no elements of shape %s for a result of shape %s", shape(x.dims), shape(dims))
	}
	if s.mode == "nearest" {
		return one(s.pick(r, x, axes, dims))
	}
	if x.kind != floats {
		n.failf("mode %s is for floats, its operand is %s", s.mode, x.kind)
	}
	for i, a := range axes {
		if !a.same(s.coordinates) {
			x = s.along(r, x, i, a)
		}
	}
	return one(x.reshaped(x.dims))
}

// axes reads scales or sizes.
func (s *resize) axes(r *run, in []*value) []resizeAxis {
	n, x := s.n, in[0]
	axes := make([]resizeAxis, x.rank())
	for i, d := range x.dims {
		axes[i] = resizeAxis{d, d, 1, 0, 1}
	}
	which := n.intsAttr("axes")
	if which == nil {
		for i := range axes {
			which = append(which, int64(i))
		}
	}
	list := func(i, count int) *value {
		if i >= len(in) || in[i] == nil || in[i].len() == 0 {
			return nil
		}
		if in[i].len() != count {
			n.failf("input %d has %d elements for %d axes", i, in[i].len(), len(which))
		}
		return r.pinned(in[i])
	}
	var scales, sizes, roi *value
	switch {
	case n.opset < 9:
		if a := n.attr("scales", attrFloats); a != nil {
			scales = &value{kind: floats, dims: []int{len(a.floats)}, host: a.floats}
		}
	case n.opset < 11:
		scales = list(1, len(which))
	default:
		scales, sizes = list(2, len(which)), list(3, len(which))
		if s.coordinates == "tf_crop_and_resize" {
			if roi = list(1, 2*len(which)); roi == nil || roi.kind != floats {
				n.failf("the part to take, roi, is left out or is not floats")
			}
		}
	}
	if (scales == nil) == (sizes == nil) && len(which) > 0 || scales != nil && (scales.kind != floats || scales.len() != len(which)) || sizes != nil && sizes.kind != ints {
		n.failf("needs scales or sizes, for %d axes", len(which))
	}
	for i, a := range which {
		axis := &axes[n.axis(a, x.rank())]
		switch {
		case scales != nil:
			axis.scale = scales.host[i]
			out := float64(float32(axis.in) * axis.scale)
			if !(axis.scale > 0) || out > math.MaxInt32 {
				n.failf("scale %v of axis %d", axis.scale, a)
			}
			axis.out = int(out)
		default:
			axis.out = n.size(sizes.ints[i], "a size")
			axis.scale = float32(axis.out) / float32(max(axis.in, 1))
		}
		if roi != nil {
			axis.begin, axis.end = roi.host[i], roi.host[len(which)+i]
		}
	}
	if policy := n.stringAttr("keep_aspect_ratio_policy", "stretch"); policy != "stretch" && sizes != nil {
		s.keepAspect(axes, which, policy == "not_larger")
	}
	return axes
}

// keepAspect gives all axes one scale, by which no result or all results are larger
// than asked for.
func (s *resize) keepAspect(axes []resizeAxis, which []int64, least bool) {
	scale := float32(0)
	for i, w := range which {
		if c := axes[s.n.axis(w, len(axes))].scale; i == 0 || (c < scale) == least {
			scale = c
		}
	}
	for _, w := range which {
		a := &axes[s.n.axis(w, len(axes))]
		a.out, a.scale = s.n.size(int64(math.Floor(float64(scale)*float64(a.in)+0.5)), "a size"), scale
	}
}

// source returns the place in the input of a place in the result.
func (s *resize) source(a *resizeAxis, i int) float32 {
	x, size, out := float32(i), float32(a.in), float32(a.out)
	switch s.coordinates {
	case "asymmetric":
		return x / a.scale
	case "align_corners":
		if a.out == 1 {
			return 0
		}
		return x * (size - 1) / (out - 1)
	case "pytorch_half_pixel":
		if a.out == 1 {
			return 0
		}
	case "tf_half_pixel_for_nn":
		return (x + 0.5) / a.scale
	case "half_pixel_symmetric":
		center := size / 2
		return center*(1-out/(a.scale*size)) + (x+0.5)/a.scale - 0.5
	case "tf_crop_and_resize":
		if a.out == 1 {
			return 0.5 * (a.begin + a.end) * (size - 1)
		}
		return a.begin*(size-1) + x*(a.end-a.begin)*(size-1)/(out-1)
	}
	return (x+0.5)/a.scale - 0.5
}

// beyond reports whether a place gets the value outside.
func (s *resize) beyond(a *resizeAxis, x float32) bool {
	return s.coordinates == "tf_crop_and_resize" && !(x >= 0 && x <= float32(a.in-1))
}

// round chooses the element at a place.
func (s *resize) round(a *resizeAxis, at float32) int {
	x := float64(at)
	switch s.nearest {
	case "floor":
		x = math.Floor(x)
	case "ceil":
		x = math.Ceil(x)
	case "round_prefer_ceil":
		x = math.Floor(x + 0.5)
	case "round_prefer_floor":
		x = math.Ceil(x - 0.5)
	default:
		if a.scale < 1 {
			x = math.Ceil(x)
		}
	}
	return int(math.Max(0, math.Min(x, float64(a.in-1))))
}

func (s *resize) pick(r *run, x *value, axes []resizeAxis, dims []int) *value {
	out := r.newLike(s.n, x, dims)
	from := make([][]int, len(axes))
	for i, stride := range strides(x.dims) {
		a := &axes[i]
		from[i] = make([]int, a.out)
		for j := range from[i] {
			if place := s.source(a, j); a.same(s.coordinates) {
				from[i][j] = j * stride
			} else if s.beyond(a, place) {
				from[i][j] = -1
			} else {
				from[i][j] = s.round(a, place) * stride
			}
		}
	}
	r.do(func() {
		if x.kind == floats {
			pick(out.host, x.host, from, s.outside)
		} else {
			pick(out.ints, x.ints, from, int64(s.outside))
		}
	})
	return out
}

// weights returns the factors of the elements around a place, the first of which is
// returned too.
func (s *resize) weights(a *resizeAxis, place float64) (first int, w []float64) {
	reach, kernel := 1.0, func(d float64) float64 { return max(0, 1-d) }
	if s.mode == "cubic" {
		reach, kernel = 2, s.cubicKernel
	}
	shrink := 1.0
	if s.antialias {
		shrink = min(1, float64(a.scale))
	}
	floor := math.Floor(place)
	lo := math.Floor(-reach/shrink) + 1
	total := 0.0
	for i := lo; i < 2-lo; i++ {
		v := kernel(math.Abs(i-(place-floor)) * shrink)
		if k := floor + i; s.exclusive && (k < 0 || k >= float64(a.in)) {
			v = 0
		}
		w = append(w, v)
		total += v
	}
	if s.exclusive || s.antialias {
		for i := range w {
			w[i] /= total
		}
	}
	return int(max(min(floor+lo, math.MaxInt32), math.MinInt32)), w
}

// cubicKernel is that of Keys, of a distance.
func (s *resize) cubicKernel(d float64) float64 {
	switch k := s.cubic; {
	case d <= 1:
		return ((k+2)*d-(k+3))*d*d + 1
	case d < 2:
		return ((k*d-5*k)*d+8*k)*d - 4*k
	}
	return 0
}

// along resizes one axis.
func (s *resize) along(r *run, x *value, axis int, a resizeAxis) *value {
	before, _, after := around(x.dims, axis)
	dims := slices.Clone(x.dims)
	dims[axis] = a.out
	out := r.newFloats(s.n, dims)
	first, factors := make([]int, a.out), make([][]float64, a.out) // without factors: outside
	for i := range a.out {
		if place := s.source(&a, i); !s.beyond(&a, place) {
			if taps := 4 / min(1, float64(a.scale)); i == 0 {
				r.spend(s.n, []int{a.out, int(min(taps, math.MaxInt32))})
			}
			first[i], factors[i] = s.weights(&a, float64(place))
		}
	}
	sums := make([]float64, after)
	r.do(func() {
		data := x.host
		for b := range before {
			for i, w := range factors {
				to := out.host[(b*a.out+i)*after:][:after]
				if w == nil {
					for j := range to {
						to[j] = s.outside
					}
					continue
				}
				clear(sums)
				for k, f := range w {
					if f == 0 {
						continue
					}
					from := data[(b*a.in+min(max(first[i]+k, 0), a.in-1))*after:]
					for j := range sums {
						sums[j] += f * float64(from[j])
					}
				}
				for j, v := range sums {
					to[j] = simd.Narrow(v)
				}
			}
		}
	})
	return out
}
