package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
)

func (a *app) evaluateCommand() *cobra.Command {
	return a.verbCommand(&cobra.Command{
		Use:   "evaluate DIR --data FILE",
		Short: "Score a model on data of the kind it was trained on",
		Long: `Scores a trained model of any task.

A forecasting model is scored on one part of a table, divided as it was for
training, beside the simple methods on the same windows: the naive forecast (the
last value), the seasonal naive one (the same hour of the day or week before),
drift, and a ridge regression.

A language model is scored on the whole of a text, its state carried from the
beginning to the end: nats and perplexity a token, bits a character.`,
		Example: `  carousel evaluate run --data load.csv
  carousel evaluate run --data load.csv --split-part validation --json
  carousel evaluate lm --data book.txt --json`,
	}, a.evaluate)
}

// evaluate scores models of a task.
func (a *app) evaluate(k *task.Kind, flags *pflag.FlagSet) verbRun {
	files, o := k.Files(), k.Evaluating()
	given := dataFlags(flags, files, o)
	part := flags.String("split-part", "", fmt.Sprintf("`part` of the data: train, validation, test or all, divided as for training (empty: %s)", scoredPart(k)))
	return func(ctx context.Context, m *task.Trained) error {
		if err := given.takeOver(m, o); err != nil {
			return err
		}
		if !slices.ContainsFunc(settings.List(files), func(s *settings.Setting) bool { return !s.IsZero() }) {
			return misusef("--data is needed: %s", k.Scores)
		}
		if err := checkFiles(files); err != nil {
			return misusef("evaluate %v", err)
		}
		which, err := task.ParsePart(*part, scoredPart(k))
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
		for _, n := range d.Notes() {
			a.note("Note: %s", n)
		}
		return a.emit("evaluate."+k.Name, e, func(w io.Writer) { printSummary(w, e.Summary()) })
	}
}

// scoredPart is the part that evaluate scores without --split-part.
func scoredPart(k *task.Kind) task.Part { return cmp.Or(k.Part, task.All) }
