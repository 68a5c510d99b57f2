package cpu

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
)

// ScanGrad runs one direction of one layer backward, after a Scan with Keep.
func (b *Backend) ScanGrad(s *device.ScanSpec) {
	if s.B == 0 || s.H == 0 {
		return
	}
	e := b.newScan(s, true)
	e.startBack()
	chunk := e.chunkSteps(s.T)
	if s.Proj > 0 {
		e.dp = grow(e.dp, chunk*s.B*e.out)
	}
	for left := s.T; left > 0; left -= e.steps {
		e.steps = min(chunk, left)
		if e.t0 = left - e.steps; s.Reverse {
			e.t0 = s.T - left
		}
		e.begins()
		e.run()
		e.weightGrads()
	}
	if s.HDrop > 0 {
		b.set.MulAdd(e.dh, e.dr, e.mask)
	}
	b.addTo(s.Grads[cell.H0], e.dh)
	b.addTo(s.Grads[cell.C0], e.dc)
	e.vectorGrads()
	e.done()
}

// startBack sets the gradients carried back in time to those of the final states.
func (e *scan) startBack() {
	e.dh, e.dc = grow(e.dh, e.B*e.out), grow(e.dc, e.B*e.cw)
	load(e.dh, e.DHN, 0)
	load(e.dc, e.DCN, 0)
	e.dmid = grow(e.dmid, e.B*e.H)
	if e.HDrop > 0 {
		e.mask, e.dr = grow(e.mask, e.B*e.out), grow(e.dr, e.B*e.out)
		e.drawMask(0, e.B)
		clear(e.dr)
	}
	e.vec = e.vectors()
	e.acc = grow(e.acc, e.B*e.vec.n)
	clear(e.acc)
}

// cellGrads computes the cell backward for r's units of rows [lo,hi) at time t.
func (e *scan) cellGrads(r *row, t, lo, hi int) {
	n := e.inside(t, lo, hi)
	if r.u0 == r.u1 {
		return
	}
	e.enter(r, t)
	for b := lo; b < lo+n; b += r.rows {
		r.rows = min(e.cellRows(), lo+n-b)
		e.bind(r, b)
		e.bindGrad(r, b)
		e.moveGates(r, b)
		if e.Proj > 0 {
			r.dh = e.dmid[b*e.H : (b+1)*e.H]
			e.cell.backward(r)
			continue
		}
		dh := r.dh
		for i := range r.rows {
			r.b = b + r.rows - 1 - i // the first row last
			r.outputGrad()
		}
		e.cell.backward(r)
		switch {
		case e.ZoneH > 0 && e.cell.direct:
			r.set.Add(dh, dh, r.dh)
		case e.ZoneH == 0 && !e.cell.direct && e.HDrop > 0:
			clear(dh) // recurGrad writes elsewhere
		}
	}
}

// outputGrad adds up the gradients that reach the new state and sets r.dh to the
// gradient of the cell's h. With zoneout, the part of the old state remains in e.dh.
func (r *row) outputGrad() {
	e, t, b := r.e, r.t, r.b
	dh := e.dh[b*e.out : (b+1)*e.out]
	if e.HDrop > 0 {
		r.set.MulAdd(dh, e.dr[b*e.out:(b+1)*e.out], e.mask[b*e.out:(b+1)*e.out])
	}
	lo, hi := e.outputsOf(r)
	c0, c1 := e.cellsOf(r)
	dc := e.dc[b*e.cw:][c0:c1]
	if !e.TraceGain.Zero() {
		gain := e.TraceGain.Host[t*e.B+b]
		r.set.Scale(gain, dh[lo:hi])
		r.set.Scale(gain, dc)
	}
	if !e.DY.Zero() {
		at := e.place(t, b)*e.YLd + e.YOff
		r.set.Add(dh[lo:hi], dh[lo:hi], e.DY.Host[at+lo:at+hi])
	}
	if !e.TraceDH.Zero() {
		copy(e.TraceDH.Host[(t*e.B+b)*e.out+lo:], dh[lo:hi])
	}
	if !e.TraceDC.Zero() {
		copy(e.TraceDC.Host[(t*e.B+b)*e.cw+c0:], dc)
	}
	r.dh = dh
	if e.ZoneH > 0 {
		r.dh = r.scratch(dhWork, e.out)
		splitZone(r.dh, dh, r.fresh(device.ZoneH, e.out))
	}
}

// projectedGrad is outputGrad with a projection: it stores the gradient of the projected state in dp.
func (r *row) projectedGrad() {
	e := r.e
	r.outputGrad()
	copy(e.projected(r.t, r.b, r.b+1), r.dh)
	if e.ZoneH == 0 && e.HDrop > 0 {
		clear(e.dh[r.b*e.out : (r.b+1)*e.out]) // recurGrad writes elsewhere
	}
}

// projected returns rows [lo,hi) of dp at time t.
func (e *scan) projected(t, lo, hi int) []float32 {
	at := (t - e.t0) * e.B
	return e.dp[(at+lo)*e.out : (at+hi)*e.out]
}

// projectGrad computes the gradient of the operand of P.
func (e *scan) projectGrad(w *worker, t, lo, hi int, m par.Member) {
	e.share(w, m, product{m: e.inside(t, lo, hi), n: e.H, k: e.out, a: e.projected(t, lo, hi), rs: e.out,
		panels: &e.p.proj, c: e.dmid[lo*e.H:], ldc: e.H})
}

// candidateGrad computes the gradient of Side, for a GRU that resets before the product.
func (e *scan) candidateGrad(w *worker, t, lo, hi int, m par.Member) {
	e.share(w, m, product{m: e.inside(t, lo, hi), n: e.H, k: e.H, a: e.Gates.Host[(e.gateRow(t)+lo)*e.gw+e.joined:], rs: e.gw,
		panels: &e.p.side, c: e.dmid[lo*e.H:], ldc: e.H})
}

// recurGrad computes dL/dh of the step before, or the gradient of the operand of R,
// from the gate gradients of rows [lo,hi) at time t: the member's share of the
// columns. dh holds the direct part if there is one, otherwise it is overwritten.
func (e *scan) recurGrad(w *worker, t, lo, hi int, m par.Member) {
	if !e.Has(cell.R) {
		return
	}
	to, acc := e.dh, e.cell.direct || e.ZoneH > 0
	if e.HDrop > 0 {
		to, acc = e.dr, e.Cell == cell.GRUBefore
	}
	p := product{m: e.inside(t, lo, hi), n: e.out, k: e.joined, a: e.Gates.Host[(e.gateRow(t)+lo)*e.gw:], rs: e.gw,
		panels: &e.p.r, c: to[lo*e.out:], ldc: e.out, acc: acc}
	if e.joined > 0 {
		e.share(w, m, p)
		p.acc = true
	}
	if e.joined < e.gw && e.Cell != cell.GRUBefore {
		p.k, p.a, p.rs, p.panels = e.sw, e.Side.Host[(e.workRow(t)+lo)*e.sw:], e.sw, &e.p.side
		e.share(w, m, p)
	}
}

// operands is the operands of a chunk's weight gradients, with one row per step and
// batch row.
type operands struct {
	rows    int
	gates   device.Buffer // [rows,G*H] gradients of the pre-activations
	input   device.Buffer // [rows,G*H] gradients of W·x: gates, unless W·x is normalised
	side    device.Buffer // [rows,SideWidth]
	mid, dp device.Buffer // [rows,H] the operand of P, [rows,O] the gradient of its product
	x, old  device.Buffer // [rows,I] input, [rows,O] the operand of R
	dx      device.Buffer // [rows,I] input gradient
}

// weightGrads computes the gradients of X and of the weights from the gate gradients of the chunk.
func (e *scan) weightGrads() {
	o := e.chunkOperands()
	ragged := !e.Active.Zero() && int(e.Active.Host[e.t0+e.steps-1]) < e.B
	switch {
	case ragged:
		e.gather(&o)
	case e.BatchMajor:
		o.x, o.dx = e.turned(0, o.x, e.I), e.turned(2, o.dx, e.I)
	}
	if o.rows == 0 {
		return
	}
	b, GH := e.b, e.gw
	if !e.DX.Zero() {
		e.prod = product{set: b.set, m: o.rows, n: e.I, k: GH, a: o.input.Host, rs: GH, cs: 1,
			panels: &e.p.w, c: o.dx.Host, ldc: e.I, acc: e.DXAcc}
		e.prod.compute()
		switch {
		case ragged:
			e.scatter(o.dx)
		case e.BatchMajor:
			e.turnBack(o.dx)
		}
	}
	both := e.kindOf(cell.W) == e.kindOf(cell.R) && !e.Grads[cell.W].Zero() && !e.Grads[cell.R].Zero() && e.joined == GH && !e.Has(cell.NormX) && e.I >= b.set.NR
	if both { // the same left operand: the gate gradients
		e.pair = beside{n: e.out, b: o.old.Host, ldb: e.out, c: e.Grads[cell.R].Host, ldc: e.out}
		e.prod = product{set: b.set, m: GH, n: e.I, k: o.rows, a: o.gates.Host, rs: 1, cs: GH,
			b: o.x.Host, ldb: e.I, c: e.Grads[cell.W].Host, ldc: e.I, acc: true, beside: &e.pair, round: e.kindOf(cell.W)}
		e.prod.compute()
	} else if !e.Grads[cell.W].Zero() {
		b.Gemm(&device.GemmSpec{M: GH, N: e.I, K: o.rows, A: o.input, TransA: true, B: o.x, C: e.Grads[cell.W], Acc: true, Kind: e.kindOf(cell.W)})
	}
	if !e.Grads[cell.P].Zero() {
		b.Gemm(&device.GemmSpec{M: e.out, N: e.H, K: o.rows, A: o.dp, TransA: true, B: o.mid, C: e.Grads[cell.P], Acc: true, Kind: e.kindOf(cell.P)})
	}
	if !e.Grads[cell.R].Zero() && !both {
		e.recurrentGrads(&o)
	}
	e.biasGrads(&o)
}

func (e *scan) recurrentGrads(o *operands) {
	b, GH := e.b, e.gw
	if e.joined > 0 {
		b.Gemm(&device.GemmSpec{M: e.joined, N: e.out, K: o.rows, A: o.gates, LDA: GH, TransA: true, B: o.old, C: e.Grads[cell.R], Acc: true, Kind: e.kindOf(cell.R)})
	}
	if o.side.Zero() {
		return
	}
	s := device.GemmSpec{M: GH - e.joined, N: e.out, K: o.rows, A: o.side, LDA: e.sw, TransA: true, B: o.old, C: e.Grads[cell.R].Slice(e.joined*e.out, GH*e.out), Acc: true, Kind: e.kindOf(cell.R)}
	if e.Cell == cell.GRUBefore {
		s.A, s.LDA, s.B = o.gates.Slice(e.joined, o.gates.N), GH, o.side
	}
	b.Gemm(&s)
}

func (e *scan) biasGrads(o *operands) {
	if e.Grads[cell.BW].Zero() && e.Grads[cell.BR].Zero() {
		return
	}
	b, GH := e.b, e.gw
	e.sums = grow(e.sums, GH)
	sums := device.HostBuffer(e.sums)
	b.SumRows(sums, o.gates, o.rows, GH, GH, false)
	b.addTo(e.Grads[cell.BW], e.sums)
	if e.Grads[cell.BR].Zero() {
		return
	}
	b.Copy(e.Grads[cell.BR].Slice(0, e.tied), sums.Slice(0, e.tied), true)
	if e.tied < GH && !e.Has(cell.NormX) {
		b.SumRows(e.Grads[cell.BR].Slice(e.tied, GH), o.side, o.rows, e.H, e.H, true)
	}
}

// chunkOperands returns the operands of the chunk in place, including rows past their ends.
func (e *scan) chunkOperands() operands {
	first, rows := e.t0*e.B, e.steps*e.B
	part := func(buf device.Buffer, width int) device.Buffer {
		if buf.Zero() {
			return buf
		}
		return buf.Slice(first*width, (first+rows)*width)
	}
	from := e.before(e.t0) * e.B * e.out // the states before each step have the order of the gates
	at := e.gateRow(e.t0) * e.gw
	o := operands{rows: rows, gates: e.Gates.Slice(at, at+rows*e.gw), side: part(e.Side, e.sw), mid: part(e.Mid, e.H),
		x: e.X, old: e.entering().Slice(from, from+rows*e.out), dx: e.DX}
	if !e.BatchMajor {
		o.x, o.dx = part(e.X, e.I), part(e.DX, e.I)
	}
	o.input = o.gates
	if e.Has(cell.NormX) {
		o.input = part(e.XHat, e.gw)
	}
	if e.Proj > 0 {
		o.dp = device.HostBuffer(e.dp[:rows*e.out])
	}
	return o
}

// gather moves the rows inside their sequences together, so that no product
// includes padding: in place, except X, DX and the states, which are needed again.
func (e *scan) gather(o *operands) {
	o.gates = e.together(o.gates.Host, o.gates, e.gw)
	if e.Has(cell.NormX) {
		o.input = e.together(o.input.Host, o.input, e.gw)
	} else {
		o.input = o.gates
	}
	o.side = e.together(o.side.Host, o.side, e.sw)
	o.mid, o.dp = e.together(o.mid.Host, o.mid, e.H), e.together(o.dp.Host, o.dp, e.out)
	for i, buf := range [3]device.Buffer{o.x, o.old, o.dx} {
		e.packed[i] = grow(e.packed[i], buf.N)
	}
	o.x, o.old = e.together(e.packed[0], o.x, e.I), e.together(e.packed[1], o.old, e.out)
	if !o.dx.Zero() {
		dx := e.together(e.packed[2], o.dx, e.I)
		if !e.DXAcc {
			clear(o.dx.Host)
		}
		o.dx = dx
	}
	o.rows = o.gates.N / e.gw
}

// together copies the rows inside their sequences of a chunk's [steps,B,width] to dst, one after the other. dst may be src.
func (e *scan) together(dst []float32, src device.Buffer, width int) device.Buffer {
	if src.Zero() {
		return src
	}
	n := 0
	for i := range e.steps {
		active := int(e.Active.Host[e.t0+i])
		n += copy(dst[n:], src.Host[i*e.B*width:][:active*width])
	}
	return device.HostBuffer(dst[:n])
}

// scatter copies the input gradients of gathered rows to DX.
func (e *scan) scatter(dx device.Buffer) {
	n := 0
	for t := e.t0; t < e.t0+e.steps; t++ {
		n += copy(e.DX.Host[t*e.B*e.I:][:int(e.Active.Host[t])*e.I], dx.Host[n:])
	}
}

// turned returns the chunk of a [B,T,width] in the order of the gates, as packed[i]. That of
// DX is needed only if it is added to.
func (e *scan) turned(i int, src device.Buffer, width int) device.Buffer {
	if src.Zero() {
		return src
	}
	e.packed[i] = grow(e.packed[i], e.steps*e.B*width)
	dst := e.packed[i]
	if i == 2 && !e.DXAcc {
		return device.HostBuffer(dst)
	}
	e.turn = turn{src.Host, dst, width, false}
	par.For(e.steps*e.B, ceilDiv(moveGrain, width), e, turnRows)
	return device.HostBuffer(dst)
}

// turn is a copy of the rows of a chunk from [B,T,width] to the order of the gates or, with
// back, from there.
type turn struct {
	batch, time []float32
	width       int
	back        bool
}

func turnRows(e *scan, lo, hi int) {
	n := e.turn.width
	for i := lo; i < hi; i++ {
		batch, time := e.turn.batch[e.place(e.t0+i/e.B, i%e.B)*n:][:n], e.turn.time[i*n:][:n]
		if e.turn.back {
			batch, time = time, batch
		}
		copy(time, batch)
	}
}

// turnBack copies input gradients in the order of the gates to DX.
func (e *scan) turnBack(dx device.Buffer) {
	e.turn = turn{e.DX.Host, dx.Host, e.I, true}
	par.For(e.steps*e.B, ceilDiv(moveGrain, e.I), e, turnRows)
}

// vectors is the layout of a row of acc, in which a batch row collects its
// gradients of vector parameters: parameter p begins at at[p], and n is the length.
type vectors struct {
	at [cell.NumParams]int
	n  int
}

func (e *scan) vectors() (v vectors) {
	for p := range cell.NumParams {
		v.at[p] = v.n
		v.n += e.Collected(p)
	}
	return v
}

// vectorGrads adds the gradients that the rows collected, in the order of the rows.
func (e *scan) vectorGrads() {
	if e.vec.n == 0 {
		return
	}
	foldRows(e.b.set, e.acc, e.B, e.vec.n)
	for p, at := range e.vec.at {
		dst, n := e.Grads[p], e.Collected(cell.Param(p))
		if n > 0 && !dst.Zero() {
			e.b.addTo(dst.Slice(dst.N-n, dst.N), e.acc[at:at+n])
		}
	}
}

// collect returns the n elements of acc that collect a parameter's gradient.
func (r *row) collect(p cell.Param, n int) []float32 { return r.acc[r.e.vec.at[p]:][:n] }
