package nn_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// The laws every cell obeys, in every arrangement of layers and directions.

type stack struct {
	name   string
	make   func() *nn.RNN
	random bool // training draws numbers that depend on the row's place and the time
	plain  bool // a cell without options
}

const width, hidden = 5, 19 // neither fills a vector

type maker = func(in, hidden int, o *nn.RNNOptions) *nn.RNN

// table is every cell, and every option on the cells that have it.
var table = []struct {
	name string
	new  maker
	opt  nn.RNNOptions
}{
	{"lstm", nn.NewLSTM, nn.RNNOptions{}},
	{"lstm without bias", nn.NewLSTM, nn.RNNOptions{NoBias: true}},
	{"gru", nn.NewGRU, nn.RNNOptions{}},
	{"gru without bias", nn.NewGRU, nn.RNNOptions{NoBias: true}},
	{"tanh", nn.NewRNN, nn.RNNOptions{}},
	{"relu", nn.NewRNN, nn.RNNOptions{ReLU: true}},

	{"gru before", nn.NewGRU, nn.RNNOptions{ResetBefore: true}},
	{"peephole", nn.NewLSTM, nn.RNNOptions{Peephole: true}},
	{"coupled", nn.NewLSTM, nn.RNNOptions{Coupled: true}},
	{"coupled peephole", nn.NewLSTM, nn.RNNOptions{Coupled: true, Peephole: true}},
	{"clips", nn.NewLSTM, nn.RNNOptions{GateClip: 1, CellClip: 0.5}},
	{"activations", nn.NewLSTM, nn.RNNOptions{GateActivation: cell.Softsign, Activation: cell.ELU, OutputActivation: cell.Softsign}},
	{"gru softplus", nn.NewGRU, nn.RNNOptions{Activation: cell.Softplus}},
	{"layer norm", nn.NewLSTM, nn.RNNOptions{LayerNorm: true}},
	{"layer norm gru", nn.NewGRU, nn.RNNOptions{LayerNorm: true}},
	{"layer norm gru without bias", nn.NewGRU, nn.RNNOptions{LayerNorm: true, NoBias: true}},
	{"projection", nn.NewLSTM, nn.RNNOptions{Proj: 7}},
	{"slstm", nn.NewSLSTM, nn.RNNOptions{}},
	{"mingru", nn.NewMinGRU, nn.RNNOptions{}},
	{"minlstm", nn.NewMinLSTM, nn.RNNOptions{}},
	{"custom", newForgetful, nn.RNNOptions{}},
	{"everything", nn.NewLSTM, nn.RNNOptions{Coupled: true, Peephole: true, LayerNorm: true, Proj: 7, GateClip: 2, CellClip: 1}},

	{"recurrent dropout", nn.NewLSTM, nn.RNNOptions{RecurrentDropout: 0.3}},
	{"recurrent dropout gru before", nn.NewGRU, nn.RNNOptions{ResetBefore: true, RecurrentDropout: 0.3, Zoneout: 0.2}},
	{"zoneout", nn.NewLSTM, nn.RNNOptions{Zoneout: 0.2, ZoneoutCell: 0.3}},
	{"zoneout tanh", nn.NewRNN, nn.RNNOptions{Zoneout: 0.2}},
	{"weight drop", nn.NewGRU, nn.RNNOptions{WeightDrop: 0.4}},
	{"sequence dropout", nn.NewLSTM, nn.RNNOptions{InputDropout: 0.2, OutputDropout: 0.3}},
	{"all dropouts", nn.NewLSTM, nn.RNNOptions{Peephole: true, LayerNorm: true, Proj: 7, InputDropout: 0.1, OutputDropout: 0.1, RecurrentDropout: 0.3, WeightDrop: 0.2, Zoneout: 0.2, ZoneoutCell: 0.3}},
}

// stacks arranges the table in layers and directions: the plain cells in every way, the rest in the simplest and the richest.
func stacks() []stack {
	var all []stack
	for i, c := range table {
		for _, layers := range []int{1, 2} {
			for _, both := range []bool{false, true} {
				plain := i < 6
				if !plain && (layers == 2) != both {
					continue
				}
				o := c.opt
				o.Layers, o.Bidirectional = layers, both
				random := o.RecurrentDropout+o.Zoneout+o.WeightDrop+o.InputDropout > 0
				all = append(all, stack{fmt.Sprintf("%s layers=%d both=%v", c.name, layers, both), func() *nn.RNN { return c.new(width, hidden, &o) }, random, plain})
			}
		}
	}
	return all
}

func eachStack(t *testing.T, f func(t *testing.T, s stack, m *nn.RNN, slab *tensor.Slab)) {
	for _, s := range stacks() {
		for i, kernels := range tensortest.Kernels() {
			if !s.plain && i > 0 { // the other kernels' arithmetic is tested below
				continue
			}
			t.Run(s.name+" "+kernels, func(t *testing.T) {
				m := s.make()
				f(t, s, m, tensor.Pack(tensortest.CPUWith(kernels), m, 1))
			})
		}
	}
}

// initial is random numbers for the states of B rows, such as a cell can have.
func initial(m *nn.RNN, B int) (h, c []float32) {
	slots := m.Layers() * m.Directions()
	h, c = normal(2, slots*B*m.StateSize()), normal(4, slots*B*m.CellSize())
	if m.Cell().Spec().Positive > 0 {
		for i, v := range c {
			c[i] = v*v + 0.5
		}
	}
	return h, c
}

func normal(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// result is all that a pass gives: outputs, states, and the gradients of a projection of them.
type result struct {
	y, h, c, dx, dh0 []float32
	weights          [][]float32
}

// run makes a training pass; lengths nil is a full batch. h and c are the initial states.
func run(m *nn.RNN, slab *tensor.Slab, x []float32, lengths []int32, B, T int, h, c, proj []float32) result {
	tape := tensor.NewTape(slab.Device(), tensor.Train)
	slab.ZeroGrad()
	in := tape.Input(x, B, T, width)
	if lengths != nil {
		in = tape.Sequences(x, lengths, B, T, width)
	}
	in.RequireGrad()
	slots := m.Layers() * m.Directions()
	init := &nn.State{H: tape.Input(h, slots, B, m.StateSize()).RequireGrad()}
	if m.CellSize() > 0 {
		init.C = tape.Input(c, slots, B, m.CellSize()).RequireGrad()
	}
	y, final := m.Forward(in, init)
	loss := tensor.SumAll(tensor.Mul(y, tape.Input(proj, B, T, m.OutputSize())))
	loss = tensor.Add(loss, tensor.SumAll(tensor.Tanh(final.H)))
	r := result{y: y.Data(), h: final.H.Data()}
	if final.C != nil {
		loss = tensor.Add(loss, tensor.SumAll(tensor.Tanh(final.C)))
		r.c = final.C.Data()
	}
	loss.Backward()
	r.dx, r.dh0 = in.Grad(), init.H.Grad()
	for _, p := range slab.Params {
		r.weights = append(r.weights, p.Grad())
	}
	return r
}

func sameBits(t *testing.T, what string, a, b []float32) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%s: %d against %d elements", what, len(a), len(b))
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) && !(a[i] == 0 && b[i] == 0) {
			t.Fatalf("%s: element %d is %v against %v", what, i, a[i], b[i])
		}
	}
}

func near(t *testing.T, what string, a, b []float32, tolerance float64) {
	t.Helper()
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > tolerance*(1+math.Abs(float64(b[i]))) {
			t.Fatalf("%s: element %d is %v against %v", what, i, a[i], b[i])
		}
	}
}

// rows picks rows of a [outer,B,n] block.
func rows(v []float32, outer, B int, pick []int) []float32 {
	n := len(v) / (outer * B)
	var out []float32
	for o := range outer {
		for _, b := range pick {
			out = append(out, v[(o*B+b)*n:(o*B+b+1)*n]...)
		}
	}
	return out
}

func TestStepsOneByOneEqualOnePass(t *testing.T) {
	eachStack(t, func(t *testing.T, s stack, m *nn.RNN, slab *tensor.Slab) {
		if m.Directions() == 2 {
			t.Skip("the reverse direction needs the whole sequence")
		}
		const B, T = 3, 7
		x := normal(1, B*T*width)
		tape := tensor.NewTape(slab.Device(), tensor.Infer)
		y, final := m.Forward(tape.Input(x, B, T, width), nil)
		var state *nn.State
		for i := range T {
			step := tensor.Slice(tape.Input(x, B, T, width), 1, i, i+1)
			var yi *tensor.Tensor
			yi, state = m.Forward(step, state)
			sameBits(t, fmt.Sprintf("output of step %d", i), yi.Data(), tensor.Slice(y, 1, i, i+1).Data())
		}
		sameBits(t, "final h", state.H.Data(), final.H.Data())
		if final.C != nil {
			sameBits(t, "final c", state.C.Data(), final.C.Data())
		}
	})
}

// Ragged rows, in any order, padded with poison, behave as each row alone, trimmed.
func TestRaggedEqualsTrimmed(t *testing.T) {
	eachStack(t, func(t *testing.T, s stack, m *nn.RNN, slab *tensor.Slab) {
		if s.random {
			t.Skip("masks differ from row to row")
		}
		const B, T = 5, 6
		lengths := []int32{3, 6, 0, 1, 6}
		slots := m.Layers() * m.Directions()
		F := m.OutputSize()
		x, proj := normal(1, B*T*width), normal(3, B*T*F)
		h, c := initial(m, B)
		for b, n := range lengths {
			for i := (b*T + int(n)) * width; i < (b+1)*T*width; i++ {
				x[i] = float32(math.NaN())
			}
		}
		all := run(m, slab, x, lengths, B, T, h, c, proj)
		sum := make([][]float32, len(all.weights))
		for b, n32 := range lengths {
			n := int(n32)
			for _, v := range all.y[(b*T+n)*F : (b+1)*T*F] {
				if v != 0 {
					t.Fatalf("row %d has the output %v past its end", b, v)
				}
			}
			for _, v := range all.dx[(b*T+n)*width : (b+1)*T*width] {
				if v != 0 {
					t.Fatalf("row %d has the gradient %v past its end", b, v)
				}
			}
			one := run(m, slab, x[b*T*width:(b*T+n)*width], nil, 1, n, rows(h, slots, B, []int{b}), rows(c, slots, B, []int{b}), proj[b*T*F:(b*T+n)*F])
			sameBits(t, fmt.Sprintf("row %d output", b), one.y, all.y[b*T*F:(b*T+n)*F])
			sameBits(t, fmt.Sprintf("row %d input gradient", b), one.dx, all.dx[b*T*width:(b*T+n)*width])
			sameBits(t, fmt.Sprintf("row %d final h", b), one.h, rows(all.h, slots, B, []int{b}))
			sameBits(t, fmt.Sprintf("row %d initial gradient", b), one.dh0, rows(all.dh0, slots, B, []int{b}))
			for i, w := range one.weights {
				if sum[i] == nil {
					sum[i] = make([]float32, len(w))
				}
				for j := range w {
					sum[i][j] += w[j]
				}
			}
		}
		for i := range sum { // sums over rows are made in another order here
			near(t, "gradient of "+slab.Params[i].Name, all.weights[i], sum[i], 1e-4)
		}
	})
}

// The reverse direction of a bidirectional layer is the forward direction with
// the same weights on reversed sequences.
func TestReverseIsForwardOnReversed(t *testing.T) {
	eachStack(t, func(t *testing.T, s stack, m *nn.RNN, slab *tensor.Slab) {
		if m.Directions() != 2 || m.Layers() != 1 {
			t.Skip("one layer in both directions")
		}
		const B, T = 3, 5
		half := len(slab.Params) / 2
		for i := range half {
			slab.Params[half+i].Write(slab.Params[i].Read())
		}
		lengths := []int32{5, 2, 4}
		x := normal(1, B*T*width)
		flipped := slices.Clone(x)
		flip := func(v []float32, n int) []float32 { // each row's true steps in reverse
			out := slices.Clone(v)
			for b, L := range lengths {
				for i := range int(L) {
					copy(out[(b*T+i)*n:(b*T+i+1)*n], v[(b*T+int(L)-1-i)*n:])
				}
			}
			return out
		}
		flipped = flip(flipped, width)
		tape := tensor.NewTape(slab.Device(), tensor.Infer)
		y, _ := m.Forward(tape.Sequences(x, lengths, B, T, width), nil)
		z, _ := m.Forward(tape.Sequences(flipped, lengths, B, T, width), nil)
		out := m.StateSize()
		forward := tensor.Slice(y, 2, 0, out).Data()
		reverse := tensor.Slice(z, 2, out, 2*out).Data()
		sameBits(t, "output", flip(reverse, out), forward)
	})
}

func TestBatchOrderChangesNoRow(t *testing.T) {
	eachStack(t, func(t *testing.T, s stack, m *nn.RNN, slab *tensor.Slab) {
		if s.random {
			t.Skip("masks differ from row to row")
		}
		const B, T = 4, 5
		slots := m.Layers() * m.Directions()
		perm := []int{2, 0, 3, 1}
		lengths := []int32{4, 5, 2, 5}
		x, proj := normal(1, B*T*width), normal(3, B*T*m.OutputSize())
		h, c := initial(m, B)
		var lp []int32
		for _, b := range perm {
			lp = append(lp, lengths[b])
		}
		a := run(m, slab, x, lengths, B, T, h, c, proj)
		b := run(m, slab, rows(x, 1, B, perm), lp, B, T, rows(h, slots, B, perm), rows(c, slots, B, perm), rows(proj, 1, B, perm))
		sameBits(t, "output", rows(a.y, 1, B, perm), b.y)
		sameBits(t, "state", rows(a.h, slots, B, perm), b.h)
		sameBits(t, "gradient", rows(a.dx, 1, B, perm), b.dx)
	})
}

// Threads change no bit, whether the engine splits rows or columns.
func TestThreadsChangeNoBit(t *testing.T) {
	defer par.SetWorkers(0)
	for name, m := range map[string]*nn.RNN{
		"lstm":        nn.NewLSTM(width, 300, &nn.RNNOptions{Bidirectional: true}),
		"lstm pinned": nn.NewLSTM(width, 320, &nn.RNNOptions{Bidirectional: true}), // a core owns units where rows do not go round
		"gru before":  nn.NewGRU(width, 300, &nn.RNNOptions{ResetBefore: true, RecurrentDropout: 0.2}),
		"everything":  nn.NewLSTM(width, 300, &nn.RNNOptions{Proj: 250, LayerNorm: true, Peephole: true, Zoneout: 0.1, RecurrentDropout: 0.1}),
	} {
		t.Run("columns "+name, func(t *testing.T) { columnsChangeNoBit(t, m) })
	}
	for _, s := range stacks() {
		t.Run(s.name, func(t *testing.T) {
			m := s.make()
			slab := tensor.Pack(tensor.CPU(), m, 1)
			const B, T = 33, 40
			x, proj := normal(1, B*T*width), normal(3, B*T*m.OutputSize())
			h, c := initial(m, B)
			var first result
			for i, workers := range []int{1, 2, 7} {
				par.SetWorkers(workers)
				r := run(m, slab, x, nil, B, T, h, c, proj)
				if i == 0 {
					first = r
					continue
				}
				sameBits(t, "output", r.y, first.y)
				sameBits(t, "input gradient", r.dx, first.dx)
				for k := range r.weights {
					sameBits(t, slab.Params[k].Name, r.weights[k], first.weights[k])
				}
			}
		})
	}
}

// columnsChangeNoBit has few enough rows and a large enough R to be split by columns.
func columnsChangeNoBit(t *testing.T, m *nn.RNN) {
	slab := tensor.Pack(tensor.CPU(), m, 1)
	const T = 40 // several gangs to a chunk, several chunks at B=5 rows
	for _, B := range []int{1, 5} {
		pass := func(workers int) (y []float32, grads [][]float32) {
			par.SetWorkers(workers)
			slab.ZeroGrad()
			tape := tensor.NewTape(tensor.CPU(), tensor.Train)
			out, final := m.Forward(tape.Input(normal(1, B*T*width), B, T, width), nil)
			tensor.Add(tensor.SumAll(tensor.Square(out)), tensor.SumAll(final.H)).Backward()
			for _, p := range slab.Params {
				grads = append(grads, p.Grad())
			}
			return out.Data(), grads
		}
		y1, g1 := pass(1)
		for _, workers := range []int{2, 3} {
			y2, g2 := pass(workers)
			sameBits(t, "output", y2, y1)
			for k := range g1 {
				sameBits(t, slab.Params[k].Name, g2[k], g1[k])
			}
		}
	}
}

// Whether W·x comes step by step with R·h or for many steps before it changes no
// bit, nor do rows that end early, in training and in inference.
func TestLocalGatesChangeNoBit(t *testing.T) {
	defer par.SetWorkers(0)
	const B, T, H = 16, 9, 64 // few enough threads have rows enough, and H fills panels
	lengths := []int32{T, T, 1, 0, 5, 5, T, 8, 3, 2, T, 1, 4, T, 6, 2}
	x := normal(1, B*T*width)
	for name, m := range map[string]*nn.RNN{
		"lstm":        nn.NewLSTM(width, H, &nn.RNNOptions{Bidirectional: true}),
		"gru":         nn.NewGRU(width, H, &nn.RNNOptions{Bidirectional: true}),
		"gru before":  nn.NewGRU(width, H, &nn.RNNOptions{ResetBefore: true}),
		"tanh":        nn.NewRNN(width, H, nil),
		"projection":  nn.NewLSTM(width, H, &nn.RNNOptions{Proj: 40, Layers: 2}),
		"peephole":    nn.NewLSTM(width, H, &nn.RNNOptions{Peephole: true}),
		"layer norm":  nn.NewGRU(width, H, &nn.RNNOptions{LayerNorm: true}),
		"two layers":  nn.NewGRU(width, H, &nn.RNNOptions{Layers: 2}),
		"custom cell": newForgetful(width, H, nil),
	} {
		t.Run(name, func(t *testing.T) {
			slab := tensor.Pack(tensor.CPU(), m, 1)
			h, c := initial(m, B)
			proj := normal(3, B*T*m.OutputSize())
			infer := func() []float32 {
				y, final := m.Forward(tensor.NewTape(tensor.CPU(), tensor.Infer).Sequences(x, lengths, B, T, width), nil)
				return slices.Concat(y.Data(), final.H.Data())
			}
			var first result
			var inferred []float32
			for i, workers := range []int{7, 1, 2} { // the first too many for local gates
				par.SetWorkers(workers)
				r, y := run(m, slab, x, lengths, B, T, h, c, proj), infer()
				if i == 0 {
					first, inferred = r, y
					continue
				}
				sameBits(t, "inference", y, inferred)
				sameBits(t, "output", r.y, first.y)
				sameBits(t, "state", r.h, first.h)
				sameBits(t, "input gradient", r.dx, first.dx)
				for k := range r.weights {
					sameBits(t, slab.Params[k].Name, r.weights[k], first.weights[k])
				}
			}
		})
	}
}

// Networks of any size and batches of any shape: the fast kernels agree with the
// reference, and threads change no bit.
func TestOddShapes(t *testing.T) {
	defer par.SetWorkers(0)
	r := rand.New(rand.NewPCG(31, 32))
	shapes := 40
	if testing.Short() {
		shapes = 10
	}
	for range shapes {
		B, T, in, H := 1+r.IntN(70), 1+r.IntN(12), 1+r.IntN(90), 1+r.IntN(130)
		if r.IntN(3) == 0 {
			H = (H + 31) / 32 * 32
		}
		o := nn.RNNOptions{Bidirectional: r.IntN(2) == 0, Layers: 1 + r.IntN(2)}
		cell := r.IntN(3)
		name := fmt.Sprintf("cell=%d B=%d T=%d I=%d H=%d layers=%d both=%v", cell, B, T, in, H, o.Layers, o.Bidirectional)
		lengths := make([]int32, B)
		for i := range lengths {
			if lengths[i] = int32(T); r.IntN(2) == 0 {
				lengths[i] = int32(r.IntN(T + 1))
			}
		}
		x := normal(r.Uint64(), B*T*in)
		pass := func(kernels string, workers int) []float32 {
			par.SetWorkers(workers)
			m := []maker{nn.NewLSTM, nn.NewGRU, nn.NewRNN}[cell](in, H, &o)
			dev := tensortest.CPUWith(kernels)
			slab := tensor.Pack(dev, m, 1)
			tape := tensor.NewTape(dev, tensor.Train)
			y, final := m.Forward(tape.Sequences(x, lengths, B, T, in), nil)
			tensor.Add(tensor.SumAll(tensor.Square(y)), tensor.SumAll(final.H)).Backward()
			infer, _ := m.Forward(tensor.NewTape(dev, tensor.Infer).Sequences(x, lengths, B, T, in), nil)
			sameBits(t, name+": inference", infer.Data(), y.Data())
			all := slices.Clone(y.Data())
			for _, p := range slab.Params {
				all = append(all, p.Grad()...)
			}
			return all
		}
		best := tensortest.Kernels()[0]
		one := pass(best, 1)
		sameBits(t, name+": two threads", pass(best, 2), one)
		sameBits(t, name+": three threads", pass(best, 3), one)
		near(t, name+": the reference", one, pass("generic", 2), 1e-4)
		if t.Failed() {
			return
		}
	}
}

// A cell without R is shared out by units where rows are few: no bit depends on
// the threads, and one pass over time is still its single steps.
func TestUnitsChangeNoBit(t *testing.T) {
	defer par.SetWorkers(0)
	const B, T, H, N = 3, 300, 100, 40 // several blocks of units, the last not full
	lengths := []int32{T, 0, N}
	x := normal(1, B*T*width)
	for name, m := range map[string]*nn.RNN{
		"mingru":          nn.NewMinGRU(width, H, nil),
		"mingru, both":    nn.NewMinGRU(width, H, &nn.RNNOptions{Bidirectional: true}),
		"minlstm":         nn.NewMinLSTM(width, H, nil),
		"mingru, zoneout": nn.NewMinGRU(width, H, &nn.RNNOptions{Zoneout: 0.1}), // by rows
	} {
		t.Run(name, func(t *testing.T) {
			slab := tensor.Pack(tensor.CPU(), m, 1)
			h, _ := initial(m, B)
			proj := normal(3, B*T*m.OutputSize())
			var first result
			for i, workers := range []int{1, 2, 7} {
				par.SetWorkers(workers)
				r := run(m, slab, x, lengths, B, T, h, nil, proj)
				if i == 0 {
					first = r
					continue
				}
				sameBits(t, "output", r.y, first.y)
				sameBits(t, "state", r.h, first.h)
				sameBits(t, "input gradient", r.dx, first.dx)
				sameBits(t, "gradient of the initial state", r.dh0, first.dh0)
				for k := range r.weights {
					sameBits(t, slab.Params[k].Name, r.weights[k], first.weights[k])
				}
			}
			if m.Directions() == 2 {
				return // the reverse direction needs the whole sequence
			}
			tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
			whole, _ := m.Forward(tape.Input(x[:N*width], 1, N, width), nil)
			var state *nn.State
			for i := range N {
				var y *tensor.Tensor
				y, state = m.Forward(tape.Input(x[i*width:(i+1)*width], 1, 1, width), state)
				sameBits(t, fmt.Sprintf("step %d", i), y.Data(), tensor.Slice(whole, 1, i, i+1).Data())
			}
		})
	}
}

// A pass that keeps nothing, in chunks of time, equals one that trains.
func TestInferenceEqualsTraining(t *testing.T) {
	for _, s := range stacks() {
		t.Run(s.name, func(t *testing.T) {
			if s.random {
				t.Skip("training draws, inference does not")
			}
			m := s.make()
			slab := tensor.Pack(tensor.CPU(), m, 1)
			const B, T = 2, 4000 // several chunks
			lengths := []int32{4000, 3001}
			x := normal(1, B*T*width)
			train, infer := tensor.NewTape(tensor.CPU(), tensor.Train), tensor.NewTape(tensor.CPU(), tensor.Infer)
			y, fy := m.Forward(train.Sequences(x, lengths, B, T, width), nil)
			z, fz := m.Forward(infer.Sequences(x, lengths, B, T, width), nil)
			sameBits(t, "output", z.Data(), y.Data())
			sameBits(t, "state", fz.H.Data(), fy.H.Data())
			_ = slab
		})
	}
}

// The device keeps panels of weights at rest, and must notice every change: a
// network with a past answers as one that has just been given its weights.
func TestPassesSeeNewWeights(t *testing.T) {
	x := normal(1, 3*4*width)
	build := func() (*Net, *tensor.Slab) {
		net := &Net{nn.NewLSTM(width, hidden, &nn.RNNOptions{Layers: 2}), nn.NewLinear(hidden, 2, nil)}
		return net, tensor.Pack(tensor.CPU(), net, 1)
	}
	predict := func(net *Net) []float32 {
		tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
		return net.Forward(tape.Input(x, 3, 4, width)).Data()
	}
	train := func(net *Net, slab *tensor.Slab) (y, gradients []float32) {
		slab.ZeroGrad()
		tape := tensor.NewTape(tensor.CPU(), tensor.Train)
		out := net.Forward(tape.Input(x, 3, 4, width))
		tensor.SumAll(tensor.Square(out)).Backward()
		gradients = make([]float32, slab.Grads().N)
		slab.Device().Backend().Download(gradients, slab.Grads())
		return out.Data(), gradients
	}
	net, slab := build()
	opt := optim.NewSGD(slab, nil)
	average := optim.NewEMA(slab, 0.5)
	before := predict(net)
	train(net, slab)
	changes := []struct {
		name   string
		change func()
	}{
		{"an optimizer's step", func() {
			opt.Step(0.1)
			average.Update()
		}},
		{"a write", func() { slab.Params[1].Write(normal(2, slab.Params[1].Len())) }},
		{"an exchange with the average", func() { average.Swap() }},
	}
	for _, c := range changes {
		c.change()
		fresh, other := build()
		for i, p := range other.Params {
			p.Write(slab.Params[i].Read())
		}
		now := predict(net)
		if slices.Equal(now, before) {
			t.Errorf("after %s the prediction is the old one", c.name)
		}
		sameBits(t, "predicting after "+c.name, now, predict(fresh))
		y, g := train(net, slab)
		wantY, wantG := train(fresh, other)
		sameBits(t, "training after "+c.name, y, wantY)
		sameBits(t, "gradients after "+c.name, g, wantG)
		before = now
	}
}

func TestRNNGradients(t *testing.T) {
	for _, s := range stacks() {
		t.Run(s.name, func(t *testing.T) {
			m := s.make()
			if strings.HasPrefix(s.name, "relu") || strings.HasPrefix(s.name, "clips") {
				t.Skip("differences across a kink say nothing")
			}
			slab := tensor.Pack(tensor.CPU(), m, 1)
			const B, T = 3, 4
			x, proj := normal(1, B*T*width), normal(3, B*T*m.OutputSize())
			tensortest.CheckGrad(t, slab, func(tape *tensor.Tape) *tensor.Tensor {
				y, final := m.Forward(tape.Sequences(x, []int32{2, 4, 3}, B, T, width), nil)
				loss := tensor.SumAll(tensor.Mul(y, tape.Input(proj, B, T, m.OutputSize())))
				loss = tensor.Add(loss, tensor.SumAll(tensor.Square(final.H)))
				return tensor.MulScalar(loss, 0.25) // keeps its rounding below the tolerance
			})
		})
	}
}

func TestTrainingStepAllocatesNothing(t *testing.T) {
	par.SetWorkers(2)
	defer par.SetWorkers(0)
	for _, s := range stacks() {
		t.Run(s.name, func(t *testing.T) {
			m := s.make()
			slab := tensor.Pack(tensor.CPU(), m, 1)
			const B, T = 24, 16
			x, target := normal(1, B*T*width), normal(2, B*m.OutputSize())
			lengths := make([]int32, B)
			for i := range lengths {
				lengths[i] = int32(i * 7 % (T + 1))
			}
			tape := tensor.NewTape(tensor.CPU(), tensor.Train)
			step := func() {
				tape.Reset()
				y, _ := m.Forward(tape.Sequences(x, lengths, B, T, width), nil)
				loss := tensor.MSE(tensor.Dropout(tensor.MeanPool(y), 0.2), tape.Input(target, B, m.OutputSize()), nil)
				loss.Backward()
				loss.Item()
				slab.MutableValues() // cached packed weights are packed again, in the same memory
			}
			// The first steps fill the workspaces, until every worker has met every
			// one; then there must be steps in a row that allocate nothing. Not
			// testing.AllocsPerRun, which runs on one processor: there the two workers
			// would wait for each other.
			fewest := uint64(math.MaxUint64)
			for range 8 {
				if fewest = min(fewest, mallocs(step, 10)); fewest < 10 {
					return
				}
			}
			t.Fatalf("at least %d allocations in 10 steps, want 0 a step", fewest)
		})
	}
}

// mallocs is how many heap objects the process made during some runs of f.
func mallocs(f func(), runs int) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

func TestForgetBiasIsOneInTheSum(t *testing.T) {
	m := nn.NewLSTM(3, 4, &nn.RNNOptions{ForgetBias: 1})
	tensor.Pack(tensor.CPU(), m, 1)
	ih, hh := m.Weights[2].Read(), m.Weights[3].Read()
	for i := range 16 {
		sum := ih[i] + hh[i]
		if forget := i >= 4 && i < 8; forget && sum != 1 {
			t.Errorf("forget bias %d is %v in the sum, want 1", i, sum)
		} else if !forget && (ih[i] == 0 || hh[i] == 0) {
			t.Errorf("bias %d of another gate is zero", i)
		}
	}
}

// With no input and no state a unit's gate keeps 1 - 1/(1+u), u between 1 and Chrono-1.
func TestChrono(t *testing.T) {
	const H, most = 500, 100
	logistic := func(x float32) float64 { return 1 / (1 + math.Exp(-float64(x))) }
	for name, c := range map[string]struct {
		m          *nn.RNN
		keep, take int
	}{
		"lstm":    {nn.NewLSTM(1, H, &nn.RNNOptions{Chrono: most}), 1, 0},
		"coupled": {nn.NewLSTM(1, H, &nn.RNNOptions{Chrono: most, Coupled: true}), -1, 0},
		"gru":     {nn.NewGRU(1, H, &nn.RNNOptions{Chrono: most}), 1, -1},
		"mingru":  {nn.NewMinGRU(1, H, &nn.RNNOptions{Chrono: most}), -1, 0},
	} {
		slab := tensor.Pack(tensor.CPU(), c.m, 1)
		bias := slab.Lookup("bias_ih_l0").Read()
		if p := slab.Lookup("bias_hh_l0"); p != nil {
			for i, v := range p.Read() {
				bias[i] += v
			}
		}
		mean, least, longest := 0.0, math.Inf(1), 0.0
		for j := range H {
			keep := 1 - logistic(bias[max(c.take, 0)*H+j])
			if c.keep >= 0 {
				keep = logistic(bias[c.keep*H+j])
			}
			if c.keep >= 0 && c.take >= 0 && bias[c.keep*H+j] != -bias[c.take*H+j] {
				t.Errorf("%s: unit %d opens one gate and does not close the other as far", name, j)
			}
			memory := 1 / (1 - keep)
			mean, least, longest = mean+memory/H, min(least, memory), max(longest, memory)
		}
		if least < 2-1e-3 || longest > most+1e-1 || math.Abs(mean-(most+2)/2) > 4 {
			t.Errorf("%s: memories from %v to %v with a mean of %v, want 2 to %d with %d", name, least, longest, mean, most, (most+2)/2)
		}
	}
}

func TestOrthogonal(t *testing.T) {
	m := nn.NewGRU(7, 6, &nn.RNNOptions{Orthogonal: true})
	tensor.Pack(tensor.CPU(), m, 1)
	w := m.Weights[1].Read() // [18,6]
	for g := range 3 {
		for i := range 6 {
			for j := range 6 {
				dot := 0.0
				for k := range 6 {
					dot += float64(w[(g*6+i)*6+k]) * float64(w[(g*6+j)*6+k])
				}
				if want := map[bool]float64{true: 1}[i == j]; math.Abs(dot-want) > 1e-6 {
					t.Fatalf("gate %d rows %d and %d have the product %v, want %v", g, i, j, dot, want)
				}
			}
		}
	}
}

func TestNamesArePyTorchs(t *testing.T) {
	net := &struct {
		RNN  *nn.RNN
		Tags []*nn.Linear
		Norm *nn.LayerNorm
	}{nn.NewGRU(2, 3, &nn.RNNOptions{Layers: 2, Bidirectional: true}), []*nn.Linear{nn.NewLinear(6, 2, nil)}, nn.NewLayerNorm(2)}
	var names []string
	for _, p := range tensor.Pack(tensor.CPU(), net, 1).Params {
		names = append(names, fmt.Sprint(p.Name, p.Dims()))
	}
	want := []string{
		"rnn.weight_ih_l0[9 2]", "rnn.weight_hh_l0[9 3]", "rnn.bias_ih_l0[9]", "rnn.bias_hh_l0[9]",
		"rnn.weight_ih_l0_reverse[9 2]", "rnn.weight_hh_l0_reverse[9 3]", "rnn.bias_ih_l0_reverse[9]", "rnn.bias_hh_l0_reverse[9]",
		"rnn.weight_ih_l1[9 6]", "rnn.weight_hh_l1[9 3]", "rnn.bias_ih_l1[9]", "rnn.bias_hh_l1[9]",
		"rnn.weight_ih_l1_reverse[9 6]", "rnn.weight_hh_l1_reverse[9 3]", "rnn.bias_ih_l1_reverse[9]", "rnn.bias_hh_l1_reverse[9]",
		"tags.0.weight[2 6]", "tags.0.bias[2]", "norm.weight[2]", "norm.bias[2]",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got  %v\nwant %v", names, want)
	}
}

func TestAttention(t *testing.T) {
	for kind, a := range map[string]*nn.Attention{
		"dot": nn.NewAttention(nn.Dot, 4, 4, 0), "general": nn.NewAttention(nn.General, 3, 4, 0), "additive": nn.NewAttention(nn.Additive, 3, 4, 5),
	} {
		t.Run(kind, func(t *testing.T) {
			query := 3
			if kind == "dot" {
				query = 4
			}
			m := &struct {
				Attention *nn.Attention
				Query     *nn.Linear
				Keys      *nn.Linear
			}{a, nn.NewLinear(2, query, nil), nn.NewLinear(2, 4, nil)}
			slab := tensor.Pack(tensor.CPU(), m, 1)
			q, k := normal(1, 2*3*2), normal(2, 2*5*2)
			lengths := []int32{3, 0}
			loss := func(tape *tensor.Tape) *tensor.Tensor {
				keys := m.Keys.Forward(tape.Sequences(k, lengths, 2, 5, 2))
				c, w := a.Forward(m.Query.Forward(tape.Input(q, 2, 3, 2)), keys)
				weights := w.Data()
				for i, v := range weights {
					row, step := i/15, i%5
					if step >= int(lengths[row]) && v != 0 {
						t.Fatalf("weight %v past the length of row %d", v, row)
					}
				}
				for i := range 3 {
					if s := weights[i*5] + weights[i*5+1] + weights[i*5+2]; math.Abs(float64(s)-1) > 1e-5 {
						t.Fatalf("the weights of query %d sum to %v, want 1", i, s)
					}
				}
				return tensor.SumAll(tensor.Square(c))
			}
			tensortest.CheckGrad(t, slab, loss)
		})
	}
}
