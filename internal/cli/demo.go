package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/internal/cli/demodata"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
)

// Files of the demo, below its directory.
const (
	demoTable    = "vic_elec.csv"
	demoLatest   = "vic_elec_latest.csv"
	demoForecast = "forecast.csv"
	demoRun      = "run"
)

// demoConfig is the recipe of the demo: made to end within two minutes on two
// cores, most of them spent training.
func demoConfig() forecast.Config {
	cfg := forecast.Defaults()
	cfg.Time, cfg.Target, cfg.TZ = demodata.Time, []string{demodata.Demand}, demodata.Zone
	cfg.Future, cfg.Holiday = forecast.Future{demodata.Temperature}, demodata.Holiday
	cfg.MaxTime = 75 * time.Second
	return cfg
}

func (a *app) demoCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Learn a state's electricity demand, from the embedded data to the forecast",
		Long: `Trains on three years of hourly electricity demand of Victoria, Australia, with
temperature and holidays, in under two minutes; scores the model beside the simple
methods; shows the pattern of weekdays and weekends that it learnt; and writes data,
model, report and a forecast into --out. It needs no network and no other file.

The day's temperature is given to the model as known ahead, as a good weather
forecast would be; the linear method gets the same.`,
		Example: "  carousel demo\n  carousel demo --out /tmp/demo --quiet --json",
		GroupID: groupWork,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg := demoConfig()
			if c.Flags().Changed("seed") {
				cfg.Seed = a.seed
			}
			ctx, stop := a.catchInterrupt(c.Context())
			defer stop()
			return a.demo(ctx, out, cfg)
		},
	}
	c.Flags().StringVar(&out, "out", "carousel-demo", "`directory` for data, model and report; an earlier demo there is replaced")
	return c
}

func (a *app) demo(ctx context.Context, out string, cfg forecast.Config) error {
	if err := checkDemoOut(out); err != nil {
		return err
	}
	a.note("Data: hourly electricity demand (%s).", demodata.Source)
	a.note("The day's temperature is taken as known ahead, as from a good weather forecast.")
	run := &trainRun{Out: filepath.Join(out, demoRun), again: "to start over: carousel demo"}
	if err := writeDemoData(out); err != nil {
		return err
	}
	result, err := a.train(ctx, forecast.Task, &forecast.Files{Data: filepath.Join(out, demoTable)}, &cfg, run)
	if err != nil {
		return err
	}
	m, err := forecast.Open(run.Out)
	if err != nil {
		return err
	}
	next, err := m.Predict(ctx, task.Input{File: filepath.Join(out, demoLatest)}, nil)
	if err != nil {
		return err
	}
	if err := model.WriteFileAtomic(filepath.Join(out, demoForecast), next.Write); err != nil {
		return err
	}
	return a.emit("demo", result, func(w io.Writer) {
		result.print(w)
		if e, ok := result.Evaluation.(*forecast.Evaluation); ok {
			printPattern(w, e)
		}
		printNextCommands(w, out)
	})
}

// checkDemoOut lets the demo write into a new or empty directory, or over an
// earlier demo.
func checkDemoOut(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return misusef("--out %s: want a directory: %v", dir, plainFileError(err))
	case len(entries) > 0 && !exists(dir, demoTable):
		return misusef("--out %s is not empty; give a directory that is new or empty", dir)
	}
	return nil
}

// latestRows are the hours that the small table of the demo keeps: enough to
// look back on, and then one day whose demand is empty.
const (
	latestRows = 24 * 28
	openRows   = 24
)

// writeDemoData writes the whole table, and one like those that a forecast begins
// with: the latest weeks, then a day of which only the temperature and the
// holidays are known.
func writeDemoData(dir string) error {
	var table bytes.Buffer
	if err := demodata.WriteCSV(&table); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("%s: cannot be created: %w", dir, plainFileError(err))
	}
	text := table.String()
	err := model.WriteFileAtomic(filepath.Join(dir, demoTable), func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	latest := append([]string{lines[0]}, lines[len(lines)-latestRows:]...)
	for i := len(latest) - openRows; i < len(latest); i++ {
		fields := strings.Split(latest[i], ",")
		fields[1] = ""
		latest[i] = strings.Join(fields, ",")
	}
	return model.WriteFileAtomic(filepath.Join(dir, demoLatest), func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Join(latest, "")+"\n")
		return err
	})
}

// printPattern draws the mean working day and the mean day of a weekend, as
// measured and as forecast.
func printPattern(w io.Writer, e *forecast.Evaluation) {
	fmt.Fprintf(w, "\nThe pattern learnt: the mean of each hour over the test part, measured and forecast\n\n")
	var curves []curve
	for i, name := range []string{"Weekdays", "Weekends"} {
		actual, forecast := e.Day(i == 1)
		curves = append(curves, curve{name + ", measured", actual}, curve{name + ", forecast", forecast})
	}
	printCurves(w, curves)
	fmt.Fprintln(w, hourRuler(len("  Weekdays, measured ")))
}

// printNextCommands prints commands to try after the demo.
func printNextCommands(w io.Writer, out string) {
	table, latest, run := shellQuote(filepath.Join(out, demoTable)), shellQuote(filepath.Join(out, demoLatest)), shellQuote(filepath.Join(out, demoRun))
	fmt.Fprintf(w, `
Next:
  open %s in a browser
  carousel inspect %s
  carousel predict %s --data %s
  carousel backtest %s --data %s
  carousel train forecast --data %s --time time --tz %s \
      --target demand_mw --future temperature_c --holiday holiday --max-time 10m --out better
  carousel train forecast --help
`, filepath.Join(out, demoRun, "report.html"), run, run, latest, run, table, table, demodata.Zone)
}
