package graph

import (
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/cell"
)

// A product takes the bias and the function behind it, and a convolution the function,
// unless something else reads what is between.
func TestFused(t *testing.T) {
	r := newRandom(3)
	g := &Builder{}
	weight := func(name string, dims ...int) string { return g.Floats(name, RandomFloats(r, dims...).Data, dims...) }
	g.Input("x", "", "n", 4)
	g.Node("MatMul", []string{"x", weight("w1", 4, 5)}, []string{"a"})
	g.Node("Add", []string{weight("b1", 5), "a"}, []string{"b"})
	g.Node("Tanh", []string{"b"}, []string{"c"})
	g.Node("Gemm", []string{"c", weight("w2", 5, 3), weight("b2", 3)}, []string{"d"})
	g.Node("Relu", []string{"d"}, []string{"e"})
	g.Node("MatMul", []string{"e", weight("w3", 3, 3)}, []string{"read"})
	g.Node("Sigmoid", []string{"read"}, []string{"f"}) // "read" is an output
	g.Node("MatMul", []string{"f", weight("w4", 3, 2)}, []string{"h"})
	g.Node("Add", []string{"h", weight("b4", 1, 1, 2)}, []string{"i"}) // changes the rank
	g.Node("Conv", []string{"i", weight("k", 3, 1, 2)}, []string{"j"})
	g.Node("Relu", []string{"j"}, []string{"k1"})
	g.Node("Relu", []string{"k1"}, []string{"y"})
	g.Output("y", "", 1, "n", 3)
	g.Output("read", "", "n", 3)
	m := parsed(t, g.Encode())
	var ops []string
	var acts []cell.Activation
	for _, n := range m.running {
		ops, acts = append(ops, n.op), append(acts, n.act)
	}
	if want := []string{"MatMul", "Gemm", "MatMul", "Sigmoid", "MatMul", "Add", "Conv", "Relu"}; !slices.Equal(ops, want) {
		t.Errorf("%v run, want %v", ops, want)
	}
	if want := []cell.Activation{cell.Tanh, cell.ReLU, 0, 0, 0, 0, cell.ReLU, 0}; !slices.Equal(acts, want) {
		t.Errorf("functions %v, want %v", acts, want)
	}
	if n := len(m.Nodes()); n != 12 {
		t.Errorf("%d nodes are listed, want those of the file", n)
	}
	in := RandomFloats(r, 1, 4)
	got, err := runs(m, map[string]Value{"x": in})
	if err != nil {
		t.Fatal(err)
	}
	m.running = m.nodes
	lifetimes(m.running, m.inSlots, m.outSlots)
	want, err := runs(m, map[string]Value{"x": in})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range want {
		if d, _ := MaxDifference(got[name].Data, v.Data); d > 1e-6 {
			t.Errorf("%s differs by %g", name, d)
		}
	}
}
