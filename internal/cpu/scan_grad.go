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

// operands are the matrices of a chunk that the weight gradients are products of, a row for each step of each batch row.
type operands struct {
	rows        int
	gates, side device.Buffer // [rows,G*H], [rows,H]: the gradients
	x, old, dx  device.Buffer // [rows,I] input, [rows,H] state before, [rows,I] input gradient
}

// weightGrads multiplies the gate gradients of the chunk with what went in.
func (e *scan) weightGrads() {
	o := e.chunkOperands()
	ragged := e.Active != nil && int(e.Active[e.t0+e.steps-1]) < e.B
	if ragged {
		o = e.gather(o)
	}
	if o.rows == 0 {
		return
	}
	b, GH := e.b, e.gates*e.H
	if !e.DX.Zero() {
		b.Gemm(&device.GemmSpec{M: o.rows, N: e.I, K: GH, A: o.gates, B: e.W, C: o.dx, Acc: e.DXAcc})
		if ragged {
			e.scatter(o.dx)
		}
	}
	if !e.DW.Zero() {
		b.Gemm(&device.GemmSpec{M: GH, N: e.I, K: o.rows, A: o.gates, TransA: true, B: o.x, C: e.DW, Acc: true})
	}
	if !e.DR.Zero() {
		b.Gemm(&device.GemmSpec{M: e.apart, N: e.H, K: o.rows, A: o.gates, LDA: GH, TransA: true, B: o.old, C: e.DR, Acc: true})
		if !o.side.Zero() {
			b.Gemm(&device.GemmSpec{M: e.H, N: e.H, K: o.rows, A: o.side, TransA: true, B: o.old, C: e.DR.Slice(e.apart*e.H, GH*e.H), Acc: true})
		}
	}
	if e.DBW.Zero() && e.DBR.Zero() {
		return
	}
	e.sums = grow(e.sums, GH)
	sums := device.HostBuffer(e.sums)
	b.SumRows(sums, o.gates, o.rows, GH, GH, false)
	e.addTo(e.DBW, e.sums)
	if !e.DBR.Zero() {
		b.Copy(e.DBR.Slice(0, e.apart), sums.Slice(0, e.apart), true)
		if !o.side.Zero() {
			b.SumRows(e.DBR.Slice(e.apart, GH), o.side, o.rows, e.H, e.H, true)
		}
	}
}

// chunkOperands is the chunk as it lies, with the rows past their ends.
func (e *scan) chunkOperands() operands {
	first, rows := e.t0*e.B, e.steps*e.B
	part := func(buf device.Buffer, width int) device.Buffer {
		if buf.Zero() {
			return buf
		}
		return buf.Slice(first*width, (first+rows)*width)
	}
	from := e.before(e.t0) * e.B * e.H // the state before each step lies as the gates do
	return operands{rows, part(e.Gates, e.gates*e.H), part(e.Side, e.H), part(e.X, e.I), e.Hs.Slice(from, from+rows*e.H), part(e.DX, e.I)}
}

// gather moves the rows inside their sequences together, so that no product is
// made of padding. Gates and Side are moved in place: nobody needs them again.
func (e *scan) gather(o operands) operands {
	e.packed[0], e.packed[1], e.packed[2] = grow(e.packed[0], o.x.N), grow(e.packed[1], o.old.N), grow(e.packed[2], o.x.N)
	x, old := e.packed[0], e.packed[1]
	n, GH := 0, e.gates*e.H
	for i := range e.steps {
		from, active := i*e.B, int(e.Active[e.t0+i])
		move := func(dst, src []float32, width int) {
			copy(dst[n*width:], src[from*width:(from+active)*width])
		}
		move(o.gates.Host, o.gates.Host, GH)
		if !o.side.Zero() {
			move(o.side.Host, o.side.Host, e.H)
		}
		move(x, o.x.Host, e.I)
		move(old, o.old.Host, e.H)
		if !o.dx.Zero() && e.DXAcc {
			move(e.packed[2], o.dx.Host, e.I)
		}
		n += active
	}
	g := operands{rows: n, gates: o.gates.Slice(0, n*GH), x: device.HostBuffer(x[:n*e.I]), old: device.HostBuffer(old[:n*e.H])}
	if !o.side.Zero() {
		g.side = o.side.Slice(0, n*e.H)
	}
	if !o.dx.Zero() {
		g.dx = device.HostBuffer(e.packed[2][:n*e.I])
		if !e.DXAcc {
			clear(o.dx.Host)
		}
	}
	return g
}

// scatter puts the input gradients of gathered rows where they belong.
func (e *scan) scatter(dx device.Buffer) {
	n := 0
	for t := e.t0; t < e.t0+e.steps; t++ {
		rows := int(e.Active[t])
		copy(e.DX.Host[t*e.B*e.I:][:rows*e.I], dx.Host[n*e.I:])
		n += rows
	}
}
