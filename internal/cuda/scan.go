//go:build dl && linux

package cuda

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// A scan is W·x of all times as one product, and then one kernel for all steps
// (kernels/scan.cu), whose blocks wait for each other after each. Each block has units of h
// for a group of rows, all of their gates, and their part of R in its shared memory: scanPlan.
// ScanGrad is the same the other way round, and then products for the weights' gradients.

// scanGates is about how many elements of Gates there are in a scan without Keep. Tests change it.
var scanGates = 1 << 24

// lines returns n rounded up to 64 elements, so that what follows begins on a boundary.
func lines(n int) int { return (n + 63) &^ 63 }

// ScanWork returns the length of ScanSpec.Work. It is enough for cuDNN and for the kernels here,
// since a scan that cuDNN could run may be traced later.
func (b *Backend) ScanWork(s *device.ScanSpec) int {
	_, sum := s.Divide(s.KeptSteps(scanGates), false)
	b.enter()
	defer b.leave()
	if b.dnnTakes(s) {
		sum = max(sum, b.dnnWork(s))
	}
	return sum
}

// maskArgs is mask of cells.cu.
type maskArgs struct {
	key    uint64
	limit  int64
	keep   float32
	expect int32
}

// scanArgs is scan_args of cells.cu.
type scanArgs struct {
	r, p, bw, br, peepI, peepF, peepO, normX, normR, normC, biasC, h0, c0 uintptr
	active, rows                                                          uintptr
	gates, side, hs, cs, hIn, mid, xhat, stats                            uintptr
	y, hn, cn                                                             uintptr
	dy, dhn, dcn, gain                                                    uintptr
	dh, dc, dr, dmid, dp, acc                                             uintptr
	traceDH, traceDC, dh0, dc0                                            uintptr
	barriers                                                              uintptr
	yStep, yRow                                                           int64
	dropH, zoneH, zoneC                                                   maskArgs
	cell, t, b, h, o, gw, cw, sw, joined, tied                            int32
	t0, steps, firstStep                                                  int32
	keep, reverse, starts, ends, proj, norm, drops                        int32
	gateAct, inAct, outAct                                                int32
	gateClip, cellClip                                                    float32
	accN                                                                  int32
	at                                                                    [8]int32 // of PeepI and the following parameters, then of BR
	blocks, group, units, outs                                            int32
	sliceR, sliceP, staging                                               int32
	heldR, heldP, tiles, xAt                                              int32
}

// scan is one call of Scan or ScanGrad.
type scan struct {
	*device.ScanSpec
	device.ScanWork
	b           *Backend
	gw, out, sw int // widths of Gates, h and Side
	cw          int // and of the other states
	joined      int // ScanSpec.Joined and Tied
	tied        int
	back        bool // in ScanGrad
	args        scanArgs
}

// newScan prepares a pass; b is entered.
func (b *Backend) newScan(s *device.ScanSpec, back bool) *scan {
	if s.Cell == cell.Custom {
		panic(&device.Error{Device: b.title(), Text: "a custom cell is code of the program's, which runs on the CPU alone: use --device cpu"})
	}
	e := &scan{ScanSpec: s, b: b, gw: s.GateWidth(), out: s.Out(), sw: s.SideWidth(), cw: s.CellWidth(), joined: s.Joined(), tied: s.Tied(), back: back}
	for _, p := range [...]cell.Param{cell.W, cell.R, cell.P} {
		if s.Has(p) && e.kindOf(p) == device.INT8 && p != cell.W {
			panic(&device.Error{Device: b.title(), Text: "recurrent products in int8 are computed on the CPU alone: use --precision bf16, or --device cpu"})
		}
	}
	e.ScanWork, _ = s.Divide(s.KeptSteps(scanGates), false)
	a := &e.args
	for i, to := range [...]*uintptr{cell.R: &a.r, cell.BW: &a.bw, cell.BR: &a.br, cell.P: &a.p, cell.PeepI: &a.peepI, cell.PeepF: &a.peepF,
		cell.PeepO: &a.peepO, cell.NormX: &a.normX, cell.NormR: &a.normR, cell.NormC: &a.normC, cell.BiasC: &a.biasC, cell.H0: &a.h0, cell.C0: &a.c0} {
		if to != nil {
			*to = s.Params[i].Addr
		}
	}
	a.active, a.rows = s.Active.Addr, s.Rows.Addr
	a.gates, a.side, a.hs, a.cs, a.hIn, a.mid, a.xhat, a.stats = e.Gates.Addr, e.Side.Addr, e.Hs.Addr, e.Cs.Addr, e.HIn.Addr, e.Mid.Addr, e.XHat.Addr, e.Stats.Addr
	a.barriers = b.barrier
	a.yStep, a.yRow = int64(s.B*s.YLd), int64(s.YLd)
	if s.BatchMajor {
		a.yStep, a.yRow = int64(s.YLd), int64(s.T*s.YLd)
	}
	a.dropH = e.mask(device.DropH, s.HDrop, device.KeepFactor(s.HDrop))
	a.zoneH, a.zoneC = e.zone(device.ZoneH, s.ZoneH), e.zone(device.ZoneC, s.ZoneC)
	a.cell, a.t, a.b, a.h, a.o, a.gw, a.cw, a.sw = int32(s.Cell), int32(s.T), int32(s.B), int32(s.H), int32(e.out), int32(e.gw), int32(e.cw), int32(e.sw)
	a.joined, a.tied = int32(e.joined), int32(e.tied)
	a.keep, a.reverse, a.proj, a.norm, a.drops = flag(s.Keep), flag(s.Reverse), flag(s.Proj > 0), flag(s.Has(cell.NormX)), flag(s.HDrop > 0)
	a.gateAct, a.inAct, a.outAct = int32(cmp.Or(s.GateAct, cell.Sigmoid)), int32(cmp.Or(s.InAct, s.Cell.Spec().Candidate())), int32(cmp.Or(s.OutAct, cell.Tanh))
	a.gateClip, a.cellClip = s.GateClip, s.CellClip
	return e
}

// mask returns the numbers of a stream that are 0 with probability p and keep otherwise.
func (e *scan) mask(stream uint64, p, keep float32) maskArgs {
	return maskArgs{key: device.MaskKey(e.Seed, e.Step, e.Node+stream), limit: int64(device.Threshold(p)), keep: keep}
}

// zone returns the weights of the new values in zoneout.
func (e *scan) zone(stream uint64, p float32) maskArgs {
	m := e.mask(stream, p, 1)
	if e.Expect {
		m.keep, m.expect = 1-p, 1
	}
	return m
}

// kindOf returns the kind of the products with a matrix.
func (e *scan) kindOf(p cell.Param) device.Kind {
	if e.back {
		return e.Kinds[p].Backward()
	}
	return e.Kinds[p]
}

// plain reports whether the cell has none of its options.
func (e *scan) plain() bool {
	o := &e.Options
	act := func(a, own cell.Activation) bool { return a == cell.Own || a == own }
	return act(o.GateAct, cell.Sigmoid) && act(o.InAct, e.Cell.Spec().Candidate()) && act(o.OutAct, cell.Tanh) && o.GateClip == 0 && o.CellClip == 0 &&
		o.HDrop == 0 && o.ZoneH == 0 && o.ZoneC == 0 && e.Proj == 0 && !e.Has(cell.PeepI) && !e.Has(cell.PeepF) && !e.Has(cell.PeepO) && !e.Has(cell.NormX)
}

// kernel returns a kernel for the scan's cell.
func (e *scan) kernel(file, name, macros string) kernel {
	macros = fmt.Sprintf("CELL=%d", e.Cell) + macros
	if e.plain() {
		macros += " PLAIN=1"
	}
	if !e.Has(cell.R) {
		macros += " FREE=1"
	}
	return kernel{file, name, macros}
}

// queue queues the steps [t0, t0+steps) by a kernel of a file of its name.
func (e *scan) queue(name string) {
	a, b := &e.args, e.b
	if !e.Has(cell.R) {
		launch(b, e.kernel(name, name+"_free", ""), each(e.B*e.H), a)
		return
	}
	p := b.scanPlan(e)
	a.blocks, a.group, a.units, a.outs = int32(p.blocks), int32(p.rows), int32(p.units), int32(p.outs)
	a.sliceR, a.sliceP, a.staging = int32(p.slices[0]), int32(p.slices[1]), int32(p.staging)
	a.heldR, a.heldP, a.tiles, a.xAt = flag(p.held[0]), flag(p.held[1]), int32(p.tiles), int32(p.xAt)
	s := blocks(p.blocks*p.groups, p.shared)
	s.cooperative = p.blocks > 1
	launch(b, e.kernel(name, name, p.macros), s, a)
}

// Scan runs one direction of one layer forward.
func (b *Backend) Scan(s *device.ScanSpec) {
	if s.B == 0 || s.H == 0 {
		return
	}
	b.enter()
	defer b.leave()
	if b.dnnTakes(s) {
		b.dnnScan(s)
		return
	}
	b.scan(s)
}

// scan is Scan by the kernels here. Outputs that are absent are not written.
func (b *Backend) scan(s *device.ScanSpec) {
	e := b.newScan(s, false)
	a := &e.args
	a.y, a.hn, a.cn = columns(s.Y, s.YOff), s.HN.Addr, s.CN.Addr
	chunk := s.KeptSteps(scanGates)
	for done := 0; done < s.T || done == 0; done += max(chunk, 1) { // T of 0: the states alone
		steps := min(chunk, s.T-done)
		t0 := done
		if s.Reverse {
			t0 = s.T - done - steps
		}
		a.t0, a.steps, a.starts, a.ends = int32(t0), int32(steps), flag(done == 0), flag(done+steps == s.T)
		if !s.Keep {
			a.firstStep = int32(t0)
		}
		e.inputs(t0, steps)
		e.queue("scan")
	}
	e.trace()
}

// columns returns the address of column off of a sequence, 0 if it is absent.
func columns(m device.Buffer, off int) uintptr {
	if m.Zero() {
		return 0
	}
	return m.Addr + 4*uintptr(off)
}

// inputs queues W·x + BW for times [t0, t0+steps); without the bias if W·x is normalised.
func (e *scan) inputs(t0, steps int) {
	if steps == 0 {
		return
	}
	g := device.GemmSpec{M: steps * e.B, N: e.gw, K: e.I, A: e.X, B: e.Params[cell.W], TransB: true, C: e.Gates, Bias: e.Params[cell.BW],
		Kind: e.kindOf(cell.W), Cache: e.Cache, Version: e.Version}
	if e.Has(cell.NormX) {
		g.Bias = device.Buffer{}
	}
	if e.BatchMajor {
		g.M, g.Batch = steps, e.B
		g.LDA, g.StrideA, g.LDC, g.StrideC = e.I, e.T*e.I, e.B*e.gw, e.gw
		g.A = e.X.Slice(t0*e.I, e.X.N)
	} else {
		g.A = e.X.Slice(t0*e.B*e.I, (t0+steps)*e.B*e.I)
	}
	e.b.gemm(&g)
}

// traceArgs is trace_args of scan.cu.
type traceArgs struct {
	dst, src, active uintptr
	t, b, width      int32
}

// trace copies gates, inside sequences, and states to TraceGates and TraceCells.
func (e *scan) trace() {
	b := e.b
	k := e.kernel("scan", "scan_trace", "")
	if !e.TraceGates.Zero() {
		launch(b, k, each(e.T*e.B*e.gw), &traceArgs{e.TraceGates.Addr, e.Gates.Addr, e.Active.Addr, int32(e.T), int32(e.B), int32(e.gw)})
	}
	if !e.TraceCells.Zero() {
		first := 1 // the slot after time 0
		if e.Reverse {
			first = 0
		}
		launch(b, k, each(e.T*e.B*e.cw), &traceArgs{e.TraceCells.Addr, e.Cs.Slice(first*e.B*e.cw, e.Cs.N).Addr, 0, int32(e.T), int32(e.B), int32(e.cw)})
	}
}

// scanPlan is how the steps of a scan are divided: the rows into groups, and the units among
// the blocks of a group, which wait for each other.
type scanPlan struct {
	blocks, groups, rows int    // blocks of a group, groups, rows of a group
	units, outs          int    // units of H and of O of a block
	slices               [2]int // words before the weights of each product in shared memory, -1 if they do not fit
	staging, shared      int    // words before what products use, bytes of all
	held                 [2]bool
	tiles, xAt           int // held, tiles and x_at of product.cu
	macros               string
	cost                 float64
}

// stepProduct is a product of each step, from this depth. Each block computes columns of
// its units of H, or of O.
type stepProduct struct {
	depth, gates int
	out          bool // units of O
	kind         int  // as in cells.cu
}

// planKey is what a plan depends on.
type planKey struct {
	b, h, o, syncs int
	products       [2]stepProduct
}

const (
	plainKindTF32 = 4  // TF32 of cells.cu
	stepWarps     = 8  // WARPS of product.cu
	chunkWords    = 32 // CHUNK
	pitch         = chunkWords + 4
	mostGroups    = 64 // words of Backend.barrier
)

// stepKind returns the kind of a step's products with a matrix.
func (e *scan) stepKind(p cell.Param) int {
	k := e.kindOf(p)
	if k == device.F32 && e.b.TF32 {
		return plainKindTF32
	}
	return int(k)
}

// products returns a step's products, in the order of their names in the kernels.
func (e *scan) products() (key planKey) {
	key = planKey{b: e.B, h: e.H, o: e.out, syncs: 1}
	kind := e.stepKind(cell.R)
	r, second := stepProduct{depth: e.out, gates: e.gw / e.H, kind: kind}, stepProduct{}
	if e.back {
		r = stepProduct{depth: e.gw, gates: 1, out: true, kind: kind}
	}
	switch {
	case e.Cell == cell.GRUBefore:
		second = stepProduct{depth: e.H, gates: 1, kind: kind}
		if key.syncs++; e.back {
			r.depth = e.joined
		} else {
			r.gates--
		}
	case e.Proj > 0:
		key.syncs++
		second = stepProduct{depth: e.H, gates: 1, out: true, kind: e.stepKind(cell.P)}
		if e.back {
			second.depth, second.out = e.out, false
		}
	}
	if e.Has(cell.NormX) {
		key.syncs++
	}
	key.products = [2]stepProduct{r, second}
	return key
}

// words returns the words of shared memory of a column, and the distance of columns kept there.
func (p *stepProduct) words() (n, kept int) {
	n = p.depth
	if p.kind == int(device.BF16) || p.kind == int(device.FP16) {
		n = ceilDiv(n, 2)
	}
	n = ceilDiv(n, 8) * 8
	return n, ceilDiv(n, 32)*32 + 4
}

// scanPlan returns the plan of a pass. It changes no bit.
func (b *Backend) scanPlan(e *scan) *scanPlan {
	key := e.products()
	p := b.scanPlans[key]
	if p == nil {
		p = b.planFor(key)
		if b.scanPlans == nil {
			b.scanPlans = map[planKey]*scanPlan{}
		}
		b.scanPlans[key] = p
	}
	return p
}

// planFor returns the plan that seems the fastest.
func (b *Backend) planFor(key planKey) (best *scanPlan) {
	least, heights := 8, []int{8, 32}
	for _, s := range key.products {
		if s.kind != 0 {
			least, heights = 16, []int{16, 32} // rows of mma
		}
	}
	for _, s := range key.products {
		if device.Kind(s.kind).Half() {
			heights = []int{16} // more operands are too many registers
		}
	}
	for blocks := 1; blocks <= min(b.limits.sms, key.h); blocks++ {
		units := ceilDiv(key.h, blocks)
		if ceilDiv(key.h, units) != blocks {
			continue // as with fewer
		}
		most := min(ceilDiv(key.b, least), mostGroups, b.limits.sms/blocks)
		if blocks == 1 {
			most = ceilDiv(key.b, least)
		}
		for groups := 1; ; groups = min(2*groups, most) {
			for _, rows := range heights {
				for _, cols := range [...]int{8, 16, 32} {
					if p := b.planOf(&key, blocks, groups, units, rows, cols); p != nil && (best == nil || p.cost < best.cost) {
						best = p
					}
				}
			}
			if groups == most {
				break
			}
		}
	}
	return best
}

// planOf returns a plan with its cost in about clock cycles per step, nil if it does not fit.
// The figures are estimates for an H200: none was measured.
func (b *Backend) planOf(key *planKey, blocks, groups, units, rows, cols int) *scanPlan {
	const (
		barrier = 2500 // of several blocks
		within  = 200  // of one
		visit   = 1500 // the sums of its stepWarps are there, and others' loads wait for the L2 cache
		bytes   = 32   // per cycle that a multiprocessor gets from the L2 cache
	)
	p := &scanPlan{blocks: blocks, rows: ceilDiv(key.b, groups), units: units, outs: ceilDiv(key.o, blocks)}
	p.groups = ceilDiv(key.b, p.rows)
	ofTile, operands, weights := stepWarps*rows*(cols+4), stepWarps*rows*pitch, stepWarps*cols*pitch
	tiles := func(s *stepProduct) int {
		if s.out {
			return ceilDiv(p.outs, cols/s.gates)
		}
		return ceilDiv(units, cols/s.gates)
	}
	// In shared memory are first the weights of all steps, as far as there is room, and then the
	// operands of a step and the sums of its tiles, as many as there is room for.
	free, kept := b.limits.shared/4-ofTile-operands, 0
	if free -= p.keep(key, free, cols, tiles); slices.Contains(p.slices[:], -1) {
		if free = b.limits.shared/4 - ofTile - operands - weights; free < 0 {
			return nil
		}
		free -= p.keep(key, free, cols, tiles)
		kept = weights
	}
	most, held := 1, operands
	for i := range key.products {
		s := &key.products[i]
		if s.gates == 0 {
			continue
		}
		words, _ := s.words()
		size := stepWarps * rows * (ceilDiv(ceilDiv(words, 8*stepWarps)*8, 32)*32 + 4)
		if size-operands <= free {
			p.held[i], held = true, max(held, size)
		}
		most = max(most, tiles(s))
	}
	free -= held - operands
	p.tiles = min(1+free/ofTile, most)
	p.xAt = p.tiles*ofTile + kept
	p.cost = float64(key.syncs * barrier)
	if blocks == 1 {
		p.cost = float64(key.syncs * within)
	}
	for i := range key.products {
		s := &key.products[i]
		if s.gates == 0 {
			continue
		}
		n, downs := tiles(s), ceilDiv(p.rows, rows)
		words, _ := s.words()
		rate := 80.0 // multiply-adds per cycle
		switch {
		case s.kind == plainKindTF32: // what shared memory gives of both operands, 32 words a cycle
			rate = 32 * float64(rows*cols) / float64(rows+cols)
		case s.kind != 0:
			rate = 64 * float64(rows*cols) / float64(rows+cols)
		case rows == 8:
			rate = 50
		}
		loads := n // of the operand
		if p.held[i] {
			loads = 1
		}
		p.cost += float64(ceilDiv(n, p.tiles)*downs)*visit + float64(n*downs)*float64(rows*cols*s.depth)/rate +
			float64(loads*downs*(words/stepWarps/chunkWords))*100 + float64(loads*p.rows*s.depth*4)/bytes
		if p.slices[i] < 0 {
			p.cost += 2 * float64(n*downs*cols*s.depth*4) / bytes // loads that nothing hides
		}
	}
	p.cost *= float64(ceilDiv(blocks*p.groups, b.limits.sms))
	p.shared = 4 * (p.staging + p.xAt + held)
	p.macros = fmt.Sprintf(" KIND_R=%d KIND_P=%d ROWS=%d COLS=%d", key.products[0].kind, key.products[1].kind, rows, cols)
	return p
}

// keep places the weights of products that fit into so many words of shared memory, and returns
// how many words they take.
func (p *scanPlan) keep(key *planKey, free, cols int, tiles func(*stepProduct) int) int {
	p.slices, p.staging = [2]int{}, 0
	for i := range key.products {
		s := &key.products[i]
		if s.gates == 0 {
			continue
		}
		_, pitch := s.words()
		if size := tiles(s) * cols * pitch; p.staging+size <= free {
			p.slices[i] = p.staging
			p.staging += size
		} else {
			p.slices[i] = -1
		}
	}
	return p.staging
}
