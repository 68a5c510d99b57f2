package task

import (
	"context"
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Fit is the outline of a task's Train: it checks the data and the settings, calls
// fit, which makes and trains the model, fills the model's [Memory] with the data, and
// saves the model if the run writes: after an interrupted training with the best
// weights so far. An error ends the run on all its ranks. op names the function in
// errors: "tag: Train".
//
// Invalid settings are a *data.InputError, nil data a *tensor.UseError, a shape that
// does not fit a *tensor.ShapeError; other errors are those of fit and of saving.
func Fit[D any, M Model](op string, d *D, cfg Config, run *train.Run, fit func(*train.Run) (M, *train.Result, error)) (m M, r *train.Result, err error) {
	if run != nil && run.World != nil {
		defer func() {
			if err != nil {
				run.World.Abort(err)
			}
		}()
	}
	defer tensor.Recover(&err)
	NeedData(d, op)
	own := train.Run{}
	if run != nil {
		own = *run
	}
	run = &own
	if run.About == "" {
		run.About = about(d)
	}
	if err := cfg.Validate(); err != nil {
		return m, nil, err
	}
	m, r, err = fit(run)
	if err != nil || !r.Trained() {
		return m, r, err
	}
	if one, ok := any(m).(interface{ remember(any) }); ok {
		one.remember(d)
	}
	if run.Writes() {
		err = m.Save(run.Dir)
	}
	return m, r, err
}

// about describes data in one line: their own, and the sizes of their parts.
func about(d any) string {
	var known []string
	if one, ok := d.(fmt.Stringer); ok && one.String() != "" {
		known = append(known, one.String())
	}
	if one, ok := d.(interface{ sizes() string }); ok {
		known = append(known, one.sizes())
	}
	return strings.Join(known, ": ")
}

// Finishing returns the context for what a task does with a trained network
// before the model is saved, such as choices on the validation part: ctx with the
// run's ranks, which share that work, and, after an interrupted training, without its
// cancellation, so that the weights reached become a model.
func Finishing(ctx context.Context, run *train.Run, r *train.Result) context.Context {
	if r.Interrupted {
		ctx = context.WithoutCancel(ctx)
	}
	return train.WithWorld(ctx, run.World)
}
