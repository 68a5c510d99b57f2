package explain

import (
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// cells names the cells and the gates that a trace holds as activations, by
// their places; "" is one that is not bounded. A name that ends in "±" is a tanh.
var cells = map[tensor.Cell]struct {
	name  string
	gates []string
}{
	tensor.LSTMCell:        {"LSTM", []string{"i", "f", "g±", "o"}},
	tensor.CoupledLSTMCell: {"coupled LSTM", []string{"i", "g±", "o"}},
	tensor.GRUCell:         {"GRU", []string{"r", "z", "n±"}},
	tensor.GRUBeforeCell:   {"GRU", []string{"r", "z", "n±"}},
	tensor.RNNTanhCell:     {"RNN", []string{"h±"}},
	tensor.RNNReLUCell:     {"ReLU RNN", nil},
	tensor.SLSTMCell:       {"sLSTM", []string{"", "", "z±", "o"}},
	tensor.MinGRUCell:      {"minGRU", []string{"z", ""}},
	tensor.MinLSTMCell:     {"minLSTM", []string{"f", "i", ""}},
	tensor.CustomCell:      {"custom cell", nil},
}

const histogramBins = 20

// lookAt reads what a forward pass left.
func lookAt(r *tensor.Trace) *Layer {
	l := &Layer{Name: layerName(r.Name), Cell: cells[r.Cell].name, Units: r.H, CellClip: float64(r.CellClip)}
	gates := r.Gates()
	for b := range r.B {
		l.Steps = max(l.Steps, r.Length(b))
	}
	for k, name := range cells[r.Cell].gates {
		if name != "" {
			l.Gates = append(l.Gates, newGate(r, gates, k, name))
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

func newGate(r *tensor.Trace, gates []float32, k int, name string) Gate {
	g := Gate{Name: name, Histogram: make([]float64, histogramBins)}
	if n := len(name) - len("±"); n > 0 && name[n:] == "±" {
		g.Name, g.Signed = name[:n], true
	}
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

// keeps is the share of its old state that a unit keeps in a step, from the step's gates.
func keeps(cell tensor.Cell, row []float32, j, H int) float64 {
	switch cell {
	case tensor.LSTMCell, tensor.GRUCell, tensor.GRUBeforeCell:
		return float64(row[H+j])
	case tensor.MinLSTMCell:
		f, i := float64(row[j]), float64(row[H+j])
		return f / (f + i)
	}
	return 1 - float64(row[j]) // coupled LSTM, minGRU
}

// longestMemory bounds 1/(1-f): float32 cannot tell longer ones apart.
const longestMemory = 1e6

func newMemory(r *tensor.Trace, gates []float32) *Memory {
	switch r.Cell {
	case tensor.RNNTanhCell, tensor.RNNReLUCell, tensor.SLSTMCell, tensor.CustomCell:
		return nil
	}
	sums, n := make([]float64, r.H), 0.0
	values(r, gates, func(row []float32) {
		n++
		for j := range sums {
			sums[j] += keeps(r.Cell, row, j, r.H)
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

// atLimit is the share of c at its clip.
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
