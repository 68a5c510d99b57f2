// Package explain measures recurrent networks: how much of a gradient passes back
// through time, what the gates do, how long the memory is, and what could be
// changed.
//
// [Measure] follows the gradient of one batch through any model whose recurrent
// layers run on a tape. [Adding] does so for plain RNNs, LSTMs and a GRU on the
// adding problem, before and after training: the standard example of vanishing
// and exploding gradients and of the LSTM's constant error carousel.
package explain

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Subject is a network to be measured.
type Subject struct {
	Name string
	Slab *tensor.Slab
	// Loss computes the loss of a batch, one element, on a tape in Train mode. It
	// should be a loss at the end of the sequences only: if each step has a loss,
	// the gradient at a step is mostly that of the neighbouring steps.
	Loss func(tape *tensor.Tape) *tensor.Tensor

	Clip    float64   // largest norm of the gradient in training; 0: none
	Clipped []float64 // share of clipped steps by epoch; nil: unknown
}

// Flow is the measurements of a gradient in a network.
type Flow struct {
	Name     string   `json:"name"`              // the directory of a model; the kind of a network on the adding problem
	Loss     float64  `json:"loss"`              // of the measured batch
	GradNorm float64  `json:"grad_norm"`         // of all parameters together, before clipping
	Clip     float64  `json:"clip,omitempty"`    // largest norm of the gradient in training; absent if there is none
	Clipped  *float64 `json:"clipped,omitempty"` // share of the training steps that were clipped
	Layers   []*Layer `json:"layers"`            // each direction separately
	Grown    bool     `json:"grown,omitempty"`   // whether gradients too small for float32 were measured by scaling them
	Advice   []string `json:"advice"`            // what could be changed, a sentence each
}

// Layer is one direction of one recurrent layer.
type Layer struct {
	Name  string `json:"name"` // such as "encoder, layer 1, reverse"
	Cell  string `json:"cell"` // kind of cell
	kind  cell.Kind
	Units int `json:"units"` // number of units
	Steps int `json:"steps"` // of the longest row

	DH []float64 `json:"dh"`           // norm of the gradient of the loss in the states h of all rows, through everything that reads them; element k is k steps before each row's last
	DC []float64 `json:"dc,omitempty"` // likewise in c, through later steps; absent for cells without c

	// Their decimal logarithms, also of values too small for float64; -Inf for 0.
	DHLog10 []float64 `json:"-"`
	DCLog10 []float64 `json:"-"`

	// Told is the number of steps, from the last back, whose gradient could be
	// measured. It is less than Steps if the gradient is too small for float32 and
	// scaling it does not help, as with a loss at several steps. Gradients that are
	// not measured are 0 in DH and DC; so may be the much smaller one of the two.
	Told  int     `json:"told"` // number of steps, from the last back, whose gradient could be measured; further back it is 0
	below float64 // decimal logarithm of a bound on the gradient further back

	// All are 0 if there is no gradient.
	Left      float64  `json:"left"`                 // gradient in h and c together at the first step, divided by that at the last; 0 if it is too small for float64
	LeftLog10 *float64 `json:"left_log10,omitempty"` // its decimal logarithm; absent if no gradient is left
	LeftBelow bool     `json:"left_below,omitempty"` // whether left is only an upper bound
	Reach     int      `json:"reach"`                // number of steps back until less than a thousandth of the largest gradient is left, or steps
	Rate      float64  `json:"rate"`                 // geometric mean of the factor per step; 0 if there is no gradient

	Gates  []Gate  `json:"gates"`            // values of the gates; absent for some cells
	Memory *Memory `json:"memory,omitempty"` // absent for cells without such a gate

	CellClip    float64 `json:"cell_clip,omitempty"`    // limit of c; 0: none
	CellClipped float64 `json:"cell_clipped,omitempty"` // share of c at the limit
}

// Gate is the values of one gate over all units, steps and rows.
type Gate struct {
	Name string  `json:"name"` // "i", "f", "g", "o"; "r", "z", "n"; an RNN's "h"
	Mean float64 `json:"mean"` // over all values
	// Shares of saturated values.
	Low       float64   `json:"low"`       // share below 0.1, or below -0.9 for a tanh
	High      float64   `json:"high"`      // share above 0.9
	Histogram []float64 `json:"histogram"` // shares in equal bins over the gate's range
	Signed    bool      `json:"signed"`    // the range is -1 to 1, else 0 to 1
}

// Memory is how long units keep their state: 1/(1-f) steps, where f is the unit's
// mean of the gate that keeps it (an LSTM's f, a GRU's z).
type Memory struct {
	Mean   float64   `json:"mean"`   // over the units
	Median float64   `json:"median"` // of the units
	Most   float64   `json:"most"`   // longest of the units
	Units  []float64 `json:"units"`  // ascending
}

// Measure runs a training pass and backpropagates it, several times if gradients
// are too small for float32: Loss must give the same result each time. Nothing is
// trained; the gradients of the slab are cleared. A loss without recurrent layers
// and a loss or gradient that is not finite are errors; shapes that do not fit
// are a *tensor.ShapeError.
func Measure(s *Subject) (f *Flow, err error) {
	f = &Flow{Name: s.Name, Clip: s.Clip}
	if n := len(s.Clipped); n > 0 {
		mean := 0.0
		for _, share := range s.Clipped {
			mean += share / float64(n)
		}
		f.Clipped = &mean
	}
	if shape := tensor.Catch(func() { err = f.measure(s) }); shape != nil {
		return nil, shape
	}
	if err != nil {
		return nil, err
	}
	f.Advice = advise(f)
	return f, nil
}

func (f *Flow) measure(s *Subject) error {
	s.Slab.ZeroGrad()
	defer s.Slab.ZeroGrad()
	tape := tensor.NewTape(s.Slab.Device(), tensor.Train)
	tape.Trace()
	forward := func() (*tensor.Tensor, []*tensor.Trace) {
		tape.Reset()
		tape.Seed(0, 0) // the same masks each time
		loss := s.Loss(tape)
		return loss, tape.Traces()
	}
	loss, traces := forward()
	f.Loss = float64(loss.Item())
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
	for i, p := range follow(traces, forward) {
		f.Grown = f.Layers[i].gather(p) || f.Grown
	}
	return nil
}

// gradNorm returns the norm of the gradient as it is used for clipping.
func gradNorm(slab *tensor.Slab) float64 {
	o := optim.NewSGD(slab, nil)
	o.ClipNorm(float32(math.Inf(1)))
	return float64(o.GradNorm())
}

// layerName converts a parameter's name to words: "encoder.weight_ih_l0_reverse"
// to "encoder, layer 1, reverse".
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

// State returns the norm of the gradient in h and c together, in the order of DH
// and DC.
func (l *Layer) State() []float64 {
	both := slices.Clone(l.DH)
	for k, c := range l.DC {
		both[k] = math.Hypot(both[k], c)
	}
	return both
}

// smallest is the least norm of a gradient in float32 with full precision.
// Numbers below 2^-126, 1.2e-38, are zero in the engine, and the elements of a
// gradient are smaller than its norm.
const smallest = 1e-32

const grownNote = "Gradients below 1e-32 were measured by scaling them; in training, numbers below 1.2e-38 are zero."

// Notes returns how small gradients were measured, and which could not be
// measured.
func (f *Flow) Notes() []string {
	var notes []string
	if f.Grown {
		notes = append(notes, grownNote)
	}
	for _, l := range f.Layers {
		if l.Told < l.Steps {
			notes = append(notes, fmt.Sprintf("%s: the gradient could be measured for the last %d of %d steps; further back it is below %s.", l.title(), l.Told, l.Steps, power(l.below, short)))
		}
	}
	return notes
}

// LeftText formats Left with a function for numbers: with "< " if it is a bound,
// and with a separate exponent if it is too small for float64.
func (l *Layer) LeftText(format func(float64) string) string {
	if l.Reach == 0 && l.Told < l.Steps {
		return "not measured"
	}
	text := format(l.Left)
	if l.LeftLog10 != nil {
		text = power(*l.LeftLog10, format)
	}
	if l.LeftBelow {
		text = "< " + text
	}
	return text
}

// power formats the number whose decimal logarithm is log10.
func power(log10 float64, format func(float64) string) string {
	if log10 > -300 {
		return format(math.Pow(10, log10))
	}
	e := math.Floor(log10)
	return format(math.Pow(10, log10-e)) + fmt.Sprintf("e%.0f", e)
}
