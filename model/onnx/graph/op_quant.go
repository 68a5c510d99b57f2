package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
)

// quantum is the scale and the zero point of a quantized tensor: one for all of it, or
// by axis, or by blocks of an axis.
type quantum struct {
	scale, zero *value // zero may be nil
	each        []int  // which of them each element has; nil: the first
}

// quantumOf returns inputs 1 and 2 for the elements of x.
func (r *run) quantumOf(n *node, x, scale, zero *value) quantum {
	q := quantum{scale: scale, zero: zero}
	if scale.kind != floats || zero != nil && (zero.kind != ints || zero.len() != scale.len()) || scale.len() == 0 {
		n.failf("needs scales of floats, and as many zero points of integers")
	}
	if scale.len() == 1 {
		return q
	}
	axis := n.axis(n.intAttr("axis", 1), x.rank())
	before, size, after := around(x.dims, axis)
	block, per := n.intAttr("block_size", 0), size
	if block < 0 || block > math.MaxInt32 {
		n.failf("block_size is %d", block)
	}
	want := []int{size}
	if block > 0 {
		per = (size + int(block) - 1) / int(block)
		want = slices.Clone(x.dims)
		want[axis] = per
	}
	if !slices.Equal(scale.dims, want) {
		n.failf("scales of shape %s for shape %s, axis %d, blocks of %d; expected %s", shape(scale.dims), shape(x.dims), axis, block, shape(want))
	}
	if q.each = make([]int, r.spend(n, x.dims)); len(q.each) == 0 {
		return q
	}
	for b := range before {
		for i := range size {
			for a := range after {
				at := i
				if block > 0 {
					at = (b*per+i/int(block))*after + a
				}
				q.each[(b*size+i)*after+a] = at
			}
		}
	}
	return q
}

// at returns the scale and the zero point of element i.
func (q *quantum) at(i int) (scale float32, zero int64) {
	k := 0
	if q.each != nil {
		k = q.each[i]
	}
	if q.zero != nil {
		zero = q.zero.ints[k]
	}
	return q.scale.host[k], zero
}

// quantize returns x/scale + zero, rounded and within an integer type.
func quantize(x, scale float32, zero, least, most int64) int64 {
	return saturate(float64(simd.Narrow(float64(x)/float64(scale))), zero, least, most)
}

// saturate returns x + zero, rounded and within an integer type.
func saturate(x float64, zero, least, most int64) int64 {
	y := math.RoundToEven(x) + float64(zero)
	if y != y {
		return zero
	}
	return int64(math.Max(float64(least), math.Min(float64(most), y)))
}

func runQuantize(r *run, n *node, in []*value) []*value {
	x := in[0]
	dtype := n.intAttr("output_dtype", 0)
	if dtype == 0 {
		if dtype = typeUint8; in[2] != nil {
			dtype = in[2].elementType()
		}
	}
	if x.kind == bools || dtype == typeInt64 || dtype == typeUint64 {
		n.failf("from %s to %s", x.kind, typeName(dtype))
	}
	x = r.cast(n, x, typeFloat)
	q := r.quantumOf(n, x, in[1], in[2])
	out := r.newInts(n, dtype, x.dims)
	least, most := limits(dtype)
	r.do(func() {
		for i, v := range x.host {
			scale, zero := q.at(i)
			out.ints[i] = quantize(v, scale, zero, least, most)
		}
	})
	return one(out)
}

func runDequantize(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind != ints {
		n.failf("its operand is %s", x.kind)
	}
	q := r.quantumOf(n, x, in[1], in[2])
	out := r.newFloats(n, x.dims)
	r.do(func() {
		for i, v := range x.ints {
			scale, zero := q.at(i)
			out.host[i] = simd.Narrow(float64(float32(v-zero)) * float64(scale))
		}
	})
	return one(out)
}

// dynamic returns the scale and the zero point by which ONNX Runtime quantizes x to
// uint8.
func dynamic(x []float32) (scale float32, zero int64) {
	lo, hi := float32(0), float32(0)
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	if scale = simd.Narrow(float64(simd.Narrow(float64(hi)-float64(lo))) / 255); scale == 0 {
		return 1, 0
	}
	return scale, quantize(-lo, scale, 0, 0, 255)
}

func runDynamicQuantize(r *run, n *node, in []*value) []*value {
	x := in[0]
	if x.kind != floats {
		n.failf("its operand is %s", x.kind)
	}
	out, scale, zero := r.newInts(n, typeUint8, x.dims), r.newFloats(n, []int{}), r.newInts(n, typeUint8, []int{})
	r.do(func() {
		scale.host[0], zero.ints[0] = dynamic(x.host)
		for i, v := range x.host {
			out.ints[i] = quantize(v, scale.host[0], zero.ints[0], 0, 255)
		}
	})
	return []*value{out, scale, zero}
}

// centered returns x without its zero point, as floats, which hold it exactly. There
// is one zero point, or one for each element of an axis.
func (r *run) centered(n *node, x, zero *value, axis int) *value {
	if x.kind != ints || typeSize[x.dtype] > 1 {
		n.failf("an operand is %s, expected uint8 or int8", typeName(x.elementType()))
	}
	if axis >= x.rank() {
		n.failf("an operand has shape %s", shape(x.dims))
	}
	_, size, after := around(x.dims, axis)
	if zero != nil && (zero.kind != ints || zero.len() != 1 && zero.len() != size) {
		n.failf("zero points of shape %s for axis %d of shape %s", shape(zero.dims), axis, shape(x.dims))
	}
	return r.from(func() *value {
		out := r.newFloats(n, x.dims)
		r.do(func() {
			for i, v := range x.ints {
				if zero != nil {
					k := 0
					if zero.len() > 1 {
						k = i / after % size
					}
					v -= zero.ints[k]
				}
				out.host[i] = float32(v)
			}
		})
		return out
	}, x, zero)
}

// from runs a part of an operator that reads only these values, so that it is done once
// if they are constant.
func (r *run) from(f func() *value, values ...*value) *value {
	defer func(varies bool) { r.varies = varies }(r.varies)
	r.varies = slices.ContainsFunc(values, func(v *value) bool { return v != nil && v.varies() })
	return f()
}

// exactTerms is the number of products of two numbers of 9 bits whose sum float32
// always holds exactly: 255·255·256 < 2^24.
const exactTerms = 256

// exactSum adds products of parts of an operand, each of which floats hold exactly, as
// integers.
func (r *run) exactSum(n *node, parts int, product func(i int) *value) *value {
	var sum *value
	for i := range parts {
		y := product(i)
		first := sum == nil
		if first {
			sum = r.newInts(n, typeInt32, y.dims)
		}
		out := sum
		r.do(func() {
			for i, v := range y.host {
				if first {
					out.ints[i] = int64(v)
				} else {
					out.ints[i] += int64(v)
				}
			}
		})
	}
	return sum
}

// matMulExact is the product of matrices of small whole numbers, as integers.
func (r *run) matMulExact(n *node, a, b *value) *value {
	inner := a.dims[a.rank()-1]
	if b.rank() < 2 || a.rank() < 2 || b.dims[b.rank()-2] != inner {
		n.failf("matrices of shape %s and %s", shape(a.dims), shape(b.dims))
	}
	if a.len() == 0 || b.len() == 0 {
		inner = 0
	}
	return r.exactSum(n, max(1, (inner+exactTerms-1)/exactTerms), func(i int) *value {
		lo, hi := i*exactTerms, min((i+1)*exactTerms, inner) // of no elements: an empty sum
		part := r.from(func() *value { return r.cut(n, b, b.rank()-2, lo, hi) }, b)
		return r.matMul(n, r.cut(n, a, a.rank()-1, lo, hi), part)
	})
}

// matrices returns two quantized operands without their zero points, of which there may
// be one for each row of a and each column of b, as matrices.
func (r *run) matrices(n *node, a, b, zeroA, zeroB *value) (x, y *value) {
	if a.rank() < 2 || b.rank() < 2 {
		n.failf("needs matrices, got shapes %s and %s", shape(a.dims), shape(b.dims))
	}
	return r.centered(n, a, zeroA, a.rank()-2), r.centered(n, b, zeroB, b.rank()-1)
}

func runMatMulInteger(r *run, n *node, in []*value) []*value {
	x, y := r.matrices(n, in[0], in[1], in[2], in[3])
	return one(r.matMulExact(n, x, y))
}

// requantize returns integers times the scales of two operands, of which the second
// may have one for each element of an axis, in a type with one scale and zero point.
func (r *run) requantize(n *node, sum, scaleA, scaleB, scale, zero *value, axis int) *value {
	_, size, after := around(sum.dims, axis)
	for _, v := range []*value{scaleA, scaleB, scale} {
		if v.kind != floats || v.len() != 1 && (v != scaleB || v.len() != size) {
			n.failf("scales of shape %s for axis %d of shape %s", shape(v.dims), axis, shape(sum.dims))
		}
	}
	if zero.kind != ints || zero.len() != 1 {
		n.failf("the zero point must be one integer")
	}
	out := r.newInts(n, zero.dtype, sum.dims)
	least, most := limits(zero.dtype)
	r.do(func() {
		for i, v := range sum.ints {
			by := scaleB.host[0]
			if scaleB.len() > 1 {
				by = scaleB.host[i/after%size]
			}
			by = simd.Narrow(float64(scaleA.host[0]) * float64(by))
			by = simd.Narrow(float64(by) / float64(scale.host[0]))
			out.ints[i] = saturate(float64(simd.Narrow(float64(float32(v))*float64(by))), zero.ints[0], least, most)
		}
	})
	return out
}

func runQLinearMatMul(r *run, n *node, in []*value) []*value {
	x, y := r.matrices(n, in[0], in[3], in[2], in[5])
	sum := r.matMulExact(n, x, y)
	return one(r.requantize(n, sum, in[1], in[4], in[6], in[7], sum.rank()-1))
}

// convExact is a convolution of small whole numbers, as integers.
func (r *run) convExact(n *node, x, w *value) *value {
	groups := n.intAttr("group", 1)
	if x.rank() < 3 || w.rank() != x.rank() || groups < 1 || groups > int64(x.dims[1]) || x.dims[1] != int(groups)*w.dims[1] || w.len() == 0 {
		n.failf("%d groups of channels, shape %s and weights of shape %s", groups, shape(x.dims), shape(w.dims))
	}
	area, g, channels := product(w.dims[2:]), int(groups), w.dims[1]
	if area > exactTerms {
		n.failf("a kernel of %d elements; at most %d are supported", area, exactTerms)
	}
	conv := *n
	conv.op, conv.prepared = "Conv", nil
	each := exactTerms / area
	grouped := x.reshaped(append([]int{x.dims[0], g, channels}, x.dims[2:]...))
	return r.exactSum(n, (channels+each-1)/each, func(i int) *value {
		lo, hi := i*each, min((i+1)*each, channels)
		part := r.cut(n, grouped, 2, lo, hi).reshaped(append([]int{x.dims[0], g * (hi - lo)}, x.dims[2:]...))
		weights := r.from(func() *value { return r.cut(n, w, 1, lo, hi) }, w)
		return r.firstLayout(n, runConv(r, &conv, []*value{part, weights, nil})[0])
	})
}

func runConvInteger(r *run, n *node, in []*value) []*value {
	x, w := in[0], in[1]
	return one(r.convExact(n, r.centered(n, x, in[2], 0), r.centered(n, w, in[3], 0)))
}

func runQLinearConv(r *run, n *node, in []*value) []*value {
	sum := r.convExact(n, r.centered(n, in[0], in[2], 0), r.centered(n, in[3], in[5], 0))
	if bias := in[8]; bias != nil {
		if bias.kind != ints || bias.len() != sum.dims[1] {
			n.failf("bias of shape %s for %d channels", shape(bias.dims), sum.dims[1])
		}
		_, channels, area := around(sum.dims, 1)
		r.do(func() {
			for i := range sum.ints {
				sum.ints[i] += bias.ints[i/area%channels]
			}
		})
	}
	return one(r.requantize(n, sum, in[1], in[4], in[6], in[7], 1))
}

// prepareDynamicLSTM reads the attributes of an LSTM; the weights stay as they are.
func prepareDynamicLSTM(m *Model, n *node) any {
	own := *n
	own.op, own.in = "LSTM", nil
	return prepareRecurrent(m, &own)
}

// runDynamicLSTM is com.microsoft.DynamicQuantizeLSTM: an LSTM with quantized weights W
// [D,I,4H] and R [D,H,4H], that quantizes all of X at once and, at each step, the states
// of all rows to uint8, as [dynamic] does.
func runDynamicLSTM(r *run, n *node, in []*value) []*value {
	own := *n
	own.op = "LSTM"
	c := &call{recurrent: n.prepared.(*recurrent), r: r, n: &own, in: in[:8]}
	x, w, u := in[0], in[1], in[2]
	if x.kind != floats || x.rank() != 3 || w.rank() != 3 || u.rank() != 3 || u.len() == 0 {
		n.failf("X, W and R must be of 3 dimensions, got %s, %s and %s", shape(x.dims), shape(w.dims), shape(u.dims))
	}
	c.T, c.B, c.I, c.H = x.dims[0], x.dims[1], x.dims[2], u.dims[1]
	D, rows := c.directions, 4*c.H
	if !slices.Equal(w.dims, []int{D, c.I, rows}) || !slices.Equal(u.dims, []int{D, c.H, rows}) || c.hidden > 0 && c.hidden != c.H ||
		in[3] != nil && (in[3].kind != floats || !slices.Equal(in[3].dims, []int{D, 2 * rows})) {
		n.failf("X, W, R and B of shapes %s, %s and %s do not fit %d directions", shape(x.dims), shape(w.dims), shape(u.dims), D)
	}
	if x.len() == 0 {
		n.failf("X of shape %s has no elements", shape(x.dims))
	}
	c.readLengths()
	c.checkStates()
	state := []int{D, c.B, c.H}
	c.y, c.h, c.cs = r.newFloats(n, []int{c.T, D, c.B, c.H}), r.newFloats(n, state), r.newFloats(n, state)
	c.h0, c.cs0 = c.state(5), c.state(6)
	scaleX := r.newFloats(n, []int{})
	numbers := r.newFloats(n, []int{c.T * c.B, c.I})
	r.do(func() {
		copyOrClear(c.h, c.h0)
		copyOrClear(c.cs, c.cs0)
		clear(c.y.host)
		used := x.host[:c.steps()*c.B*c.I]
		clear(numbers.host)
		scaleX.host[0] = center(numbers.host, used)
	})
	for d := range D {
		wd := r.directionWeights(n, w, in[8], in[9], d, D)
		ud := r.directionWeights(n, u, in[10], in[11], d, D)
		products := r.matMulExact(n, numbers, wd.numbers)
		row := newCellRow(c.quantized(d))
		h := make([]float32, r.spend(n, []int{c.B, c.H}))
		r.do(func() { c.dynamicScan(row, d, products, wd, ud, scaleX.host[0], h) })
	}
	return []*value{c.y, c.h, c.cs}
}

// center quantizes x and writes it without the zero point; it returns the scale.
func center(dst, x []float32) float32 {
	scale, zero := dynamic(x)
	for i, v := range x {
		dst[i] = float32(quantize(v, scale, zero, 0, 255) - zero)
	}
	return scale
}

// steps returns the length of the longest row.
func (c *call) steps() int {
	if c.lengths == nil {
		return c.T
	}
	return int(slices.Max(append([]int32{0}, c.lengths...)))
}

// columns is a matrix of whole numbers [in,4H] with one scale, or one for each column.
type columns struct {
	numbers *value
	scale   []float32
}

func (r *run) directionWeights(n *node, w, scale, zero *value, d, D int) columns {
	in, rows := w.dims[1], w.dims[2]
	for _, v := range []*value{scale, zero} {
		if v == nil || v.len() != D && v.len() != D*rows {
			n.failf("scales and zero points of the weights must be [%d] or [%d,%d]", D, D, rows)
		}
	}
	if scale.kind != floats || zero.kind != ints {
		n.failf("scales must be floats and zero points integers")
	}
	part := func(v *value) *value { return v.part([]int{v.len() / D}, d*(v.len()/D)) }
	return columns{r.centered(n, w.part([]int{in, rows}, d*in*rows), part(zero), 1), part(scale).host}
}

func (s *columns) of(column int) float64 { return float64(s.scale[column%len(s.scale)]) }

// quantized is a direction as the plain cell, whose products are made elsewhere.
func (c *call) quantized(d int) *plainCell {
	per, rows := len(c.acts)/c.directions, 4*c.H
	p := &plainCell{op: "LSTM", I: c.I, H: c.H, acts: c.acts[d*per:][:per], clip: c.clip, coupled: c.coupled, reverse: c.reverse(d), r: make([]float32, rows*c.H)}
	if c.in[3] != nil {
		p.b = c.in[3].host[d*2*rows:][:2*rows]
	}
	if c.in[7] != nil {
		p.p = c.in[7].host[d*3*c.H:][:3*c.H]
	}
	return p
}

// dynamicScan runs one direction. h is scratch memory.
func (c *call) dynamicScan(s *cellRow, d int, products *value, w, u columns, scaleX float32, h []float32) {
	B, H, rows := c.B, c.H, 4*c.H
	hs, cs := c.h.host[d*B*H:][:B*H], c.cs.host[d*B*H:][:B*H]
	length := func(b int) int {
		if c.lengths == nil {
			return c.T
		}
		return int(c.lengths[b])
	}
	for step := range c.steps() {
		for b := range B {
			// As in ONNX Runtime, a row counts until the step after its end, or, where
			// Y is not wanted, until all have ended.
			if row := h[b*H : (b+1)*H]; step <= length(b) || c.n.out[0] < 0 {
				copy(row, hs[b*H:])
			} else {
				clear(row)
			}
		}
		scale := center(h, h)
		for b := range B {
			length := length(b)
			if step >= length {
				continue
			}
			t := turn(step, length, s.reverse)
			s.load(hs[b*H:], cs, b)
			clear(s.rh)
			for k, v := range h[b*H : (b+1)*H] {
				for g, weight := range u.numbers.host[k*rows:][:rows] {
					s.rh[g] += float64(v) * float64(weight)
				}
			}
			for g := range rows {
				s.rh[g] *= float64(scale) * u.of(g)
				s.wx[g] = float64(products.ints[(t*B+b)*rows+g]) * float64(scaleX) * w.of(g)
				if s.b != nil {
					s.wx[g] += float64(s.b[g]) + float64(s.b[rows+g])
				}
			}
			s.lstm()
			for j := range H {
				hs[b*H+j], cs[b*H+j] = float32(s.h[j]), float32(s.c[j])
			}
			copy(c.y.host[((t*c.directions+d)*B+b)*H:], hs[b*H:(b+1)*H])
		}
	}
}
