package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task/forecast"
)

func (a *app) backtestCommand() *cobra.Command {
	var files forecast.Files
	var o forecast.BacktestOptions
	var given *options
	c := &cobra.Command{
		Use:   "backtest DIR --data FILE",
		Short: "Score a model as it would have been used, from origin to origin",
		Long: `Forecasts from one origin after the other through the test rows, --stride rows
apart, and scores the forecasts with those of the simple methods. With --refit
the model is trained anew on all rows before each origin.`,
		Example: `  carousel backtest run --data load.csv --stride 24
  carousel backtest run --data load.csv --stride 720 --refit`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := given.resolve(); err != nil {
				return err
			}
			m, err := a.openForecast(c, args[0])
			if err != nil {
				return err
			}
			d, err := readSeries(c.Context(), m, &files, &o.Reading)
			if err != nil {
				return err
			}
			e, err := m.Backtest(c.Context(), d, &o)
			if err != nil {
				return err
			}
			a.remarks(d.Notes())
			return a.emit("backtest", e, func(w io.Writer) { printSummary(w, e.Summary()) })
		},
	}
	given = dataFlags(c.Flags(), nil, &files, &o)
	a.computes.bind(c.Flags())
	return c
}

// openForecast opens a forecasting model for a command that is for no other.
func (a *app) openForecast(c *cobra.Command, path string) (*forecast.Model, error) {
	dir, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	if err := checkModelKept(c, dir); err != nil {
		return nil, err
	}
	on, err := a.device()
	if err != nil {
		return nil, err
	}
	return forecast.OpenDir(dir, on)
}

// readSeries reads a table of the columns of a model.
func readSeries(ctx context.Context, m *forecast.Model, files *forecast.Files, reading *forecast.Reading) (*forecast.Data, error) {
	if files.Data == "" {
		return nil, misusef("--data is needed: %s", forecast.Task.Scores)
	}
	cfg := m.Config()
	if err := reading.ForReading(&cfg); err != nil {
		return nil, err
	}
	return forecast.Read(ctx, files, cfg)
}
