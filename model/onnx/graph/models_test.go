package graph

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// modelCase is a sequence of calls of a model that is used in public, with the
// outputs of ONNX Runtime.
type modelCase struct {
	File string
	In   []map[string]caseValue
	Out  []map[string]caseValue
}

type caseValue struct {
	Dims []int
	F    []float32
	I    []int64
}

// TestModels compares models of others with ONNX Runtime, call by call. The state
// that a call returns is an input of the next one.
func TestModels(t *testing.T) {
	dir := "../../../../shared/data/models"
	files, err := filepath.Glob(filepath.Join(dir, "*.case.json.gz"))
	if err != nil || len(files) == 0 {
		t.Skipf("no cases in %s", dir)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".case.json.gz"), func(t *testing.T) {
			c := readModelCase(t, file)
			m, err := Read(filepath.Join(dir, c.File))
			if err != nil {
				t.Fatal(err)
			}
			checkCalls(t, c, m.Run)
		})
	}
}

func readModelCase(t testing.TB, file string) *modelCase {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	c := &modelCase{}
	if err := json.NewDecoder(z).Decode(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// toleranceOf is relative above 1. ONNX Runtime's own results of the embedding model are
// up to 1.2e-5 from those in float64, with its optimisations or without.
func toleranceOf(c *modelCase) float64 {
	if c.File == "embedding_model.onnx" {
		return 3e-5
	}
	return 1e-5
}

// checkCalls runs the calls.
func checkCalls(t *testing.T, c *modelCase, run func(map[string]Value) (map[string]Value, error)) {
	state := map[string]Value{}
	worst := 0.0
	for k, call := range c.In {
		in := map[string]Value{}
		for name, v := range call {
			in[name] = Value{Dims: v.Dims, Data: v.F, Ints: v.I}
		}
		for name, v := range state {
			in[name] = v
		}
		out, err := run(in)
		if err != nil {
			t.Fatalf("call %d: %v", k, err)
		}
		for name, want := range c.Out[k] {
			got := out[name]
			if len(got.Data) != len(want.F) {
				t.Fatalf("call %d: output %s of shape %v, want %v", k, name, got.Dims, want.Dims)
			}
			for i, w := range want.F {
				d := math.Abs(float64(got.Data[i]-w)) / math.Max(1, math.Abs(float64(w)))
				if !(d <= toleranceOf(c)) {
					t.Fatalf("call %d: element %d of output %s is %v, want %v", k, i, name, got.Data[i], w)
				}
				worst = math.Max(worst, d)
			}
		}
		for from, to := range map[string]string{"stateN": "state", "hn": "h", "cn": "c"} {
			if v, ok := out[from]; ok {
				state[to] = v
			}
		}
	}
	t.Logf("%d calls, largest difference %.1e", len(c.In), worst)
}

// BenchmarkModels is the time of a call, with the state of the call before.
func BenchmarkModels(b *testing.B) {
	dir := "../../../../shared/data/models"
	for _, name := range []string{"silero_vad", "silero_seq", "oww_mel", "oww_emb", "oww_alexa_v0.1"} {
		b.Run(name, func(b *testing.B) {
			c := readModelCase(b, filepath.Join(dir, name+".case.json.gz"))
			m, err := Read(filepath.Join(dir, c.File))
			if err != nil {
				b.Fatal(err)
			}
			in := map[string]Value{}
			for name, v := range c.In[0] {
				in[name] = Value{Dims: v.Dims, Data: v.F, Ints: v.I}
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Run(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
