// Package find measures short trainings to find settings for a long one: a learning
// rate, by a range test ([FindRate]), and a batch size, by speed, memory and the noise
// of the gradient ([FindBatch], [MeasureNoise]).
//
// It knows no task: a [Fit] trains a new model from its first step, with the hooks of
// the run that it is given. The training ends by a hook's error, so that nothing of
// what a task does with a trained network follows, and nothing is written.
package find

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/train"
)

// Fit trains a new model from its first step. It must pass run to [train.Fit], and
// return what ended that: an error of a hook, or that of ctx if it was cancelled.
type Fit func(ctx context.Context, run *train.Run) error

// errDone ends a training that was measured.
var errDone = errors.New("find: measured")

// training is one that is measured: it validates nothing, and goes on until a hook ends it.
func training(p *train.Progress, adjust func(o *train.Options), onStep func(train.Step) error) *train.Run {
	run := &train.Run{Progress: p}
	run.OnStep = onStep
	run.Adjust = func(o *train.Options) {
		o.Epochs, o.Steps, o.MaxTime, o.TimedSchedule = 0, math.MaxInt32, 0, 0
		o.Patience, o.ValidateEvery = 0, math.MaxInt32
		adjust(o)
	}
	return run
}

// ended returns why a training ended, if not because it was measured.
func ended(err error) error {
	switch {
	case errors.Is(err, errDone):
		return nil
	case err == nil:
		return fmt.Errorf("the training ended by itself, before it was measured")
	}
	return err
}
