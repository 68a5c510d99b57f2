package forecast

import (
	"cmp"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// The kinds of covariate are types, because what a network may use depends on
// when a value is known.
type (
	// Past is the names of columns that are known up to the forecast origin only.
	Past []string
	// Future is the names of columns that are known over the whole horizon, such as
	// planned values or a weather forecast.
	Future []string
	// Static is the names of columns with one value per series.
	Static []string
)

// Config is the settings of a forecasting model. Command-line flags, recipe files
// and Go programs fill this one struct; start from [Defaults]. A zero or "auto"
// is replaced when training begins, where the help says so, by a value that
// depends on the data; [Model.Config] returns the value chosen.
type Config struct {
	Time     string    `json:"time" value:"column" group:"Data" help:"column of timestamps (empty: none, rows are equally spaced)"`
	ID       string    `json:"id" value:"column" group:"Data" help:"column that identifies the series"`
	Target   []string  `json:"target" group:"Data" help:"column of the values to forecast; may be several"`
	Past     Past      `json:"past" group:"Data" help:"covariates that are known up to the forecast origin"`
	Future   Future    `json:"future" group:"Data" help:"covariates that are known over the whole horizon"`
	Static   Static    `json:"static" group:"Data" help:"columns with one value per series"`
	Holiday  string    `json:"holiday" group:"Data" help:"column that is 1 on holidays and 0 otherwise, known over the whole horizon"`
	Encoding string    `json:"encoding" oneof:"(utf-8, but latin-1 for lines that are not valid),utf-8,latin-1" group:"Data" help:"encoding of the file"`
	Decimal  string    `json:"decimal" oneof:"auto (as the numbers of the table show),point,comma" group:"Data" help:"decimal separator of numbers; the other one may separate thousands"`
	TZ       string    `json:"tz" value:"zone" group:"Data" help:"time zone of timestamps without an offset, and in which others are shown, such as Europe/Vienna or +01:00"`
	Layout   string    `json:"layout" oneof:"(one row per time and series),columns (one series per target column),rows (one series per row),tsf" group:"Data" help:"layout of the table"`
	Freq     data.Freq `json:"freq" value:"spacing" group:"Data" help:"spacing of the rows, such as 1h or 1mo (empty: inferred)"`
	Missing  string    `json:"missing" oneof:"error,interpolate,mask" group:"Data" help:"treatment of missing values"`
	Split    string    `json:"split" group:"Data" help:"train,validation,test as fractions, as row counts with \"rest\" once for all other rows, or as the two dates on which validation and test begin (empty: 0.7,0.1,0.2)"`
	Calendar string    `json:"calendar" oneof:"auto,off" group:"Data" help:"calendar inputs, such as hour and weekday"`
	Lags     []int     `json:"lags" range:"0.." group:"Data" help:"seasons in rows; the value one season earlier is an input if the season is longer than the window (empty: those of the frequency, and twice the longest; 0: none)"`

	NoTargetHistory bool `json:"no_target_history" group:"Model" help:"the model computes the target from its drivers alone, such as runoff from rainfall: past and future covariates, calendar and static columns over window and horizon; past values of the target are no inputs, and tables to predict may lack them"`

	Window  int `json:"window" range:"0..1e5" group:"Model" help:"rows of history that the network reads (0: 72, a day of up to 144 rows, or by the frequency and the length of the series)"`
	Horizon int `json:"horizon" range:"0..1e4" group:"Model" help:"rows to forecast (0: 24, or by the frequency and the length of the series)"`
	Segment int `json:"segment,omitempty" range:"0..1e4" group:"Model" help:"rows that the network reads, and forecasts, in one step (0: 1)"`
	task.RNNConfig
	Members  int     `json:"members" range:"1..100" before:"1" group:"Model" help:"number of networks, from different initial weights, whose forecasts are averaged"`
	Dropout  float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the outputs of the recurrent layers"`
	Head     string  `json:"head" oneof:"direct (all steps together),autoregressive (each from the previous one)" group:"Model" help:"how the steps of the horizon are computed"`
	Channels string  `json:"channels" oneof:"independent (the network is applied to each),joint (the network reads all)" group:"Model" help:"treatment of several targets"`
	Skip     string  `json:"skip" oneof:"auto (ridge; with no_target_history none if a ridge regression explains little of the validation part),ridge (initialised with a ridge regression),zero (initialised with zeros),none" group:"Model" help:"linear path parallel to the network"`

	Scale      string `json:"scale" oneof:"standard,robust,minmax,none" group:"Scaling" help:"how columns are scaled, with statistics of the training rows"`
	ScalePer   string `json:"scale_per" oneof:"series (each series separately),global (all series together)" group:"Scaling" help:"what is scaled together"`
	WindowNorm string `json:"window_norm" oneof:"auto (last; with no_target_history none),none,last (its last value),mean (its mean),standard (its mean, and divided by its standard deviation)" group:"Scaling" help:"what is subtracted from each window"`
	Transform  string `json:"transform" oneof:"auto (log if it helps the linear path; with no_target_history none),none,log (for positive targets)" group:"Scaling" help:"transformation of targets before scaling"`

	Loss         string    `json:"loss" oneof:"mse,mae,huber,quantile,gaussian,student-t,negative-binomial" group:"Training" help:"training loss"`
	Quantiles    []float64 `json:"quantiles" value:"levels" range:"(0..1)" group:"Training" help:"levels of the quantile outputs and intervals"`
	Floor        []float64 `json:"floor" value:"numbers" range:"-1e15..1e15" group:"Training" help:"forecasts and quantiles below it are set to it: one number, or one for each target (empty: 0 for targets that are counts, otherwise none)"`
	Batch        int       `json:"batch" range:"0..1e5" group:"Training" help:"number of windows per step (0: 8 to 64, by the number of windows)"`
	Refit        string    `json:"refit" oneof:"all (training and validation rows before the test is scored, and all rows before the model is used),validation (training and validation rows),none" group:"Training" help:"rows that the model is fitted to again after the training"`
	RefitSteps   float64   `json:"refit_steps" range:"0..10" before:"0" group:"Training" help:"steps for which the networks are trained further when the model is refitted, relative to those that validation chose (0: the linear path alone is fitted again)"`
	SkipLR       float64   `json:"skip_lr" range:"0..10" group:"Training" help:"learning rate of the linear path relative to lr (0: it is not trained)"`
	WindowStride int       `json:"window_stride" was:"stride" range:"0..1e6" group:"Training" help:"rows between the starts of training windows (0: 1, or more if there are many windows)"`
	train.Settings

	unmarked bool // they are those of a model without inputs that mark missing values
}

// UnmarshalJSON decodes a configuration, also one of an older version. Its errors
// are those of settings.Decode: unknown names and values of the wrong type.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	if err := settings.Decode(raw, (*fields)(c)); err != nil {
		return err
	}
	c.Decimal = cmp.Or(c.Decimal, Defaults().Decimal) // older ones have none
	c.Refit = cmp.Or(c.Refit, refitNone)
	return nil
}

// Defaults returns the configuration to start from.
func Defaults() Config {
	c := Config{
		Decimal: "auto", Missing: "error", Calendar: "auto",
		RNNConfig: task.DefaultRNN(), Members: 1, Dropout: 0.2, Head: "direct", Channels: "independent", Skip: "auto",
		Scale: "standard", ScalePer: "series", WindowNorm: "auto", Transform: "auto",
		Loss: "mae", Quantiles: []float64{0.1, 0.5, 0.9}, Refit: refitAll, SkipLR: 0.1, Settings: train.DefaultSettings(),
	}
	c.Layers = 2
	return c
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate(), c.Settings.Validate()); err != nil {
		return data.Setting(err)
	}
	for _, check := range []func() error{c.checkSplit, c.checkLevels, c.checkColumns, c.checkTogether, c.checkDrivers} {
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

// checkColumns returns an error if a column is given twice.
func (c *Config) checkColumns() error {
	if len(c.Target) == 0 && c.Layout == data.LayoutLong {
		return data.Errorf("target: name the column to forecast, such as --target units; --time names that of the times")
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
	if len(c.Static) > 0 && c.Layout == data.LayoutColumns {
		return data.Errorf("static: with layout columns there are no columns with one value per series")
	}
	if len(c.Static) > 0 && c.ID == "" && c.Layout == data.LayoutLong {
		return data.Errorf("static: columns with one value per series need the column of the series; give id")
	}
	return nil
}

// checkTogether returns an error for settings that exclude each other.
func (c *Config) checkTogether() error {
	if c.MinLR > c.LR {
		return data.Errorf("min_lr: want at most lr (%v), got %v", c.LR, c.MinLR)
	}
	if n := len(c.Floor); n > 1 && n != len(c.targets()) {
		return data.Errorf("floor: want one number, or one for each of %d targets, got %d", len(c.targets()), n)
	}
	if c.Loss == "quantile" && len(c.Quantiles) == 1 {
		return data.Errorf("quantiles: want several levels with loss quantile, such as 0.1,0.5,0.9, got %v; the median alone is loss mae", c.Quantiles)
	}
	if c.Loss == "quantile" && !slices.Contains(c.Quantiles, 0.5) {
		return data.Errorf("quantiles: want 0.5 among the levels, which is the point forecast, got %v", c.Quantiles)
	}
	if c.Loss == "negative-binomial" && (c.Transform == "log" || c.WindowNorm == "standard") {
		return data.Errorf("loss negative-binomial is computed in the data's units: want transform none and window_norm none, last or mean")
	}
	if c.Head == "autoregressive" {
		switch {
		case c.Bidirectional:
			return data.Errorf("bidirectional: the autoregressive head reads forward only; use head direct")
		case c.Segment > 1:
			return data.Errorf("segment: the autoregressive head forecasts row by row, got %d; use head direct", c.Segment)
		case len(c.Past) > 0:
			return data.Errorf("past: the autoregressive head needs these columns over the horizon; use head direct, or give them as future")
		case c.Loss == "quantile" || c.Loss == "negative-binomial":
			return data.Errorf("loss: the autoregressive head takes mse, mae, huber, gaussian or student-t, got %s", c.Loss)
		}
	}
	return nil
}

// checkDrivers returns an error for settings that need past values of the target
// if there are none, and if nothing drives it.
func (c *Config) checkDrivers() error {
	switch {
	case !c.NoTargetHistory:
	case len(c.Past)+len(c.ahead()) == 0:
		return data.Errorf("no_target_history: the target is computed from other columns; give the columns that drive it as future, or as past if they are not known over the horizon")
	case c.Head == "autoregressive":
		return data.Errorf("no_target_history: the autoregressive head reads the target's past values; use head direct")
	case c.WindowNorm != "auto" && c.WindowNorm != "none":
		return data.Errorf("window_norm: %s needs the target's past values, which the model does not have with no_target_history; use none", c.WindowNorm)
	case slices.ContainsFunc(c.Lags, func(lag int) bool { return lag > 0 }):
		return data.Errorf("lags: they are the target's past values, which the model does not have with no_target_history; leave them out")
	}
	return nil
}

// settleHistory sets the settings that are auto because they depend on whether the
// target's past values are inputs, except Skip, which also depends on the data.
func (c *Config) settleHistory() {
	if c.WindowNorm == "auto" {
		c.WindowNorm = "last"
		if c.NoTargetHistory {
			c.WindowNorm = "none"
		}
	}
}

func (c *Config) zone() (*time.Location, error) {
	if c.TZ == "" {
		return nil, nil
	}
	return loadZone(c.TZ)
}

// ahead returns all columns that are known over the horizon, the holidays last.
func (c *Config) ahead() []string {
	if c.Holiday == "" {
		return c.Future
	}
	return append(slices.Clone([]string(c.Future)), c.Holiday)
}

// targets returns the names of the target columns in a Panel.
func (c *Config) targets() []string {
	switch c.Layout {
	case data.LayoutColumns, data.LayoutRows, data.LayoutTSF:
		return []string{data.ValueColumn}
	}
	return c.Target
}

// idColumn returns the name of the column that tells the series of a forecast
// apart; "" if nothing does, or if each is a column.
func (c *Config) idColumn(series int) string {
	switch {
	case c.ID != "":
		return c.ID
	case c.Layout == data.LayoutTSF:
		return "series_name"
	case c.Layout == data.LayoutRows || c.Layout == data.LayoutLong && series > 1: // several, made by a program
		return "series"
	}
	return ""
}

// columns returns the names of the target columns for people.
func (c *Config) columns() []string {
	if len(c.Target) == 0 {
		return []string{data.ValueColumn}
	}
	return c.Target
}

// decimals are the separators of the setting decimal.
var decimals = map[string]rune{"point": '.', "comma": ','}

// settleDecimal sets the decimal separator to that of the training table, if it
// also has separators of thousands: another table may hold only numbers such as
// 1.234, which do not show it.
func (c *Config) settleDecimal(panel *data.Panel) {
	for name, separator := range decimals {
		if panel.Decimal == separator {
			c.Decimal = name
		}
	}
}

// readOptions returns the options for reading a file.
func (c *Config) readOptions() (*data.ReadOptions, error) {
	zone, err := c.zone()
	if err != nil {
		return nil, err
	}
	missing, err := data.ParseMissing(c.Missing)
	if err != nil {
		return nil, err
	}
	o := &data.ReadOptions{Time: c.Time, ID: c.ID, Static: c.Static, Zone: zone, Missing: missing, Layout: c.Layout, Freq: c.Freq,
		Encoding: c.Encoding, Decimal: decimals[c.Decimal]}
	covariates := slices.Concat(c.Past, c.ahead())
	switch c.Layout {
	case data.LayoutColumns:
		o.Values, o.Shared = c.Target, covariates
		o.OpenEnded = append([]string{data.ValueColumn}, c.Past...)
	case data.LayoutRows, data.LayoutTSF:
		o.Values, o.OpenEnded = c.Target, []string{data.ValueColumn}
		if o.Static == nil {
			o.Static = []string{}
		}
		if len(covariates) > 0 {
			return nil, data.Errorf("a file with one series per row has no covariates: leave past, future and holiday empty")
		}
	default:
		o.Values = slices.Concat(c.Target, covariates)
		o.OpenEnded = slices.Concat(c.Target, c.Past)
	}
	if c.NoTargetHistory { // targets are only compared with
		o.Sparse = c.targets()
	}
	return o, nil
}
