package nn_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// An option that contradicts another or would do nothing is refused by name.
func TestOptionsThatDoNothingAreRefused(t *testing.T) {
	type o = nn.RNNOptions
	for _, c := range []struct {
		new  maker
		opt  o
		want string
	}{
		{nn.NewLSTM, o{Dropout: 0.1}, "one layer"},
		{nn.NewLSTM, o{Layers: 2, Variational: true}, "Variational"},
		{nn.NewLSTM, o{Layers: 2, Dropout: 1}, "Dropout must be a probability"},
		{nn.NewLSTM, o{Zoneout: -0.1}, "Zoneout must be"},
		{nn.NewLSTM, o{WeightDrop: float32(math.NaN())}, "WeightDrop must be"},
		{nn.NewLSTM, o{CellClip: -1}, "CellClip must not be negative"},
		{nn.NewLSTM, o{Residual: true}, "Residual acts on the layers after the first"},
		{nn.NewLSTM, o{Proj: 4}, "Proj must be below the 4 hidden units, got 4"},
		{nn.NewLSTM, o{ResetBefore: true}, "ResetBefore needs the cell GRU"},
		{nn.NewLSTM, o{ReLU: true}, "ReLU needs"},
		{nn.NewLSTM, o{Coupled: true, ForgetBias: 1}, "ForgetBias needs the cell LSTM without coupled gates or sLSTM"},
		{nn.NewLSTM, o{NoBias: true, ForgetBias: 1}, "ForgetBias needs biases"},
		{nn.NewGRU, o{ForgetBias: 1}, "ForgetBias needs"},
		{nn.NewGRU, o{Peephole: true}, "Peephole needs the cell LSTM"},
		{nn.NewGRU, o{Proj: 2}, "Proj needs the cell LSTM"},
		{nn.NewGRU, o{ZoneoutCell: 0.1}, "ZoneoutCell needs the cell LSTM"},
		{nn.NewGRU, o{CellClip: 1}, "CellClip needs"},
		{nn.NewGRU, o{LayerNorm: true, ResetBefore: true}, "LayerNorm needs"},
		{nn.NewRNN, o{LayerNorm: true}, "LayerNorm needs"},
		{nn.NewRNN, o{GateActivation: cell.Softsign}, "GateActivation needs"},
		{nn.NewRNN, o{ReLU: true, Activation: cell.ELU}, "ReLU needs that no other activation"},
		{nn.NewMinGRU, o{WeightDrop: 0.1}, "WeightDrop needs a cell with a recurrent matrix"},
		{nn.NewMinLSTM, o{RecurrentDropout: 0.1}, "RecurrentDropout needs"},
		{nn.NewSLSTM, o{GateClip: 1}, "GateClip needs"},
		{newForgetful, o{Zoneout: 0.1}, "Zoneout needs a built-in cell"},
	} {
		err := tensor.Catch(func() { c.new(3, 4, &c.opt) })
		if got := fmt.Sprint(err); !strings.HasPrefix(got, "nn: RNN: ") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %q, want %q in it", c.opt, got, c.want)
		}
	}
}

// The parameters that options add, after PyTorch's own in PyTorch's order.
func TestNamesOfOptions(t *testing.T) {
	for _, c := range []struct {
		m    *nn.RNN
		want []string
	}{
		{nn.NewLSTM(2, 3, &nn.RNNOptions{Proj: 1}),
			[]string{"weight_ih_l0[12 2]", "weight_hh_l0[12 1]", "bias_ih_l0[12]", "bias_hh_l0[12]", "weight_hr_l0[1 3]"}},
		{nn.NewLSTM(2, 3, &nn.RNNOptions{NoBias: true, Peephole: true, LayerNorm: true}),
			[]string{"weight_ih_l0[12 2]", "weight_hh_l0[12 3]", "weight_pi_l0[3]", "weight_pf_l0[3]", "weight_po_l0[3]",
				"weight_ln_ih_l0[12]", "weight_ln_hh_l0[12]", "weight_ln_c_l0[3]"}},
		{nn.NewLSTM(2, 3, &nn.RNNOptions{Coupled: true, Peephole: true, LearnState: true}),
			[]string{"weight_ih_l0[9 2]", "weight_hh_l0[9 3]", "bias_ih_l0[9]", "bias_hh_l0[9]", "weight_pi_l0[3]", "weight_po_l0[3]", "h_0[1 3]", "c_0[1 3]"}},
		{nn.NewMinGRU(2, 3, nil), []string{"weight_ih_l0[6 2]", "bias_ih_l0[6]"}},
	} {
		var names []string
		for _, p := range tensor.Pack(tensor.CPU(), c.m, 1).Params {
			names = append(names, fmt.Sprint(p.Name, p.Dims()))
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("got  %v\nwant %v", names, c.want)
		}
	}
}

// Random masks differ between steps and are equal for the same seed and step; there
// are none at inference.
func TestDrawsFollowSeedAndStep(t *testing.T) {
	for name, o := range map[string]nn.RNNOptions{
		"recurrent dropout": {RecurrentDropout: 0.5}, "weight drop": {WeightDrop: 0.5}, "zoneout": {Zoneout: 0.5}, "zoneout of c": {ZoneoutCell: 0.5},
		"input": {InputDropout: 0.5}, "output": {OutputDropout: 0.5}, "variational": {Layers: 2, Dropout: 0.5, Variational: true},
	} {
		m := nn.NewLSTM(width, hidden, &o)
		tensor.Pack(tensor.CPU(), m, 1)
		x := normal(1, 2*5*width)
		pass := func(mode tensor.Mode, seed, step uint64) []float32 {
			tape := tensor.NewTape(tensor.CPU(), mode)
			tape.Seed(seed, step)
			y, _ := m.Forward(tape.Input(x, 2, 5, width), nil)
			return y.Data()
		}
		first := pass(tensor.Train, 3, 4)
		if !slices.Equal(first, pass(tensor.Train, 3, 4)) {
			t.Errorf("%s: the same seed and step give other numbers", name)
		}
		if slices.Equal(first, pass(tensor.Train, 3, 5)) || slices.Equal(first, pass(tensor.Train, 4, 4)) {
			t.Errorf("%s: another seed or step gives the same numbers", name)
		}
		if infer := pass(tensor.Infer, 3, 4); slices.Equal(first, infer) || !slices.Equal(infer, pass(tensor.Infer, 9, 9)) {
			t.Errorf("%s: inference draws", name)
		}
	}
}

// coins is which elements a mask lets pass, as ones and zeros.
func coins(x *tensor.Tensor) []float32 {
	mask := slices.Clone(x.Data())
	for i, v := range mask {
		if v != 0 {
			mask[i] = 1
		}
	}
	return mask
}

// drawnApart wants masks of probability a half to agree pairwise as fair coins do: in
// half of the places, within six standard deviations.
func drawnApart(t *testing.T, masks map[string][]float32) {
	t.Helper()
	for a, x := range masks {
		for b, y := range masks {
			if a >= b {
				continue
			}
			same, n := 0.0, float64(len(x))
			for i := range x {
				if x[i] == y[i] {
					same++
				}
			}
			if math.Abs(same-n/2) > 3*math.Sqrt(n) {
				t.Errorf("the masks of %s and %s agree in %v of %v places", a, b, same, n)
			}
		}
	}
}

// Scans on one tape share no mask, whichever kinds of masks they draw and in
// whichever order. Each scan here is one step whose result is its mask: ones
// that pass the dropout on their way into R = 1, or fresh values of 1 where the
// old ones are 0.
func TestScansDrawApart(t *testing.T) {
	const B, n = 32, 32
	ones := slices.Repeat([]float32{1}, B*n)
	dropped := nn.NewRNN(1, n, &nn.RNNOptions{ReLU: true, NoBias: true, RecurrentDropout: 0.5})
	zoned := nn.NewRNN(1, n, &nn.RNNOptions{ReLU: true, NoBias: true, Zoneout: 0.5})
	zonedCell := nn.NewLSTM(1, n, &nn.RNNOptions{NoBias: true, ZoneoutCell: 0.5})
	slab := tensor.Pack(tensor.CPU(), &struct{ Dropped, Zoned, ZonedCell *nn.RNN }{dropped, zoned, zonedCell}, 1)
	identity := make([]float32, n*n)
	for i := range n {
		identity[i*n+i] = 1
	}
	slab.Lookup("dropped.weight_ih_l0").Write(make([]float32, n))
	slab.Lookup("dropped.weight_hh_l0").Write(identity)
	slab.Lookup("zoned.weight_ih_l0").Write(ones[:n])
	slab.Lookup("zoned_cell.weight_ih_l0").Write(slices.Repeat(ones[:n], 4))

	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.Seed(1, 2)
	x := tape.Input(ones[:B], B, 1, 1)
	masks := map[string][]float32{}
	for i, kind := range strings.Fields("cell cell hidden cell dropout hidden hidden dropout dropout cell") { // every kind after every kind
		var mask []float32
		switch kind {
		case "dropout":
			y, _ := dropped.Forward(x, &nn.State{H: tape.Input(ones, 1, B, n)})
			mask = coins(y)
		case "hidden":
			y, _ := zoned.Forward(x, nil)
			mask = coins(y)
		case "cell":
			_, final := zonedCell.Forward(x, nil)
			mask = coins(final.C)
		}
		masks[fmt.Sprintf("scan %d (%s)", i, kind)] = mask
	}
	drawnApart(t, masks)
}

// A stack is plain exactly if it computes at inference what the stack without
// its options does from the same weights, which is PyTorch's (internal/golden).
func TestPlainStacksComputeWhatPyTorchDoes(t *testing.T) {
	cases := append(slices.Clone(table), []struct {
		name string
		new  maker
		opt  nn.RNNOptions
	}{
		{"learned state", nn.NewGRU, nn.RNNOptions{LearnState: true}},
		{"learned state and cell", nn.NewLSTM, nn.RNNOptions{LearnState: true}},
		{"residual", nn.NewLSTM, nn.RNNOptions{Residual: true}},
		{"dropout", nn.NewLSTM, nn.RNNOptions{Dropout: 0.3, Variational: true}},
		{"start", nn.NewLSTM, nn.RNNOptions{ForgetBias: 2, Orthogonal: true}},
	}...)
	for _, c := range cases {
		o := c.opt
		o.Layers = 2
		m := c.new(width, hidden, &o)
		of := tensor.Pack(tensor.CPU(), m, 1)
		for i, p := range of.Params { // nothing stays at a start that hides it
			p.Write(normal(uint64(i), p.Len()))
		}
		equal := false
		if slices.Contains([]cell.Kind{cell.LSTM, cell.GRU, cell.RNNTanh, cell.RNNReLU}, m.Cell()) {
			reference := c.new(width, hidden, &nn.RNNOptions{Layers: 2, ReLU: o.ReLU, NoBias: o.NoBias, Proj: o.Proj})
			for _, p := range tensor.Pack(tensor.CPU(), reference, 2).Params {
				p.Write(of.Lookup(p.Name).Read())
			}
			tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
			x := tape.Input(normal(1, 2*4*width), 2, 4, width)
			got, _ := m.Forward(x, nil)
			want, _ := reference.Forward(x, nil)
			equal = slices.Equal(got.Data(), want.Data())
		}
		if m.IsPlain() != equal {
			t.Errorf("%s: IsPlain is %v, but that it computes the same as without options is %v", c.name, m.IsPlain(), equal)
		}
	}
}

// The trained initial state serves every row where none is given, and learns.
func TestLearnedState(t *testing.T) {
	m := nn.NewLSTM(width, hidden, &nn.RNNOptions{Layers: 2, LearnState: true})
	slab := tensor.Pack(tensor.CPU(), m, 1)
	h0, c0 := slab.Lookup("h_0"), slab.Lookup("c_0")
	h, c := normal(5, 2*hidden), normal(6, 2*hidden)
	h0.Write(h)
	c0.Write(c)
	const B, T = 3, 4
	x := normal(1, B*T*width)
	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	y, _ := m.Forward(tape.Sequences(x, []int32{2, 4, 0}, B, T, width), nil)
	repeat := func(v []float32) *tensor.Tensor { return tensor.Repeat(tape.Input(v, 2, hidden), 1, B) }
	z, _ := m.Forward(tape.Sequences(x, []int32{2, 4, 0}, B, T, width), &nn.State{H: repeat(h), C: repeat(c)})
	sameBits(t, "output", y.Data(), z.Data())
	tensortest.CheckGrad(t, slab, func(tape *tensor.Tape) *tensor.Tensor {
		y, final := m.Forward(tape.Sequences(x, []int32{2, 4, 0}, B, T, width), nil)
		return tensor.Add(tensor.MeanAll(tensor.Square(y)), tensor.MeanAll(tensor.Tanh(final.C)))
	})
}
