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
)

// A linear network's gradient k steps before the end is Rᵀ to the power k times
// that at the end: in both directions, with each row from its own end.
func TestTraceOfLinearRNN(t *testing.T) {
	m := nn.NewRNN(width, hidden, &nn.RNNOptions{Activation: cell.Identity, Bidirectional: true})
	tensor.Pack(tensor.CPU(), m, 1)
	const B, T = 3, 9
	lengths := []int32{T, 5, 0}
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.Trace()
	_, final := m.Forward(tape.Sequences(normal(1, B*T*width), lengths, B, T, width), nil)
	v := normal(2, 2*B*hidden)
	tensor.SumAll(tensor.Mul(final.H, tape.Input(v, 2, B, hidden))).Backward()
	traces := tape.Traces()
	if len(traces) != 2 || traces[0].Name != "weight_ih_l0" || traces[1].Name != "weight_ih_l0_reverse" || traces[0].Reverse || !traces[1].Reverse {
		t.Fatalf("traces %+v", traces)
	}
	for d, r := range traces {
		R := m.Weights[4*d+1].Read()
		dh, dc := r.Grads()
		if dc != nil {
			t.Error("an RNN has no c")
		}
		for b, n := range lengths {
			if r.Length(b) != int(n) {
				t.Errorf("row %d: length %d, want %d", b, r.Length(b), n)
			}
			want := make([]float64, hidden)
			for i := range want {
				want[i] = float64(v[(d*B+b)*hidden+i])
			}
			for k := range T {
				at := T - 1 - k // padding comes first, going back
				if r.Reverse {
					at = k
				}
				got := dh[(at*B+b)*hidden:][:hidden]
				if at >= int(n) {
					if slices.ContainsFunc(got, func(x float32) bool { return x != 0 }) {
						t.Fatalf("row %d has a gradient past its end", b)
					}
					continue
				}
				for i, w := range want {
					if math.Abs(float64(got[i])-w) > 1e-5*(1+math.Abs(w)) {
						t.Fatalf("direction %d row %d step %d unit %d: %v, want %v", d, b, at, i, got[i], w)
					}
				}
				want = transposedTimes(R, want)
			}
		}
	}
}

// transposedTimes is Rᵀ·v for a square R.
func transposedTimes(R []float32, v []float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		for j := range out {
			out[j] += float64(R[i*len(v)+j]) * x
		}
	}
	return out
}

// The gradients are what differences say: the sequence is cut after a step, and
// the state there nudged. At the cut h is read by the output as well.
func TestTraceAgainstDifferences(t *testing.T) {
	const B, T, layers = 2, 8, 2
	for name, m := range map[string]*nn.RNN{
		"lstm": nn.NewLSTM(width, hidden, &nn.RNNOptions{Layers: layers, ForgetBias: 1}),
		"gru":  nn.NewGRU(width, hidden, &nn.RNNOptions{Layers: layers}),
		"tanh": nn.NewRNN(width, hidden, &nn.RNNOptions{Layers: layers}),
	} {
		t.Run(name, func(t *testing.T) {
			tensor.Pack(tensor.CPU(), m, 1)
			x, proj := normal(1, B*T*width), normal(3, B*T*hidden)
			tape := tensor.NewTape(tensor.CPU(), tensor.Train)
			tape.Trace()
			in := tape.Input(x, B, T, width)
			y, _ := m.Forward(in, nil)
			tensor.SumAll(tensor.Mul(y, tape.Input(proj, B, T, hidden))).Backward()
			top := tape.Traces()[layers-1]
			dh, dc := top.Grads()
			for at := range T - 1 {
				infer := tensor.NewTape(tensor.CPU(), tensor.Infer)
				whole := infer.Input(x, B, T, width)
				p := infer.Input(proj, B, T, hidden)
				_, state := m.Forward(tensor.Slice(whole, 1, 0, at+1), nil)
				rest := func(h, c []float32) float64 {
					s := &nn.State{H: infer.Input(h, layers, B, hidden)}
					if c != nil {
						s.C = infer.Input(c, layers, B, hidden)
					}
					y, _ := m.Forward(tensor.Slice(whole, 1, at+1, T), s)
					loss := float64(tensor.SumAll(tensor.Mul(y, tensor.Slice(p, 1, at+1, T))).Item())
					own := tensor.Reshape(tensor.Slice(s.H, 0, layers-1, layers), B, 1, hidden)
					return loss + float64(tensor.SumAll(tensor.Mul(own, tensor.Slice(p, 1, at, at+1))).Item())
				}
				h := state.H.Data()
				compare(t, fmt.Sprintf("h[%d]", at), dh[at*B*hidden:][:B*hidden], h[B*hidden:], func(v []float32) float64 {
					var c []float32
					if state.C != nil {
						c = state.C.Data()
					}
					return rest(slices.Concat(h[:B*hidden], v), c)
				})
				if state.C == nil {
					continue
				}
				c := state.C.Data()
				compare(t, fmt.Sprintf("c[%d]", at), dc[at*B*hidden:][:B*hidden], c[B*hidden:], func(v []float32) float64 {
					return rest(h, slices.Concat(c[:B*hidden], v))
				})
			}
		})
	}
}

// compare holds a gradient to differences of the fourth order along some
// directions. float32 sums leave three digits of the largest slope.
func compare(t *testing.T, what string, grad, at []float32, f func([]float32) float64) {
	t.Helper()
	const step = 0.03
	for d := range 3 {
		dir := normal(uint64(20+d), len(at))
		slope, scale := 0.0, 0.0
		for i, x := range dir {
			slope += float64(x) * float64(grad[i])
			scale += math.Abs(float64(x) * float64(grad[i]))
		}
		value := func(k float32) float64 {
			v := slices.Clone(at)
			for i, x := range dir {
				v[i] += k * step * x
			}
			return f(v)
		}
		numeric := (8*(value(1)-value(-1)) - (value(2) - value(-2))) / (12 * step)
		if diff := math.Abs(numeric - slope); !(diff <= 2e-3*scale+1e-4) {
			t.Errorf("%s, direction %d: the trace's slope is %.6g, differences give %.6g", what, d, slope, numeric)
		}
	}
}

// Gates and cells are those of the equations: c' = f⊙c + i⊙g.
func TestTraceOfGates(t *testing.T) {
	m := nn.NewLSTM(width, hidden, &nn.RNNOptions{Bidirectional: true})
	tensor.Pack(tensor.CPU(), m, 1)
	const B, T = 2, 5
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.Trace()
	y, _ := m.Forward(tape.Sequences(normal(1, B*T*width), []int32{3, T}, B, T, width), nil)
	for _, r := range tape.Traces() {
		gates, cells := r.Gates(), r.Cells()
		for b := range B { // longest first
			c := make([]float32, hidden)
			for k := range r.Length(b) {
				at := k
				if r.Reverse {
					at = r.Length(b) - 1 - k
				}
				g := gates[(at*B+b)*4*hidden:]
				for j := range c {
					c[j] = g[hidden+j]*c[j] + g[j]*g[2*hidden+j]
				}
				near(t, fmt.Sprintf("c of row %d at step %d, reverse %v", b, at, r.Reverse), cells[(at*B+b)*hidden:][:hidden], c, 1e-6)
			}
			for _, v := range gates[(r.Length(b)*B+b)*4*hidden:][:4*hidden*min(1, T-r.Length(b))] {
				if v != 0 {
					t.Fatal("a gate past the row's end")
				}
			}
		}
	}
	r := tape.Traces()[0]
	gates, cells := r.Gates(), r.Cells()
	tensor.SumAll(y).Backward()
	if !slices.Equal(r.Gates(), gates) || !slices.Equal(r.Cells(), cells) {
		t.Error("Backward changed the trace of the forward pass")
	}
	want := func(text string, f func()) {
		if err := tensor.Catch(f); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q in it", err, text)
		}
	}
	tape.Reset()
	want("after its tape was reset", func() { r.Grads() })
}

// Gradients that grow by powers of two as they go back are those of a plain pass
// times what they have grown by, through all layers that grow alike.
func TestTraceGrow(t *testing.T) {
	const B, T, layers = 3, 6, 2
	m := nn.NewGRU(width, hidden, &nn.RNNOptions{Layers: layers})
	tensor.Pack(tensor.CPU(), m, 1)
	lengths := []int32{T, 4, 0}
	x, v := normal(1, B*T*width), normal(2, layers*B*hidden)
	gains, grown := make([]float32, T*B), make([]float32, T*B)
	for b, n := range lengths {
		by := float32(1)
		for at := int(n) - 1; at >= 0; at-- {
			gains[at*B+b] = []float32{1, 8, 0.5}[at%3]
			if at == int(n)-1 {
				gains[at*B+b] = 1 // the loss enters here
			}
			by *= gains[at*B+b]
			grown[at*B+b] = by
		}
	}
	pass := func(grow bool) []*tensor.Trace {
		tape := tensor.NewTape(tensor.CPU(), tensor.Train)
		tape.Trace()
		_, final := m.Forward(tape.Sequences(x, lengths, B, T, width), nil)
		if traces := tape.Traces(); grow {
			for _, r := range traces {
				r.Grow(gains)
			}
		}
		tensor.SumAll(tensor.Mul(final.H, tape.Input(v, layers, B, hidden))).Backward()
		return tape.Traces()
	}
	plain, got := pass(false), pass(true)
	for i, r := range got {
		dh, _ := r.Grads()
		want, _ := plain[i].Grads()
		for k := range want {
			if want[k] *= grown[k/hidden]; dh[k] != want[k] {
				t.Fatalf("layer %d: element %d is %v, want %v", i, k, dh[k], want[k])
			}
		}
	}
	for name, f := range map[string]func(){
		"needs 18 gains before Backward, got 18": func() { got[0].Grow(gains) },
		"needs 18 gains before Backward, got 2": func() {
			tape := tensor.NewTape(tensor.CPU(), tensor.Train)
			tape.Trace()
			m.Forward(tape.Sequences(x, lengths, B, T, width), nil)
			tape.Traces()[0].Grow(gains[:2])
		},
	} {
		if err := tensor.Catch(f); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}
