package graph

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// TestDescribe describes a graph that runs, and one with operators that do not.
func TestDescribe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	describe := func(g *Builder) *Description {
		b := appendBytes(g.encode("g", 8, 17), 8, appendInt(appendText(nil, 1, "com.example"), 2, 3))
		b = appendBytes(appendText(b, 3, "1.2"), 14, appendText(appendText(nil, 1, "language"), 2, "th"))
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		d, err := Describe(path)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	var g Builder
	g.Input("x", "", "n", 3)
	g.InputOf(typeBool, "c", "")
	w := g.Floats("w", make([]float32, 12), 3, 4)
	branch := func(op string) *Builder {
		b := &Builder{}
		b.Floats("two", []float32{2})
		b.Node(op, []string{"z", "two"}, []string{"inner"})
		b.OutputOf(typeFloat, "inner", "", "n", 4)
		return b
	}
	g.Node("MatMul", []string{"x", w}, []string{"z"})
	addIf(&g, "c", "y", branch("Add"), branch("Mul"))
	g.Output("y", "", "n", 4)
	d := describe(&g)
	want := &Description{
		Producer: "carousel 1.2", Opsets: map[string]int{"ai.onnx": 17, "com.example": 3}, Parameters: 14, Meta: map[string]string{"language": "th"},
		Operators: []OperatorUse{{"Add", true, []string{"Add_inner"}}, {"If", true, []string{"If_y"}}, {"MatMul", true, []string{"MatMul_z"}}, {"Mul", true, []string{"Mul_inner"}}},
	}
	if d.Inputs[0].String() != "x float32[n,3]" || d.Inputs[1].String() != "c bool[]" || d.Outputs[0].String() != "y float32[n,4]" || !d.FreeBatch() {
		t.Errorf("%v -> %v, free %t", d.Inputs, d.Outputs, d.FreeBatch())
	}
	d.Inputs, d.Outputs = nil, nil
	if !reflect.DeepEqual(d, want) {
		t.Errorf("got %+v, want %+v", d, want)
	}

	g = Builder{}
	g.Input("x", "", 1, 3)
	g.Node("Guess", []string{"x"}, []string{"a"})
	g.Node("Neg", []string{"a"}, []string{"b"})
	g.Node("Guess", []string{"b"}, []string{"y"})
	g.Output("y", "", 1, 3)
	d = describe(&g)
	if len(d.Operators) != 2 || !reflect.DeepEqual(d.Operators[0], OperatorUse{"Guess", false, []string{"Guess_a", "Guess_y"}}) || !d.Operators[1].Supported || d.FreeBatch() {
		t.Errorf("%+v", d)
	}
	if d.Problem == "" || d.Problem[0] == ':' {
		t.Errorf("problem %q", d.Problem)
	}

	if err := os.WriteFile(path, []byte("no graph"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Describe(path)
	checkFileError(t, err, "not an ONNX model")
}
