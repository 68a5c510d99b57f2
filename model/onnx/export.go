package onnx

import (
	"fmt"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// ExportOptions changes what [Export] writes; nil is a graph from x to y.
type ExportOptions struct {
	State   bool // inputs h0 (and c0) and outputs hn (and cn), [layers*directions,batch,..]
	Lengths bool // an input lengths, int32 [batch]: each row's true steps. Not with PoolLast in two directions
}

// Export writes s as an ONNX file and then runs that file against s on random
// input; a difference past [Tolerance] is an error. The graph's input is x,
// float32 [batch,time,input], or with an embedding ids, int64 [batch,time]; its
// output is y: [batch,time,features] or, pooled, [batch,features]. batch and
// time may vary. [Graph.RNN] says how the recurrent layers are written. The
// parameters of s must have been packed.
func Export(path string, s *Stack, o *ExportOptions) (*Parity, error) {
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
	return g.Export(path, in, want)
}

// graph is the stack as a graph.
func (s *Stack) graph(o *ExportOptions) (*Graph, error) {
	m, pool := s.RNN, s.pool()
	if m == nil || len(m.Weights) == 0 {
		return nil, fmt.Errorf("onnx: the stack has no recurrent layers")
	}
	if o.Lengths && pool == PoolLast {
		if m.Directions() == 2 {
			return nil, fmt.Errorf("onnx: pool last of two directions does not go with lengths: use final")
		}
		pool = PoolFinal // the same of one direction, at each row's true end
	}
	if m.Options().Residual && pool == PoolFinal {
		return nil, fmt.Errorf("onnx: pool final of a stack with residual connections is not its last output: use last")
	}
	g := &Graph{}
	in := RNNValues{X: "x"}
	if s.Embedding != nil {
		g.InputInts("ids", "token ids", "batch", "time")
		table := s.Embedding.Weight
		in.X = g.Op("Gather", []string{g.Floats("embedding.weight", table.Read(), table.Dims()...), "ids"})
	} else {
		g.Input("x", "features", "batch", "time", m.InputSize())
	}
	in.X = g.Op("Transpose", []string{in.X}, Attr{"perm", []int64{1, 0, 2}})
	if o.Lengths {
		g.input("lengths", "true steps of each row", typeInt32, "batch")
		in.Lengths = "lengths"
	}
	if o.State {
		in.H, in.C = s.stateInputs(g)
	}
	out, err := g.RNN("rnn", m, in)
	if err != nil {
		return nil, err
	}
	if o.State {
		s.stateOutputs(g, out)
	}
	s.head(g, pool, out)
	return g, nil
}

func (s *Stack) slots() int { return s.RNN.Layers() * s.RNN.Directions() }

func (s *Stack) stateInputs(g *Graph) (h, c string) {
	g.Input("h0", "initial states", s.slots(), "batch", s.RNN.StateSize())
	if s.RNN.CellSize() == 0 {
		return "h0", ""
	}
	g.Input("c0", "initial cell states", s.slots(), "batch", s.RNN.CellSize())
	return "h0", "c0"
}

func (s *Stack) stateOutputs(g *Graph, out RNNValues) {
	g.Node("Identity", []string{out.H}, []string{"hn"})
	g.Output("hn", "final states", s.slots(), "batch", s.RNN.StateSize())
	if out.C != "" {
		g.Node("Identity", []string{out.C}, []string{"cn"})
		g.Output("cn", "final cell states", s.slots(), "batch", s.RNN.CellSize())
	}
}

// head pools the output [time,batch,features] and adds the linear layer.
func (s *Stack) head(g *Graph, pool Pool, out RNNValues) {
	features := s.RNN.OutputSize()
	var y string
	lead := []any{"batch"}
	switch pool {
	case PoolLast:
		y = g.Op("Gather", []string{out.Y, g.Int(-1)}, Attr{"axis", 0})
	case PoolFinal:
		D, slots := s.RNN.Directions(), s.slots()
		top := out.H
		if slots > D {
			top = g.Op("Slice", []string{out.H, g.Ints("", int64(slots-D)), g.Ints("", int64(slots)), g.Ints("", 0)})
		}
		top = g.Op("Transpose", []string{top}, Attr{"perm", []int64{1, 0, 2}})
		y = g.Op("Reshape", []string{top, g.Ints("", 0, -1)})
	default:
		lead = append(lead, "time")
		y = g.Op("Transpose", []string{out.Y}, Attr{"perm", []int64{1, 0, 2}})
	}
	if s.Head != nil {
		y, features = g.Linear("head", s.Head, y), s.Head.Weight.Dim(0)
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

// sample is random input for the stack's graph.
func (s *Stack) sample(o *ExportOptions) (in map[string]Value, lengths []int32) {
	const B, T = 3, 5
	r := newRandom(1)
	in = map[string]Value{}
	if s.Embedding != nil {
		in["ids"] = random(r, ints, []int{B, T}, s.Embedding.Weight.Dim(0))
	} else {
		in["x"] = random(r, floats, []int{B, T, s.RNN.InputSize()}, 0)
	}
	if o.State {
		h, c := States(s.RNN, B, 2)
		if in["h0"] = h; c.Data != nil {
			in["c0"] = c
		}
	}
	if o.Lengths {
		lengths = []int32{4, 5, 1}
		in["lengths"] = Ints([]int64{4, 5, 1}, B)
	}
	return in, lengths
}

// States are random ones that a stack may be in with rows rows: h, and c for
// cells that have it.
func States(m *nn.RNN, rows int, seed uint64) (h, c Value) {
	r := newRandom(seed)
	slots := m.Layers() * m.Directions()
	h = random(r, floats, []int{slots, rows, m.StateSize()}, 0)
	if m.CellSize() == 0 {
		return h, c
	}
	c = random(r, floats, []int{slots, rows, m.CellSize()}, 0)
	for i, v := range c.Data {
		if m.Cell() == tensor.SLSTMCell && i/m.Hidden()%3 == 1 { // its normaliser is positive
			c.Data[i] = 0.5 + v*v
		}
	}
	return h, c
}
