package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/forecast"
	"github.com/carousel-ml/carousel/model"
)

func (a *app) predictCommand() *cobra.Command {
	var path, out string
	var o forecast.PredictOptions
	c := &cobra.Command{
		Use:   "predict DIR --data FILE",
		Short: "Forecast what follows the last row of a table",
		Long: `Forecasts the horizon after the last known row of each series. Columns known
ahead need values for the horizon too: give their rows with the target left empty.

The result is CSV with time, series, column, forecast and quantiles: into --out,
or on stdout, where a terminal shows it as a table.`,
		Example: `  carousel predict run --data latest.csv
  carousel predict run --data latest.csv --quantiles 0.05,0.5,0.95 --out forecast.csv`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, panel, err := openForecast(args[0], path)
			if err != nil {
				return err
			}
			f, err := m.Predict(panel, &o)
			if err != nil {
				return err
			}
			if out != "" {
				if err := model.WriteFileAtomic(out, f.WriteCSV); err != nil {
					return err
				}
				a.note("The forecast is in %s.", out)
				if !a.json {
					return nil
				}
			}
			if isTerminal(a.stdout) || a.json {
				return a.emit(f, func(w io.Writer) { printForecast(w, f) })
			}
			return f.WriteCSV(a.stdout)
		},
	}
	c.Flags().StringVar(&path, "data", "", "`file` with the columns the model was trained on")
	c.Flags().StringVar(&out, "out", "", "write CSV to this `file`")
	c.Flags().Float64SliceVar(&o.Quantiles, "quantiles", nil, "`levels` of the quantiles to add, such as 0.1,0.9")
	return c
}

// openForecast opens a model directory and reads the table that goes with it.
func openForecast(dir, path string) (*forecast.Model, *data.Panel, error) {
	m, err := forecast.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	if path == "" {
		return nil, nil, misusef("--data is needed: a table with the columns the model was trained on")
	}
	cfg := m.Config()
	panel, err := readPanel(path, &cfg)
	return m, panel, err
}
