package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
)

func (a *app) evaluateCommand() *cobra.Command {
	return a.verbCommand(&cobra.Command{
		Use:   "evaluate DIR --data FILE",
		Short: "Score a model on data of the kind it was trained on",
		Long: `Scores a trained model of any task, on the rows of the data that it was not made
from. A model remembers which rows its weights were learnt from and chosen by, and
recognises them by their content, or in a table of time series by their times, in a
file of any name, format and order.

A forecasting model is scored beside the simple methods on the same windows: the
naive forecast (the last value), the seasonal naive one (the same hour of the day
or week before), drift, theta and ETS (exponential smoothing), and ridge
regression. Unless it was trained with another --refit, the scores are of the model
fitted to training and validation rows; the one that forecasts has later rows too.

A language model's state is carried from the beginning of a text to its end, or
through each piece of it that is scored: nats and perplexity a token, bits a
character.`,
		Example: `  carousel evaluate run --data load.csv
  carousel evaluate run --data load.csv --split-part validation --json
  carousel evaluate lm --data book.txt --json`,
	}, a.evaluate)
}

// evaluate scores models of a task.
func (a *app) evaluate(k *task.Kind, flags *pflag.FlagSet) verbRun {
	files, o := k.Files(), k.Evaluating()
	given := dataFlags(flags, nil, files, o)
	part := flags.String("split-part", "", "`part` of the data: train, validation (those of the model's training), test (all other rows) or all (empty: test, or validation if there is nothing else)")
	return func(ctx context.Context, _ *model.Dir, m *task.Trained) error {
		if err := given.takeOver(m, o); err != nil {
			return err
		}
		if !slices.ContainsFunc(settings.List(files), func(s *settings.Setting) bool { return !s.IsZero() }) {
			return misusef("--data is needed: %s", k.Scores)
		}
		if err := checkFiles(files); err != nil {
			return misusef("evaluate %v", err)
		}
		which, err := task.ParsePart(*part, "")
		if err != nil {
			return misusef("--split-part: %v", err)
		}
		d, err := m.Read(ctx, files, which, o)
		if err != nil {
			return err
		}
		e, err := m.Evaluate(ctx, d, which, o)
		if err != nil {
			return err
		}
		a.remarks(d.Notes())
		return a.emit("evaluate."+k.Name, e, func(w io.Writer) {
			printSummary(w, e.Summary())
			if m.Remembers() {
				for _, n := range selectionOf(e) {
					fmt.Fprintf(w, "Note: %s\n", n)
				}
			}
		})
	}
}
