package tensor

import (
	"cmp"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// Direction is one direction of one layer.
type Direction struct {
	Params  [cell.NumParams]*Tensor // by kind, with the shapes of [cell.Params]; nil where the cell and its options use none
	Reverse bool                    // from the last step to the first
	Slot    int                     // index into the first dimension of the states
}

// Scan runs one recurrent layer with one or two directions over a time-major batch x
// [T,B,I] and returns its output [T,B,len(dirs)*O]. Initial states are read from the
// slots of init (nil: zeros) and final states written to the slots of final, which
// [Tape.NewState] makes; a nil o is the cell without options. Past the length of a
// row its output is zero and its state does not change. A reversed direction starts at
// the last true step of each row. Shapes that do not fit panic with a [*ShapeError].
func Scan(kind cell.Kind, x *Tensor, dirs []Direction, o *cell.Options, init, final *State) *Tensor {
	checkTime("Scan", x)
	return scanLayer(kind, x, dirs, o, init, final, false)
}

// ScanBatch is [Scan] of a batch [B,T,I], whose rows have no lengths, in its own layout: the
// output is [B,T,len(dirs)*O].
func ScanBatch(kind cell.Kind, x *Tensor, dirs []Direction, o *cell.Options, init, final *State) *Tensor {
	checkBatch("ScanBatch", x)
	if x.seq != nil {
		failf("ScanBatch", "rows have lengths: TimeMajor and Scan take these")
	}
	return scanLayer(kind, x, dirs, o, init, final, true)
}

func scanLayer(kind cell.Kind, x *Tensor, dirs []Direction, o *cell.Options, init, final *State, batch bool) *Tensor {
	t := tapeOf("Scan", x, dirs[0].Params[cell.W])
	o = cmp.Or(o, &noOptions)
	y := t.Empty(x.dims[0], x.dims[1], len(dirs)*final.H.dims[2])
	y.layout = x.layout
	for i := range dirs {
		t.scanDirection(kind, x, y, i, &dirs[i], o, init, final, batch)
	}
	return y
}

var noOptions cell.Options

func (t *Tape) scanDirection(kind cell.Kind, x, y *Tensor, i int, d *Direction, o *cell.Options, init, final *State, batch bool) {
	s := t.scanSpec(kind, x, y, i, d, o, final)
	if s.BatchMajor = batch; batch {
		s.T, s.B = s.B, s.T
	}
	n, hn, cn := t.begin(s, scanGrad, x, y, d, o, init, final)
	s.Keep = n != nil
	s.Work = t.arena.alloc(t.backend.ScanWork(s))
	if n != nil && t.tracing {
		t.trace(s, x, d.Params[cell.W])
	}
	t.backend.Scan(s)
	t.observe(d.Params[cell.W], x, 0)
	t.observe(d.Params[cell.R], y, s.YOff)
	t.end(x, hn, cn, d, final)
}

// scanSpec returns the spec of a scan with its shape, options and parameters, but
// without states and memory.
func (t *Tape) scanSpec(kind cell.Kind, x, y *Tensor, i int, d *Direction, o *cell.Options, final *State) *device.ScanSpec {
	s := t.scans.next()
	O := final.H.dims[2]
	s.Cell, s.Reverse = kind, d.Reverse
	s.T, s.B, s.I, s.H = x.dims[0], x.dims[1], x.dims[2], O
	s.X, s.Y, s.YLd, s.YOff = x.value, y.value, y.dims[2], i*O
	if p := d.Params[cell.P]; p != nil {
		s.H, s.Proj = p.dims[1], O
	}
	s.CellOptions = device.CellOptions{Options: *o, Expect: t.mode != Train}
	if t.mode != Train {
		s.HDrop = 0
	}
	checkDirection(s, d)
	if x.seq != nil {
		s.Active, s.Rows, s.Lengths = x.seq.on.active, x.seq.on.order, x.seq.sorted
	}
	for p, w := range d.Params {
		if w != nil {
			s.Params[p] = w.value
		}
	}
	w, r, p := d.Params[cell.W], d.Params[cell.R], d.Params[cell.P]
	s.Kinds[cell.W], s.Kinds[cell.R], s.Kinds[cell.P] = t.kindOf(w, w, r, p), t.kindOf(r, w, r, p), t.kindOf(p, w, r, p)
	return s
}

// begin sets a scan's key of dropout masks, its initial states and the memory of its
// final states, and records it if its result needs a gradient.
func (t *Tape) begin(s *device.ScanSpec, back func(*Tape, *node), x, y *Tensor, d *Direction, o *cell.Options, init, final *State) (n *node, hn, cn *Tensor) {
	if s.HDrop > 0 || t.mode == Train && (s.ZoneH > 0 || s.ZoneC > 0) {
		s.Seed, s.Step, s.Node = t.seed, t.step, t.drops+1
		t.drops += 3 // dropout and both zoneouts
	}
	all := operands{x}
	in := all[1:]
	copy(in, d.Params[:])
	if r := in[cell.R]; r != nil && o.WeightDrop > 0 && t.mode == Train {
		in[cell.R] = t.dropped(r, o.WeightDrop)
	}
	s.Cache, s.BackCache, s.Version = t.caches(s.Kinds[cell.W], s.T*s.B, in[cell.W], in[cell.R], in[cell.P])
	if init != nil {
		in[cell.H0] = t.stateIn("h", init.H, x, final.H, d.Slot)
		if final.C != nil {
			in[cell.C0] = t.stateIn("c", init.C, x, final.C, d.Slot)
		}
	}
	for p, w := range in {
		if w != nil {
			s.Params[p] = w.value
		}
	}
	hn = t.Empty(s.B, s.Out())
	s.HN = hn.value
	if final.C != nil {
		cn = t.Empty(s.B, s.CellWidth())
		s.CN = cn.value
	}
	if n = t.record(back, y, all[:]...); n != nil {
		n.scan, n.outs = s, [2]*Tensor{hn, cn}
		hn.needs = true
		if cn != nil {
			cn.needs = true
		}
	}
	return n, hn, cn
}

// end copies the final states to their slots.
func (t *Tape) end(x, hn, cn *Tensor, d *Direction, final *State) {
	t.stateOut(hn, x, final.H, d.Slot)
	if cn != nil {
		t.stateOut(cn, x, final.C, d.Slot)
	}
}

// operands are the operands of a node. Those of a scan are its input and then its
// parameters and initial states by kind; absent ones are nil.
type operands [1 + cell.NumOperands]*Tensor

func scanGrad(t *Tape, n *node) {
	n.scanGradients()
	t.backend.ScanGrad(n.scan)
}

// scanGradients sets the gradients that a recorded scan reads and writes.
func (n *node) scanGradients() {
	s := n.scan
	if n.out.gradSet {
		s.DY = n.out.grad
	}
	if hn := n.outs[0]; hn.gradSet {
		s.DHN = hn.grad
	}
	if cn := n.outs[1]; cn != nil && cn.gradSet {
		s.DCN = cn.grad
	}
	s.DX, s.DXAcc = n.in[0].into()
	for p, w := range n.in[1:] {
		s.Grads[p] = w.intoZeroed()
	}
}

func checkDirection(s *device.ScanSpec, d *Direction) {
	for k, w := range d.Params {
		p, dims := &cell.Params[k], s.Dims(cell.Param(k))
		if w != nil && !slices.Equal(w.dims[:w.rank], dims[:p.Rank()]) {
			failf("Scan", "%s must be %s, got %s", p.Name, shape(slices.Clone(dims[:p.Rank()])), describe(w))
		}
	}
}

// stateIn returns a slot of an initial state, [B,H], rows in sorted order.
func (t *Tape) stateIn(name string, state, x, like *Tensor, slot int) *Tensor {
	if state == nil {
		return nil
	}
	state.live("Scan")
	if !state.sameShape(like) {
		failf("Scan", "initial %s must be [layers*directions,B,H] %s, got %s", name, describe(like), describe(state))
	}
	y := t.Empty(like.dims[1], like.dims[2])
	t.move(y, state, slotBlock(x, state, slot, false), false)
	return y
}

// stateOut copies a final state to its slot, rows in the user's order.
func (t *Tape) stateOut(hn, x, final *Tensor, slot int) {
	t.move(final, hn, slotBlock(x, final, slot, true), true)
}

// slotBlock moves one slot of a state [slots,B,H], rows in the user's order, to a
// [B,H] in sorted order or, with put, the other way.
func slotBlock(x, state *Tensor, slot int, put bool) device.PermuteSpec {
	B, H := state.dims[1], state.dims[2]
	s := device.PermuteSpec{Dims: [4]int{1, 1, B, H}, SrcOff: slot * B * H, SrcStride: [4]int{0, 0, H, 1}, DstStride: [4]int{0, 0, H, 1}, RowDim: 2}
	if x.seq != nil {
		s.Rows, s.RowsDst = x.seq.on.order, put
	}
	if put {
		s.SrcOff, s.DstOff = 0, s.SrcOff
	}
	return s
}

// ScanFloats returns how many numbers per step of B rows a training pass of one
// direction keeps on dev (nil: the [CPU]): of a cell with hidden units, projection to
// proj numbers (0: none), layer normalisation if norm, and options o, with products in
// p. Two of 16 bits count as one number.
func ScanFloats(dev *Device, kind cell.Kind, hidden, proj int, norm bool, B int, o cell.Options, p Precision) int {
	s := device.ScanSpec{Cell: kind, B: B, H: hidden, Proj: proj, Keep: true, CellOptions: device.CellOptions{Options: o}}
	s.Kinds[cell.W] = device.Kind(p)
	if norm {
		s.Params[cell.NormX].N = 1
	}
	work := func(steps int) int {
		s.T = steps
		return dev.orCPU().backend.ScanWork(&s)
	}
	return (work(1+cacheLine) - work(1)) / cacheLine // memory for the whole pass and rounding to cache lines cancel out
}
