package cli

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
)

func (a *app) predictCommand() *cobra.Command {
	return a.verbCommand(&cobra.Command{
		Use:   "predict DIR --data FILE",
		Short: "Apply a model to new data",
		Long: `Applies a trained model of any task; the result goes into --out, or to stdout,
where a terminal shows it as a table.

A forecasting model forecasts the horizon after the last known row of each
series, as CSV whose first columns are those of the table (times, series, targets,
the times as it writes them), so that its rows can be added to the table; then a
column such as units_q0.1 for each target and quantile. Columns known ahead need
values for the horizon too: give their rows with the target left empty.

A language model continues each line of the file.`,
		Example: `  carousel predict run --data latest.csv
  carousel predict run --data latest.csv --quantiles 0.05,0.5,0.95 --out forecast.csv`,
	}, a.predict)
}

// predict applies models of a task.
func (a *app) predict(k *task.Kind, flags *pflag.FlagSet) verbRun {
	o := k.Predicting()
	path, out := dataFlag(flags), outFlag(flags)
	var texts *[]string
	if k.Texts {
		texts = flags.StringArray("input", nil, "a `text` itself, in place of --data; may be repeated")
	}
	given := optionFlags(flags, nil, o)
	return func(ctx context.Context, m *task.Trained) error {
		if err := given.takeOver(m, o); err != nil {
			return err
		}
		assignSeed(o, a.seed)
		in := task.Input{File: *path}
		if texts != nil {
			in.Texts = *texts
		}
		switch {
		case in.File != "" && in.Texts != nil:
			return misusef("--data and --input are alternatives; give one")
		case in.File == "" && in.Texts == nil:
			return misusef("--data is needed: %s", k.Takes)
		case in.File == data.Stdin && !k.Streams():
			return misusef("--data -: a model for task %q takes no standard input here; give %s", k.Name, k.Takes)
		case in.File == data.Stdin:
			in.File, in.Stream = "", a.stdin
		}
		return a.writePrediction(ctx, m, in, o, *out)
	}
}

// writePrediction writes a prediction: part by part while it is computed, if possible,
// or else to the file out, as a table for people or as JSON.
func (a *app) writePrediction(ctx context.Context, m *task.Trained, in task.Input, o any, out string) error {
	if out != "" && in.Stream == nil { // a read of standard input would not end
		var stop func()
		ctx, stop = a.catchInterrupt(ctx) // so that no temporary file is left
		defer stop()
	}
	if !a.json && m.Kind.CanStream() {
		stream := func(w io.Writer) (done bool, err error) {
			done, notes, err := m.Stream(ctx, in, o, w)
			a.remarks(notes)
			return done, err
		}
		done, err := false, error(nil)
		if out == "" {
			done, err = stream(a.stdout)
		} else {
			done, err = a.writeOut(out, stream)
		}
		if done || err != nil {
			return err
		}
	}
	p, failed := m.Predict(ctx, in, o)
	if p == nil {
		return failed
	}
	if one, ok := p.(interface{ Remarks() []string }); ok {
		a.remarks(one.Remarks())
	}
	return cmp.Or(a.emitPrediction(failed, "predict."+m.Kind.Name, out, p.Write, p, p.Print), failed)
}

// errNothing cancels the writing of a file.
var errNothing = errors.New("nothing to write")

// writeOut writes a file as a whole, unless write does nothing.
func (a *app) writeOut(out string, write func(io.Writer) (bool, error)) (done bool, err error) {
	err = model.WriteFileAtomic(out, func(w io.Writer) error {
		var fault error
		if done, fault = write(w); fault == nil && !done {
			return errNothing
		}
		return fault
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	if err == nil {
		a.note("The result is in %s.", out)
	}
	return done, err
}

// dataFlag is the flag of the file that a model is applied to.
func dataFlag(flags *pflag.FlagSet) *string {
	return flags.String("data", "", "`file` like that the model was trained on")
}

// outFlag is the flag of the file that a result goes into.
func outFlag(flags *pflag.FlagSet) *string {
	return flags.String("out", "", "write the result to this `file`")
}

// emitPrediction writes a prediction: to the file out, as a table for people or
// as JSON. failed, if not nil, is the reason why it is incomplete.
func (a *app) emitPrediction(failed error, schema, out string, write func(io.Writer) error, v any, human func(io.Writer)) error {
	if out != "" {
		if err := model.WriteFileAtomic(out, write); err != nil {
			return err
		}
		a.note("The result is in %s.", out)
		if !a.json {
			return nil
		}
	}
	if isTerminal(a.stdout) || a.json {
		return a.emitBeside(failed, schema, v, human)
	}
	return write(a.stdout)
}
