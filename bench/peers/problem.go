package main

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/bench"
)

// problem is what every competitor computes: a network, an input, and a
// projection p of the outputs y [T,B,H], whose sum of products p*y is the loss.
type problem struct {
	shape   bench.Shape
	weights [][]float32 // for each layer weight_ih, weight_hh, bias_ih, bias_hh
	x, p    []float32   // [T,B,I], [T,B,H]
	lesson  *lesson     // nil: the shape has none
	// Of a ready model, whose shape has a name only: its file, its inputs, and the length
	// of its first output.
	model  string
	inputs []readyInput
	size   int
}

// ending is the shape of the passes with a gradient at the last step only, and
// gates of 0.6.
var ending = bench.VanishShape(336)

// shapes returns every shape of the benchmarks, and the one that a precision has of its own.
func shapes(precision string) []bench.Shape {
	switch precision {
	case float32s:
		return append(bench.Shapes(), ending)
	case int8s:
		return append(bench.Shapes(), normal)
	}
	return bench.Shapes()
}

func newProblem(s bench.Shape) *problem {
	r := rand.New(rand.NewPCG(5, 6))
	k := 1 / math.Sqrt(float64(s.H))
	uniform := func(n int, k float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(k * (2*r.Float64() - 1))
		}
		return v
	}
	q := &problem{shape: s, x: uniform(s.T*s.B*s.I, 1), p: uniform(s.T*s.B*s.H, 1)}
	for layer := range s.L {
		for _, n := range []int{4 * s.H * s.Input(layer), 4 * s.H * s.H, 4 * s.H, 4 * s.H} {
			q.weights = append(q.weights, uniform(n, k))
		}
	}
	if s.Name == normal.Name {
		q.x = bench.Normals(5, len(q.x))
	}
	if s.Name == ending.Name {
		q.weights = bench.Keeping(s, cell.LSTM, 0.6)
		clear(q.p[:(s.T-1)*s.B*s.H])
	}
	for pass, l := range lessons {
		if l.shape == s.Name {
			q.lesson = newLesson(pass, s, l.classes)
		}
	}
	return q
}

// poses reports whether a pass belongs to this problem.
func (q *problem) poses(pass string) bool {
	if pass == ready || q.model != "" {
		return pass == ready && q.model != ""
	}
	if _, end := ends[pass]; end || q.shape.Name == ending.Name {
		return end && q.shape.Name == ending.Name
	}
	_, is := lessons[pass]
	return !is || q.lesson != nil && q.lesson.pass == pass
}

// compared returns the passes whose results must agree before a pass is timed.
// The outputs of the passes with a gradient at the last step only are not a pass
// of their own.
func (q *problem) compared(pass string) []string {
	if _, end := ends[pass]; end {
		return []string{forward, pass}
	}
	return []string{pass}
}

// write writes the problem to files for the other processes.
func (q *problem) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if q.model != "" {
		return q.writeInputs(dir)
	}
	var all []float32
	for _, w := range q.weights {
		all = append(all, w...)
	}
	for name, content := range map[string][]byte{
		"x.f32": rawFloats(q.x), "p.f32": rawFloats(q.p), "weights.f32": rawFloats(all), "model.onnx": onnxModel(q.shape, q.weights),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	if q.lesson != nil {
		return q.lesson.write(dir)
	}
	return nil
}

// flop counts the floating-point operations of the matrix products of a pass.
func (q *problem) flop(pass string) float64 {
	flop := q.shape.ForwardFlop(cell.LSTM)
	switch pass {
	case forward:
		return flop
	case ready:
		return 0 // not counted
	case language, speech:
		return 3 * q.lesson.flop(q.shape, flop)
	}
	return 3 * flop
}

// outputs returns the number of values of a pass: the outputs, the gradients in
// the order of the weights, or the losses.
func (q *problem) outputs(pass string) int {
	switch pass {
	case forward:
		return q.shape.T * q.shape.B * q.shape.H
	case step, language, speech:
		return lessonSteps
	case ready:
		return q.size
	}
	n := 0
	for _, w := range q.weights {
		n += len(w)
	}
	return n
}

// difference compares the results of two competitors: outputs and losses by the
// largest absolute difference, outputs of ready models relative to the largest if that is above 1, gradients by the largest relative to the largest
// element of the same parameter.
func (q *problem) difference(pass string, got, want []float32) float64 {
	if !gradients(pass) {
		d, size := farthest(got, want)
		if pass == ready {
			d /= math.Max(1, size)
		}
		return d
	}
	worst, at := 0.0, 0
	for _, w := range q.weights {
		d, size := farthest(got[at:at+len(w)], want[at:at+len(w)])
		if d != 0 { // of one step from a zero state, R's gradient is zero altogether
			worst = math.Max(worst, d/size)
		}
		at += len(w)
	}
	return worst
}

// farthest returns the largest difference, NaN if there is one, and the largest
// element of want.
func farthest(got, want []float32) (difference, size float64) {
	for i := range want {
		difference = math.Max(difference, math.Abs(float64(got[i])-float64(want[i])))
		size = math.Max(size, math.Abs(float64(want[i])))
	}
	return difference, size
}
