package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
)

// ScanGrad runs one direction of one layer backward, after a Scan with Keep.
func (b *Backend) ScanGrad(s *device.ScanSpec) {
	if s.B == 0 || s.H == 0 {
		return
	}
	e := b.newScan(s)
	GH := e.gates * s.H
	e.p = &e.own
	b.pack(&e.p.r, s.R.Host, e.apart, s.H, s.H, false)
	if e.apart < GH {
		b.pack(&e.p.side, s.R.Host[e.apart*s.H:], s.H, s.H, s.H, false)
	}
	e.dh, e.dc = grow(e.dh, s.B*s.H), grow(e.dc, s.B*s.H)
	e.load(e.dh, s.DHN, 0, s.B)
	e.load(e.dc, s.DCN, 0, s.B)
	e.g0 = 0
	chunk := e.chunkSteps(s.T)
	for left := s.T; left > 0; left -= e.steps {
		e.steps = min(chunk, left)
		if e.t0 = left - e.steps; s.Reverse {
			e.t0 = s.T - left
		}
		e.backward()
		e.weightGrads()
	}
	e.addTo(s.DH0, e.dh)
	e.addTo(s.DC0, e.dc)
	e.done()
}

// backward runs the steps of the chunk, the last one first.
func (e *scan) backward() {
	for e.i1 = e.steps; e.i1 > 0; e.i1 = e.i0 {
		if e.prefersColumns() {
			e.i0 = max(e.i1-teamSteps, 0)
			par.Gang(e, backwardColumns)
		} else {
			e.i0 = 0
			par.For(e.B, e.rowGrain(), e, backwardRows)
		}
	}
}

// addTo is dst += src, if dst is there.
func (e *scan) addTo(dst device.Buffer, src []float32) {
	if !dst.Zero() {
		e.b.Copy(dst, device.HostBuffer(src), true)
	}
}

// backwardRows goes back through steps [i0,i1) for rows [lo,hi), turning the
// kept gates into their gradients in place.
func backwardRows(e *scan, lo, hi int) {
	w, r := workerPool.get(), e.newRow()
	for i := e.i1 - 1; i >= e.i0; i-- {
		t := e.at(i)
		e.cellGrads(r, t, lo, hi)
		e.recurGrad(w, t, lo, hi, par.Member{})
	}
	rowPool.put(r)
	w.put()
}

// backwardColumns does so as a member of a gang.
func backwardColumns(e *scan, m par.Member) {
	w, r := workerPool.get(), e.newRow()
	lo, hi := m.Share(e.B)
	for i := e.i1 - 1; i >= e.i0; i-- {
		t := e.at(i)
		e.cellGrads(r, t, lo, hi)
		m.Barrier()
		e.recurGrad(w, t, 0, e.B, m)
		m.Barrier()
	}
	rowPool.put(r)
	w.put()
}

// cellGrads runs the cell backward for rows [lo,hi) at time t.
func (e *scan) cellGrads(r *row, t, lo, hi int) {
	n := e.inside(t, lo, hi)
	for b := lo; b < lo+n; b++ {
		e.bind(r, t, b)
		r.dh, r.dc = e.dh[b*e.H:(b+1)*e.H], e.dc[b*e.H:(b+1)*e.H]
		if !e.DY.Zero() {
			at := (t*e.B+b)*e.YLd + e.YOff
			r.set.Add(r.dh, r.dh, e.DY.Host[at:at+e.H])
		}
		e.cell.backward(r)
	}
	// Past the end no gradient arises, and the products below must see none.
	GH := e.gates * e.H
	clear(e.Gates.Host[(t*e.B+lo+n)*GH : (t*e.B+hi)*GH])
	if !e.Side.Zero() {
		clear(e.Side.Host[(t*e.B+lo+n)*e.H : (t*e.B+hi)*e.H])
	}
}

// recurGrad turns the gate gradients of rows [lo,hi) at time t into dL/dh of the
// step before: the member's share of the columns. dh holds the cell's direct
// part, or nothing of use.
func (e *scan) recurGrad(w *worker, t, lo, hi int, m par.Member) {
	n := e.inside(t, lo, hi)
	if n == 0 {
		return
	}
	GH, base := e.gates*e.H, t*e.B+lo
	p0, p1 := m.Share(e.panelsOf(e.H))
	w.product = product{set: e.b.set, m: n, n: e.H, k: e.apart, a: e.Gates.Host[base*GH:], rs: GH, cs: 1,
		panels: e.p.r.panels, c: e.dh[lo*e.H:], ldc: e.H, acc: e.cell.direct}
	w.run(0, n, p0, p1)
	if e.apart < GH {
		w.k, w.a, w.rs, w.panels, w.acc = e.H, e.Side.Host[base*e.H:], e.H, e.p.side.panels, true
		w.run(0, n, p0, p1)
	}
}

// weightGrads multiplies the gate gradients of the chunk with what went in.
func (e *scan) weightGrads() {
	b, GH := e.b, e.gates*e.H
	first, rows := e.t0*e.B, e.steps*e.B
	part := func(buf device.Buffer, width int) device.Buffer { return buf.Slice(first*width, (first+rows)*width) }
	gates, side := part(e.Gates, GH), device.Buffer{}
	if !e.Side.Zero() {
		side = part(e.Side, e.H)
	}
	if !e.DX.Zero() {
		b.Gemm(&device.GemmSpec{M: rows, N: e.I, K: GH, A: gates, B: e.W, C: part(e.DX, e.I), Acc: e.DXAcc})
	}
	if !e.DW.Zero() {
		b.Gemm(&device.GemmSpec{M: GH, N: e.I, K: rows, A: gates, TransA: true, B: part(e.X, e.I), C: e.DW, Acc: true})
	}
	if !e.DR.Zero() {
		from := e.before(e.t0) * e.B * e.H // the state before each step lies as the gates do
		old := e.Hs.Slice(from, from+rows*e.H)
		b.Gemm(&device.GemmSpec{M: e.apart, N: e.H, K: rows, A: gates, LDA: GH, TransA: true, B: old, C: e.DR, Acc: true})
		if !side.Zero() {
			b.Gemm(&device.GemmSpec{M: e.H, N: e.H, K: rows, A: side, TransA: true, B: old, C: e.DR.Slice(e.apart*e.H, GH*e.H), Acc: true})
		}
	}
	if e.DBW.Zero() && e.DBR.Zero() {
		return
	}
	e.sums = grow(e.sums, GH)
	sums := device.HostBuffer(e.sums)
	b.SumRows(sums, gates, rows, GH, GH, false)
	e.addTo(e.DBW, e.sums)
	if !e.DBR.Zero() {
		b.Copy(e.DBR.Slice(0, e.apart), sums.Slice(0, e.apart), true)
		if !side.Zero() {
			b.SumRows(e.DBR.Slice(e.apart, GH), side, rows, e.H, e.H, true)
		}
	}
}
