package graph

import (
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/simd"
)

// fused returns the nodes that run in place of the given ones: products with constant
// weights and convolutions take the bias and the function that follow them, if nothing
// else reads what is between. outs are the slots that are read behind the nodes. What
// [Model.Nodes] lists stays as it is in the file.
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
			if with := m.merge(list[at], n, slot); with != nil {
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
	l, dense := first.prepared.(*Linear)
	if !dense && first.op != "Conv" || first.act != cell.Own {
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

// activate applies the function of a node to its results.
func (n *node) activate(y []float32) {
	switch n.act {
	case cell.ReLU:
		rectify(n, nil, y, y)
	case cell.Sigmoid:
		simd.Best().Sigmoid(y, y)
	case cell.Tanh:
		simd.Best().Tanh(y, y)
	}
}
