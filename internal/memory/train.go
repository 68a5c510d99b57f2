package memory

import (
	"context"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// The numbers of sequences of a check during training and of the test at its end,
// and how many are computed together. A check is stricter than the test, so that
// a network that passes it also passes the test.
const (
	checkSequences = 2000
	testSequences  = 1000
	scoredAtOnce   = 100
	checkMargin    = 1 // nats
)

// Train trains a network until it has solved its problem, or for Config.Steps
// steps, and scores it on other sequences. If ctx is cancelled the result is
// marked Interrupted, Dir contains a checkpoint to resume from but no model, and
// the model returned has the weights reached. The errors are those of
// [Config.Validate], [train.Fit] and [Model.Save].
func Train(ctx context.Context, cfg Config, o *train.Run) (*Model, *train.Result, error) {
	if o == nil {
		o = &train.Run{}
	}
	m, err := New(cfg, o.Device)
	if err != nil {
		return nil, nil, err
	}
	result, err := m.fit(ctx, o)
	if err != nil || result.Interrupted {
		return m, result, err
	}
	if err := m.finish(ctx, result); err != nil {
		return m, result, err
	}
	if o.Writes() {
		err = m.Save(o.Dir)
	}
	return m, result, err
}

// fit runs the training loop. An epoch is the steps between two checks.
func (m *Model) fit(ctx context.Context, o *train.Run) (*train.Result, error) {
	c := &m.cfg
	perEpoch := min(c.Check, c.Steps)
	job := &train.Job[batch]{
		Slab: m.slab, Optimizer: optim.NewAdam(m.slab, nil), Samples: perEpoch * c.Batch,
		NewBatch: m.newBatch,
		Load:     func(b *batch, samples []int) { b.load(training, samples[0], len(samples)) },
		Batches:  func(epoch int) [][]int { return m.numbers(epoch*perEpoch, perEpoch) },
		Loss:     m.loss,
		Validate: func(ctx context.Context, tape *tensor.Tape) (map[string]float64, error) {
			s, err := m.score(ctx, tape, checking, checkSequences, checkMargin)
			return map[string]float64{"error": s.Error, "right": s.Right}, err
		},
		Metric: "error",
	}
	options := &train.Options{
		Steps: c.Steps, Schedule: optim.Constant(c.LR), Clip: float32(c.Clip), Seed: c.Seed,
		Run: *o, Fingerprint: train.NewFingerprint(c),
	}
	options.AfterEpoch(func(r train.Record) error {
		if m.problem.enough(Score{r.Val["error"], r.Val["right"]}, c.length()) {
			return train.ErrStop
		}
		return nil
	})
	return train.Fit(ctx, job, options)
}

// numbers returns the numbers of the sequences of each batch, from batch first
// on.
func (m *Model) numbers(first, batches int) [][]int {
	list := make([][]int, batches)
	all := make([]int, batches*m.cfg.Batch)
	for i := range all {
		all[i] = first*m.cfg.Batch + i
	}
	for i := range list {
		list[i] = all[i*m.cfg.Batch : (i+1)*m.cfg.Batch]
	}
	return list
}

// finish scores the best weights on the sequences of the test.
func (m *Model) finish(ctx context.Context, r *train.Result) error {
	s, err := m.score(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), tested, testSequences, 0)
	if err != nil {
		return err
	}
	o := &m.outcome
	o.Steps, o.Test, o.Seconds = r.Steps, s, r.Elapsed.Seconds()
	o.Solved = m.problem.solved(s, m.cfg.length())
	return nil
}

// score returns the score on sequences of a use.
func (m *Model) score(ctx context.Context, tape *tensor.Tape, use uint64, sequences int, margin float64) (Score, error) {
	var sum score
	b := m.newBatch()
	b.margin = margin
	for first := 0; first < sequences; first += scoredAtOnce {
		if err := ctx.Err(); err != nil {
			return Score{}, err
		}
		tape.Reset()
		b.load(use, first, min(scoredAtOnce, sequences-first))
		out := m.forward(tape, b).Data()
		width := len(out) / b.n
		for row := range b.n {
			sum.add(m.problem.score(out[row*width:(row+1)*width], b, row, b.length))
		}
	}
	return sum.mean(), nil
}
