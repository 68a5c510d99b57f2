package nn_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// halfStep is a training step's loss, output and gradients in a precision.
func halfStep(t *testing.T, make func() *nn.RNN, p tensor.Precision, x []float32, B, T, in int, lengths []int32) (out, grads []float32) {
	t.Helper()
	net := make()
	slab := tensor.Pack(tensor.CPU(), net, 5)
	tape := tensor.NewTape(nil, tensor.Train)
	tape.SetPrecision(p)
	var input *tensor.Tensor
	if lengths == nil {
		input = tape.Input(x, B, T, in)
	} else {
		input = tape.Sequences(x, lengths, B, T, in)
	}
	y, final := net.Forward(input, nil)
	loss := tensor.Add(tensor.MeanAll(tensor.Mul(y, y)), tensor.MeanAll(tensor.Mul(final.H, final.H)))
	const scale = 1 << 12 // in float16 gradients of a mean would underflow
	tensor.MulScalar(loss, scale).Backward()
	grads = gradsOf(slab)
	for i := range grads {
		grads[i] /= scale
	}
	return y.Data(), grads
}

func gradsOf(slab *tensor.Slab) []float32 {
	g := make([]float32, slab.Grads().N)
	slab.Device().Backend().Download(g, slab.Grads())
	return g
}

// A training step in 16 bits is near that in float32, for every cell and form of a batch,
// and has the same bits for any number of threads.
func TestPrecisions(t *testing.T) {
	defer par.SetWorkers(0)
	const B, T, in, hidden = 37, 9, 40, 64
	r := rand.New(rand.NewPCG(61, 62))
	x := make([]float32, B*T*in)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	var lengths []int32
	for b := range B {
		lengths = append(lengths, int32((b*5)%(T+1)))
	}
	cases := map[string]func() *nn.RNN{
		"lstm":        func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{Layers: 2, Bidirectional: true}) },
		"gru":         func() *nn.RNN { return nn.NewGRU(in, hidden, &nn.RNNOptions{Layers: 2}) },
		"rnn":         func() *nn.RNN { return nn.NewRNN(in, hidden, nil) },
		"projection":  func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{Proj: 24}) },
		"peephole":    func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{Peephole: true, Zoneout: 0.1}) },
		"norm":        func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{LayerNorm: true}) },
		"clip":        func() *nn.RNN { return nn.NewLSTM(in, hidden, &nn.RNNOptions{GateClip: 3}) },
		"slstm":       func() *nn.RNN { return nn.NewSLSTM(in, hidden, nil) },
		"min gru":     func() *nn.RNN { return nn.NewMinGRU(in, hidden, nil) },
		"weight drop": func() *nn.RNN { return nn.NewGRU(in, hidden, &nn.RNNOptions{WeightDrop: 0.2}) },
		"large":       func() *nn.RNN { return nn.NewLSTM(in, 256, nil) },
	}
	for name, make := range cases {
		for _, lens := range [][]int32{nil, lengths} {
			y32, g32 := halfStep(t, make, tensor.Float32, x, B, T, in, lens)
			for _, p := range []tensor.Precision{tensor.BFloat16, tensor.Float16} {
				var y, g []float32
				for _, workers := range []int{1, 2, 3} {
					par.SetWorkers(workers)
					y1, g1 := halfStep(t, make, p, x, B, T, in, lens)
					if y != nil && (!slices.Equal(y, y1) || !slices.Equal(g, g1)) {
						t.Fatalf("%s, %v, lengths %v: %d threads have other bits", name, p, lens != nil, workers)
					}
					y, g = y1, g1
				}
				par.SetWorkers(0)
				limit := map[tensor.Precision]float64{tensor.BFloat16: 0.02, tensor.Float16: 0.003}[p]
				if name == "norm" {
					limit *= 6 // gradients of a norm are small differences
				}
				if d := distance(y, y32); d > limit || d == 0 {
					t.Errorf("%s, %v, lengths %v: outputs differ by %.2g of their norm", name, p, lens != nil, d)
				}
				if d := distance(g, g32); d > limit || d == 0 {
					t.Errorf("%s, %v, lengths %v: gradients differ by %.2g of their norm", name, p, lens != nil, d)
				}
			}
		}
	}
}

// distance is |a-b| / |b|.
func distance(a, b []float32) float64 {
	d, n := 0.0, 0.0
	for i := range a {
		d += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
}

// Values of any size that a cell keeps in its gates stay what they are.
func TestGatesOfAnySize(t *testing.T) {
	const B, T, in, hidden = 9, 5, 8, 16
	x := normal(17, B*T*in)
	for i := range x {
		x[i] *= 1e6
	}
	for name, make := range map[string]func() *nn.RNN{
		"min gru": func() *nn.RNN { return nn.NewMinGRU(in, hidden, nil) },
		"relu":    func() *nn.RNN { return nn.NewRNN(in, hidden, &nn.RNNOptions{ReLU: true}) },
	} {
		run := func(p tensor.Precision) []float32 {
			net := make()
			slab := tensor.Pack(tensor.CPU(), net, 5)
			tape := tensor.NewTape(nil, tensor.Train)
			tape.SetPrecision(p)
			y, _ := net.Forward(tape.Input(x, B, T, in), nil)
			tensor.MeanAll(y).Backward()
			return gradsOf(slab)
		}
		if d := distance(run(tensor.BFloat16), run(tensor.Float32)); !(d < 0.1) {
			t.Errorf("%s: gradients differ by %.2g of their norm", name, d)
		}
	}
}

// A parameter with Keep32 has the products of float32, also dropped and in a MatMul.
func TestKeep32(t *testing.T) {
	x := normal(19, 8*6*16)
	run := func(keep string, p tensor.Precision) []float32 {
		net := nn.NewLSTM(16, 32, &nn.RNNOptions{WeightDrop: 0.3})
		slab := tensor.Pack(tensor.CPU(), net, 5)
		for _, q := range slab.Params {
			q.Keep32 = q.Name == keep
		}
		tape := tensor.NewTape(nil, tensor.Train)
		tape.Seed(3, 4)
		tape.SetPrecision(p)
		y, _ := net.Forward(tape.Input(x, 8, 6, 16), nil)
		return y.Data()
	}
	if full, kept := run("", tensor.Float32), run("weight_hh_l0", tensor.BFloat16); !slices.Equal(full, kept) {
		t.Errorf("beside weight drop it changes nothing: outputs differ by %.2g", distance(kept, full))
	}
	w := tensor.NewParam("w", func(_ *rand.Rand, v []float32, _ []int) { copy(v, x) }, 1, 32, 16)
	w.Keep32 = true
	tensor.Pack(tensor.CPU(), struct{ W *tensor.Param }{w}, 1)
	product := func(p tensor.Precision) []float32 {
		tape := tensor.NewTape(nil, tensor.Train)
		tape.SetPrecision(p)
		return tensor.MatMul(tape.Input(x[:8*32], 1, 8, 32), w.T(), false).Data()
	}
	if !slices.Equal(product(tensor.Float32), product(tensor.BFloat16)) {
		t.Error("in a MatMul it changes nothing")
	}
}

// A forget gate of 0.9999 keeps its slope, for a memory of thousands of steps.
func TestLongMemoryInSixteenBits(t *testing.T) {
	const B, T, in, hidden = 9, 1000, 4, 48
	x := normal(23, B*T*in)
	for i := range x {
		x[i] *= 0.02
	}
	run := func(p tensor.Precision) []float32 { // the gradient of the forget gate's rows of W
		net := nn.NewLSTM(in, hidden, &nn.RNNOptions{ForgetBias: 9})
		slab := tensor.Pack(tensor.CPU(), net, 3)
		tape := tensor.NewTape(nil, tensor.Train)
		tape.SetPrecision(p)
		y, _ := net.Forward(tape.Input(x, B, T, in), nil)
		tensor.MulScalar(tensor.SumAll(tensor.Slice(y, 1, T-1, T)), 1<<10).Backward()
		return gradsOf(slab)[hidden*in : 2*hidden*in]
	}
	// Gates are kept alike in both precisions. With operands of bfloat16 the state at the end, a
	// sum of 1,000 terms, differs so much that gradients through its tanh say nothing of gates.
	if d := distance(run(tensor.Float16), run(tensor.Float32)); !(d < 0.1) {
		t.Errorf("the gradient differs by %.2g of its norm", d)
	}
}

// A batch is computed as it lies with the bits of the same batch time-major.
func TestBatchAsItLies(t *testing.T) {
	const B, T, in, hidden = 21, 60, 24, 320 // several chunks of time
	x := normal(9, B*T*in)
	turned := make([]float32, len(x))
	for b := range B {
		for i := range T {
			copy(turned[(i*B+b)*in:], x[(b*T+i)*in:][:in])
		}
	}
	run := func(timeMajor bool) (y, grads []float32) {
		net := nn.NewLSTM(in, hidden, &nn.RNNOptions{Layers: 2, Bidirectional: true, TimeMajor: timeMajor})
		slab := tensor.Pack(tensor.CPU(), net, 5)
		tape := tensor.NewTape(nil, tensor.Train)
		tape.SetPrecision(tensor.BFloat16)
		values, dims := x, [3]int{B, T, in}
		if timeMajor {
			values, dims = turned, [3]int{T, B, in}
		}
		out, _ := net.Forward(tape.Input(values, dims[0], dims[1], dims[2]), nil)
		tensor.SumAll(tensor.Mul(out, out)).Backward()
		return out.Data(), gradsOf(slab)
	}
	y, grads := run(false)
	want, wantGrads := run(true)
	for b := range B {
		for i := range T {
			const width = 2 * hidden
			if !slices.Equal(y[(b*T+i)*width:][:width], want[(i*B+b)*width:][:width]) {
				t.Fatalf("row %d, step %d differs", b, i)
			}
		}
	}
	if !slices.Equal(grads, wantGrads) {
		t.Fatal("gradients differ")
	}
}

// Over 1,000 steps nothing under- or overflows that does not in float32: the gradient of the
// last step's loss reaches the first inputs.
func TestLongInSixteenBits(t *testing.T) {
	const B, T, in, hidden = 3, 1000, 4, 48
	x := normal(13, B*T*in)
	for i := range x {
		x[i] *= 0.02 // so that c does not saturate, where gradients depend on its last digits
	}
	run := func(p tensor.Precision) (first, grads []float32) {
		net := nn.NewLSTM(in, hidden, &nn.RNNOptions{ForgetBias: 5}) // lets states pass for hundreds of steps
		slab := tensor.Pack(tensor.CPU(), struct {
			RNN *nn.RNN
			X   *tensor.Param
		}{net, tensor.NewParam("x", func(_ *rand.Rand, w []float32, _ []int) { copy(w, x) }, B, T, in)}, 3)
		tape := tensor.NewTape(nil, tensor.Train)
		tape.SetPrecision(p)
		input := tape.Param(slab.Lookup("x"))
		y, _ := net.Forward(input, nil)
		last := tensor.Slice(y, 1, T-1, T)
		const scale = 1 << 10
		tensor.MulScalar(tensor.SumAll(tensor.Mul(last, last)), scale).Backward()
		lo, hi := slab.Range(len(slab.Params) - 1)
		g := gradsOf(slab)
		return g[lo : lo+in], g[:hi]
	}
	first32, g32 := run(tensor.Float32)
	for _, p := range []tensor.Precision{tensor.BFloat16, tensor.Float16} {
		first, g := run(p)
		if d := distance(g, g32); !(d < 0.15) {
			t.Errorf("%v: gradients differ by %.2g of their norm", p, d)
		}
		if d := distance(first, first32); !(d < 0.15) || first32[0] == 0 {
			t.Errorf("%v: the gradient of the first input is %g, in float32 %g", p, first, first32)
		}
	}
}

// A training step of a batch in 16 bits keeps at most 0.65 of the memory that it keeps in float32.
// Where no copies are saved, because float32 has none either (time-major) or both have them (rows
// with lengths), only the gates are smaller.
func TestTapeInSixteenBits(t *testing.T) {
	const B, T, width = 64, 100, 64 // gates, states and batches have the shares of any width
	lengths := slices.Repeat([]int32{T, T - 1}, B/2)
	bytes := func(layout string, p tensor.Precision) float64 {
		net := nn.NewLSTM(width, width, &nn.RNNOptions{TimeMajor: layout == "time-major"})
		tensor.Pack(tensor.CPU(), net, 1)
		tape := tensor.NewTape(nil, tensor.Train)
		tape.SetPrecision(p)
		for range 3 {
			tape.Reset()
			x := normal(1, B*T*width)
			var y *tensor.Tensor
			switch layout {
			case "batch":
				y, _ = net.Forward(tape.Input(x, B, T, width), nil)
			case "time-major":
				y, _ = net.Forward(tape.Input(x, T, B, width), nil)
			case "lengths":
				y, _ = net.Forward(tape.Sequences(x, lengths, B, T, width), nil)
			}
			tensor.MSE(y, tape.Input(normal(2, B*T*width), y.Dims()...), nil).Backward()
		}
		return float64(tape.Bytes())
	}
	for layout, limit := range map[string]float64{"batch": 0.65, "time-major": 0.9, "lengths": 0.9} {
		full := bytes(layout, tensor.Float32)
		for _, p := range []tensor.Precision{tensor.BFloat16, tensor.Float16} {
			if share := bytes(layout, p) / full; share > limit {
				t.Errorf("%s, %v: %.3f of float32's memory", layout, p, share)
			}
		}
	}
}
