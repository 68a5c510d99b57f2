package graph

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// Description is the contents of an ONNX file, whether or not its graph can be run.
type Description struct {
	Producer   string         // the program that wrote the file, and its version; "" if it does not say
	Opsets     map[string]int // versions of the operators by domain; that of the standard ones is "ai.onnx"
	Inputs     []ValueInfo    // without those that the file gives a constant
	Outputs    []ValueInfo
	States     []StatePair   // found by [StatePairs]
	Operators  []OperatorUse // those of the graph and of graphs in its nodes, by falling number
	Parameters int           // numbers in the stored tensors, those in other files included
	Meta       map[string]string
	// Problem is why the graph cannot be run: operators that are not supported, a part
	// that is not valid, or data in another file that are missing. "" if it can.
	Problem string
}

// OperatorUse is an operator of a graph.
type OperatorUse struct {
	Operator  string // with its domain if that is not the standard one, such as "com.microsoft.Attention"
	Supported bool
	Nodes     []string // the names of the nodes; of one without a name its first output
}

// FreeBatch reports whether the size of a batch may vary: in every input the first
// dimension, and in a state, where layers or directions may precede it, any. Of a
// time-major graph that is the number of steps.
func (d *Description) FreeBatch() bool {
	free := false
	for _, in := range d.Inputs {
		if len(in.Dims) == 0 {
			continue
		}
		first := in.Dims[:1]
		if slices.ContainsFunc(d.States, func(p StatePair) bool { return p.Input == in.Name }) {
			first = in.Dims
		}
		if free = slices.ContainsFunc(first, func(d Dim) bool { return d.Size < 0 }); !free {
			return false
		}
	}
	return free
}

// Describe reads a file and describes its graph. A graph that [Read] refuses is
// described, too; a file that is missing, or not an ONNX file, is a *model.FileError.
func Describe(path string) (*Description, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	p, err := decodeModel(b)
	switch {
	case err != nil:
		return nil, &model.FileError{File: path, Problem: "not an ONNX model: " + err.Error(), Err: err}
	case p.graph == nil:
		return nil, &model.FileError{File: path, Problem: "not an ONNX model: it holds no graph"}
	}
	d := &Description{Producer: clip(strings.TrimSpace(p.producer + " " + p.version)), Opsets: map[string]int{}, Meta: map[string]string{}}
	for _, o := range p.opsets {
		d.Opsets[clip(cmp.Or(o.domain, "ai.onnx"))] = int(min(max(o.version, 0), math.MaxInt32))
	}
	for _, m := range p.meta {
		d.Meta[clip(m[0])] = clip(m[1])
	}
	constant := map[string]bool{}
	for i := range p.graph.initializers {
		constant[p.graph.initializers[i].name] = true
	}
	for i := range p.graph.inputs {
		if v := &p.graph.inputs[i]; !constant[v.name] {
			d.Inputs = append(d.Inputs, v.info())
		}
	}
	for i := range p.graph.outputs {
		d.Outputs = append(d.Outputs, p.graph.outputs[i].info())
	}
	if d.States, err = StatePairs(d.Inputs, d.Outputs, nil); err != nil {
		return nil, err // never: only given pairs can be wrong
	}
	uses := map[string]*OperatorUse{}
	d.count(p.graph, uses)
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		d.Operators = append(d.Operators, *uses[name])
	}
	slices.SortStableFunc(d.Operators, func(a, b OperatorUse) int { return len(b.Nodes) - len(a.Nodes) })
	if _, err := parse(path, b); err != nil {
		d.Problem = err.Error()
		var file *model.FileError
		if errors.As(err, &file) {
			bare := *file
			bare.File = ""
			d.Problem = strings.TrimPrefix(bare.Error(), ": ")
		}
	}
	return d, nil
}

// count adds the operators and the numbers of a graph and of those in it.
func (d *Description) count(g *graphProto, uses map[string]*OperatorUse) {
	for i := range g.initializers {
		d.add(&g.initializers[i])
	}
	for i := range g.nodes {
		n := &g.nodes[i]
		op := n.op
		if n.domain != "" && n.domain != "ai.onnx" {
			op = n.domain + "." + op
		}
		u := uses[op]
		if u == nil {
			u = &OperatorUse{Operator: clip(op), Supported: operators[op] != nil}
			uses[op] = u
		}
		name := n.name
		if name == "" && len(n.outputs) > 0 {
			name = n.outputs[0]
		}
		u.Nodes = append(u.Nodes, clip(name))
		for j := range n.attrs {
			a := &n.attrs[j]
			if a.tensor != nil {
				d.add(a.tensor)
			}
			if a.graph != nil {
				d.count(a.graph, uses)
			}
		}
	}
}

func (d *Description) add(t *tensorProto) {
	if n, ok := sizeOf(t.dims, math.MaxInt-d.Parameters); ok {
		d.Parameters += n
	}
}

// Fits reports whether a shape is one that the declaration allows. sizes has the sizes
// of named dimensions so far, and gets those of this shape.
func (v ValueInfo) Fits(dims []int, sizes map[string]int) bool { return fits(v, dims, sizes) == nil }
