package cli

import (
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/model"
)

func (a *app) predictCommand() *cobra.Command {
	return a.verbCommand(&cobra.Command{
		Use:   "predict DIR --data FILE",
		Short: "Apply a model to new data",
		Long: `Applies a trained model of any task; the result goes into --out, or to stdout,
where a terminal shows it as a table.

A forecasting model forecasts the horizon after the last known row of each
series, as CSV with time, series, column, forecast and quantiles. Columns known
ahead need values for the horizon too: give their rows with the target left empty.

A language model goes on from each line of the file.`,
		Example: `  carousel predict run --data latest.csv
  carousel predict run --data latest.csv --quantiles 0.05,0.5,0.95 --out forecast.csv`,
	}, func(t *taskVerbs) verb { return t.predict })
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
// as JSON. failed, if not nil, is why it is not the whole.
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
