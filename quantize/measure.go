package quantize

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// Speed is times of the recurrent and linear layers of both models, measured alternately.
type Speed struct {
	Stream Times  `json:"stream"`          // one step of one row through each layer
	Batch  Times  `json:"batch"`           // 32 steps of 32 rows through each layer
	Whole  *Times `json:"whole,omitempty"` // the rows of the accuracy, by the whole model
}

// Times is the times of both models, each the median of the measurements.
type Times struct {
	Float32   float64 `json:"float32"`   // milliseconds
	Quantized float64 `json:"quantized"` // milliseconds
	Ratio     float64 `json:"ratio"`     // median of the quotients of neighbouring measurements, float32 by quantized: above 1 the quantized model is faster
	Best      float64 `json:"best"`      // quotient of the shortest times, which other work on the machine disturbs least
}

// Drift is how far the states of a recurrent layer are from those of the float32 model after many
// steps from one state, of standard normal inputs.
type Drift struct {
	Layer string  `json:"layer"` // the name of its first matrix
	Steps int     `json:"steps"` // number of steps
	Early float64 `json:"early"` // root mean square difference of the output over the first hundred steps
	Late  float64 `json:"late"`  // the same over the last hundred
	Worst float64 `json:"worst"` // greatest difference of an output
	Cell  float64 `json:"cell"`  // greatest difference of a cell state after the last step; 0 for cells without one
}

// Gate is how often a recurrent layer's gates are near an end of their range, where an error of what
// they are computed from changes little, in the float32 model.
type Gate struct {
	Layer     string  `json:"layer"`     // the name of its input matrix
	Saturated float64 `json:"saturated"` // share of the values of sigmoids and tanhs within 0.01 of an end
}

// gates traces one pass.
func gates(dev *tensor.Device, pass func(*tensor.Tape) *tensor.Tensor) (list []Gate) {
	tape := tensor.NewTape(dev, tensor.Train)
	tape.Trace()
	pass(tape)
	for _, r := range tape.Traces() {
		values, kinds := r.Gates(), r.Cell.Spec().Gates
		near, n := 0, 0
		for i, v := range values {
			t, b := i/(len(kinds)*r.H)/r.B, i/(len(kinds)*r.H)%r.B
			if t >= r.Length(b) {
				continue
			}
			low := float32(0)
			switch kinds[i/r.H%len(kinds)].Act {
			case cell.Tanh:
				low = -1
			case cell.Sigmoid:
			default:
				continue
			}
			if n++; v < low+saturatedAt || v > 1-saturatedAt {
				near++
			}
		}
		if n > 0 {
			list = append(list, Gate{r.Name, float64(near) / float64(n)})
		}
	}
	return list
}

const (
	driftSteps  = 10_000
	batchRows   = 32
	batchSteps  = 32
	windows     = 15
	wholes      = 2 // measurements of all rows
	windowTime  = 4 * time.Millisecond
	saturatedAt = 0.01
)

// normalPass is a pass of standard normal inputs through the recurrent layers.
func normalPass(s *tensor.Slab) func(*tensor.Tape) *tensor.Tensor {
	return func(tape *tensor.Tape) *tensor.Tensor {
		r := rand.New(rand.NewPCG(5, 6))
		for _, m := range s.Modules {
			if m, ok := m.(*nn.RNN); ok {
				m.Forward(tape.Input(normal(r, batchRows*batchSteps*m.InputSize()), batchRows, batchSteps, m.InputSize()), nil)
			}
		}
		return nil
	}
}

// layer is one that computes, in both models.
type layer struct {
	width int // of its input
	run   func(x *tensor.Tensor)
}

// layers lists the layers of a network that take features.
func layers(s *tensor.Slab) (list []layer) {
	for _, m := range s.Modules {
		switch m := m.(type) {
		case *nn.RNN:
			list = append(list, layer{m.InputSize(), func(x *tensor.Tensor) { m.Forward(x, nil) }})
		case *nn.Linear:
			list = append(list, layer{m.Weight.Dim(1), func(x *tensor.Tensor) { m.Forward(x) }})
		}
	}
	return list
}

// speed times the layers of two networks alternately.
func speed(ctx context.Context, f, q *tensor.Slab) (s Speed, err error) {
	r := rand.New(rand.NewPCG(1, 2))
	one, other := layers(f), layers(q)
	if s.Stream, err = alternate(ctx, windows, steps(r, f, one, 1, 1), steps(r, q, other, 1, 1)); err != nil {
		return s, err
	}
	s.Batch, err = alternate(ctx, windows, steps(r, f, one, batchRows, batchSteps), steps(r, q, other, batchRows, batchSteps))
	return s, err
}

// steps returns a function that computes some steps of some rows in each layer.
func steps(r *rand.Rand, s *tensor.Slab, list []layer, rows, steps int) func() {
	tape := tensor.NewTape(s.Device(), tensor.Infer)
	inputs := make([][]float32, len(list))
	for i, l := range list {
		inputs[i] = normal(r, rows*steps*l.width)
	}
	return func() {
		for i, l := range list {
			tape.Reset()
			l.run(tape.Input(inputs[i], rows, steps, l.width))
		}
	}
}

func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// alternate times two functions by turns, so many times.
func alternate(ctx context.Context, turns int, f, q func()) (Times, error) {
	var list [2][]float64
	calls := [2]int{}
	for i, run := range []func(){f, q} {
		start := time.Now()
		run()
		if took := time.Since(start); took < 10*windowTime { // the first call prepares
			start = time.Now()
			run()
			calls[i] = int(windowTime / max(time.Since(start), time.Microsecond))
		}
		calls[i]++
	}
	var ratios []float64
	for range turns {
		for i, run := range []func(){f, q} {
			if err := ctx.Err(); err != nil {
				return Times{}, err
			}
			start := time.Now()
			for range calls[i] {
				run()
			}
			list[i] = append(list[i], float64(time.Since(start))/float64(calls[i])/1e6)
		}
		ratios = append(ratios, list[0][len(list[0])-1]/list[1][len(list[1])-1])
	}
	return Times{median(list[0]), median(list[1]), median(ratios), slices.Min(list[0]) / slices.Min(list[1])}, nil
}

// most returns how many times as fast the quantized model is by the measure that is best for it.
func (t *Times) most() float64 { return max(t.Ratio, t.Best, t.Float32/t.Quantized) }

// slower reports whether the quantized model is slower beyond what is noise, by every measure.
func (t *Times) slower() bool { return t.most() < 0.97 }

// slow says so of what was timed.
func (t *Times) slow(what, processor, kernels string) string {
	return fmt.Sprintf("speed: %s takes %.2f times as long as in float32 (%s and %s ms), so it is slower on this machine (%s, %s)", what, 1/t.most(), report.Number(t.Quantized), report.Number(t.Float32), processor, kernels)
}

// missed says that what was timed is not target times as fast.
func (t *Times) missed(what string, target float64) string {
	return fmt.Sprintf("speed: %s is %.2f times as fast as in float32 (%s to %s ms), and %g times was asked for", what, t.Ratio, report.Number(t.Float32), report.Number(t.Quantized), target)
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// drift runs the recurrent layers of two networks over driftSteps steps.
func drift(ctx context.Context, f, q *tensor.Slab) (list []Drift, err error) {
	r := rand.New(rand.NewPCG(3, 4))
	for i, m := range f.Modules {
		one, ok := m.(*nn.RNN)
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x := normal(r, driftSteps*one.InputSize())
		y, c := run(f, one, x)
		z, d := run(q, q.Modules[i].(*nn.RNN), x)
		n := 100 * len(y) / driftSteps
		list = append(list, Drift{Layer: one.Weights[0].Name, Steps: driftSteps, Early: rms(y[:n], z[:n]), Late: rms(y[len(y)-n:], z[len(z)-n:]), Worst: worst(y, z), Cell: worst(c, d)})
	}
	return list, nil
}

func run(s *tensor.Slab, m *nn.RNN, x []float32) (y, c []float32) {
	tape := tensor.NewTape(s.Device(), tensor.Infer)
	in := tape.Input(x, 1, driftSteps, m.InputSize())
	if m.Options().TimeMajor {
		in = tape.Input(x, driftSteps, 1, m.InputSize())
	}
	out, final := m.Forward(in, nil)
	if y = out.Data(); final.C != nil {
		c = final.C.Data()
	}
	return y, c
}

func rms(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		d := float64(v) - float64(b[i])
		sum += d * d
	}
	return math.Sqrt(sum / float64(max(len(a), 1)))
}

func worst(a, b []float32) float64 {
	top := 0.0
	for i, v := range a {
		top = max(top, math.Abs(float64(v)-float64(b[i])))
	}
	return top
}
