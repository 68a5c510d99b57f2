package graph

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
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
	dir := golden.Shared(t, "models")
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
	c := &modelCase{}
	if err := json.Unmarshal(golden.Gzip(t, file), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// checkCalls runs the calls. The tolerance is relative above 1.
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
				if !(d <= 1e-5) {
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

// TestPublicModels compares the models that make models gets from PyPI and npm with
// what ONNX Runtime made of them (internal/golden/gen/public_models.py).
func TestPublicModels(t *testing.T) {
	dir := "../../../.peers/models"
	raw, err := os.ReadFile("testdata/public.json")
	if err != nil {
		t.Fatal(err)
	}
	var public map[string]struct {
		Inputs map[string][]int
		Calls  []map[string]struct {
			Dims []int
			Some []float32
		}
	}
	if err := json.Unmarshal(raw, &public); err != nil || len(public) == 0 {
		t.Fatalf("%d models, %v", len(public), err)
	}
	for name, p := range public {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if _, err := os.Stat(path); err != nil {
				t.Skip("make models gets it: ", err)
			}
			m, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			states := map[string]Value{}
			for k, call := range p.Calls {
				in := map[string]Value{}
				for name, dims := range p.Inputs {
					next := map[string]string{"state": "stateN", "h": "hn", "c": "cn"}[name]
					switch v, carried := states[next]; {
					case name == "sr":
						in[name] = Ints([]int64{16000})
					case carried:
						in[name] = v
					case next != "":
						in[name] = Floats(make([]float32, product(dims)), dims...)
					default:
						x := make([]float32, product(dims))
						for i := range x {
							at := float64(i + 1000*k)
							x[i] = float32(0.5 * math.Sin(0.37*at) * math.Cos(0.011*at))
						}
						in[name] = Floats(x, dims...)
					}
				}
				if states, err = m.Run(in); err != nil {
					t.Fatalf("call %d: %v", k, err)
				}
				for name, want := range call {
					got := states[name]
					if !slices.Equal(got.Dims, want.Dims) {
						t.Fatalf("call %d: output %s of shape %v, want %v", k, name, got.Dims, want.Dims)
					}
					step := max(1, len(got.Data)/16)
					for i, w := range want.Some {
						if g := got.Data[i*step]; !(math.Abs(float64(g-w)) <= 1e-5*math.Max(1, math.Abs(float64(w)))) {
							t.Errorf("call %d: element %d of output %s is %v, want %v", k, i*step, name, g, w)
						}
					}
				}
			}
		})
	}
}

// BenchmarkModels is the time of a call with its outputs copied.
func BenchmarkModels(b *testing.B) {
	dir := golden.Shared(b, "models")
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
