package graph

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/tensor"
)

// Node is an operation that remains after constants have been computed.
type Node struct {
	Operator        string
	Inputs, Outputs []string // names of values; "" for one left out
	// Layer is the layer of a node with constant weights: a *[Recurrent], a *[Linear]
	// or, for a Gather of rows of a table, the table as a *[tensor.Param]. It is nil
	// for other nodes.
	Layer any

	m *Model
	n *node
}

// Recurrent is an LSTM, GRU or RNN node that is a layer as in PyTorch. Its inputs
// for initial states and lengths are not included.
type Recurrent struct {
	Cell          cell.Kind
	Input, Hidden int
	Directions    []tensor.Direction // one or two, gates in the engine's order
}

// Nodes lists the operations of the graph in the order they run.
func (m *Model) Nodes() []*Node {
	list := make([]*Node, len(m.nodes))
	for i, n := range m.nodes {
		list[i] = &Node{Operator: n.op, Inputs: m.valueNames(n.in), Outputs: m.valueNames(n.out), m: m, n: n}
		switch p := n.prepared.(type) {
		case *recurrent:
			if p.plain && p.dirs != nil && !p.backward {
				list[i].Layer = &Recurrent{p.cell, p.input, p.dirs[0].Params[cell.R].Dim(1), p.dirs}
			}
		case *Linear, *tensor.Param:
			list[i].Layer = p
		}
	}
	return list
}

func (m *Model) valueNames(slots []int) []string {
	list := make([]string, len(slots))
	for i, slot := range slots {
		if slot >= 0 {
			list[i] = m.names[slot]
		}
	}
	return list
}

// String returns the node's name and operator, for messages.
func (n *Node) String() string { return n.n.title() }

// Constant returns input i if it is constant; ok is false if it is not. Its
// elements must not be changed.
func (n *Node) Constant(i int) (v Value, ok bool) {
	c := n.m.constant(n.n, i)
	if c == nil {
		return Value{}, false
	}
	return Value{Dims: c.dims, Data: c.host, Ints: c.ints}, true
}
