package graph

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// maxFile is protobuf's limit on the size of a message.
const maxFile = 1<<31 - 1

// The versions of the standard operators whose meaning is known here.
const (
	minOpset = 7
	maxOpset = 28
)

// Model is a checked graph that can be run. Its methods are safe for concurrent
// use.
type Model struct {
	Producer string // the program that wrote the file
	Opset    int    // version of the standard operators

	path      string
	file      func() ([]byte, error) // what was read
	external  []string               // the other files that some of its data lie in
	dev       *tensor.Device         // nil: the CPU
	inputs    []ValueInfo
	outputs   []ValueInfo
	inSlots   []int
	outSlots  []int
	names     []string // of the values, by slot
	constants []*value // by slot, nil for what is computed
	nodes     []*node
	running   []*node         // what runs in their place
	params    []*tensor.Param // weights that the tape's operations take directly
	weights   weights
	plans     plans // recorded runs
	budget    int   // elements one run may make
	segment   segment
	refused   refusals
}

// ValueInfo describes an input or output of a graph.
type ValueInfo struct {
	Name string
	Type string // element type, such as "float32" or "int64"
	Dims []Dim
	Any  bool // the file gives no shape; Dims is empty

	kind  kind
	dtype int64
}

// Dim is a dimension: a size, or -1 if it may vary, with an optional name that
// has one size throughout the graph.
type Dim struct {
	Size int
	Name string
}

func (d Dim) String() string {
	switch {
	case d.Size >= 0:
		return fmt.Sprint(d.Size)
	case d.Name == "":
		return "?"
	}
	return clip(d.Name)
}

// String returns such as "x float32[batch,time,8]".
func (v ValueInfo) String() string {
	if v.Any {
		return clip(v.Name) + " " + v.Type
	}
	dims := make([]string, len(v.Dims))
	for i, d := range v.Dims {
		dims[i] = d.String()
	}
	return fmt.Sprintf("%s %s[%s]", clip(v.Name), v.Type, strings.Join(dims, ","))
}

// IsFloat reports whether the elements are in Data of a [Value], not in Ints.
func (v ValueInfo) IsFloat() bool {
	switch v.Type {
	case "float16", "bfloat16", "float32", "float64":
		return true
	}
	return false
}

// External returns the names of the other files that some of the model's data lie in, relative to the
// directory of its own.
func (m *Model) External() []string { return slices.Clone(m.external) }

// Inputs returns the inputs that Run needs, in the file's order.
func (m *Model) Inputs() []ValueInfo { return append([]ValueInfo(nil), m.inputs...) }

// Outputs returns the outputs of Run, in the file's order.
func (m *Model) Outputs() []ValueInfo { return append([]ValueInfo(nil), m.outputs...) }

// Operators returns the operators of the graph in the order they run.
func (m *Model) Operators() []string {
	ops := make([]string, len(m.nodes))
	for i, n := range m.nodes {
		ops[i] = n.op
	}
	return ops
}

// node is an operation between slots.
type node struct {
	op, name string // op with its domain, if that is not the standard one
	makes    string // its first output, if it has no name
	in, out  []int  // slots; -1 for an input or output left out
	attrs    map[string]*attrProto
	def      *operator
	opset    int
	prepared any // what the operator made of its constant inputs, or nil
	branches []*branch
	dead     []int                     // slots that nothing reads after it
	act      cell.Activation           // of a product or Conv, from the node after it
	tail     []func(y, work []float32) // of a Conv, from the nodes after it; see finish
}

// branch is a graph within a node. Its values have slots separate from those of
// the outer graph, which it may read.
type branch struct {
	nodes []*node
	ins   []int // slots of its inputs, of a loop's body
	outs  []int
	own   []int // of both, those that this graph makes
}

// opError is the error of an operator, passed by panic to guard.
type opError struct{ problem string }

func (n *node) failf(format string, args ...any) {
	panic(opError{fmt.Sprintf(format, args...)})
}

// title returns the name of a node for messages.
func (n *node) title() string {
	if n.name != "" {
		return fmt.Sprintf("node %s (%s)", clip(n.name), clip(n.op))
	}
	if n.makes != "" {
		return fmt.Sprintf("the %s node that makes %s", clip(n.op), clip(n.makes))
	}
	return "a " + clip(n.op) + " node"
}

// guard runs f for a node and returns its panic as an error.
func (m *Model) guard(n *node, f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = m.caught(n, r)
		}
	}()
	f()
	return nil
}

// caught returns the error of a panic of a node with an opError, or an error of
// package tensor. Other panics continue.
func (m *Model) caught(n *node, problem any) error {
	switch p := problem.(type) {
	case stopped:
		return p.why
	case opError:
		return m.badf("%s: %s", n.title(), p.problem)
	case *tensor.ShapeError, *tensor.UseError:
		return m.badf("%s: %v", n.title(), p)
	}
	panic(problem)
}

func (m *Model) badf(format string, args ...any) error {
	return &model.FileError{File: m.path, Problem: fmt.Sprintf(format, args...)}
}

// Read reads and checks an ONNX file. A file that is missing, not valid or not
// supported is a *model.FileError. The model runs on the device given, by default
// the CPU.
func Read(path string, on ...*tensor.Device) (*Model, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, b, on...)
}

// Parse is Read of a file's bytes, for those who need them as well; path is for messages, and for
// the files of weights beside it.
func Parse(path string, b []byte, on ...*tensor.Device) (*Model, error) {
	if len(b) > maxFile {
		return nil, tooLarge(path, int64(len(b)))
	}
	return parse(path, b, on...)
}

func tooLarge(path string, size int64) error {
	return &model.FileError{File: path, Problem: fmt.Sprintf("expected at most %d bytes, got %d", maxFile, size)}
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened: a named pipe would wait for its writer
	switch {
	case err != nil:
		return nil, &model.FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	case !info.Mode().IsRegular():
		return nil, &model.FileError{File: path, Problem: "expected an ONNX file, got something that is not a regular file"}
	case info.Size() > maxFile:
		return nil, tooLarge(path, info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &model.FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	defer f.Close()
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, &model.FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	return b, nil
}

func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// parse makes a Model from a file's bytes; path is for messages.
func parse(path string, b []byte, on ...*tensor.Device) (*Model, error) {
	m := &Model{path: path, file: func() ([]byte, error) { return os.ReadFile(path) }, budget: maxElements, segment: usualSegment, dev: cmp.Or(on...)}
	p, err := decodeModel(b)
	switch {
	case err != nil:
		return nil, &model.FileError{File: path, Problem: "not an ONNX model: " + err.Error(), Err: err}
	case p.graph == nil:
		return nil, m.badf("not an ONNX model: it holds no graph")
	}
	m.Producer = clip(p.producer)
	for _, o := range p.opsets {
		if o.domain == "" || o.domain == "ai.onnx" {
			m.Opset = int(min(max(o.version, 0), math.MaxInt32))
		}
	}
	if m.Opset < minOpset || m.Opset > maxOpset {
		return nil, &model.FileError{File: path, Problem: fmt.Sprintf("expected operator set %d to %d, got %d", minOpset, maxOpset, m.Opset),
			Fix: "export the model again with operator set 17"}
	}
	l := linker{m: m, slots: map[string]int{}}
	if err := l.link(p.graph); err != nil {
		return nil, err
	}
	err = m.prepare()
	if len(m.refused) > 0 {
		err = m.badf("not supported: %s", m.refused)
	}
	if err != nil {
		return nil, err
	}
	m.rest(p)
	return m, nil
}

// linker converts names to slots.
type linker struct {
	m      *Model
	slots  map[string]int
	nodes  []*node
	parent *linker // of the graph around this one, or nil
}

// find looks a name up, in the graph and in the outer graphs.
func (l *linker) find(name string) (slot int, ok bool) {
	for ; l != nil && !ok; l = l.parent {
		slot, ok = l.slots[name]
	}
	return slot, ok
}

// define assigns a slot to a new name; a second definition of a name is an error.
func (l *linker) define(name, what string) (int, error) {
	if _, twice := l.find(name); twice {
		return 0, l.m.badf("%s %q: the name is already taken", what, clip(name))
	}
	if name == "" {
		return 0, l.m.badf("%s has no name", what)
	}
	slot := len(l.m.names)
	l.slots[name] = slot
	l.m.names = append(l.m.names, name)
	l.m.constants = append(l.m.constants, nil)
	return slot, nil
}

// link links the whole graph.
func (l *linker) link(g *graphProto) error {
	outs, err := l.body(g)
	if err != nil {
		return err
	}
	if len(outs) == 0 {
		return l.m.badf("the graph has no output")
	}
	l.m.nodes, l.m.outSlots = l.nodes, outs
	for i := range g.outputs {
		l.m.outputs = append(l.m.outputs, g.outputs[i].info())
	}
	return nil
}

// body links a graph and returns the slots of its outputs.
func (l *linker) body(g *graphProto) (outs []int, err error) {
	for i := range g.initializers {
		t := &g.initializers[i]
		slot, err := l.define(t.name, "initializer")
		if err != nil {
			return nil, err
		}
		if _, ok := kindOf(t.dtype); !ok {
			l.m.refused.add("type "+typeName(t.dtype), "tensor "+clip(t.name))
			continue
		}
		v, problem := t.constant(filepath.Dir(l.m.path))
		if t.external != nil && !slices.Contains(l.m.external, t.external.location) {
			l.m.external = append(l.m.external, t.external.location)
		}
		if problem != "" {
			return nil, &model.FileError{File: l.m.path, Tensor: t.name, Problem: problem}
		}
		l.m.constants[slot] = v
		l.m.weights.store(slot, t, v)
	}
	if l.parent == nil {
		if err := l.linkInputs(g.inputs); err != nil {
			return nil, err
		}
	}
	g.sort()
	for i := range g.nodes {
		if err := l.linkNode(g, i); err != nil {
			return nil, err
		}
	}
	for i := range g.outputs {
		v := &g.outputs[i]
		slot, ok := l.find(v.name)
		if !ok {
			return nil, l.m.badf("output %q of the graph is made by no node", clip(v.name))
		}
		outs = append(outs, slot)
	}
	return outs, nil
}

// linkInputs defines the inputs. Older files list the initializers among them; those stay constant.
func (l *linker) linkInputs(inputs []valueProto) error {
	seen := map[string]bool{}
	for i := range inputs {
		v := &inputs[i]
		if seen[v.name] {
			return l.m.badf("input %q: the name is already taken", clip(v.name))
		}
		seen[v.name] = true
		if _, initialized := l.slots[v.name]; initialized {
			continue
		}
		slot, err := l.define(v.name, "input")
		if err != nil {
			return err
		}
		info := v.info()
		k, ok := kindOf(v.dtype)
		if !ok {
			l.m.refused.add("type "+typeName(v.dtype), "input "+clip(v.name))
		}
		for _, d := range v.dims {
			if d.known && (d.size < 0 || d.size > math.MaxInt32) {
				return l.m.badf("input %q: a dimension is %d", clip(v.name), d.size)
			}
		}
		info.kind, info.dtype = k, v.dtype
		l.m.inputs = append(l.m.inputs, info)
		l.m.inSlots = append(l.m.inSlots, slot)
	}
	return nil
}

func (v *valueProto) info() ValueInfo {
	info := ValueInfo{Name: v.name, Type: typeName(v.dtype), Any: !v.shaped}
	for _, d := range v.dims {
		dim := Dim{Size: -1, Name: d.param}
		if d.known && d.size >= 0 {
			dim = Dim{Size: int(min(d.size, math.MaxInt32))}
		}
		info.Dims = append(info.Dims, dim)
	}
	return info
}

func (l *linker) linkNode(g *graphProto, at int) error {
	p := &g.nodes[at]
	n := &node{op: p.op, name: p.name, opset: l.m.Opset, attrs: make(map[string]*attrProto, len(p.attrs)), out: make([]int, len(p.outputs))}
	if p.domain != "" && p.domain != "ai.onnx" {
		n.op = p.domain + "." + p.op
	}
	if n.name == "" && len(p.outputs) > 0 {
		n.makes = p.outputs[0]
	}
	def := operators[n.op]
	if def == nil {
		l.m.refused.add("operator "+clip(n.op), n.place())
		return l.defineOutputs(n, p)
	}
	n.def = def
	l.m.weights.noteQuantized(n)
	for i := range p.attrs {
		a := &p.attrs[i]
		if n.attrs[a.name] != nil {
			return l.m.badf("%s: attribute %q is given twice", n.title(), clip(a.name))
		}
		n.attrs[a.name] = a
		if !attributes[n.op].allows(a) {
			l.m.refused.add(fmt.Sprintf("%s of %s", a, n.op), n.place())
		}
	}
	if len(p.inputs) < def.minIn || len(p.inputs) > def.maxIn || len(p.outputs) < 1 || len(p.outputs) > def.maxOut {
		return l.m.badf("%s: %d inputs and %d outputs, expected %d to %d and 1 to %d", n.title(), len(p.inputs), len(p.outputs), def.minIn, def.maxIn, def.maxOut)
	}
	for i, name := range p.inputs {
		slot := -1
		if name != "" {
			known := false
			if slot, known = l.find(name); !known {
				return l.unknownInput(g, at, n, name)
			}
		} else if i < def.minIn {
			return l.m.badf("%s: input %d is left out", n.title(), i)
		}
		n.in = append(n.in, slot)
	}
	if err := l.defineOutputs(n, p); err != nil {
		return err
	}
	l.nodes = append(l.nodes, n)
	return l.linkBranches(n)
}

func (l *linker) defineOutputs(n *node, p *nodeProto) error {
	for i, name := range p.outputs {
		n.out[i] = -1
		if name == "" {
			continue
		}
		slot, err := l.define(name, "output of "+n.title())
		if err != nil {
			return err
		}
		n.out[i] = slot
	}
	return nil
}

// linkBranches links the graphs in a node's attributes: those of If, and the
// bodies of Scan and Loop, which have inputs; that of Loop also makes its condition.
func (l *linker) linkBranches(n *node) error {
	outs := len(n.out)
	if n.op == "Loop" {
		outs++
	}
	for _, name := range map[string][]string{"If": {"then_branch", "else_branch"}, "Scan": {"body"}, "Loop": {"body"}}[n.op] {
		a := n.attrs[name]
		if a == nil || a.graph == nil || (len(a.graph.inputs) > 0) != (n.op != "If") || len(a.graph.outputs) != outs {
			return l.m.badf("%s: attribute %s must be a graph with %d outputs, and with inputs in a loop alone", n.title(), name, outs)
		}
		inner := linker{m: l.m, slots: map[string]int{}, parent: l}
		b := &branch{}
		for i := range a.graph.inputs {
			slot, err := inner.define(a.graph.inputs[i].name, "input of the body of "+n.title())
			if err != nil {
				return err
			}
			b.ins = append(b.ins, slot)
		}
		var err error
		if b.outs, err = inner.body(a.graph); err != nil {
			return err
		}
		b.nodes = inner.nodes
		n.branches = append(n.branches, b)
	}
	return nil
}

// sort puts each node behind those whose outputs it or a graph in it reads; nodes keep
// their order where they can. The standard requires such an order, but not every
// program that changes a graph keeps it: converters to float16 write their casts last.
// Of a cycle some node remains before what it reads.
func (g *graphProto) sort() {
	makes := make(map[string]int, len(g.nodes)) // the node of each name
	for i := range g.nodes {
		for _, name := range g.nodes[i].outputs {
			if _, twice := makes[name]; !twice && name != "" {
				makes[name] = i
			}
		}
	}
	sorted := make([]nodeProto, 0, len(g.nodes))
	seen, placed := make([]bool, len(g.nodes)), make([]bool, len(g.nodes))
	var open []int // nodes, each after the one that reads it; a chain may be long, so no recursion
	for i := range g.nodes {
		open = append(open, i)
		for len(open) > 0 {
			n := open[len(open)-1]
			if !seen[n] {
				seen[n] = true
				before := len(open)
				g.nodes[n].reads(func(name string) {
					if from, ok := makes[name]; ok && !seen[from] {
						open = append(open, from)
					}
				})
				slices.Reverse(open[before:])
				continue
			}
			open = open[:len(open)-1]
			if !placed[n] {
				placed[n] = true
				sorted = append(sorted, g.nodes[n])
			}
		}
	}
	g.nodes = sorted
}

// reads calls f with the names that a node reads, and of the graphs in it those that
// they do not make themselves.
func (n *nodeProto) reads(f func(name string)) {
	for _, name := range n.inputs {
		f(name)
	}
	for i := range n.attrs {
		g := n.attrs[i].graph
		if g == nil {
			continue
		}
		own := map[string]bool{}
		for j := range g.inputs {
			own[g.inputs[j].name] = true
		}
		for j := range g.initializers {
			own[g.initializers[j].name] = true
		}
		for j := range g.nodes {
			for _, name := range g.nodes[j].outputs {
				own[name] = true
			}
		}
		outer := func(name string) {
			if !own[name] {
				f(name)
			}
		}
		for j := range g.nodes {
			g.nodes[j].reads(outer)
		}
		for j := range g.outputs {
			outer(g.outputs[j].name)
		}
	}
}

// unknownInput returns an error for a name that cannot be read. Nodes are sorted, so a
// later definition is a cycle.
func (l *linker) unknownInput(g *graphProto, at int, n *node, name string) error {
	for i := at; i < len(g.nodes); i++ {
		for _, out := range g.nodes[i].outputs {
			if out == name {
				return l.m.badf("%s reads %q, which only it or a later node makes: the graph has a cycle", n.title(), clip(name))
			}
		}
	}
	return l.m.badf("%s reads %q, which nothing makes", n.title(), clip(name))
}

// prepare computes constants, calls the operators' prepare, and packs their
// weights in one slab.
func (m *Model) prepare() (err error) {
	if m.nodes, err = m.prepareNodes(newFolder(m), m.nodes); err != nil {
		return err
	}
	m.running = m.fused(m.nodes, m.outSlots)
	if len(m.params) > 0 {
		tensor.Pack(m.dev, struct{ Weights []*tensor.Param }{m.params}, 0)
	}
	lifetimes(m.running, m.inSlots, m.outSlots)
	return nil
}

// prepareNodes returns the nodes that remain.
func (m *Model) prepareNodes(f *folder, nodes []*node) (kept []*node, err error) {
	for _, n := range nodes {
		for _, b := range n.branches {
			if b.nodes, err = m.prepareNodes(f, b.nodes); err != nil {
				return nil, err
			}
		}
		weights := len(m.params)
		if n.def.prepare != nil {
			if err := m.guard(n, func() { n.prepared = n.def.prepare(m, n) }); err != nil {
				return nil, err
			}
		}
		if len(m.params) > weights || !f.fold(n) {
			kept = append(kept, n)
		} else if n.op != "Constant" {
			m.weights.folded = append(m.weights.folded, n)
		}
	}
	return kept, nil
}

// constant returns the value of a constant input, or nil.
func (m *Model) constant(n *node, i int) *value {
	if i >= len(n.in) || n.in[i] < 0 {
		return nil
	}
	return m.constants[n.in[i]]
}

// has reports whether input i is given.
func (n *node) has(i int) bool { return i < len(n.in) && n.in[i] >= 0 }

// param adds weights to the model's slab.
func (m *Model) param(w []float32, dims ...int) *tensor.Param {
	p := tensor.NewParam(fmt.Sprintf("w%d", len(m.params)), func(_ *rand.Rand, dst []float32, _ []int) { copy(dst, w) }, dims...)
	m.params = append(m.params, p)
	return p
}

// attr returns an attribute and checks its type; nil if it is not given.
func (n *node) attr(name string, typ int64) *attrProto {
	a := n.attrs[name]
	if a != nil && a.typ != typ {
		n.failf("attribute %s: expected type %d, got %d", name, typ, a.typ)
	}
	return a
}

func (n *node) intAttr(name string, def int64) int64 {
	if a := n.attr(name, attrInt); a != nil {
		return a.i
	}
	return def
}

func (n *node) floatAttr(name string, def float32) float32 {
	if a := n.attr(name, attrFloat); a != nil {
		return a.f
	}
	return def
}

func (n *node) stringAttr(name, def string) string {
	if a := n.attr(name, attrString); a != nil {
		return a.s
	}
	return def
}

func (n *node) intsAttr(name string) []int64 {
	if a := n.attr(name, attrInts); a != nil {
		return a.ints
	}
	return nil
}

// clip returns an untrusted name in a form that can be printed in one line of
// limited length.
func clip(name string) string {
	const most = 120
	cut := ""
	if len(name) > most {
		name, cut = name[:most], "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?")) + cut
}
