package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
)

// The scan engine owns time, direction, lengths, state and the matrix products;
// a cell (cell.go) owns one batch row of one step.
//
// Time goes in chunks whose gates fit the cache: W·x of a chunk is one product,
// then its steps are run; backward, the weight gradients of a chunk are products
// over all its steps. Inside a chunk the work is split in one of two ways. Rows:
// each core runs all steps of its rows without meeting the others. Columns, for
// few rows and large R: each core keeps its columns of R in its own cache, and
// all meet twice a step. No bit depends on the split.

// scan is one call of Scan or ScanGrad with its workspace.
type scan struct {
	device.ScanSpec
	b         *Backend
	cell      *cell
	gates     int // G
	apart     int // rows of R whose product joins W·x: all, or all but the last gate's
	t0, steps int // the chunk: times [t0, t0+steps)
	i0, i1    int // the steps of the chunk being run, in the order of the forward pass
	g0        int // the time of the first row of Gates

	bias   []float32 // BW + BR where they are added together
	p      *panels   // the weights in use: kept ones, or own
	own    panels
	dh, dc []float32    // [B,H] gradients carried back in time
	sums   []float32    // [G*H]
	packed [3][]float32 // ragged rows gathered: inputs, states before, input gradients
}

// panels are the weights of a direction as right operands.
type panels struct {
	w    packed // Wᵀ
	r    packed // the first rows of R, transposed; backward: as they are
	side packed // the last gate's rows of R, for cells that keep it apart
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
	e.ScanSpec, e.p = device.ScanSpec{}, nil
	scanPool.put(e)
}

const (
	cacheShare = 1 << 19 // bytes of R that stay in a core's own cache beside its other work
	teamWork   = 1 << 17 // multiply-adds of a step that are worth two barriers
	chunkGates = 1 << 19 // elements of gates in a chunk
	teamSteps  = 16      // steps a gang does before it is asked again whether it is worth it
)

// prefersColumns decides the split: by columns when the rows are too few to go
// round, or so few that each core would spend its time reading an R that its
// cache cannot hold.
func (e *scan) prefersColumns() bool {
	workers, r := par.Workers(), e.gates*e.H*e.H
	if e.B*r < teamWork || !par.CanGang() {
		return false
	}
	rows := e.B / workers
	return rows < 2 || rows < 24 && 4*r > cacheShare
}

// chunkSteps is how many steps make a chunk, of at most limit. It depends on the
// shape alone: weight gradients are summed chunk by chunk, in one order always.
func (e *scan) chunkSteps(limit int) int {
	return max(1, min(limit, chunkGates/max(1, e.B*e.gates*e.H)))
}

// forward runs the steps of the chunk.
func (e *scan) forward() {
	for e.i0 = 0; e.i0 < e.steps; e.i0 = e.i1 {
		if e.prefersColumns() {
			e.i1 = min(e.i0+teamSteps, e.steps)
			par.Gang(e, forwardColumns)
		} else {
			e.i1 = e.steps
			par.For(e.B, e.rowGrain(), e, forwardRows)
		}
	}
}

// Scan runs one direction of one layer forward.
func (b *Backend) Scan(s *device.ScanSpec) {
	if s.B == 0 || s.H == 0 {
		return
	}
	e := b.newScan(s)
	e.mergeBias()
	e.packWeights()
	par.For(s.B, 1, e, startRows)
	limit := s.T
	if !s.Keep {
		limit = s.Chunk
	}
	chunk := e.chunkSteps(limit)
	for done := 0; done < s.T; done += e.steps {
		e.steps = min(chunk, s.T-done)
		if e.t0 = done; s.Reverse {
			e.t0 = s.T - done - e.steps
		}
		if e.g0 = 0; !s.Keep {
			e.g0 = e.t0
		}
		e.project()
		e.forward()
	}
	par.For(s.B, 1, e, finishRows)
	e.done()
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

// packWeights makes the panels of W and R, or takes those kept since the weights last changed.
func (e *scan) packWeights() {
	e.p = &e.own
	if e.Cache != nil {
		if p, ok := e.Cache.Load(e.Version).(*panels); ok {
			e.p = p
			return
		}
		e.p = new(panels)
	}
	b, GH := e.b, e.gates*e.H
	b.pack(&e.p.w, e.W.Host, e.I, GH, e.I, true)
	b.pack(&e.p.r, e.R.Host, e.H, e.apart, e.H, true)
	if e.apart < GH {
		b.pack(&e.p.side, e.R.Host[e.apart*e.H:], e.H, e.H, e.H, true)
	}
	if e.Cache != nil {
		e.Cache.Store(e.Version, e.p)
	}
}

// rowGrain is how many rows make a core's share worth waking it for.
func (e *scan) rowGrain() int {
	return ceilDiv(minGemmWork, max(1, e.steps*e.gates*e.H*e.H))
}

// project computes W·x + bias for the chunk, true steps only.
func (e *scan) project() {
	rows, perRow := e.steps*e.B, e.gates*e.H*max(1, e.I)
	switch {
	case e.Active != nil:
		par.For(e.steps, ceilDiv(minGemmWork, e.B*perRow), e, func(e *scan, lo, hi int) {
			for i := lo; i < hi; i++ {
				t := e.t0 + i
				e.projection(t*e.B, int(e.Active[t])).all()
			}
		})
	case rows < 2*par.Workers():
		par.For(e.panelsOf(e.gates*e.H), ceilDiv(minGemmWork, rows*e.b.set.NR*max(1, e.I)), e, func(e *scan, lo, hi int) {
			w := e.projection(e.t0*e.B, e.steps*e.B)
			w.run(0, w.m, lo, hi)
			w.put()
		})
	default:
		par.For(rows, ceilDiv(minGemmWork, perRow), e, func(e *scan, lo, hi int) {
			e.projection(e.t0*e.B+lo, hi-lo).all()
		})
	}
}

// projection is W·x + bias for n rows from row `from` of X on.
func (e *scan) projection(from, n int) *worker {
	GH := e.gates * e.H
	w := workerPool.get()
	w.product = product{set: e.b.set, m: n, n: GH, k: e.I, a: e.X.Host[from*e.I:], rs: e.I, cs: 1,
		panels: e.p.w.panels, c: e.Gates.Host[(from-e.g0*e.B)*GH:], ldc: GH, bias: e.bias}
	return w
}

// all computes the whole product and returns w to its pool.
func (w *worker) all() {
	if w.m > 0 {
		w.run(0, w.m, 0, ceilDiv(w.n, w.set.NR))
	}
	w.put()
}

func (e *scan) panelsOf(columns int) int { return ceilDiv(columns, e.b.set.NR) }

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

// at is the i-th time of the chunk in the order of the forward pass.
func (e *scan) at(i int) int {
	if e.Reverse {
		return e.t0 + e.steps - 1 - i
	}
	return e.t0 + i
}

// inside is how many of rows [lo,hi) are inside their sequence at t.
func (e *scan) inside(t, lo, hi int) int {
	if e.Active == nil {
		return hi - lo
	}
	return min(max(int(e.Active[t])-lo, 0), hi-lo)
}

// slot is rows [lo,hi) of slot i of a [_,B,H] buffer.
func (e *scan) slot(buf device.Buffer, i, lo, hi int) []float32 {
	return buf.Host[(i*e.B+lo)*e.H : (i*e.B+hi)*e.H]
}

// startRows puts the initial state into the slot that the first step reads.
func startRows(e *scan, lo, hi int) {
	first := 0
	if e.Reverse {
		first = e.T - 1
	}
	slot := e.before(max(first, 0))
	if e.T == 0 {
		slot = 0
	}
	e.load(e.slot(e.Hs, slot, lo, hi), e.H0, lo, hi)
	if !e.Cs.Zero() {
		e.load(e.slot(e.Cs, slot, lo, hi), e.C0, lo, hi)
	}
}

// load copies rows [lo,hi) of a [B,H] buffer, zeros if it is absent.
func (e *scan) load(dst []float32, src device.Buffer, lo, hi int) {
	if src.Zero() {
		clear(dst)
		return
	}
	copy(dst, e.slot(src, 0, lo, hi))
}

// finishRows takes the final state from the slot that the last step wrote.
func finishRows(e *scan, lo, hi int) {
	slot := 0
	switch {
	case e.T == 0:
	case e.Reverse:
		slot = e.after(0)
	default:
		slot = e.after(e.T - 1)
	}
	copy(e.slot(e.HN, 0, lo, hi), e.slot(e.Hs, slot, lo, hi))
	if !e.CN.Zero() {
		copy(e.slot(e.CN, 0, lo, hi), e.slot(e.Cs, slot, lo, hi))
	}
}

// forwardRows runs steps [i0,i1) for rows [lo,hi).
func forwardRows(e *scan, lo, hi int) {
	w, r := workerPool.get(), e.newRow()
	for i := e.i0; i < e.i1; i++ {
		t := e.at(i)
		e.recur(w, t, lo, hi, par.Member{})
		e.cells(r, t, lo, hi)
	}
	rowPool.put(r)
	w.put()
}

// forwardColumns runs them as a member of a gang.
func forwardColumns(e *scan, m par.Member) {
	w, r := workerPool.get(), e.newRow()
	lo, hi := m.Share(e.B)
	for i := e.i0; i < e.i1; i++ {
		t := e.at(i)
		e.recur(w, t, 0, e.B, m)
		m.Barrier()
		e.cells(r, t, lo, hi)
		m.Barrier()
	}
	rowPool.put(r)
	w.put()
}

// recur adds R·h to the gates of rows [lo,hi) at time t: the member's share of the columns.
func (e *scan) recur(w *worker, t, lo, hi int, m par.Member) {
	n := e.inside(t, lo, hi)
	if n == 0 {
		return
	}
	GH := e.gates * e.H
	base := (t-e.g0)*e.B + lo
	h := e.slot(e.Hs, e.before(t), lo, hi)
	if e.apart > 0 {
		w.product = product{set: e.b.set, m: n, n: e.apart, k: e.H, a: h, rs: e.H, cs: 1, panels: e.p.r.panels,
			c: e.Gates.Host[base*GH:], ldc: GH, acc: true}
		p0, p1 := m.Share(e.panelsOf(e.apart))
		w.run(0, n, p0, p1)
	}
	if e.apart < GH {
		w.product = product{set: e.b.set, m: n, n: e.H, k: e.H, a: h, rs: e.H, cs: 1, panels: e.p.side.panels,
			c: e.Side.Host[base*e.H:], ldc: e.H}
		if !e.BR.Zero() {
			w.bias = e.BR.Host[e.apart:]
		}
		p0, p1 := m.Share(e.panelsOf(e.H))
		w.run(0, n, p0, p1)
	}
}

// cells runs the cell for rows [lo,hi) at time t.
func (e *scan) cells(r *row, t, lo, hi int) {
	n := e.inside(t, lo, hi)
	for b := lo; b < lo+n; b++ {
		e.bind(r, t, b)
		e.cell.forward(r)
		copy(e.Y.Host[(t*e.B+b)*e.YLd+e.YOff:], r.hNew)
	}
	for b := lo + n; b < hi; b++ { // past the row's end: zero output, state kept
		clear(e.Y.Host[(t*e.B+b)*e.YLd+e.YOff:][:e.H])
		copy(e.slot(e.Hs, e.after(t), b, b+1), e.slot(e.Hs, e.before(t), b, b+1))
		if !e.Cs.Zero() {
			copy(e.slot(e.Cs, e.after(t), b, b+1), e.slot(e.Cs, e.before(t), b, b+1))
		}
	}
}

func (e *scan) newRow() *row {
	r := rowPool.get()
	*r = row{set: e.b.set, h: e.H}
	return r
}

// bind points r at batch row b of time t.
func (e *scan) bind(r *row, t, b int) {
	GH, g := e.gates*e.H, (t-e.g0)*e.B+b
	r.gates = e.Gates.Host[g*GH : (g+1)*GH]
	if !e.Side.Zero() {
		r.side = e.Side.Host[g*e.H : (g+1)*e.H]
	}
	r.hOld, r.hNew = e.slot(e.Hs, e.before(t), b, b+1), e.slot(e.Hs, e.after(t), b, b+1)
	if !e.Cs.Zero() {
		r.cOld, r.cNew = e.slot(e.Cs, e.before(t), b, b+1), e.slot(e.Cs, e.after(t), b, b+1)
	}
}
