package forecast

import (
	"context"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/train"
)

// stage is what a model has learnt from. Stages differ in the weights of the linear
// path and of the networks, and in how wide the intervals are at the end of the rows.
type stage int

const (
	stageInUse   stage = iota // all rows of the table, for forecasts
	stageScored               // training and validation, for scores
	stageTrained              // training alone, for errors on the rows of validation
	stages
)

// stageNames begin the names of a stage's weights in a model directory.
var stageNames = [stages]string{"target", "scored", "trained"}

// rows names the rows that a stage has learnt.
func (s stage) rows() string {
	return [stages]string{"all rows", "training and validation rows", "training rows"}[s]
}

// The values of Config.Refit.
const (
	refitAll        = "all"
	refitValidation = "validation"
	refitNone       = "none"
)

// Where Config.RefitSteps asks for it, the networks are trained further with a learning
// rate that falls from refitLR of the one of training. Each batch has refitRecent of its
// windows from the rows that are new.
const (
	refitLR     = 0.3
	refitRecent = 0.5
)

// refit fits the linear path to more rows and trains the networks further on them, as
// Config.Refit and RefitSteps say, and finds how wide the intervals are at their end. The model is
// that of training alone before, and after an error. chosen is the number of steps that
// validation chose; 0: the networks remain as they are.
func (m *Model) refit(ctx context.Context, d *dataset, chosen int, run *train.Run) error {
	if m.cfg.Refit == refitNone {
		return nil
	}
	trained, err := m.copyAt(stageTrained)
	if err != nil {
		return err
	}
	known := d.known(m.cfg.WindowStride)
	scored, err := m.refitted(ctx, d, d, known, stageScored, chosen, run)
	if err != nil {
		return err
	}
	inUse, spread := scored, m.spread
	if m.cfg.Refit == refitAll {
		everything := d.divided(func(f *frame) parts { return parts{trainPart: {f.part[trainPart].lo, f.end}} })
		if list := everything.windows(trainPart, m.cfg.WindowStride); len(list) > len(known) {
			if inUse, err = m.refitted(ctx, d, everything, list, stageInUse, chosen, run); err != nil {
				return err
			}
		}
		// As an evaluation has it, with smoothing that is fitted to the rows of validation too.
		d := d.divided(func(f *frame) parts { return f.part })
		if spread, err = scored.adaptive(ctx, d, d.windows(testPart, 1), m.cfg.Quantiles, m.spread, func(window, int, *steps) {}); err != nil {
			return err
		}
	}
	m.others[stageScored], m.others[stageTrained] = scored, trained
	for i, p := range m.slab.Params {
		p.Write(inUse.slab.Params[i].Read())
	}
	m.ridge, m.spread = inUse.ridge, spread
	return nil
}

// refitted returns the model at another stage, with the linear path fitted to windows
// of a dataset, and the networks trained further on them unless steps is 0. before is
// the dataset of the training.
func (m *Model) refitted(ctx context.Context, before, d *dataset, list []window, s stage, steps int, run *train.Run) (*Model, error) {
	line, err := m.ridge.refitted(ctx, d, list)
	if err != nil {
		return nil, err
	}
	other, err := m.copyAt(s)
	if err != nil {
		return nil, err
	}
	other.move(line)
	fresh := func(w window) bool {
		return int(w.origin)+d.horizon > before.frames[w.frame].part[trainPart].hi
	}
	if steps == 0 || m.cfg.RefitSteps == 0 || m.gain == 0 || !slices.ContainsFunc(list, fresh) {
		return other, nil
	}
	gain := m.gain / m.mixture.least()
	for i, p := range m.trained { // as they were before the gain
		other.net.Members[i].scalePart(p, 1, line)
	}
	if err := other.learn(ctx, d, list, fresh, max(1, int(m.cfg.RefitSteps*float64(steps))), run); err != nil {
		return nil, err
	}
	for i := range m.trained {
		n := other.net.Members[i]
		n.scalePart(n.part(line), gain, line)
	}
	return other, nil
}

// learn trains the networks for a number of steps on windows of a dataset, of which
// each batch draws some of those that are fresh. It writes no checkpoint: a run that is
// resumed does it again.
func (m *Model) learn(ctx context.Context, d *dataset, list []window, fresh func(window) bool, steps int, run *train.Run) error {
	c := &m.cfg
	ranks := 1
	if run.World != nil {
		ranks = run.World.Size()
	}
	batches := drawn(list, fresh, c.Batch, steps*c.Accumulate*ranks, c.Seed)
	short := c.Settings
	short.Epochs, short.LR, short.MinLR, short.Warmup, short.MaxTime, short.Patience = 1, refitLR*c.LR, refitLR*c.MinLR, 0.1, 0, 0
	about := "Refit to " + report.Plural(len(list), "window") + " of " + m.stage.rows()
	options := short.Options(len(batches), &train.Run{World: run.World, Progress: run.Progress, About: about})
	options.Clip = m.clip()
	job := m.job(d, list)
	job.Batches = func(int) [][]int { return batches }
	result, err := train.Fit(ctx, job, options)
	if err == nil && result.Interrupted {
		err = ctx.Err()
	}
	return err
}

// drawn returns n batches of indices of windows: refitRecent of each is drawn from the
// fresh ones, and the rest goes through all windows in a random order.
func drawn(list []window, fresh func(window) bool, size, n int, seed uint64) [][]int {
	var recent, order []int
	for i, w := range list {
		if fresh(w) {
			recent = append(recent, i)
		}
	}
	r := rand.New(rand.NewPCG(seed, seed))
	batches := make([][]int, n)
	for i := range batches {
		for range size {
			if r.Float64() < refitRecent {
				batches[i] = append(batches[i], recent[r.IntN(len(recent))])
				continue
			}
			if len(order) == 0 {
				order = r.Perm(len(list))
			}
			batches[i], order = append(batches[i], order[0]), order[1:]
		}
	}
	return batches
}

// move moves the linear path to other regressions; what the networks' paths have learnt
// beside them remains.
func (m *Model) move(line *ridge) {
	for _, n := range m.net.Members {
		if n.Skip != nil {
			n.Skip.move(m.ridge, line)
		}
	}
	m.ridge = line
}

// copyAt returns a copy of the model as that of a stage.
func (m *Model) copyAt(s stage) (*Model, error) {
	other, err := newModel(m.cfg, m.schema, m.slab.Device())
	if err != nil {
		return nil, err
	}
	for i, p := range other.slab.Params {
		p.Write(m.slab.Params[i].Read())
	}
	other.gain, other.mixture, other.own, other.even = m.gain, m.mixture, m.own, m.even
	other.residuals, other.shifts, other.errors = m.residuals, m.shifts, m.errors
	other.notes, other.learnt, other.ridge, other.spread, other.stage = m.notes, m.learnt, m.ridge, m.spread, s
	return other, nil
}

// at returns the model at a stage.
func (m *Model) at(s stage) *Model {
	if other := m.others[s]; other != nil {
		return other
	}
	return m
}

// refitNote is the remark on the scores of a model that has since learnt the rows of
// the test.
const refitNote = "the scores are of the model fitted to training and validation rows; for forecasts it is fitted to all rows, those of the test too (refit says which)"

// line returns a regression of the model with weights.
func (m *Model) line(weights []*mat.Dense, choices [][]choice) *ridge {
	d := &m.net.dims
	return &ridge{linear: d.linear, groups: d.groups, horizon: d.horizon, weights: weights, choices: choices}
}
