package transcribe

import (
	"context"
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// Trace is the features and the network's output for one utterance, for plots.
type Trace struct {
	Features   [][]float64 // [frame][feature], before deltas and normalisation
	Posteriors [][]float64 // [step][class] probabilities; class 0 is the blank
	Step       float64     // distance between steps in seconds
	Hop        float64     // distance between frames in seconds
	Units      []UnitTime  // tokens of the decoded text
}

// UnitTime is a token with the time at which it is emitted.
type UnitTime struct {
	Unit    string
	Class   int // the column of Posteriors
	Seconds float64
}

// Trace transcribes a file and returns features and probabilities. Options that
// the model does not support and a file that cannot be used are a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Trace(ctx context.Context, path string, o *PredictOptions) (_ *Trace, err error) {
	defer tensor.Recover(&err)
	d, err := m.decodingTo(ctx, o)
	if err != nil {
		return nil, err
	}
	frames, err := m.frontend.Frames(path)
	if err != nil {
		return nil, err
	}
	rows, err := m.posteriors(ctx, frames)
	if err != nil {
		return nil, err
	}
	s := newSearch(m.alphabet, d)
	t := &Trace{Step: m.cfg.StepSeconds(), Hop: m.cfg.Hop / 1000}
	if err := pushAll(ctx, s, rows); err != nil {
		return nil, err
	}
	best := s.best(1, true)[0]
	for i, c := range best.classes {
		t.Units = append(t.Units, UnitTime{m.alphabet.unit(c), int(c), float64(best.steps[i]) * t.Step})
	}
	for _, row := range rows {
		p := make([]float64, len(row))
		for c, v := range row {
			p[c] = math.Exp(v)
		}
		t.Posteriors = append(t.Posteriors, p)
	}
	for i := 0; i < len(frames); i += m.frontend.Width {
		f := make([]float64, m.frontend.Width)
		for k, v := range frames[i : i+m.frontend.Width] {
			f[k] = float64(v)
		}
		t.Features = append(t.Features, f)
	}
	return t, nil
}
