package forecast

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
)

// giftColumns are the columns of a file of results of GIFT-Eval (Aksu et al.,
// arXiv:2410.10393), whose metrics are GluonTS's over all values at once.
var giftColumns = []string{
	"dataset", "model", "eval_metrics/MSE[mean]", "eval_metrics/MSE[0.5]", "eval_metrics/MAE[0.5]", "eval_metrics/MASE[0.5]",
	"eval_metrics/MAPE[0.5]", "eval_metrics/sMAPE[0.5]", "eval_metrics/MSIS", "eval_metrics/RMSE[mean]", "eval_metrics/NRMSE[mean]",
	"eval_metrics/ND[0.5]", "eval_metrics/mean_weighted_sum_quantile_loss", "domain", "num_variates",
}

// giftAlpha is the share of values that the interval of MSIS leaves out.
const giftAlpha = 0.05

// giftLevels are the levels that the metrics need: those of the quantile loss, and
// outside them the ends of the interval of MSIS.
var giftLevels = []float64{giftAlpha / 2, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1 - giftAlpha/2}

// giftScore sums the metrics of GIFT-Eval value by value.
type giftScore struct {
	squaredMean, squared, absolute, mase, percent, smape, msis, size mean

	loss []float64 // by level of giftLevels without its ends: sums of twice the quantile loss
}

// add adds a value, the mean and the quantiles at giftLevels of its forecast, and
// the error of the seasonal naive forecast in the rows before the window. A missing
// value (NaN) is ignored, and so is, by each metric, a value that it cannot be
// divided for, as GluonTS masks both.
func (s *giftScore) add(y, point float64, quantiles []float64, seasonal float64) {
	if math.IsNaN(y) {
		return
	}
	last := len(quantiles) - 1
	low, middle, high := quantiles[0], quantiles[last/2], quantiles[last]
	e := math.Abs(y - middle)
	s.squaredMean.add(sq(y - point))
	s.squared.add(e * e)
	s.absolute.add(e)
	ratio := func(to *mean, a, b float64) {
		if b != 0 {
			to.add(a / b)
		}
	}
	ratio(&s.mase, e, seasonal)
	ratio(&s.percent, e, math.Abs(y))
	ratio(&s.smape, 2*e, math.Abs(y)+math.Abs(middle))
	ratio(&s.msis, high-low+2/giftAlpha*(math.Max(0, low-y)+math.Max(0, y-high)), seasonal)
	s.size.add(math.Abs(y))
	if s.loss == nil {
		s.loss = make([]float64, last-1)
	}
	for i := range s.loss {
		q, d := giftLevels[i+1], y-quantiles[i+1]
		s.loss[i] += 2 * math.Max(q*d, (q-1)*d)
	}
}

// values returns the metrics in the order of giftColumns.
func (s *giftScore) values() []float64 {
	loss := 0.0
	for _, sum := range s.loss {
		loss += sum / s.size.sum / float64(len(s.loss))
	}
	rmse := math.Sqrt(s.squaredMean.value())
	return []float64{s.squaredMean.value(), s.squared.value(), s.absolute.value(), s.mase.value(), s.percent.value(), s.smape.value(),
		s.msis.value(), rmse, rmse / s.size.value(), s.absolute.sum / s.size.sum, loss}
}

// giftSeason returns the season by which GluonTS scales errors, which is not always
// the first of the frequency: days and weeks have none.
func giftSeason(f data.Freq) int {
	divided := func(season, n int64) int {
		if n <= 0 || season%n != 0 {
			return 1
		}
		return int(season / n)
	}
	switch f.Unit {
	case data.LocalSecond:
		return giftSeason(data.Freq{Unit: data.Nanosecond, N: f.N * int64(time.Second)})
	case data.Nanosecond:
		switch n := time.Duration(f.N); {
		case n%time.Hour == 0:
			return divided(24, int64(n/time.Hour))
		case n%time.Minute == 0:
			return divided(1440, int64(n/time.Minute))
		case n%time.Second == 0:
			return divided(3600, int64(n/time.Second))
		}
	case data.BusinessDay:
		return divided(5, f.N)
	case data.Month, data.MonthEnd:
		return divided(12, f.N)
	}
	return 1
}

// Gift is what the line of a file of GIFT-Eval's results says beside the scores.
type Gift struct {
	File    string `json:"gift_eval" value:"file" group:"Evaluation" help:"add a line with GIFT-Eval's metrics to this CSV file, in the format of its leaderboard, or replace the line of the same dataset; the windows are one horizon apart"`
	Dataset string `json:"gift_dataset" value:"name" group:"Evaluation" help:"name of the dataset in that line, such as m4_hourly/H/short (empty: that of the table)"`
	Model   string `json:"gift_model" value:"name" group:"Evaluation" help:"name of the model in that line (empty: carousel)"`
	Domain  string `json:"gift_domain" value:"name" group:"Evaluation" help:"domain of the dataset in that line, such as Econ/Fin"`
}

// check returns an error if a line is asked for of a model that has no quantiles at
// its levels.
func (g *Gift) check(m *Model) error {
	if g.File == "" {
		return nil
	}
	if _, note := m.levels(giftLevels); note != "" {
		return data.Errorf("gift_eval: %s", note)
	}
	if m.checkLevels(giftLevels) != nil {
		return data.Errorf("gift_eval needs quantiles from %v to %v, and the model was trained for levels from %v to %v; train it with --quantiles 0.025,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.975, or another loss",
			giftLevels[0], giftLevels[len(giftLevels)-1], m.cfg.Quantiles[0], m.cfg.Quantiles[len(m.cfg.Quantiles)-1])
	}
	return nil
}

// write scores windows as GIFT-Eval does and writes the line, if one is asked for.
func (g *Gift) write(ctx context.Context, m *Model, d *dataset, list []window, part int, table string) error {
	if g.File == "" {
		return nil
	}
	var s giftScore
	season := giftSeason(d.Freq)
	_, err := m.adaptive(ctx, d, list, giftLevels, m.begin(part), func(w window, k int, one *steps) {
		raw, origin := d.frames[w.frame].raw[k], int(w.origin)
		by := season
		if by > origin {
			by = 1
		}
		seasonal, _ := seasonalErrors(raw[:origin], by)
		for h := one.from; h < len(one.point) && origin+h < len(raw); h++ {
			s.add(raw[origin+h], one.point[h], one.quantiles[h], seasonal)
		}
	})
	if err != nil {
		return err
	}
	line := []string{cmp.Or(g.Dataset, table), cmp.Or(g.Model, "carousel")}
	for _, v := range s.values() {
		line = append(line, strconv.FormatFloat(v, 'g', -1, 64))
	}
	return mergeGift(g.File, append(line, g.Domain, strconv.Itoa(d.targets)))
}

// mergeGift writes a line into a file of results, in place of one of the same
// dataset and model. Other lines stay as they are. A file with other columns is a
// *data.InputError.
func mergeGift(path string, line []string) error {
	head, own := csvLine(giftColumns), csvLine(line)
	lines := []string{head, own}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		if lines, err = linesOf(path); err != nil {
			return err
		}
		if len(lines) == 0 || lines[0] != head {
			return &data.InputError{File: path, Problem: "is no file of GIFT-Eval's results", Fix: fmt.Sprintf("give another file, or one whose first line is the %d columns", len(giftColumns))}
		}
		same := csvLine(line[:2]) + ","
		if at := slices.IndexFunc(lines, func(old string) bool { return strings.HasPrefix(old, same) }); at >= 0 {
			lines[at] = own
		} else {
			lines = append(lines, own)
		}
	}
	return model.WriteFileAtomic(path, func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
		return err
	})
}

// csvLine returns a line of CSV, without its end.
func csvLine(cells []string) string {
	var b strings.Builder
	c := csv.NewWriter(&b)
	_ = c.Write(cells) // a Builder has no errors
	c.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// linesOf returns the lines of a file that are not empty.
func linesOf(path string) (lines []string, err error) {
	r, err := data.OpenLines(path, "")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		switch line, err := r.Next(); {
		case err == io.EOF:
			return lines, nil
		case err != nil:
			return nil, err
		case line != "":
			lines = append(lines, line)
		}
	}
}
