package forecast

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Reading is how a table is read that a model is applied to, where that differs
// from the table it was trained on. An empty setting is the model's.
type Reading struct {
	Time     string    `json:"time" value:"column" group:"Table" help:"column of timestamps (empty: as in training)"`
	ID       string    `json:"id" value:"column" group:"Table" help:"column that identifies the series (empty: as in training)"`
	TZ       string    `json:"tz" value:"zone" group:"Table" help:"time zone of timestamps without an offset (empty: as in training)"`
	Freq     data.Freq `json:"freq" value:"spacing" group:"Table" help:"spacing of the rows, such as 1h or 1mo (empty: inferred)"`
	Encoding string    `json:"encoding" oneof:"(as in training),utf-8,latin-1" group:"Table" help:"encoding of the file"`
	Decimal  string    `json:"decimal" oneof:"(as in training),auto,point,comma" group:"Table" help:"decimal separator of numbers; the other one may separate thousands"`
	Missing  string    `json:"missing" oneof:"(as in training),error,interpolate,mask" group:"Table" help:"treatment of missing values"`
}

// ForReading changes a model's settings, a *Config, to those that its table is read
// with. A treatment of missing values that the model has no inputs for, and a
// column with two roles, are a *data.InputError.
func (r *Reading) ForReading(settings task.Config) error {
	c := settings.(*Config)
	c.unmarked = !masked(c)
	if r.Missing == "mask" && c.unmarked {
		return data.Errorf("missing: the model was trained with missing %s and has no inputs that mark missing values; use interpolate, or train it with mask", c.Missing)
	}
	for _, one := range []struct {
		to   *string
		from string
	}{{&c.Time, r.Time}, {&c.ID, r.ID}, {&c.TZ, r.TZ}, {&c.Missing, r.Missing}, {&c.Encoding, r.Encoding}, {&c.Decimal, r.Decimal}} {
		if one.from != "" {
			*one.to = one.from
		}
	}
	if r.Freq != (data.Freq{}) {
		c.Freq = r.Freq
	}
	return c.Validate()
}

// readPanel reads a table with the columns that cfg names.
func readPanel(ctx context.Context, in task.Input, cfg *Config, note func(string)) (*data.Panel, error) {
	o, err := cfg.readOptions()
	if err != nil {
		return nil, err
	}
	o.Note = note
	if in.Table != nil {
		if in.Stream, err = streamOf(in.Table, o); err != nil {
			return nil, err
		}
	}
	read := func() (*data.Panel, error) { return data.ReadPanel(ctx, in.File, o) }
	if in.File == "" {
		read = func() (*data.Panel, error) { return data.ReadPanelFrom(ctx, "standard input", in.Stream, o) }
	}
	panel, err := read()
	if err != nil {
		return nil, cfg.explain(err)
	}
	if o.Missing == data.Interpolate {
		return panel, repeatLast(panel, cfg)
	}
	return panel, nil
}

// filledNote says how many values of a table were filled in, among the last rows of
// each series or, if last is 0, among all; "" if none were.
func filledNote(panel *data.Panel, last int) string {
	made, all := 0, 0
	for _, s := range panel.Series {
		from := 0
		if last > 0 {
			from = max(0, s.Len()-last)
		}
		for c := range s.Values {
			all += s.Len() - from
			for row, m := range s.Made(c) {
				if m && row >= from {
					made++
				}
			}
		}
	}
	if made == 0 {
		return ""
	}
	rows := ""
	if last > 0 {
		rows = fmt.Sprintf(" of the last %s", report.Plural(last, "row"))
	}
	return fmt.Sprintf("%s of %s values%s were missing and are filled in", report.Count(made), report.Count(all), rows)
}

// explain makes the advice of a reader's error fit: for text in a column of
// covariates, and for a model that cannot take missing values.
func (c *Config) explain(err error) error {
	var input *data.InputError
	if !errors.As(err, &input) {
		return err
	}
	if strings.HasSuffix(input.Problem, "is not a number") && slices.Contains(slices.Concat(c.Past, c.ahead()), input.Column) {
		input.Fix = "past and future columns hold numbers: give categories that change over time as one column of 0 and 1 for each, and those that are constant in a series with --static"
	}
	if c.unmarked {
		input.Fix = strings.Replace(input.Fix, " or --missing mask", "", 1)
	}
	return err
}

// repeatLast repeats the last value of open-ended columns up to the last row with
// a target: one target, or a past covariate, may end before another. One without a
// value is an error.
func repeatLast(panel *data.Panel, cfg *Config) error {
	for _, s := range panel.Series {
		end := 0
		for _, name := range cfg.targets() {
			end = max(end, measuredEnd(s.Values[panel.Column(name)]))
		}
		for _, name := range slices.Concat(cfg.targets(), cfg.Past) {
			c := panel.Column(name)
			column := s.Values[c]
			known := measuredEnd(column)
			if known == 0 && end > 0 {
				return s.Fault(-1, name, "all values are missing"+ofSeries(s.ID), "leave the column out, or train with --missing mask")
			}
			if known < end {
				s.MarkFilled(c, known, end)
			}
			for i := known; i < end; i++ {
				column[i] = column[i-1]
			}
		}
	}
	return nil
}

// measuredEnd returns the number of rows up to the last one with a value.
func measuredEnd(column []float64) int {
	for i := len(column); i > 0; i-- {
		if !math.IsNaN(column[i-1]) {
			return i
		}
	}
	return 0
}
