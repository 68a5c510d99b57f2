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
	Name     string   `json:"name"`              // of the model, its directory; of a network on the adding problem its kind
	Loss     float64  `json:"loss"`              // of the batch looked at
	GradNorm float64  `json:"grad_norm"`         // of all parameters together, before clipping
	Clip     float64  `json:"clip,omitempty"`    // bound on the norm of the gradient in training; absent without one
	Clipped  *float64 `json:"clipped,omitempty"` // share of the training steps that were clipped
	Layers   []*Layer `json:"layers"`            // directions count by themselves
	Grown    bool     `json:"grown,omitempty"`   // some of it is below what float32 holds, and was followed by growing it on the way
	Advice   []string `json:"advice"`            // what could be changed, a sentence each
}

// Layer is one direction of one recurrent layer.
type Layer struct {
	Name  string `json:"name"`  // such as "encoder, layer 1, reverse"
	Cell  string `json:"cell"`  // kind of cell
	Units int    `json:"units"` // number of units
	Steps int    `json:"steps"` // of the longest row

	DH []float64 `json:"dh"`           // norm of the gradient of the loss in the states h of all rows, through everything that reads them; at place k that of k steps before each row's last
	DC []float64 `json:"dc,omitempty"` // likewise of c, through the steps that follow; absent for cells without c

	// Their decimal logarithms, for what is below the reach of float64; -Inf for 0.
	DHLog10 []float64 `json:"-"`
	DCLog10 []float64 `json:"-"`

	// Told is how many steps, from the last back, have a gradient that could be told:
	// Steps, but where it falls below what float32 holds and growing it on the way
	// does not help, as where the loss enters at several steps. What is not told
	// counts as 0 in DH and DC, and so may be that of the two which is nothing beside
	// the other.
	Told  int     `json:"told"` // steps, from the last back, whose gradient could be told; further back it counts as 0
	below float64 // decimal logarithm of a bound of what lies further back

	// All are 0 where no gradient came.
	Left      float64  `json:"left"`                 // the gradient in h and c together at the first step over that at the last: above 1 if it has grown; 0 too below the reach of float64
	LeftLog10 *float64 `json:"left_log10,omitempty"` // its decimal logarithm; absent where there is none left
	LeftBelow bool     `json:"left_below,omitempty"` // Left is a bound, and what is left is below it
	Reach     int      `json:"reach"`                // steps back until less than a thousandth of the largest gradient is left, or Steps
	Rate      float64  `json:"rate"`                 // factor a step, the geometric mean; 0 where no gradient came

	Gates  []Gate  `json:"gates"`            // how open the gates were; none where the cell shows none
	Memory *Memory `json:"memory,omitempty"` // absent for cells without a gate that keeps

	CellClip    float64 `json:"cell_clip,omitempty"`    // limit of c; 0: none
	CellClipped float64 `json:"cell_clipped,omitempty"` // share of c at it
}

// Gate is the values of one gate over all units, steps and rows.
type Gate struct {
	Name string  `json:"name"` // "i", "f", "g", "o"; "r", "z", "n"; an RNN's "h"
	Mean float64 `json:"mean"` // over all values
	// The shares of values that are saturated.
	Low       float64   `json:"low"`       // share below 0.1 of a logistic gate, below -0.9 of a tanh
	High      float64   `json:"high"`      // share above 0.9
	Histogram []float64 `json:"histogram"` // shares in equal bins over the gate's range
	Signed    bool      `json:"signed"`    // the range is -1 to 1, else 0 to 1
}

// Memory is how long units keep what they hold: 1/(1-f) steps, where f is the
// unit's mean of the gate that keeps (an LSTM's f, a GRU's z).
type Memory struct {
	Mean   float64   `json:"mean"`   // over the units
	Median float64   `json:"median"` // of the units
	Most   float64   `json:"most"`   // the longest of the units
	Units  []float64 `json:"units"`  // ascending
}

// Measure makes a training pass and backpropagates it, and does so again where
// gradients fall below what float32 holds: Loss must give the same each time.
// Nothing is trained; the gradients of the slab are cleared. A loss without
// recurrent layers is an error.
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

// State is the norm of the gradient in h and c together, as DH and DC.
func (l *Layer) State() []float64 {
	both := slices.Clone(l.DH)
	for k, c := range l.DC {
		both[k] = math.Hypot(both[k], c)
	}
	return both
}

// smallest is down to where the norm of a gradient still has its digits. What is below
// 2^-126, 1.2e-38, is nothing to the engine, and parts of a gradient are that much smaller.
const smallest = 1e-32

const grownNote = "Below 1e-32 gradients were followed by growing them on the way; the engine itself takes what is below 1.2e-38 for nothing."

// Notes say how gradients were told that float32 does not hold, and which were not.
func (f *Flow) Notes() []string {
	var notes []string
	if f.Grown {
		notes = append(notes, grownNote)
	}
	for _, l := range f.Layers {
		if l.Told < l.Steps {
			notes = append(notes, fmt.Sprintf("%s: the gradient was told for the last %d of %d steps; further back it falls below %s.", l.title(), l.Told, l.Steps, power(l.below, short)))
		}
	}
	return notes
}

// LeftText writes Left by a format for numbers: after a sign if it is a bound, and
// with an exponent of its own where float64 has none.
func (l *Layer) LeftText(format func(float64) string) string {
	if l.Reach == 0 && l.Told < l.Steps {
		return "not told"
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

// power writes the number whose decimal logarithm is log10.
func power(log10 float64, format func(float64) string) string {
	if log10 > -300 {
		return format(math.Pow(10, log10))
	}
	e := math.Floor(log10)
	return format(math.Pow(10, log10-e)) + fmt.Sprintf("e%.0f", e)
}
