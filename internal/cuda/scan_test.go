//go:build dl && linux

package cuda

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
)

func TestScanForward(t *testing.T) {
	long(t)
	devicetest.Run(t, emulated(t, Options{}), "ScanForward")
}
func TestScanGradient(t *testing.T) {
	long(t)
	devicetest.Run(t, emulated(t, Options{}), "ScanGradient")
}
func TestScanLaws(t *testing.T)  { long(t); devicetest.Run(t, emulated(t, Options{}), "ScanLaws") }
func TestScanGains(t *testing.T) { long(t); devicetest.Run(t, emulated(t, Options{}), "ScanGains") }

// long skips a test that compiles a hundred kernels, a minute of each core the first time, where
// there is no time for it.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles many kernels: run without -short")
	}
}

// ownScan is a scan on the kernels of this package, and what a test varies about it.
type ownScan struct {
	kind             cell.Kind
	T, B, I, H, proj int
	lengths          []int
	kinds            [3]device.Kind // of W, R and P
	opt              cell.Options
	peep, norm       bool
	reverse          bool
	batchMajor       bool
	infer            bool
	tol              float64
}

func (c *ownScan) String() string {
	return fmt.Sprintf("%s T=%d B=%d H=%d proj=%d kinds=%v norm=%v reverse=%v", c.kind.Spec().Name, c.T, c.B, c.H, c.proj, c.kinds, c.norm, c.reverse)
}

// spec makes the scan, without Work. With lengths, X is not a number past them.
func (c *ownScan) spec(r *rig) *device.ScanSpec {
	s := &device.ScanSpec{Cell: c.kind, T: c.T, B: c.B, I: c.I, H: c.H, Proj: c.proj, Reverse: c.reverse, BatchMajor: c.batchMajor, Keep: !c.infer,
		CellOptions: device.CellOptions{Options: c.opt, Seed: 3, Step: 4, Node: 5}}
	s.Kinds[cell.W], s.Kinds[cell.R], s.Kinds[cell.P] = c.kinds[0], c.kinds[1], c.kinds[2]
	r.parameters(s)
	if c.kind.Spec().Free {
		s.Params[cell.R], s.Grads[cell.R] = device.Buffer{}, device.Buffer{}
	}
	add := func(p cell.Param) {
		s.Params[p], s.Grads[p] = r.scaled(s.Dims(p)[0], 0.4), r.normal(s.Dims(p)[0])
	}
	if c.peep {
		add(cell.PeepI)
		add(cell.PeepF)
		add(cell.PeepO)
	}
	if c.norm {
		add(cell.NormX)
		add(cell.NormR)
		if c.kind != cell.GRU {
			add(cell.NormC)
			add(cell.BiasC)
		}
	}
	x := make([]float32, c.T*c.B*c.I)
	for i := range x {
		x[i] = float32(r.rnd.NormFloat64())
		if row := i / c.I % c.B; c.lengths != nil && i/c.I/c.B >= c.lengths[row] {
			x[i] = float32(math.NaN())
		}
	}
	s.X, s.DX, s.DXAcc = r.floats(x), r.normal(len(x)), c.lengths == nil
	s.YLd, s.YOff = s.Out()+5, 3
	s.Y, s.DY = r.normal(c.T*c.B*s.YLd), r.normal(c.T*c.B*s.YLd)
	if c.lengths != nil {
		s.Active = r.ints(c.T, func(t int) (n int) {
			for _, l := range c.lengths {
				if l > t {
					n++
				}
			}
			return n
		})
	}
	return s
}

// run does the scan, backward too unless it is inference, and returns what it writes.
func (c *ownScan) run(r *rig, s *device.ScanSpec) []device.Buffer {
	s.Work = r.normal(r.ScanWork(s))
	r.Scan(s)
	out := []device.Buffer{s.Y, s.HN, s.CN}
	if !c.infer {
		r.ScanGrad(s)
		out = append(append(out, s.DX), s.Grads[:]...)
	}
	return out
}

var ownScans = []ownScan{
	{kind: cell.LSTM, T: 5, B: 37, I: 9, H: 70, lengths: descending(37, 5), tol: 1e-4},
	{kind: cell.LSTM, T: 3, B: 2, I: 4, H: 12, proj: 5, peep: true, norm: true, opt: cell.Options{HDrop: 0.3, ZoneH: 0.2, ZoneC: 0.3, CellClip: 1}, lengths: []int{3, 2}, reverse: true, tol: 1e-4},
	{kind: cell.LSTM, T: 4, B: 5, I: 6, H: 9, batchMajor: true, reverse: true, tol: 1e-4},
	{kind: cell.GRU, T: 4, B: 35, I: 6, H: 70, reverse: true, norm: true, tol: 1e-4},
	{kind: cell.GRU, T: 4, B: 5, I: 6, H: 64, batchMajor: true, tol: 1e-4},
	{kind: cell.GRUBefore, T: 4, B: 34, I: 6, H: 66, opt: cell.Options{HDrop: 0.3}, lengths: descending(34, 4), tol: 1e-4},
	{kind: cell.SLSTM, T: 4, B: 3, I: 6, H: 40, infer: true, tol: 1e-4},
	{kind: cell.MinGRU, T: 40, B: 3, I: 6, H: 40, infer: true, lengths: []int{40, 21, 20}, reverse: true, tol: 1e-4},
	{kind: cell.MinLSTM, T: 9, B: 3, I: 6, H: 8, batchMajor: true, tol: 1e-4},
	{kind: cell.CoupledLSTM, T: 40, B: 3, I: 6, H: 8, infer: true, proj: 4, norm: true, tol: 1e-4},
	{kind: cell.LSTM, T: 40, B: 3, I: 6, H: 8, infer: true, reverse: true, lengths: []int{40, 7, 0}, tol: 1e-4},
	// Operands of 16 bits: rounding is the same, and sums differ in their order.
	{kind: cell.LSTM, T: 4, B: 19, I: 16, H: 70, kinds: [3]device.Kind{device.BF16, device.BF16, device.BF16}, lengths: descending(19, 4), tol: 0.02},
	{kind: cell.LSTM, T: 4, B: 5, I: 16, H: 30, proj: 11, kinds: [3]device.Kind{device.FP16, device.FP16, device.F32}, tol: 0.01},
	{kind: cell.GRU, T: 4, B: 40, I: 16, H: 40, kinds: [3]device.Kind{device.FP16, device.FP16}, tol: 0.01},
	{kind: cell.RNNTanh, T: 4, B: 3, I: 16, H: 33, kinds: [3]device.Kind{device.F32, device.BF16}, tol: 0.02},
}

// descending is n lengths from most down to 0.
func descending(n, most int) (lengths []int) {
	for i := range n {
		lengths = append(lengths, most-i*(most+1)/n)
	}
	return lengths
}

// Several blocks, ragged tiles, chunks of time, padding that is not a number, kinds: what the suite's small scans
// do not meet.
func TestScanAsOnTheCPU(t *testing.T) {
	long(t)
	defer func(n int) { scanGates = n }(scanGates)
	scanGates = 3000 // several chunks in inference
	for _, c := range ownScans {
		t.Run(c.String(), func(t *testing.T) {
			asCPU(t, emulated(t, Options{}), c.tol, func(r *rig) []device.Buffer { return c.run(r, c.spec(r)) })
		})
	}
}

// TF32 has 10 bits of its operands.
func TestScanInTF32(t *testing.T) {
	long(t)
	c := ownScan{kind: cell.LSTM, T: 4, B: 19, I: 16, H: 40}
	asCPU(t, emulated(t, Options{TF32: true}), 0.01, func(r *rig) []device.Buffer { return c.run(r, c.spec(r)) })
}

// However a scan is divided, and whether weights fit in shared memory or not, its bits are the same.
func TestScanPlansChangeNoBit(t *testing.T) {
	long(t)
	for _, c := range []ownScan{
		{kind: cell.LSTM, T: 3, B: 37, I: 3, H: 34, lengths: descending(37, 3)},
		{kind: cell.LSTM, T: 3, B: 20, I: 3, H: 18, proj: 7, norm: true, opt: cell.Options{ZoneH: 0.2}},
		{kind: cell.GRU, T: 3, B: 20, I: 3, H: 20, reverse: true, kinds: [3]device.Kind{device.BF16, device.BF16}},
		{kind: cell.GRUBefore, T: 3, B: 37, I: 3, H: 20, lengths: descending(37, 3), kinds: [3]device.Kind{device.FP16, device.FP16}},
	} {
		t.Run(c.String(), func(t *testing.T) {
			var first [][]float32
			for i, plan := range []struct {
				blocks, groups, rows, cols int
				shared                     bool
			}{{1, 1, 32, 32, true}, {4, 1, 16, 8, true}, {2, 2, 32, 32, false}, {1, 3, 16, 8, false}, {3, 1, 32, 8, true}} {
				b := emulated(t, Options{})
				r := newRig(b)
				s := c.spec(r)
				s.Work = r.normal(r.ScanWork(s))
				b.scanPlans = map[planKey]*scanPlan{}
				for _, back := range []bool{false, true} {
					key := b.newScan(s, back).products()
					own := b.limits.shared
					if !plan.shared {
						b.limits.shared = 0
					}
					p := b.planOf(&key, plan.blocks, plan.groups, ceilDiv(c.H, plan.blocks), plan.rows, plan.cols)
					for ; p == nil; b.limits.shared += 1 << 10 { // the least that is enough
						p = b.planOf(&key, plan.blocks, plan.groups, ceilDiv(c.H, plan.blocks), plan.rows, plan.cols)
					}
					b.limits.shared = own
					b.scanPlans[key] = p
				}
				var results [][]float32
				for _, m := range c.run(r, s) {
					v := make([]float32, m.N)
					b.Download(v, m)
					results = append(results, v)
				}
				if len(b.scanPlans) != 2 {
					t.Fatal("other plans were used")
				}
				if first == nil {
					first = results
				}
				for k, v := range results {
					for j, x := range v {
						if math.Float32bits(x) != math.Float32bits(first[k][j]) && x == x {
							t.Fatalf("plan %d: result %d: element %d is %v, and %v with the first plan", i, k, j, x, first[k][j])
						}
					}
				}
			}
		})
	}
}

// On a large device all units and rows have a place, and R is kept in shared memory where it clearly fits.
func TestScanPlansOfLargeDevices(t *testing.T) {
	b := &Backend{limits: limits{sms: 132, shared: 227 << 10}}
	for _, c := range []struct {
		B, H int
		half bool
		kept bool
	}{{64, 512, false, true}, {64, 1024, false, false}, {1, 512, false, true}, {256, 128, false, true}, {64, 1024, true, true}, {64, 2048, false, false}, {4096, 32, false, true}} {
		for _, back := range []bool{false, true} {
			key := planKey{b: c.B, h: c.H, o: c.H, syncs: 1, products: [2]stepProduct{{depth: c.H, gates: 4}}}
			if back {
				key.products[0] = stepProduct{depth: 4 * c.H, gates: 1, out: true}
			}
			if c.half {
				key.products[0].kind = int(device.BF16)
			}
			p := b.planFor(key)
			if p.shared > b.limits.shared || p.blocks > 1 && p.blocks*p.groups > b.limits.sms || p.blocks*p.units < c.H || p.groups*p.rows < c.B {
				t.Errorf("%+v back=%v: plan %+v", c, back, *p)
			}
			if kept := p.slices[0] >= 0; c.kept && !kept {
				t.Errorf("%+v back=%v: R is read again in each step: plan %+v", c, back, *p)
			}
			t.Logf("B=%d H=%d half=%v back=%v: %d blocks x %d groups of %d rows, %d units, %s, %d KiB", c.B, c.H, c.half, back, p.blocks, p.groups, p.rows, p.units, p.macros, p.shared>>10)
		}
	}
}

// custom is a cell in Go.
type custom struct{}

func (custom) Gates() int         { return 1 }
func (custom) States() int        { return 1 }
func (custom) Forward(*cell.Row)  {}
func (custom) Backward(*cell.Row) {}

func TestScanRefusals(t *testing.T) {
	for _, c := range []struct {
		s    device.ScanSpec
		want string
	}{
		{device.ScanSpec{Cell: cell.Custom, CellOptions: device.CellOptions{Options: cell.Options{Custom: custom{}}}}, "custom cell"},
		{device.ScanSpec{Cell: cell.LSTM, Kinds: [cell.NumParams]device.Kind{cell.R: device.INT8}}, "int8"},
	} {
		r := newRig(emulated(t, Options{}))
		s := c.s
		s.T, s.B, s.I, s.H, s.YLd = 1, 1, 1, 1, 1
		r.parameters(&s)
		s.X, s.Y = r.normal(1), r.normal(1)
		s.Work = r.normal(r.ScanWork(&s))
		var refused *device.Error
		if err := catch(func() { r.Scan(&s) }); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", c.want, err)
		}
	}
}

// TestScanMemory runs scans whose plans have more or less shared memory: no bit may differ.
func TestScanMemory(t *testing.T) {
	long(t)
	seen := map[string]bool{}
	for _, c := range []struct {
		kind   cell.Kind
		h      int
		rounds device.Kind
	}{{cell.LSTM, 72, device.F32}, {cell.LSTM, 136, device.BF16}, {cell.GRUBefore, 40, device.BF16}} {
		b := emulated(t, Options{Deterministic: true})
		own := b.limits.shared
		var want [][]float32
		for _, shared := range []int{own, 100 << 10, 60 << 10, 40 << 10, 0} {
			r := newRig(b)
			s := r.scan(c.kind, 3, 20, 5, c.h)
			s.Kinds[cell.R] = c.rounds
			s.DY = r.normal(s.Y.N)
			s.Work = r.Alloc(b.ScanWork(s))
			b.scanPlans = map[planKey]*scanPlan{}
			b.enter()
			for _, back := range []bool{false, true} {
				key := b.newScan(s, back).products()
				var p *scanPlan
				for b.limits.shared = shared; p == nil; b.limits.shared += 1 << 10 { // the least that is enough
					p = b.planOf(&key, 2, 2, c.h/2, 16, 8)
				}
				b.scanPlans[key] = p
				seen[fmt.Sprint("kept ", p.slices[0] >= 0)], seen[fmt.Sprint("held ", p.held[0])], seen[fmt.Sprint("tiles ", p.tiles > 1)] = true, true, true
			}
			b.limits.shared = own
			b.leave()
			b.Scan(s)
			b.ScanGrad(s)
			got := [][]float32{get(b, s.Y), get(b, s.HN), get(b, s.Grads[cell.W]), get(b, s.Grads[cell.R]), get(b, s.Grads[cell.H0])}
			for i := range got {
				if want != nil && !equalBits(got[i], want[i]) {
					t.Errorf("%v with %d bytes: result %d differs", c.kind, shared, i)
				}
			}
			want = got
		}
	}
	if len(seen) != 6 {
		t.Errorf("plans with and without all were wanted, got %v", seen)
	}
}
