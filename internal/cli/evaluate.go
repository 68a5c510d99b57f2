package cli

import "github.com/spf13/cobra"

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
	}, func(t *taskVerbs) verb { return t.evaluate })
}
