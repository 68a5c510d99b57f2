package forecast

import (
	"cmp"
	"github.com/carousel-ml/carousel/task"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/train"
)

// The kinds of covariate are types, because what a network may see depends on
// when a value is known.
type (
	// Past names columns known up to the moment of forecasting only.
	Past []string
	// Future names columns known ahead for the whole horizon, such as planned
	// values or a weather forecast.
	Future []string
	// Static names columns that hold one value a series.
	Static []string
)

// Config is everything that a forecasting model is made from. Command-line
// flags, recipe files and Go programs fill this one struct; start from
// [Defaults]. A zero or "auto" where the help says so is settled by the data
// when training begins, and [Model.Config] then tells what it became.
type Config struct {
	Time     string    `json:"time" group:"Data" help:"column of timestamps (none: rows follow each other)"`
	ID       string    `json:"id" group:"Data" help:"column that tells series apart"`
	Target   []string  `json:"target" group:"Data" help:"column(s) to forecast"`
	Past     Past      `json:"past" group:"Data" help:"covariates known until now only"`
	Future   Future    `json:"future" group:"Data" help:"covariates known ahead, over the whole horizon"`
	Static   Static    `json:"static" group:"Data" help:"columns with one value a series"`
	Holiday  string    `json:"holiday" group:"Data" help:"column that is 1 on holidays and 0 elsewhere, known ahead"`
	TZ       string    `json:"tz" group:"Data" help:"time zone of timestamps without an offset, such as Europe/Vienna"`
	Layout   string    `json:"layout" oneof:"(one row a time, and id),columns (each target column a series),rows (a series a row),tsf" group:"Data" help:"how the table is laid out"`
	Freq     data.Freq `json:"freq" group:"Data" help:"spacing of the rows, such as 1h or 1mo (empty: inferred)"`
	Missing  string    `json:"missing" oneof:"error,interpolate,mask" group:"Data" help:"what is done about values that are not there"`
	Split    string    `json:"split" group:"Data" help:"train,validation,test as fractions, row counts (\"rest\" once: all other rows) or the two dates on which validation and test begin (empty: 0.7,0.1,0.2)"`
	Calendar string    `json:"calendar" oneof:"auto,off" group:"Data" help:"inputs from the calendar"`
	Lags     []int     `json:"lags" range:"0.." group:"Data" help:"seasons, in rows, whose last value is an input beside the window (empty: by the frequency; 0: none)"`

	Window  int `json:"window" range:"0..1e5" group:"Model" help:"rows the network looks back on (0: 72, or as the frequency and the length of the series ask)"`
	Horizon int `json:"horizon" range:"0..1e4" group:"Model" help:"rows to forecast (0: 24, or as the frequency and the length of the series ask)"`
	task.RNNConfig
	Dropout  float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout after the recurrent layers"`
	Head     string  `json:"head" oneof:"direct (all at once),autoregressive (each from the one before)" group:"Model" help:"how the steps of the horizon are made"`
	Channels string  `json:"channels" oneof:"independent (one network, applied to each),joint (one network that sees all)" group:"Model" help:"several targets"`
	Skip     string  `json:"skip" oneof:"ridge (starts at the ridge regression),zero (starts at nothing),none" group:"Model" help:"linear path beside the network"`

	Scale      string `json:"scale" oneof:"standard,robust,minmax,none" group:"Scaling" help:"how columns are scaled, by what the training rows say"`
	ScalePer   string `json:"scale_per" oneof:"series (each by itself),global (all together)" group:"Scaling" help:"what is scaled alike"`
	WindowNorm string `json:"window_norm" oneof:"none,last (on its last value),mean (on its mean),standard (likewise, and divided by its deviation)" group:"Scaling" help:"centre each window"`
	Transform  string `json:"transform" oneof:"none,log (for positive targets that vary in proportion)" group:"Scaling" help:"what is done to targets before they are scaled"`

	Loss      string    `json:"loss" oneof:"mse,mae,huber,quantile,gaussian,student-t,negative-binomial" group:"Training" help:"what training makes small"`
	Quantiles []float64 `json:"quantiles" range:"(0..1)" group:"Training" help:"levels of quantile outputs and of intervals"`
	Batch     int       `json:"batch" range:"0..1e5" group:"Training" help:"windows a step (0: 64, fewer where there are few)"`
	SkipLR    float64   `json:"skip_lr" range:"0..10" group:"Training" help:"learning rate of the linear path, as a share of the network's (0: stays as it starts)"`
	Stride    int       `json:"stride" range:"0..1e6" group:"Training" help:"rows between the starts of training windows (0: 1, more where there are very many)"`
	train.Settings
}

// UnmarshalJSON reads a configuration, that of an older model too.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults is the configuration that a user starts from.
func Defaults() Config {
	c := Config{
		Missing: "error", Calendar: "auto",
		RNNConfig: task.DefaultRNN(), Dropout: 0.2, Head: "direct", Channels: "independent", Skip: "ridge",
		Scale: "standard", ScalePer: "series", WindowNorm: "last", Transform: "none",
		Loss: "mae", Quantiles: []float64{0.1, 0.5, 0.9}, SkipLR: 0.1, Settings: train.DefaultSettings(),
	}
	c.Layers = 2
	return c
}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate()); err != nil {
		return data.Setting(err)
	}
	for _, check := range []func() error{c.checkSplit, c.checkLevels, c.checkColumns, c.checkTogether} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkSplit() error {
	if _, err := c.zone(); err != nil {
		return err
	}
	_, err := parseSplit(c.Split)
	return err
}

func (c *Config) checkLevels() error {
	for i, q := range c.Quantiles {
		if i > 0 && q <= c.Quantiles[i-1] {
			return data.Errorf("quantiles: want ascending levels, got %v after %v", q, c.Quantiles[i-1])
		}
	}
	return nil
}

// checkColumns finds columns with two parts to play.
func (c *Config) checkColumns() error {
	if len(c.Target) == 0 && c.Layout != data.LayoutRows && c.Layout != data.LayoutTSF {
		return data.Errorf("target: name the column to forecast")
	}
	part := map[string]string{}
	for _, list := range []struct {
		name    string
		columns []string
	}{
		{"time", []string{c.Time}}, {"id", []string{c.ID}}, {"target", c.Target}, {"past", c.Past},
		{"future", c.Future}, {"holiday", []string{c.Holiday}}, {"static", c.Static},
	} {
		for _, column := range list.columns {
			if column == "" {
				continue
			}
			if other, taken := part[column]; taken {
				return data.Errorf("column %q is given both as %s and as %s; keep one", column, other, list.name)
			}
			part[column] = list.name
		}
	}
	if len(c.Static) > 0 && c.ID == "" && c.Layout != data.LayoutTSF {
		return data.Errorf("static: columns with one value a series need the series told apart: give id")
	}
	return nil
}

// checkTogether finds settings that are right alone but not with each other.
func (c *Config) checkTogether() error {
	if c.MinLR > c.LR {
		return data.Errorf("min_lr: want at most lr (%v), got %v", c.LR, c.MinLR)
	}
	if c.Loss == "quantile" && !slices.Contains(c.Quantiles, 0.5) {
		return data.Errorf("quantiles: want 0.5 among the levels, which is the point forecast, got %v", c.Quantiles)
	}
	if c.Loss == "negative-binomial" && (c.Transform != "none" || c.WindowNorm == "standard") {
		return data.Errorf("loss negative-binomial counts in the data's units: want transform none and window_norm none, last or mean")
	}
	if c.Head == "autoregressive" {
		switch {
		case c.Bidirectional:
			return data.Errorf("bidirectional: a network that runs on its own output cannot read backwards; use head direct")
		case len(c.Past) > 0:
			return data.Errorf("past: the autoregressive head would need these columns ahead; use head direct, or give them as future")
		case c.Loss == "quantile" || c.Loss == "negative-binomial":
			return data.Errorf("loss: the autoregressive head takes mse, mae, huber, gaussian or student-t, got %s", c.Loss)
		}
	}
	return nil
}

func (c *Config) zone() (*time.Location, error) {
	if c.TZ == "" {
		return nil, nil
	}
	zone, err := time.LoadLocation(c.TZ)
	if err != nil {
		return nil, data.Errorf("tz: want a time zone such as UTC or Europe/Vienna, got %q", c.TZ)
	}
	return zone, nil
}

// ahead is all columns known ahead, the holidays last.
func (c *Config) ahead() []string {
	if c.Holiday == "" {
		return c.Future
	}
	return append(slices.Clone([]string(c.Future)), c.Holiday)
}

// targets are the target columns' names in a Panel.
func (c *Config) targets() []string {
	switch c.Layout {
	case data.LayoutColumns, data.LayoutRows, data.LayoutTSF:
		return []string{data.ValueColumn}
	}
	return c.Target
}

// columns is the target columns' names for people.
func (c *Config) columns() []string {
	if len(c.Target) == 0 {
		return []string{data.ValueColumn}
	}
	return c.Target
}

// readOptions says how to read a file for this configuration.
func (c *Config) readOptions() (*data.ReadOptions, error) {
	zone, err := c.zone()
	if err != nil {
		return nil, err
	}
	missing, err := data.ParseMissing(c.Missing)
	if err != nil {
		return nil, err
	}
	o := &data.ReadOptions{Time: c.Time, ID: c.ID, Static: c.Static, Zone: zone, Missing: missing, Layout: c.Layout, Freq: c.Freq}
	covariates := slices.Concat(c.Past, c.ahead())
	switch c.Layout {
	case data.LayoutColumns:
		o.Values, o.Shared = c.Target, covariates
		o.OpenEnded = slices.Clone(c.Target)
	case data.LayoutRows, data.LayoutTSF:
		o.Values = c.Target
		if o.Static == nil {
			o.Static = []string{}
		}
		if len(covariates) > 0 {
			return nil, data.Errorf("a file with a series a row has no covariates: leave past, future and holiday empty")
		}
	default:
		o.Values = slices.Concat(c.Target, covariates)
		o.OpenEnded = slices.Concat(c.Target, c.Past)
	}
	return o, nil
}
