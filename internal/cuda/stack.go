//go:build dl && linux

package cuda

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// cuDNN runs stacks of LSTM, GRU and Elman layers without options but a projection, and single
// layers as stacks of one. All other layers run on kernels of our own, and so does one whose
// gates or gradients are traced, and one with a row without steps.
//
// None of this has run on a GPU yet: descriptors were checked with NVIDIA's library, and calls
// with a stand-in (cudatest).

// StackWork returns the length of s.Work, and whether cuDNN runs the stack.
func (b *Backend) StackWork(s *device.StackSpec) (n int, ok bool) {
	b.enter()
	defer b.leave()
	r, ok := b.dnnRun(s)
	return r.workFloats(), ok
}

// ScanStack queues a stack.
func (b *Backend) ScanStack(s *device.StackSpec) {
	b.enter()
	defer b.leave()
	b.dnnForward(s)
}

// ScanStackGrad queues its gradients.
func (b *Backend) ScanStackGrad(s *device.StackSpec) {
	b.enter()
	defer b.leave()
	b.dnnBackward(s)
}

// dnnTakes reports whether cuDNN runs a layer, as far as s tells by now. If so, its Work is as long
// as dnnWork says, and dnnScan and dnnScanGrad are Scan and ScanGrad. b is entered in these four.
func (b *Backend) dnnTakes(s *device.ScanSpec) bool {
	_, ok := b.dnnRun(single(s))
	return ok
}

func (b *Backend) dnnWork(s *device.ScanSpec) int {
	r, _ := b.dnnRun(single(s))
	return r.workFloats()
}

func (b *Backend) dnnScan(s *device.ScanSpec)     { b.dnnForward(single(s)) }
func (b *Backend) dnnScanGrad(s *device.ScanSpec) { b.dnnBackward(single(s)) }

// single is a layer as a stack.
func single(s *device.ScanSpec) *device.StackSpec {
	return &device.StackSpec{Scans: []*device.ScanSpec{s}, Dirs: 1, Work: s.Work}
}

// dnnRun is a stack that cuDNN runs.
type dnnRun struct {
	*dnnPlan
	batch   *dnnBatch
	scans   []*device.ScanSpec // by layer, then direction
	reverse bool               // all run from the last step to the first: cuDNN is given reversed sequences
}

// dnnRun returns how cuDNN runs a stack, and whether it does. b is entered.
func (b *Backend) dnnRun(st *device.StackSpec) (r dnnRun, ok bool) {
	if b.cudnn() == nil {
		return r, false
	}
	s := st.Scans[0]
	shape := dnnShape{cell: s.Cell, layers: len(st.Scans) / st.Dirs, dirs: st.Dirs, T: s.T, B: s.B, I: s.I, H: s.H, O: s.Out(),
		batchMajor: s.BatchMajor, train: s.Keep, kind: s.Kinds[cell.W]}
	if shape.ragged, ok = ragged(s); !ok || s.T == 0 || s.B == 0 || s.T*s.B*max(s.I, shape.width()) > math.MaxInt32 {
		return r, false
	}
	for k, s := range st.Scans {
		dir, first := k%st.Dirs, st.Scans[k/st.Dirs*st.Dirs]
		reverse := s.Reverse == (dir == 1)
		if st.Dirs == 1 {
			reverse = s.Reverse == st.Scans[0].Reverse
		}
		in := shape.I
		if k >= st.Dirs {
			in = shape.width()
		}
		if !plain(s) || !reverse || s.H != shape.H || s.Out() != shape.O || s.I != in || s.Kinds[cell.W] != shape.kind ||
			s.YLd != first.YLd || s.YOff != first.YOff+dir*shape.O {
			return r, false
		}
	}
	r = dnnRun{scans: st.Scans, reverse: st.Dirs == 1 && s.Reverse}
	r.dnnPlan, r.batch = b.plan(shape, s.Lengths)
	return r, r.dnnPlan != nil
}

// ragged reports whether rows have lengths of their own; ok is false if the host does not know
// them, or if there is a row without steps.
func ragged(s *device.ScanSpec) (is, ok bool) {
	if s.Active.Zero() {
		return false, true
	}
	if len(s.Lengths) != s.B || slices.Min(s.Lengths) < 1 {
		return false, false
	}
	return int(slices.Min(s.Lengths)) < s.T, true
}

// plain reports whether a scan is one that cuDNN has.
func plain(s *device.ScanSpec) bool {
	if _, ok := dnnCells[s.Cell]; !ok {
		return false
	}
	o := s.Options
	o.WeightDrop = 0 // has been applied
	if o != (cell.Options{}) || !s.Has(cell.W) || !s.Has(cell.R) {
		return false
	}
	kind := s.Kinds[cell.W]
	if kind != device.F32 && !kind.Half() || s.Kinds[cell.R] != kind {
		return false
	}
	if s.Proj > 0 && (s.Cell != cell.LSTM || s.Proj >= s.H || s.Kinds[cell.P] != kind) {
		return false
	}
	for p := cell.P + 1; p < cell.NumParams; p++ {
		if s.Has(p) {
			return false
		}
	}
	return s.TraceGates.Zero() && s.TraceCells.Zero() && s.TraceDH.Zero() && s.TraceDC.Zero() && s.TraceGain.Zero()
}

// Memory of cuDNN begins at multiples of this.
const dnnAlign = 256

// parts cuts memory into parts.
type parts struct{ at uintptr }

// part returns where the next part is; 0 for one of no bytes.
func (p *parts) part(bytes int) uintptr {
	if bytes == 0 {
		return 0
	}
	addr := p.at
	p.at += uintptr(bytes+dnnAlign-1) &^ (dnnAlign - 1)
	return addr
}

// bytes of a part.
func (r *dnnRun) xBytes() int { return r.T * r.B * r.I * r.size() }
func (r *dnnRun) yBytes() int { return r.T * r.B * r.width() * r.size() }
func (r *dnnRun) hBytes() int { return r.dnnShape.scans() * r.B * r.O * r.size() }
func (r *dnnRun) cBytes() int { return r.dnnShape.scans() * r.B * r.C() * r.size() }

// keep places what a training pass keeps, from an address on, and returns how many bytes it is.
func (r *dnnRun) keep(m *dnnMemory, base uintptr) int {
	if !r.train {
		return 0
	}
	p := parts{base}
	m.reserve, m.weights, m.y = p.part(r.batch.reserve), p.part(r.weights), p.part(r.yBytes())
	return int(p.at - base)
}

// workFloats is the length of Work; what is kept begins at the first address in it that is a
// multiple of dnnAlign.
func (r *dnnRun) workFloats() int {
	if r.dnnPlan == nil || !r.train {
		return 0
	}
	return (r.keep(&dnnMemory{}, 0) + dnnAlign) / 4
}

// kept is keep in the stack's Work.
func (r *dnnRun) kept(m *dnnMemory, work device.Buffer) {
	r.keep(m, (work.Addr+dnnAlign-1)&^(dnnAlign-1))
}

// any returns the first present buffer of the scans [from, to).
func (r *dnnRun) any(from, to int, f func(s *device.ScanSpec) device.Buffer) device.Buffer {
	for _, s := range r.scans[from:to] {
		if m := f(s); !m.Zero() {
			return m
		}
	}
	return device.Buffer{}
}

func (r *dnnRun) all(f func(s *device.ScanSpec) device.Buffer) device.Buffer {
	return r.any(0, len(r.scans), f)
}

func param(p cell.Param) func(s *device.ScanSpec) device.Buffer {
	return func(s *device.ScanSpec) device.Buffer { return s.Params[p] }
}

func grad(p cell.Param) func(s *device.ScanSpec) device.Buffer {
	return func(s *device.ScanSpec) device.Buffer { return s.Grads[p] }
}

// sequence is where the columns of a sequence of ours are.
type sequence struct {
	device.Buffer
	ld, off int
}

func (r *dnnRun) xOf(x device.Buffer) sequence { return sequence{x, r.I, 0} }

// yOf is the output, or its gradient, of the last layer.
func (r *dnnRun) yOf(y device.Buffer) sequence {
	s := r.scans[len(r.scans)-r.dirs]
	return sequence{y, s.YLd, s.YOff}
}

// direct reports whether cuDNN can use memory of ours as it is. Lengths do not matter where it
// writes zeros outside of sequences, or does not read there.
func (r *dnnRun) direct(s sequence, width int) bool {
	return r.kind == device.F32 && !r.reverse && s.ld == width && !s.Zero()
}

// initial places the states at the start, if there are any.
func (r *dnnRun) initial(m *dnnMemory, p *parts) {
	if !r.all(param(cell.H0)).Zero() {
		m.hx = p.part(r.hBytes())
	}
	if !r.all(param(cell.C0)).Zero() {
		m.cx = p.part(r.cBytes())
	}
}

// readInput queues what makes cuDNN's x and initial states of ours.
func (b *Backend) readInput(r *dnnRun, m *dnnMemory) {
	if x := r.xOf(r.scans[0].X); !r.direct(x, r.I) {
		b.steps(r, gatherSteps, x, m.x, r.I, false)
	}
	q := pieces{b: b, kernel: packPieces, kind: r.kind}
	b.states(r, &q, m.hx, param(cell.H0), m.cx, param(cell.C0))
	q.done()
}

// states adds the states of all scans to pieces; absent parts are left out.
func (b *Backend) states(r *dnnRun, q *pieces, h uintptr, ofH func(*device.ScanSpec) device.Buffer, c uintptr, ofC func(*device.ScanSpec) device.Buffer) {
	for k, s := range r.scans {
		if h != 0 {
			q.add(ofH(s), h+uintptr(k*r.B*r.O*r.size()), r.B*r.O)
		}
		if c != 0 {
			q.add(ofC(s), c+uintptr(k*r.B*r.H*r.size()), r.B*r.H)
		}
	}
}

// dnnForward queues a forward pass.
func (b *Backend) dnnForward(st *device.StackSpec) {
	r := b.mustRun(st)
	last := r.scans[len(r.scans)-1]
	var m dnnMemory
	r.kept(&m, st.Work)
	fresh := true // the weights have to be brought
	if !r.train && r.scans[0].Cache != nil {
		m.weights, fresh = b.cachedWeights(&r)
	}
	y := r.yOf(last.Y)
	place := func(base uintptr, m *dnnMemory) int {
		p := parts{base}
		m.work = p.part(r.batch.work)
		if m.x = r.scans[0].X.Addr; !r.direct(r.xOf(r.scans[0].X), r.I) {
			m.x = p.part(r.xBytes())
		}
		r.initial(m, &p)
		m.hy, m.cy = p.part(r.hBytes()), p.part(r.cBytes())
		if r.train {
			return int(p.at - base)
		}
		if m.y = y.Addr; !r.direct(y, r.width()) {
			m.y = p.part(r.yBytes())
		}
		if r.scans[0].Cache == nil {
			m.weights = p.part(r.weights)
		}
		return int(p.at - base)
	}
	scratch := m
	place(b.work(place(0, &scratch)), &m)
	b.readInput(&r, &m)
	q := pieces{b: b, kernel: packPieces, kind: r.kind}
	for k, s := range r.scans {
		r.parameters(&q, m.weights, k, &s.Params, fresh)
	}
	q.done()
	b.dnnCall("cudnnRNNForward", &r, &m, b.dnn.forward)
	q = pieces{b: b, kernel: unpackPieces, kind: r.kind}
	b.states(&r, &q, m.hy, func(s *device.ScanSpec) device.Buffer { return s.HN }, m.cy, func(s *device.ScanSpec) device.Buffer { return s.CN })
	q.done()
	if m.y != y.Addr {
		b.steps(&r, scatterSteps, y, m.y, r.width(), false)
	}
}

// dnnBackward queues a backward pass.
func (b *Backend) dnnBackward(st *device.StackSpec) {
	r := b.mustRun(st)
	var m dnnMemory
	r.kept(&m, st.Work)
	first := r.scans[r.dirs-1] // whose DXAcc counts
	last := len(r.scans) - r.dirs
	dx := r.xOf(r.any(0, r.dirs, func(s *device.ScanSpec) device.Buffer { return s.DX }))
	dy := r.yOf(r.any(last, len(r.scans), func(s *device.ScanSpec) device.Buffer { return s.DY }))
	dxDirect := r.direct(dx, r.I) && !r.ragged && !first.DXAcc // cuDNN does not say what it writes outside of sequences
	dhn, dcn := func(s *device.ScanSpec) device.Buffer { return s.DHN }, func(s *device.ScanSpec) device.Buffer { return s.DCN }
	learns := false
	for p := range cell.P + 1 {
		learns = learns || !r.all(grad(p)).Zero()
	}
	place := func(base uintptr, m *dnnMemory) int {
		p := parts{base}
		m.work = p.part(r.batch.work)
		if m.x = r.scans[0].X.Addr; !r.direct(r.xOf(r.scans[0].X), r.I) {
			m.x = p.part(r.xBytes())
		}
		r.initial(m, &p)
		if m.dx = dx.Addr; !dxDirect {
			m.dx = p.part(r.xBytes())
		}
		if m.dy = dy.Addr; !r.direct(dy, r.width()) {
			m.dy = p.part(r.yBytes())
		}
		if !r.all(dhn).Zero() {
			m.dhy = p.part(r.hBytes())
		}
		if !r.all(dcn).Zero() {
			m.dcy = p.part(r.cBytes())
		}
		if !r.all(grad(cell.H0)).Zero() {
			m.dhx = p.part(r.hBytes())
		}
		if !r.all(grad(cell.C0)).Zero() {
			m.dcx = p.part(r.cBytes())
		}
		if learns {
			m.dweights = p.part(r.weights)
		}
		return int(p.at - base)
	}
	scratch := m
	place(b.work(place(0, &scratch)), &m)
	b.readInput(&r, &m)
	if !r.direct(dy, r.width()) {
		b.steps(&r, gatherSteps, dy, m.dy, r.width(), false)
	}
	q := pieces{b: b, kernel: packPieces, kind: r.kind}
	b.states(&r, &q, m.dhy, dhn, m.dcy, dcn)
	q.done()
	b.dnnCall("cudnnRNNBackwardData_v8", &r, &m, b.dnn.backwardData)
	q = pieces{b: b, kernel: unpackPieces, kind: r.kind, acc: 1}
	b.states(&r, &q, m.dhx, grad(cell.H0), m.dcx, grad(cell.C0))
	q.done()
	if !dxDirect && !dx.Zero() {
		b.steps(&r, scatterSteps, dx, m.dx, r.I, first.DXAcc)
	}
	if !learns {
		return
	}
	words := (r.weights + 3) / 4
	launch(b, fillWords, each(words), &fillArgs{dst: m.dweights, n: int64(words)})
	b.dnnCall("cudnnRNNBackwardWeights_v8", &r, &m, b.dnn.backwardWeights)
	for k, s := range r.scans {
		r.parameters(&q, m.dweights, k, &s.Grads, true)
	}
	q.done()
}

// mustRun is dnnRun of what was accepted.
func (b *Backend) mustRun(st *device.StackSpec) dnnRun {
	r, ok := b.dnnRun(st)
	if !ok {
		panic("cuda: a scan for cuDNN was changed after its Work was made")
	}
	return r
}

// dnnCall queues a call of cuDNN.
func (b *Backend) dnnCall(what string, r *dnnRun, m *dnnMemory, call func(stream uintptr, p *dnnPlan, t *dnnBatch, m *dnnMemory) int32) {
	plan, batch, memory := r.dnnPlan, r.batch, *m
	k := key(what, plan.number, batch.number)
	for _, addr := range [...]uintptr{m.x, m.y, m.hx, m.hy, m.cx, m.cy, m.weights, m.work, m.reserve, m.dx, m.dy, m.dhx, m.dhy, m.dcx, m.dcy, m.dweights} {
		k = key(k, uint64(addr))
	}
	b.call(what, k, func(stream uintptr) int32 { return call(stream, plan, batch, &memory) })
}

// steps queues a move of a sequence between ours and theirs.
func (b *Backend) steps(r *dnnRun, k kernel, ours sequence, theirs uintptr, width int, acc bool) {
	a := stepsArgs{theirs: theirs, ld: int64(ours.ld), t: int32(r.T), b: int32(r.B), n: int32(width), kind: int32(r.kind),
		reverse: one(r.reverse), batchMajor: one(r.batchMajor), acc: one(acc)}
	if !ours.Zero() {
		a.ours = ours.Addr + 4*uintptr(ours.off)
	}
	if r.ragged {
		a.active = r.scans[0].Active.Addr
	}
	launch(b, k, each(r.T*r.B*32), &a)
}

func one(v bool) int32 {
	if v {
		return 1
	}
	return 0
}

// parameters adds those of a scan, or their gradients, to pieces: biases, which are zeros if absent,
// and the matrices as well or not.
func (r *dnnRun) parameters(q *pieces, weights uintptr, scan int, of *device.ScanParams, matrices bool) {
	s := r.scans[scan]
	for p := range cell.P + 1 {
		bias := p == cell.BW || p == cell.BR
		if !bias && (!matrices || of[p].Zero()) {
			continue
		}
		gates := r.cell.Gates()
		if p == cell.P {
			gates = 1
		}
		dims, places := s.Dims(p), &r.places[scan][p]
		n := dims[0] / gates
		if !bias {
			n *= dims[1]
		}
		for g := 0; g < gates; {
			end := g + 1
			for end < gates && places[end] == places[end-1]+int64(n) {
				end++
			}
			ours := of[p]
			if !ours.Zero() {
				ours = ours.Slice(g*n, end*n)
			}
			q.add(ours, weights+uintptr(places[g])*uintptr(r.size()), (end-g)*n)
			g = end
		}
	}
}

// cachedWeights returns the memory of a stack's weights for inference, and whether it is to be
// filled.
func (b *Backend) cachedWeights(r *dnnRun) (addr uintptr, fresh bool) {
	s := r.scans[0]
	of := make([]dnnSource, len(r.scans))
	for k, s := range r.scans {
		of[k] = dnnSource{s.Version, s.Params[cell.W].Addr, s.Params[cell.R].Addr, s.Params[cell.P].Addr}
	}
	w, _ := s.Cache.Load(s.Version).(*dnnWeights)
	if w != nil && slices.Equal(w.of, of) && slices.Equal(w.places, r.places) {
		return w.addr, false
	}
	old, _ := s.Cache.Stale(s.Version).(*dnnWeights)
	if w == nil && old != nil && old.bytes == r.weights {
		w = old
	} else {
		w = b.newWeights(r.weights)
	}
	w.of, w.places = of, r.places
	s.Cache.Store(s.Version, w)
	return w.addr, true
}

var (
	packPieces   = kernel{file: "cudnn", name: "pack"}
	unpackPieces = kernel{file: "cudnn", name: "unpack"}
	gatherSteps  = kernel{file: "cudnn", name: "gather_steps"}
	scatterSteps = kernel{file: "cudnn", name: "scatter_steps"}
)

// mostPieces is PIECES of cudnn.cu.
const mostPieces = 40

type pieceArgs struct {
	ours, theirs uintptr
	n            int64
}

type piecesArgs struct {
	pieces    [mostPieces]pieceArgs
	kind, acc int32
}

// pieces collects what one kernel packs or unpacks.
type pieces struct {
	b       *Backend
	kernel  kernel
	kind    device.Kind
	acc     int32
	list    [mostPieces]pieceArgs
	n       int
	longest int
}

// add adds a piece of n numbers; absent ones of ours are packed as zeros and not unpacked.
func (q *pieces) add(ours device.Buffer, theirs uintptr, n int) {
	if ours.Zero() && q.kernel == unpackPieces {
		return
	}
	if q.n == mostPieces {
		q.done()
	}
	q.list[q.n] = pieceArgs{ours.Addr, theirs, int64(n)}
	q.n++
	q.longest = max(q.longest, n)
}

// done queues the pieces that were added.
func (q *pieces) done() {
	if q.n > 0 {
		s := each(q.longest)
		s.grid[1] = q.n
		launch(q.b, q.kernel, s, &piecesArgs{q.list, int32(q.kind), q.acc})
	}
	q.n, q.longest = 0, 0
}

// stepsArgs is steps_args.
type stepsArgs struct {
	ours, theirs, active                    uintptr
	ld                                      int64
	t, b, n, kind, reverse, batchMajor, acc int32
}
