package tensor

import (
	"github.com/carousel-ml/carousel/internal/device"
)

// Cell names a recurrent cell.
type Cell = device.Cell

// The cells of the engine.
const (
	LSTMCell    = device.LSTM    // gates i,f,g,o; states h and c
	GRUCell     = device.GRU     // gates r,z,n, reset after the recurrent product, as PyTorch
	RNNTanhCell = device.RNNTanh // Elman
	RNNReLUCell = device.RNNReLU
)

// Gates is the number of gates of a cell, whose matrices have gates*hidden rows.
func Gates(c Cell) int { return device.Cells[c].Gates }

// HasCellState says whether a cell carries c beside h.
func HasCellState(c Cell) bool { return device.Cells[c].States == 2 }

// State is the recurrent state of a stack: H, and C for cells that have it, each
// [layers*directions, B, hidden], layer-major then direction, rows in the
// user's order (torch.nn.LSTM's h_n and c_n).
type State struct{ H, C *Tensor }

// Direction is one direction of one layer: its parameters (W [G*H,I], R [G*H,H],
// biases [G*H] or nil) and the slot of its state.
type Direction struct {
	W, R, BW, BR *Tensor
	Reverse      bool
	Slot         int // index into the first dimension of the states
}

// NewState makes the tensors that [Scan] fills with final states.
func (t *Tape) NewState(cell Cell, slots, B, H int) *State {
	s := t.states.next()
	s.H = t.Zeroless(slots, B, H)
	if HasCellState(cell) {
		s.C = t.Zeroless(slots, B, H)
	}
	return s
}

// Scan runs one recurrent layer over a time-major batch x [T,B,I] and returns
// [T,B,len(dirs)*H]. Initial states come from the slots of init (nil: zeros),
// final ones go to the slots of final; past a row's length the output is zero
// and the state stays. A reversed direction begins at each row's true last step.
func Scan(cell Cell, x *Tensor, dirs []Direction, init, final *State) *Tensor {
	t := tapeOf("Scan", x, dirs[0].W)
	H := final.H.dims[2]
	if x.rank != 3 || x.seq != nil && !x.seq.timeMajor {
		failf("Scan", "needs a time-major batch [T,B,I], got %s", describe(x))
	}
	y := t.Zeroless(x.dims[0], x.dims[1], len(dirs)*H)
	y.seq = x.seq
	for i := range dirs {
		t.scanDirection(cell, x, y, i, &dirs[i], init, final)
	}
	return y
}

func (t *Tape) scanDirection(cell Cell, x, y *Tensor, i int, d *Direction, init, final *State) {
	T, B, I, H := x.dims[0], x.dims[1], x.dims[2], final.H.dims[2]
	G := Gates(cell)
	checkMatrix("weight_ih", d.W, G*H, I)
	checkMatrix("weight_hh", d.R, G*H, H)
	var h0, c0 *Tensor
	if init != nil {
		h0 = t.stateIn("h", init.H, x, final.H, d.Slot)
		if HasCellState(cell) {
			c0 = t.stateIn("c", init.C, x, final.H, d.Slot)
		}
	}
	s := t.scans.next()
	*s = device.ScanSpec{Cell: cell, T: T, B: B, I: I, H: H, Reverse: d.Reverse, X: x.value, W: d.W.value, R: d.R.value,
		Y: y.value, YLd: y.dims[2], YOff: i * H}
	s.Cache, s.Version = t.rest(d.W)
	if x.seq != nil {
		s.Active = x.seq.active
	}
	if d.BW != nil {
		s.BW, s.BR = d.BW.value, d.BR.value
	}
	hn := t.Zeroless(B, H)
	s.HN = hn.value
	var cn *Tensor
	if HasCellState(cell) {
		cn = t.Zeroless(B, H)
		s.CN = cn.value
	}
	if h0 != nil {
		s.H0 = h0.value
	}
	if c0 != nil {
		s.C0 = c0.value
	}
	n := t.record(scanGrad, y, x, d.W, d.R, nil)
	if n == nil && h0 != nil && (h0.needs || c0 != nil && c0.needs) { // frozen weights, live state
		n = t.record(scanGrad, y, h0, c0)
		n.in = [4]*Tensor{x, d.W, d.R}
	}
	s.Keep = n != nil
	t.workspace(s, G)
	if n != nil {
		n.scan, n.outs, n.state = s, [2]*Tensor{hn, cn}, [4]*Tensor{h0, c0, d.BW, d.BR}
		hn.needs = true
		if cn != nil {
			cn.needs = true
		}
	}
	t.backend.Scan(s)
	t.stateOut(hn, x, final.H, d.Slot)
	if cn != nil {
		t.stateOut(cn, x, final.C, d.Slot)
	}
}

// scanChunk is how many elements of gates an inference pass holds at once.
const scanChunk = 1 << 18

// workspace lends the scan what it saves, or what it works in.
func (t *Tape) workspace(s *device.ScanSpec, G int) {
	steps, slots := s.T, s.T+1
	if !s.Keep {
		s.Chunk = max(1, min(s.T, scanChunk/max(1, s.B*G*s.H)))
		steps, slots = s.Chunk, 2
	}
	s.Gates = t.arena.alloc(steps * s.B * G * s.H)
	s.Hs = t.arena.alloc(slots * s.B * s.H)
	if device.Cells[s.Cell].Side {
		s.Side = t.arena.alloc(steps * s.B * s.H)
	}
	if HasCellState(s.Cell) {
		s.Cs = t.arena.alloc(slots * s.B * s.H)
	}
}

func scanGrad(t *Tape, n *node) {
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
	s.DW, s.DR = n.in[1].intoZeroed(), n.in[2].intoZeroed()
	for i, d := range []*device.Buffer{&s.DH0, &s.DC0, &s.DBW, &s.DBR} {
		*d = n.state[i].intoZeroed()
	}
	t.backend.ScanGrad(s)
}

func checkMatrix(name string, w *Tensor, rows, cols int) {
	if w.rank != 2 || w.dims[0] != rows || w.dims[1] != cols {
		failf("Scan", "%s must be [%d,%d], got %s", name, rows, cols, describe(w))
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
	y := t.Zeroless(like.dims[1], like.dims[2])
	s := slotBlock(x, state, slot, false)
	s.Src, s.Dst = state.value, y.value
	t.permute(s)
	if n := t.record(stateInGrad, y, state); n != nil {
		n.in[1], n.n[0] = x, slot
	}
	return y
}

func stateInGrad(t *Tape, n *node) {
	state := n.in[0]
	if ds := state.intoZeroed(); !ds.Zero() {
		s := slotBlock(n.in[1], state, n.n[0], true)
		s.Src, s.Dst, s.Acc = n.out.grad, ds, true
		t.permute(s)
	}
}

// stateOut puts a final state into its slot, rows in the user's order.
func (t *Tape) stateOut(hn, x, final *Tensor, slot int) {
	s := slotBlock(x, final, slot, true)
	s.Src, s.Dst = hn.value, final.value
	t.permute(s)
	if n := t.record(stateOutGrad, final, hn); n != nil {
		n.in[1], n.n[0] = x, slot
	}
}

func stateOutGrad(t *Tape, n *node) {
	if dh, acc := n.in[0].into(); !dh.Zero() {
		s := slotBlock(n.in[1], n.out, n.n[0], false)
		s.Src, s.Dst, s.Acc = n.out.grad, dh, acc
		t.permute(s)
	}
}

// slotBlock moves one slot of a state [slots,B,H], rows in the user's order, to
// a [B,H] in the engine's order; with put, back.
func slotBlock(x, state *Tensor, slot int, put bool) device.PermuteSpec {
	B, H := state.dims[1], state.dims[2]
	s := device.PermuteSpec{Dims: [4]int{1, 1, B, H}, SrcOff: slot * B * H, SrcStride: [4]int{0, 0, H, 1}, DstStride: [4]int{0, 0, H, 1}, RowDim: 2}
	if x.seq != nil {
		s.Rows, s.RowsDst = x.seq.order, put
	}
	if put {
		s.SrcOff, s.DstOff = 0, s.SrcOff
	}
	return s
}
