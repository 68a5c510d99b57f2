package explain

import (
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/tensor"
)

const histogramBins = 20

// lookAt returns the measurements of a forward pass.
func lookAt(r *tensor.Trace) *Layer {
	l := &Layer{Name: layerName(r.Name), Cell: r.Cell.Spec().Title, kind: r.Cell, Units: r.H, CellClip: float64(r.CellClip)}
	gates := r.Gates()
	for b := range r.B {
		l.Steps = max(l.Steps, r.Length(b))
	}
	for k, g := range r.Cell.Spec().Gates {
		if g.Act == cell.Sigmoid || g.Act == cell.Tanh { // the trace holds them as activations, and they are bounded
			l.Gates = append(l.Gates, newGate(r, gates, k, g))
		}
	}
	l.Memory = newMemory(r, gates)
	if r.CellClip > 0 {
		l.CellClipped = atLimit(r, r.Cells())
	}
	return l
}

// values calls f with the gates of each true step of each row, [G*H].
func values(r *tensor.Trace, gates []float32, f func(row []float32)) {
	width := len(gates) / max(1, r.T*r.B)
	for b := range r.B {
		for t := range r.Length(b) {
			f(gates[(t*r.B+b)*width:][:width])
		}
	}
}

func newGate(r *tensor.Trace, gates []float32, k int, gate cell.Gate) Gate {
	g := Gate{Name: gate.Name, Signed: gate.Act == cell.Tanh, Histogram: make([]float64, histogramBins)}
	n := 0.0
	values(r, gates, func(row []float32) {
		for _, v32 := range row[k*r.H : (k+1)*r.H] {
			v := float64(v32)
			low, at := 0.1, v
			if g.Signed {
				low, at = -0.9, (v+1)/2
			}
			n++
			g.Mean += v
			if v < low {
				g.Low++
			}
			if v > 0.9 {
				g.High++
			}
			g.Histogram[min(max(int(at*histogramBins), 0), histogramBins-1)]++
		}
	})
	if n > 0 {
		g.Mean, g.Low, g.High = g.Mean/n, g.Low/n, g.High/n
		for i := range g.Histogram {
			g.Histogram[i] /= n
		}
	}
	return g
}

// keeps returns a function that computes the share of its state that a unit keeps
// in a step, from the step's gates; nil if the gates in the trace do not
// determine it.
func keeps(spec *cell.Spec) func(row []float32, j, H int) float64 {
	keep, take := spec.Gate(spec.Keep), spec.Gate(spec.Take)
	held := func(gate int) bool { return gate >= 0 && spec.Gates[gate].Act == cell.Sigmoid }
	at := func(row []float32, gate, j, H int) float64 { return float64(row[gate*H+j]) }
	switch {
	case spec.Shares:
		return func(row []float32, j, H int) float64 {
			f, i := at(row, keep, j, H), at(row, take, j, H)
			return f / (f + i)
		}
	case held(keep):
		return func(row []float32, j, H int) float64 { return at(row, keep, j, H) }
	case held(take) && spec.Keep == "":
		return func(row []float32, j, H int) float64 { return 1 - at(row, take, j, H) }
	}
	return nil
}

// longestMemory is the largest 1/(1-f): longer ones cannot be distinguished in
// float32.
const longestMemory = 1e6

func newMemory(r *tensor.Trace, gates []float32) *Memory {
	kept := keeps(r.Cell.Spec())
	if kept == nil {
		return nil
	}
	sums, n := make([]float64, r.H), 0.0
	values(r, gates, func(row []float32) {
		n++
		for j := range sums {
			sums[j] += kept(row, j, r.H)
		}
	})
	if n == 0 {
		return nil
	}
	m := &Memory{Units: sums}
	for j, sum := range sums {
		m.Units[j] = 1 / max(1-sum/n, 1/longestMemory)
		m.Mean += m.Units[j] / float64(r.H)
	}
	slices.Sort(m.Units)
	m.Median, m.Most = m.Units[r.H/2], m.Units[r.H-1]
	return m
}

// atLimit returns the share of c at its clip.
func atLimit(r *tensor.Trace, c []float32) float64 {
	n, hits := 0.0, 0.0
	values(r, c, func(row []float32) {
		for _, v := range row {
			n++
			if v >= r.CellClip || v <= -r.CellClip {
				hits++
			}
		}
	})
	return hits / max(n, 1)
}
