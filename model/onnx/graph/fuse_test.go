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
	g.Node("Relu", []string{"k1"}, []string{"l"})
	g.Node("Conv", []string{"l", weight("k2", 2, 3, 1)}, []string{"m"})
	g.Node("LeakyRelu", []string{"m"}, []string{"n1"}, Attr{"alpha", float32(0.3)})
	g.Node("Max", []string{g.Floats("bound", []float32{-0.1}, 1, 1, 1), "n1"}, []string{"o"})
	g.Node("Max", []string{g.Floats("rank", []float32{-0.05}, 1, 1, 1, 1), "o"}, []string{"y"})
	g.Output("y", "", 1, "n", 3)
	g.Output("read", "", "n", 3)
	m := parsed(t, g.Encode())
	var ops []string
	var acts []cell.Activation
	for _, n := range m.running {
		ops, acts = append(ops, n.op), append(acts, n.act)
	}
	if want := []string{"MatMul", "Gemm", "MatMul", "Sigmoid", "MatMul", "Add", "Conv", "Relu", "Conv", "Max"}; !slices.Equal(ops, want) {
		t.Errorf("%v run, want %v", ops, want)
	}
	if want := []cell.Activation{cell.Tanh, cell.ReLU, 0, 0, 0, 0, cell.ReLU, 0, 0, 0}; !slices.Equal(acts, want) {
		t.Errorf("functions %v, want %v", acts, want)
	}
	if n := len(m.Nodes()); n != 16 {
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

// A batch normalisation becomes part of the convolution before it.
func TestFusedNormalization(t *testing.T) {
	build := func(read bool) *Model {
		r := newRandom(5)
		g := &Builder{}
		vector := func(name string, n int) string {
			v := RandomFloats(r, n).Data
			for i, x := range v {
				v[i] = x*x + 0.1
			}
			return g.Floats(name, v, n)
		}
		weight := func(name string, dims ...int) string { return g.Floats(name, RandomFloats(r, dims...).Data, dims...) }
		g.Input("x", "", 1, 4, "n")
		last := "x"
		for i, name := range []string{"a", "b"} {
			in := []string{last, weight("w"+name, 4, 2, 3), weight("bias"+name, 4)}[:3-i] // the second has no bias
			g.Node("Conv", in, []string{"conv" + name}, Attr{"group", 2}, Attr{"pads", []int64{1, 1}})
			g.Node("BatchNormalization", []string{"conv" + name, vector("s"+name, 4), vector("o"+name, 4), vector("m"+name, 4), vector("v"+name, 4)}, []string{"bn" + name}, Attr{"epsilon", float32(0.1)})
			g.Node("Relu", []string{"bn" + name}, []string{"y" + name})
			last = "y" + name
			if read {
				g.Output("conv"+name, "", 1, 4, "n")
			}
		}
		g.Output(last, "", 1, 4, "n")
		return parsed(t, g.Encode())
	}
	m, apart := build(false), build(true)
	if len(m.running) != 2 || len(apart.running) != 6 {
		t.Fatalf("%d and %d nodes run", len(m.running), len(apart.running))
	}
	if len(m.params) != 4 {
		t.Errorf("%d weights are kept, want those of two convolutions", len(m.params))
	}
	in := map[string]Value{"x": RandomFloats(newRandom(6), 1, 4, 9)}
	got, err := runs(m, in)
	if err != nil {
		t.Fatal(err)
	}
	want, err := runs(apart, in)
	if err != nil {
		t.Fatal(err)
	}
	if _, d := MaxDifference(got["yb"].Data, want["yb"].Data); d > 2e-6 {
		t.Errorf("differs by %g", d)
	}
}
