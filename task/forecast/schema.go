package forecast

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
)

// schema is what a model stores about its data beside its Config. It is computed
// from the training rows alone.
type schema struct {
	Freq     data.Freq              `json:"freq"`
	HasTime  bool                   `json:"has_time"`
	Clocks   clocks                 `json:"clocks"`
	Lags     []int                  `json:"lags"`   // longer than the window
	Before   int                    `json:"before"` // rows before those one lag earlier that the linear path has as well
	Calendar calendar               `json:"calendar"`
	Past     []Scaler               `json:"past"`
	Ahead    []Scaler               `json:"ahead"`
	Binary   []bool                 `json:"binary"` // of Ahead: the column has at most two values
	Static   []staticSchema         `json:"static"`
	Series   map[string][]targetFit `json:"series"` // by id, then target
	Pooled   []targetFit            `json:"pooled"` // of all series together, for series that were not in training
	Unit     float32                `json:"unit"`   // root mean square of centred windows, by which the network's inputs are divided
	Positive bool                   `json:"positive"`
	Log      bool                   `json:"log"` // targets are transformed by their logarithm
}

// targetFit is the statistics of the training rows of one target of one series.
type targetFit struct {
	Scaler    Scaler  `json:"scaler"`
	Mean      float64 `json:"mean"`      // in the data's units, as the rest
	Deviation float64 `json:"deviation"` // 0 if constant
	Low       float64 `json:"low"`
	High      float64 `json:"high"`
	Counts    bool    `json:"counts"` // whole numbers from 0

	// The errors in sample of the seasonal naive forecast, which scale MASE and
	// RMSSE; 0 if there are none.
	Season      int     `json:"season"`   // its season in rows: the first of the frequency, or 1
	Seasonal    float64 `json:"seasonal"` // mean absolute error
	SeasonalRMS float64 `json:"seasonal_rms"`
}

// unit returns the standard deviation, 1 if the target is constant.
func (t *targetFit) unit() float64 { return cmp.Or(t.Deviation, 1) }

// staticSchema describes how a static column becomes an input: numbers are
// scaled, other values are categories of the training data.
type staticSchema struct {
	Name       string   `json:"name"`
	Scaler     Scaler   `json:"scaler"`
	Categories []string `json:"categories"` // nil for numbers
}

// category returns the index of a text in the embedding table of the column,
// which begins with the unknown.
func (s *staticSchema) category(text string) int {
	return 1 + slices.Index(s.Categories, text)
}

// fitSchema computes a schema from the training rows of frames.
func fitSchema(panel *data.Panel, cfg *Config, frames []*frame, log bool) *schema {
	s := &schema{Freq: panel.Freq, HasTime: panel.HasTime, Clocks: clocksOf(panel), Series: map[string][]targetFit{}, Unit: 1, Log: log}
	if cfg.Calendar == "auto" && panel.HasTime {
		s.Calendar = *newCalendar(panel.Freq, covered(frames))
	}
	s.Lags, s.Before = lagsBeside(cfg, panel.Freq, frames)
	s.fitCovariates(cfg, frames)
	s.fitStatic(cfg, frames)
	s.fitTargets(cfg, frames)
	return s
}

// covered returns the longest time that the training rows of a series cover.
func covered(frames []*frame) time.Duration {
	var longest time.Duration
	for _, f := range frames {
		if p := f.part[trainPart]; p.len() > 1 {
			longest = max(longest, f.times[p.hi-1].Sub(f.times[p.lo]))
		}
	}
	return longest
}

// lagsBeside returns the lags that are longer than the window and occur often enough
// in the training rows: by default the seasons of the frequency, and the longest of
// these twice; none if past targets are no inputs. before is the number of rows that
// the linear path has beside them: what this season does differently from the last is
// carried on.
func lagsBeside(cfg *Config, freq data.Freq, frames []*frame) (lags []int, before int) {
	if cfg.NoTargetHistory {
		return []int{}, 0
	}
	shortest := math.MaxInt
	for _, f := range frames {
		shortest = min(shortest, f.part[trainPart].len())
	}
	enough := func(lag int) bool { return shortest >= 3*lag+cfg.Horizon }
	asked := cfg.Lags
	auto := len(asked) == 0
	if auto {
		asked = slices.DeleteFunc(freq.Seasons(), func(lag int) bool { return !enough(lag) })
		if n := len(asked); n > 0 && enough(2*asked[n-1]) {
			asked = append(asked, 2*asked[n-1])
		}
	}
	lags = []int{}
	for _, lag := range asked {
		if lag > cfg.Window {
			lags = append(lags, lag)
		}
	}
	if len(lags) == 0 || cfg.Head == "autoregressive" {
		return lags, 0
	}
	before = cfg.Window
	for _, season := range freq.Seasons() {
		before = min(before, season)
	}
	wide := func() bool { return cfg.Window+len(lags)*(before+cfg.Horizon) > mostLagged }
	for before > 0 && (shortest < slices.Max(lags)+before+2*cfg.Horizon || wide()) {
		before /= 2
	}
	for auto && len(lags) > 1 && wide() {
		lags = lags[:len(lags)-1]
	}
	return lags, before
}

// mostLagged is the largest number of the target's values in the linear path with
// which it has all lags by the frequency, and rows before them.
const mostLagged = 1600

func (s *schema) fitCovariates(cfg *Config, frames []*frame) {
	pool := func(columns func(*frame) [][]float64, i int) []float64 {
		var all []float64
		for _, f := range frames {
			p := f.part[trainPart]
			all = append(all, columns(f)[i][p.lo:p.hi]...)
		}
		return all
	}
	s.Past, s.Ahead, s.Binary = []Scaler{}, []Scaler{}, []bool{}
	for i := range cfg.Past {
		s.Past = append(s.Past, fitScaler("standard", false, pool(func(f *frame) [][]float64 { return f.rawPast }, i)))
	}
	for i := range cfg.ahead() {
		values := pool(func(f *frame) [][]float64 { return f.rawAhead }, i)
		s.Ahead = append(s.Ahead, fitScaler("standard", false, values))
		s.Binary = append(s.Binary, atMostTwo(values))
	}
}

// atMostTwo reports whether x has at most two values other than NaN.
func atMostTwo(x []float64) bool {
	var seen []float64
	for _, v := range x {
		if math.IsNaN(v) || slices.Contains(seen, v) {
			continue
		}
		if seen = append(seen, v); len(seen) > 2 {
			return false
		}
	}
	return true
}

// fitStatic fits the static columns: one that has a number in every series holds
// numbers, any other holds categories.
func (s *schema) fitStatic(cfg *Config, frames []*frame) {
	s.Static = []staticSchema{}
	for i, name := range cfg.Static {
		st := staticSchema{Name: name, Scaler: Scaler{Scale: 1}}
		var numbers []float64
		for _, f := range frames {
			v := f.static[i]
			if v.Numeric {
				numbers = append(numbers, v.Number)
			}
			if !slices.Contains(st.Categories, v.Text) {
				st.Categories = append(st.Categories, v.Text)
			}
		}
		if len(numbers) == len(frames) {
			st.Categories, st.Scaler = nil, fitScaler("standard", false, numbers)
		}
		s.Static = append(s.Static, st)
	}
}

// numberOf returns the number of a static value. In a table in which another series
// has text there, the reader has left it as text.
func numberOf(v data.StaticValue) (x float64, ok bool) {
	if v.Numeric {
		return v.Number, true
	}
	x, err := strconv.ParseFloat(strings.Replace(v.Text, ",", ".", 1), 64)
	return x, err == nil && !math.IsNaN(x) && !math.IsInf(x, 0)
}

// mixed returns notes on static columns that hold categories because of the text
// of some series, with numbers in the others.
func mixed(cfg *Config, frames []*frame) (notes []string) {
	for i, name := range cfg.Static {
		isNumber := func(f *frame) bool { _, ok := numberOf(f.static[i]); return ok }
		number, text := slices.IndexFunc(frames, isNumber), slices.IndexFunc(frames, func(f *frame) bool { return !isNumber(f) })
		if number >= 0 && text >= 0 {
			a, b := frames[text], frames[number]
			notes = append(notes, fmt.Sprintf("%s holds categories, not numbers, as it is %q%s (and %q%s)", name, a.static[i].Text, ofSeries(a.id), b.static[i].Text, ofSeries(b.id)))
		}
	}
	return notes
}

// check returns an error for a static value of a series that is of another kind
// than those in training.
func (s *staticSchema) check(f *frame, v data.StaticValue) error {
	_, number := numberOf(v)
	switch {
	case s.Categories == nil && !number:
		return f.series.Fault(-1, s.Name, fmt.Sprintf("%q%s is not a number, and the model was trained on numbers", v.Text, ofSeries(f.id)), "correct it")
	case s.Categories != nil && number && s.category(v.Text) == 0 && !slices.ContainsFunc(s.Categories, func(text string) bool {
		_, number := numberOf(data.StaticValue{Text: text})
		return number
	}):
		return f.series.Fault(-1, s.Name, fmt.Sprintf("%q%s is a number, and the model was trained on categories such as %q", v.Text, ofSeries(f.id), s.Categories[0]), "correct it")
	}
	return nil
}

func (s *schema) fitTargets(cfg *Config, frames []*frame) {
	for k := range cfg.targets() {
		var pooled []float64
		for _, f := range frames {
			p := f.part[trainPart]
			pooled = append(pooled, f.raw[k][p.lo:p.hi]...)
		}
		all := s.fitTarget(cfg, pooled)
		s.Pooled = append(s.Pooled, all)
		for _, f := range frames {
			p := f.part[trainPart]
			s.Series[f.id] = append(s.Series[f.id], s.fitSeries(cfg, f.raw[k][p.lo:p.hi], all))
		}
	}
}

// checkFloor returns an error for the first training value below its floor.
func (c *Config) checkFloor(frames []*frame) error {
	for k, name := range c.targets() {
		if len(c.Floor) == 0 {
			break
		}
		floor := c.Floor[min(k, len(c.Floor)-1)]
		for _, f := range frames {
			p := f.part[trainPart]
			for row := p.lo; row < p.hi; row++ {
				if v := f.raw[k][row]; v < floor {
					return f.fault(name, row, fmt.Sprintf("%v is below the floor %v", v, floor), "give a floor that no value is below")
				}
			}
		}
	}
	return nil
}

// floor returns the number that forecasts of target k are not below: that of the
// settings, 0 for counts, otherwise -Inf.
func (s *schema) floor(cfg *Config, k int) float64 {
	switch {
	case len(cfg.Floor) > 0:
		return cfg.Floor[min(k, len(cfg.Floor)-1)]
	case s.Pooled[k].Counts:
		return 0
	}
	return math.Inf(-1)
}

// fitSeries fits the rows of one target of one series. Without a value it has the
// statistics of all series.
func (s *schema) fitSeries(cfg *Config, rows []float64, all targetFit) targetFit {
	if !slices.ContainsFunc(rows, isMeasured) {
		return all
	}
	fit := s.fitTarget(cfg, rows)
	if cfg.ScalePer == "global" {
		fit.Scaler = all.Scaler
	}
	return fit
}

func isMeasured(v float64) bool { return !math.IsNaN(v) }

// leastOfLow is the share of the least training value below which values are taken as
// it before the logarithm, if the data chose that.
const leastOfLow = 0.1

// least returns the least value that a logarithm is taken of.
func least(rows []float64) float64 {
	low := math.Inf(1)
	for _, v := range rows {
		if v > 0 {
			low = math.Min(low, v)
		}
	}
	if math.IsInf(low, 1) {
		return leastOfLow
	}
	return leastOfLow * low
}

// fitTarget fits the rows of one target, with NaN for missing values.
func (s *schema) fitTarget(cfg *Config, rows []float64) targetFit {
	fit := targetFit{Scaler: fitScaler(cfg.Scale, s.Log, rows)}
	if s.Log && cfg.Transform == "auto" {
		fit.Scaler.Least = least(rows)
	}
	var x []float64
	for _, v := range rows {
		if !math.IsNaN(v) {
			x = append(x, v)
		}
	}
	if len(x) == 0 {
		return fit
	}
	fit.Mean, fit.Deviation = meanDeviation(x)
	fit.Low, fit.High = slices.Min(x), slices.Max(x)
	if isConstant(fit.Deviation, fit.Mean) {
		fit.Deviation = 0
	}
	fit.Counts = fit.Low >= 0 && !slices.ContainsFunc(x, func(v float64) bool { return v != math.Trunc(v) })
	fit.Season = 1
	if seasons := s.Freq.Seasons(); len(seasons) > 0 && seasons[0] < len(rows) {
		fit.Season = seasons[0]
	}
	fit.Seasonal, fit.SeasonalRMS = seasonalErrors(rows, fit.Season)
	return fit
}

// seasonalErrors returns the mean absolute value of x[t]-x[t-season] and the root
// of its mean square over the pairs that are measured; 0 if there are none.
func seasonalErrors(x []float64, season int) (absolute, rms float64) {
	var size, square mean
	for t := season; t < len(x); t++ {
		if d := math.Abs(x[t] - x[t-season]); !math.IsNaN(d) {
			size.add(d)
			square.add(d * d)
		}
	}
	if size.n == 0 {
		return 0, 0
	}
	return size.value(), math.Sqrt(square.value())
}

// masked reports whether marks of missing values are inputs.
func masked(cfg *Config) bool { return cfg.Missing == "mask" }

// check returns an error if a panel does not fit what the model was trained on.
func (s *schema) check(panel *data.Panel) error {
	if panel.HasTime != s.HasTime {
		return data.Errorf("the model was trained on rows %s times; this table has them %s", with(s.HasTime), with(panel.HasTime))
	}
	if s.HasTime && panel.Freq != (data.Freq{}) && !sameSpacing(panel.Freq, s.Freq) && !s.onGrid(panel) {
		return data.Errorf("the model was trained on rows every %s; this table's are every %s; resample it, or give the spacing with --freq if they are the same rows", s.Freq, panel.Freq)
	}
	return nil
}

// onGrid reports whether each row of a panel is the model's frequency after the
// one before it. Few rows may fit several frequencies: those of one week do not
// tell daily ones from those of business days.
func (s *schema) onGrid(panel *data.Panel) bool {
	for _, series := range panel.Series {
		for i := 1; i < series.Len(); i++ {
			if !s.Freq.Add(series.Time[i-1], 1).Equal(series.Time[i]) {
				return false
			}
		}
	}
	return true
}

// sameSpacing reports whether the rows of two tables are equally far apart. Hours
// of the local clock are known as such only where clocks change.
func sameSpacing(a, b data.Freq) bool {
	for _, f := range []*data.Freq{&a, &b} {
		if f.Unit == data.LocalSecond {
			*f = data.Every(time.Duration(f.N) * time.Second)
		}
	}
	return a == b
}

// checkPresent returns an error for columns of cfg that a panel lacks.
func checkPresent(panel *data.Panel, cfg *Config) error {
	var lacking []string
	for _, name := range slices.Concat(cfg.targets(), cfg.Past, cfg.ahead()) {
		if panel.Column(name) < 0 {
			lacking = append(lacking, name)
		}
	}
	if len(lacking) > 0 {
		return data.Errorf("the data lack the columns %s, which the model needs", strings.Join(lacking, ", "))
	}
	return nil
}

func with(yes bool) string {
	if yes {
		return "with"
	}
	return "without"
}
