package onnx

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Every cell of the table that has equations can be written, and reads back as the same
// numbers; a cell without them is refused.
func TestExportEveryCell(t *testing.T) {
	for kind := range cell.Custom {
		s := &Stack{RNN: nn.New(kind, 3, 4, nil), Pool: PoolSteps}
		tensor.Pack(tensor.CPU(), s, 5)
		t.Setenv("CAROUSEL_ORT_DIR", "off")
		p, err := Export(t.Context(), filepath.Join(t.TempDir(), "m.onnx"), s, &ExportOptions{State: true})
		if equations[kind] == nil {
			if err == nil || !strings.Contains(err.Error(), "no equations of a cell of kind "+kind.Spec().Name) {
				t.Errorf("%s, which has no equations: %v", kind.Spec().Name, err)
			}
			continue
		}
		if err != nil || p.MaxDiff > 2e-6 || p.Values == 0 {
			t.Errorf("%s: %v, %v", kind.Spec().Name, p, err)
		}
	}
}

// TestExportOptions writes cells with their options and compares the file with
// the stack, in this package and, where it is installed, in ONNX Runtime.
func TestExportOptions(t *testing.T) {
	type o = nn.RNNOptions
	hard := o{GateActivation: cell.HardSigmoid, Activation: cell.Softsign}
	cases := []struct {
		new  func(in, hidden int, o *nn.RNNOptions) *nn.RNN
		opt  o
		scan bool // it takes a Scan
	}{
		{nn.NewLSTM, o{Peephole: true}, false},
		{nn.NewLSTM, o{Coupled: true, Peephole: true, NoBias: true}, false},
		{nn.NewLSTM, o{GateClip: 0.3, GateActivation: hard.GateActivation, Activation: hard.Activation, OutputActivation: cell.ELU}, false},
		{nn.NewLSTM, o{Layers: 2, Residual: true, LearnState: true}, false},
		{nn.NewGRU, o{ResetBefore: true, GateClip: 0.5}, false},
		{nn.NewGRU, hard, false},
		{nn.NewRNN, o{Activation: cell.LeakyReLU}, false},
		{nn.NewRNN, o{ReLU: true, GateClip: 0.5}, false},
		{nn.NewLSTM, o{CellClip: 0.2, Zoneout: 0.1, ZoneoutCell: 0.3}, true},
		{nn.NewLSTM, o{Proj: 2, Layers: 2, LearnState: true}, true},
		{nn.NewLSTM, o{LayerNorm: true, Peephole: true, OutputActivation: cell.Identity}, true},
		{nn.NewLSTM, o{LayerNorm: true, Coupled: true, NoBias: true, GateClip: 0.4}, true},
		{nn.NewLSTM, o{Activation: cell.HardTanh, GateActivation: hard.GateActivation}, true},
		{nn.NewGRU, o{LayerNorm: true, Zoneout: 0.2}, true},
		{nn.NewGRU, o{ResetBefore: true, Zoneout: 0.2}, true},
		{nn.NewRNN, o{Zoneout: 0.5, NoBias: true}, true},
		{nn.NewSLSTM, o{}, true},
		{nn.NewMinGRU, o{Layers: 2, Residual: true}, true},
		{nn.NewMinLSTM, o{NoBias: true}, true},
	}
	rt := graph.FindRuntime()
	for i, c := range cases {
		for variant := range 3 {
			c.opt.Bidirectional = variant > 0
			e := &ExportOptions{State: variant != 1, Lengths: variant > 0}
			t.Run(fmt.Sprintf("%d-%d", i, variant), func(t *testing.T) {
				s := &Stack{RNN: c.new(3, 4, &c.opt), Pool: []Pool{PoolSteps, PoolSteps, PoolFinal}[variant]}
				if c.opt.Residual {
					s.Pool = PoolSteps
				}
				slab := tensor.Pack(tensor.CPU(), s, 5)
				for _, name := range []string{"rnn.h_0", "rnn.c_0"} {
					if p := slab.Lookup(name); p != nil {
						w := p.Read()
						for j := range w {
							w[j] = float32(j%5)/4 - 0.5
						}
						p.Write(w)
					}
				}
				if rt != nil && (testing.Short() || variant == 0) { // a process for each file takes its time
					t.Setenv("CAROUSEL_ORT_DIR", "off")
				}
				path := filepath.Join(t.TempDir(), "m.onnx")
				p, err := Export(t.Context(), path, s, e)
				if err != nil {
					t.Fatal(err)
				}
				if p.MaxDiff > 2e-6 || p.MaxDiffRuntime > 2e-6 || p.Values == 0 {
					t.Error(p)
				}
				t.Log(p)
				m, err := graph.Read(path)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Contains(strings.Join(m.Operators(), " "), "Scan"); got != c.scan {
					t.Errorf("operators %v", m.Operators())
				}
			})
		}
	}
}
