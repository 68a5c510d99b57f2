package graph

import (
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// runBatchNorm normalises each channel of [N,C,...] by stored statistics.
func runBatchNorm(r *run, n *node, in []*value) []*value {
	x := in[0]
	if n.intAttr("training_mode", 0) != 0 || n.intAttr("spatial", 1) == 0 {
		n.failf("attributes training_mode 1 and spatial 0 are not supported")
	}
	if x.kind != floats || x.rank() < 1 {
		n.failf("needs floats of shape [N,C,...], got %s of shape %s", x.kind, shape(x.dims))
	}
	channels := 1
	if x.rank() > 1 {
		channels = x.dims[1]
	}
	n.checkVectors(in[1:5], channels)
	out, factors := r.newFloats(n, x.dims), r.newFloats(n, []int{2, channels})
	out.last = x.last
	scale, shift := factors.host[:channels], factors.host[channels:]
	epsilon := float64(n.floatAttr("epsilon", 1e-5))
	after := 1
	if x.rank() > 2 && !x.last {
		after = product(x.dims[2:])
	}
	r.do(func() {
		for c := range scale {
			s := float64(in[1].host[c]) / math.Sqrt(float64(in[4].host[c])+epsilon)
			scale[c], shift[c] = simd.Narrow(s), simd.Narrow(float64(in[2].host[c])-s*float64(in[3].host[c]))
		}
		affine(out.host, x.host, scale, shift, after)
	})
	return one(out)
}

// affine computes y = x·scale + shift for x of [...,channels,after].
func affine(y, x, scale, shift []float32, after int) {
	set := simd.Best()
	if after == 1 {
		for ; len(x) > 0; x, y = x[len(scale):], y[len(scale):] {
			set.Mul(y[:len(scale)], x[:len(scale)], scale)
			set.Add(y[:len(scale)], y[:len(scale)], shift)
		}
		return
	}
	for c := 0; len(x) > 0; c, x, y = (c+1)%len(scale), x[after:], y[after:] {
		copy(y[:after], x)
		set.Scale(scale[c], y[:after])
		set.Shift(shift[c], y[:after], y[:after])
	}
}

func (n *node) checkVectors(list []*value, size int) {
	for _, v := range list {
		if v.kind != floats || v.len() != size {
			n.failf("%s of shape %s does not fit %d channels", v.kind, shape(v.dims), size)
		}
	}
}

// runGroupNorm normalises groups of channels of each row of [N,C,...] by their own
// mean and variance: InstanceNormalization, of single channels, and GroupNormalization.
func runGroupNorm(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind != floats || x.rank() < 3 {
		n.failf("needs floats of shape [N,C,...], got %s of shape %s", x.kind, shape(x.dims))
	}
	channels := x.dims[1]
	groups := n.intAttr("num_groups", int64(channels))
	if n.op == "GroupNormalization" && n.attrs["num_groups"] == nil {
		n.failf("attribute num_groups is missing")
	}
	if groups < 1 || groups > int64(channels) || channels%int(groups) != 0 {
		n.failf("%d groups of %d channels", groups, channels)
	}
	g := int(groups)
	vectors := channels
	if n.op == "GroupNormalization" && n.opset < 21 {
		vectors = g // one number for each group
	}
	n.checkVectors(in[1:3], vectors)
	out := r.newFloats(n, x.dims)
	epsilon := float64(n.floatAttr("epsilon", 1e-5))
	after := product(x.dims[2:])
	size := channels / g * after
	r.do(func() {
		for at := 0; at < len(x.host); at += size {
			group := at / size % g
			mean, variance := moments(x.host[at : at+size])
			rstd := 1 / math.Sqrt(variance+epsilon)
			for i := range size {
				c := (group*channels/g + i/after) * vectors / channels
				y := (float64(x.host[at+i])-mean)*rstd*float64(in[1].host[c]) + float64(in[2].host[c])
				out.host[at+i] = simd.Narrow(y)
			}
		}
	})
	return one(out)
}

// moments returns the mean and the biased variance of x.
func moments(x []float32) (mean, variance float64) {
	for _, v := range x {
		mean += float64(v)
	}
	mean /= float64(len(x))
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean)
	}
	return mean, variance / float64(len(x))
}
