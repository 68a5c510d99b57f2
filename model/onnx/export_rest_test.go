package onnx

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Stacks with weights at rest are written so that ONNX Runtime has the same weights, and this
// package the same results.
func TestExportAtRest(t *testing.T) {
	lstm := Config{Cell: "lstm", Input: 20, Hidden: 40, Layers: 2, Bidirectional: true, Vocabulary: 30, Output: 5, Pool: PoolSteps}
	with := func(cell string, one bool) Config {
		c := lstm
		if c.Cell = cell; one {
			c.Bidirectional, c.Vocabulary, c.Layers, c.NoBias = false, 0, 1, true
		}
		return c
	}
	for _, c := range []struct {
		Config
		rest     tensor.Precision
		standard bool
		dynamic  int // nodes
	}{
		{lstm, tensor.Int8, false, 2},
		{lstm, tensor.Int8, true, 0},
		{with("lstm", true), tensor.Int8, false, 1},
		{with("lstm", true), tensor.Int8, true, 0},
		{with("gru", false), tensor.Int8, false, 0},
		{with("rnn_relu", true), tensor.Int8, false, 0},
		{lstm, tensor.BFloat16, false, 0},
		{with("gru", true), tensor.Float16, false, 0},
	} {
		t.Run(c.title(), func(t *testing.T) {
			s, _ := newStack(t, c.Config)
			for _, p := range s.params() {
				if p.Rank() > 1 {
					p.SetRest(c.rest)
				}
			}
			path := filepath.Join(t.TempDir(), "m.onnx")
			p, err := Export(t.Context(), path, s, &ExportOptions{State: true, Lengths: true, Standard: c.standard})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(p)
			m, err := graph.Read(path)
			if err != nil {
				t.Fatal(err)
			}
			dynamic := 0
			for _, op := range m.Operators() {
				if op == graph.DynamicLSTM {
					dynamic++
				}
			}
			if dynamic != c.dynamic {
				t.Errorf("%d LSTM nodes round their inputs, want %d", dynamic, c.dynamic)
			}
			if c.dynamic == 0 && (p.MaxDiff > 2e-6 || p.MaxDiffRuntime > 1e-5 || strings.Contains(p.Rounding, "all rows")) || c.dynamic > 0 && (p.MaxDiff == 0 || !strings.Contains(p.Rounding, "all rows")) {
				t.Error(p)
			}
			for _, w := range m.Weights() {
				if w.Rest != c.rest {
					t.Errorf("%s rests in %s, want %s", w.Name, w.Rest, c.rest)
				}
			}
			if c.dynamic > 0 { // as the file of the standard's operators has it, but for the rounding of the rest
				return
			}
			plain, _ := newStack(t, c.Config)
			full := filepath.Join(t.TempDir(), "m.onnx")
			if _, err := Export(t.Context(), full, plain, nil); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Stat(full)
			after, _ := os.Stat(path)
			if share := float64(after.Size()) / float64(before.Size()); share > map[tensor.Precision]float64{tensor.Int8: 0.55, tensor.BFloat16: 0.7, tensor.Float16: 0.8}[c.rest] {
				t.Errorf("the file has %.2f of the size in float32", share)
			}
		})
	}
}

// Cells that the standard lacks, and options that DynamicQuantizeLSTM lacks.
func TestExportAtRestScan(t *testing.T) {
	for name, m := range map[string]*nn.RNN{
		"norms":      nn.NewLSTM(6, 8, &nn.RNNOptions{LayerNorm: true}),
		"projection": nn.NewLSTM(6, 8, &nn.RNNOptions{Proj: 4, Bidirectional: true}),
		"peepholes":  nn.NewLSTM(6, 8, &nn.RNNOptions{Peephole: true}),
		"clip":       nn.NewLSTM(6, 8, &nn.RNNOptions{GateClip: 1}),
	} {
		s := &Stack{RNN: m}
		tensor.Pack(tensor.CPU(), s, 5)
		for _, p := range m.Weights {
			if p.Rank() > 1 {
				p.SetRest(tensor.Int8)
			}
		}
		p, err := Export(t.Context(), filepath.Join(t.TempDir(), "m.onnx"), s, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Logf("%s: %s", name, p)
		if strings.Contains(p.Rounding, "all rows") {
			t.Errorf("%s: %s", name, p)
		}
	}
	s, _ := newStack(t, Config{Cell: "lstm", Input: 4, Hidden: 5, Layers: 1, Bidirectional: true, Pool: PoolSteps})
	s.RNN.Weights[0].SetRest(tensor.Int8)
	_, err := Export(t.Context(), filepath.Join(t.TempDir(), "m.onnx"), s, nil)
	if err == nil || !strings.Contains(err.Error(), "weight_ih_l0 rests in int8 and rnn.weight_ih_l0_reverse in f32") {
		t.Error(err)
	}
}

// The bits of an LSTM's file do not depend on what it is run with: its integers are those of the model.
func TestDynamicWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	s, _ := newStack(t, Config{Cell: "lstm", Input: 6, Hidden: 7, Layers: 1, Pool: PoolSteps})
	for _, p := range s.RNN.Weights[:2] {
		p.Write(graph.RandomFloats(r, p.Dims()...).Data)
		p.SetRest(tensor.Int8)
	}
	g, err := s.graph(&ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := g.Model("m.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range m.Nodes() {
		if n.Operator != graph.DynamicLSTM {
			continue
		}
		for i, p := range s.RNN.Weights[:2] {
			numbers, _ := n.Constant(1 + i)
			scales, _ := n.Constant(8 + 2*i)
			zeros, _ := n.Constant(9 + 2*i)
			rows, cols := p.Dim(0), p.Dim(1)
			blocks := []int{0, 3, 1, 2} // i, o, f, c of i, f, g, o
			got := make([]float32, rows*cols)
			for at := range rows {
				from := blocks[at/7]*7 + at%7
				for k := range cols {
					got[from*cols+k] = float32(numbers.Ints[k*rows+at]-zeros.Ints[at]) * scales.Data[at]
				}
			}
			if !slices.Equal(got, p.Read()) {
				t.Errorf("%s is not what the graph has", p.Name)
			}
		}
		return
	}
	t.Error("no node is an LSTM with integers")
}
