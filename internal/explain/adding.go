package explain

import (
	"context"
	"fmt"
	"math/cmplx"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/memory"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// AddingOptions are the options of [Adding]; nil is not allowed, and zeros are
// the defaults.
type AddingOptions struct {
	Length   int             // steps of a sequence; 0: 100
	Hidden   int             // units; 0: 32
	Steps    int             // training steps at most; 0: 2000
	Seed     uint64          // 0: 1
	Progress *train.Progress // of the trainings; nil: quiet
}

// Study compares networks on the adding problem.
type Study struct {
	Length    int       `json:"length"`    // steps of a sequence
	Hidden    int       `json:"hidden"`    // units of each network
	Seed      uint64    `json:"seed"`      // seed of the initial weights and the sequences
	Untrained []*Flow   `json:"untrained"` // the networks before training
	Trained   []*Flow   `json:"trained"`   // three networks after training
	Outcomes  []Trained `json:"outcomes"`  // results of the trainings, in the order of trained
	Advice    []string  `json:"advice"`    // conclusions, a sentence each
}

// Trained is the result of a training of a [Study].
type Trained struct {
	Name   string  `json:"name"`   // of the network
	Steps  int     `json:"steps"`  // number of training steps
	Error  float64 `json:"error"`  // mean squared error on other sequences; 1/6 without memory
	Solved bool    `json:"solved"` // whether the problem is solved
}

// The networks of a study. Before training: plain RNNs, one with its recurrent
// matrix scaled to a spectral radius, and LSTMs with several forget biases.
var (
	untrained = []network{
		{name: "RNN", cell: "rnn"},
		{name: "RNN, radius 2", cell: "rnn", radius: 2},
		{name: "GRU", cell: "gru"},
		{name: "LSTM, bias 0", cell: "lstm"},
		{name: "LSTM, bias 1", cell: "lstm", bias: 1},
		{name: "LSTM, bias 3", cell: "lstm", bias: 3},
	}
	trained = []network{
		{name: "RNN", cell: "rnn"},
		{name: "GRU", cell: "gru", chrono: true},
		{name: "LSTM", cell: "lstm", chrono: true},
	}
)

type network struct {
	name, cell string
	bias       float64
	radius     float64 // of the recurrent matrix; 0: not scaled
	chrono     bool    // chrono initialisation, with memories up to the length of the sequence
}

// probed is the number of sequences on which a flow is measured.
const probed = 64

// Adding measures networks on the adding problem, untrained and trained. It
// trains a plain RNN, a GRU and an LSTM, which takes most of its time. Invalid
// options are a *data.InputError, and so is a recurrent matrix whose eigenvalues
// are not found; other errors are those of [memory.Train] and [Measure]. A
// cancelled ctx returns its cause.
func Adding(ctx context.Context, o *AddingOptions) (*Study, error) {
	s := &Study{Length: or(o.Length, 100), Hidden: or(o.Hidden, 32), Seed: uint64(or(int(o.Seed), 1))}
	steps := or(o.Steps, 2000)
	for _, n := range untrained {
		m, err := memory.New(s.config(n, steps))
		if err != nil {
			return nil, err
		}
		if n.radius > 0 {
			if err := setRadius(m.Slab().Lookup("rnn.weight_hh_l0"), n.radius); err != nil {
				return nil, err
			}
		}
		f, err := Measure(&Subject{Name: n.name, Slab: m.Slab(), Loss: m.Probe(probed)})
		if err != nil {
			return nil, err
		}
		s.Untrained = append(s.Untrained, f)
	}
	for _, n := range trained {
		if err := s.train(ctx, n, s.config(n, steps), o.Progress); err != nil {
			return nil, err
		}
	}
	s.advise()
	return s, nil
}

func or(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}

func (s *Study) config(n network, steps int) memory.Config {
	c := memory.Defaults()
	c.Length, c.Cell, c.Hidden, c.ForgetBias = s.Length, n.cell, s.Hidden, n.bias
	c.Steps, c.Check, c.LR, c.Seed = steps, 250, 5e-3, s.Seed
	if n.chrono {
		c.Chrono, c.ForgetBias = max(s.Length, 3), memory.Defaults().ForgetBias
	}
	return c
}

// train trains a network and measures it.
func (s *Study) train(ctx context.Context, n network, c memory.Config, progress *train.Progress) error {
	m, r, err := memory.Train(ctx, c, &train.Run{Progress: progress})
	if err != nil {
		return err
	}
	if r.Interrupted {
		return context.Cause(ctx)
	}
	subject := &Subject{Name: n.name, Slab: m.Slab(), Loss: m.Probe(probed), Clip: c.Clip, Clipped: ClippedShares(r.History)}
	f, err := Measure(subject)
	if err != nil {
		return err
	}
	out := m.Outcome()
	s.Trained = append(s.Trained, f)
	s.Outcomes = append(s.Outcomes, Trained{n.name, out.Steps, out.Test.Error, out.Solved})
	return nil
}

// ClippedShares returns the shares of clipped steps in a run's history, by epoch.
func ClippedShares(history []train.Record) []float64 {
	var shares []float64
	for _, r := range history {
		shares = append(shares, r.Clipped)
	}
	return shares
}

// setRadius scales a square matrix to a spectral radius.
func setRadius(p *tensor.Param, radius float64) error {
	w, n := p.Read(), p.Dim(0)
	m := mat.NewDense(n, n, nil)
	for i, v := range w {
		m.Set(i/n, i%n, float64(v))
	}
	var e mat.Eigen
	if !e.Factorize(m, mat.EigenNone) {
		return data.Errorf("the eigenvalues of a recurrent matrix of %d units were not found; try another seed", n)
	}
	largest := 0.0
	for _, v := range e.Values(nil) {
		largest = max(largest, cmplx.Abs(v))
	}
	for i := range w {
		w[i] *= float32(radius / largest)
	}
	p.Write(w)
	return nil
}

// Notes returns the notes of the flows, each once.
func (s *Study) Notes() []string {
	var notes []string
	for _, f := range slices.Concat(s.Untrained, s.Trained) {
		for _, note := range f.Notes() {
			if note != grownNote {
				note = f.Name + ", " + note
			}
			if !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return notes
}

// advise writes the conclusions of the study with its numbers.
func (s *Study) advise() {
	say := func(format string, args ...any) { s.Advice = append(s.Advice, fmt.Sprintf(format, args...)) }
	find := func(flows []*Flow, name string) *Layer {
		for _, f := range flows {
			if f.Name == name {
				return f.Layers[0]
			}
		}
		return &Layer{}
	}
	rnn, wild := find(s.Untrained, "RNN"), find(s.Untrained, "RNN, radius 2")
	say("In a plain RNN the gradient vanishes: by a factor of %s per step on average; less than a thousandth is left %d steps back. It cannot learn from inputs further back.", short(rnn.Rate), rnn.Reach)
	if wild.Left > 10 {
		say("With a recurrent matrix of spectral radius 2 it explodes instead, by %s per step, %s times over %d steps: clip the norm of the gradient.", short(wild.Rate), short(wild.Left), s.Length)
	}
	var memories []string
	for _, name := range []string{"LSTM, bias 0", "LSTM, bias 1", "LSTM, bias 3"} {
		if m := find(s.Untrained, name).Memory; m != nil {
			memories = append(memories, short(m.Mean))
		}
	}
	if len(memories) == 3 {
		say("The cell of an LSTM keeps a share f of its gradient in each step (the constant error carousel). Raising the forget bias from 0 to 1 to 3 changes the mean memory 1/(1-f) from %s to %s to %s steps.", memories[0], memories[1], memories[2])
	}
	for i, o := range s.Outcomes {
		verdict := "has not solved it"
		if o.Solved {
			verdict = "has solved it"
		}
		say("Trained for %d steps, the %s %s (mean squared error %s); the gradient at the first step is %s times that at the last.", o.Steps, o.Name, verdict, short(o.Error), s.Trained[i].Layers[0].LeftText(short))
	}
}
