package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
)

// The fused operators of the domain com.microsoft, which ONNX Runtime writes when it
// saves a graph that it has optimized.

// runBiasGelu is BiasGelu and FastGelu: a bias along the last axis, and then the
// activation, with its usual approximation in the second.
func runBiasGelu(r *run, n *node, in []*value) []*value {
	x, bias := in[0], in[1]
	if x.kind != floats || bias != nil && (bias.kind != floats || x.rank() == 0 || !slices.Equal(bias.dims, x.dims[x.rank()-1:])) {
		n.failf("needs floats and a bias for its last axis")
	}
	of := gelu
	if n.op == "com.microsoft.FastGelu" {
		of = geluTanh
	}
	out := r.newFloats(n, x.dims)
	r.do(func() {
		for i, v := range x.host {
			y := float64(v)
			if bias != nil {
				y += float64(bias.host[i%len(bias.host)])
			}
			out.host[i] = simd.Narrow(of(y))
		}
	})
	return one(out)
}

// runFusedMatMul is a product of matrices that are transposed first, or not, times
// alpha.
func runFusedMatMul(r *run, n *node, in []*value) []*value {
	operands := slices.Clone(in)
	for i, v := range operands {
		if v.kind != floats || v.rank() < 2 {
			n.failf("needs matrices of floats, got %s of shape %s", v.kind, shape(v.dims))
		}
		if n.intAttr([]string{"transA", "transB"}[i], 0) != 0 {
			dims, stride, end := slices.Clone(v.dims), strides(v.dims), v.rank()-1
			dims[end], dims[end-1] = dims[end-1], dims[end]
			stride[end], stride[end-1] = stride[end-1], stride[end]
			operands[i] = r.view(n, v, dims, stride, 0)
		}
	}
	y := r.matMul(n, operands[0], operands[1])
	alpha := float64(n.floatAttr("alpha", 1))
	if alpha == 1 {
		return one(y)
	}
	out := r.newFloats(n, y.dims)
	r.do(func() {
		for i, v := range y.host {
			out.host[i] = simd.Narrow(alpha * float64(v))
		}
	})
	return one(out)
}

// runSkipLayerNorm normalizes the sum of two inputs and a bias along the last axis; the
// sum is the fourth output.
func runSkipLayerNorm(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.rank() == 0 {
		n.failf("needs at least one dimension")
	}
	size := x.dims[x.rank()-1]
	for i, v := range in {
		if v != nil && (v.kind != floats || i == 1 && !slices.Equal(v.dims, x.dims) || i > 1 && !slices.Equal(v.dims, []int{size})) {
			n.failf("input %d is %s of shape %s, for shape %s", i, v.kind, shape(v.dims), shape(x.dims))
		}
	}
	if len(n.out) > 1 && n.out[1] >= 0 || len(n.out) > 2 && n.out[2] >= 0 {
		n.failf("its outputs of means and deviations are not supported")
	}
	out, sum := r.newFloats(n, x.dims), r.newFloats(n, x.dims)
	epsilon := float64(n.floatAttr("epsilon", 1e-12))
	r.do(func() {
		for i, v := range x.host {
			s := float64(v) + float64(in[1].host[i])
			if in[4] != nil {
				s += float64(in[4].host[i%size])
			}
			sum.host[i] = simd.Narrow(s)
		}
		for at := 0; at < len(sum.host); at += size {
			row := sum.host[at:][:size]
			mean, square := 0.0, 0.0
			for _, v := range row {
				mean += float64(v)
			}
			mean /= float64(size)
			for _, v := range row {
				square += (float64(v) - mean) * (float64(v) - mean)
			}
			scale := 1 / math.Sqrt(square/float64(size)+epsilon)
			for j, v := range row {
				y := (float64(v) - mean) * scale * float64(in[2].host[j])
				if in[3] != nil {
					y += float64(in[3].host[j])
				}
				out.host[at+j] = simd.Narrow(y)
			}
		}
	})
	return []*value{out, nil, nil, sum}
}
