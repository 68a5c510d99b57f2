package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/train"
)

// forecastTask is forecasting as the commands see it.
var forecastTask = taskVerbs{
	name:     forecast.Task,
	train:    (*app).trainForecastCommand,
	evaluate: (*app).evaluateForecast,
	predict:  (*app).predictForecast,
	inspect:  (*inspection).addForecast,
	probe:    probeForecast,
}

func probeForecast(dir *model.Dir, data string, rows int) (*explain.Subject, error) {
	m, panel, err := openForecast(dir, data)
	if err != nil {
		return nil, err
	}
	loss, err := m.Probe(panel, rows)
	if err != nil {
		return nil, err
	}
	return &explain.Subject{Slab: m.Slab(), Loss: loss, Clip: m.Config().Clip}, nil
}

// forecastRun is one training of a forecasting model.
type forecastRun struct {
	trainRun
	files forecastFiles
	cfg   forecast.Config
}

type forecastFiles struct {
	Data string `json:"data" value:"file" group:"Files" help:"table to learn from: CSV, TSV, .tsf or Parquet; may be gzipped"`
}

func (a *app) trainForecastCommand() *cobra.Command {
	run := &forecastRun{cfg: forecast.Defaults()}
	return a.trainTaskCommand(&trainTask{
		use:   "forecast --data FILE --target COLUMN --out DIR",
		short: "Train a forecasting model on a table of time series",
		long: `Trains a forecasting model, scores it and the simple methods on the rows kept
for the test, and writes model, checkpoints and report into --out.`,
		example: `  carousel train forecast --data sales.csv --time date --target units --out run
  carousel train forecast --data load.csv.gz --time time --target mw --future temp --holiday holiday \
      --horizon 24 --loss quantile --out run
  carousel train forecast --data shops.parquet --time day --id shop --target sales --static region --out run
  carousel train forecast --config recipe.yaml --set hidden=128 --out run`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check:    run.check,
		train:    func(ctx context.Context) (*trainResult, error) { return a.trainForecast(ctx, run) },
	})
}

// check finds misuse before anything is read or written.
func (r *forecastRun) check() error {
	if r.files.Data == "" {
		return misusef("train forecast needs --data, the table to learn from")
	}
	if name := strings.TrimSuffix(strings.ToLower(r.files.Data), ".gz"); r.cfg.Layout == data.LayoutLong && strings.HasSuffix(name, ".tsf") {
		r.cfg.Layout = data.LayoutTSF
	}
	return r.cfg.Validate()
}

// trainForecast reads, trains, evaluates and reports.
func (a *app) trainForecast(ctx context.Context, run *forecastRun) (*trainResult, error) {
	panel, err := readPanel(run.files.Data, &run.cfg)
	if err != nil {
		return nil, err
	}
	m, result, err := forecast.Train(ctx, panel, run.cfg, a.where(&run.trainRun))
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	return a.finishForecast(ctx, run, panel, m, result)
}

// finishForecast scores a trained model on the test part, if there is one, and
// writes the report.
func (a *app) finishForecast(ctx context.Context, run *forecastRun, panel *data.Panel, m *forecast.Model, r *train.Result) (*trainResult, error) {
	out := newTrainResult(forecast.Task, &run.trainRun, m.Slab(), r)
	if cfg := m.Config(); len(cfg.Future) > 0 {
		out.Notes = append(out.Notes, strings.Join(cfg.Future, ", ")+": taken as known ahead, in training and in the scores")
	}
	e, err := m.Evaluate(ctx, panel, "test")
	if err != nil {
		var none *data.InputError
		if !errors.As(err, &none) {
			return nil, err
		}
		out.Notes = append(out.Notes, m.Notes()...)
		out.Notes = append(out.Notes, "not scored: "+err.Error()) // such as a split without a test part
	}
	if e != nil {
		out.Evaluation, out.show = e, func(w io.Writer) { printEvaluation(w, e) }
	}
	page := forecastReport(run, panel, m, r, out, e)
	return out, page.Write(run.Out)
}

// readPanel reads a table with the columns that cfg names.
func readPanel(path string, cfg *forecast.Config) (*data.Panel, error) {
	o, err := cfg.ReadOptions()
	if err != nil {
		return nil, err
	}
	return data.ReadPanel(path, o)
}

// dataFlag is the flag of the file that a model is applied to.
func dataFlag(flags *pflag.FlagSet) *string {
	return flags.String("data", "", "`file` like that the model was trained on")
}

func (a *app) evaluateForecast(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	part := flags.String("split-part", "test", "`part` of the rows: train, validation, test or all")
	return func(ctx context.Context, dir *model.Dir) error {
		m, panel, err := openForecast(dir, *path)
		if err != nil {
			return err
		}
		e, err := m.Evaluate(ctx, panel, *part)
		if err != nil {
			return err
		}
		return a.emit("evaluate.forecast", e, func(w io.Writer) { printEvaluation(w, e) })
	}
}

func (a *app) predictForecast(flags *pflag.FlagSet) verbRun {
	var o forecast.PredictOptions
	path, out := dataFlag(flags), outFlag(flags)
	options := optionFlags(flags, nil, &o)
	return func(ctx context.Context, dir *model.Dir) error {
		if err := options.resolve(); err != nil {
			return err
		}
		m, panel, err := openForecast(dir, *path)
		if err != nil {
			return err
		}
		f, err := m.Predict(ctx, panel, &o)
		if err != nil {
			return err
		}
		return a.emitPrediction("predict.forecast", *out, f.WriteCSV, f, func(w io.Writer) { printForecast(w, f) })
	}
}

func (a *app) backtestCommand() *cobra.Command {
	var path string
	var o forecast.BacktestOptions
	var flags *options
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
			if err := flags.resolve(); err != nil {
				return err
			}
			dir, err := model.Open(args[0])
			if err != nil {
				return err
			}
			m, panel, err := openForecast(dir, path)
			if err != nil {
				return err
			}
			e, err := m.Backtest(c.Context(), panel, &o)
			if err != nil {
				return err
			}
			return a.emit("backtest", e, func(w io.Writer) { printEvaluation(w, e) })
		},
	}
	c.Flags().StringVar(&path, "data", "", "`file` with the columns the model was trained on")
	flags = optionFlags(c.Flags(), nil, &o)
	return c
}

// openForecast makes the model of a directory and reads the table that goes with it.
func openForecast(dir *model.Dir, path string) (*forecast.Model, *data.Panel, error) {
	m, err := forecast.OpenDir(dir)
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
