package onnx

import (
	"path/filepath"
	"strings"
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
	for range 2 { // the second run works in used memory
		out, err := m.Run(caseInputs(c))
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
}

// TestNodes runs the ONNX project's own tests of LSTM, GRU and RNN.
func TestNodes(t *testing.T) { forEachCase(t, "node", checkCase) }

// TestTorch runs networks that PyTorch exported, of several operator sets.
func TestTorch(t *testing.T) { forEachCase(t, "torch", checkCase) }

// TestTorchImport imports those exports that are plain stacks. The others are
// refused with a reason that names a node.
func TestTorchImport(t *testing.T) {
	want := map[string]Config{
		"classifier":       {Cell: "lstm", Input: 6, Hidden: 5, Layers: 2, Bidirectional: true, Vocabulary: 13, Output: 3, Pool: PoolFinal},
		"forecaster":       {Cell: "lstm", Input: 4, Hidden: 6, Layers: 2, Output: 2, Pool: PoolLast},
		"forecaster_gru":   {Cell: "gru", Input: 4, Hidden: 6, Layers: 1, Output: 2, Pool: PoolLast},
		"forecaster_elman": {Cell: "rnn_relu", Input: 4, Hidden: 6, Layers: 2, Output: 2, Pool: PoolLast},
		"unfolded":         {Cell: "lstm", Input: 4, Hidden: 6, Layers: 2, Output: 2, Pool: PoolLast},
		"fixed":            {Cell: "lstm", Input: 4, Hidden: 6, Layers: 1, Output: 2, Pool: PoolLast},
		"steps":            {Cell: "gru", Input: 4, Hidden: 5, Layers: 2, Output: 3, Pool: PoolSteps, NoBias: true, HeadNoBias: true},
		"states":           {Cell: "lstm", Input: 4, Hidden: 5, Layers: 2, Pool: PoolSteps},
	}
	reasons := map[string]string{
		"tagger":    "node /LogSoftmax (LogSoftmax)",
		"packed":    "node /Less (Less)",
		"attention": "node /Tanh (Tanh)",
		"decoder":   "node /out_1/MatMul (MatMul): expected one linear layer",
	}
	forEachCase(t, "torch", func(t *testing.T, path string, c *golden.Case) {
		s, _, p, err := Import(path)
		if reason := reasons[c.Name]; reason != "" {
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("error %v, want one with %q", err, reason)
			}
			t.Log(err)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Config(); got != want[c.Name] {
			t.Errorf("imported %+v, want %+v", got, want[c.Name])
		}
		if p.MaxDiff > 1e-6 || p.MaxDiffRuntime > 1e-6 || p.Values == 0 {
			t.Error(p)
		}
	})
}
