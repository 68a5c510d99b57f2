package graph

import (
	"math"
	"testing"
)

// addIf adds a node with a graph for each answer to the condition.
func addIf(g *Builder, condition, out string, yes, no *Builder) {
	g.Node("If", []string{condition}, []string{out})
	n := &g.nodes[len(g.nodes)-1]
	for i, b := range []*Builder{yes, no} {
		a := appendText(nil, 1, []string{"then_branch", "else_branch"}[i])
		a = appendBytes(a, 6, b.graph("branch"))
		*n = appendBytes(*n, 5, appendInt(a, 20, attrGraph))
	}
}

// ifGraph chooses between graphs that read values around them and have names in common.
func ifGraph() []byte {
	var g Builder
	g.InputOf(typeFloat, "x", "", "n")
	g.InputOf(typeBool, "c", "")
	g.Node("Neg", []string{"x"}, []string{"negative"})
	branch := func(op, second string) *Builder {
		b := &Builder{}
		b.Floats("two", []float32{2})
		b.Node(op, []string{"negative", second}, []string{"inner"})
		b.output("inner", "", typeFloat, "n")
		return b
	}
	addIf(&g, "c", "y", branch("Add", "two"), branch("Mul", "x"))
	g.output("y", "", typeFloat, "n")
	return g.encode("g", 8, 17)
}

func TestIf(t *testing.T) {
	m := parsed(t, ifGraph())
	for c, want := range map[int64][]float32{1: {1, -1}, 0: {-1, -9}} {
		out, err := runs(m, map[string]Value{"x": Floats([]float32{1, 3}, 2), "c": Ints([]int64{c})})
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
	leaf := func() *Builder {
		b := &Builder{}
		b.Node("Neg", []string{"x"}, []string{"inner"})
		b.output("inner", "", typeFloat, "n")
		return b
	}
	outer := func() *Builder {
		g := &Builder{}
		g.InputOf(typeFloat, "x", "", "n")
		g.InputOf(typeBool, "c", "")
		return g
	}
	g, deep := outer(), leaf()
	for range 9 {
		b := &Builder{}
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
