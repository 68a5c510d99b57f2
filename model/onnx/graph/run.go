package graph

import (
	"fmt"

	"github.com/carousel-ml/carousel/tensor"
)

// maxElements is the largest number of elements of all values of a run: 2 GiB of
// float32.
const maxElements = 1 << 29

// run is one pass through the graph.
type run struct {
	m    *Model
	tape *tensor.Tape
	vals []*value
	left int // elements that may still be made
}

// Run computes the outputs from the inputs, by name. inputs must have all inputs
// of the graph, with shapes that it allows, and no others. The errors name the
// input that does not fit or the node that cannot be computed.
func (m *Model) Run(inputs map[string]Value) (map[string]Value, error) {
	tape, _ := m.tapes.Get().(*tensor.Tape)
	if tape == nil {
		tape = tensor.NewTape(m.dev, tensor.Infer)
	}
	tape.Reset()
	defer m.tapes.Put(tape)
	r := &run{m: m, tape: tape, vals: make([]*value, len(m.names)), left: m.budget}
	for i, c := range m.constants {
		if c != nil {
			own := *c // this run's place on its tape must not reach other runs
			r.vals[i] = &own
		}
	}
	if err := r.take(inputs); err != nil {
		return nil, err
	}
	for _, n := range m.nodes {
		if err := m.guard(n, func() { r.step(n) }); err != nil {
			return nil, err
		}
	}
	out := make(map[string]Value, len(m.outputs))
	for i, info := range m.outputs {
		v := r.vals[m.outSlots[i]]
		if v == nil {
			return nil, m.badf("output %q was not made", clip(info.Name))
		}
		out[info.Name] = Value{Dims: append([]int{}, v.dims...), Data: append([]float32(nil), v.floats()...), Ints: append([]int64(nil), v.ints...)}
	}
	return out, nil
}

// take checks the inputs against their declarations.
func (r *run) take(inputs map[string]Value) error {
	sizes := map[string]int{}
	for i, info := range r.m.inputs {
		v, ok := inputs[info.Name]
		if !ok {
			return fmt.Errorf("onnx: input %s is missing", info)
		}
		n := 1
		for _, d := range v.Dims {
			if d < 0 {
				return fmt.Errorf("onnx: input %s: shape %s", info, shape(v.Dims))
			}
			n *= d
		}
		if got := len(v.Data) + len(v.Ints); got != n || len(v.Dims) > maxRank {
			return fmt.Errorf("onnx: input %s: shape %s needs %d elements, got %d", info, shape(v.Dims), n, got)
		}
		if n > 0 && (v.Data != nil) != (info.kind == floats) {
			return fmt.Errorf("onnx: input %s needs %s", info, info.kind)
		}
		if err := fits(info, v.Dims, sizes); err != nil {
			return err
		}
		r.vals[r.m.inSlots[i]] = &value{dims: v.Dims, kind: info.kind, dtype: info.dtype, host: flushed(v.Data), ints: v.Ints}
	}
	for name := range inputs {
		known := false
		for _, info := range r.m.inputs {
			known = known || info.Name == name
		}
		if !known {
			return fmt.Errorf("onnx: the graph has no input %q; it has %v", clip(name), r.m.inputs)
		}
	}
	return nil
}

// fits compares a shape with its declaration; sizes has the sizes of named
// dimensions so far.
func fits(info ValueInfo, dims []int, sizes map[string]int) error {
	if info.Any {
		return nil
	}
	ok := len(dims) == len(info.Dims)
	for i := 0; ok && i < len(dims); i++ {
		d := info.Dims[i]
		if d.Size < 0 && d.Name != "" {
			if n, seen := sizes[d.Name]; seen {
				d.Size = n
			}
			sizes[d.Name] = dims[i]
		}
		ok = d.Size < 0 || d.Size == dims[i]
	}
	if !ok {
		return fmt.Errorf("onnx: input %s does not fit shape %s", info, shape(dims))
	}
	return nil
}

// step runs one node.
func (r *run) step(n *node) {
	in := make([]*value, n.def.maxInputs(len(n.in)))
	for i, slot := range n.in {
		if slot >= 0 {
			in[i] = r.vals[slot]
			if in[i] == nil {
				n.failf("input %d is an optional output that was not made", i)
			}
		}
	}
	out := n.def.run(r, n, in)
	for i, slot := range n.out {
		if slot < 0 {
			continue
		}
		if i >= len(out) || out[i] == nil {
			n.failf("output %d is not supported", i)
		}
		r.vals[slot] = out[i]
	}
}

// spend subtracts the elements of a shape from the limit and returns their
// number.
func (r *run) spend(n *node, dims []int) int {
	wide := make([]int64, len(dims))
	for i, d := range dims {
		wide[i] = int64(d)
	}
	size, ok := sizeOf(wide, r.left)
	if !ok || len(dims) > maxRank {
		n.failf("its result of shape %s would be too large", shape(dims))
	}
	r.left -= size
	return size
}

// newFloats returns a value on the host, all zeros.
func (r *run) newFloats(n *node, dims []int) *value {
	return &value{dims: dims, kind: floats, host: make([]float32, r.spend(n, dims))}
}

// newInts returns a value of integers or booleans of an element type, all zeros.
func (r *run) newInts(n *node, dtype int64, dims []int) *value {
	k, _ := kindOf(dtype)
	return &value{dims: dims, kind: k, dtype: dtype, ints: make([]int64, r.spend(n, dims))}
}

// do computes results: f fills values that the operator made, from its inputs. An
// operator decides shapes outside f and reads the elements of its inputs only in f,
// but for those that it gets from fixed.
func (r *run) do(f func()) { f() }

// fixed returns the elements of an input of integers that decide the shape of a
// result or which nodes run, such as a shape, axes or a number of steps.
func (r *run) fixed(n *node, v *value, what string) []int64 { return n.wantInts(v, what) }

// tensor returns v's elements on the tape in a shape of 1 to 4 dimensions. It has
// at least one element.
func (r *run) tensor(v *value, dims ...int) *tensor.Tensor {
	if v.dev == nil {
		v.dev = r.tape.Input(v.host, len(v.host))
	}
	return tensor.Reshape(v.dev, dims...)
}

// result returns the value of a tensor; flat, without lengths.
func result(t *tensor.Tensor, dims []int) *value {
	return &value{dims: dims, kind: floats, dev: tensor.Reshape(t, t.Len())}
}

// reshaped returns v with other dimensions of the same size; the elements are
// shared.
func (v *value) reshaped(dims []int) *value {
	if v.kind == floats && v.dev == nil && v.host == nil {
		return &value{dims: dims, kind: v.kind, dtype: v.dtype}
	}
	w := *v
	w.dims = dims
	return &w
}

// one returns the usual single result.
func one(v *value) []*value { return []*value{v} }

// runIf runs one of two graphs, which exporters write if an operation depends on
// a shape.
func runIf(r *run, n *node, in []*value) []*value {
	if in[0].kind != bools || in[0].len() != 1 {
		n.failf("its condition must be one boolean")
	}
	b := n.branches[1-in[0].ints[0]]
	for _, inner := range b.nodes {
		r.step(inner)
	}
	out := make([]*value, len(b.outs))
	for i, slot := range b.outs {
		if v := r.vals[slot]; v != nil {
			out[i] = v.reshaped(v.dims)
		}
	}
	return out
}
