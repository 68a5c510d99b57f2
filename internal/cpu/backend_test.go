package cpu

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
)

func TestBackend(t *testing.T) {
	for i, set := range floatSets() {
		if i > 0 && testing.Short() {
			break // the best set is enough
		}
		t.Run(set.Name, func(t *testing.T) { devicetest.Run(t, New(set)) })
	}
}

// Gradients grow alike whichever way the work is split: by rows, by columns and by units.
func TestScanGainsForAnyWorkerCount(t *testing.T) {
	defer par.SetWorkers(0)
	for _, workers := range []int{1, 2, 3} {
		par.SetWorkers(workers)
		devicetest.Run(t, New(simd.Best()), "ScanGains")
	}
}

// A scan that keeps nothing takes a piece of time at once: a step, or some, which do not always divide T.
func TestScanInPieces(t *testing.T) {
	for _, gates := range []int{1, 150} {
		b := New(simd.Best())
		b.gates = gates
		devicetest.Run(t, b, "ScanForward", "ScanLaws")
	}
}

// call is one prepared use of a backend's methods; out holds all it writes.
type call struct {
	name string
	run  func()
	out  []device.Buffer
}

// calls prepares every method this file's tests hold to the laws, at sizes
// that several workers share and that fill no block evenly.
func calls(b *Backend) []call { return callsOn(b, randoms) }

// callsOn is calls on numbers of one's own.
func callsOn(b *Backend, numbers func(r *rand.Rand, n int) []float32) []call {
	r := rand.New(rand.NewPCG(11, 12))
	in := func(n int) device.Buffer { return device.HostBuffer(numbers(r, n)) }
	const n, rows, cols = 70001, 501, 130

	var cs []call
	add := func(name string, run func(), out ...device.Buffer) { cs = append(cs, call{name, run, out}) }
	x, y, dy := in(n), b.Alloc(n), in(n)
	for op := cell.Sigmoid; op <= device.Shift; op++ {
		y, dx := b.Alloc(n), b.Alloc(n)
		add("Unary", func() { b.Unary(op, y, x, 0.5); b.UnaryGrad(op, dx, dy, x, y, 0.5, false) }, y, dx)
	}
	for op := device.Add; op <= device.Div; op++ {
		for _, yn := range []int{1, 7, 500, 70000} {
			s := &device.BinarySpec{Op: op, N: 70000, YN: yn, X: x, Y: in(yn), Z: b.Alloc(n), DZ: dy, DX: b.Alloc(n), DY: b.Alloc(yn)}
			add("Binary", func() { b.Binary(s); b.BinaryGrad(s) }, s.Z, s.DX, s.DY)
		}
	}
	drop := &device.DropoutSpec{Y: y, X: x, N: n, P: 0.3, Seed: 1, Step: 2, Node: 3}
	add("Dropout", func() { b.Dropout(drop) }, y)

	norm := &device.NormSpec{Rows: rows, Cols: cols, X: in(rows * cols), Y: b.Alloc(rows * cols), Gamma: in(cols), Beta: in(cols), Eps: 1e-5,
		Mean: b.Alloc(rows), RStd: b.Alloc(rows), DY: in(rows * cols), DX: b.Alloc(rows * cols), DGamma: b.Alloc(cols), DBeta: b.Alloc(cols)}
	add("Norm", func() { b.Norm(norm); clear(norm.DGamma.Host); clear(norm.DBeta.Host); b.NormGrad(norm) },
		norm.Y, norm.Mean, norm.RStd, norm.DX, norm.DGamma, norm.DBeta)
	for _, log := range []bool{false, true} {
		s := &device.SoftmaxSpec{Rows: rows, Cols: cols, X: in(rows * cols), Y: b.Alloc(rows * cols), Log: log, DY: in(rows * cols), DX: b.Alloc(rows * cols)}
		add("Softmax", func() { b.Softmax(s); b.SoftmaxGrad(s) }, s.Y, s.DX)
	}
	ids := make([]int32, 3000)
	for i := range ids {
		ids[i] = int32(r.IntN(20))
	}
	embed := &device.EmbedSpec{Table: in(20 * cols), V: 20, D: cols, IDs: device.HostInts(ids), Padding: 3, Y: b.Alloc(3000 * cols), DY: in(3000 * cols), DTable: b.Alloc(20 * cols)}
	add("Embed", func() { b.Embed(embed); clear(embed.DTable.Host); b.EmbedGrad(embed) }, embed.Y, embed.DTable)
	for kind := device.PoolLast; kind <= device.PoolMax; kind++ {
		s := &device.PoolSpec{Kind: kind, B: 33, T: 25, F: 40, X: in(33000), Y: b.Alloc(1320), Arg: b.AllocInts(1320), DY: in(1320), DX: b.Alloc(33000)}
		add("Pool", func() { b.Pool(s); b.PoolGrad(s) }, s.Y, s.DX)
	}
	wide := device.Window{In: 40, Out: 20, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}
	for _, groups := range []int{1, 3, 36} {
		const ins, outs = 3 * 40 * 40 * 36, 3 * 20 * 20 * 36
		s := &device.ConvSpec{B: 3, I: 36, O: 36, Groups: groups, H: wide, W: wide, X: in(ins), Y: b.Alloc(outs), Weight: in(36 * 36 / groups * 9), Bias: in(36), Act: cell.Tanh,
			DY: in(outs), DX: b.Alloc(ins), DWeight: b.Alloc(36 * 36 / groups * 9), DBias: b.Alloc(36)}
		add("Conv", func() { b.Conv(s); clear(s.DWeight.Host); clear(s.DBias.Host); b.ConvGrad(s) }, s.Y, s.DX, s.DWeight, s.DBias)
	}
	for _, mean := range []bool{false, true} {
		s := &device.WindowPoolSpec{B: 3, C: 36, H: wide, W: wide, Mean: mean, X: in(3 * 40 * 40 * 36), Y: b.Alloc(3 * 20 * 20 * 36), Arg: b.AllocInts(3 * 20 * 20 * 36),
			DY: in(3 * 20 * 20 * 36), DX: b.Alloc(3 * 40 * 40 * 36)}
		add("WindowPool", func() { b.WindowPool(s); b.WindowPoolGrad(s) }, s.Y, s.DX)
	}
	const q, u = 6, 90
	a := &device.AdditiveSpec{B: 9, Q: q, T: 14, U: u, Query: in(9 * q * u), Key: in(9 * 14 * u), V: in(u), Cover: in(9 * q * 14), W: in(u),
		Lens: device.HostInts([]int32{14, 3, 0, 9, 14, 1, 7, 12, 2}), Score: b.Alloc(9 * q * 14), DScore: in(9 * q * 14),
		DQuery: b.Alloc(9 * q * u), DKey: b.Alloc(9 * 14 * u), DV: b.Alloc(u), DCover: b.Alloc(9 * q * 14), DW: b.Alloc(u)}
	results := []device.Buffer{a.Score, a.DQuery, a.DKey, a.DV, a.DCover, a.DW}
	add("Additive", func() {
		for _, d := range results {
			clear(d.Host)
		}
		b.Additive(a)
		b.AdditiveGrad(a)
	}, results...)
	cs = append(cs, lossCalls(b, in)...)
	return append(cs, vectorCalls(b, in)...)
}

func lossCalls(b *Backend, in func(int) device.Buffer) []call {
	const n = 9001
	var cs []call
	width := map[device.LossKind]int{device.Quantile: 3, device.Gaussian: 2, device.StudentT: 3, device.NegBinomial: 2, device.CrossEntropy: 40}
	for kind := device.MSE; kind <= device.BCE; kind++ {
		v := max(1, width[kind])
		s := &device.LossSpec{Kind: kind, N: n, V: v, Pred: in(n * v), Target: in(n), Weight: in(n), Classes: b.AllocInts(n), Ignore: -100,
			Smoothing: 0.1, Param: 1, Quantiles: device.HostBuffer([]float32{0.1, 0.5, 0.9}), Value: b.Alloc(1), DPred: b.Alloc(n * v)}
		for i := range n {
			s.Target.Host[i] = float32(math.Abs(float64(s.Target.Host[i])))
			s.Weight.Host[i] = max(s.Weight.Host[i], 0)
			s.Classes.Host[i] = int32(i % v)
		}
		cs = append(cs, call{"Loss", func() { b.Loss(s) }, []device.Buffer{s.Value, s.DPred}})
	}
	ctc := &device.CTCSpec{B: 9, T: 50, V: 29, L: 20, Logits: in(9 * 50 * 29), Lens: device.HostInts([]int32{50, 44, 30, 10, 0, 50, 48, 31, 45}),
		Labels: b.AllocInts(9 * 20), PerLabel: true, Value: b.Alloc(1), DLogits: b.Alloc(9 * 50 * 29)}
	for i := range ctc.Labels.Host {
		ctc.Labels.Host[i] = int32(1 + i*i%28)
	}
	cs = append(cs, call{"CTC", func() { b.CTC(ctc) }, []device.Buffer{ctc.Value, ctc.DLogits}})
	const k, rows, steps = 33, 21, 18
	crf := &device.CRFSpec{B: rows, T: steps, K: k, Scores: in(rows * steps * k), Trans: in(k * k), Start: in(k), End: in(k),
		Lens: b.AllocInts(rows), Tags: b.AllocInts(rows * steps), Value: b.Alloc(1),
		DScores: b.Alloc(rows * steps * k), DTrans: b.Alloc(k * k), DStart: b.Alloc(k), DEnd: b.Alloc(k)}
	for i := range crf.Tags.Host {
		crf.Tags.Host[i] = int32(i % k)
		crf.Lens.Host[i%rows] = int32(i % steps)
	}
	return append(cs, call{"CRF", func() { b.CRF(crf) }, []device.Buffer{crf.Value, crf.DScores, crf.DTrans, crf.DStart, crf.DEnd}})
}

func vectorCalls(b *Backend, in func(int) device.Buffer) []call {
	const n = 140001
	one, factor, g := b.Alloc(1), b.Alloc(1), in(n)
	x, y, w := in(n), b.Alloc(n), b.Alloc(n)
	cs := []call{{"vectors", func() {
		copy(y.Host, x.Host)
		b.SumSquares(one, x)
		b.ClipFactor(factor, one, 1)
		b.AddScaled(y, g, factor, true)
		b.Lerp(y, g, 0.25)
		b.ScaleBy(y, factor)
		b.Clamp(y, -0.5, 0.5)
		b.AddScaled(w, y, factor, false)
	}, []device.Buffer{one, factor, y, w}}}
	for kind := device.SGD; kind <= device.RMSprop; kind++ {
		s := &device.StepSpec{Kind: kind, W: b.Alloc(n), G: b.Alloc(n), M: b.Alloc(n), V: b.Alloc(n), LR: 0.1,
			Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Momentum: 0.9, Decay: 0.01, T: 2}
		cs = append(cs, call{"Step", func() {
			copy(s.W.Host, x.Host)
			copy(s.G.Host, g.Host)
			clear(s.M.Host)
			clear(s.V.Host)
			b.Step(s)
		}, []device.Buffer{s.W, s.G, s.M, s.V}})
	}
	return cs
}

func TestSameBitsForAnyWorkerCount(t *testing.T) {
	defer par.SetWorkers(0)
	eachSet(t, func(t *testing.T, b *Backend) {
		var want []call
		for _, workers := range []int{1, 2, 7} {
			par.SetWorkers(workers)
			got := calls(b)
			for i, c := range got {
				c.run()
				for k, out := range c.out {
					if want == nil {
						break
					}
					for j, v := range want[i].out[k].Host {
						if math.Float32bits(v) != math.Float32bits(out.Host[j]) {
							t.Fatalf("%s (call %d) with %d workers: element %d of result %d is %v, with one worker %v",
								c.name, i, workers, j, k, out.Host[j], v)
						}
					}
				}
			}
			if want == nil {
				want = got
			}
		}
	})
}

// Numbers of all magnitudes down to the smallest normal one, most products of
// which are below it, lead to no subnormal one, neither in a result nor in Go
// code on the way.
func TestMeetsNoSubnormals(t *testing.T) {
	par.SetWorkers(1)
	defer par.SetWorkers(0)
	faint := func(r *rand.Rand, n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.Ldexp(2*r.Float64()-1, -r.IntN(100)))
		}
		return x
	}
	eachSet(t, func(t *testing.T, b *Backend) {
		for i, c := range callsOn(b, faint) {
			if read, made := simdtest.Subnormals(t, c.run); read || made {
				t.Errorf("%s (call %d): read %v, made %v", c.name, i, read, made)
			}
			for k, out := range c.out {
				for j, v := range out.Host {
					if v != 0 && math.Abs(float64(v)) < simd.MinNormal {
						t.Fatalf("%s (call %d): element %d of result %d is %g", c.name, i, j, k, v)
					}
				}
			}
		}
	})
}

func TestCallsAllocateNothing(t *testing.T) {
	eachSet(t, func(t *testing.T, b *Backend) {
		for i, c := range calls(b) {
			if n := testing.AllocsPerRun(5, c.run); n != 0 { // sets GOMAXPROCS to 1, so nothing is shared out
				t.Errorf("%s (call %d): %v allocations", c.name, i, n)
			}
		}
	})
}

func TestSharedCallsAllocateNothing(t *testing.T) {
	par.SetWorkers(2)
	defer par.SetWorkers(0)
	b := New(simd.Best())
	for i, c := range calls(b) {
		// Whatever else runs in the process may allocate now and then: the best of some tries counts.
		fewest := uint64(math.MaxUint64)
		for try := 0; try < 5 && fewest >= 10; try++ {
			fewest = min(fewest, mallocs(c.run, 10))
		}
		if fewest >= 10 {
			t.Errorf("%s (call %d): at least %d allocations in 10 runs", c.name, i, fewest)
		}
	}
}

// mallocs is how many heap objects the process made during some runs of f.
func mallocs(f func(), runs int) uint64 {
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}
