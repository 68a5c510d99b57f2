package cli

import (
	"cmp"
	"context"
	"io"
	"iter"

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
values for the horizon too: give their rows with the target left empty. A model
trained with --no-target-history computes all rows after the last target, or all
that have its window before them if the target is empty or has no column; of any
other, intervals adapt to the errors in rows later than the training's table.

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
	return func(ctx context.Context, _ *model.Dir, m *task.Trained) error {
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

// writePrediction writes a prediction while it is computed: to the file out, as a table
// for people, or as JSON.
func (a *app) writePrediction(ctx context.Context, m *task.Trained, in task.Input, o any, out string) error {
	ctx, stop := a.catchInterrupt(ctx) // so that no temporary file and no half of an object is left
	defer stop()
	if in.Stream != nil {
		in.Stream = &interruptible{ctx, in.Stream}
	}
	show := func(p task.Prediction) error {
		switch {
		case isTerminal(a.stdout):
			return a.humanly(p.Print)
		case out != "":
			return nil
		}
		return p.Write(a.stdout)
	}
	return a.emitParts(ctx, "predict."+m.Kind.Name, out, m.Parts(ctx, in, o), show)
}

// emitParts writes the parts of a result of the schema of that name: into the file out,
// which is replaced as a whole, unless it is "", and on stdout, as JSON or with show.
func (a *app) emitParts(ctx context.Context, schema, out string, parts iter.Seq2[task.Prediction, error], show func(task.Prediction) error) error {
	var failed, fault error // why the result is incomplete; why there is none, other than the file
	each := func(file io.Writer) error {
		for p, err := range parts {
			if p == nil {
				fault = cmp.Or(ctx.Err(), err)
				return fault
			}
			failed = err
			if one, ok := p.(interface{ Remarks() []string }); ok {
				a.remarks(one.Remarks())
			}
			if file != nil {
				if err := p.Write(file); err != nil {
					return err
				}
			}
			if a.json {
				fault = a.printPart(schema, p)
			} else {
				fault = show(p)
			}
			if fault != nil {
				return fault
			}
		}
		return nil
	}
	if out == "" {
		if err := each(nil); err != nil {
			return err
		}
	} else {
		if err := model.WriteFileAtomic(out, each); err != nil {
			return cmp.Or(fault, err)
		}
		a.note("The result is in %s.", out)
	}
	if a.json && failed == nil {
		return a.endParts(nil)
	}
	return failed // which ends the object, too
}

// emitLines writes a result whose parts are made of the lines of in, as emitParts does:
// of returns the part of a line, whose number counts from 1. none is the result without a line.
func (a *app) emitLines(c *cobra.Command, schema, out string, in task.Input, encoding string, none task.Prediction, of func(line int, text string) (task.Prediction, error)) error {
	ctx, stop := a.catchInterrupt(c.Context()) // so that no half of an object is left
	defer stop()
	parts := func(yield func(task.Prediction, error) bool) {
		if !yield(none, nil) {
			return
		}
		number := 0
		for text, err := range in.EachLine(encoding, a.remark) {
			var part task.Prediction
			if number++; err == nil {
				part, err = of(number, text)
			}
			if err = cmp.Or(ctx.Err(), err); err != nil {
				yield(nil, err)
				return
			}
			if !yield(part, nil) {
				return
			}
		}
	}
	return a.emitParts(ctx, schema, out, parts, func(p task.Prediction) error {
		if out != "" {
			return nil
		}
		return a.humanly(p.Print)
	})
}

// interruptible is a reader that a context ends, also while it waits.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	buf, done := make([]byte, len(p)), make(chan result, 1)
	go func() {
		n, err := i.r.Read(buf) // which may never return
		done <- result{n, err}
	}()
	select {
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	case r := <-done:
		return copy(p, buf[:r.n]), r.err
	}
}

// dataFlag is the flag of the file that a model is applied to.
func dataFlag(flags *pflag.FlagSet) *string {
	return flags.String("data", "", "`file` like that the model was trained on")
}

// outFlag is the flag of the file that a result goes into.
func outFlag(flags *pflag.FlagSet) *string {
	return flags.String("out", "", "write the result to this `file`")
}
