package cli

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
)

func (a *app) detectAnomaliesCommand() *cobra.Command {
	var files forecast.Files
	var calibration, part, out, page string
	o := forecast.DefaultAnomalies()
	var given *options
	c := &cobra.Command{
		Use:   "detect-anomalies DIR --data FILE",
		Short: "Find values that a forecasting model does not expect",
		Long: `Finds the values of a time series that differ from a forecasting model's forecasts
by more than ordinary ones do. What is expected of a value is the median of its
forecasts from the --origins rows before it. The errors on the rows that were for
validation, which --data or else --calibration must have, say what is ordinary: of
ordinary values a share of --rate is flagged. Flagged values one after the other are
an event.

--out writes every value with its score, as CSV; --page a page with pictures.`,
		Example: `  carousel detect-anomalies run --data load.csv
  carousel detect-anomalies run --data load.csv --rate 0.001 --page anomalies.html
  carousel detect-anomalies run --data new.csv --calibration load.csv --json`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := given.resolve(); err != nil {
				return err
			}
			which, err := task.ParsePart(part, task.Test)
			if err != nil {
				return misusef("--split-part: %v", err)
			}
			m, err := a.openForecast(c, args[0])
			if err != nil {
				return err
			}
			d, err := readSeries(c.Context(), m, &files, &o.Reading)
			if err != nil {
				return err
			}
			var ordinary *forecast.Data
			if calibration != "" {
				if ordinary, err = readSeries(c.Context(), m, &forecast.Files{Data: calibration}, &o.Reading); err != nil {
					return err
				}
			}
			found, err := m.DetectAnomalies(c.Context(), d, ordinary, which, &o)
			if err != nil {
				return err
			}
			a.remarks(d.Notes())
			s := found.Summary()
			if out != "" {
				if err := model.WriteFileAtomic(out, found.Write); err != nil {
					return err
				}
				a.note("The scores are in %s.", out)
			}
			if page != "" {
				p := &report.Page{Title: "Anomalies of " + strings.Join(m.Config().Target, ", "), Subtitle: d.String(), Version: carousel.Version()}
				addResult(p, s, nil, append(s.Notes, found.Selection()))
				if err := p.WriteFile(page); err != nil {
					return err
				}
				a.note("The page is %s.", page)
			}
			return a.emit("detect-anomalies", found, func(w io.Writer) { printSummary(w, s) })
		},
	}
	given = dataFlags(c.Flags(), nil, &files, &o)
	a.computes.bind(c.Flags())
	f := c.Flags()
	f.StringVar(&calibration, "calibration", "", "table whose validation rows say what is ordinary, such as the `file` of the training (default: --data)")
	f.StringVar(&part, "split-part", "", "`part` of the data to look at: test (all rows that are new to the model), validation, train or all (empty: test)")
	f.StringVar(&out, "out", "", "write the scores of all values to this `file`, as CSV")
	f.StringVar(&page, "page", "", "write a page with pictures to this `file`, as HTML")
	return c
}
