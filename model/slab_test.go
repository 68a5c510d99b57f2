package model

import (
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
)

type layer struct{ Weight, Bias *tensor.Param }

type net struct {
	Body layer
	Head []layer
}

func newLayer(out, in int) layer {
	init := func(r *rand.Rand, w []float32, _ []int) {
		for i := range w {
			w[i] = r.Float32()
		}
	}
	return layer{tensor.NewParam("weight", init, out, in), tensor.NewParam("bias", init, out)}
}

func packed(out int, seed uint64) *tensor.Slab {
	return tensor.Pack(tensor.CPU(), &net{newLayer(out, 3), []layer{newLayer(2, out)}}, seed)
}

func values(s *tensor.Slab) map[string][]float32 {
	m := map[string][]float32{}
	for _, p := range s.Params {
		m[p.Name] = p.Read()
	}
	return m
}

func TestSlabRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	a, b := packed(5, 1), packed(5, 2)
	if reflect.DeepEqual(values(a), values(b)) {
		t.Fatal("two seeds give the same weights")
	}
	if err := SaveSlab(path, a, map[string]string{"step": "7"}); err != nil {
		t.Fatal(err)
	}
	if err := LoadSlab(path, b); err != nil {
		t.Fatal(err)
	}
	if got, want := values(b), values(a); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	f, err := ReadTensors(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Meta["step"] != "7" || f.Lookup("head.0.weight") == nil {
		t.Errorf("the file holds %v, metadata %v", f.index, f.Meta)
	}
}

func TestSaveOpenLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	a, b := packed(5, 1), packed(5, 2)
	if err := Save(dir, "forecast", map[string]int{"hidden": 5}, Weights(a)); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Load(b); err != nil {
		t.Fatal(err)
	}
	if got, want := values(b), values(a); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLoadSlabRefuses(t *testing.T) {
	whole := SlabTensors(packed(5, 1))
	for _, c := range []struct {
		name string
		ts   []Tensor
		want string
	}{
		{"missing", whole[:3], "tensor head.0.bias: missing: the model needs it with shape [2]"},
		{"shape", SlabTensors(packed(6, 1)), "tensor body.weight: expected shape [5 3], got [6 3]"},
		{"extra", append(whole[:4:4], Tensor{Name: "tail", Dims: []int{1}, Data: []float32{1}}, Tensor{Name: "tip", Dims: []int{0}}),
			"tensor tail: the model has no parameter of that name (nor for 1 more: tip)"},
		{"integers", append(whole[:3:3], Tensor{Name: "head.0.bias", Dims: []int{2}, Ints: []int64{1, 2}}), "expected floating-point values, got integers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.safetensors")
			if err := WriteTensors(path, c.ts, nil); err != nil {
				t.Fatal(err)
			}
			slab := packed(5, 2)
			before := values(slab)
			checkFileError(t, LoadSlab(path, slab), path, c.want)
			if !reflect.DeepEqual(values(slab), before) {
				t.Error("the parameters changed although loading failed")
			}
		})
	}
}
