package graph

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/tensor"
)

// recurrent is an LSTM, GRU or RNN node: its attributes, and its weights if they
// are constant.
type recurrent struct {
	op         string
	gates      int
	engine     bool      // the engine has this cell
	plain      bool      // and it is one of PyTorch's
	cell       cell.Kind // if so
	order      []int     // the place in ONNX of each gate of that cell
	options    cell.Options
	hidden     int // 0: as the weights say
	directions int
	backward   bool // one direction, and it is the reverse
	batchMajor bool // layout 1
	linear     bool
	coupled    bool
	clip       float64
	acts       []activation // for each direction in turn
	dirs       []tensor.Direction
	input      int // features, with dirs
}

// defaultActivations of one direction.
var defaultActivations = map[string][]string{"LSTM": {"sigmoid", "tanh", "tanh"}, "GRU": {"sigmoid", "tanh"}, "RNN": {"tanh"}}

func prepareRecurrent(m *Model, n *node) any {
	some, _ := cell.Find(func(s *cell.Spec) bool { return s.ONNX == n.op })
	c := &recurrent{op: n.op, gates: len(some.Spec().ONNXGates), directions: 1}
	switch d := n.stringAttr("direction", "forward"); d {
	case "forward":
	case "reverse":
		c.backward = true
	case "bidirectional":
		c.directions = 2
	default:
		n.failf("direction %q: expected forward, reverse or bidirectional", clip(d))
	}
	hidden := n.intAttr("hidden_size", 0)
	if hidden < 0 || hidden > math.MaxInt32 {
		n.failf("hidden_size is %d", hidden)
	}
	c.hidden = int(hidden)
	c.batchMajor = n.intAttr("layout", 0) != 0
	c.linear = n.op == "GRU" && n.intAttr("linear_before_reset", 0) != 0
	c.coupled = n.op == "LSTM" && n.intAttr("input_forget", 0) != 0
	c.clip = float64(n.floatAttr("clip", 0))
	if !(c.clip >= 0) {
		n.failf("clip is %v", c.clip)
	}
	c.readActivations(n)
	c.chooseEngine(n)
	if !c.engine {
		return c
	}
	if w, r, b, p := m.constant(n, 1), m.constant(n, 2), m.constant(n, 3), m.constant(n, 7); w != nil && r != nil && (b != nil || !n.has(3)) && (p != nil || !n.has(7)) {
		hidden, _ := c.check(n, w, r, b)
		if p == nil || p.kind == floats && slices.Equal(p.dims, []int{c.directions, 3 * hidden}) { // others are refused when it runs
			c.keep(m, n, w, r, b, p)
		}
	}
	return c
}

// readActivations reads the functions and their parameters, in order.
func (c *recurrent) readActivations(n *node) {
	names := slices.Concat(defaultActivations[n.op])
	if c.directions == 2 {
		names = append(names, names...)
	}
	if a := n.attr("activations", attrStrings); a != nil && len(a.strings) > 0 {
		if len(a.strings) != len(names) {
			n.failf("expected %d activations, got %d", len(names), len(a.strings))
		}
		names = a.strings
	}
	var alphas, betas []float32
	if a := n.attr("activation_alpha", attrFloats); a != nil {
		alphas = a.floats
	}
	if a := n.attr("activation_beta", attrFloats); a != nil {
		betas = a.floats
	}
	for _, name := range names {
		a, takes, ok := newActivation(name)
		if !ok {
			n.failf("activation %q is not supported", clip(name))
		}
		if takes > 0 && len(alphas) > 0 {
			a.alpha, alphas = float64(alphas[0]), alphas[1:]
		}
		if takes > 1 && len(betas) > 0 {
			a.beta, betas = float64(betas[0]), betas[1:]
		}
		c.acts = append(c.acts, a)
	}
}

// engineActivations are the functions that the engine has, with their parameters
// there.
var engineActivations = map[string]struct {
	is          cell.Activation
	alpha, beta float64
}{
	"sigmoid": {is: cell.Sigmoid}, "tanh": {is: cell.Tanh}, "relu": {is: cell.ReLU},
	"softsign": {is: cell.Softsign}, "softplus": {is: cell.Softplus},
	"hardsigmoid": {cell.HardSigmoid, 0.2, 0.5}, "leakyrelu": {cell.LeakyReLU, 0.01, 0}, "elu": {cell.ELU, 1, 0},
}

// chooseEngine sets the engine's cell for these options, if there is one.
func (c *recurrent) chooseEngine(n *node) {
	d := defaultActivations[n.op]
	var acts [3]cell.Activation
	usual := true
	for i, a := range c.acts {
		e, ok := engineActivations[a.name]
		if !ok || float32(a.alpha) != float32(e.alpha) || float32(a.beta) != float32(e.beta) || i >= len(d) && acts[i%len(d)] != e.is {
			return // unknown, with other numbers, or not the same in both directions
		}
		acts[i%len(d)] = e.is
		usual = usual && a.name == d[i%len(d)]
	}
	relu := n.op == "RNN" && acts[0] == cell.ReLU
	c.engine = true
	c.cell, _ = cell.Find(func(s *cell.Spec) bool {
		return s.ONNX == n.op && (s.ONNXFlag != "") == (c.linear || c.coupled) && (s.Candidate() == cell.ReLU) == relu
	})
	spec := c.cell.Spec()
	for gate := range spec.Gates {
		c.order = append(c.order, slices.Index(spec.ONNXGates, gate))
	}
	c.options.GateClip = float32(c.clip)
	if n.op == "RNN" {
		c.options.InAct = acts[0]
	} else {
		c.options.GateAct, c.options.InAct, c.options.OutAct = acts[0], acts[1], acts[2]
	}
	c.plain = (usual || relu) && c.clip == 0 && !n.has(7) && spec.Torch != ""
}

// check compares the shapes of W [D,G*H,I], R [D,G*H,H] and B [D,2*G*H] and returns H and I.
func (c *recurrent) check(n *node, w, r, b *value) (hidden, input int) {
	if w.kind != floats || r.kind != floats || w.rank() != 3 || r.rank() != 3 {
		n.failf("W and R must be [directions,rows,columns] of floats, got shapes %s and %s", shape(w.dims), shape(r.dims))
	}
	hidden, input = r.dims[2], w.dims[2]
	rows := c.gates * hidden
	if c.hidden > 0 && c.hidden != hidden {
		n.failf("hidden_size is %d, R of shape %s has %d", c.hidden, shape(r.dims), hidden)
	}
	if !slices.Equal(w.dims, []int{c.directions, rows, input}) || !slices.Equal(r.dims, []int{c.directions, rows, hidden}) || hidden == 0 || input == 0 {
		n.failf("W must be %s and R %s, got %s and %s", shape([]int{c.directions, rows, input}), shape([]int{c.directions, rows, hidden}), shape(w.dims), shape(r.dims))
	}
	if b != nil && (b.kind != floats || !slices.Equal(b.dims, []int{c.directions, 2 * rows})) {
		n.failf("B must be %s, got %s", shape([]int{c.directions, 2 * rows}), shape(b.dims))
	}
	return hidden, input
}

// reordered converts the blocks of gates from ONNX's order to the engine's.
func (c *recurrent) reordered(w []float32) []float32 {
	out := make([]float32, 0, len(w))
	n := len(w) / c.gates
	for _, from := range c.order {
		out = append(out, w[from*n:(from+1)*n]...)
	}
	return out
}

// weightsOf returns the weights of direction d in the engine's order; biases are
// nil if there are none.
func (c *recurrent) weightsOf(d, hidden, input int, w, r, b []float32) (W, R, BW, BR []float32) {
	rows := c.gates * hidden
	W = c.reordered(w[d*rows*input:][:rows*input])
	R = c.reordered(r[d*rows*hidden:][:rows*hidden])
	if b != nil {
		BW = c.reordered(b[d*2*rows:][:rows])
		BR = c.reordered(b[d*2*rows+rows:][:rows])
	}
	return W, R, BW, BR
}

// keep makes parameters of constant weights.
func (c *recurrent) keep(m *Model, n *node, w, r, b, p *value) {
	hidden, input := r.dims[2], w.dims[2]
	rows := len(c.order) * hidden
	c.input = input
	for d := range c.directions {
		// at returns the places of the elements of direction d, of which a gate has a number.
		at := func(gate int) func(i int) int {
			return func(i int) int { return (d*c.gates+c.order[i/gate])*gate + i%gate }
		}
		dir := tensor.Direction{Reverse: c.reverse(d), Slot: d}
		dir.Params[cell.W] = m.weight(n, 1, n.op+" input", at(hidden*input), rows, input).T()
		dir.Params[cell.R] = m.weight(n, 2, n.op+" recurrent", at(hidden*hidden), rows, hidden).T()
		if b != nil {
			both := b.host[d*2*c.gates*hidden:][:2*c.gates*hidden]
			dir.Params[cell.BW], dir.Params[cell.BR] = m.param(c.reordered(both[:c.gates*hidden]), rows).T(), m.param(c.reordered(both[c.gates*hidden:]), rows).T()
		}
		if p != nil {
			c.peepholes(&dir, p.host[d*3*hidden:], func(w []float32) *tensor.Tensor { return m.param(w[:hidden], hidden).T() }, hidden)
		}
		c.dirs = append(c.dirs, dir)
	}
}

// peepholes sets those of a direction, which p has in the order i, o, f.
func (c *recurrent) peepholes(dir *tensor.Direction, p []float32, add func(w []float32) *tensor.Tensor, hidden int) {
	dir.Params[cell.PeepI], dir.Params[cell.PeepO] = add(p), add(p[hidden:])
	if !c.coupled {
		dir.Params[cell.PeepF] = add(p[2*hidden:])
	}
}

func (c *recurrent) reverse(d int) bool { return c.backward || d == 1 }

// directionsFor returns the engine's weights: the prepared ones, or those of this
// run.
func (c *recurrent) directionsFor(r *run, hidden, input int, in []*value) []tensor.Direction {
	if c.dirs != nil {
		return c.dirs
	}
	rows := len(c.order) * hidden
	var biases []float32
	if in[3] != nil {
		biases = in[3].floats()
	}
	dirs := make([]tensor.Direction, c.directions)
	for d := range dirs {
		W, R, BW, BR := c.weightsOf(d, hidden, input, in[1].floats(), in[2].floats(), biases)
		dirs[d] = tensor.Direction{Reverse: c.reverse(d), Slot: d}
		ps := &dirs[d].Params
		ps[cell.W], ps[cell.R] = r.tape.Input(W, rows, input), r.tape.Input(R, rows, hidden)
		if biases != nil {
			ps[cell.BW], ps[cell.BR] = r.tape.Input(BW, rows), r.tape.Input(BR, rows)
		}
		if len(in) > 7 && in[7] != nil { // i, o, f
			c.peepholes(&dirs[d], in[7].floats()[d*3*hidden:], func(w []float32) *tensor.Tensor { return r.tape.Input(w[:hidden], hidden) }, hidden)
		}
	}
	return dirs
}

// call is one recording of a recurrent node.
type call struct {
	*recurrent
	r          *run
	plan       *plan
	n          *node
	in         []*value
	T, B, I, H int
	lengths    []int32 // of the rows; nil: every row is T long
	y, h, cs   *value  // results: [T,D,B,H], [D,B,H], [D,B,H] of an LSTM
	x, h0, cs0 *value  // what the engine reads: X in the order of batches, initial states [D,B,H] or nil
	init       tensor.State
	parts      *parts // nil: the engine runs all steps at once
}

// segment is the least size of a part of a long sequence. Between parts the run ends if it is
// not wanted any more.
type segment struct {
	work int // multiply-adds
	rows int // of all steps together
}

// usualSegment takes some milliseconds, and so many rows that reading the weights for each part
// costs nothing that can be measured.
var usualSegment = segment{1 << 28, 32}

// parts is the memory of a node that runs in parts of a number of steps.
type parts struct {
	steps   int
	x       *value  // of a part, if the steps of all rows do not lie together: [B,steps,I]
	y       *value  // of a part and a direction, of two: [steps,B,H]
	lengths []int32 // of the rows in a part
	dir     [1]tensor.Direction
}

// divide sets c.parts, if the sequence is long.
func (c *call) divide() {
	least := c.r.m.segment
	steps := max(least.work/(c.B*c.gates*c.H*(c.I+c.H)), (least.rows+c.B-1)/c.B)
	if steps >= c.T {
		return
	}
	p := &parts{steps: steps}
	if c.batchMajor || c.lengths != nil {
		p.x = c.r.newFloats(c.n, []int{c.B, steps, c.I})
	}
	if c.directions > 1 {
		p.y = c.r.newFloats(c.n, []int{steps, c.B, c.H})
	}
	if c.lengths != nil {
		p.lengths = make([]int32, c.B)
	}
	c.parts = p
}

func runRecurrent(r *run, n *node, in []*value) []*value {
	c := &call{recurrent: n.prepared.(*recurrent), r: r, plan: r.plan, n: n, in: in}
	c.H, c.I = c.check(n, in[1], in[2], in[3])
	x := in[0]
	if x.kind != floats || x.rank() != 3 || x.dims[2] != c.I {
		n.failf("X must be 3 dimensions of floats, the last %d, got %s of shape %s", c.I, x.kind, shape(x.dims))
	}
	c.T, c.B = x.dims[0], x.dims[1]
	if c.batchMajor {
		c.T, c.B = c.B, c.T
	}
	c.readLengths()
	c.checkStates()
	state := []int{c.directions, c.B, c.H}
	c.y, c.h = r.newFloats(n, []int{c.T, c.directions, c.B, c.H}), r.newFloats(n, state)
	finals := one(c.h)
	if n.op == "LSTM" {
		c.cs, c.cs0 = r.newFloats(n, state), c.state(6)
		finals = append(finals, c.cs)
	}
	c.h0 = c.state(5)
	if c.engine && c.T > 0 && c.B > 0 {
		if c.x = x; c.lengths != nil && !c.batchMajor {
			c.x = r.view(n, x, []int{c.B, c.T, c.I}, []int{c.I, c.B * c.I, 1}, 0)
		}
		c.divide()
		r.onTape(c.scan)
	} else {
		c.reference()
	}
	out := append(one(c.y), finals...)
	if c.batchMajor {
		for i, v := range out {
			out[i] = c.batchFirst(v)
		}
	}
	return out
}

// batchFirst moves B from the second last dimension to the first.
func (c *call) batchFirst(v *value) *value {
	lead := product(v.dims[:v.rank()-2])
	dims := slices.Concat([]int{c.B}, v.dims[:v.rank()-2], []int{c.H})
	return c.r.view(c.n, v, []int{c.B, lead, c.H}, []int{c.H, c.B * c.H, 1}, 0).reshaped(dims)
}

// readLengths reads sequence_lens. If all rows are T long whatever the inputs are,
// there are no lengths.
func (c *call) readLengths() {
	v := c.in[4]
	if v == nil {
		return
	}
	list := c.n.wantInts(v, "sequence_lens")
	if !slices.Equal(v.dims, []int{c.B}) {
		c.n.failf("sequence_lens must be [%d], got %s", c.B, shape(v.dims))
	}
	lengths := make([]int32, c.B)
	c.r.do(func() {
		for b, l := range list {
			if l < 0 || l > int64(c.T) {
				c.n.failf("sequence_lens of row %d is %d, expected 0 to %d", b, l, c.T)
			}
			lengths[b] = int32(l)
		}
	})
	if v.varies() || slices.ContainsFunc(lengths, func(l int32) bool { return int(l) < c.T }) {
		c.lengths = lengths
	}
}

// checkStates compares the shapes of initial_h, initial_c and P.
func (c *call) checkStates() {
	want := []int{c.directions, c.B, c.H}
	if c.batchMajor {
		want = []int{c.B, c.directions, c.H}
	}
	for i := 5; i < len(c.in); i++ {
		if i == 7 {
			want = []int{c.directions, 3 * c.H}
		}
		if v := c.in[i]; v != nil && (v.kind != floats || !slices.Equal(v.dims, want)) {
			c.n.failf("%s must be %s floats, got %s of shape %s", []string{"initial_h", "initial_c", "P"}[i-5], shape(want), v.kind, shape(v.dims))
		}
	}
}

// state returns initial_h (5) or initial_c (6) as [D,B,H], nil for zeros.
func (c *call) state(i int) *value {
	if i >= len(c.in) || c.in[i] == nil {
		return nil
	}
	if !c.batchMajor {
		return c.in[i]
	}
	dims := []int{c.directions, c.B, c.H}
	return c.r.view(c.n, c.in[i], dims, []int{c.H, c.directions * c.H, 1}, 0)
}

// scan runs the engine.
func (c *call) scan() {
	r, D := c.r, c.directions
	if c.parts != nil {
		for d := range D {
			c.scanParts(d)
		}
		return
	}
	c.init = tensor.State{}
	if c.h0 != nil {
		c.init.H = r.tensor(c.h0, D, c.B, c.H)
	}
	if c.cs0 != nil {
		c.init.C = r.tensor(c.cs0, D, c.B, c.H)
	}
	final := r.tape.NewState(D, c.B, c.H, c.cell.Width(c.H))
	out := tensor.Scan(c.cell, c.timeMajor(c.x.host, c.lengths, c.T), c.directionsFor(r, c.H, c.I, c.in), &c.options, &c.init, final)
	if c.lengths != nil { // back to the given order of rows
		out = tensor.Transpose(tensor.BatchMajor(out), 0, 1)
	}
	if D > 1 {
		out = tensor.Transpose(tensor.Reshape(tensor.Reshape(out, out.Len()), c.T, c.B, D, c.H), 1, 2)
	}
	out.CopyTo(c.y.host)
	final.H.CopyTo(c.h.host)
	if final.C != nil {
		final.C.CopyTo(c.cs.host)
	}
}

// timeMajor returns T steps of X as [T,B,I], with rows sorted if they have lengths.
func (c *call) timeMajor(x []float32, lengths []int32, T int) *tensor.Tensor {
	switch tape := c.r.tape; {
	case lengths != nil:
		return tensor.TimeMajor(tape.Sequences(x, lengths, c.B, T, c.I))
	case c.batchMajor:
		return tensor.TimeMajor(tape.Input(x, c.B, T, c.I))
	default:
		return tape.Input(x, T, c.B, c.I)
	}
}

// scanParts runs direction d in parts, in the order of its steps, on a tape that is empty for
// each. The state between two is where the final one will be.
func (c *call) scanParts(d int) {
	p, tape, BH := c.parts, c.r.tape, c.B*c.H
	state := func(v, first *value, begun bool) *tensor.Tensor {
		switch {
		case v == nil || !begun && first == nil:
			return nil
		case !begun:
			v = first
		}
		return tape.Input(v.host[d*BH:][:BH], 1, c.B, c.H)
	}
	n := (c.T + p.steps - 1) / p.steps
	for k := range n {
		c.plan.goOn()
		tape.Reset()
		lo := turn(k, n, c.reverse(d)) * p.steps
		T := min(p.steps, c.T-lo)
		c.init = tensor.State{H: state(c.h, c.h0, k > 0), C: state(c.cs, c.cs0, k > 0)}
		final := tape.NewState(1, c.B, c.H, c.cell.Width(c.H))
		p.dir[0] = c.directionsFor(c.r, c.H, c.I, c.in)[d]
		p.dir[0].Slot = 0
		x, lengths := c.part(lo, T)
		out := tensor.Scan(c.cell, c.timeMajor(x, lengths, T), p.dir[:], &c.options, &c.init, final)
		if lengths != nil {
			out = tensor.Transpose(tensor.BatchMajor(out), 0, 1)
		}
		if c.directions == 1 {
			out.CopyTo(c.y.host[lo*BH:][:T*BH])
		} else {
			out.CopyTo(p.y.host[:T*BH])
			for t := range T {
				copy(c.y.host[((lo+t)*c.directions+d)*BH:][:BH], p.y.host[t*BH:])
			}
		}
		final.H.CopyTo(c.h.host[d*BH:][:BH])
		if final.C != nil {
			final.C.CopyTo(c.cs.host[d*BH:][:BH])
		}
	}
}

// part returns T steps of X from lo on, and how many of them are inside each row.
func (c *call) part(lo, T int) (x []float32, lengths []int32) {
	p := c.parts
	if p.x == nil {
		return c.x.host[lo*c.B*c.I:][:T*c.B*c.I], nil
	}
	for b := range c.B {
		copy(p.x.host[b*T*c.I:][:T*c.I], c.x.host[(b*c.T+lo)*c.I:])
		if p.lengths != nil {
			p.lengths[b] = min(max(c.lengths[b]-int32(lo), 0), int32(T))
		}
	}
	return p.x.host[:c.B*T*c.I], p.lengths
}

// reference runs the plain cell.
func (c *call) reference() {
	D, T, B, H := c.directions, c.T, c.B, c.H
	x := c.in[0]
	if c.batchMajor {
		x = c.r.view(c.n, x, []int{T, B, c.I}, []int{c.I, T * c.I, 1}, 0)
	}
	part := c.r.newFloats(c.n, []int{T, B, H})
	rows, goOn := make([]*cellRow, D), c.plan.goOn
	for d := range rows {
		rows[d] = newCellRow(c.plain(d))
	}
	c.r.do(func() {
		copyOrClear(c.h, c.h0)
		if c.cs != nil {
			copyOrClear(c.cs, c.cs0)
		}
		for d, row := range rows {
			var cells []float32
			if c.cs != nil {
				cells = c.cs.host[d*B*H:][:B*H]
			}
			clear(part.host)
			row.scan(x.host, part.host, c.lengths, T, B, c.h.host[d*B*H:][:B*H], cells, goOn)
			for t := range T {
				copy(c.y.host[(t*D+d)*B*H:][:B*H], part.host[t*B*H:])
			}
		}
	})
}

func copyOrClear(dst, src *value) {
	if src == nil {
		clear(dst.host)
	} else {
		copy(dst.host, src.host)
	}
}

// plain returns direction d as the plain cell.
func (c *call) plain(d int) *plainCell {
	per := len(c.acts) / c.directions
	rows := c.gates * c.H
	p := &plainCell{op: c.op, I: c.I, H: c.H, acts: c.acts[d*per:][:per], clip: c.clip, coupled: c.coupled, linear: c.linear, reverse: c.reverse(d),
		w: c.in[1].floats()[d*rows*c.I:][:rows*c.I], r: c.in[2].floats()[d*rows*c.H:][:rows*c.H]}
	if c.in[3] != nil {
		p.b = c.in[3].floats()[d*2*rows:][:2*rows]
	}
	if len(c.in) > 7 && c.in[7] != nil {
		p.p = c.in[7].floats()[d*3*c.H:][:3*c.H]
	}
	return p
}
