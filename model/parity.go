package model

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Sizes of the random input: a batch of sequences, or the same number of
// vectors.
const (
	SampleRows  = 3
	SampleSteps = 7
	vectors     = SampleRows * SampleSteps
)

// Tolerance is the largest accepted difference: of 1, or of the largest value
// of a layer's results if that is more. float32 arithmetic stays well below.
const Tolerance = 1e-4

// Parity reports how far this library's results differ from others' on random
// input.
type Parity struct {
	Layers []LayerParity `json:"layers"` // by layer, in the order of the file
	// Max is the largest difference from the float64 reference.
	Max          float64  `json:"max_difference"`
	Framework    string   `json:"framework,omitempty"`                // the framework also compared with, such as "PyTorch 2.9.1"; absent if none
	MaxFramework *float64 `json:"max_difference_framework,omitempty"` // the largest difference from the framework
	// Samples are the inputs and this library's results, by layer.
	Samples []*Sample `json:"-"`
}

// LayerParity is the comparison of one layer: outputs and final states.
type LayerParity struct {
	Name      string   `json:"name"`                               // of the layer
	Kind      Kind     `json:"kind"`                               // of the layer
	Values    int      `json:"values"`                             // number of values compared
	Max       float64  `json:"max_difference"`                     // largest difference from the float64 reference
	Framework *float64 `json:"max_difference_framework,omitempty"` // and from the framework; absent if none was compared with
	scale     float64  // the largest magnitude of the reference's values, at least 1
}

// Ok reports whether every difference is within Tolerance.
func (p *Parity) Ok() bool {
	for _, l := range p.Layers {
		if !(l.Max <= Tolerance*l.scale) || l.Framework != nil && !(*l.Framework <= Tolerance*l.scale) {
			return false
		}
	}
	return true
}

// Compared records a framework's results: their differences from this
// library's, by layer.
func (p *Parity) Compared(framework string, differences []float64) {
	p.Framework, p.MaxFramework = framework, new(float64)
	for i, d := range differences {
		p.Layers[i].Framework = &d
		*p.MaxFramework = larger(*p.MaxFramework, d)
	}
}

// Tensors returns the inputs and results under the names "layer.part", for
// another program to read: 0.x, 0.y, 0.h0 and so on.
func (p *Parity) Tensors(arch *Architecture) []Tensor {
	var ts []Tensor
	for i, s := range p.Samples {
		l := &arch.Layers[i]
		add := func(part string, data []float32, dims ...int) {
			if len(data) > 0 {
				ts = append(ts, Tensor{Name: fmt.Sprintf("%d.%s", i, part), Dims: dims, Data: data})
			}
		}
		slots := l.Layers * l.Directions()
		add("x", s.X, SampleRows, SampleSteps, l.Input)
		add("y", s.Y, SampleRows, SampleSteps, l.Output)
		add("h0", s.H0, slots, SampleRows, l.State())
		add("hn", s.HN, slots, SampleRows, l.State())
		add("c0", s.C0, slots, SampleRows, l.Hidden)
		add("cn", s.CN, slots, SampleRows, l.Hidden)
		if s.IDs != nil {
			ids := make([]int64, len(s.IDs))
			for j, id := range s.IDs {
				ids[j] = int64(id)
			}
			ts = append(ts, Tensor{Name: fmt.Sprintf("%d.ids", i), Dims: []int{SampleRows, SampleSteps}, Ints: ids})
		}
	}
	return ts
}

// Worst returns the largest of all differences.
func (p *Parity) Worst() float64 {
	if p.MaxFramework != nil {
		return larger(p.Max, *p.MaxFramework)
	}
	return p.Max
}

// Sample is a layer's input, and this library's results on it. B is SampleRows, T SampleSteps.
type Sample struct {
	X      []float32 // shape [B,T,in], or [B*T,in] for a layer without steps
	IDs    []int32   // input of an embedding, shape [B,T]
	H0, C0 []float32 // initial states of a recurrent layer, shape [L*D,B,...]
	Y      []float32
	HN, CN []float32
}

// Vector returns the i-th of the input's vectors, of length n.
func (s *Sample) Vector(i, n int) []float64 {
	v := make([]float64, n)
	for j, x := range s.X[i*n : (i+1)*n] {
		v[j] = float64(x)
	}
	return v
}

// Reference computes a layer's results on a sample independently of this
// library: the output, and for a recurrent layer the final states, of shape
// [L*D,B,...] (cn for an LSTM only).
type Reference func(l *Layer, s *Sample) (y, hn, cn []float64)

// Check runs every layer on random input and compares it with a reference.
// Recurrent layers start from a random state. Weights that are not finite are a
// [*FileError] that names path; a layer that cannot run on its input is an
// error that names the layer.
func (n *Network) Check(path string, reference Reference, seed uint64) (*Parity, error) {
	if err := finite(n.Slab, path); err != nil {
		return nil, err
	}
	p := &Parity{}
	r := rand.New(rand.NewPCG(seed, 0x746f726368))
	for i := range n.Arch.Layers {
		l := &n.Arch.Layers[i]
		s := newSample(l, r)
		if err := tensor.Catch(func() { n.run(i, s) }); err != nil {
			return nil, fmt.Errorf("layer %q: %w", clip(l.Name), err)
		}
		y, hn, cn := reference(l, s)
		if l.Kind != LSTM {
			cn = nil
		}
		lp := LayerParity{Name: l.Name, Kind: l.Kind, scale: 1}
		for _, pair := range []struct {
			got  []float32
			want []float64
		}{{s.Y, y}, {s.HN, hn}, {s.CN, cn}} {
			lp.compare(pair.got, pair.want)
		}
		p.Layers, p.Samples = append(p.Layers, lp), append(p.Samples, s)
		p.Max = larger(p.Max, lp.Max)
	}
	return p, nil
}

// finite returns an error for weights that are not finite.
func finite(slab *tensor.Slab, path string) error {
	for _, p := range slab.Params {
		for i, v := range p.Read() {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return &FileError{File: path, Tensor: p.Name, Problem: fmt.Sprintf("element %d is %v", i, v)}
			}
		}
	}
	return nil
}

// compare updates the layer's difference; a NaN anywhere makes it NaN.
func (l *LayerParity) compare(got []float32, want []float64) {
	l.Values += len(want)
	for i, w := range want {
		l.Max = larger(l.Max, math.Abs(float64(got[i])-w))
		l.scale = math.Max(l.scale, math.Abs(w))
	}
}

// larger returns the maximum, or NaN if either is NaN.
func larger(a, b float64) float64 {
	if b > a || math.IsNaN(b) {
		return b
	}
	return a
}

func newSample(l *Layer, r *rand.Rand) *Sample {
	s := &Sample{}
	if l.Kind == Embedding {
		s.IDs = make([]int32, vectors)
		for i := range s.IDs {
			s.IDs[i] = int32(r.IntN(min(l.Input, math.MaxInt32)))
		}
		return s
	}
	normal := func(n int, scale float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(scale * r.NormFloat64())
		}
		return x
	}
	s.X = normal(vectors*l.Input, 1)
	if l.Kind.Recurrent() {
		slots := l.Layers * l.Directions() * SampleRows
		s.H0, s.C0 = normal(slots*l.State(), 0.5), normal(slots*l.Hidden, 0.5)
	}
	return s
}

// run computes layer i's results.
func (n *Network) run(i int, s *Sample) {
	l := &n.Arch.Layers[i]
	tape := tensor.NewTape(n.Slab.Device(), tensor.Infer)
	switch m := n.modules[i].(type) {
	case *nn.Linear:
		s.Y = m.Forward(tape.Input(s.X, vectors, l.Input)).Data()
	case *nn.LayerNorm:
		s.Y = m.Forward(tape.Input(s.X, vectors, l.Input)).Data()
	case *nn.Embedding:
		s.Y = m.Forward(tape.IDs(s.IDs, nil, SampleRows, SampleSteps)).Data()
	case *nn.RNN:
		slots := l.Layers * l.Directions()
		init := &nn.State{H: tape.Input(s.H0, slots, SampleRows, l.State())}
		if l.Kind == LSTM {
			init.C = tape.Input(s.C0, slots, SampleRows, l.Hidden)
		}
		y, final := m.Forward(tape.Input(s.X, SampleRows, SampleSteps, l.Input), init)
		s.Y, s.HN = y.Data(), final.H.Data()
		if final.C != nil {
			s.CN = final.C.Data()
		}
	}
}
