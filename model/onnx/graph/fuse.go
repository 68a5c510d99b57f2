package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// fused returns the nodes that run in place of the given ones: products with constant
// weights take the bias, convolutions the batch normalisation and bounds, and both the
// function that follow them, if nothing else reads what is between. outs are the slots
// that are read behind the nodes. What [Model.Nodes] lists stays as it is in the file.
func (m *Model) fused(nodes []*node, outs []int) []*node {
	readers := map[int]int{}
	reads(nodes, outs, readers)
	maker := map[int]int{} // the index in list of the node that may take what follows a slot
	var list []*node
	for _, n := range nodes {
		for _, b := range n.branches {
			b.nodes = m.fused(b.nodes, b.outs)
		}
		if at, slot := follows(n, readers, maker); at >= 0 {
			var with *node
			if m.guard(n, func() { with = m.merge(list[at], n, slot) }) == nil && with != nil { // the node itself reports an error
				list[at] = with
				maker[with.out[0]] = at
				continue
			}
		}
		if len(n.out) == 1 {
			maker[n.out[0]] = len(list)
		}
		list = append(list, n)
	}
	return list
}

// reads counts the nodes and outputs that read each slot, those in branches included.
func reads(nodes []*node, outs []int, readers map[int]int) {
	for _, n := range nodes {
		for _, slot := range n.in {
			readers[slot]++
		}
		for _, b := range n.branches {
			reads(b.nodes, b.outs, readers)
		}
	}
	for _, slot := range outs {
		readers[slot]++
	}
}

// follows returns the place of a node whose only reader n is, and the slot between
// them; -1 if there is none.
func follows(n *node, readers, maker map[int]int) (at, slot int) {
	if len(n.branches) > 0 || len(n.out) != 1 {
		return -1, 0
	}
	for _, slot := range n.in {
		if at, ok := maker[slot]; ok && slot >= 0 && readers[slot] == 1 {
			return at, slot
		}
	}
	return -1, 0
}

// merge returns a node that computes n, which reads the slot that first makes, and
// first; nil if there is none.
func (m *Model) merge(first, n *node, slot int) *node {
	if n.op == "BatchNormalization" {
		return m.normalized(first, n, slot)
	}
	if f := m.inPlace(first, n, slot); f != nil {
		with := *first
		with.out, with.dead, with.tail = n.out, nil, append(slices.Clip(first.tail), f)
		return &with
	}
	l, dense := first.prepared.(*Linear)
	if !dense && first.op != "Conv" || first.act != cell.Own || first.tail != nil {
		return nil
	}
	with := *first
	with.out, with.dead = n.out, nil
	if n.op == "Add" && dense && l.Bias == nil {
		c := m.constant(n, 1-slices.Index(n.in, slot))
		if c == nil || c.kind != floats || c.rank() != 1 || c.len() != l.Weight.Dim(0) {
			return nil
		}
		with.prepared = &Linear{Weight: l.Weight, Bias: m.param(c.host, c.len())}
		return &with
	}
	act := map[string]cell.Activation{"Relu": cell.ReLU, "Sigmoid": cell.Sigmoid, "Tanh": cell.Tanh}[n.op]
	if act == cell.Own {
		return nil
	}
	with.act = act
	return &with
}

// inPlace returns n as a function of some results of a convolution, in place, with as
// many elements to work in; nil if it is none.
func (m *Model) inPlace(first, n *node, slot int) func(y, work []float32) {
	s, w := simd.Best(), m.constant(first, 1)
	if first.op != "Conv" || w == nil {
		return nil
	}
	if n.op == "LeakyRelu" {
		alpha := n.floatAttr("alpha", 0.01)
		slopes := filled(alpha)
		if !(alpha > 0 && alpha <= 1) {
			return nil
		}
		return func(y, work []float32) {
			s.Mul(work, y, slopes[:len(y)])
			s.Max(y, y, work)
		}
	}
	if n.op != "Max" || len(n.in) != 2 {
		return nil
	}
	c := m.constant(n, 1-slices.Index(n.in, slot))
	if c == nil || c.kind != floats || c.len() != 1 || c.rank() > w.rank() {
		return nil
	}
	bounds := filled(c.host[0])
	return func(y, _ []float32) { s.Max(y, y, bounds[:len(y)]) }
}

const chunk = 1024 // elements that stay in the cache

func filled(v float32) []float32 { return slices.Repeat([]float32{v}, chunk) }

// finish applies the functions of the tail to results, with a chunk to work in.
func (n *node) finish(y, work []float32) {
	for ; len(y) > 0 && n.tail != nil; y = y[min(len(y), chunk):] {
		part := y[:min(len(y), chunk)]
		for _, f := range n.tail {
			f(part, work[:len(part)])
		}
	}
}

// normalized returns a convolution with the weights of one and of the batch
// normalisation behind it, if all of these are constant.
func (m *Model) normalized(first, n *node, slot int) *node {
	w, b := m.constant(first, 1), m.constant(first, 2)
	training := n.intAttr("training_mode", 0) != 0 || n.intAttr("spatial", 1) == 0
	if first.op != "Conv" || first.act != cell.Own || first.tail != nil || n.in[0] != slot || training || w == nil || w.kind != floats || w.rank() < 3 || w.len() == 0 || first.has(2) && b == nil {
		return nil
	}
	channels := w.dims[0]
	var stats [4][]float32 // scale, bias, mean, variance
	for i := range stats {
		v := m.constant(n, 1+i)
		if v == nil || v.kind != floats || v.len() != channels {
			return nil
		}
		stats[i] = v.host
	}
	if b != nil && (b.kind != floats || b.len() != channels) {
		return nil
	}
	weight, bias, factors := slices.Clone(w.host), make([]float32, channels), make([]float64, channels)
	each, epsilon := len(weight)/channels, float64(n.floatAttr("epsilon", 1e-5))
	for c := range bias {
		factor, start := float64(stats[0][c])/math.Sqrt(float64(stats[3][c])+epsilon), 0.0
		factors[c] = factor
		if b != nil {
			start = float64(b.host[c])
		}
		for i, v := range weight[c*each : (c+1)*each] {
			weight[c*each+i] = simd.Narrow(float64(v) * factor)
		}
		bias[c] = simd.Narrow((start-float64(stats[2][c]))*factor + float64(stats[1][c]))
	}
	with := *first
	with.out, with.dead = n.out, nil
	with.in = []int{first.in[0], m.newConstant(first, &value{dims: w.dims, kind: floats, host: weight}), m.newConstant(first, &value{dims: []int{channels}, kind: floats, host: bias})}
	if old, ok := first.prepared.(*convolution); ok { // its weights are not needed
		m.params = slices.DeleteFunc(m.params, func(p *tensor.Param) bool { return p == old.weight || p == old.bias })
		m.weights.uses = slices.DeleteFunc(m.weights.uses, func(u *use) bool { return u.param == old.weight })
	}
	conv := prepareConv(m, &with).(*convolution)
	u := m.weights.uses[len(m.weights.uses)-1]
	u.slot, u.factors = first.in[1], factors
	with.prepared = conv
	return &with
}

// newConstant adds a constant that no name of the file refers to.
func (m *Model) newConstant(n *node, v *value) (slot int) {
	m.names, m.constants = append(m.names, n.title()), append(m.constants, v)
	return len(m.names) - 1
}

// activate applies the function of a node to its results.
func (n *node) activate(y []float32) {
	switch n.act {
	case cell.ReLU:
		rectify(n, simd.Best(), y, y)
	case cell.Sigmoid:
		simd.Best().Sigmoid(y, y)
	case cell.Tanh:
		simd.Best().Tanh(y, y)
	}
}
