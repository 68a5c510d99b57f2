package explain

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// subject is a recurrent stack under a loss of its final states.
func subject(m *nn.RNN, lengths []int32, T int, v func(slot, row, unit int) float32) *Subject {
	slab := tensor.Pack(tensor.CPU(), m, 1)
	return &Subject{Name: "test", Slab: slab, Loss: func(tape *tensor.Tape) *tensor.Tensor {
		B := len(lengths)
		x := make([]float32, B*T*m.InputSize())
		for i := range x {
			x[i] = float32(math.Sin(float64(i)))
		}
		_, final := m.Forward(tape.Sequences(x, lengths, B, T, m.InputSize()), nil)
		slots := m.Layers() * m.Directions()
		w := make([]float32, 0, slots*B*m.Hidden())
		for s := range slots {
			for b := range B {
				for j := range m.Hidden() {
					w = append(w, v(s, b, j))
				}
			}
		}
		return tensor.SumAll(tensor.Mul(final.H, tape.Input(w, slots, B, m.Hidden())))
	}}
}

func measure(t *testing.T, s *Subject) *Flow {
	t.Helper()
	f, err := Measure(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// In a linear network the norm k steps back is that of the k-th power of Rᵀ
// times the gradient at the end, in both directions and from each row's own end.
func TestFlowOfLinearRNN(t *testing.T) {
	const H, T = 7, 12
	m := nn.NewRNN(2, H, &nn.RNNOptions{Activation: cell.Identity, Bidirectional: true})
	v := func(slot, row, unit int) float32 { return float32(1 + slot + 2*row - unit) }
	lengths := []int32{5, T, 9}
	f := measure(t, subject(m, lengths, T, v))
	if len(f.Layers) != 2 || f.Layers[0].Name != "layer 1" || f.Layers[1].Name != "layer 1, reverse" || f.Layers[1].Steps != T || f.Layers[0].Cell != "RNN" {
		t.Fatalf("layers %+v", f.Layers)
	}
	for d, l := range f.Layers {
		R := m.Weights[4*d+1].Read()
		squares := make([]float64, T)
		for b, n := range lengths {
			g := make([]float64, H)
			for j := range g {
				g[j] = float64(v(d, b, j))
			}
			for k := range int(n) {
				next := make([]float64, H)
				for i, x := range g {
					squares[k] += x * x
					for j := range next {
						next[j] += float64(R[i*H+j]) * x
					}
				}
				g = next
			}
		}
		for k, s := range squares {
			if want := math.Sqrt(s); math.Abs(l.DH[k]-want) > 1e-5*want {
				t.Errorf("direction %d, %d steps back: norm %v, want %v", d, k, l.DH[k], want)
			}
		}
		if want := math.Sqrt(squares[T-1] / squares[0]); math.Abs(l.Left-want) > 1e-5*want || math.Abs(math.Pow(l.Rate, T-1)-want) > 1e-4*want {
			t.Errorf("direction %d: left %v at a rate of %v, want %v", d, l.Left, l.Rate, want)
		}
		if reach := slices.IndexFunc(squares, func(s float64) bool { return s < 1e-6*squares[0] }); l.Reach != reach {
			t.Errorf("direction %d: reach %d, want %d", d, l.Reach, reach)
		}
	}
}

// fill sets every weight of a stack, and the first vector of biases gate by gate.
func fill(m *nn.RNN, biases ...float32) {
	for i, p := range m.Weights {
		w := make([]float32, p.Len())
		if i == 2 || len(m.Weights) == 2 && i == 1 {
			for g, b := range biases {
				for j := range m.Hidden() {
					w[g*m.Hidden()+j] = b
				}
			}
		}
		p.Write(w)
	}
}

// Without weights a gate is the logistic function of its bias, and a memory 1/(1-f).
func TestMemory(t *testing.T) {
	const H = 5
	for _, b := range []float64{0, 1, 3} {
		want, bias := 1+math.Exp(b), float32(b)
		for name, c := range map[string]struct {
			m      *nn.RNN
			biases []float32
		}{
			"lstm":         {nn.NewLSTM(2, H, nil), []float32{0, bias}},
			"coupled lstm": {nn.NewLSTM(2, H, &nn.RNNOptions{Coupled: true}), []float32{-bias}},
			"gru":          {nn.NewGRU(2, H, nil), []float32{0, bias}},
			"gru before":   {nn.NewGRU(2, H, &nn.RNNOptions{ResetBefore: true}), []float32{0, bias}},
			"mingru":       {nn.NewMinGRU(2, H, nil), []float32{-bias}},
		} {
			s := subject(c.m, []int32{4, 9}, 9, func(int, int, int) float32 { return 1 })
			fill(c.m, c.biases...)
			m := measure(t, s).Layers[0].Memory
			if m == nil || math.Abs(m.Mean-want) > 1e-4*want || math.Abs(m.Median-want) > 1e-4*want || m.Most > want*1.0001 || len(m.Units) != H {
				t.Errorf("%s with a bias of %v: memory %+v, want %v", name, b, m, want)
			}
		}
	}
	// minLSTM: f/(f+i) of two logistic gates.
	m := nn.NewMinLSTM(2, H, nil)
	s := subject(m, []int32{3}, 3, func(int, int, int) float32 { return 1 })
	fill(m, 2, -1)
	logistic := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	want := 1 / (1 - logistic(2)/(logistic(2)+logistic(-1)))
	if got := measure(t, s).Layers[0].Memory.Mean; math.Abs(got-want) > 1e-4*want {
		t.Errorf("minLSTM: memory %v, want %v", got, want)
	}
	// A gate that float32 rounds to 1 is not for ever.
	l := nn.NewLSTM(2, H, nil)
	s = subject(l, []int32{3}, 3, func(int, int, int) float32 { return 1 })
	fill(l, 0, 100)
	if got := measure(t, s).Layers[0].Memory.Most; got != longestMemory {
		t.Errorf("a shut gate remembers %v steps", got)
	}
	if m := measure(t, subject(nn.NewRNN(2, H, nil), []int32{3}, 3, func(int, int, int) float32 { return 1 })).Layers[0].Memory; m != nil {
		t.Errorf("an RNN has a memory %+v", m)
	}
}

// Gates count true steps alone: in which part of their range they stand, and how many are saturated.
func TestGates(t *testing.T) {
	m := nn.NewLSTM(2, 4, nil)
	s := subject(m, []int32{2, 6}, 6, func(int, int, int) float32 { return 1 })
	fill(m, -5, 5, 3, 0)
	l := measure(t, s).Layers[0]
	if len(l.Gates) != 4 {
		t.Fatalf("gates %+v", l.Gates)
	}
	for i, want := range []Gate{
		{Name: "i", Mean: 1 / (1 + math.Exp(5)), Low: 1},
		{Name: "f", Mean: 1 / (1 + math.Exp(-5)), High: 1},
		{Name: "g", Mean: math.Tanh(3), High: 1, Signed: true},
		{Name: "o", Mean: 0.5},
	} {
		g := l.Gates[i]
		if g.Name != want.Name || math.Abs(g.Mean-want.Mean) > 1e-6 || g.Low != want.Low || g.High != want.High || g.Signed != want.Signed {
			t.Errorf("gate %+v, want %+v", g, want)
		}
		bin := map[string]int{"i": 0, "f": 19, "g": 19, "o": 10}[g.Name]
		if math.Abs(g.Histogram[bin]-1) > 1e-9 {
			t.Errorf("gate %s: histogram %v, want all in bin %d", g.Name, g.Histogram, bin)
		}
	}
}

// Every row of the table of cells can be looked at: its bounded gates, by name,
// and the memories that they say.
func TestGatesOfEveryCell(t *testing.T) {
	for kind := range cell.Custom {
		spec := kind.Spec()
		l := measure(t, subject(nn.New(kind, 2, 3, nil), []int32{4, 2}, 4, func(_, _, _ int) float32 { return 1 })).Layers[0]
		var want []string
		for _, g := range spec.Gates {
			if g.Act == cell.Sigmoid || g.Act == cell.Tanh {
				want = append(want, g.Name)
			}
		}
		var got []string
		for _, g := range l.Gates {
			got = append(got, g.Name)
		}
		keeps := slices.Contains(want, spec.Keep) || spec.Keep == "" && slices.Contains(want, spec.Take)
		if l.Cell != spec.Title || !slices.Equal(got, want) || (l.Memory != nil) != keeps {
			t.Errorf("%s: %q with gates %q and memory %v", spec.Name, l.Cell, got, l.Memory)
		}
	}
}

func TestCellClipHits(t *testing.T) {
	m := nn.NewLSTM(2, 4, &nn.RNNOptions{CellClip: 0.5})
	s := subject(m, []int32{4}, 4, func(int, int, int) float32 { return 1 })
	fill(m, 5, 5, 5, 5) // c grows by almost 1 a step
	f := measure(t, s)
	if l := f.Layers[0]; l.CellClip != 0.5 || l.CellClipped != 1 {
		t.Errorf("clip %v, hits %v", l.CellClip, l.CellClipped)
	}
	if !strings.Contains(strings.Join(f.Advice, "\n"), "100 % of the cell states are at the limit of 0.5") {
		t.Errorf("advice %q", f.Advice)
	}
}

// Measuring leaves no gradient behind, and tells what is broken.
func TestMeasureErrors(t *testing.T) {
	m := nn.NewGRU(2, 3, nil)
	s := subject(m, []int32{3}, 3, func(int, int, int) float32 { return 1 })
	f := measure(t, s)
	if !(f.GradNorm > 0) {
		t.Errorf("gradient norm %v", f.GradNorm)
	}
	for _, p := range s.Slab.Params {
		if slices.ContainsFunc(p.Grad(), func(v float32) bool { return v != 0 }) {
			t.Errorf("%s has a gradient left", p.Name)
		}
	}
	m.Weights[1].Write(slices.Repeat([]float32{float32(math.NaN())}, 27))
	if _, err := Measure(s); err == nil || !strings.Contains(err.Error(), "weights or the data are broken") {
		t.Errorf("a network of NaNs: %v", err)
	}
	head := nn.NewLinear(2, 1, nil)
	plain := &Subject{Name: "plain", Slab: tensor.Pack(tensor.CPU(), head, 1), Loss: func(tape *tensor.Tape) *tensor.Tensor {
		return tensor.SumAll(head.Forward(tape.Zeros(1, 2)))
	}}
	if _, err := Measure(plain); err == nil || !strings.Contains(err.Error(), "no recurrent layer") {
		t.Errorf("a network without recurrent layers: %v", err)
	}
}

func TestLayerName(t *testing.T) {
	for param, want := range map[string]string{
		"weight_ih_l0": "layer 1", "encoder.weight_ih_l1_reverse": "encoder, layer 2, reverse", "stack.layers.2.weight_ih_l0": "stack.layers.2, layer 1", "": "",
	} {
		if got := layerName(param); got != want {
			t.Errorf("%s is %q, want %q", param, got, want)
		}
	}
}
