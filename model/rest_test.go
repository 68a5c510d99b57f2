package model

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

func restingSlab(seed uint64) *tensor.Slab {
	return tensor.Pack(nil, struct {
		RNN  *nn.RNN
		Head *nn.Linear
		Odd  *nn.Linear
		Conv *nn.Conv1d
	}{nn.NewLSTM(5, 8, nil), nn.NewLinear(8, 3, nil), nn.NewLinear(7, 3, nil), nn.NewConv1d(3, 4, 2, nil)}, seed)
}

// Weights at rest are written in their types and read back to the bit, resting as before.
func TestWeightsAtRest(t *testing.T) {
	slab := restingSlab(1)
	rests := map[string]tensor.Precision{"rnn.weight_ih_l0": tensor.Int8, "rnn.weight_hh_l0": tensor.BFloat16, "head.weight": tensor.Float16, "odd.weight": tensor.Int4, "conv.weight": tensor.Int4}
	for name, r := range rests {
		slab.Lookup(name).SetRest(r)
	}
	path := filepath.Join(t.TempDir(), "w.safetensors")
	if err := SaveSlab(path, slab, map[string]string{"note": "kept"}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"rnn.weight_ih_l0":{"dtype":"I8","shape":[32,5]`, `"rnn.weight_ih_l0.scale":{"dtype":"F32","shape":[32]`, `"dtype":"BF16"`, `"dtype":"F16"`,
		`"odd.weight":{"dtype":"U8","shape":[3,4]`, `"odd.weight.scale":{"dtype":"F32","shape":[3]`, `"odd.weight.shape":{"dtype":"I64","shape":[2]`, `"conv.weight":{"dtype":"U8","shape":[4,3]`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the header lacks %s", want)
		}
	}
	f, err := ReadTensors(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Meta["note"] != "kept" || len(f.Meta) != 1 || len(f.Tensors) != len(slab.Params) {
		t.Errorf("meta %v, %d tensors", f.Meta, len(f.Tensors))
	}
	other := restingSlab(2)
	if err := LoadSlab(path, other); err != nil {
		t.Fatal(err)
	}
	for i, p := range slab.Params {
		q := other.Params[i]
		if !slices.Equal(p.Read(), q.Read()) || p.Rest() != q.Rest() || q.Rest() != rests[q.Name] {
			t.Errorf("%s: read back differs, rests in %v", p.Name, q.Rest())
		}
	}
	// Half a unit of the scale is the most that rounding to 8 bits moves a weight.
	plain := restingSlab(1).Lookup("rnn.weight_ih_l0").Read()
	values, scales := slab.Lookup("rnn.weight_ih_l0").Bytes()
	for i, v := range values {
		if d := math.Abs(float64(float32(v)*scales[i/5] - plain[i])); d > float64(scales[i/5])/2*(1+1e-6) {
			t.Fatalf("weight %d moved by %g, its scale is %g", i, d, scales[i/5])
		}
	}
}

// Values that have been rounded once do not change again, whatever the numbers.
func TestRoundingOnceIsEnough(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	p := tensor.NewParam("w", func(_ *rand.Rand, w []float32, _ []int) {
		for i := range w {
			w[i] = float32(r.NormFloat64() * math.Exp(20*r.NormFloat64()))
		}
	}, 300, 7)
	tensor.Pack(nil, struct{ W *tensor.Param }{p}, 1)
	for _, rest := range []tensor.Precision{tensor.Int8, tensor.Int4, tensor.Float16, tensor.BFloat16} {
		p.SetRest(rest)
		once := p.Read()
		p.SetRest(rest)
		if !slices.Equal(once, p.Read()) {
			t.Errorf("%v: rounding again changes values", rest)
		}
	}
}

// A file whose scales are not those of its integers, or whose bytes are not pairs of levels, is refused.
func TestRestRefuses(t *testing.T) {
	slab := restingSlab(1)
	slab.Lookup("head.weight").SetRest(tensor.Int8)
	slab.Lookup("odd.weight").SetRest(tensor.Int4)
	path := filepath.Join(t.TempDir(), "w.safetensors")
	if err := SaveSlab(path, slab, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(change func(b []byte) []byte) string {
		p := filepath.Join(t.TempDir(), "x.safetensors")
		if err := os.WriteFile(p, change(slices.Clone(raw)), 0o666); err != nil {
			t.Fatal(err)
		}
		return p
	}
	// at returns the place of the first byte of a tensor.
	at := func(b []byte, name string) int {
		i := strings.Index(string(b), `"`+name+`"`)
		at := strings.Index(string(b[i:]), `"data_offsets":[`) + i + len(`"data_offsets":[`)
		off := 0
		for ; b[at] != ','; at++ {
			off = 10*off + int(b[at]-'0')
		}
		return 8 + int(le.Uint64(b)) + off
	}
	const pairs = "odd.weight: of type U8 and shape [3 4], it needs two levels"
	for i, c := range []struct{ name, path string }{
		{"its scales, head.weight.scale", write(func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"head.weight.scale"`, `"head.weight.scalf"`, 1))
		})},
		{"row 0 and its scale", write(func(b []byte) []byte {
			b[at(b, "head.weight.scale")]++ // the lowest bits of a scale
			return b
		})},
		{"row 0 and its scale +Inf", write(func(b []byte) []byte {
			copy(b[at(b, "head.weight.scale"):], "\x00\x00\x80\x7f")
			return b
		})},
		{"row 0 and its scale", write(func(b []byte) []byte {
			for i := range 4 { // no level is 7
				b[at(b, "odd.weight")+i] = 0x01
			}
			return b
		})},
		{"", write(func(b []byte) []byte { return b })},
		{pairs, write(func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"odd.weight.shape"`, `"odd.weight.shapf"`, 1))
		})},
		{pairs, write(func(b []byte) []byte { // -8
			b[at(b, "odd.weight")+1] = 0x18
			return b
		})},
		{pairs, write(func(b []byte) []byte { // an eighth of seven weights
			b[at(b, "odd.weight")+3] |= 0x10
			return b
		})},
		{pairs, write(func(b []byte) []byte { // [3,9]
			b[at(b, "odd.weight.shape")+8] = 9
			return b
		})},
		{pairs, write(func(b []byte) []byte { // more than there is
			copy(b[at(b, "odd.weight.shape")+8:], "\xff\xff\xff\xff\xff\xff\xff\x7f")
			return b
		})},
	} {
		if _, err := ReadTensors(c.path); (err == nil) != (c.name == "") || err != nil && !strings.Contains(err.Error(), c.name) {
			t.Errorf("%d: expected an error with %q, got %v", i, c.name, err)
		}
	}
}
