package graph

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// A weightCase is a graph with weights of every kind and what ONNX Runtime makes of it with those that
// internal/golden/gen/onnx_weights.py rounded.
type weightCase struct {
	*golden.Case
	path string
	in   map[string]Value
}

func weightCases(t *testing.T) map[string]*weightCase {
	list, err := golden.Load("weights")
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]*weightCase{}
	for _, c := range list {
		cases[c.Name] = &weightCase{c, filepath.Join("testdata", "weights", c.Name+".onnx"), caseInputs(c)}
	}
	return cases
}

func (c *weightCase) read(t *testing.T) *Model { return readFrom(t, c.path) }

func readFrom(t *testing.T, path string) *Model {
	t.Helper()
	m, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// outputs runs a model four times.
func outputs(t *testing.T, m *Model, in map[string]Value) map[string]Value {
	t.Helper()
	out, err := runs(m, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// check compares outputs with those of ONNX Runtime.
func (c *weightCase) check(t *testing.T, got map[string]Value) {
	t.Helper()
	for _, name := range c.Names("out.") {
		if err := golden.CheckValues(got[name].Data, c.Tensor("out."+name).Data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// setAll lets all weights rest but the table that products read in two ways.
func setAll(t *testing.T, m *Model, p tensor.Precision) {
	t.Helper()
	for _, w := range m.Weights() {
		if w.Name == "embedding" {
			continue
		}
		if err := m.SetRest(w.Name, p); err != nil {
			t.Fatal(err)
		}
	}
}

func written(t *testing.T, m *Model) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "m.onnx")
	if err := m.WriteQuantized(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Integers and scales are those of an independent computation; with float32 products the written
// file gives what ONNX Runtime gives for them, and with those of integers the bits from before.
func TestWeights(t *testing.T) {
	cases := weightCases(t)
	for _, name := range []string{"both", "single", "old", "inputs"} {
		c := cases[name]
		t.Run(name, func(t *testing.T) {
			m := c.read(t)
			plain := outputs(t, m, c.in)
			setAll(t, m, tensor.Int8)
			for _, s := range m.weights.listed {
				weights := m.names[s.slot]
				if weights == "embedding" {
					continue
				}
				want := c.Tensor("q." + weights)
				if !slices.EqualFunc(s.bytes.values, want.Ints, func(a int8, b int64) bool { return int64(a) == b }) || !slices.Equal(s.bytes.scales, c.Tensor("scale."+weights).Data) {
					t.Errorf("%s: other integers or scales", weights)
				}
			}
			rounded := outputs(t, m, c.in)
			far := 0.0
			for name, v := range plain {
				_, d := MaxDifference(rounded[name].Data, v.Data)
				far = math.Max(far, d)
			}
			if far == 0 || far > 0.5 {
				t.Errorf("8 bits change the outputs by %g", far)
			}

			path := written(t, m)
			again := readFrom(t, path)
			for i, w := range again.Weights() {
				if now := m.Weights()[i]; w.Name != "embedding" && (w.Name != now.Name || w.Stored != "int8" || w.Rest != tensor.Int8 || w.Role != now.Role || !slices.Equal(w.Dims, now.Dims)) {
					t.Errorf("%+v was read, %+v written", w, now)
				}
			}
			if problem := differ(rounded, outputs(t, again, c.in)); problem != "" {
				t.Error("read back: ", problem)
			}
			d, err := Describe(path)
			if err != nil || d.Problem != "" || d.Meta["note"] != "kept" || len(d.Inputs) != 2 {
				t.Errorf("described as %+v, %v", d, err)
			}
			if rt := FindRuntime(); rt != nil {
				file, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				got, err := rt.Run(t.Context(), file, again, c.in)
				if err != nil {
					t.Fatal(err)
				}
				c.check(t, got)
			}
			setAll(t, again, tensor.Float32)
			c.check(t, outputs(t, again, c.in))

			setAll(t, m, tensor.Float32)
			if problem := differ(plain, outputs(t, m, c.in)); problem != "" {
				t.Error("with float32 again: ", problem)
			}
		})
	}
}

// Files of other tools: their weights rest in int8 if they have the values that they would be rounded to.
func TestWeightsOfOthers(t *testing.T) {
	cases := weightCases(t)
	for name, rest := range map[string]tensor.Precision{"qdq": tensor.Int8, "others": tensor.Float32} {
		c := cases[name]
		m := c.read(t)
		var names []string
		for _, w := range m.Weights() {
			if w.Name != "embedding" {
				if names = append(names, w.Name); w.Rest != rest || w.Stored != "int8" {
					t.Errorf("%s: %+v rests otherwise than in %s", name, w, rest)
				}
			}
		}
		if len(names) != 12 || !slices.Contains(names, "lstm.W") || !strings.Contains(m.Quantized(), "DequantizeLinear") {
			t.Errorf("%s: weights %v, quantized: %s", name, names, m.Quantized())
		}
		if name == "qdq" {
			both := cases["both"].read(t)
			setAll(t, both, tensor.Int8)
			if problem := differ(outputs(t, both, c.in), outputs(t, m, c.in)); problem != "" {
				t.Error("other bits than those of the graph that was rounded here: ", problem)
			}
			if both.Quantized() != "" {
				t.Errorf("a graph of floats is quantized: %s", both.Quantized())
			}
		}
		setAll(t, m, tensor.Float32)
		c.check(t, outputs(t, m, c.in))
		setAll(t, m, tensor.Int8) // by 2^-15 at most
		err := m.WriteQuantized(filepath.Join(t.TempDir(), "m.onnx"))
		var file *model.FileError
		if (err == nil) != (name == "qdq") || err != nil && (!errors.As(err, &file) || !strings.Contains(err.Error(), "integers already")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Weights in 16 bits are such numbers in the file, and rest so again.
func TestWeightsOf16Bits(t *testing.T) {
	for name, c := range weightCases(t) {
		if name == "qdq" || name == "others" {
			continue
		}
		m := c.read(t)
		rests := map[string]tensor.Precision{"lstm.W": tensor.BFloat16, "lstm.R": tensor.Float16, "conv": tensor.BFloat16, "embedding": tensor.Float16, "dense": tensor.Int8, "rnn.kernel": tensor.BFloat16}
		for weights, p := range rests {
			if err := m.SetRest(weights, p); err != nil {
				t.Fatal(err)
			}
		}
		path := written(t, m)
		again := readFrom(t, path)
		for _, w := range again.Weights() {
			if w.Rest != rests[w.Name] {
				t.Errorf("%s: %s rests in %s", name, w.Name, w.Rest)
			}
		}
		if problem := differ(outputs(t, m, c.in), outputs(t, again, c.in)); problem != "" {
			t.Errorf("%s: read back: %s", name, problem)
		}
		twice := written(t, again)
		first, _ := os.ReadFile(path)
		second, _ := os.ReadFile(twice)
		if !slices.Equal(first, second) {
			t.Errorf("%s: a file of which nothing changes is written otherwise", name)
		}
	}
}

func TestWeightsRefused(t *testing.T) {
	m := weightCases(t)["both"].read(t)
	if err := m.SetRest("embedding", tensor.Int8); err == nil || !strings.Contains(err.Error(), "embedding in int8: these weights cannot rest so: products divide its elements into rows in different ways") {
		t.Error(err)
	}
	if err := m.SetRest("lstm.B", tensor.Int8); err == nil || !strings.Contains(err.Error(), `no weights of the graph are named "lstm.B"`) {
		t.Error(err)
	}
	g := &Builder{}
	g.Input("x", "", "n", 2)
	g.Node("MatMul", []string{"x", g.Floats("w", []float32{1, 2, float32(math.Inf(1)), 3}, 2, 2)}, []string{"a"})
	g.Node("MatMul", []string{"a", g.Floats("large", []float32{1, 1e6, 2, 3}, 2, 2)}, []string{"b"})
	joined := g.Op("Concat", []string{g.Floats("left", []float32{1, 2, 3, 4}, 2, 2), g.Floats("right", []float32{5, 6, 7, 8}, 2, 2)}, Attr{"axis", 0})
	g.Node("MatMul", []string{g.Op("Concat", []string{"a", "b"}, Attr{"axis", 1}), joined}, []string{"y"})
	g.Output("y", "", "n", 2)
	m = parsed(t, g.Encode())
	for _, c := range []struct {
		name string
		p    tensor.Precision
		want string
	}{
		{"w", tensor.Int8, "the weights w are not finite: element 2 is +Inf"},
		{"w", tensor.BFloat16, "the weights w are not finite"},
		{"large", tensor.Float16, "large in fp16: these weights cannot rest so: element 1 is 1e+06, beyond its range"},
		{"left", tensor.Int8, "left in int8: these weights cannot rest so: a product reads them joined with right"},
	} {
		if err := m.SetRest(c.name, c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in %s: %v, want %q", c.name, c.p, err, c.want)
		}
	}
	for _, w := range m.Weights() {
		if w.Rest != tensor.Float32 {
			t.Errorf("%s rests in %s after an error", w.Name, w.Rest)
		}
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, g.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	m = readFrom(t, path)
	if err := m.SetRest("large", tensor.Int8); err != nil {
		t.Fatal(err)
	}
	changed := []byte(strings.Replace(string(g.Encode()), "\x00\x24\x74\x49", "\x00\x24\x74\x48", 1)) // 1e6
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteQuantized(path); err == nil || !strings.Contains(err.Error(), "the file has been changed since it was read: the weights large") {
		t.Error(err)
	}
}
