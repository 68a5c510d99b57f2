package torch

import (
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// Weights are g·v/|v| by hand: rows of lengths 5 and 13, of which g makes 10 and 1.
func TestJoinWeightNorm(t *testing.T) {
	v := []float32{3, 4, 0, 5, 0, 12}
	want := []float32{6, 8, 0, 5. / 13, 0, 12. / 13}
	for _, c := range []struct {
		g, v, joined string
		dims         []int
		data         []float32
		want         []float32
	}{
		{"rnn.parametrizations.weight_ih_l0.original0", "rnn.parametrizations.weight_ih_l0.original1", "rnn.weight_ih_l0", []int{2, 1}, []float32{10, 1}, want},
		{"parametrizations.weight.original0", "parametrizations.weight.original1", "weight", []int{2, 1}, []float32{10, 1}, want},
		{"head.weight_g", "head.weight_v", "head.weight", []int{2, 1}, []float32{10, 1}, want},
		{"head.weight_g", "head.weight_v", "head.weight", nil, []float32{float32(math.Sqrt(194))}, v},                                          // one length
		{"head.weight_g", "head.weight_v", "head.weight", []int{1, 3}, []float32{float32(math.Sqrt(34)), 8, 24}, []float32{3, 8, 0, 5, 0, 24}}, // columns of lengths √34, 4, 12
	} {
		f, err := model.NewFile("f", []model.Tensor{{Name: c.g, Dims: c.dims, Data: c.data}, {Name: c.v, Dims: []int{2, 3}, Data: v}, {Name: "other", Dims: []int{1}, Data: []float32{1}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, notes, err := JoinWeightNorm(f)
		if err != nil || len(notes) != 1 || len(f.Tensors) != 2 {
			t.Fatalf("%s: %d tensors, notes %q, %v", c.g, len(f.Tensors), notes, err)
		}
		got := f.Lookup(c.joined)
		if got == nil || !slices.Equal(got.Dims, []int{2, 3}) {
			t.Fatalf("%s: no tensor %s of shape [2 3]", c.g, c.joined)
		}
		for i, x := range c.want {
			if math.Abs(float64(got.Data[i]-x)) > 1e-6 {
				t.Errorf("%s, %v: %v, want %v", c.g, c.dims, got.Data, c.want)
				break
			}
		}
	}
	// Shapes of something else are left alone.
	f, _ := model.NewFile("f", []model.Tensor{{Name: "a_g", Dims: []int{2, 3}, Data: v}, {Name: "a_v", Dims: []int{2, 3}, Data: v}, {Name: "b_g", Dims: []int{1}, Data: v[:1]}}, nil)
	if same, notes, err := JoinWeightNorm(f); same != f || notes != nil || err != nil {
		t.Errorf("%v, %v", notes, err)
	}
}
