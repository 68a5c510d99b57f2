package cpu

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// row is one batch row of one step, on which a cell works. It is a row and not an
// element so that a cell can normalise over it.
type row struct {
	e          *scan
	set        *simd.Set
	h          int       // H
	u0, u1     int       // the units to compute: all, unless units are divided among cores
	t, b       int       // the step and the row
	rows       int       // number of rows, from b on, that the cell computes at once; the slices below are row b's
	first      int       // the first row of time t in Gates
	beside     int       // that in the other parts of Work
	before     int       // that in the states before t
	after      int       // and after t
	gates      []float32 // [G*H] pre-activations -> activations; backward: -> their gradients
	side       []float32 // [SideWidth] separate R·h + b', or what the cell puts there; backward: -> its gradient
	xhat       []float32 // [G*H] with layer normalisation: W·x normalised; backward: -> gradient of W·x
	stats      []float32 // [4] 1/deviations of the two blocks of W·x, then of R·h
	hOld, hIn  []float32 // [O] state before, and the operand of R
	hNew       []float32 // [O] state after
	out        []float32 // [H] the output of the cell: hNew, or the operand of a projection
	cOld, cNew []float32 // [C] states beside h before and after
	dh         []float32 // [H] in: dL/dout; out: the direct part of dL/dhOld, if the cell has one
	dc         []float32 // [C] in: dL/dcNew from the next step; out: dL/dcOld
	acc        []float32 // [vectors.n] gradients of the vector parameters
	cStat      float32   // 1/deviation of c, set by shown
	work       [workspaceKinds][]float32
	args       simd.CellArgs // of the kernels; here, a call does not allocate them
	user       cell.Row
}

// A row's workspaces, for values that the backward pass computes again.
const (
	dhWork     = iota // the cell's share of dh
	freshWork         // the weights of the new values in zoneout
	forgetWork        // 1-i of coupled gates
	cellWorks         // c before zoneout
	outWork           // the activated c, and its gradient
	normWork          // normalised c
	sideWork          // a gate's normalised R·h, then its gradient
	gradWork
	gradWork2
	gradWork3
	dfWork
	normGradWork
	workspaceKinds
)

// scratch returns n elements of a workspace, with unspecified contents.
func (r *row) scratch(kind, n int) []float32 {
	r.work[kind] = grow(r.work[kind], n)
	return r.work[kind]
}

var rowPool par.Pool[row]

func (e *scan) newRow() *row {
	r := rowPool.Get()
	r.e, r.set, r.h, r.u1, r.rows = e, e.b.set, e.H, e.H, 1
	return r
}

// put returns r to the pool without keeping the operands alive.
func (r *row) put() {
	*r = row{work: r.work}
	rowPool.Put(r)
}

// enter sets r to time t.
func (e *scan) enter(r *row, t int) {
	r.t = t
	r.first, r.beside, r.before, r.after = e.gateRow(t), e.workRow(t), e.before(t)*e.B, e.after(t)*e.B
}

// bind sets r to batch row b of its time.
func (e *scan) bind(r *row, b int) {
	r.b = b
	r.gates = e.Gates.Host[(r.first+b)*e.gw:][:e.gw]
	r.hOld, r.hNew = e.Hs.Host[(r.before+b)*e.out:][:e.out], e.Hs.Host[(r.after+b)*e.out:][:e.out]
	r.hIn, r.out = r.hOld, r.hNew
	if e.cw > 0 {
		r.cOld, r.cNew = e.Cs.Host[(r.before+b)*e.cw:][:e.cw], e.Cs.Host[(r.after+b)*e.cw:][:e.cw]
	}
	if e.sw > 0 {
		r.side = e.Side.Host[(r.beside+b)*e.sw:][:e.sw]
	}
	if e.HDrop > 0 {
		r.hIn = e.HIn.Host[(r.before+b)*e.out:][:e.out]
	}
	if e.Proj > 0 {
		r.out = e.Mid.Host[(r.beside+b)*e.H:][:e.H]
	}
	if e.Has(cell.NormX) {
		r.xhat, r.stats = e.XHat.Host[(r.beside+b)*e.gw:][:e.gw], e.Stats.Host[(r.beside+b)*4:][:4]
	}
}

// bindGrad sets r to row b of the gradients that are carried back in time.
func (e *scan) bindGrad(r *row, b int) {
	r.dh, r.dc = e.dh[b*e.out:(b+1)*e.out], e.dc[b*e.cw:(b+1)*e.cw]
	r.acc = e.acc[b*e.vec.n : (b+1)*e.vec.n]
}

// arithmetic is the functions of a cell between the products.
type arithmetic struct {
	forward  func(r *row)
	backward func(r *row)
	direct   bool // h depends on hOld also without the recurrent product

	takesRows bool // the functions compute row.rows rows at once
}

var arithmetics = [cell.NumKinds]arithmetic{
	cell.LSTM:        {forward: lstmForward, backward: lstmBackward},
	cell.GRU:         {forward: gruForward, backward: gruBackward, direct: true},
	cell.RNNTanh:     {forward: elmanForward, backward: elmanBackward, takesRows: true},
	cell.RNNReLU:     {forward: elmanForward, backward: elmanBackward, takesRows: true},
	cell.CoupledLSTM: {forward: lstmForward, backward: lstmBackward},
	cell.GRUBefore:   {forward: gruForward, backward: gruBackward, direct: true},
	cell.SLSTM:       {forward: slstmForward, backward: slstmBackward},
	cell.MinGRU:      {forward: minGRUForward, backward: minGRUBackward, direct: true},
	cell.MinLSTM:     {forward: minLSTMForward, backward: minLSTMBackward, direct: true},
	cell.Custom:      {forward: customForward, backward: customBackward, direct: true},
}

// The LSTM and the GRU of PyTorch without options have a kernel for each pass.
// Zoneout of h, dropout of h and projection are not part of the cell's functions,
// so these kernels serve them as well.
var (
	plainLSTM = arithmetic{
		forward:   func(r *row) { r.set.LSTM(r.lstmArgs()) },
		backward:  func(r *row) { r.set.LSTMGrad(r.lstmArgs()) },
		takesRows: true,
	}
	plainGRU = arithmetic{
		forward:   func(r *row) { r.set.GRU(r.gruArgs()) },
		backward:  func(r *row) { r.set.GRUGrad(r.gruArgs()) },
		takesRows: true, direct: true,
	}
)

func arithmeticOf(s *device.ScanSpec) *arithmetic {
	own := s.GateAct <= cell.Sigmoid && (s.InAct == cell.Own || s.InAct == cell.Tanh) && (s.OutAct == cell.Own || s.OutAct == cell.Tanh)
	if own && s.GateClip == 0 && s.CellClip == 0 && s.ZoneC == 0 && !s.Has(cell.PeepI) && !s.Has(cell.NormX) {
		switch s.Cell {
		case cell.LSTM:
			return &plainLSTM
		case cell.GRU:
			return &plainGRU
		}
	}
	return &arithmetics[s.Cell]
}

// kernelArgs returns the arguments of a cell's kernel, forward or backward. The kernel
// writes a copy of h to Y if nothing else is done with h, otherwise to h again.
func (r *row) kernelArgs() *simd.CellArgs {
	e, u, a := r.e, r.u0, &r.args
	*a = simd.CellArgs{Rows: r.rows, H: r.h, Units: r.u1 - u, Gates: &r.gates[u], HPrev: &r.hOld[u], Hid: &r.out[u], Out: &r.out[u], LDOut: r.h}
	switch {
	case e.back:
		a.DHid = &r.dh[u]
	case e.plain:
		a.Out, a.LDOut = &e.Y.Host[e.place(r.t, r.b)*e.YLd+e.YOff+u], e.next()*e.YLd
	}
	return a
}

func (r *row) lstmArgs() *simd.CellArgs {
	a, u := r.kernelArgs(), r.u0
	a.CPrev, a.C = &r.cOld[u], &r.cNew[u]
	if r.e.back {
		a.DC = &r.dc[u]
	}
	return a
}

func (r *row) gruArgs() *simd.CellArgs {
	a := r.kernelArgs()
	a.Side = &r.side[r.u0]
	return a
}

// The Elman network of torch.nn.RNN: h' = tanh or ReLU of W·x + b + R·h + b'.

func elmanForward(r *row) {
	e, h := r.e, r.gates[:r.rows*r.h] // the rows follow each other
	r.in(h)
	copy(r.out[:len(h)], h)
	if !e.plain {
		return
	}
	for i := range r.rows {
		copy(e.Y.Host[e.place(r.t, r.b+i)*e.YLd+e.YOff:], h[i*r.h:(i+1)*r.h])
	}
}

func elmanBackward(r *row) {
	n := r.rows * r.h
	r.inGrad(r.gates[:n], r.dh[:n])
}

// A user's own cell: a cell.RowCell.

func customForward(r *row) {
	r.user = cell.Row{H: r.h, Gates: r.gates, HOld: r.hOld, HNew: r.out, COld: r.cOld, CNew: r.cNew}
	r.e.Custom.Forward(&r.user)
	r.flush(r.gates, r.out, r.cNew)
}

// flush sets subnormal numbers to zero, which a user's arithmetic may produce.
func (r *row) flush(vs ...[]float32) {
	for _, v := range vs {
		r.set.Flush(v, v)
	}
}

func customBackward(r *row) {
	r.user = cell.Row{H: r.h, Gates: r.gates, HOld: r.hOld, HNew: r.out, COld: r.cOld, CNew: r.cNew, DH: r.dh, DC: r.dc}
	r.e.Custom.Backward(&r.user)
	r.flush(r.gates, r.dh, r.dc)
}
