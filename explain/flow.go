// Package explain looks into recurrent networks: how much of an error comes back
// through time, what the gates do, how long the memory is, and what to change.
//
// [Measure] follows the gradient of one batch through any model whose recurrent
// layers run on a tape. [Adding] does so for plain RNNs, LSTMs and a GRU on the
// adding problem, before and after training: the classical picture of gradients
// that vanish and explode, and of the LSTM's constant error carousel.
package explain

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Subject is a network to be looked into.
type Subject struct {
	Name string
	Slab *tensor.Slab
	// Loss is the loss of a batch, one element, on a tape in Train mode. It should
	// ask for an answer at the end of the sequences alone: where each step has a
	// loss of its own, the gradient at a step is mostly that of its neighbours.
	Loss func(tape *tensor.Tape) *tensor.Tensor

	Clip    float64   // bound on the norm of the gradient in training; 0: none
	Clipped []float64 // share of the steps that met it, by epoch; nil: not known
}

// Flow is what a gradient met on its way back through a network.
type Flow struct {
	Name     string   `json:"name"`
	Loss     float64  `json:"loss"`
	GradNorm float64  `json:"grad_norm"` // of all parameters together, before clipping
	Clip     float64  `json:"clip,omitempty"`
	Clipped  *float64 `json:"clipped,omitempty"` // share of the training steps that were clipped
	Layers   []*Layer `json:"layers"`            // directions count by themselves
	Advice   []string `json:"advice"`
}

// Layer is one direction of one recurrent layer.
type Layer struct {
	Name  string `json:"name"` // such as "encoder, layer 1, reverse"
	Cell  string `json:"cell"`
	Units int    `json:"units"`
	Steps int    `json:"steps"` // of the longest row

	// The norm of the gradient of the loss in the states of all rows, k steps before
	// each row's last: of h, through everything that reads it, and of c, through the
	// steps that follow (nil for cells without c).
	DH []float64 `json:"dh"`
	DC []float64 `json:"dc,omitempty"`

	// Left is the gradient in h and c together at the first step over that at the
	// last: above 1 if it has grown. Rate is the factor a step, the geometric mean.
	// Reach is the steps back until less than a thousandth of the largest is left, or
	// Steps. All are 0 where no gradient came.
	Left  float64 `json:"left"`
	Reach int     `json:"reach"`
	Rate  float64 `json:"rate"`

	Gates  []Gate  `json:"gates"`
	Memory *Memory `json:"memory,omitempty"` // nil for cells without a gate that keeps

	CellClip    float64 `json:"cell_clip,omitempty"`    // limit of c; 0: none
	CellClipped float64 `json:"cell_clipped,omitempty"` // share of c at it
}

// Gate is the values of one gate over all units, steps and rows.
type Gate struct {
	Name string  `json:"name"` // "i", "f", "g", "o"; "r", "z", "n"; an RNN's "h"
	Mean float64 `json:"mean"`
	// Low and High are the shares of values that are saturated: below 0.1 and above
	// 0.9 of a logistic gate, below -0.9 and above 0.9 of a tanh.
	Low       float64   `json:"low"`
	High      float64   `json:"high"`
	Histogram []float64 `json:"histogram"` // shares in equal bins over the gate's range
	Signed    bool      `json:"signed"`    // the range is -1 to 1, else 0 to 1
}

// Memory is how long units keep what they hold: 1/(1-f) steps, where f is the
// unit's mean of the gate that keeps (an LSTM's f, a GRU's z).
type Memory struct {
	Mean   float64   `json:"mean"` // over the units
	Median float64   `json:"median"`
	Most   float64   `json:"most"`
	Units  []float64 `json:"units"` // ascending
}

// Measure makes one training pass and backpropagates it. Nothing is trained; the
// gradients of the slab are cleared. A loss without recurrent layers is an error.
func Measure(s *Subject) (f *Flow, err error) {
	tape := tensor.NewTape(s.Slab.Device(), tensor.Train)
	tape.Trace()
	f = &Flow{Name: s.Name, Clip: s.Clip}
	if n := len(s.Clipped); n > 0 {
		mean := 0.0
		for _, share := range s.Clipped {
			mean += share / float64(n)
		}
		f.Clipped = &mean
	}
	if shape := tensor.Catch(func() { err = f.pass(s, tape) }); shape != nil {
		return nil, shape
	}
	if err != nil {
		return nil, err
	}
	f.Advice = advise(f)
	return f, nil
}

// pass runs forward and back.
func (f *Flow) pass(s *Subject, tape *tensor.Tape) error {
	s.Slab.ZeroGrad()
	defer s.Slab.ZeroGrad()
	loss := s.Loss(tape)
	f.Loss = float64(loss.Item())
	traces := tape.Traces()
	if len(traces) == 0 {
		return fmt.Errorf("explain: %s has no recurrent layer", s.Name)
	}
	for _, r := range traces {
		f.Layers = append(f.Layers, lookAt(r))
	}
	loss.Backward()
	f.GradNorm = gradNorm(s.Slab)
	if sum := f.Loss + f.GradNorm; math.IsNaN(sum) || math.IsInf(sum, 0) {
		return fmt.Errorf("explain: %s has the loss %v and a gradient of norm %v on this batch: its weights or the data are broken", s.Name, f.Loss, f.GradNorm)
	}
	for i, r := range traces {
		f.Layers[i].follow(r)
	}
	return nil
}

// gradNorm measures the gradient as clipping does.
func gradNorm(slab *tensor.Slab) float64 {
	o := optim.NewSGD(slab, nil)
	o.ClipNorm(float32(math.Inf(1)))
	return float64(o.GradNorm())
}

// layerName turns a parameter's name into words: "encoder.weight_ih_l0_reverse"
// into "encoder, layer 1, reverse".
func layerName(param string) string {
	module, weight := "", param
	if i := strings.LastIndexByte(param, '.'); i >= 0 {
		module, weight = param[:i], param[i+1:]
	}
	weight, reverse := strings.CutSuffix(weight, "_reverse")
	var words []string
	if module != "" {
		words = append(words, module)
	}
	var layer int
	if _, err := fmt.Sscanf(weight, "weight_ih_l%d", &layer); err == nil {
		words = append(words, fmt.Sprintf("layer %d", layer+1))
	}
	if reverse {
		words = append(words, "reverse")
	}
	return strings.Join(words, ", ")
}

// follow adds what came back through the layer.
func (l *Layer) follow(r *tensor.Trace) {
	dh, dc := r.Grads()
	l.DH = norms(r, dh)
	l.DC = norms(r, dc)
	l.summarize(l.State())
}

// State is the norm of the gradient in h and c together, as DH and DC.
func (l *Layer) State() []float64 {
	both := slices.Clone(l.DH)
	for k, c := range l.DC {
		both[k] = math.Hypot(both[k], c)
	}
	return both
}

// norms is the norm of a trace [T,B,width] over rows and units, by steps before
// each row's last in the layer's direction.
func norms(r *tensor.Trace, d []float32) []float64 {
	if d == nil {
		return nil
	}
	width := len(d) / max(1, r.T*r.B)
	sums := make([]float64, r.T)
	for b := range r.B {
		n := r.Length(b)
		for t := range n {
			k := n - 1 - t
			if r.Reverse {
				k = t
			}
			for _, v := range d[(t*r.B+b)*width:][:width] {
				sums[k] += float64(v) * float64(v)
			}
		}
	}
	for k, v := range sums {
		sums[k] = math.Sqrt(v)
	}
	return sums
}

// smallest is what float32 still tells apart from nothing with some digits.
const smallest = 1e-37

// summarize finds what is left, how far it reaches and the rate.
func (l *Layer) summarize(g []float64) {
	first, end := 0, len(g)-1
	for first < end && g[first] <= smallest {
		first++
	}
	if len(g) == 0 || g[first] <= smallest {
		return // no gradient came here
	}
	l.Left = g[end] / g[first]
	for end > first && g[end] <= smallest {
		end--
	}
	l.Rate = math.Pow(g[end]/g[first], 1/float64(max(end-first, 1)))
	l.Reach = len(g)
	most := slices.Max(g)
	for k := slices.Index(g, most); k < len(g); k++ {
		if g[k] < 1e-3*most {
			l.Reach = k
			break
		}
	}
}
