package forecast

import (
	"fmt"
	"math"
	"slices"
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
	Lags     []int                  `json:"lags"` // seasons longer than the window
	Calendar calendar               `json:"calendar"`
	Past     []Scaler               `json:"past"`
	Ahead    []Scaler               `json:"ahead"`
	Binary   []bool                 `json:"binary"` // of Ahead: the column has at most two values
	Static   []staticSchema         `json:"static"`
	Series   map[string][]targetFit `json:"series"` // by id, then target
	Pooled   []targetFit            `json:"pooled"` // of all series together, for series that were not in training
	Unit     float32                `json:"unit"`   // root mean square of centred windows, by which the network's inputs are divided
	Positive bool                   `json:"positive"`
}

// targetFit is the statistics of the training rows of one target of one series.
type targetFit struct {
	Scaler    Scaler  `json:"scaler"`
	Mean      float64 `json:"mean"`      // in the data's units, as the rest
	Deviation float64 `json:"deviation"` // 0 if constant
	Seasonal  float64 `json:"seasonal"`  // mean absolute error in sample of the seasonal naive forecast (MASE's scale)
	Low       float64 `json:"low"`
	High      float64 `json:"high"`
}

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

// fitSchema computes a schema from the training rows of frames. The errors are
// those of checkTransform.
func fitSchema(panel *data.Panel, cfg *Config, frames []*frame) (*schema, error) {
	s := &schema{Freq: panel.Freq, HasTime: panel.HasTime, Clocks: clocksOf(panel), Series: map[string][]targetFit{}, Unit: 1}
	if cfg.Calendar == "auto" && panel.HasTime {
		s.Calendar = *newCalendar(panel.Freq, covered(frames))
	}
	s.Lags = seasonsBeside(cfg, panel.Freq, frames)
	s.fitCovariates(cfg, frames)
	s.fitStatic(cfg, panel)
	return s, s.fitTargets(cfg, frames)
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

// seasonsBeside returns the seasons that are longer than the window and occur
// often enough in the training rows.
func seasonsBeside(cfg *Config, freq data.Freq, frames []*frame) []int {
	asked := cfg.Lags
	auto := len(asked) == 0
	if auto {
		asked = freq.Seasons()
	}
	shortest := math.MaxInt
	for _, f := range frames {
		shortest = min(shortest, f.part[trainPart].len())
	}
	lags := []int{}
	for _, lag := range asked {
		enough := !auto || shortest >= 3*lag+cfg.Horizon
		if lag > cfg.Window && enough {
			lags = append(lags, lag)
		}
	}
	return lags
}

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

func (s *schema) fitStatic(cfg *Config, panel *data.Panel) {
	s.Static = []staticSchema{}
	for i, name := range cfg.Static {
		st := staticSchema{Name: name, Scaler: Scaler{Scale: 1}}
		var numbers []float64
		for _, series := range panel.Series {
			v := series.Static[i]
			if v.Numeric {
				numbers = append(numbers, v.Number)
			} else if !slices.Contains(st.Categories, v.Text) {
				st.Categories = append(st.Categories, v.Text)
			}
		}
		if len(numbers) > 0 {
			st.Scaler = fitScaler("standard", false, numbers)
		}
		s.Static = append(s.Static, st)
	}
}

func (s *schema) fitTargets(cfg *Config, frames []*frame) error {
	for k, name := range cfg.targets() {
		var pooled []float64
		for _, f := range frames {
			p := f.part[trainPart]
			pooled = append(pooled, f.raw[k][p.lo:p.hi]...)
		}
		if err := checkTransform(cfg, name, pooled); err != nil {
			return err
		}
		all := s.fitTarget(cfg, pooled)
		s.Pooled = append(s.Pooled, all)
		for _, f := range frames {
			p := f.part[trainPart]
			fit := s.fitTarget(cfg, f.raw[k][p.lo:p.hi])
			if cfg.ScalePer == "global" {
				fit.Scaler = all.Scaler
			}
			s.Series[f.id] = append(s.Series[f.id], fit)
		}
	}
	return nil
}

func checkTransform(cfg *Config, name string, values []float64) error {
	for _, v := range values {
		if cfg.Transform == "log" && v <= 0 {
			return &data.InputError{Column: name, Problem: fmt.Sprintf("transform log needs positive values, got %v", v), Fix: "use transform none"}
		}
		if cfg.Loss == "negative-binomial" && (v < 0 || v != math.Trunc(v)) {
			return &data.InputError{Column: name, Problem: fmt.Sprintf("loss negative-binomial needs counts, got %v", v), Fix: "use another loss"}
		}
	}
	return nil
}

// fitTarget fits the rows of one target, with NaN for missing values.
func (s *schema) fitTarget(cfg *Config, rows []float64) targetFit {
	fit := targetFit{Scaler: fitScaler(cfg.Scale, cfg.Transform == "log", rows)}
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
	if fit.Low == fit.High {
		fit.Deviation = 0
	}
	season := 1
	if seasons := s.Freq.Seasons(); len(seasons) > 0 && seasons[0] < len(rows) {
		season = seasons[0]
	}
	fit.Seasonal = seasonalError(rows, season)
	return fit
}

// seasonalError returns the mean of |x[t]-x[t-season]| over the pairs that are
// measured.
func seasonalError(x []float64, season int) float64 {
	sum, n := 0.0, 0
	for t := season; t < len(x); t++ {
		if d := math.Abs(x[t] - x[t-season]); !math.IsNaN(d) {
			sum += d
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// masked reports whether marks of missing values are inputs.
func masked(cfg *Config) bool { return cfg.Missing == "mask" }

// check returns an error if a panel does not fit what the model was trained on.
func (s *schema) check(panel *data.Panel, cfg *Config) error {
	if panel.HasTime != s.HasTime {
		return data.Errorf("the model was trained on rows %s times; this file has them %s", with(s.HasTime), with(panel.HasTime))
	}
	if s.HasTime && panel.Freq != (data.Freq{}) && !sameSpacing(panel.Freq, s.Freq) {
		return data.Errorf("the model was trained on rows every %s; this file's are every %s", s.Freq, panel.Freq)
	}
	return checkPresent(panel, cfg)
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
