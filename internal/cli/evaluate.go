package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/forecast"
)

func (a *app) evaluateCommand() *cobra.Command {
	var path, part string
	c := &cobra.Command{
		Use:   "evaluate DIR --data FILE",
		Short: "Score a model and the simple methods on a table",
		Long: `Scores a trained model on one part of a table, beside the simple methods on the
same windows: the naive forecast (the last value), the seasonal naive one (the
same hour of the day or week before), drift, and a ridge regression. The table is
divided as it was for training.`,
		Example: `  carousel evaluate run --data load.csv
  carousel evaluate run --data load.csv --split-part validation --json`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, panel, err := openForecast(args[0], path)
			if err != nil {
				return err
			}
			e, err := m.Evaluate(panel, part)
			if err != nil {
				return err
			}
			return a.emit(e, func(w io.Writer) { printEvaluation(w, e) })
		},
	}
	c.Flags().StringVar(&path, "data", "", "`file` with the columns the model was trained on")
	c.Flags().StringVar(&part, "split-part", "test", "`part` of the rows: train, validation, test or all")
	return c
}

func (a *app) backtestCommand() *cobra.Command {
	var path string
	var o forecast.BacktestOptions
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
			m, panel, err := openForecast(args[0], path)
			if err != nil {
				return err
			}
			e, err := m.Backtest(panel, &o)
			if err != nil {
				return err
			}
			return a.emit(e, func(w io.Writer) { printEvaluation(w, e) })
		},
	}
	c.Flags().StringVar(&path, "data", "", "`file` with the columns the model was trained on")
	c.Flags().IntVar(&o.Stride, "stride", 0, "`rows` between origins (default: the horizon)")
	c.Flags().BoolVar(&o.Refit, "refit", false, "train anew before each origin")
	return c
}
