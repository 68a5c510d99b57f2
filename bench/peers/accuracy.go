package main

import (
	"math"
	"sync"

	"github.com/carousel-ml/carousel/internal/bench"
)

// normal is the shape of a question of accuracy: a random network as PyTorch initialises it, and
// an x that is normal. It is for 8 bits alone.
var normal = bench.Shape{Name: "Q", T: 40, B: 1, I: 256, H: 256, L: 2}

// Accuracy is how far a competitor's outputs are from those of float64.
type Accuracy struct {
	Shape string  `json:"shape"`
	Name  string  `json:"name"`
	Max   float64 `json:"max"`
	RMS   float64 `json:"rms"`
}

// accuracy compares outputs with those of reference.
func accuracy(shape, name string, got []float32, want []float64) Accuracy {
	a := Accuracy{Shape: shape, Name: name}
	for i, w := range want {
		d := math.Abs(float64(got[i]) - w)
		if math.IsNaN(d) {
			d = math.MaxFloat32 // JSON has no NaN
		}
		a.Max = math.Max(a.Max, d)
		a.RMS += d * d / float64(len(want))
	}
	a.RMS = math.Sqrt(a.RMS)
	return a
}

// reference computes the outputs [T,B,H] in float64.
func (q *problem) reference() []float64 {
	s := q.shape
	in := widened(q.x)
	for layer := range s.L {
		w := make([][]float64, 4)
		for i := range w {
			w[i] = widened(q.weights[4*layer+i])
		}
		out := make([]float64, s.T*s.B*s.H)
		var rows sync.WaitGroup
		for b := range s.B {
			rows.Go(func() { lstmRow(s, b, s.Input(layer), w, in, out) })
		}
		rows.Wait()
		in = out
	}
	return in
}

// lstmRow computes a row of a batch through a layer of weight_ih, weight_hh, bias_ih and bias_hh.
func lstmRow(s bench.Shape, b, inputs int, w [][]float64, in, out []float64) {
	h, c, gates := make([]float64, s.H), make([]float64, s.H), make([]float64, 4*s.H)
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for t := range s.T {
		x := in[(t*s.B+b)*inputs:][:inputs]
		for g := range gates {
			gates[g] = w[2][g] + w[3][g] + dot(w[0][g*inputs:], x) + dot(w[1][g*s.H:], h)
		}
		for j := range h {
			i, f, g, o := sigmoid(gates[j]), sigmoid(gates[s.H+j]), math.Tanh(gates[2*s.H+j]), sigmoid(gates[3*s.H+j])
			c[j] = f*c[j] + i*g
			h[j] = o * math.Tanh(c[j])
		}
		copy(out[(t*s.B+b)*s.H:], h)
	}
}

func dot(w, x []float64) (sum float64) {
	for i, v := range x {
		sum += w[i] * v
	}
	return sum
}

func widened(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}
