package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
)

// The scan engine owns time, direction, lengths, state and the matrix products;
// a cell (cell.go) owns one batch row of one step. W·x is one product over all
// steps before the loop, and the weight gradients are products over all steps
// after it. Inside the loop the batch is split over the cores, each running all
// steps of its rows without meeting the others: a row's arithmetic does not
// depend on the split.

// scan is one call of Scan or ScanGrad with its workspace.
type scan struct {
	device.ScanSpec
	b         *Backend
	cell      *cell
	gates     int // G
	apart     int // rows of R whose product joins W·x: all, or all but the last gate's
	t0, steps int // the chunk of time in Gates

	bias   []float32 // BW + BR where they are added together
	w      packed    // W or its transpose as the right operand
	r      packed    // the first rows of R
	side   packed    // the last gate's rows of R, for cells that keep it apart
	dh, dc []float32 // [B,H] gradients carried back in time
	sums   []float32 // [G*H]
}

var scanPool = newPool[scan]()

func (b *Backend) newScan(s *device.ScanSpec) *scan {
	e := scanPool.get()
	e.ScanSpec, e.b, e.cell = *s, b, &cells[s.Cell]
	e.gates = device.Cells[s.Cell].Gates
	e.apart = e.gates * s.H
	if device.Cells[s.Cell].Side {
		e.apart -= s.H
	}
	return e
}

func (e *scan) done() {
	e.ScanSpec = device.ScanSpec{}
	scanPool.put(e)
}

// Scan runs one direction of one layer forward.
func (b *Backend) Scan(s *device.ScanSpec) {
	e := b.newScan(s)
	defer e.done()
	if s.B == 0 || s.H == 0 {
		return
	}
	GH := e.gates * s.H
	e.mergeBias()
	b.pack(&e.w, s.W.Host, s.I, GH, s.I, true)
	b.pack(&e.r, s.R.Host, s.H, e.apart, s.H, true)
	if e.apart < GH {
		b.pack(&e.side, s.R.Host[e.apart*s.H:], s.H, s.H, s.H, true)
	}
	par.For(s.B, 1, e, startRows)
	chunk := s.Chunk
	if s.Keep {
		chunk = s.T
	}
	for done := 0; done < s.T; done += e.steps {
		e.steps = min(chunk, s.T-done)
		if e.t0 = done; s.Reverse {
			e.t0 = s.T - done - e.steps
		}
		e.project()
		par.For(s.B, e.rowGrain(), e, forwardRows)
	}
	par.For(s.B, 1, e, finishRows)
}

// mergeBias adds the two biases, but for the gate whose products stay apart.
func (e *scan) mergeBias() {
	e.bias = grow(e.bias, e.gates*e.H)
	if e.BW.Zero() {
		clear(e.bias)
		return
	}
	copy(e.bias, e.BW.Host)
	e.b.set.Add(e.bias[:e.apart], e.bias[:e.apart], e.BR.Host[:e.apart])
}

// rowGrain is how many rows make a core's share worth waking it for.
func (e *scan) rowGrain() int {
	return ceilDiv(minGemmWork, max(1, e.steps*e.gates*e.H*e.H))
}

// project computes W·x + bias for the chunk, true steps only.
func (e *scan) project() {
	if e.Active == nil {
		rows := e.steps * e.B
		par.For(rows, ceilDiv(minGemmWork, e.gates*e.H*max(1, e.I)), e, func(e *scan, lo, hi int) {
			e.projectRows(e.t0*e.B+lo, lo, hi-lo)
		})
		return
	}
	par.For(e.steps, ceilDiv(minGemmWork, e.B*e.gates*e.H*max(1, e.I)), e, func(e *scan, lo, hi int) {
		for i := lo; i < hi; i++ {
			e.projectRows((e.t0+i)*e.B, i*e.B, int(e.Active[e.t0+i]))
		}
	})
}

// projectRows computes n rows of Gates from row `to` on, from rows of X from `from` on.
func (e *scan) projectRows(from, to, n int) {
	if n == 0 {
		return
	}
	GH := e.gates * e.H
	p := product{set: e.b.set, m: n, n: GH, k: e.I, a: e.X.Host[from*e.I:], rs: e.I, cs: 1,
		panels: e.w.panels, c: e.Gates.Host[to*GH:], ldc: GH, bias: e.bias}
	runProduct(&p, 0, n, 0, ceilDiv(GH, e.b.set.NR))
}

// before and after are the slots of Hs and Cs around time t.
func (e *scan) before(t int) int {
	switch {
	case !e.Keep:
		return t & 1
	case e.Reverse:
		return t + 1
	default:
		return t
	}
}

func (e *scan) after(t int) int {
	switch {
	case !e.Keep:
		return t&1 ^ 1
	case e.Reverse:
		return t
	default:
		return t + 1
	}
}

// at is the i-th time of the chunk in the order of processing.
func (e *scan) at(i int) int {
	if e.Reverse {
		return e.t0 + e.steps - 1 - i
	}
	return e.t0 + i
}

// first and last are the times a direction begins and ends with.
func (e *scan) first() int {
	if e.Reverse {
		return e.T - 1
	}
	return 0
}

func (e *scan) last() int {
	if e.Reverse {
		return 0
	}
	return e.T - 1
}

// inside is how many of rows [lo,hi) are inside their sequence at t.
func (e *scan) inside(t, lo, hi int) int {
	if e.Active == nil {
		return hi - lo
	}
	return min(max(int(e.Active[t])-lo, 0), hi-lo)
}

// block is rows [lo,hi) of slot i of a [_,B,H] buffer.
func (e *scan) block(buf device.Buffer, i, lo, hi int) []float32 {
	return buf.Host[(i*e.B+lo)*e.H : (i*e.B+hi)*e.H]
}

func startRows(e *scan, lo, hi int) {
	slot := e.before(e.first())
	if e.T == 0 {
		slot = 0
	}
	set := func(dst, src device.Buffer) {
		d := e.block(dst, slot, lo, hi)
		if src.Zero() {
			clear(d)
			return
		}
		copy(d, e.block(src, 0, lo, hi))
	}
	set(e.Hs, e.H0)
	if !e.Cs.Zero() {
		set(e.Cs, e.C0)
	}
}

func finishRows(e *scan, lo, hi int) {
	slot := 0
	if e.T > 0 {
		slot = e.after(e.last())
	}
	copy(e.block(e.HN, 0, lo, hi), e.block(e.Hs, slot, lo, hi))
	if !e.CN.Zero() {
		copy(e.block(e.CN, 0, lo, hi), e.block(e.Cs, slot, lo, hi))
	}
}

// forwardRows runs the chunk for rows [lo,hi).
func forwardRows(e *scan, lo, hi int) {
	r := rowPool.get()
	*r = row{set: e.b.set, h: e.H}
	defer rowPool.put(r)
	for i := range e.steps {
		t := e.at(i)
		n := e.inside(t, lo, hi)
		base := (t-e.t0)*e.B + lo // row of Gates
		e.recur(base, e.block(e.Hs, e.before(t), lo, hi), n)
		for j := range n {
			e.bind(r, t, base, lo, j)
			e.cell.forward(r)
			copy(e.Y.Host[(t*e.B+lo+j)*e.YLd+e.YOff:], r.hNew)
		}
		for j := n; j < hi-lo; j++ { // past the row's end: zero output, state kept
			clear(e.Y.Host[(t*e.B+lo+j)*e.YLd+e.YOff:][:e.H])
			copy(e.block(e.Hs, e.after(t), lo+j, lo+j+1), e.block(e.Hs, e.before(t), lo+j, lo+j+1))
			if !e.Cs.Zero() {
				copy(e.block(e.Cs, e.after(t), lo+j, lo+j+1), e.block(e.Cs, e.before(t), lo+j, lo+j+1))
			}
		}
	}
}

// recur adds R·h to n rows of Gates from row base on.
func (e *scan) recur(base int, h []float32, n int) {
	if n == 0 {
		return
	}
	GH, nr := e.gates*e.H, e.b.set.NR
	p := product{set: e.b.set, m: n, n: e.apart, k: e.H, a: h, rs: e.H, cs: 1, panels: e.r.panels,
		c: e.Gates.Host[base*GH:], ldc: GH, acc: true}
	if e.apart > 0 {
		runProduct(&p, 0, n, 0, ceilDiv(e.apart, nr))
	}
	if e.apart < GH {
		p.n, p.panels, p.c, p.ldc, p.acc = e.H, e.side.panels, e.Side.Host[base*e.H:], e.H, false
		if !e.BR.Zero() {
			p.bias = e.BR.Host[e.apart:]
		}
		runProduct(&p, 0, n, 0, ceilDiv(e.H, nr))
	}
}

// bind points r at row lo+j of time t, whose gates are row base+j of Gates.
func (e *scan) bind(r *row, t, base, lo, j int) {
	GH := e.gates * e.H
	r.gates = e.Gates.Host[(base+j)*GH : (base+j+1)*GH]
	if !e.Side.Zero() {
		r.side = e.Side.Host[(base+j)*e.H : (base+j+1)*e.H]
	}
	before, after := e.before(t)*e.B+lo+j, e.after(t)*e.B+lo+j
	r.hOld, r.hNew = e.Hs.Host[before*e.H:(before+1)*e.H], e.Hs.Host[after*e.H:(after+1)*e.H]
	if !e.Cs.Zero() {
		r.cOld, r.cNew = e.Cs.Host[before*e.H:(before+1)*e.H], e.Cs.Host[after*e.H:(after+1)*e.H]
	}
}

// ScanGrad runs one direction of one layer backward, after a Scan with Keep.
func (b *Backend) ScanGrad(s *device.ScanSpec) {
	e := b.newScan(s)
	defer e.done()
	if s.B == 0 || s.H == 0 {
		return
	}
	GH := e.gates * s.H
	b.pack(&e.r, s.R.Host, e.apart, s.H, s.H, false)
	if e.apart < GH {
		b.pack(&e.side, s.R.Host[e.apart*s.H:], s.H, s.H, s.H, false)
	}
	e.dh, e.dc = grow(e.dh, s.B*s.H), grow(e.dc, s.B*s.H)
	e.t0, e.steps = 0, s.T
	par.For(s.B, e.rowGrain(), e, backwardRows)
	e.weightGrads()
}

// backwardRows goes back through all steps of rows [lo,hi), turning the kept
// gates into their gradients in place.
func backwardRows(e *scan, lo, hi int) {
	dh, dc := e.dh[lo*e.H:hi*e.H], e.dc[lo*e.H:hi*e.H]
	start := func(d []float32, from device.Buffer) {
		if from.Zero() {
			clear(d)
			return
		}
		copy(d, e.block(from, 0, lo, hi))
	}
	start(dh, e.DHN)
	start(dc, e.DCN)
	r := rowPool.get()
	*r = row{set: e.b.set, h: e.H}
	defer rowPool.put(r)
	GH := e.gates * e.H
	for i := e.T - 1; i >= 0; i-- {
		t := e.at(i)
		n := e.inside(t, lo, hi)
		base := t*e.B + lo
		for j := range n {
			e.bind(r, t, base, lo, j)
			r.dh, r.dc = dh[j*e.H:(j+1)*e.H], dc[j*e.H:(j+1)*e.H]
			if !e.DY.Zero() {
				at := (base+j)*e.YLd + e.YOff
				r.set.Add(r.dh, r.dh, e.DY.Host[at:at+e.H])
			}
			e.cell.backward(r)
		}
		e.recurGrad(base, dh, n)
		clear(e.Gates.Host[(base+n)*GH : (base+hi-lo)*GH]) // past the end: no gradient
		if !e.Side.Zero() {
			clear(e.Side.Host[(base+n)*e.H : (base+hi-lo)*e.H])
		}
	}
	finish := func(to device.Buffer, d []float32) {
		if !to.Zero() {
			t := e.block(to, 0, lo, hi)
			e.b.set.Add(t, t, d)
		}
	}
	finish(e.DH0, dh)
	finish(e.DC0, dc)
}

// recurGrad turns n rows of gate gradients into dL/dh of the step before; dh
// holds the cell's direct part, or nothing of use.
func (e *scan) recurGrad(base int, dh []float32, n int) {
	if n == 0 {
		return
	}
	GH, panels := e.gates*e.H, ceilDiv(e.H, e.b.set.NR)
	p := product{set: e.b.set, m: n, n: e.H, k: e.apart, a: e.Gates.Host[base*GH:], rs: GH, cs: 1,
		panels: e.r.panels, c: dh, ldc: e.H, acc: e.cell.direct}
	runProduct(&p, 0, n, 0, panels)
	if e.apart < GH {
		p.k, p.a, p.rs, p.panels, p.acc = e.H, e.Side.Host[base*e.H:], e.H, e.side.panels, true
		runProduct(&p, 0, n, 0, panels)
	}
}

// weightGrads multiplies the gate gradients of all steps with what went in.
func (e *scan) weightGrads() {
	b, rows, GH := e.b, e.T*e.B, e.gates*e.H
	if rows == 0 {
		return
	}
	if !e.DX.Zero() {
		b.Gemm(&device.GemmSpec{M: rows, N: e.I, K: GH, A: e.Gates, B: e.W, C: e.DX, Acc: e.DXAcc})
	}
	if !e.DW.Zero() {
		b.Gemm(&device.GemmSpec{M: GH, N: e.I, K: rows, A: e.Gates, TransA: true, B: e.X, C: e.DW, Acc: true})
	}
	side := e.apart < GH
	if !e.DR.Zero() {
		old := e.Hs.Slice(0, rows*e.H) // the state before each step
		if e.Reverse {
			old = e.Hs.Slice(e.B*e.H, (rows+e.B)*e.H)
		}
		b.Gemm(&device.GemmSpec{M: e.apart, N: e.H, K: rows, A: e.Gates, LDA: GH, TransA: true, B: old, C: e.DR, Acc: true})
		if side {
			b.Gemm(&device.GemmSpec{M: e.H, N: e.H, K: rows, A: e.Side, TransA: true, B: old, C: e.DR.Slice(e.apart*e.H, GH*e.H), Acc: true})
		}
	}
	if e.DBW.Zero() && e.DBR.Zero() {
		return
	}
	e.sums = grow(e.sums, GH)
	sums := device.HostBuffer(e.sums)
	b.SumRows(sums, e.Gates, rows, GH, GH, false)
	if !e.DBW.Zero() {
		b.Copy(e.DBW, sums, true)
	}
	if !e.DBR.Zero() {
		b.Copy(e.DBR.Slice(0, e.apart), sums.Slice(0, e.apart), true)
		if side {
			b.SumRows(e.DBR.Slice(e.apart, GH), e.Side, rows, e.H, e.H, true)
		}
	}
}
