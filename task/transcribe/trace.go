package transcribe

import (
	"context"
	"math"
)

// Trace is what the network makes of one utterance, for people to look at.
type Trace struct {
	Features   [][]float64 // by frame, as they were computed
	Posteriors [][]float64 // by step: the probability of each class, the blank first
	Step       float64     // seconds from step to step
	Hop        float64     // seconds from frame to frame
	Units      []UnitTime  // of the text decoded
}

// UnitTime is a unit with the time at which it is said.
type UnitTime struct {
	Unit    string
	Class   int // the column of Posteriors
	Seconds float64
}

// Trace transcribes a file and keeps features and probabilities.
func (m *Model) Trace(ctx context.Context, path string, o *PredictOptions) (*Trace, error) {
	d, err := m.decodingTo(o)
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
