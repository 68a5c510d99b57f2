package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// What NumPy wrote in every type and order goes in where its values mean the same.
func TestConvertArrays(t *testing.T) {
	archive := filepath.Join("..", "npy", "testdata", "arrays.npz")
	g := &graph.Builder{}
	declared := map[string]graph.ValueInfo{}
	for name, dtype := range map[string]int64{"float32": graph.Float32, "int32": graph.Int32, "int64": graph.Int64, "bool": graph.Bool} {
		g.InputOf(dtype, name, "", "a", "b", "c")
		g.Node("Identity", []string{name}, []string{name + "_same"})
		g.OutputOf(dtype, name+"_same", "", "a", "b", "c")
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, g.Encode(), 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := graph.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range m.Inputs() {
		declared[info.Name] = info
	}
	for code, name := range npy.Names {
		for _, variant := range []string{"", "_fortran", "_big"} {
			if variant == "_big" && strings.HasSuffix(code, "1") {
				continue
			}
			for want, info := range declared {
				r := &arrayReader{info: info, remark: func(s string) { t.Error(s) }}
				s, err := sourceOf(archive + ":" + code + variant)
				if err != nil {
					t.Fatal(err)
				}
				v, err := r.read(s)
				fits := name == want || want == "float32" && code[0] == 'f' || strings.HasPrefix(want, "int") && (code[0] == 'i' || code[0] == 'u')
				if fits != (err == nil) {
					t.Errorf("%s%s for %s: %v", code, variant, want, err)
				}
				if err != nil {
					continue
				}
				if len(v.Dims) != 3 || len(v.Data)+len(v.Ints) != 24 {
					t.Errorf("%s%s for %s: %v", code, variant, want, v)
				}
				for i := range 24 {
					x := i
					if want == "bool" {
						x = min(i, 1)
					}
					if v.Data != nil && v.Data[i] != float32(x) || v.Ints != nil && v.Ints[i] != int64(x) {
						t.Errorf("%s%s for %s: element %d", code, variant, want, i)
					}
				}
			}
		}
	}
}

// Floats of 64 bits that float32 lacks are refused, or noted where they vanish.
func TestConvertWideFloats(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, bits ...byte) *arraySource {
		var b bytes.Buffer
		if err := npy.Write(&b, &npy.Array{Type: "f8", Dims: []int{len(bits) / 8}, Data: bits}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
		return &arraySource{path: path, ext: ".npy"}
	}
	g := &graph.Builder{}
	g.Input("x", "", "n")
	g.Node("Neg", []string{"x"}, []string{"y"})
	g.Output("y", "", "n")
	path := filepath.Join(dir, "m.onnx")
	if err := os.WriteFile(path, g.Encode(), 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := graph.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	noted := ""
	r := &arrayReader{info: m.Inputs()[0], remark: func(s string) { noted = s }}
	huge := []byte{0, 0, 0, 0, 0, 0, 0, 0x7e} // 8.4e298
	tiny := []byte{0, 0, 0, 0, 0, 0, 0, 0x01}
	one := []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}
	endless := []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x7f}
	if _, err := r.read(write("huge.npy", append(one, huge...)...)); err == nil || !strings.Contains(err.Error(), "huge.npy: element [1] is 8.37") {
		t.Errorf("huge: %v", err)
	}
	if v, err := r.read(write("endless.npy", append(one, endless...)...)); err != nil || v.Data[0] != 1 || v.Data[1] < 1e38 || noted != "" {
		t.Errorf("infinity: %v, %v, %q", v, err, noted)
	}
	if v, err := r.read(write("tiny.npy", append(one, tiny...)...)); err != nil || v.Data[1] != 0 || !strings.Contains(noted, "1 of the 2 elements of input x are below") {
		t.Errorf("tiny: %v, %v, %q", v, err, noted)
	}
}

// FuzzArrayJSON: any text gives an array that has its elements, or an error.
func FuzzArrayJSON(f *testing.F) {
	for _, s := range []string{"1", "[[1,2],[3,4]]", `{"dims":[2],"data":[1,2]}`, `{"outputs":{"x":{"data":[[]],"dims":[1,0]}}}`, "[[],1]", "[1,[2]]", "[[1],2]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := &arrayReader{info: graph.ValueInfo{Name: "x", Type: "float32"}}
		v, err := r.readJSON(strings.NewReader(text), "")
		if err != nil {
			return
		}
		if n, ok := npy.Len(v.Dims, int64(len(text))); !ok || int(n) != len(v.Data) {
			t.Errorf("%q: %d elements for %v", text, len(v.Data), v.Dims)
		}
	})
}
