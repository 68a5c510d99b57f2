package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
)

// reduction combines elements with a start value, and then computes its result from
// what came and the number of elements.
type reduction struct {
	start  float64 // over no elements
	floats func(sum, x float64) float64
	ints   func(sum, x int64) int64
	end    func(sum float64, count int) float64 // nil: the sum
}

var reductions = map[string]reduction{
	"ReduceSum":       {0, add[float64], add[int64], nil},
	"ReduceMean":      {0, add[float64], add[int64], func(s float64, n int) float64 { return s / float64(n) }},
	"ReduceMax":       {math.Inf(-1), larger[float64], larger[int64], nil},
	"ReduceMin":       {math.Inf(1), smaller[float64], smaller[int64], nil},
	"ReduceProd":      {1, func(p, x float64) float64 { return flush(p * x) }, func(p, x int64) int64 { return p * x }, nil},
	"ReduceL1":        {0, addAbs[float64], addAbs[int64], nil},
	"ReduceL2":        {0, addSquare[float64], addSquare[int64], func(s float64, _ int) float64 { return math.Sqrt(s) }},
	"ReduceSumSquare": {0, addSquare[float64], addSquare[int64], nil},
	"ReduceLogSum":    {0, add[float64], add[int64], func(s float64, _ int) float64 { return math.Log(s) }},
	"ReduceLogSumExp": {math.Inf(-1), larger[float64], larger[int64], nil}, // the maximum, and then logSumExp
}

type number interface{ int64 | float64 }

func add[T number](sum, x T) T       { return sum + x }
func larger[T number](most, x T) T   { return max(most, x) }
func smaller[T number](least, x T) T { return min(least, x) }
func addSquare[T number](sum, x T) T { return sum + x*x }
func addAbs[T number](sum, x T) T    { return sum + max(x, -x) }

// reduceAxes returns the shape of a reduction's result, the strides by which the elements
// of x go to it, and the number of elements that go to each of its own.
func (n *node) reduceAxes(r *run, x *value, in []*value) (dims, to []int, count int) {
	since := 18
	if n.op == "ReduceSum" {
		since = 13
	}
	axes := r.axes(n, in, 1, since)
	all := len(axes) == 0 && n.intAttr("noop_with_empty_axes", 0) == 0
	over := make([]bool, x.rank())
	for _, a := range axes {
		over[n.axis(a, x.rank())] = true
	}
	kept := []int{}
	to, count = make([]int, x.rank()), 1
	for i, d := range x.dims {
		if over[i] || all {
			over[i] = true
			count *= d
			kept = append(kept, 1)
		} else {
			dims, kept = append(dims, d), append(kept, d)
		}
	}
	for i, s := range strides(kept) {
		if !over[i] {
			to[i] = s
		}
	}
	if n.intAttr("keepdims", 1) != 0 {
		dims = kept
	}
	return dims, to, count
}

func runReduction(r *run, n *node, in []*value) []*value {
	x, op := in[0], reductions[n.op]
	dims, to, count := n.reduceAxes(r, x, in)
	out := r.newLike(n, x, dims)
	if x.kind != floats {
		if x.kind == bools && n.op != "ReduceMax" && n.op != "ReduceMin" {
			n.failf("its operand is %s", x.kind)
		}
		if count == 0 && n.op == "ReduceMean" {
			n.failf("the mean over no elements of shape %s", shape(x.dims))
		}
		r.do(func() { reduceInts(out, x, to, count, op) })
		return one(out)
	}
	from, steps := joined(x.dims, to)
	sums := make([]float64, r.spend(n, dims))
	tops := sums
	if n.op == "ReduceLogSumExp" {
		tops = make([]float64, r.spend(n, dims))
	}
	r.do(func() {
		for i := range tops {
			tops[i] = op.start
		}
		fold(tops, x.host, from, steps[0], op.floats)
		if n.op == "ReduceLogSumExp" {
			logSumExp(sums, tops, x, to)
		}
		for i, s := range sums {
			if op.end != nil {
				s = op.end(s, count)
			}
			out.host[i] = simd.Narrow(s)
		}
	})
	return one(out)
}

// reduceInts is exact but for a result that is computed in the end.
func reduceInts(out, x *value, to []int, count int, op reduction) {
	start := int64(op.start)
	if least, most := limits(x.dtype); op.start < float64(least) {
		start = least
	} else if op.start > float64(most) {
		start = most
	}
	for i := range out.ints {
		out.ints[i] = start
	}
	fold(out.ints, x.ints, x.dims, to, op.ints)
	for i, s := range out.ints {
		if op.end != nil {
			s = int64(op.end(float64(s), count))
		}
		out.ints[i] = narrow(x.dtype, s)
	}
}

// limits returns the range of an integer type; that of uint64 as it is kept here.
func limits(dtype int64) (least, most int64) {
	switch bits := 8 * typeSize[dtype]; dtype {
	case typeBool:
		return 0, 1
	case typeUint8, typeUint16, typeUint32:
		return 0, 1<<bits - 1
	default:
		return -1 << (bits - 1), 1<<(bits-1) - 1
	}
}

// logSumExp computes log(sum(exp(x))) from the maxima.
func logSumExp(dst, tops []float64, x *value, to []int) {
	clear(dst)
	n, step := last(x.dims, to)
	data := x.host
	walk(x.dims, func(row int, at offsets) {
		p := at[0]
		for _, v := range data[row*n : row*n+n] {
			dst[p] += exp(float64(v) - tops[p])
			p += step
		}
	}, to)
	for i, s := range dst {
		if dst[i] = tops[i] + math.Log(s); math.IsInf(tops[i], 0) {
			dst[i] = tops[i]
		}
	}
}

// fold combines the elements of src into dst at the places that the strides to give.
func fold[A number, B int64 | float32](dst []A, src []B, dims, to []int, f func(sum, x A) A) {
	n, step := last(dims, to)
	walk(dims, func(row int, at offsets) {
		p := at[0]
		for _, v := range src[row*n : row*n+n] {
			dst[p] = f(dst[p], A(v))
			p += step
		}
	}, to)
}

// runArg returns the index of the maximum or minimum along an axis: the first of
// equal ones by default.
func runArg(r *run, n *node, in []*value) []*value {
	x := in[0]
	axis := n.axis(n.intAttr("axis", 0), x.rank())
	before, size, after := around(x.dims, axis)
	dims := slices.Clone(x.dims)
	dims[axis] = 1
	if n.intAttr("keepdims", 1) == 0 {
		dims = slices.Delete(dims, axis, axis+1)
	}
	if size == 0 {
		n.failf("over no elements of shape %s", shape(x.dims))
	}
	final := n.intAttr("select_last_index", 0) != 0
	out := r.newInts(n, typeInt64, dims)
	r.do(func() {
		if x.kind == floats {
			extremes(out.ints, x.host, before, size, after, n.op == "ArgMin", final)
		} else {
			extremes(out.ints, x.ints, before, size, after, n.op == "ArgMin", final)
		}
	})
	return one(out)
}

func extremes[T int64 | float32](dst []int64, src []T, before, size, after int, least, final bool) {
	for b := range before {
		for a := range after {
			best, where := src[b*size*after+a], 0
			for i := 1; i < size; i++ {
				v := src[(b*size+i)*after+a]
				if least && v < best || !least && v > best || final && v == best {
					best, where = v, i
				}
			}
			dst[b*after+a] = int64(where)
		}
	}
}
