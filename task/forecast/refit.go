package forecast

import (
	"context"

	"gonum.org/v1/gonum/mat"
)

// stage is what a model has learnt from. Only the linear path differs between them,
// and how wide the intervals are at the end of the rows: the network's weights are
// those that were best on the rows of validation.
type stage int

const (
	stageInUse   stage = iota // all rows of the table, for forecasts
	stageScored               // training and validation, for scores
	stageTrained              // training alone, for errors on the rows of validation
	stages
)

// stageNames begin the names of the linear path's weights in a model directory.
var stageNames = [stages]string{"target", "scored", "trained"}

// The values of Config.Refit.
const (
	refitAll        = "all"
	refitValidation = "validation"
	refitNone       = "none"
)

// refit fits the linear path to more rows, as Config.Refit says, and finds how wide
// the intervals are at their end. The model is that of training alone before.
func (m *Model) refit(ctx context.Context, d *dataset) error {
	if m.cfg.Refit == refitNone {
		return nil
	}
	known := d.known(m.cfg.WindowStride)
	withValidation, err := m.ridge.refitted(ctx, d, known)
	if err != nil {
		return err
	}
	lines := [stages]*ridge{withValidation, withValidation, m.ridge}
	if m.cfg.Refit == refitAll {
		everything := d.divided(func(f *frame) parts { return parts{trainPart: {f.part[trainPart].lo, f.end}} })
		if lines[stageInUse], err = m.ridge.refitted(ctx, everything, everything.windows(trainPart, m.cfg.WindowStride)); err != nil {
			return err
		}
	}
	m.move(lines[stageInUse])
	if err := m.attach(lines, m.spread); err != nil {
		return err
	}
	if m.cfg.Refit == refitAll {
		// As an evaluation has it, with smoothing that is fitted to the rows of validation too.
		d := d.divided(func(f *frame) parts { return f.part })
		m.spread, err = m.at(stageScored).adaptive(ctx, d, d.windows(testPart, 1), m.cfg.Quantiles, m.spread, func(window, int, *steps) {})
	}
	return err
}

// move moves the linear path to other regressions; what the network's path has learnt
// beside them remains.
func (m *Model) move(line *ridge) {
	if m.net.Skip != nil {
		m.net.Skip.move(m.ridge, line)
	}
	m.ridge = line
}

// attach makes the models of the other stages, with the spread at the end of
// the rows of validation.
func (m *Model) attach(lines [stages]*ridge, begin spreads) error {
	for s := stageScored; s < stages; s++ {
		other, err := newModel(m.cfg, m.schema, m.slab.Device())
		if err != nil {
			return err
		}
		for i, p := range other.slab.Params {
			p.Write(m.slab.Params[i].Read())
		}
		other.gain, other.mixture, other.residuals, other.shifts, other.errors = m.gain, m.mixture, m.residuals, m.shifts, m.errors
		other.notes, other.learnt, other.ridge = m.notes, m.learnt, m.ridge
		other.stage = s
		other.spread = begin
		other.move(lines[s])
		m.others[s] = other
	}
	return nil
}

// at returns the model at a stage.
func (m *Model) at(s stage) *Model {
	if other := m.others[s]; other != nil {
		return other
	}
	return m
}

// lines returns the linear path at each stage; nil where it is that of the model in
// use.
func (m *Model) lines() (lines [stages]*ridge) {
	lines[stageInUse] = m.ridge
	for s, other := range m.others {
		if other != nil {
			lines[s] = other.ridge
		}
	}
	return lines
}

// refitNote is the remark on the scores of a model whose linear path has since learnt
// the rows of the test.
const refitNote = "the scores are of the model fitted to training and validation rows; for forecasts its linear path is fitted to all rows, those of the test too (refit says which)"

// line returns a regression of the model with weights.
func (m *Model) line(weights []*mat.Dense, choices [][]choice) *ridge {
	d := &m.net.dims
	return &ridge{linear: d.linear, groups: d.groups, horizon: d.horizon, weights: weights, choices: choices}
}
