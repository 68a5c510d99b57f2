package graph

import (
	"path/filepath"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
)

// load reads the cases of testdata/kind.safetensors with their models, and the
// inputs of each.
func forEachCase(t *testing.T, kind string, check func(t *testing.T, path string, c *golden.Case)) {
	cases, err := golden.Load(kind)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 12 {
		t.Errorf("%d cases of %s", len(cases), kind)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			check(t, filepath.Join("testdata", kind, c.Name+".onnx"), c)
		})
	}
}

func caseInputs(c *golden.Case) map[string]Value {
	in := map[string]Value{}
	for _, name := range c.Names("in.") {
		v := c.Tensor("in." + name)
		in[name] = Value{Dims: v.Dims, Data: v.Data, Ints: v.Ints}
	}
	return in
}

func checkCase(t *testing.T, path string, c *golden.Case) {
	m, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := runs(m, caseInputs(c))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range c.Names("out.") {
		want, got := c.Tensor("out."+name), out[name]
		if shape(got.Dims) != shape(want.Dims) {
			t.Errorf("%s: shape %v, want %v", name, got.Dims, want.Dims)
			continue
		}
		if err := golden.CheckValues(got.Data, want.Data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i, x := range want.Ints {
			if got.Ints[i] != x {
				t.Errorf("%s: element %d is %d, want %d", name, i, got.Ints[i], x)
			}
		}
	}
}

// TestNodes runs the ONNX project's own tests of LSTM, GRU and RNN.
func TestNodes(t *testing.T) { forEachCase(t, "node", checkCase) }

// TestTorch runs networks that PyTorch exported, of several operator sets.
func TestTorch(t *testing.T) { forEachCase(t, "torch", checkCase) }
