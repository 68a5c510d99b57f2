package onnx

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// Import reads a file whose graph is a plain stack: an embedding or features,
// LSTM, GRU or RNN layers of one kind and size, at most one linear layer, and
// what moves numbers between them. It returns the stack and its packed
// parameters, and compares it on random input with the graph itself and, where
// it is installed, with ONNX Runtime. A graph that does more is a
// *model.FileError that names the node; [Read] may still run it. All of it is on
// the device named, or else on the CPU.
func Import(path string, on ...*tensor.Device) (*Stack, *tensor.Slab, *Parity, error) {
	m, err := Read(path, on...)
	if err != nil {
		return nil, nil, nil, err
	}
	s, slab, in, p, err := m.stack()
	if err != nil {
		return nil, nil, nil, err
	}
	if rt := FindRuntime(); rt != nil {
		if err := p.second(rt, m, in); err != nil {
			return nil, nil, nil, err
		}
	}
	return s, slab, p, nil
}

// trial is the input on which a graph and a stack agreed, and the output they agreed on.
type trial struct {
	in     map[string]Value
	output string
	want   []float32
}

// second asks ONNX Runtime about the same input.
func (p *Parity) second(rt *Runtime, m *Model, t *trial) error {
	file, err := os.ReadFile(m.path)
	if err != nil {
		return err
	}
	got, err := rt.Run(file, m, t.in)
	if err != nil {
		return err
	}
	p.Runtime = rt.Version
	if p.MaxDiffRuntime, _, err = against(got, map[string][]float32{t.output: t.want}); err != nil {
		return m.badf("%s computes something else: %v", rt.Version, err)
	}
	return nil
}

// plumbing are operators that only move numbers, or work on shapes.
var plumbing = []string{"Identity", "Dropout", "Constant", "ConstantOfShape", "Shape", "Size", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
	"Transpose", "Expand", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Range", "Equal", "Where"}

// arithmetic is allowed on shapes; elsewhere the comparison of numbers shows it.
var arithmetic = []string{"Add", "Sub", "Mul", "Div"}

// parts are what a graph consists of, by kind.
type parts struct {
	m       *Model
	makers  []*node // by slot: the node that makes it, or nil
	layers  []*node
	table   *tensor.Param // of the embedding, or nil
	head    *linear
	bias    []float32 // of the head, added by a node of its own
	data    int       // slot of the input
	product int       // slot of the head's output
}

// stack finds the layers and proves them by numbers.
func (m *Model) stack() (*Stack, *tensor.Slab, *trial, *Parity, error) {
	f := &parts{m: m, makers: make([]*node, len(m.names)), product: -1}
	err := f.find()
	if err != nil {
		return nil, nil, nil, nil, err
	}
	c, err := f.config()
	if err != nil {
		return nil, nil, nil, nil, err
	}
	s, err := c.New()
	if err != nil {
		return nil, nil, nil, nil, m.badf("%v", err)
	}
	slab := tensor.Pack(m.dev, s, 0)
	f.fill(s)
	t, p, err := f.prove(s)
	return s, slab, t, p, err
}

func (f *parts) find() error {
	for _, n := range f.m.nodes {
		for _, slot := range n.out {
			if slot >= 0 {
				f.makers[slot] = n
			}
		}
		if err := f.sort(n); err != nil {
			return err
		}
	}
	if len(f.layers) == 0 {
		return f.m.badf("the graph has no LSTM, GRU or RNN node")
	}
	for i, n := range f.layers {
		if err := f.trace(i, n); err != nil {
			return err
		}
	}
	return nil
}

// sort puts a node where it belongs.
func (f *parts) sort(n *node) error {
	switch p := n.prepared.(type) {
	case *recurrent:
		if !p.plain || p.dirs == nil || p.backward {
			return f.more(n, "its options or weights are not those of a plain stack")
		}
		f.layers = append(f.layers, n)
		return nil
	case *linear:
		if f.head != nil || len(f.layers) == 0 {
			return f.more(n, "expected one linear layer, after the recurrent ones")
		}
		f.head, f.product = p, n.out[0]
		return nil
	}
	if n.op == "Add" && f.head != nil && f.head.b == nil && f.bias == nil {
		for i, slot := range n.in {
			if b := f.m.constant(n, 1-i); slot == f.product && b != nil && b.kind == floats && b.len() == f.head.w.Dim(0) {
				f.bias = b.host
				return nil
			}
		}
	}
	if slices.Contains(plumbing, n.op) || slices.Contains(arithmetic, n.op) {
		return nil
	}
	return f.more(n, "a plain stack has no such operator")
}

func (f *parts) more(n *node, why string) error {
	return &model.FileError{File: f.m.path, Problem: fmt.Sprintf("not a plain stack of recurrent layers: %s: %s", n.title(), why)}
}

// trace follows the input of a layer back to the layer before, or to the graph's input.
func (f *parts) trace(i int, layer *node) error {
	slot := layer.in[0]
	for {
		n := f.makers[slot]
		switch {
		case n == nil:
			if i > 0 {
				return f.more(layer, "it does not read the layer before")
			}
			if !slices.Contains(f.m.inSlots, slot) {
				return f.more(layer, "it reads a constant")
			}
			f.data = slot
			return nil
		case i > 0 && n == f.layers[i-1] && slot == n.out[0]:
			return nil
		case n.op == "Gather" && i == 0 && n.prepared != nil && f.table == nil:
			f.table = n.prepared.(*tensor.Param)
			slot = n.in[1]
		case slices.Contains([]string{"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast"}, n.op):
			slot = n.in[0]
		default:
			return f.more(n, "it lies between the input and a recurrent layer")
		}
	}
}

// config is the stack's description; the pool is found out later.
func (f *parts) config() (Config, error) {
	first := f.layers[0].prepared.(*recurrent)
	H := first.dirs[0].R.Dim(1)
	c := Config{Cell: cellNames[first.cell], Input: first.input, Hidden: H, Layers: len(f.layers), Bidirectional: first.directions == 2,
		NoBias: first.dirs[0].BW == nil}
	for i, n := range f.layers {
		r := n.prepared.(*recurrent)
		switch {
		case r.cell != first.cell || r.directions != first.directions || r.dirs[0].R.Dim(1) != H || (r.dirs[0].BW == nil) != c.NoBias:
			return c, f.more(n, "it differs from the first in kind, size, directions or biases")
		case i > 0 && r.input != H*r.directions:
			return c, f.more(n, fmt.Sprintf("it reads %d features, the layer before gives %d", r.input, H*r.directions))
		}
	}
	if f.table != nil {
		if c.Vocabulary = f.table.Dim(0); f.table.Dim(1) != c.Input {
			return c, f.more(f.layers[0], "its input is not the embedding's vectors")
		}
	}
	if f.head != nil {
		if c.Output = f.head.w.Dim(0); f.head.w.Dim(1) != H*first.directions {
			return c, f.more(f.makers[f.product], fmt.Sprintf("it reads %d features, the layers give %d", f.head.w.Dim(1), H*first.directions))
		}
		c.HeadNoBias = f.head.b == nil && f.bias == nil
	}
	return c, nil
}

// fill copies the weights.
func (f *parts) fill(s *Stack) {
	at := 0
	for _, n := range f.layers {
		for _, d := range n.prepared.(*recurrent).dirs {
			for _, w := range []*tensor.Tensor{d.W, d.R, d.BW, d.BR} {
				if w != nil {
					s.RNN.Weights[at].Write(w.Data())
					at++
				}
			}
		}
	}
	if f.table != nil {
		s.Embedding.Weight.Write(f.table.Read())
	}
	if f.head != nil {
		s.Head.Weight.Write(f.head.w.Read())
		switch {
		case f.head.b != nil:
			s.Head.Bias.Write(f.head.b.Read())
		case f.bias != nil:
			s.Head.Bias.Write(f.bias)
		}
	}
}

// prove runs the graph and the stack on one random input, first as if batches
// came before time, then after, and finds the pool and output with which they agree.
func (f *parts) prove(s *Stack) (*trial, *Parity, error) {
	var failed error
	nearest := math.Inf(1)
	for _, timeMajor := range []bool{false, true} {
		in, x, err := f.trialInput(s, timeMajor)
		if err != nil {
			return nil, nil, err
		}
		got, err := f.m.Run(in)
		if err != nil {
			failed = err
			continue
		}
		for _, pool := range []Pool{PoolSteps, PoolLast, PoolFinal} {
			s.Pool = pool
			want, err := s.values(x, nil)
			if err != nil {
				return nil, nil, err
			}
			y := want["y"]
			if pool == PoolSteps && timeMajor {
				y = swapped(y, x)
			}
			for _, out := range f.m.outputs {
				diff, relative := MaxDifference(got[out.Name].Data, y)
				if nearest = min(nearest, diff); relative <= Tolerance {
					return &trial{in, out.Name, y}, &Parity{Input: described(f.m, in), Values: len(y), MaxDiff: diff}, nil
				}
			}
		}
	}
	if failed != nil && math.IsInf(nearest, 1) {
		return nil, nil, failed
	}
	if math.IsInf(nearest, 1) {
		return nil, nil, f.m.badf("not a plain stack of recurrent layers: no output has the shape of theirs")
	}
	return nil, nil, f.m.badf("not a plain stack of recurrent layers: the output differs from theirs by %.3g", nearest)
}

// swapped takes y [B,T,F] to [T,B,F].
func swapped(y []float32, x map[string]Value) []float32 {
	dims := x["x"].Dims
	if ids, ok := x["ids"]; ok {
		dims = ids.Dims
	}
	out := make([]float32, len(y))
	F := len(y) / max(dims[0]*dims[1], 1)
	strided(out, y, []int{dims[1], dims[0], F}, []int{F, dims[1] * F, 1}, 0)
	return out
}

// trialInput makes inputs for the graph, and the same in the stack's layout.
func (f *parts) trialInput(s *Stack, timeMajor bool) (graph, stack map[string]Value, err error) {
	const B, T = 3, 5
	lead := []int{B, T} // of the graph's input
	if timeMajor {
		lead = []int{T, B}
	}
	graph = map[string]Value{}
	rng := rand.New(rand.NewPCG(1, 0))
	sizes := map[string]int{}
	for i, info := range f.m.inputs {
		if f.m.inSlots[i] == f.data {
			dims, name := slices.Clone(lead), "x"
			if s.Embedding == nil {
				dims = append(dims, s.RNN.Weights[0].Dim(1))
			} else {
				name = "ids"
			}
			if !info.Any {
				if len(info.Dims) != len(dims) {
					return nil, nil, f.m.badf("not a plain stack of recurrent layers: input %s has not %d dimensions", info, len(dims))
				}
				for j, d := range info.Dims {
					if d.Size >= 0 {
						dims[j] = d.Size
					} else if d.Name != "" {
						sizes[d.Name] = dims[j]
					}
				}
			}
			if product(dims) > 1<<24 {
				return nil, nil, f.m.badf("input %s is too large to try", info)
			}
			vocabulary := 0
			if s.Embedding != nil {
				vocabulary = s.Embedding.Weight.Dim(0)
			}
			v := random(rng, info.kind, dims, vocabulary)
			graph[info.Name] = v
			stack = map[string]Value{name: batchMajor(v, timeMajor)}
			lead = dims[:2]
		}
	}
	if stack == nil || (stack["x"].Data == nil) == (s.Embedding == nil) {
		return nil, nil, f.m.badf("not a plain stack of recurrent layers: its input is of another type")
	}
	batch, steps := lead[0], lead[1]
	if timeMajor {
		batch, steps = steps, batch
	}
	for i, info := range f.m.inputs {
		if f.m.inSlots[i] == f.data {
			continue
		}
		v, err := f.other(info, sizes, batch, steps)
		if err != nil {
			return nil, nil, err
		}
		graph[info.Name] = v
	}
	return graph, stack, nil
}

// other is an input beside the data: zeros for a state, full lengths for integers.
func (f *parts) other(info ValueInfo, sizes map[string]int, batch, steps int) (Value, error) {
	dims := make([]int, len(info.Dims))
	n := 1
	for j, d := range info.Dims {
		dims[j] = d.Size
		if d.Size < 0 {
			dims[j] = batch
			if s, ok := sizes[d.Name]; ok {
				dims[j] = s
			}
		}
		if dims[j] > 0 && n > 1<<24/dims[j] {
			return Value{}, errors.New("onnx: input " + info.String() + " is too large to try")
		}
		n *= dims[j]
	}
	if info.kind == floats {
		return Floats(make([]float32, n), dims...), nil
	}
	return Ints(slices.Repeat([]int64{int64(steps)}, n), dims...), nil
}

// batchMajor swaps the first two dimensions if the first is time.
func batchMajor(v Value, timeMajor bool) Value {
	if !timeMajor {
		return v
	}
	T, B := v.Dims[0], v.Dims[1]
	rest := product(v.Dims[2:])
	w := Value{Dims: slices.Concat([]int{B, T}, v.Dims[2:])}
	dims, stride := []int{B, T, rest}, []int{rest, B * rest, 1}
	if v.Data != nil {
		w.Data = make([]float32, len(v.Data))
		strided(w.Data, v.Data, dims, stride, 0)
	} else {
		w.Ints = make([]int64, len(v.Ints))
		strided(w.Ints, v.Ints, dims, stride, 0)
	}
	return w
}
