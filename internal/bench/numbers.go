package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// The same passes on other numbers. The time of a pass should depend on its
// shapes alone. Where it does not, the numbers are usually subnormal (below
// 1.2e-38), at which an instruction takes about 150 cycles on many processors:
// vanishing gradients pass through these before they are zero, and so do
// outputs of saturated gates, and an optimizer's moments of rows that get no
// more gradients.

// Number is the time of a pass on some numbers, divided by that of the same
// operations on other numbers, measured in alternation.
type Number struct {
	// Name is "vanish": a training step of an LSTM, a GRU or a plain RNN without an
	// optimizer, with a gradient at the last step alone, against the same with one
	// at every step and a loss of size 1. Or "constant": all weights of an LSTM are
	// one number, and all its inputs another; the slowest pair of some against the
	// fastest. Or "adam30000x400": a step of Adam on that number of parameters, some 400 of
	// whose rows have a gradient, after Steps steps, against one of the first.
	Name      string  `json:"name"`
	Cell      string  `json:"cell"`              // "lstm", "gru", "rnn" or "adam"
	Pass      string  `json:"pass"`              // "forward"; "train": forward and backward; "step": the optimizer's alone
	Steps     int     `json:"steps"`             // of the sequences; adam: taken before
	Keep      float64 `json:"keep,omitempty"`    // vanish: about what each step lets pass of the gradient
	Loss      float64 `json:"loss,omitempty"`    // vanish: the size of the loss
	Weights   float64 `json:"weights,omitempty"` // constant: those of the slowest
	Inputs    float64 `json:"inputs,omitempty"`  // constant: the inputs of the slowest
	Threads   int     `json:"threads"`           // number of threads
	Ms        float64 `json:"ms"`                // the median on these numbers
	Ratio     float64 `json:"ratio"`             // the median of the rounds
	RatioLow  float64 `json:"ratio_p10"`         // 10 % of the rounds had less
	RatioHigh float64 `json:"ratio_p90"`         // 10 % had more
	Bar       float64 `json:"bar"`               // above it a ratio is too much
	Rounds    int     `json:"rounds"`            // that count
	Steady    bool    `json:"steady"`            // false: in most the machine's peak was lower than before, so all count
}

// Bars of Number.
const (
	sameBar    = 1.05
	slowestBar = 1.2 // the slowest of many includes noise
)

// contrast is one pass on several numbers.
type contrast struct {
	cases   []Number // the others are compared with the first,
	slowest bool     // unless the slowest is compared with the fastest
	rounds  int
	setUp   func() (put func(i int), run func()) // put, untimed, makes the next run that of case i
}

// Round is one run of every competitor in turn.
type Round struct {
	Peak float64   // the machine's, measured in this round, GFLOP/s
	Ms   []float64 // by competitor
}

// steadiness is how far the machine's peak may be below its best.
const steadiness = 0.1

// Steady selects the rounds in which the machine was at full speed. If there
// are fewer than need, all rounds are returned and steady is false.
func Steady(rounds []Round, best float64, need int) (good []Round, steady bool) {
	for _, r := range rounds {
		if r.Peak >= (1-steadiness)*best {
			good = append(good, r)
		}
	}
	if len(good) < need {
		return rounds, false
	}
	return good, true
}

// Ratios returns the time of competitor i over that of k in each round.
func Ratios(rounds []Round, i, k int) []float64 {
	var x []float64
	for _, r := range rounds {
		x = append(x, r.Ms[i]/r.Ms[k])
	}
	return x
}

// measure times all cases in turn on the number of threads that rate is of.
func (c *contrast) measure(ctx context.Context, rate Rate) ([]Number, error) {
	const probeTime = 15 * time.Millisecond
	par.SetWorkers(rate.Threads)
	put, run := c.setUp()
	n := len(c.cases)
	for i := range n {
		put(i)
		run()
	}
	best, peak := rate.Peak, Peak(rate.Threads, probeTime)
	var rounds []Round
	for r := range c.rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ms := make([]float64, n)
		for k := range n {
			i := (r + k) % n // rotates who comes first
			put(i)
			ms[i] = 1e3 * timed(run, 1)
		}
		before := peak
		peak = Peak(rate.Threads, probeTime)
		best = max(best, peak)
		rounds = append(rounds, Round{min(before, peak), ms})
	}
	good, steady := Steady(rounds, best, (c.rounds+1)/2)
	medians := make([]float64, n)
	for i := range n {
		var ms []float64
		for _, r := range good {
			ms = append(ms, r.Ms[i])
		}
		medians[i] = Quantile(ms, 0.5)
	}
	base := 0
	slowest := slices.Index(medians, slices.Max(medians))
	if c.slowest {
		base = slices.Index(medians, slices.Min(medians))
	}
	var out []Number
	for i, x := range c.cases {
		if c.slowest && i != slowest || !c.slowest && i == base {
			continue
		}
		q := Ratios(good, i, base)
		x.Threads, x.Ms, x.Rounds, x.Steady = rate.Threads, medians[i], len(good), steady
		x.Ratio, x.RatioLow, x.RatioHigh = Quantile(q, 0.5), Quantile(q, 0.1), Quantile(q, 0.9)
		out = append(out, x)
	}
	return out, nil
}

// contrasts lists all of them in the order of the report.
func contrasts(o *Options) []contrast {
	keeps, losses := []float64{0.5, 0.6, 0.8, 0.95}, []float64{1, 1e-4, 1e-8, 1e-12}
	few, ends := []float64{0.6, 0.95}, []float64{1, 1e-8}
	values := [][]float64{{-0.1, 0.1, -0.3, -0.01}, {0.1, -0.1, 1, 4}} // of the weights, of the inputs
	passes := []string{forward, train}
	type length struct {
		steps, rounds int
		keeps, losses []float64
	}
	lengths := []length{{336, 9, keeps, losses}, {2000, 5, few, ends}}
	rounds := 5
	switch {
	case o.Quick:
		lengths, rounds = []length{{336, 3, few[:1], ends}}, 3
		values, passes = [][]float64{{-0.1, 0.1}, {0.1, 1}}, passes[:1]
	case o.Numbers:
		lengths[1].keeps, lengths[1].losses = keeps, losses
	}
	var list []contrast
	for _, l := range lengths {
		for _, kind := range []cell.Kind{cell.LSTM, cell.GRU, cell.RNNTanh} {
			for _, keep := range l.keeps {
				list = append(list, vanishing(VanishShape(l.steps), kind, keep, l.losses, l.rounds))
			}
		}
	}
	for _, pass := range passes {
		list = append(list, constant(Shape{T: 50, B: 32, I: 512, H: 512, L: 1}, pass, values[0], values[1], rounds))
	}
	return append(list, adam(30000, 400, 3000, 15))
}

// VanishShape is a stack of the given number of steps whose gradient enters at
// the last.
func VanishShape(steps int) Shape { return Shape{Name: "V", T: steps, B: 64, I: 12, H: 64, L: 2} }

// Keeping returns weights of a stack, in the order of its parameters, that pass
// about the share keep of the gradient back through each step: the bias sets
// the mean of the gate that keeps the state (an LSTM's f, a GRU's z), or a
// plain RNN's recurrent matrix rotates and scales by it. All other weights are
// small.
func Keeping(s Shape, kind cell.Kind, keep float64) [][]float32 {
	r := rand.New(rand.NewPCG(3, 4))
	uniform := func(n int, k float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(k * (2*r.Float64() - 1))
		}
		return v
	}
	const small = 0.03
	n := kind.Gates() * s.H
	var list [][]float32
	for layer := range s.L {
		recurrent, bias := uniform(n*s.H, small), uniform(n, small)
		if kind == cell.RNNTanh {
			nn.Orthogonal(r, recurrent, []int{s.H, s.H})
			for i := range recurrent {
				recurrent[i] *= float32(keep)
			}
		} else {
			for i := s.H; i < 2*s.H; i++ { // both gates are the second
				bias[i] += float32(math.Log(keep / (1 - keep)))
			}
		}
		list = append(list, uniform(n*s.Input(layer), small), recurrent, bias, uniform(n, small))
	}
	return list
}

// vanishing compares a gradient at the last step alone with one at every step.
// Both multiply all outputs by weights, which in the first case are zero except
// at the end.
func vanishing(s Shape, kind cell.Kind, keep float64, losses []float64, rounds int) contrast {
	x := Number{Name: "vanish", Cell: kind.Spec().Setting, Pass: train, Steps: s.T, Keep: keep, Loss: 1, Bar: sameBar}
	c := contrast{cases: []Number{x}, rounds: rounds}
	for _, x.Loss = range losses {
		c.cases = append(c.cases, x)
	}
	c.setUp = func() (func(int), func()) {
		net := s.Network(kind)
		slab := tensor.Pack(tensor.CPU(), net, 1)
		for i, w := range Keeping(s, kind, keep) {
			slab.Params[i].Write(w)
		}
		tape := tensor.NewTape(slab.Device(), tensor.Train)
		in, every := Normals(1, s.T*s.B*s.I), Normals(2, s.T*s.B*s.H)
		end := make([]float32, len(every))
		copy(end[len(end)-s.B*s.H:], every[len(end)-s.B*s.H:])
		weight, size := every, float32(1)
		put := func(i int) {
			weight, size = end, float32(c.cases[i].Loss)
			if i == 0 {
				weight = every
			}
		}
		return put, func() {
			slab.ZeroGrad()
			tape.Reset()
			y, _ := net.Forward(tape.Input(in, s.T, s.B, s.I), nil)
			loss := tensor.SumAll(tensor.Mul(y, tape.Input(weight, s.T, s.B, s.H)))
			tensor.MulScalar(loss, size).Backward()
		}
	}
	return c
}

// constant gives an LSTM weights that are all one number and inputs that are
// all another. Weights are packed anew in every run.
func constant(s Shape, pass string, weights, inputs []float64, rounds int) contrast {
	c := contrast{slowest: true, rounds: rounds}
	for _, w := range weights {
		for _, x := range inputs {
			c.cases = append(c.cases, Number{Name: "constant", Cell: "lstm", Pass: pass, Steps: s.T, Weights: w, Inputs: x, Bar: slowestBar})
		}
	}
	c.setUp = func() (func(int), func()) {
		net := s.Network(cell.LSTM)
		slab := tensor.Pack(tensor.CPU(), net, 1)
		x, y := make([]float32, s.T*s.B*s.I), make([]float32, s.T*s.B*s.H)
		tape := tensor.NewTape(slab.Device(), map[string]tensor.Mode{forward: tensor.Infer, train: tensor.Train}[pass])
		put := func(i int) {
			for _, p := range slab.Params {
				p.Write(slices.Repeat([]float32{float32(c.cases[i].Weights)}, p.Len()))
			}
			for k := range x {
				x[k] = float32(c.cases[i].Inputs)
			}
		}
		return put, func() {
			slab.ZeroGrad()
			tape.Reset()
			out, _ := net.Forward(tape.Input(x, s.T, s.B, s.I), nil)
			if pass == train {
				tensor.SumAll(out).Backward()
				return
			}
			out.CopyTo(y)
		}
	}
	return c
}

// adam is the step on a table of rows by width numbers most of whose rows have
// no gradient, such as an embedding's: 700 words per step, drawn by Zipf's law.
// The old table's moments come from steps on a table narrowWidth wide, each row
// repeated: the values of an element depend on its own gradients alone.
func adam(rows, width, steps, rounds int) contrast {
	const narrowWidth = 4
	x := Number{Name: fmt.Sprintf("adam%dx%d", rows, width), Cell: "adam", Pass: "step", Steps: steps, Bar: sameBar}
	return contrast{cases: []Number{x, x}, rounds: rounds, setUp: func() (func(int), func()) {
		words := zipf(rows)
		narrow := newTable(rows, narrowWidth)
		for range steps {
			narrow.see(words)
			narrow.opt.Step(1e-3)
		}
		tables := []*table{newTable(rows, width), newTable(rows, width)}
		if err := tables[1].opt.LoadState(widened(narrow.opt.State(), narrowWidth, width)); err != nil {
			panic(fmt.Sprintf("bench: %v", err)) // both are made here
		}
		var now *table
		put := func(i int) {
			now = tables[i]
			now.see(words)
		}
		return put, func() { now.opt.Step(1e-3) }
	}}
}

// table is a matrix that Adam trains.
type table struct {
	Weight *tensor.Param
	slab   *tensor.Slab
	opt    *optim.Optimizer
	row    []float32 // a row's gradient
}

func newTable(rows, width int) *table {
	t := &table{Weight: tensor.NewParam("weight", nn.Constant(0.1), rows, width), row: Normals(1, width)}
	for i := range t.row {
		t.row[i] *= 1e-3
	}
	t.slab = tensor.Pack(tensor.CPU(), t, 1)
	t.opt = optim.NewAdam(t.slab, nil)
	return t
}

// see sets a gradient in the rows of some words.
func (t *table) see(words func() int) {
	b := t.slab.Device().Backend()
	for range 700 {
		at := words() * len(t.row)
		b.Upload(t.slab.Grads().Slice(at, at+len(t.row)), t.row)
	}
}

// widened returns the state of a table whose rows repeat those of a narrower
// one.
func widened(s *optim.State, from, to int) *optim.State {
	for i := range s.Vectors {
		v := &s.Vectors[i]
		var data []float32
		for row := range slices.Chunk(v.Data, from) {
			data = append(data, slices.Repeat(row, to/from)...)
		}
		v.Dims, v.Data = []int{v.Dims[0], to}, data
	}
	return s
}

// zipf draws from n words, of which word i has a share in proportion to 1/(i+1).
func zipf(n int) func() int {
	r := rand.New(rand.NewPCG(5, 6))
	until, sum := make([]float64, n), 0.0
	for i := range until {
		sum += 1 / float64(i+1)
		until[i] = sum
	}
	return func() int {
		i, _ := slices.BinarySearch(until, sum*r.Float64())
		return i
	}
}
