//go:build dl && linux

package cuda

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// scan is a layer with all its buffers, for training, without gradients and Work.
func (r *rig) scan(kind cell.Kind, T, B, I, H int) *device.ScanSpec {
	s := &device.ScanSpec{Cell: kind, T: T, B: B, I: I, H: H, Keep: true, YLd: H}
	r.parameters(s)
	s.X, s.Y = r.normal(T*B*I), r.normal(T*B*H)
	return s
}

func (r *rig) parameters(s *device.ScanSpec) {
	for _, p := range []cell.Param{cell.W, cell.R, cell.BW, cell.BR, cell.P, cell.H0, cell.C0} {
		dims := s.Dims(p)
		n := dims[0]
		if cell.Params[p].Rank() == 2 {
			n *= dims[1]
		}
		if p == cell.P && s.Proj == 0 || n == 0 {
			continue
		}
		s.Params[p] = r.scaled(n, 0.4)
		s.Grads[p] = r.normal(n)
	}
	s.HN, s.CN = r.normal(s.B*s.Out()), r.normal(s.B*s.CellWidth())
	s.DHN, s.DCN = r.normal(s.B*s.Out()), r.normal(s.B*s.CellWidth())
}

// stackCase is a stack and what a test varies about it.
type stackCase struct {
	kind             cell.Kind
	layers, dirs     int
	T, B, I, H, proj int
	lengths          []int32
	reverse          bool // of one direction
	off, after       int  // columns of Y before and after
	precision        device.Kind
	batchMajor       bool
	infer            bool
	without          string // of the words dx dy dhn acc bias h0 grads
	tol              float64
}

func (c *stackCase) lacks(word string) bool { return strings.Contains(c.without, word) }

// spec makes the stack. Y and DX hold rubbish beforehand, gradients numbers to be added to.
func (c *stackCase) spec(r *rig) *device.StackSpec {
	st := &device.StackSpec{Dirs: c.dirs}
	var active device.Ints
	if c.lengths != nil {
		active = r.ints(c.T, func(t int) (n int) {
			for _, l := range c.lengths {
				if int(l) > t {
					n++
				}
			}
			return n
		})
	}
	x, dx, width := r.normal(c.T*c.B*c.I), r.normal(c.T*c.B*c.I), 0
	for k := range c.layers * c.dirs {
		s := &device.ScanSpec{Cell: c.kind, T: c.T, B: c.B, I: c.I, H: c.H, Proj: c.proj, Keep: !c.infer, BatchMajor: c.batchMajor,
			Active: active, Lengths: c.lengths, Reverse: c.reverse != (k%c.dirs == 1)}
		s.Kinds[cell.W], s.Kinds[cell.R], s.Kinds[cell.P] = c.precision, c.precision, c.precision
		width = c.dirs * s.Out()
		if s.YLd, s.YOff = width, k%c.dirs*s.Out(); k >= c.dirs {
			s.I = width
		} else if s.X = x; !c.lacks("dx") {
			s.DX, s.DXAcc = dx, !c.lacks("acc")
		}
		if k >= (c.layers-1)*c.dirs {
			s.YLd, s.YOff = s.YLd+c.off+c.after, s.YOff+c.off
		}
		r.parameters(s)
		if c.lacks("bias") {
			s.Params[cell.BW], s.Params[cell.BR], s.Grads[cell.BW], s.Grads[cell.BR] = device.Buffer{}, device.Buffer{}, device.Buffer{}, device.Buffer{}
		}
		if c.lacks("h0") || k%2 == 1 && c.lacks("half") {
			s.Params[cell.H0], s.Params[cell.C0], s.Grads[cell.H0], s.Grads[cell.C0] = device.Buffer{}, device.Buffer{}, device.Buffer{}, device.Buffer{}
		}
		if c.lacks("dhn") || k%2 == 0 && c.lacks("half") {
			s.DHN, s.DCN = device.Buffer{}, device.Buffer{}
		}
		if c.lacks("grads") {
			s.Grads = device.ScanParams{}
		}
		st.Scans = append(st.Scans, s)
	}
	n := c.T * c.B * (width + c.off + c.after)
	y, dy := r.normal(n), r.normal(n)
	for _, s := range st.Scans[len(st.Scans)-c.dirs:] {
		if s.Y = y; !c.lacks("dy") {
			s.DY = dy
		}
	}
	return st
}

// results is all that a pass writes.
func (c *stackCase) results(st *device.StackSpec) []device.Buffer {
	out := []device.Buffer{st.Scans[len(st.Scans)-1].Y, st.Scans[0].DX}
	for _, s := range st.Scans {
		out = append(out, s.HN, s.CN)
		out = append(out, s.Grads[:]...)
	}
	return out
}

// run does a stack as a whole where the backend can, and layer by layer.
func (c *stackCase) run(t testing.TB, r *rig, st *device.StackSpec) {
	if b, ok := r.Backend.(device.StackScanner); ok {
		if st.Work.Zero() {
			n, ok := b.StackWork(st)
			if !ok {
				t.Fatalf("%+v: not taken", *c)
			}
			st.Work = r.Alloc(n)
		}
		b.ScanStack(st)
		if !c.infer {
			b.ScanStackGrad(st)
		}
		return
	}
	scans := make([]device.ScanSpec, len(st.Scans))
	for k := range st.Scans {
		s := &scans[k]
		*s = *st.Scans[k]
		if k >= c.dirs {
			s.X = scans[k-k%c.dirs-1].Y
			s.DX, s.DXAcc = scans[k-k%c.dirs-1].DY, k%c.dirs < c.dirs-1
		} else if k < c.dirs-1 {
			s.DXAcc = true // after the last direction, whose choice counts
		}
		if k < len(scans)-c.dirs {
			if k%c.dirs == 0 {
				s.Y, s.DY = r.Alloc(s.T*s.B*s.YLd), r.Alloc(s.T*s.B*s.YLd)
			} else {
				s.Y, s.DY = scans[k-1].Y, scans[k-1].DY
			}
		}
		s.Work = r.Alloc(r.ScanWork(s))
		r.Scan(s)
	}
	for k := len(scans) - 1; k >= 0 && !c.infer; k-- {
		r.ScanGrad(&scans[k])
	}
}

func TestStackIsAsLayerByLayer(t *testing.T) {
	long(t)
	b, d := emulatedDNN(t, Options{})
	lengths := []int32{7, 7, 4, 2, 1}
	base := stackCase{kind: cell.LSTM, layers: 2, dirs: 1, T: 7, B: 5, I: 3, H: 6, tol: 2e-6}
	with := func(change func(c *stackCase)) stackCase {
		c := base
		change(&c)
		return c
	}
	for _, c := range []stackCase{
		base,
		with(func(c *stackCase) { c.dirs = 2 }),
		with(func(c *stackCase) { c.dirs, c.lengths, c.layers = 2, lengths, 3 }),
		with(func(c *stackCase) { c.kind, c.dirs, c.lengths, c.off, c.after = cell.GRU, 2, lengths, 2, 3 }),
		with(func(c *stackCase) { c.kind, c.dirs, c.layers = cell.RNNTanh, 2, 1 }),
		with(func(c *stackCase) { c.kind, c.layers = cell.RNNReLU, 1 }),
		with(func(c *stackCase) { c.proj, c.dirs, c.lengths = 4, 2, lengths }),
		with(func(c *stackCase) { c.proj, c.layers, c.reverse = 5, 3, true }),
		with(func(c *stackCase) { c.reverse, c.lengths = true, lengths }),
		with(func(c *stackCase) { c.reverse, c.batchMajor, c.layers, c.without = true, true, 1, "acc" }),
		with(func(c *stackCase) { c.batchMajor, c.off = true, 1 }),
		with(func(c *stackCase) { c.without = "acc" }),
		with(func(c *stackCase) { c.without, c.lengths = "acc", lengths }),
		with(func(c *stackCase) { c.without, c.dirs = "acc dy", 2 }),
		with(func(c *stackCase) { c.without, c.dirs = "dx dhn h0", 2 }),
		with(func(c *stackCase) { c.without, c.kind = "bias grads", cell.GRU }),
		with(func(c *stackCase) { c.without, c.dirs, c.layers = "half bias", 2, 3 }),
		with(func(c *stackCase) { c.infer = true }),
		with(func(c *stackCase) { c.infer, c.lengths, c.dirs, c.off = true, lengths, 2, 1 }),
		with(func(c *stackCase) { c.infer, c.lengths, c.dirs = true, lengths, 2 }),
		with(func(c *stackCase) { c.infer, c.reverse, c.lengths = true, true, lengths }),
		with(func(c *stackCase) { c.T, c.B, c.I, c.H, c.layers, c.tol = 3, 70, 40, 33, 1, 1e-5 }),
		with(func(c *stackCase) { c.precision, c.tol = device.BF16, 0.05 }),
		with(func(c *stackCase) { c.precision, c.lengths, c.dirs, c.tol = device.FP16, lengths, 2, 0.006 }),
		with(func(c *stackCase) { c.precision, c.infer, c.reverse, c.tol = device.FP16, true, true, 0.002 }),
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			asCPU(t, b, c.tol, func(r *rig) []device.Buffer {
				st := c.spec(r)
				c.run(t, r, st)
				return c.results(st)
			})
		})
	}
	if n := d.Passes(0); n == 0 {
		t.Error("cuDNN did nothing")
	}
}

// A stack that comes again is part of a graph, and does the same.
func TestStackInGraphs(t *testing.T) {
	long(t)
	for _, c := range []stackCase{
		{kind: cell.LSTM, layers: 2, dirs: 2, T: 5, B: 3, I: 3, H: 4, lengths: []int32{5, 4, 2}, tol: 1e-5},
		{kind: cell.GRU, layers: 1, dirs: 1, T: 5, B: 3, I: 3, H: 4, infer: true, tol: 1e-5},
	} {
		b, _ := emulatedDNN(t, Options{})
		asCPU(t, b, c.tol, func(r *rig) []device.Buffer {
			st := c.spec(r)
			for range 4 {
				c.run(t, r, st)
				r.Sync()
			}
			return c.results(st)
		})
		if n := b.Counts().Graphs; n < 2 {
			t.Errorf("%d graphs of 4 passes, want those after the first two", n)
		}
	}
}

// The same memory with other lengths is another graph.
func TestStackLengthsInGraphs(t *testing.T) {
	long(t)
	b, _ := emulatedDNN(t, Options{})
	c := stackCase{kind: cell.LSTM, layers: 1, dirs: 2, T: 4, B: 2, I: 3, H: 4, lengths: []int32{4, 1}, infer: true}
	asCPU(t, b, 1e-6, func(r *rig) []device.Buffer {
		st := c.spec(r)
		var out []device.Buffer
		for _, n := range []int32{1, 1, 1, 3, 3, 3, 1} {
			active := []int32{2, 1, 1, 1}
			for step := range n {
				active[step] = 2
			}
			r.UploadInts(st.Scans[0].Active, active)
			for _, s := range st.Scans {
				s.Lengths = []int32{4, n}
			}
			c.run(t, r, st)
			r.Sync()
			y := st.Scans[0].Y
			v := make([]float32, y.N)
			r.Download(v, y)
			out = append(out, r.floats(v))
		}
		return out
	})
	if n := b.Counts().Graphs; n == 0 {
		t.Error("no graph")
	}
}

// Of many patterns of lengths the recent ones are kept, and no call loses its own.
func TestStackOfManyLengths(t *testing.T) {
	long(t)
	b, _ := emulatedDNN(t, Options{})
	r := newRig(b)
	const n = mostBatches + 5
	ys := make([]device.Buffer, n)
	c := stackCase{kind: cell.RNNTanh, layers: 1, dirs: 1, T: n + 1, B: 2, I: 1, H: 1, infer: true}
	for k := range n {
		c.lengths = []int32{n, int32(k + 1)}
		st := c.spec(r)
		c.run(t, r, st)
		ys[k] = st.Scans[0].Y
	}
	b.Sync()
	for k, y := range ys {
		v := make([]float32, y.N)
		b.Download(v, y)
		for step := range c.T {
			if inside := step <= k; inside == (v[2*step+1] == 0) {
				t.Fatalf("with a length of %d, step %d is %v", k+1, step, v[2*step+1])
			}
		}
	}
	for shape, p := range b.dnn.plans {
		if shape.ragged && len(p.recent) != mostBatches {
			t.Errorf("%d batches are kept", len(p.recent))
		}
	}
}

// Weights are brought to cuDNN's places once for each version, and their memory is freed when
// nobody can use it.
func TestStackWeightsAreCached(t *testing.T) {
	b, d := emulatedDNN(t, Options{})
	r := newRig(b)
	c := stackCase{kind: cell.GRU, layers: 2, dirs: 1, T: 2, B: 2, I: 3, H: 4, infer: true}
	st := c.spec(r)
	cache := &device.Cache{}
	for _, s := range st.Scans {
		s.Cache, s.Version = cache, 1
	}
	first := st.Scans[0]
	y := func() string {
		c.run(t, r, st)
		v := make([]float32, st.Scans[1].Y.N)
		b.Download(v, st.Scans[1].Y)
		return fmt.Sprint(v)
	}
	start := y()
	w := make([]float32, first.Params[cell.W].N)
	b.Download(w, first.Params[cell.W])
	b.Upload(first.Params[cell.W], make([]float32, len(w)))
	if y() != start {
		t.Error("the matrices of a version were read again")
	}
	b.Upload(first.Params[cell.BW], []float32{3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3})
	biased := y()
	if biased == start {
		t.Error("biases, which have no version, were not read")
	}
	held := cache.Load(1).(*dnnWeights).addr
	for _, s := range st.Scans {
		s.Version = 2
	}
	zeros := y()
	if zeros == biased {
		t.Error("the matrices of a new version were not read")
	}
	if cache.Load(2).(*dnnWeights).addr != held {
		t.Error("a new version has other memory")
	}
	b.enter() // another algorithm, with other places
	run, _ := b.dnnRun(st)
	b.dnn.choices.put(b.dnn.choices.key(b, &run.dnnShape), 1)
	b.leave()
	clear(b.dnn.plans)
	d.Support(0b11)
	if y() != zeros || d.Passes(1) == 0 {
		t.Error("weights in the places of another algorithm were used")
	}
	b.Upload(first.Params[cell.W], w)
	first.Params[cell.W] = r.floats(w)
	if y() == zeros {
		t.Error("other matrices of the same version were not read")
	}
	cache.Store(3, nil)
	for gone := 0; gone == 0; time.Sleep(time.Millisecond) { // the test's time limit ends it otherwise
		runtime.GC()
		b.dropped.mu.Lock()
		gone = len(b.dropped.addrs)
		b.dropped.mu.Unlock()
	}
	for _, s := range st.Scans {
		s.Version = 4
	}
	y()
	if n := len(b.dropped.take()); n != 0 {
		t.Errorf("%d memories of weights were not freed", n)
	}
}

// What cuDNN does not have, or not with our bits, it is not given.
func TestStackRefuses(t *testing.T) {
	b, _ := emulatedDNN(t, Options{})
	r := newRig(b)
	one := r.normal(1)
	takes := func(s *device.ScanSpec) bool {
		b.enter()
		defer b.leave()
		return b.dnnTakes(s)
	}
	fresh := func() *device.ScanSpec {
		return r.scan(cell.LSTM, 3, 2, 4, 5)
	}
	if !takes(fresh()) {
		t.Fatal("a plain LSTM is not taken")
	}
	for what, change := range map[string]func(s *device.ScanSpec){
		"another cell":             func(s *device.ScanSpec) { s.Cell = cell.CoupledLSTM },
		"a gate's activation":      func(s *device.ScanSpec) { s.GateAct = cell.HardSigmoid },
		"a clip of gates":          func(s *device.ScanSpec) { s.GateClip = 1 },
		"a clip of c":              func(s *device.ScanSpec) { s.CellClip = 1 },
		"dropout of h":             func(s *device.ScanSpec) { s.HDrop = 0.1 },
		"zoneout":                  func(s *device.ScanSpec) { s.ZoneC = 0.1 },
		"a peephole":               func(s *device.ScanSpec) { s.Params[cell.PeepO] = one },
		"layer normalisation":      func(s *device.ScanSpec) { s.Params[cell.NormX] = one },
		"a projection to H":        func(s *device.ScanSpec) { s.Proj, s.Params[cell.P] = 5, one },
		"8 bits":                   func(s *device.ScanSpec) { s.Kinds[cell.W], s.Kinds[cell.R] = device.INT8, device.INT8 },
		"two kinds":                func(s *device.ScanSpec) { s.Kinds[cell.W] = device.BF16 },
		"a trace of gates":         func(s *device.ScanSpec) { s.TraceGates = one },
		"a trace of gradients":     func(s *device.ScanSpec) { s.TraceDH = one },
		"gains":                    func(s *device.ScanSpec) { s.TraceGain = one },
		"no steps":                 func(s *device.ScanSpec) { s.T = 0 },
		"no rows":                  func(s *device.ScanSpec) { s.B = 0 },
		"lengths of the device":    func(s *device.ScanSpec) { s.Active = b.AllocInts(3) },
		"a row without steps":      func(s *device.ScanSpec) { s.Active, s.Lengths = b.AllocInts(3), []int32{3, 0} },
		"more than its tensors do": func(s *device.ScanSpec) { s.T, s.B = 1<<16, 1<<16 },
	} {
		s := fresh()
		if change(s); takes(s) {
			t.Errorf("%s: taken", what)
		}
	}
	dropped := fresh() // the weights of it have been
	dropped.WeightDrop = 0.5
	if !takes(dropped) {
		t.Error("weight drop is not taken")
	}
	for what, change := range map[string]func(st *device.StackSpec){
		"another width":      func(st *device.StackSpec) { st.Scans[2].H = 6 },
		"another input":      func(st *device.StackSpec) { st.Scans[2].I = 3 },
		"swapped directions": func(st *device.StackSpec) { st.Scans[0], st.Scans[1] = st.Scans[1], st.Scans[0] },
		"one peephole":       func(st *device.StackSpec) { st.Scans[3].Params[cell.PeepI] = one },
		"one precision":      func(st *device.StackSpec) { st.Scans[3].Kinds[cell.R] = device.BF16 },
		"columns apart":      func(st *device.StackSpec) { st.Scans[3].YOff++ },
	} {
		c := stackCase{kind: cell.LSTM, layers: 2, dirs: 2, T: 3, B: 2, I: 4, H: 5}
		st := c.spec(r)
		change(st)
		if _, ok := b.StackWork(st); ok {
			t.Errorf("a stack with %s: taken", what)
		}
	}
	b, _ = emulatedDNN(t, Options{})
	b.Deterministic = true
	if r = newRig(b); takes(fresh()) {
		t.Error("taken where own kernels were asked for")
	}
}

// A call that fails says which, and what can be done.
func TestStackFailure(t *testing.T) {
	b, _ := emulatedDNN(t, Options{})
	r := newRig(b)
	c := stackCase{kind: cell.LSTM, layers: 1, dirs: 1, T: 3, B: 2, I: 4, H: 5}
	st := c.spec(r)
	n, _ := b.StackWork(st)
	st.Work = r.Alloc(n)
	st.Scans[0].X.Addr = 0
	err := catch(func() {
		b.ScanStack(st)
		b.Sync()
	})
	if err == nil || !strings.Contains(err.Error(), "cudnnRNNForward: BAD_PARAM (an operand is absent); --deterministic computes without this library") {
		t.Errorf("%v", err)
	}
}
