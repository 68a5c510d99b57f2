package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// Direction is one direction of one layer: its parameters by kind, as
// [cell.Params] has them, and the slot of its state. Those that the cell or an
// option does not use are nil.
type Direction struct {
	Params  [cell.NumParams]*Tensor
	Reverse bool
	Slot    int // index into the first dimension of the states
}

// Scan runs one recurrent layer over a time-major batch x [T,B,I] and returns
// [T,B,len(dirs)*O]. Initial states come from the slots of init (nil: zeros),
// final ones go to the slots of final; options are those of o (nil: none); past a row's length the output is zero
// and the state stays. A reversed direction begins at each row's true last step.
func Scan(kind cell.Kind, x *Tensor, dirs []Direction, o *cell.Options, init, final *State) *Tensor {
	t := tapeOf("Scan", x, dirs[0].Params[cell.W])
	if x.rank != 3 || x.seq != nil && !x.seq.timeMajor {
		failf("Scan", "needs a time-major batch [T,B,I], got %s", describe(x))
	}
	if o == nil {
		o = &noOptions
	}
	y := t.Empty(x.dims[0], x.dims[1], len(dirs)*final.H.dims[2])
	y.seq = x.seq
	for i := range dirs {
		t.scanDirection(kind, x, y, i, &dirs[i], o, init, final)
	}
	return y
}

var noOptions cell.Options

func (t *Tape) scanDirection(kind cell.Kind, x, y *Tensor, i int, d *Direction, o *cell.Options, init, final *State) {
	s := t.scanSpec(kind, x, y, i, d, o, final)
	n, hn, cn := t.begin(s, scanGrad, x, y, d, o, init, final)
	s.Keep = n != nil
	s.Work = t.arena.alloc(t.backend.ScanWork(s))
	if n != nil && t.tracing {
		t.trace(s, x, d.Params[cell.W])
	}
	t.backend.Scan(s)
	t.end(x, hn, cn, d, final)
}

// scanSpec is a scan without what the pass gives it: shape, options and parameters.
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
		s.Active, s.Rows = x.seq.on.active, x.seq.on.order
	}
	for p, w := range d.Params {
		if w != nil {
			s.Params[p] = w.value
		}
	}
	return s
}

// begin gives a scan its masks' key, initial states and room for final ones, and
// records it if a gradient is wanted.
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
	s.Cache, s.BackCache, s.Version = t.rest(s.T*s.B, in[cell.W], in[cell.R], in[cell.P])
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
		n.scan, n.outs, n.state = s, [2]*Tensor{hn, cn}, all
		hn.needs = true
		if cn != nil {
			cn.needs = true
		}
	}
	return n, hn, cn
}

// end puts the final states into their slots.
func (t *Tape) end(x, hn, cn *Tensor, d *Direction, final *State) {
	t.stateOut(hn, x, final.H, d.Slot)
	if cn != nil {
		t.stateOut(cn, x, final.C, d.Slot)
	}
}

// operands are a scan's input and what else it reads, by kind; nil where there is none.
type operands [1 + cell.NumOperands]*Tensor

func scanGrad(t *Tape, n *node) {
	n.scanGradients()
	t.backend.ScanGrad(n.scan)
}

// scanGradients gives a recorded scan the gradients that have come so far, and
// places for its own.
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
	s.DX, s.DXAcc = n.state[0].into()
	for p, w := range n.state[1:] {
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

// stateIn takes a slot of an initial state, rows in the engine's order.
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

// stateOut puts a final state into its slot, rows in the user's order.
func (t *Tape) stateOut(hn, x, final *Tensor, slot int) {
	t.move(final, hn, slotBlock(x, final, slot, true), true)
}

// slotBlock moves one slot of a state [slots,B,H], rows in the user's order, to
// a [B,H] in the engine's order; with put, back.
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

// ScanFloats is how many numbers a training pass of one direction keeps on dev
// (nil: the [CPU]) for each step of B rows, with the parameters that the options need.
func ScanFloats(dev *Device, kind cell.Kind, hidden, proj int, norm bool, B int, o cell.Options) int {
	s := device.ScanSpec{Cell: kind, B: B, H: hidden, Proj: proj, Keep: true, CellOptions: device.CellOptions{Options: o}}
	if norm {
		s.Params[cell.NormX].N = 1
	}
	work := func(steps int) int {
		s.T = steps
		return dev.orCPU().backend.ScanWork(&s)
	}
	return (work(1+cacheLine) - work(1)) / cacheLine // what is only there once, and what rounds up to a line, cancels out
}
