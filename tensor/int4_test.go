package tensor_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Weights in 4 bits are one of 15 levels, the nearest one, and multiply as the same values in 8 bits.
func TestLevels(t *testing.T) {
	const out, in = 20, 300
	net := struct{ Head *nn.Linear }{nn.NewLinear(in, out, nil)}
	slab := tensor.Pack(nil, net, 1)
	w := net.Head.Weight
	plain := w.Read()
	w.SetRest(tensor.Int4)
	if w.Rest() != tensor.Int4 || w.Rest().String() != "int4" {
		t.Errorf("rests in %v", w.Rest())
	}
	values, scales := w.Bytes()
	for i, v := range values {
		if !slices.Contains([]int8{0, 18, 36, 54, 73, 91, 109, 127}, max(v, -v)) {
			t.Fatalf("weight %d is %d times its scale", i, v)
		}
		if d := math.Abs(float64(v) - float64(plain[i])/float64(scales[i/in])); d > 9.6 {
			t.Fatalf("weight %d moved by %g times its scale", i, d)
		}
	}
	pass := func() []float32 {
		r := rand.New(rand.NewPCG(1, 2))
		x := make([]float32, 3*in)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		tape := tensor.NewTape(nil, tensor.Infer)
		return net.Head.Forward(tape.Input(x, 3, in)).Data()
	}
	y := pass()
	w.SetRest(tensor.Int8) // changes no value
	if !slices.Equal(y, pass()) {
		t.Error("products with levels are not those of 8 bits")
	}
	w.Write(plain)
	w.SetRest(tensor.Int8)
	if slices.Equal(y, pass()) {
		t.Error("levels did not change the products")
	}
	var wrong *tensor.UseError
	if err := tensor.Catch(func() { tensor.NewTape(slab.Device(), tensor.Train).SetPrecision(tensor.Int4) }); !errors.As(err, &wrong) {
		t.Errorf("a tape in 4 bits: %v", err)
	}
	if p, err := tensor.ParsePrecision("int4"); err == nil {
		t.Errorf("int4 is %v for a tape", p)
	}
}

// Observers get what matrices are multiplied by, and only in passes that are not training.
func TestObserve(t *testing.T) {
	net := struct {
		RNN  *nn.RNN
		Head *nn.Linear
	}{nn.NewLSTM(3, 4, &nn.RNNOptions{Bidirectional: true}), nn.NewLinear(8, 2, nil)}
	slab := tensor.Pack(nil, net, 1)
	seen := map[string][]float32{}
	var mu sync.Mutex
	slab.Observe(func(p *tensor.Param, x []float32) {
		mu.Lock()
		defer mu.Unlock()
		seen[p.Name] = append(seen[p.Name], x...)
	})
	x := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	pass := func(mode tensor.Mode) (hidden []float32) {
		tape := tensor.NewTape(nil, mode)
		h, _ := net.RNN.Forward(tape.Input(x, 1, 4, 3), nil)
		net.Head.Forward(h)
		return h.Data()
	}
	pass(tensor.Train)
	if len(seen) > 0 {
		t.Errorf("a training pass was observed: %v", seen)
	}
	h := pass(tensor.Infer)
	var ahead, back []float32
	for row := range slices.Chunk(h, 8) {
		ahead, back = append(ahead, row[:4]...), append(back, row[4:]...)
	}
	for name, want := range map[string][]float32{"rnn.weight_ih_l0": x, "rnn.weight_ih_l0_reverse": x, "rnn.weight_hh_l0": ahead, "rnn.weight_hh_l0_reverse": back, "head.weight": h} {
		if !slices.Equal(seen[name], want) {
			t.Errorf("%s: got %v, want %v", name, seen[name], want)
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d matrices were observed", len(seen))
	}
	clear(seen)
	slab.Observe(nil)
	if pass(tensor.Infer); len(seen) > 0 {
		t.Error("observed after its end")
	}
}
