package onnx

import (
	"path/filepath"
	"strings"
	"testing"
)

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
	files, err := filepath.Glob(filepath.Join("graph", "testdata", "torch", "*.onnx"))
	if err != nil || len(files) != len(want)+len(reasons) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".onnx")
		s, _, p, err := Import(t.Context(), path)
		if reason := reasons[name]; reason != "" {
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: error %v, want one with %q", name, err, reason)
			}
			t.Log(err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, _ := s.Config(); got != want[name] {
			t.Errorf("%s: imported %+v, want %+v", name, got, want[name])
		}
		if p.MaxDiff > 1e-6 || p.MaxDiffRuntime > 1e-6 || p.Values == 0 {
			t.Errorf("%s: %v", name, p)
		}
	}
}
