package bench

import (
	"math/rand/v2"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Passes of a task.
const (
	forward = "forward"
	train   = "train"
)

// task is one thing to time.
type task struct {
	name, cell, pass string
	flop             float64
	traffic          []traffic
	setUp            func() (run func()) // separate, so that only the current task holds memory
}

// tasks lists all of them, on a device, in the order of the report.
func tasks(on *tensor.Device) []task {
	list := []task{gemmTask(on, 1024)}
	add := func(s Shape, kind cell.Kind) {
		name := kind.Spec().Setting
		f := s.ForwardFlop(kind)
		list = append(list,
			task{s.Name, name, forward, f, s.traffic(kind, false), func() func() { return forwardRun(on, s, kind) }},
			task{s.Name, name, train, 3 * f, s.traffic(kind, true), func() func() { return trainRun(on, s, kind) }})
	}
	for _, s := range Shapes() {
		add(s, cell.LSTM)
	}
	for _, s := range Shapes() {
		if s.Name == "A" {
			add(s, cell.GRU)
			add(s, cell.RNNTanh)
		}
	}
	return list
}

// forwardRun copies the input to the device, runs the network and copies the
// outputs back.
func forwardRun(on *tensor.Device, s Shape, kind cell.Kind) func() {
	net := s.Network(kind)
	dev := tensor.Pack(on, net, 1).Device()
	x, y := Normals(1, s.T*s.B*s.I), make([]float32, s.T*s.B*s.H)
	tape := tensor.NewTape(dev, tensor.Infer)
	return func() {
		tape.Reset()
		out, _ := net.Forward(tape.Input(x, s.T, s.B, s.I), nil)
		out.CopyTo(y)
	}
}

// trainRun is a whole training step: forward, loss, backward, clipping and
// AdamW.
func trainRun(on *tensor.Device, s Shape, kind cell.Kind) func() {
	net := s.Network(kind)
	slab := tensor.Pack(on, net, 1)
	opt := optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: 0.01})
	x, want := Normals(1, s.T*s.B*s.I), Normals(2, s.T*s.B*s.H)
	tape := tensor.NewTape(slab.Device(), tensor.Train)
	return func() {
		tape.Reset()
		out, _ := net.Forward(tape.Input(x, s.T, s.B, s.I), nil)
		loss := tensor.MSE(out, tape.Input(want, s.T, s.B, s.H), nil)
		loss.Backward()
		opt.ClipNorm(1)
		opt.Step(1e-5)
		loss.Item()
	}
}

// gemmTask is a square product of new matrices, which are packed anew every
// time.
func gemmTask(on *tensor.Device, n int) task {
	return task{"gemm1024", "gemm", forward, 2 * float64(n) * float64(n) * float64(n), nil, func() func() {
		b := on.Backend()
		spec := device.GemmSpec{M: n, N: n, K: n, A: b.Alloc(n * n), B: b.Alloc(n * n), C: b.Alloc(n * n)}
		b.Upload(spec.A, Normals(1, n*n))
		b.Upload(spec.B, Normals(2, n*n))
		return func() {
			b.Gemm(&spec)
			b.Sync()
		}
	}}
}

// Normals returns n normally distributed numbers, the same for the same seed.
func Normals(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}
