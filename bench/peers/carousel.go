package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Passes a competitor may offer.
const (
	forward = "forward"
	train   = "train" // forward and backward, without an optimizer's step
	step    = "step"  // a whole training step, with the mean squared error against p; see lesson.go
	// train, but the gradient is at the last step alone and vanishes on its way
	// back: its numbers are subnormal before they are zero.
	vanish = "vanish"
	faint  = "faint"
)

// What networks compute in. Losses and the weights that are trained are float32 for all.
const (
	float32s  = "f32"
	bfloat16s = "bf16"
	float16s  = "fp16"
	int8s     = "int8"
)

// passes is those that can be compared in a precision.
var passes = map[string][]string{
	float32s:  {forward, train, step, vanish, faint, language, speech, ready},
	bfloat16s: {forward, train, step, language, speech},
	float16s:  {forward, train, step, language, speech},
	int8s:     {forward},
}

// ends is the passes whose gradient is at the last step only, with the size of
// their loss.
var ends = map[string]float32{vanish: 1, faint: 1e-8}

// lossSize returns the factor of a pass's loss.
func lossSize(pass string) float32 { return cmp.Or(ends[pass], 1) }

// competitor computes the same problem as the others. Competitors run one at a
// time.
type competitor interface {
	name() string
	offers(pass string) bool
	open(q *problem, dir string) error
	// run calls a pass warm times and then times it calls times, in milliseconds.
	run(pass string, warm, calls int) ([]float64, error)
	// result computes a pass once more and gives its outputs or gradients.
	result(pass string) ([]float32, error)
	// uses names the kernels that the last result was computed with; "" if they are unknown.
	uses() string
	// computes is the precision of its networks.
	computes() string
	// memory is the most bytes in use over three training steps, beyond those
	// in use before the network was made.
	memory(q *problem, dir string) (int, error)
	close() error
}

// carousel is this project, in this process.
type carousel struct {
	precision tensor.Precision
	q         *problem
	net       *nn.RNN
	slab      *tensor.Slab
	infer     *tensor.Tape
	train     *tensor.Tape
	y         []float32
	pupil     *learner // of the last pass that learns
	ready     *readyGraph
}

func newCarousel(threads int, precision tensor.Precision) *carousel {
	par.SetWorkers(threads)
	return &carousel{precision: precision}
}

func (c *carousel) name() string {
	name := "carousel " + tensor.CPU().Name()
	if c.precision != tensor.Float32 {
		name += " " + c.precision.String()
	}
	return name
}

func (c *carousel) offers(string) bool { return true }

func (c *carousel) uses() string { return strings.TrimPrefix(c.name(), "carousel ") }

func (c *carousel) computes() string { return c.precision.String() }

func (c *carousel) open(q *problem, _ string) error {
	c.q, c.pupil = q, nil
	if q.model != "" {
		var err error
		if c.ready, err = openReady(q); err != nil {
			return err
		}
		y, err := c.ready.run()
		q.size = len(y)
		return err
	}
	c.y = make([]float32, q.outputs(forward))
	c.build()
	for i, p := range c.slab.Params {
		if p.Len() != len(q.weights[i]) {
			return fmt.Errorf("%s has %d elements, the problem %d", p.Name, p.Len(), len(q.weights[i]))
		}
		p.Write(q.weights[i])
		if c.precision == tensor.Int8 && p.Rank() > 1 {
			p.SetRest(tensor.Int8)
		}
	}
	return nil
}

func (c *carousel) build() {
	c.net = c.q.shape.Network(cell.LSTM)
	c.slab = tensor.Pack(tensor.CPU(), c.net, 1)
	c.infer = tensor.NewTape(c.slab.Device(), tensor.Infer)
	c.train = tensor.NewTape(c.slab.Device(), tensor.Train)
	if c.precision == tensor.Int8 {
		return // weights at rest decide
	}
	c.infer.SetPrecision(c.precision)
	c.train.SetPrecision(c.precision)
}

// forward copies the input in and the outputs out, as ONNX Runtime's interface
// does.
func (c *carousel) forward() {
	s := c.q.shape
	c.infer.Reset()
	y, _ := c.net.Forward(c.infer.Input(c.q.x, s.T, s.B, s.I), nil)
	y.CopyTo(c.y)
}

// gradients trains on a loss of the given size, without a step.
func (c *carousel) gradients(size float32) {
	s := c.q.shape
	c.slab.ZeroGrad()
	c.train.Reset()
	y, _ := c.net.Forward(c.train.Input(c.q.x, s.T, s.B, s.I), nil)
	loss := tensor.SumAll(tensor.Mul(y, c.train.Input(c.q.p, s.T, s.B, s.H)))
	tensor.MulScalar(loss, size).Backward()
}

// learn makes a step of the model of a pass.
func (c *carousel) learn(pass string) float32 {
	if c.pupil == nil || c.pupil.pass != pass {
		c.pupil = newLearner(c.q, pass, c.precision)
	}
	return c.pupil.step()
}

func (c *carousel) run(pass string, warm, calls int) ([]float64, error) {
	learn := func() { c.learn(pass) }
	f := map[string]func(){forward: c.forward, step: learn, language: learn, speech: learn, ready: func() { c.ready.run() }}[pass]
	if f == nil {
		f = func() { c.gradients(lossSize(pass)) }
	}
	for range warm {
		f()
	}
	var ms []float64
	for range calls {
		start := time.Now()
		f()
		ms = append(ms, 1e3*time.Since(start).Seconds())
	}
	return ms, nil
}

func (c *carousel) result(pass string) ([]float32, error) {
	switch pass {
	case forward:
		c.forward()
		return c.y, nil
	case ready:
		return c.ready.run()
	case step, language, speech:
		var losses []float32
		for range lessonSteps {
			losses = append(losses, c.learn(pass))
		}
		return losses, nil
	}
	c.gradients(lossSize(pass))
	var all []float32
	for _, p := range c.slab.Params {
		all = append(all, p.Grad()...)
	}
	return all, nil
}

func (c *carousel) memory(q *problem, dir string) (int, error) {
	if err := c.open(q, dir); err != nil {
		return 0, err
	}
	c.net, c.slab, c.infer, c.train = nil, nil, nil, nil
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // resets the peak
		return 0, err
	}
	before, err := processBytes("VmRSS")
	if err != nil {
		return 0, err
	}
	c.build()
	for range 3 {
		c.gradients(1)
	}
	peak, err := processBytes("VmHWM")
	return peak - before, err
}

func (c *carousel) close() error {
	*c = carousel{precision: c.precision}
	return nil
}

// processBytes returns a number of bytes from Linux's statistics of this process.
func processBytes(key string) (int, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == key+":" {
			kb, err := strconv.Atoi(f[1])
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", key)
}
