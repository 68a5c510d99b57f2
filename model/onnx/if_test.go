package onnx

import (
	"math"
	"testing"
)

// addIf adds a node with a graph for each answer to the condition.
func addIf(g *Graph, condition, out string, yes, no *Graph) {
	g.Node("If", []string{condition}, []string{out})
	n := &g.nodes[len(g.nodes)-1]
	for i, b := range []*Graph{yes, no} {
		a := appendText(nil, 1, []string{"then_branch", "else_branch"}[i])
		a = appendBytes(a, 6, b.graph("branch"))
		*n = appendBytes(*n, 5, appendInt(a, 20, attrGraph))
	}
}

// TestIf chooses between graphs that read values around them and have names in common.
func TestIf(t *testing.T) {
	var g Graph
	g.input("x", "", typeFloat, "n")
	g.input("c", "", typeBool)
	g.Node("Neg", []string{"x"}, []string{"negative"})
	branch := func(op, second string) *Graph {
		b := &Graph{}
		b.Floats("two", []float32{2})
		b.Node(op, []string{"negative", second}, []string{"inner"})
		b.output("inner", "", typeFloat, "n")
		return b
	}
	addIf(&g, "c", "y", branch("Add", "two"), branch("Mul", "x"))
	g.output("y", "", typeFloat, "n")
	m, err := parse("m.onnx", g.encode("g", 8, 17))
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range map[int64][]float32{1: {1, -1}, 0: {-1, -9}} {
		out, err := m.Run(map[string]Value{"x": Floats([]float32{1, 3}, 2), "c": Ints([]int64{c})})
		if err != nil {
			t.Fatal(err)
		}
		if d, _ := MaxDifference(out["y"].Data, want); math.Abs(d) > 0 {
			t.Errorf("condition %d gives %v, want %v", c, out["y"].Data, want)
		}
	}
}

// TestIfRefused nests graphs too deep, or lets a value leave its branch.
func TestIfRefused(t *testing.T) {
	leaf := func() *Graph {
		b := &Graph{}
		b.Node("Neg", []string{"x"}, []string{"inner"})
		b.output("inner", "", typeFloat, "n")
		return b
	}
	outer := func() *Graph {
		g := &Graph{}
		g.input("x", "", typeFloat, "n")
		g.input("c", "", typeBool)
		return g
	}
	g, deep := outer(), leaf()
	for range 9 {
		b := &Graph{}
		addIf(b, "c", "inner", deep, deep)
		b.output("inner", "", typeFloat, "n")
		deep = b
	}
	addIf(g, "c", "y", deep, deep)
	g.output("y", "", typeFloat, "n")
	_, err := parse("m.onnx", g.encode("g", 8, 17))
	checkFileError(t, err, "graphs in graphs")

	g = outer()
	addIf(g, "c", "y", leaf(), leaf())
	g.Node("Neg", []string{"inner"}, []string{"z"})
	g.output("z", "", typeFloat, "n")
	_, err = parse("m.onnx", g.encode("g", 8, 17))
	checkFileError(t, err, `"inner"`, "nothing makes")
}
