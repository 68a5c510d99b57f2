package onnx

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/tensor"
)

// Import reads a file whose graph is a plain stack: an embedding or features,
// LSTM, GRU or RNN layers of one kind and size, at most one linear layer, and
// operators that only move numbers between them. It returns the stack and its
// packed parameters, on the device given (default: the CPU), and compares it on
// random input with the graph and, if it is installed, with ONNX Runtime.
//
// A file that is not valid, a graph with other nodes, which the error names, and
// a difference above [graph.Tolerance] are a *model.FileError; [graph.Read] may
// still run the graph. A cancelled ctx returns its error.
func Import(ctx context.Context, path string, on ...*tensor.Device) (*Stack, *tensor.Slab, *graph.Parity, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, nil, err
	}
	m, err := graph.Read(path, on...)
	if err != nil {
		return nil, nil, nil, err
	}
	f := &parts{m: m, path: path, nodes: m.Nodes(), makers: map[string]*graph.Node{}}
	if err := f.find(); err != nil {
		return nil, nil, nil, err
	}
	c, err := f.config()
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := c.New()
	if err != nil {
		return nil, nil, nil, f.badf("%v", err)
	}
	slab := tensor.Pack(cmp.Or(on...), s, 0)
	f.fill(s)
	t, err := f.prove(s)
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := m.Compare(ctx, t.in, map[string][]float32{t.output: t.want})
	if err != nil {
		return nil, nil, nil, err
	}
	return s, slab, p, nil
}

// trial is the input on which a graph and a stack were compared, and their common
// output.
type trial struct {
	in     map[string]graph.Value
	output string
	want   []float32
}

// plumbing are operators that only move numbers, or compute shapes.
var plumbing = []string{"Identity", "Dropout", "Constant", "ConstantOfShape", "Shape", "Size", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
	"Transpose", "Expand", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Range", "Equal", "Where"}

// arithmetic are operators that are allowed on shapes; elsewhere the comparison
// of outputs shows that they do not fit.
var arithmetic = []string{"Add", "Sub", "Mul", "Div"}

// parts are the nodes of a graph by kind.
type parts struct {
	m      *graph.Model
	path   string
	nodes  []*graph.Node
	makers map[string]*graph.Node // by value: the node that makes it
	layers []*graph.Node
	table  *tensor.Param // of the embedding, or nil
	head   *graph.Linear
	bias   []float32 // of the head, added by a separate node
	data   string    // the input
	y      string    // the head's output
}

func (f *parts) badf(format string, args ...any) error {
	return &model.FileError{File: f.path, Problem: fmt.Sprintf(format, args...)}
}

func (f *parts) find() error {
	for _, n := range f.nodes {
		for _, name := range n.Outputs {
			if name != "" {
				f.makers[name] = n
			}
		}
		if err := f.sort(n); err != nil {
			return err
		}
	}
	if len(f.layers) == 0 {
		return f.badf("the graph has no LSTM, GRU or RNN node")
	}
	for i, n := range f.layers {
		if err := f.trace(i, n); err != nil {
			return err
		}
	}
	return nil
}

// sort adds a node to its kind.
func (f *parts) sort(n *graph.Node) error {
	switch l := n.Layer.(type) {
	case *graph.Recurrent:
		f.layers = append(f.layers, n)
		return nil
	case *graph.Linear:
		if f.head != nil || len(f.layers) == 0 {
			return f.more(n, "expected one linear layer, after the recurrent ones")
		}
		f.head, f.y = l, n.Outputs[0]
		return nil
	}
	if slices.Contains([]string{"LSTM", "GRU", "RNN"}, n.Operator) {
		return f.more(n, "its options or weights are not those of a plain stack")
	}
	if n.Operator == "Add" && f.head != nil && f.head.Bias == nil && f.bias == nil {
		for i, name := range n.Inputs {
			if b, ok := n.Constant(1 - i); ok && name == f.y && b.Data != nil && len(b.Data) == f.head.Weight.Dim(0) {
				f.bias = b.Data
				return nil
			}
		}
	}
	if slices.Contains(plumbing, n.Operator) || slices.Contains(arithmetic, n.Operator) {
		return nil
	}
	return f.more(n, "a plain stack has no such operator")
}

func (f *parts) more(n *graph.Node, why string) error {
	return f.badf("not a plain stack of recurrent layers: %s: %s", n, why)
}

// trace follows the input of a layer back to the layer before, or to the graph's
// input.
func (f *parts) trace(i int, layer *graph.Node) error {
	name := layer.Inputs[0]
	for {
		n := f.makers[name]
		switch {
		case n == nil:
			if i > 0 {
				return f.more(layer, "it does not read the layer before")
			}
			if !slices.ContainsFunc(f.m.Inputs(), func(info graph.ValueInfo) bool { return info.Name == name }) {
				return f.more(layer, "it reads a constant")
			}
			f.data = name
			return nil
		case i > 0 && n == f.layers[i-1] && name == n.Outputs[0]:
			return nil
		case n.Operator == "Gather" && i == 0 && n.Layer != nil && f.table == nil:
			f.table = n.Layer.(*tensor.Param)
			name = n.Inputs[1]
		case slices.Contains([]string{"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast"}, n.Operator):
			name = n.Inputs[0]
		default:
			return f.more(n, "it lies between the input and a recurrent layer")
		}
	}
}

// config returns the stack's description; the pool is determined later.
func (f *parts) config() (Config, error) {
	first := f.layers[0].Layer.(*graph.Recurrent)
	H, D := first.Hidden, len(first.Directions)
	c := Config{Cell: cellName(first.Cell), Input: first.Input, Hidden: H, Layers: len(f.layers), Bidirectional: D == 2,
		NoBias: first.Directions[0].Params[cell.BW] == nil}
	for i, n := range f.layers {
		r := n.Layer.(*graph.Recurrent)
		switch {
		case r.Cell != first.Cell || len(r.Directions) != D || r.Hidden != H || (r.Directions[0].Params[cell.BW] == nil) != c.NoBias:
			return c, f.more(n, "it differs from the first in kind, size, directions or biases")
		case i > 0 && r.Input != H*D:
			return c, f.more(n, fmt.Sprintf("it reads %d features, the layer before gives %d", r.Input, H*D))
		}
	}
	if f.table != nil {
		if c.Vocabulary = f.table.Dim(0); f.table.Dim(1) != c.Input {
			return c, f.more(f.layers[0], "its input is not the embedding's vectors")
		}
	}
	if f.head != nil {
		if c.Output = f.head.Weight.Dim(0); f.head.Weight.Dim(1) != H*D {
			return c, f.more(f.makers[f.y], fmt.Sprintf("it reads %d features, the layers give %d", f.head.Weight.Dim(1), H*D))
		}
		c.HeadNoBias = f.head.Bias == nil && f.bias == nil
	}
	return c, nil
}

// fill copies the weights.
func (f *parts) fill(s *Stack) {
	at := 0
	for _, n := range f.layers {
		for _, d := range n.Layer.(*graph.Recurrent).Directions {
			for _, w := range d.Params {
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
		s.Head.Weight.Write(f.head.Weight.Read())
		switch {
		case f.head.Bias != nil:
			s.Head.Bias.Write(f.head.Bias.Read())
		case f.bias != nil:
			s.Head.Bias.Write(f.bias)
		}
	}
}

// prove runs the graph and the stack on the same random input, first with the
// batch before time, then after, and returns the pool and output with which they
// agree.
func (f *parts) prove(s *Stack) (*trial, error) {
	var failed error
	nearest := math.Inf(1)
	for _, timeMajor := range []bool{false, true} {
		in, x, err := f.trialInput(s, timeMajor)
		if err != nil {
			return nil, err
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
				return nil, err
			}
			y := want["y"]
			if pool == PoolSteps && timeMajor {
				dims := slices.Concat(x["x"].Dims, x["ids"].Dims) // of the one that is there
				y = swapped(y, dims[0], dims[1])
			}
			for _, out := range f.m.Outputs() {
				diff, relative := graph.MaxDifference(got[out.Name].Data, y)
				if nearest = min(nearest, diff); relative <= graph.Tolerance {
					return &trial{in, out.Name, y}, nil
				}
			}
		}
	}
	if failed != nil && math.IsInf(nearest, 1) {
		return nil, failed
	}
	if math.IsInf(nearest, 1) {
		return nil, f.badf("not a plain stack of recurrent layers: no output has the shape of theirs")
	}
	return nil, f.badf("not a plain stack of recurrent layers: the output differs from theirs by %.3g", nearest)
}

// swapped exchanges the first two dimensions of an array [a,b,..].
func swapped[T any](x []T, a, b int) []T {
	out := make([]T, len(x))
	n := len(x) / max(a*b, 1)
	for i := range a {
		for j := range b {
			copy(out[(j*a+i)*n:][:n], x[(i*b+j)*n:])
		}
	}
	return out
}

// trialInput returns inputs for the graph, and the same in the stack's layout.
func (f *parts) trialInput(s *Stack, timeMajor bool) (given, stack map[string]graph.Value, err error) {
	const B, T = 3, 5
	lead := []int{B, T} // of the graph's input
	if timeMajor {
		lead = []int{T, B}
	}
	given = map[string]graph.Value{}
	rng := rand.New(rand.NewPCG(1, 0))
	sizes := map[string]int{}
	for _, info := range f.m.Inputs() {
		if info.Name == f.data {
			dims, name := slices.Clone(lead), "x"
			if s.Embedding == nil {
				dims = append(dims, s.RNN.Weights[0].Dim(1))
			} else {
				name = "ids"
			}
			if !info.Any {
				if len(info.Dims) != len(dims) {
					return nil, nil, f.badf("not a plain stack of recurrent layers: input %s has not %d dimensions", info, len(dims))
				}
				for j, d := range info.Dims {
					if d.Size >= 0 {
						dims[j] = d.Size
					} else if d.Name != "" {
						sizes[d.Name] = dims[j]
					}
				}
			}
			if _, ok := trySize(dims); !ok {
				return nil, nil, f.badf("input %s is too large to try", info)
			}
			var v graph.Value
			switch {
			case info.IsFloat():
				v = graph.RandomFloats(rng, dims...)
			case s.Embedding != nil:
				v = graph.RandomInts(rng, s.Embedding.Weight.Dim(0), dims...)
			}
			given[info.Name] = v
			stack = map[string]graph.Value{name: batchMajor(v, timeMajor)}
			lead = dims[:2]
		}
	}
	if stack == nil || (stack["x"].Data == nil) == (s.Embedding == nil) {
		return nil, nil, f.badf("not a plain stack of recurrent layers: its input is of another type")
	}
	batch, steps := lead[0], lead[1]
	if timeMajor {
		batch, steps = steps, batch
	}
	for _, info := range f.m.Inputs() {
		if info.Name == f.data {
			continue
		}
		v, err := f.other(info, sizes, batch, steps)
		if err != nil {
			return nil, nil, err
		}
		given[info.Name] = v
	}
	return given, stack, nil
}

// trySize returns the number of elements of an untrusted shape; ok is false if it
// is too large to try.
func trySize(dims []int) (n int, ok bool) {
	const most = 1 << 24
	n = 1
	for _, d := range dims {
		if d > 0 && n > most/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// other returns an input other than the data: zeros for a state, full lengths for
// integers.
func (f *parts) other(info graph.ValueInfo, sizes map[string]int, batch, steps int) (graph.Value, error) {
	dims := make([]int, len(info.Dims))
	for j, d := range info.Dims {
		dims[j] = d.Size
		if d.Size < 0 {
			dims[j] = batch
			if s, ok := sizes[d.Name]; ok {
				dims[j] = s
			}
		}
	}
	n, ok := trySize(dims)
	if !ok {
		return graph.Value{}, f.badf("input %s is too large to try", info)
	}
	if info.IsFloat() {
		return graph.Floats(make([]float32, n), dims...), nil
	}
	return graph.Ints(slices.Repeat([]int64{int64(steps)}, n), dims...), nil
}

// batchMajor swaps the first two dimensions if the first is time.
func batchMajor(v graph.Value, timeMajor bool) graph.Value {
	if !timeMajor || v.Dims == nil {
		return v
	}
	T, B := v.Dims[0], v.Dims[1]
	w := graph.Value{Dims: slices.Concat([]int{B, T}, v.Dims[2:])}
	if v.Data != nil {
		w.Data = swapped(v.Data, T, B)
	} else {
		w.Ints = swapped(v.Ints, T, B)
	}
	return w
}
