package golden_test

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// forEach runs body for every case of a file on every kernel set of this machine.
func forEach(t *testing.T, file string, body func(t *testing.T, dev *tensor.Device, c *golden.Case)) {
	cases, err := golden.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatalf("%s has no case", file)
	}
	for _, kernels := range tensortest.Kernels() {
		dev := tensortest.CPUWith(kernels)
		if dev == nil {
			t.Fatalf("no kernel set %s", kernels)
		}
		t.Run("kernels="+kernels, func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.Name, func(t *testing.T) { body(t, dev, c) })
			}
		})
	}
}

func settings(t *testing.T, c *golden.Case, v any) {
	t.Helper()
	if err := c.Settings(v); err != nil {
		t.Fatal(err)
	}
}

func checkValues(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if err := golden.CheckValues(got, want); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func checkGradient(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if err := golden.CheckGradient(got, want); err != nil {
		t.Errorf("gradient of %s: %v", what, err)
	}
}

// input puts a tensor of the case on the tape and asks for its gradient.
func input(tape *tensor.Tape, c *golden.Case, name string) *tensor.Tensor {
	w := c.Tensor(name)
	return tape.Input(w.Data, w.Dims...).RequireGrad()
}

// constant puts a tensor of the case on the tape; nil if the case has none.
func constant(tape *tensor.Tape, c *golden.Case, name string) *tensor.Tensor {
	if !c.Has(name) {
		return nil
	}
	w := c.Tensor(name)
	return tape.Input(w.Data, w.Dims...)
}

// ids32 is a tensor of whole numbers as ids.
func ids32(c *golden.Case, name string) []int32 {
	v := c.Tensor(name).Ints
	out := make([]int32, len(v))
	for i, x := range v {
		out[i] = int32(x)
	}
	return out
}

// pack gives a model the weights of the case named prefix+parameter, all of them.
func pack(t *testing.T, dev *tensor.Device, model any, c *golden.Case, prefix string) *tensor.Slab {
	t.Helper()
	slab := tensor.Pack(dev, model, 1)
	if got, want := len(slab.Params), len(c.Names(prefix)); got != want {
		t.Fatalf("the model has %d parameters, PyTorch's %d", got, want)
	}
	for _, p := range slab.Params {
		if !c.Has(prefix + p.Name) {
			t.Fatalf("PyTorch's model has no parameter %s", p.Name)
		}
		p.Write(c.Tensor(prefix + p.Name).Data)
	}
	return slab
}

// weighted is the scalar Σ y·w: the projection of the generators.
func weighted(y, w *tensor.Tensor) *tensor.Tensor { return tensor.SumAll(tensor.Mul(y, w)) }

// TestChecksFail makes sure that the comparisons can fail.
func TestChecksFail(t *testing.T) {
	nan := float32(0)
	nan /= nan
	for _, c := range []struct {
		name      string
		check     func(got, want []float32) error
		got, want []float32
		ok        bool
	}{
		{"equal", golden.CheckValues, []float32{1, 2}, []float32{1, 2}, true},
		{"near zero", golden.CheckValues, []float32{0.9e-5}, []float32{0}, true},
		{"not near zero", golden.CheckValues, []float32{1.1e-5}, []float32{0}, false},
		{"large", golden.CheckValues, []float32{1e6 + 8}, []float32{1e6}, true},
		{"not large", golden.CheckValues, []float32{1e6 + 12}, []float32{1e6}, false},
		{"short", golden.CheckValues, []float32{1}, []float32{1, 2}, false},
		{"NaN", golden.CheckValues, []float32{nan}, []float32{1}, false},
		{"NaN gradient", golden.CheckGradient, []float32{nan, 1}, []float32{0, 1}, false},
		{"of the largest", golden.CheckGradient, []float32{0.9e-2, 100}, []float32{0, 100}, true},
		{"past the largest", golden.CheckGradient, []float32{1.1e-2, 100}, []float32{0, 100}, false},
		{"zeros", golden.CheckGradient, []float32{1e-30}, []float32{0}, false},
		{"rate", golden.CheckRates, []float32{1.00002e-7}, []float32{1e-7}, false},
	} {
		if err := c.check(c.got, c.want); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
