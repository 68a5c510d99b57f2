package cpu

import (
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// The scan engine does time, direction, lengths, state and the matrix products;
// a cell (cell.go) computes one batch row of one step. For one row, with H0 and
// C0 as the state before the first step, a scan is the loop
//
//	for t in the order of the direction, inside the row's length
//		gates = W·x[t] + BW + R·h + BR
//		h, c = cell(gates, h, c)
//		y[t] = h
//
// A step is one or more stages, each a matrix product and then arithmetic on each
// row. Backward the arithmetic comes first, and the stages in the opposite order.
//
// scan_split.go describes how steps are divided among cores. Unless gates are
// local, time is divided into chunks whose gates fit the cache: W·x of a chunk is
// one product, and then its steps are run. Backward, the weight gradients of a
// chunk are products over all its steps.

// scanGates is the most elements of Gates in a scan without Keep.
const scanGates = 1 << 18

// ScanWork returns the length of ScanSpec.Work. With halfGates, its Gates are the activations in 16
// bits, and memory of the scan itself has Gates for a chunk.
func (b *Backend) ScanWork(s *device.ScanSpec) int {
	_, n := s.Divide(s.KeptSteps(b.gates), halfGates(s))
	return n
}

// scan is one call of Scan or ScanGrad.
type scan struct {
	*device.ScanSpec
	device.ScanWork
	b         *Backend
	cell      *arithmetic
	gw        int // the width of Gates: G*H
	out       int // O, the width of h
	cw        int // C, the width of the other states
	sw        int // the width of Side
	joined    int // ScanSpec.Joined and Tied
	tied      int
	local     bool // localGates, in Scan
	parts     int  // number of parts of the rows
	back      bool // in ScanGrad
	stages    []stage
	plain     bool // the cell takes several rows at once and writes the output: nothing is done after it
	t0, steps int  // the chunk: times [t0, t0+steps)
	i0, i1    int  // the steps of the chunk being run, in the order of the pass
	g0        int  // the time of the first row of Gates, and w0 of the other parts of Work
	w0        int
	acts      actions

	bias []float32 // [G*H] BW + BR in the first tied rows, BW in the others
	p    *weights  // the panels in use: cached ones, or own
	own  weights
	prod product // a product that compute divides
	pair beside  // of prod
	turn turn
	mask []float32 // [B,O] of HDrop

	dh, dc []float32 // [B,O], [B,C] gradients carried back in time
	dr     []float32 // with HDrop: [B,O] gradient of what entered R
	dmid   []float32 // [B,H] gradient of the operand of a step's second product
	dp     []float32 // with Proj: [steps,B,O] gradient of the projection
	acc    []float32 // [B,vectors.n] gradients of the vector parameters, row by row
	vec    vectors
	sums   []float32    // [G*H] bias gradients of a chunk
	packed [3][]float32 // rows gathered: inputs, states before, input gradients
	chunk  []float32    // Gates of a chunk, if those in Work have 16 bits:
	kept   []uint16     // these
}

// weights is the matrices of a direction in panels, as right operands.
type weights struct {
	w    panels // W, transposed; backward: not transposed
	r    panels // the first rows of R, likewise
	side panels // the other rows of R
	proj panels // P
}

// stage is a part of a step: product is divided by columns or rows, rows by rows.
type stage struct {
	product func(e *scan, w *worker, t, lo, hi int, m par.Member)
	rows    func(e *scan, r *row, t, lo, hi int)
}

var (
	oneStage   = []stage{{(*scan).recur, (*scan).cells}}
	projecting = []stage{{(*scan).recur, (*scan).cells}, {(*scan).project, eachRow((*row).output)}}
	resetting  = []stage{{(*scan).recur, eachRow((*row).reset)}, {(*scan).candidate, (*scan).cells}}

	oneStageBack   = []stage{{(*scan).recurGrad, (*scan).cellGrads}}
	projectingBack = []stage{{(*scan).projectGrad, eachRow((*row).projectedGrad)}, {(*scan).recurGrad, (*scan).cellGrads}}
	resettingBack  = []stage{{(*scan).candidateGrad, (*scan).cellGrads}, {(*scan).recurGrad, eachRow((*row).resetGrad)}}
)

// eachRow returns the rows of a stage whose arithmetic is f on each row inside its sequence.
func eachRow(f func(r *row)) func(e *scan, r *row, t, lo, hi int) {
	return func(e *scan, r *row, t, lo, hi int) {
		e.enter(r, t)
		for b := lo; b < lo+e.inside(t, lo, hi); b++ {
			e.bind(r, b)
			f(r)
		}
	}
}

// setStages sets the stages of a step for the pass, forward or backward.
func (e *scan) setStages() {
	forward, backward := oneStage, oneStageBack
	switch {
	case e.Cell == cell.GRUBefore:
		forward, backward = resetting, resettingBack
	case e.Proj > 0:
		forward, backward = projecting, projectingBack
	}
	if e.stages = forward; e.back {
		e.stages = backward
	}
}

var scanPool par.Pool[scan]

func (b *Backend) newScan(s *device.ScanSpec, back bool) *scan {
	e := scanPool.Get()
	e.ScanSpec, e.b, e.back, e.local = s, b, back, false
	e.gw, e.out, e.cw, e.sw = s.GateWidth(), s.Out(), s.CellWidth(), s.SideWidth()
	e.ScanWork, _ = s.Divide(s.KeptSteps(b.gates), halfGates(s))
	if e.kept = nil; halfGates(s) {
		e.kept = asHalves(e.Gates.Host)
		e.chunk = grow(e.chunk, e.chunkSteps(s.T)*s.B*e.gw)
		e.Gates = device.HostBuffer(e.chunk)
	}
	e.joined, e.tied = s.Joined(), s.Tied()
	e.cell = arithmeticOf(s)
	e.setActions()
	e.setStages()
	e.plain = e.cell.takesRows && s.HDrop == 0 && s.Proj == 0 && s.ZoneH == 0 && !s.Has(cell.NormX)
	e.packWeights()
	return e
}

func (e *scan) done() {
	e.ScanSpec, e.ScanWork, e.kept, e.p, e.prod, e.pair = nil, device.ScanWork{}, nil, nil, product{}, beside{}
	e.turn = turn{}
	scanPool.Put(e)
}

// gateRow returns the first row of time t in Gates, and workRow in Side, Mid, XHat and Stats.
func (e *scan) gateRow(t int) int { return e.rowFrom(e.g0, t) }
func (e *scan) workRow(t int) int { return e.rowFrom(e.w0, t) }

func (e *scan) rowFrom(first, t int) int {
	if e.local && !e.Keep {
		return 0
	}
	return (t - first) * e.B
}

// begins sets the times of the first rows of a chunk at t0.
func (e *scan) begins() {
	if e.g0, e.w0 = 0, 0; !e.Keep {
		e.g0, e.w0 = e.t0, e.t0
	} else if e.kept != nil {
		e.g0 = e.t0
	}
}

// place returns the row of X, Y and their gradients that is row b at time t, and next the
// distance to that of b+1.
func (e *scan) place(t, b int) int {
	if e.BatchMajor {
		return b*e.T + t
	}
	return t*e.B + b
}

func (e *scan) next() int {
	if e.BatchMajor {
		return e.T
	}
	return 1
}

// halfGates reports whether the gates of a pass are kept in 16 bits: those of a training in 16
// bits that are sigmoids and tanhs. Others may have any size, and where they are clipped, the
// backward pass compares them with the ends of the range.
func halfGates(s *device.ScanSpec) bool {
	own := s.GateAct <= cell.Sigmoid && (s.InAct == cell.Own || s.InAct == cell.Tanh) && s.GateClip == 0
	gates := cell.Table[s.Cell].Gates
	return s.Keep && s.Kinds[cell.W].Half() && own && len(gates) > 0 &&
		!slices.ContainsFunc(gates, func(g cell.Gate) bool { return g.Act != cell.Sigmoid && g.Act != cell.Tanh })
}

// moveGates stores the gates of r's units of rows [b, b+r.rows) at r's time in 16 bits, or
// with back takes them from there. They are float16 for every kind, and sigmoids keep their
// distance from 1: a gradient is multiplied by the forget gate of each step, and with the 8 bits
// of bfloat16 a gate of 0.993 is off by up to 0.2 %, a factor of 7 over 1,000 steps.
func (e *scan) moveGates(r *row, b int) {
	if e.kept == nil {
		return
	}
	set, list := e.b.set, cell.Table[e.Cell].Gates
	for row := range r.rows {
		gates := e.Gates.Host[(r.first+b+row)*e.gw:][:e.gw]
		kept := e.kept[(r.t*e.B+b+row)*e.gw:][:e.gw]
		for g := 0; g < len(list); {
			n := 1 // adjacent gates of one form are moved at once, if all their units are
			for g+n < len(list) && list[g+n].Act == list[g].Act && r.u1-r.u0 == e.H {
				n++
			}
			lo, hi := g*e.H+r.u0, (g+n-1)*e.H+r.u1
			narrow, widen := set.Weights[device.FP16].Narrow, set.Weights[device.FP16].Widen
			if list[g].Act == cell.Sigmoid {
				narrow, widen = set.NarrowUnit, set.WidenUnit
			}
			if e.back {
				widen(gates[lo:hi], kept[lo:hi])
			} else {
				narrow(kept[lo:hi], gates[lo:hi])
			}
			g += n
		}
	}
}

// run runs the steps of the chunk, in the order of the pass.
func (e *scan) run() {
	if e.splitsUnits() {
		par.For(e.B*e.blocks(), e.blockGrain(), e, unitSteps)
		return
	}
	for e.i0 = 0; e.i0 < e.steps; e.i0 = e.i1 {
		if !e.local && e.prefersColumns() {
			e.i1 = min(e.i0+e.gangSteps(), e.steps)
			par.Gang(e, columnSteps)
		} else {
			e.i1 = e.steps
			par.For(e.cutRows(), 1, e, rowSteps)
		}
	}
}

// Scan runs one direction of one layer forward.
func (b *Backend) Scan(s *device.ScanSpec) {
	if s.B == 0 || s.H == 0 {
		return
	}
	e := b.newScan(s, false)
	e.mergeBias()
	if s.HDrop > 0 {
		e.mask = grow(e.mask, s.B*e.out)
	}
	few := ceilDiv(moveGrain, e.out+e.cw)
	par.For(s.B, few, e, startRows)
	chunk := e.chunkSteps(s.KeptSteps(b.gates))
	if e.local = e.localGates(); e.local && e.kept == nil {
		chunk = s.T
	}
	for done := 0; done < s.T; done += e.steps {
		e.steps = min(chunk, s.T-done)
		if e.t0 = done; s.Reverse {
			e.t0 = s.T - done - e.steps
		}
		e.begins()
		if !e.local {
			e.inputs()
		}
		e.run()
	}
	par.For(s.B, few, e, finishRows)
	e.trace()
	e.done()
}

// mergeBias adds the two biases, except of a gate whose R·h is kept separate.
func (e *scan) mergeBias() {
	e.bias = grow(e.bias, e.gw)
	if !e.Has(cell.BW) {
		clear(e.bias)
		return
	}
	copy(e.bias, e.Params[cell.BW].Host)
	if e.Has(cell.BR) {
		e.b.set.Add(e.bias[:e.tied], e.bias[:e.tied], e.Params[cell.BR].Host[:e.tied])
	}
}

// packWeights sets e.p to the panels of W, R and P for the pass: those in the
// cache if they have the current version, or else new ones.
func (e *scan) packWeights() {
	c := e.Cache
	if e.back {
		c = e.BackCache
	}
	var current bool
	w, r, proj := e.weightsOf(cell.W), e.weightsOf(cell.R), e.weightsOf(cell.P)
	if e.p, current = cachedIn(c, e.Version, &e.own); current {
		if e.p.w.Weights == w && e.p.r.Weights == r && e.p.proj.Weights == proj {
			return
		}
		e.p = new(weights) // others may be using that of other kinds
	}
	e.p.w.Weights, e.p.r.Weights, e.p.side.Weights, e.p.proj.Weights = w, r, r, proj
	if !e.back || !e.DX.Zero() || c != nil {
		e.packRows(&e.p.w, cell.W, 0, e.gw)
	}
	if e.Has(cell.R) {
		e.packRows(&e.p.r, cell.R, 0, e.joined)
		if e.joined < e.gw {
			e.packRows(&e.p.side, cell.R, e.joined, e.gw)
		}
	}
	if e.Proj > 0 {
		e.packRows(&e.p.proj, cell.P, 0, e.out)
	}
	if c != nil {
		c.Store(e.Version, e.p)
	}
}

// kindOf returns the kind of the products with a matrix.
func (e *scan) kindOf(p cell.Param) device.Kind {
	if e.back {
		return e.Kinds[p].Backward()
	}
	return e.Kinds[p]
}

func (e *scan) weightsOf(p cell.Param) *simd.Weights { return e.b.weights(e.kindOf(p)) }

// packRows packs rows [lo,hi) of a matrix, in a forward pass transposed.
func (e *scan) packRows(to *panels, p cell.Param, lo, hi int) {
	cols := e.Dims(p)[1]
	k, n := hi-lo, cols
	if !e.back {
		k, n = n, k
	}
	e.b.pack(to, e.Params[p].Host[lo*cols:], k, n, cols, !e.back)
}

// inputs computes W·x + bias for the chunk, inside sequences only.
func (e *scan) inputs() {
	if e.Active.Zero() && !e.BatchMajor {
		e.prod = e.input(e.t0, 0, e.steps*e.B)
		e.prod.compute()
		return
	}
	par.For(e.steps, ceilDiv(minGemmWork, e.B*e.gw*max(1, e.I)), e, func(e *scan, lo, hi int) {
		for t := e.t0 + lo; t < e.t0+hi; t++ {
			if n := e.inside(t, 0, e.B); n > 0 {
				p := e.input(t, 0, n)
				p.part(0, n, 0, e.panelsOf(e.gw))
			}
		}
	})
}

// share computes a member's share of the columns of a product of a step. p needs no set, and cs is 1.
func (e *scan) share(w *worker, m par.Member, p product) {
	if p.m > 0 {
		p.set, p.cs = e.b.set, 1
		w.product = p
		p0, p1 := m.Share(e.panelsOf(p.n))
		w.run(0, p.m, p0, p1)
	}
}

// input returns the product W·x + bias of n rows from row lo of time t on. If W·x is normalised, the bias is added later.
func (e *scan) input(t, lo, n int) product {
	GH := e.gw
	p := product{set: e.b.set, m: n, n: GH, k: e.I, a: e.X.Host[e.place(t, lo)*e.I:], rs: e.next() * e.I, cs: 1,
		panels: &e.p.w, c: e.Gates.Host[(e.gateRow(t)+lo)*GH:], ldc: GH, bias: e.bias}
	if e.Has(cell.NormX) {
		p.bias = nil
	}
	return p
}

func (e *scan) panelsOf(columns int) int { return ceilDiv(columns, e.b.set.NR) }

// before and after return the slots of Hs and Cs that hold the states around time t.
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
	if e.Reverse {
		return e.before(t - 1)
	}
	return e.before(t + 1)
}

// ends returns the slots of the initial and of the final state.
func (e *scan) ends() (first, last int) {
	switch {
	case e.T == 0:
		return 0, 0
	case e.Reverse:
		return e.before(e.T - 1), e.after(0)
	}
	return e.before(0), e.after(e.T - 1)
}

// at returns the i-th time of the chunk in the order of the pass.
func (e *scan) at(i int) int {
	if e.Reverse != e.back {
		return e.t0 + e.steps - 1 - i
	}
	return e.t0 + i
}

// inside returns how many of rows [lo,hi) are inside their sequence at t: the first ones.
func (e *scan) inside(t, lo, hi int) int {
	if e.Active.Zero() {
		return hi - lo
	}
	return min(max(int(e.Active.Host[t])-lo, 0), hi-lo)
}

// slot returns rows [lo,hi) of slot i of a [_,B,width] buffer.
func (e *scan) slot(buf device.Buffer, width, i, lo, hi int) []float32 {
	return buf.Host[(i*e.B+lo)*width : (i*e.B+hi)*width]
}

// startRows copies the initial states of rows [lo,hi) to the slot that the first step reads.
func startRows(e *scan, lo, hi int) {
	slot, _ := e.ends()
	h := e.slot(e.Hs, e.out, slot, lo, hi)
	load(h, e.Params[cell.H0], lo*e.out)
	load(e.slot(e.Cs, e.cw, slot, lo, hi), e.Params[cell.C0], lo*e.cw)
	if e.HDrop > 0 {
		e.drawMask(lo, hi)
		e.b.set.Mul(e.slot(e.HIn, e.out, slot, lo, hi), h, e.mask[lo*e.out:hi*e.out])
	}
}

// load copies src[from:] to dst; if src is absent it clears dst.
func load(dst []float32, src device.Buffer, from int) {
	if src.Zero() {
		clear(dst)
		return
	}
	copy(dst, src.Host[from:])
}

// finishRows copies the final states of rows [lo,hi) from the slot that the last step wrote.
func finishRows(e *scan, lo, hi int) {
	_, slot := e.ends()
	copy(e.slot(e.HN, e.out, 0, lo, hi), e.slot(e.Hs, e.out, slot, lo, hi))
	copy(e.slot(e.CN, e.cw, 0, lo, hi), e.slot(e.Cs, e.cw, slot, lo, hi))
}

// trace copies gates and states to TraceGates and TraceCells.
func (e *scan) trace() {
	if !e.TraceGates.Zero() {
		for t := range e.T {
			at, n := t*e.B*e.gw, e.inside(t, 0, e.B)*e.gw
			copy(e.TraceGates.Host[at:at+n], e.Gates.Host[at:])
		}
	}
	if !e.TraceCells.Zero() {
		copy(e.TraceCells.Host, e.slot(e.Cs, e.cw, e.after(0), 0, e.B*e.T))
	}
}

// rowSteps runs steps [i0,i1) for the rows of parts [from,to).
func rowSteps(e *scan, from, to int) { e.runSteps(par.Member{}, e.cut(from), e.cut(to)) }

// columnSteps runs steps [i0,i1) as a member of a gang, and sets i1 to the step after the last one run.
func columnSteps(e *scan, m par.Member) {
	if end := e.runSteps(m, 0, e.B); m.First() {
		e.i1 = end
	}
}

// runSteps runs steps [i0,i1) for rows [lo,hi). A member computes its share of
// the products' columns and the cells of its share of the rows or units. It
// returns the step after the last one run: i1, or less if the gang should end.
// Forward a stage's product comes first, backward its rows.
func (e *scan) runSteps(m par.Member, lo, hi int) (i int) {
	w, r := workerPool.Get(), e.newRow()
	first, last, byUnits := e.ownRows(r, m, lo, hi)
	together, end := true, e.i1
	for i = e.i0; i < end && together; i++ {
		t := e.at(i)
		for _, s := range e.stages {
			if e.back {
				s.rows(e, r, t, first, last)
				together = m.Barrier()
			}
			s.product(e, w, t, lo, hi, m)
			if !byUnits {
				together = m.Barrier()
			}
			if !e.back {
				s.rows(e, r, t, first, last)
				together = m.Barrier()
			}
		}
	}
	r.put()
	w.put()
	return i
}

// unitSteps runs all steps of the chunk for blocks [lo,hi) of units, counted row by row.
func unitSteps(e *scan, lo, hi int) {
	r := e.newRow()
	for i := range e.steps {
		for b := lo / e.blocks(); b*e.blocks() < hi; b++ {
			first := b * e.blocks()
			r.u0, r.u1 = max(lo-first, 0)*unitBlock, min((hi-first)*unitBlock, e.H)
			e.stages[0].rows(e, r, e.at(i), b, b+1)
		}
	}
	r.put()
}

// entering returns the states that R is multiplied with.
func (e *scan) entering() device.Buffer {
	if e.HDrop > 0 {
		return e.HIn
	}
	return e.Hs
}

// recur adds R·h to the gates of rows [lo,hi) at time t, or computes W·x + R·h if
// gates are local: the member's share of the columns.
func (e *scan) recur(w *worker, t, lo, hi int, m par.Member) {
	n := e.inside(t, lo, hi)
	if n == 0 || !e.Has(cell.R) {
		return
	}
	GH := e.gw
	base, beside := e.gateRow(t)+lo, e.workRow(t)+lo
	h := e.slot(e.entering(), e.out, e.before(t), lo, hi)
	switch {
	case e.local:
		w.product = e.input(t, lo, n)
		w.then = addend{e.out, h, e.out, &e.p.r}
		joined := e.panelsOf(e.joined)
		w.run(0, n, 0, joined)
		w.then = addend{}
		w.run(0, n, joined, e.panelsOf(GH))
	case e.joined > 0:
		w.product = product{set: e.b.set, m: n, n: e.joined, k: e.out, a: h, rs: e.out, cs: 1, panels: &e.p.r,
			c: e.Gates.Host[base*GH:], ldc: GH, acc: true}
		p0, p1 := m.Share(e.panelsOf(e.joined))
		if e.ownsUnits(m) {
			each := e.H / e.b.set.NR
			p0, p1 = m.Share(each)
			w.some = runs{p0, p1 - p0, each, t&1 == 1}
			p0, p1 = 0, (p1-p0)*(GH/e.H)
		}
		w.run(0, n, p0, p1)
	}
	if e.joined < GH && e.Cell != cell.GRUBefore {
		p := product{m: n, n: e.sw, k: e.out, a: h, rs: e.out, panels: &e.p.side, c: e.Side.Host[beside*e.sw:], ldc: e.sw}
		if e.Has(cell.BR) && !e.Has(cell.NormX) {
			p.bias = e.Params[cell.BR].Host[e.joined:]
		}
		e.share(w, m, p)
	}
}

// candidate adds the last gate's rows of R times Side, for a GRU that resets before the product.
func (e *scan) candidate(w *worker, t, lo, hi int, m par.Member) {
	e.share(w, m, product{m: e.inside(t, lo, hi), n: e.H, k: e.H, a: e.Side.Host[(e.workRow(t)+lo)*e.H:], rs: e.H,
		panels: &e.p.side, c: e.Gates.Host[(e.gateRow(t)+lo)*e.gw+e.joined:], ldc: e.gw, acc: true})
}

// project computes the new state P·m.
func (e *scan) project(w *worker, t, lo, hi int, m par.Member) {
	e.share(w, m, product{m: e.inside(t, lo, hi), n: e.out, k: e.H, a: e.Mid.Host[(e.workRow(t)+lo)*e.H:], rs: e.H,
		panels: &e.p.proj, c: e.slot(e.Hs, e.out, e.after(t), lo, hi), ldc: e.out})
}

// cells computes the cell for r's units of rows [lo,hi) at time t.
func (e *scan) cells(r *row, t, lo, hi int) {
	n := e.inside(t, lo, hi)
	if r.u0 == r.u1 {
		return
	}
	e.enter(r, t)
	for b := lo; b < lo+n; b += r.rows {
		r.rows = min(e.cellRows(), lo+n-b)
		e.bind(r, b)
		e.cell.forward(r)
		e.moveGates(r, b)
		if e.Proj == 0 && !e.plain {
			r.output()
		}
	}
	for b := lo + n; b < hi; b++ { // past the row's end: zero output, unchanged state
		o0, o1 := e.outputsOf(r)
		clear(e.Y.Host[(t*e.B+b)*e.YLd+e.YOff:][o0:o1])
		e.keep(e.Hs, e.out, t, b, o0, o1)
		c0, c1 := e.cellsOf(r)
		e.keep(e.Cs, e.cw, t, b, c0, c1)
		if e.HDrop > 0 {
			e.keep(e.HIn, e.out, t, b, o0, o1)
		}
	}
}

// outputsOf returns the part of h that r's units produce.
func (e *scan) outputsOf(r *row) (lo, hi int) {
	if e.Proj > 0 {
		return 0, e.out
	}
	return r.u0, r.u1
}

// cellsOf returns the part of the other states that r's units produce.
func (e *scan) cellsOf(r *row) (lo, hi int) {
	if r.u1-r.u0 == e.H {
		return 0, e.cw
	}
	return min(r.u0, e.cw), min(r.u1, e.cw)
}

// keep copies elements [lo,hi) of row b of a state from before time t to after it.
func (e *scan) keep(buf device.Buffer, width, t, b, lo, hi int) {
	copy(e.slot(buf, width, e.after(t), b, b+1)[lo:hi], e.slot(buf, width, e.before(t), b, b+1)[lo:])
}

// output computes the new state, the output and the next operand of R from the cell's h.
func (r *row) output() {
	e := r.e
	if e.ZoneH > 0 {
		mixZone(r.hNew, r.fresh(device.ZoneH, e.out), r.hNew, r.hOld)
	}
	lo, hi := e.outputsOf(r)
	copy(e.Y.Host[e.place(r.t, r.b)*e.YLd+e.YOff+lo:], r.hNew[lo:hi])
	if e.HDrop > 0 {
		r.set.Mul(e.slot(e.HIn, e.out, e.after(r.t), r.b, r.b+1), r.hNew, e.mask[r.b*e.out:(r.b+1)*e.out])
	}
}
