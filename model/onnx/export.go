package onnx

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// ExportOptions are the options of [Export]; nil is a graph from x to y.
type ExportOptions struct {
	State    bool // inputs h0 (and c0) and outputs hn (and cn), [layers*directions,batch,..]
	Standard bool // the standard's operators alone, also for an LSTM with weights in tensor.Int8
	Lengths  bool // an input lengths, int32 [batch]: each row's true steps. Not with PoolLast in two directions
}

// Export writes s as an ONNX file, after running that graph and s on the same
// random input and comparing the outputs. The graph's input is x, float32
// [batch,time,input], or with an embedding ids, int64 [batch,time]; its output is
// y: [batch,time,features] or, pooled, [batch,features]. batch and time may vary.
// The recurrent layers are written by [AddRNN]. The parameters of s must have
// been packed.
//
// A stack without recurrent layers, a pool that does not fit the options, the
// errors of [AddRNN], and a difference above [graph.Tolerance] are errors, as are
// those of writing the file; a cancelled ctx returns its error. In all cases no
// file is written.
func Export(ctx context.Context, path string, s *Stack, o *ExportOptions) (*graph.Parity, error) {
	if o == nil {
		o = &ExportOptions{}
	}
	g, err := s.graph(o)
	if err != nil {
		return nil, err
	}
	in, lengths := s.sample(o)
	want, err := s.values(in, lengths)
	if err != nil {
		return nil, err
	}
	return g.Export(ctx, path, in, want)
}

// graph returns the stack as a graph.
func (s *Stack) graph(o *ExportOptions) (*graph.Builder, error) {
	m, pool := s.RNN, s.pool()
	if m == nil || len(m.Weights) == 0 {
		return nil, fmt.Errorf("onnx: the stack has no recurrent layers")
	}
	if o.Lengths && pool == PoolLast {
		if m.Directions() == 2 {
			return nil, fmt.Errorf("onnx: pool last of two directions is not supported with lengths: use final")
		}
		pool = PoolFinal // the same of one direction, at each row's true end
	}
	if m.Options().Residual && pool == PoolFinal {
		return nil, fmt.Errorf("onnx: pool final is not supported with residual connections: use last")
	}
	g := &graph.Builder{Standard: o.Standard}
	in := RNNValues{X: "x"}
	if s.Embedding != nil {
		g.InputInts("ids", "token ids", "batch", "time")
		table := s.Embedding.Weight
		in.X = g.Op("Gather", []string{g.Weights("embedding.weight", table.Read(), table.Rest(), 0, 1, table.Dims()...), "ids"})
	} else {
		g.Input("x", "features", "batch", "time", m.InputSize())
	}
	in.X = g.Op("Transpose", []string{in.X}, attr("perm", []int64{1, 0, 2}))
	if o.Lengths {
		g.InputOf(graph.Int32, "lengths", "true steps of each row", "batch")
		in.Lengths = "lengths"
	}
	if o.State {
		in.H, in.C = s.stateInputs(g)
	}
	out, err := AddRNN(g, "rnn", m, in)
	if err != nil {
		return nil, err
	}
	if o.State {
		s.stateOutputs(g, out)
	}
	s.head(g, pool, out)
	return g, nil
}

// Model returns the stack as the graph that [Export] writes, ready to run; path is for
// messages. The errors are those of Export, but nothing is compared or written.
func (s *Stack) Model(path string, o *ExportOptions) (*graph.Model, error) {
	if o == nil {
		o = &ExportOptions{}
	}
	g, err := s.graph(o)
	if err != nil {
		return nil, err
	}
	return g.Model(path)
}

func (s *Stack) slots() int { return s.RNN.Layers() * s.RNN.Directions() }

func (s *Stack) stateInputs(g *graph.Builder) (h, c string) {
	g.Input("h0", "initial states", s.slots(), "batch", s.RNN.StateSize())
	if s.RNN.CellSize() == 0 {
		return "h0", ""
	}
	g.Input("c0", "initial cell states", s.slots(), "batch", s.RNN.CellSize())
	return "h0", "c0"
}

func (s *Stack) stateOutputs(g *graph.Builder, out RNNValues) {
	g.Node("Identity", []string{out.H}, []string{"hn"})
	g.Output("hn", "final states", s.slots(), "batch", s.RNN.StateSize())
	if out.C != "" {
		g.Node("Identity", []string{out.C}, []string{"cn"})
		g.Output("cn", "final cell states", s.slots(), "batch", s.RNN.CellSize())
	}
}

// head pools the output [time,batch,features] and adds the linear layer.
func (s *Stack) head(g *graph.Builder, pool Pool, out RNNValues) {
	features := s.RNN.OutputSize()
	var y string
	lead := []any{"batch"}
	switch pool {
	case PoolLast:
		y = g.Op("Gather", []string{out.Y, g.Int(-1)}, attr("axis", 0))
	case PoolFinal:
		D, slots := s.RNN.Directions(), s.slots()
		top := out.H
		if slots > D {
			top = g.Op("Slice", []string{out.H, g.Ints("", int64(slots-D)), g.Ints("", int64(slots)), g.Ints("", 0)})
		}
		top = g.Op("Transpose", []string{top}, attr("perm", []int64{1, 0, 2}))
		y = g.Op("Reshape", []string{top, g.Ints("", 0, -1)})
	default:
		lead = append(lead, "time")
		y = g.Op("Transpose", []string{out.Y}, attr("perm", []int64{1, 0, 2}))
	}
	if s.Head != nil {
		y, features = AddLinear(g, "head", s.Head, y), s.Head.Weight.Dim(0)
	}
	g.Node("Identity", []string{y}, []string{"y"})
	g.Output("y", "", append(lead, features)...)
}

func (s *Stack) pool() Pool {
	if s.Pool == "" {
		return PoolSteps
	}
	return s.Pool
}

// sample returns random input for the stack's graph.
func (s *Stack) sample(o *ExportOptions) (in map[string]graph.Value, lengths []int32) {
	const B, T = 3, 5
	r := rand.New(rand.NewPCG(1, 0))
	in = map[string]graph.Value{}
	if s.Embedding != nil {
		in["ids"] = graph.RandomInts(r, s.Embedding.Weight.Dim(0), B, T)
	} else {
		in["x"] = graph.RandomFloats(r, B, T, s.RNN.InputSize())
	}
	if o.State {
		h, c := States(s.RNN, B, 2)
		if in["h0"] = h; c.Data != nil {
			in["c0"] = c
		}
	}
	if o.Lengths {
		lengths = []int32{4, 5, 1}
		in["lengths"] = graph.Ints([]int64{4, 5, 1}, B)
	}
	return in, lengths
}

// values runs s on the inputs of an exported graph.
func (s *Stack) values(in map[string]graph.Value, lengths []int32) (map[string][]float32, error) {
	out := map[string][]float32{}
	err := tensor.Catch(func() {
		tape := tensor.NewTape(s.RNN.Weights[0].Device(), tensor.Infer)
		var x *tensor.Tensor
		switch ids, ok := in["ids"]; {
		case ok:
			small := make([]int32, len(ids.Ints))
			for i, id := range ids.Ints {
				small[i] = int32(id)
			}
			x = s.Embedding.Forward(tape.IDs(small, lengths, ids.Dims...))
		case lengths != nil:
			v := in["x"]
			x = tape.Sequences(v.Data, lengths, v.Dims[0], v.Dims[1], v.Dims[2])
		default:
			x = tape.Input(in["x"].Data, in["x"].Dims...)
		}
		var init *nn.State // zeros, or trained
		if v, ok := in["h0"]; ok {
			init = &nn.State{H: tape.Input(v.Data, v.Dims...)}
		}
		if v, ok := in["c0"]; ok {
			init.C = tape.Input(v.Data, v.Dims...)
		}
		y, final := s.Forward(x, init)
		out["y"] = y.Data()
		if init == nil {
			return
		}
		if out["hn"] = final.H.Data(); init.C != nil {
			out["cn"] = final.C.Data()
		}
	})
	return out, err
}

// States returns random states of a stack for rows rows: h
// [layers*directions,rows,..], and c if the cell has it.
func States(m *nn.RNN, rows int, seed uint64) (h, c graph.Value) {
	r := rand.New(rand.NewPCG(seed, 0))
	slots := m.Layers() * m.Directions()
	h = graph.RandomFloats(r, slots, rows, m.StateSize())
	if m.CellSize() == 0 {
		return h, c
	}
	c = graph.RandomFloats(r, slots, rows, m.CellSize())
	for i, v := range c.Data {
		if m.Cell().Spec().MustBePositive(i / m.Hidden()) {
			c.Data[i] = 0.5 + v*v
		}
	}
	return h, c
}
