package torch

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Sizes of the random input: a batch of sequences, or as many vectors.
const (
	batch   = 3
	steps   = 7
	samples = batch * steps
)

// Tolerance is how far results may lie apart: of 1, or of the largest value of
// a layer's results if that is more. float32 arithmetic alone stays well below.
const Tolerance = 1e-4

// Parity is how far this library's results lie from others' on random input.
type Parity struct {
	Layers []LayerParity `json:"layers"`
	// Max is the largest difference to the float64 reference.
	Max float64 `json:"max_difference"`
	// PyTorch is the version that was compared with too, and MaxPyTorch the
	// largest difference to it; "" and nil where it was not.
	PyTorch    string   `json:"pytorch,omitempty"`
	MaxPyTorch *float64 `json:"max_difference_pytorch,omitempty"`

	samples []*sample
}

// LayerParity is the comparison of one layer: outputs and final states.
type LayerParity struct {
	Name    string   `json:"name"`
	Kind    Kind     `json:"kind"`
	Values  int      `json:"values"` // compared
	Max     float64  `json:"max_difference"`
	PyTorch *float64 `json:"max_difference_pytorch,omitempty"`
	scale   float64  // the largest magnitude of the reference's values, at least 1
}

// Ok reports whether everything lies within Tolerance.
func (p *Parity) Ok() bool {
	for _, l := range p.Layers {
		if !(l.Max <= Tolerance*l.scale) || l.PyTorch != nil && !(*l.PyTorch <= Tolerance*l.scale) {
			return false
		}
	}
	return true
}

// Worst is the largest of all differences.
func (p *Parity) Worst() float64 {
	if p.MaxPyTorch != nil {
		return larger(p.Max, *p.MaxPyTorch)
	}
	return p.Max
}

// sample is a layer's input, and this library's results on it.
type sample struct {
	x      []float32 // [B,T,in], or of a layer without steps [B*T,in]
	ids    []int32   // of an embedding, [B,T]
	h0, c0 []float32 // [L*D,B,...] of a recurrent layer
	y      []float32
	hn, cn []float32
}

func (s *sample) vector(i, n int) []float64 { return widen(s.x[i*n : (i+1)*n]) }

// Check runs every layer on random input and compares it with a float64
// implementation of PyTorch's equations on the weights of f. Recurrent layers
// start from a random state; sequences have 7 steps.
func (n *Network) Check(f *model.File, seed uint64) (*Parity, error) {
	if err := finite(n.Slab, f.Path); err != nil {
		return nil, err
	}
	p := &Parity{}
	r := rand.New(rand.NewPCG(seed, 0x746f726368))
	for i := range n.Arch.Layers {
		l := &n.Arch.Layers[i]
		s := newSample(l, r)
		if err := tensor.Catch(func() { n.run(i, s) }); err != nil {
			return nil, fmt.Errorf("layer %s: %w", quote(l.Name), err)
		}
		y, hn, cn := (&reference{f, l}).forward(s)
		if l.Kind != LSTM {
			cn = nil
		}
		lp := LayerParity{Name: l.Name, Kind: l.Kind, scale: 1}
		for _, pair := range []struct {
			got  []float32
			want []float64
		}{{s.y, y}, {s.hn, hn}, {s.cn, cn}} {
			lp.compare(pair.got, pair.want)
		}
		p.Layers, p.samples = append(p.Layers, lp), append(p.samples, s)
		p.Max = larger(p.Max, lp.Max)
	}
	return p, nil
}

// finite refuses weights that no result can be computed of.
func finite(slab *tensor.Slab, path string) error {
	for _, p := range slab.Params {
		for i, v := range p.Read() {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return &model.FileError{File: path, Tensor: p.Name, Problem: fmt.Sprintf("element %d is %v", i, v)}
			}
		}
	}
	return nil
}

// compare takes results into the layer's difference; a NaN anywhere is a NaN difference.
func (l *LayerParity) compare(got []float32, want []float64) {
	l.Values += len(want)
	for i, w := range want {
		l.Max = larger(l.Max, math.Abs(float64(got[i])-w))
		l.scale = math.Max(l.scale, math.Abs(w))
	}
}

// larger is the maximum, and NaN once there was one.
func larger(a, b float64) float64 {
	if b > a || math.IsNaN(b) {
		return b
	}
	return a
}

func newSample(l *Layer, r *rand.Rand) *sample {
	s := &sample{}
	if l.Kind == Embedding {
		s.ids = make([]int32, samples)
		for i := range s.ids {
			s.ids[i] = int32(r.IntN(min(l.Input, math.MaxInt32)))
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
	s.x = normal(samples*l.Input, 1)
	if l.Kind.Recurrent() {
		slots := l.Layers * l.Directions() * batch
		s.h0, s.c0 = normal(slots*l.state(), 0.5), normal(slots*l.Hidden, 0.5)
	}
	return s
}

// run computes layer i's results.
func (n *Network) run(i int, s *sample) {
	l := &n.Arch.Layers[i]
	tape := tensor.NewTape(n.Slab.Device(), tensor.Infer)
	switch m := n.modules[i].(type) {
	case *nn.Linear:
		s.y = m.Forward(tape.Input(s.x, samples, l.Input)).Data()
	case *nn.LayerNorm:
		s.y = m.Forward(tape.Input(s.x, samples, l.Input)).Data()
	case *nn.Embedding:
		s.y = m.Forward(tape.IDs(s.ids, nil, batch, steps)).Data()
	case *nn.RNN:
		slots := l.Layers * l.Directions()
		init := &nn.State{H: tape.Input(s.h0, slots, batch, l.state())}
		if l.Kind == LSTM {
			init.C = tape.Input(s.c0, slots, batch, l.Hidden)
		}
		y, final := m.Forward(tape.Input(s.x, batch, steps, l.Input), init)
		s.y, s.hn = y.Data(), final.H.Data()
		if final.C != nil {
			s.cn = final.C.Data()
		}
	}
}
