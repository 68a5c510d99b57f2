package graph

import (
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// maxElements is the largest number of elements of all values of a run: 2 GiB of
// float32.
const maxElements = 1 << 29

// run is a pass through the graph that decides shapes and takes memory.
type run struct {
	m    *Model
	tape *tensor.Tape
	vals []*value
	left int   // elements that may still be made
	plan *plan // what is recorded; nil while constants are computed

	at     *node     // the node that runs
	varies bool      // its results depend on the elements of the model's inputs
	did    bool      // it called do
	made   []*buffer // by the nodes that run, the innermost last

	idleFloats, idleInts []*buffer
}

// Run computes the outputs from the inputs, by name. inputs must have all inputs
// of the graph, with shapes that it allows, and no others. The errors name the
// input that does not fit or the node that cannot be computed. The first run with
// new shapes plans its memory; later ones with these shapes use it again. A [Session]
// runs without allocating.
func (m *Model) Run(inputs map[string]Value) (map[string]Value, error) {
	in := make([]Value, len(m.inputs))
	if err := m.ordered(in, inputs); err != nil {
		return nil, err
	}
	p, err := m.compute(context.Background(), in)
	if err != nil {
		return nil, err
	}
	defer m.plans.put(p)
	out := make(map[string]Value, len(m.outputs))
	for i, v := range p.out {
		out[m.outputs[i].Name] = Value{Dims: append([]int{}, v.dims...), Data: append([]float32(nil), v.host...), Ints: append([]int64(nil), v.ints...)}
	}
	return out, nil
}

// ordered writes the inputs in the graph's order to dst.
func (m *Model) ordered(dst []Value, inputs map[string]Value) error {
	for i, info := range m.inputs {
		v, ok := inputs[info.Name]
		if !ok {
			return fmt.Errorf("onnx: input %s is missing", info)
		}
		dst[i] = v
	}
	if len(inputs) == len(m.inputs) {
		return nil
	}
	return m.unknown(inputs)
}

// unknown returns the error for inputs that the graph does not have.
func (m *Model) unknown(inputs map[string]Value) error {
	for name := range inputs {
		if m.input(name) < 0 {
			return fmt.Errorf("onnx: the graph has no input %q; it has %v", clip(name), m.inputs)
		}
	}
	return nil
}

// input returns the index of an input by name, -1 if there is none.
func (m *Model) input(name string) int {
	return slices.IndexFunc(m.inputs, func(info ValueInfo) bool { return info.Name == name })
}

// begin checks the inputs against their declarations and copies them.
func (r *run) begin(in []Value) error {
	sizes := map[string]int{}
	r.varies = true
	for i, info := range r.m.inputs {
		v := in[i]
		if err := info.check(v); err != nil {
			return err
		}
		if err := fits(info, v.Dims, sizes); err != nil {
			return err
		}
		own := &value{dims: slices.Clone(v.Dims), kind: info.kind, dtype: info.dtype, buf: r.alloc(info.kind, len(v.Data)+len(v.Ints))}
		own.host, own.ints = own.buf.floats, own.buf.ints
		r.set(r.m.inSlots[i], own)
		r.plan.in = append(r.plan.in, own)
	}
	r.made = nil
	r.plan.fill(in)
	return nil
}

// check compares the elements with the shape and the declared type.
func (v ValueInfo) check(x Value) error {
	n, ok := sizeOf(wide(x.Dims), maxElements)
	if !ok {
		return fmt.Errorf("onnx: input %s: shape %s is negative or too large", v, shape(x.Dims))
	}
	if got := len(x.Data) + len(x.Ints); got != n || len(x.Dims) > maxRank {
		return fmt.Errorf("onnx: input %s: shape %s needs %d elements, got %d", v, shape(x.Dims), n, got)
	}
	if n > 0 && (len(x.Data) > 0) != (v.kind == floats) {
		return fmt.Errorf("onnx: input %s needs %s", v, v.kind)
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
	r.plan.goOn()
	in := make([]*value, n.def.maxInputs(len(n.in)))
	at, varies, did, mark := r.at, r.varies, r.did, len(r.made)
	r.at, r.varies, r.did = n, false, false
	for i, slot := range n.in {
		if slot >= 0 {
			in[i] = r.vals[slot]
			if in[i] == nil {
				n.failf("input %d is an optional output that was not made", i)
			}
			r.varies = r.varies || in[i].varies()
		}
	}
	last := r.arrange(n, in)
	out := n.def.run(r, n, in)
	for i, slot := range n.out {
		if slot < 0 {
			continue
		}
		if i >= len(out) || out[i] == nil {
			n.failf("output %d is not supported", i)
		}
		if r.plan != nil && r.varies && !r.did && n.branches == nil && r.isNew(out[i], in, mark) {
			r.plan.once = true // the operator does not keep its arithmetic
		}
		if last && out[i].kind == floats {
			out[i].last = true
		}
		if out[i].last && slices.Contains(r.m.outSlots, slot) {
			out[i] = r.firstLayout(n, out[i])
		}
		r.set(slot, out[i])
	}
	for _, b := range n.branches {
		for _, slot := range b.own {
			r.set(slot, nil)
		}
	}
	for _, slot := range n.dead {
		r.set(slot, nil)
	}
	for _, b := range r.made[mark:] {
		if b.refs == 0 {
			r.give(b)
		}
	}
	r.made = r.made[:mark]
	r.at, r.varies, r.did = at, varies || r.varies, did || r.did
}

// isNew reports whether a node made a value, rather than passing on an input.
func (r *run) isNew(v *value, in []*value, mark int) bool {
	if v.buf != nil {
		return v.len() > 0 && slices.Contains(r.made[mark:], v.buf)
	}
	return !slices.ContainsFunc(in, func(v *value) bool { return v != nil && v.buf == nil }) // another constant
}

// body runs the nodes of a graph within a node on its inputs and returns its
// outputs. Their memory is used again by the next call of body and after the node,
// unless hold is called for them.
func (r *run) body(b *branch, in []*value) []*value {
	r.varies = r.varies || len(in) > 0 // in some steps of a loop it may
	for _, v := range in {             // an output of the last call may be another's input now
		r.hold(v)
	}
	for i, v := range in {
		r.set(b.ins[i], v)
	}
	for _, v := range in {
		r.drop(v)
	}
	for _, n := range b.nodes {
		r.step(n)
	}
	out := make([]*value, len(b.outs))
	for i, slot := range b.outs {
		if v := r.vals[slot]; v != nil {
			out[i] = r.firstLayout(r.at, v).reshaped(v.dims)
		}
	}
	return out
}

// spend subtracts the elements of a shape from the limit and returns their
// number.
func (r *run) spend(n *node, dims []int) int {
	size, ok := sizeOf(wide(dims), r.left)
	if !ok || len(dims) > maxRank {
		n.failf("its result of shape %s would be too large", shape(dims))
	}
	r.left -= size
	return size
}

func wide(dims []int) []int64 {
	list := make([]int64, len(dims))
	for i, d := range dims {
		list[i] = int64(d)
	}
	return list
}

// work takes the multiply-adds of a product from the limit, 4,096 as an element, so that a
// loop over products that are large and have small results ends too.
func (r *run) work(n *node, results, each int) {
	if r.left -= results * each >> 12; r.left < 0 {
		n.failf("the graph needs too many operations")
	}
}

// newFloats returns a value with unspecified elements, which a function passed to
// do has to write.
func (r *run) newFloats(n *node, dims []int) *value {
	size := r.spend(n, dims)
	b := r.alloc(floats, size)
	return &value{dims: dims, kind: floats, buf: b, host: b.floats[:size:size]}
}

// newInts is newFloats for integers or booleans of an element type.
func (r *run) newInts(n *node, dtype int64, dims []int) *value {
	k, _ := kindOf(dtype)
	size := r.spend(n, dims)
	b := r.alloc(k, size)
	return &value{dims: dims, kind: k, dtype: dtype, buf: b, ints: b.ints[:size:size]}
}

// newLike is newFloats for elements of v's type.
func (r *run) newLike(n *node, v *value, dims []int) *value {
	if v.kind == floats {
		return r.newFloats(n, dims)
	}
	return r.newInts(n, v.dtype, dims)
}

// do computes results, now and in each later run with the same shapes: f fills all
// elements of values that the operator made, from its inputs. An operator decides
// shapes outside f and reads the elements of its inputs only in f, but for those
// that it gets from fixed. f allocates nothing in the usual case; memory that it
// needs besides comes from newFloats.
func (r *run) do(f func()) { r.perform(step{n: r.at, f: f}) }

// onTape is do for an f that computes on r.tape, which is empty before.
func (r *run) onTape(f func()) { r.perform(step{n: r.at, f: f, tape: true}) }

func (r *run) perform(s step) {
	r.did = true
	if s.tape {
		r.tape.Reset()
	}
	s.f()
	if r.varies && r.plan != nil {
		r.plan.add(s)
	}
}

// fixed returns the elements of an input of integers that decide the shape of a
// result or which nodes run, such as a shape, axes or a number of steps. A later
// run in which they are others is not a replay of this one.
func (r *run) fixed(n *node, v *value, what string) []int64 {
	n.wantInts(v, what)
	return r.pinned(v).ints
}

// pinned is fixed for elements of any type.
func (r *run) pinned(v *value) *value {
	if !v.varies() {
		return v
	}
	want := &value{dims: v.dims, kind: v.kind, dtype: v.dtype, ints: slices.Clone(v.ints), host: slices.Clone(v.host)}
	if r.plan != nil {
		r.plan.add(step{n: r.at, have: v, want: want})
	}
	return want
}

// tensor copies v to the tape in a shape of 1 to 4 dimensions, for a function
// passed to onTape.
func (r *run) tensor(v *value, dims ...int) *tensor.Tensor { return r.tape.Input(v.host, dims...) }

// varies reports whether elements depend on those of the model's inputs.
func (v *value) varies() bool { return v.buf != nil && v.buf.varies }

// reshaped returns v with other dimensions of the same size; the elements are
// shared.
func (v *value) reshaped(dims []int) *value {
	w := *v
	w.dims = dims
	return &w
}

// part returns adjacent elements of v from lo on; they are shared.
func (v *value) part(dims []int, lo int) *value {
	w := *v
	w.dims = dims
	hi := lo + product(dims)
	if v.kind == floats {
		w.host = v.host[lo:hi:hi]
	} else {
		w.ints = v.ints[lo:hi:hi]
	}
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
	return r.body(n.branches[1-r.fixed(n, in[0], "the condition")[0]], nil)
}

// Apply is Run for inputs in the order of Inputs: it passes the outputs, in the order of
// Outputs, to a function, which must not keep or change them. A call with the shapes of an
// earlier one allocates nothing in the usual case. When ctx ends, the run does, with the
// error of ctx: before the next node, step of a loop or part of a long sequence.
func (m *Model) Apply(ctx context.Context, inputs []Value, use func(outputs []Value)) error {
	if len(inputs) != len(m.inputs) {
		return fmt.Errorf("onnx: expected %d inputs, got %d", len(m.inputs), len(inputs))
	}
	p, err := m.compute(ctx, inputs)
	if err != nil {
		return err
	}
	defer m.plans.put(p)
	p.given = p.given[:0]
	for _, v := range p.out {
		p.given = append(p.given, Value{Dims: v.dims, Data: v.host, Ints: v.ints})
	}
	use(p.given)
	return nil
}
