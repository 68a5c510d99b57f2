package graph

import (
	"math"
	"strings"
)

// activation is a function of a gate of the standard, with its two parameters.
type activation struct {
	name        string
	f           func(x, alpha, beta float64) float64
	alpha, beta float64
}

func (a *activation) of(x float64) float64 { return flush(a.f(flush(x), a.alpha, a.beta)) }

// activations are the functions by their name in lower case, with the number of
// parameters among alpha and beta and their defaults.
var activations = map[string]struct {
	f           func(x, alpha, beta float64) float64
	takes       int
	alpha, beta float64
}{
	"sigmoid":         {f: func(x, _, _ float64) float64 { return 1 / (1 + exp(-x)) }},
	"tanh":            {f: func(x, _, _ float64) float64 { return math.Tanh(x) }},
	"relu":            {f: func(x, _, _ float64) float64 { return math.Max(x, 0) }},
	"softplus":        {f: func(x, _, _ float64) float64 { return math.Max(x, 0) + math.Log1p(exp(-math.Abs(x))) }},
	"softsign":        {f: softsign},
	"leakyrelu":       {leakyReLU, 1, 0.01, 0},
	"elu":             {elu, 1, 1, 0},
	"thresholdedrelu": {thresholdedReLU, 1, 1, 0},
	"affine":          {func(x, a, b float64) float64 { return a*x + b }, 2, 1, 0},
	"scaledtanh":      {func(x, a, b float64) float64 { return a * math.Tanh(b*x) }, 2, 1, 1},
	"hardsigmoid":     {hardSigmoid, 2, 0.2, 0.5},
}

// exp limits the argument so that the result and its inverse are normal numbers;
// beyond, both are 0 or infinite in float32.
func exp(x float64) float64 { return math.Exp(min(max(x, -100), 100)) }

func softsign(x, _, _ float64) float64 { return x / (1 + math.Abs(x)) }

func leakyReLU(x, alpha, _ float64) float64 {
	if x < 0 {
		return alpha * x
	}
	return x
}

func elu(x, alpha, _ float64) float64 {
	if x < 0 {
		return alpha * math.Expm1(x)
	}
	return x
}

func thresholdedReLU(x, alpha, _ float64) float64 {
	if x > alpha {
		return x
	}
	return 0
}

func hardSigmoid(x, alpha, beta float64) float64 { return math.Max(0, math.Min(1, alpha*x+beta)) }

// newActivation returns a function by name, in any case.
func newActivation(name string) (a activation, takes int, ok bool) {
	d, ok := activations[strings.ToLower(name)]
	return activation{strings.ToLower(name), d.f, d.alpha, d.beta}, d.takes, ok
}

// plainCell is one direction of a recurrent operator with all its options, after the
// equations of the standard, in float64 and one row at a time: the reference,
// and what runs where the engine's cells have not the option. Weights are in
// ONNX's order of gates: i,o,f,c of an LSTM, z,r,h of a GRU.
type plainCell struct {
	op      string
	I, H    int
	acts    []activation // LSTM f,g,h; GRU f,g; RNN f
	clip    float64      // bound on the input of every gate's activation; 0 none
	coupled bool         // LSTM: the forget gate is one minus the input gate
	linear  bool         // GRU: the reset gate acts after the recurrent product
	reverse bool
	w, r    []float32 // [G*H,I], [G*H,H]
	b       []float32 // [2*G*H], input biases then recurrent ones, or nil
	p       []float32 // LSTM: peepholes [3*H] in the order i,o,f, or nil
}

// scan runs rows of time-major x [T,B,I] over their lengths (nil: T) from states
// [B,H], which become the final ones, and writes y [T,B,H]. Past a row's length y
// stays as it is: zeros. goOn is called before each step.
func (s *cellRow) scan(x, y []float32, lengths []int32, T, B int, h, cs []float32, goOn func()) {
	c := s.plainCell
	for row := range B {
		s.load(h[row*c.H:], cs, row)
		length := T
		if lengths != nil {
			length = int(lengths[row])
		}
		for step := range length {
			goOn()
			t := step
			if c.reverse {
				t = length - 1 - step
			}
			s.step(x[(t*B+row)*c.I:][:c.I])
			for j, v := range s.h {
				y[(t*B+row)*c.H+j] = float32(v) // flushed already
			}
		}
		for j := range c.H {
			h[row*c.H+j] = float32(s.h[j])
			if cs != nil {
				cs[row*c.H+j] = float32(s.c[j])
			}
		}
	}
}

// cellRow is the state of one row, with scratch memory.
type cellRow struct {
	*plainCell
	h, c  []float64
	wx    []float64 // W·x + Wb
	rh    []float64 // R·h + Rb
	reset []float64 // GRU: r⊙h
}

func newCellRow(c *plainCell) *cellRow {
	gates := len(c.r) / max(c.H*c.H, 1)
	make64 := func(n int) []float64 { return make([]float64, n) }
	return &cellRow{c, make64(c.H), make64(c.H), make64(gates * c.H), make64(gates * c.H), make64(c.H)}
}

func (s *cellRow) load(h, cs []float32, row int) {
	for j := range s.H {
		s.h[j] = float64(h[j])
		if cs != nil {
			s.c[j] = float64(cs[row*s.H+j])
		}
	}
}

// act applies a gate's activation to its clipped input. The standard says that
// clip bounds "the input of activations"; as in ONNX Runtime these are the gates,
// not the cell state before the output activation.
func (s *cellRow) act(which int, x float64) float64 {
	if s.clip > 0 {
		x = math.Max(-s.clip, math.Min(s.clip, x))
	}
	return s.acts[which].of(x)
}

func (s *cellRow) step(x []float32) {
	n := len(s.wx)
	for g := range n {
		s.wx[g], s.rh[g] = dot(s.w[g*s.I:][:s.I], x), 0
		for j, v := range s.r[g*s.H:][:s.H] {
			s.rh[g] += float64(v) * s.h[j]
		}
		if s.b != nil {
			s.wx[g] += float64(s.b[g])
			s.rh[g] += float64(s.b[n+g])
		}
	}
	switch s.op {
	case "LSTM":
		s.lstm()
	case "GRU":
		s.gru()
	default:
		for j := range s.H {
			s.h[j] = s.act(0, s.wx[j]+s.rh[j])
		}
	}
}

func dot(w, x []float32) float64 {
	sum := 0.0
	for k, v := range w {
		sum += float64(v) * float64(x[k])
	}
	return sum
}

func (s *cellRow) peep(gate, j int, c float64) float64 {
	if s.p == nil {
		return 0
	}
	return float64(s.p[gate*s.H+j]) * c
}

func (s *cellRow) lstm() {
	H := s.H
	for j := range H {
		pre := func(gate int) float64 { return s.wx[gate*H+j] + s.rh[gate*H+j] }
		i := s.act(0, pre(0)+s.peep(0, j, s.c[j]))
		f := 1 - i
		if !s.coupled {
			f = s.act(0, pre(2)+s.peep(2, j, s.c[j]))
		}
		s.c[j] = flush(f*s.c[j] + i*s.act(1, pre(3)))
		s.h[j] = flush(s.act(0, pre(1)+s.peep(1, j, s.c[j])) * s.acts[2].of(s.c[j]))
	}
}

func (s *cellRow) gru() {
	H := s.H
	for j := range H { // z and r take the places of their sums
		s.wx[j] = s.act(0, s.wx[j]+s.rh[j])
		s.wx[H+j] = s.act(0, s.wx[H+j]+s.rh[H+j])
		s.reset[j] = s.wx[H+j] * s.h[j]
	}
	for j := range H {
		n := s.wx[2*H+j]
		if s.linear {
			n += s.wx[H+j] * s.rh[2*H+j]
		} else {
			for k, v := range s.r[(2*H+j)*H:][:H] {
				n += float64(v) * s.reset[k]
			}
			if s.b != nil {
				n += float64(s.b[5*H+j])
			}
		}
		s.rh[2*H+j] = s.act(1, n)
	}
	for j := range H {
		z := s.wx[j]
		s.h[j] = flush((1-z)*s.rh[2*H+j] + z*s.h[j])
	}
}
