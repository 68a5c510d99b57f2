package onnx

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/tensor"
)

// configs are stacks of every kind, small.
func configs() []Config {
	var list []Config
	for _, cell := range []string{"lstm", "gru", "rnn_tanh", "rnn_relu"} {
		for layers := 1; layers <= 3; layers++ {
			for _, both := range []bool{false, true} {
				for _, pool := range []Pool{PoolSteps, PoolLast, PoolFinal} {
					c := Config{Cell: cell, Input: 4, Hidden: 5, Layers: layers, Bidirectional: both, Pool: pool, Output: 2}
					c.NoBias = layers == 2
					c.HeadNoBias = layers == 3
					if layers == 1 {
						c.Output = 0
					}
					if pool == PoolLast {
						c.Vocabulary = 11
					}
					list = append(list, c)
				}
			}
		}
	}
	return list
}

func (c Config) title() string {
	return fmt.Sprintf("%s,layers=%d,both=%v,vocabulary=%d,output=%d,pool=%s", c.Cell, c.Layers, c.Bidirectional, c.Vocabulary, c.Output, c.Pool)
}

func newStack(t testing.TB, c Config) (*Stack, *tensor.Slab) {
	t.Helper()
	s, err := c.New()
	if err != nil {
		t.Fatal(err)
	}
	return s, tensor.Pack(tensor.CPU(), s, 7)
}

// TestExport writes every kind of stack and compares the file with the stack,
// in this package and, where it is installed, in ONNX Runtime; then it imports
// the file again.
func TestExport(t *testing.T) {
	rt := graph.FindRuntime()
	if rt == nil {
		t.Log("ONNX Runtime is not installed (CAROUSEL_ORT_DIR): compared with this package's own reader alone")
	}
	for i, c := range configs() {
		t.Run(c.title(), func(t *testing.T) {
			s, slab := newStack(t, c)
			o := &ExportOptions{State: i%2 == 1, Lengths: i%3 == 0 && !(c.Pool == PoolLast && c.Bidirectional)}
			if rt != nil && (testing.Short() || i%7 != 0) { // a process for each file takes its time
				t.Setenv("CAROUSEL_ORT_DIR", "off")
			}
			path := filepath.Join(t.TempDir(), "m.onnx")
			p, err := Export(t.Context(), path, s, o)
			if err != nil {
				t.Fatal(err)
			}
			if p.MaxDiff > 1e-6 || p.MaxDiffRuntime > 2e-6 || p.Values == 0 {
				t.Error(p)
			}
			t.Log(p)
			again, weights, q, err := Import(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			d, err := again.Config()
			if err != nil {
				t.Fatal(err)
			}
			if c.Pool == PoolLast && o.Lengths || c.Pool == PoolFinal && !c.Bidirectional {
				c.Pool, d.Pool = "", "" // of one direction the last step is the final state
			}
			if d != c {
				t.Errorf("imported %+v, exported %+v", d, c)
			}
			if q.MaxDiff > 1e-6 || q.Values == 0 {
				t.Error(q)
			}
			for i, w := range slab.Params {
				if p := weights.Params[i]; p.Name != w.Name || !slices.Equal(p.Read(), w.Read()) {
					t.Errorf("%s: differs after the way there and back", w.Name)
				}
			}
		})
	}
}
