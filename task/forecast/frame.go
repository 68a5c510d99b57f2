package forecast

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/simd"
)

// frame is a series from which windows are cut. Its first end rows have targets;
// the rows after them have only what is known over the horizon.
type frame struct {
	series    *data.Series // as it was read
	id        string
	isColumn  bool // the series is a column of the table
	driven    bool // targets follow from the other columns, not from their own past
	end, rows int
	times     []time.Time        // [rows], nil without times
	zone      *time.Location     // in which the table has the times
	freq      data.Freq          // of the rows that are added
	style     data.TimeStyle     // of the table's times
	counts    []int64            // [rows of the table], the numbers by which it counts rows; nil without
	static    []data.StaticValue // in the order of the settings
	part      parts
	short     bool // it has too few rows for the split
	fit       []targetFit

	raw               [][]float64 // [target][end], data units, NaN where nothing was measured
	given             [][]float64 // [target][end], raw with the values that were filled in
	rawPast, rawAhead [][]float64 // [column][rows], data units

	// In the network's units. A missing value repeats the one before it. The gaps
	// are 1 where nothing was measured. What was filled in is read through known.
	y               [][]float32 // [target][end]
	yGap            [][]float32
	yFill           []*fill     // [target]
	past, pastGap   [][]float32 // [column][rows]
	pastFill        []*fill     // [column]
	ahead, aheadGap [][]float32
	cal             []float32 // [rows, calendar width]
	group           []int32   // [rows]

	numbers []float32 // static numbers, scaled
	ids     []int32   // static categories, as indices of the embedding table
}

// rawFrames returns the columns of the series of a panel by kind, and the names of
// series without any target, which have no frame unless the model needs none.
// Trailing rows without any target have what is known over the horizon. A value that
// cannot be used is an error.
func rawFrames(panel *data.Panel, cfg *Config) (frames []*frame, empty []string, err error) {
	if err := checkPresent(panel, cfg); err != nil {
		return nil, nil, err
	}
	pick := func(series *data.Series, names []string) [][]float64 {
		columns := make([][]float64, len(names))
		for i, name := range names {
			columns[i] = series.Values[panel.Column(name)]
		}
		return columns
	}
	fills := func(series *data.Series, names []string) []*fill {
		list := make([]*fill, len(names))
		for i, name := range names {
			list[i] = newFill(series.Made(panel.Column(name)))
		}
		return list
	}
	for _, series := range panel.Series {
		f := &frame{series: series, id: series.ID, isColumn: cfg.Layout == data.LayoutColumns, driven: cfg.NoTargetHistory, rows: series.Len(), times: series.Time, counts: series.Count, freq: panel.Freq, style: panel.Style,
			given: pick(series, cfg.targets()), rawPast: pick(series, cfg.Past), rawAhead: pick(series, cfg.ahead()),
			yFill: fills(series, cfg.targets()), pastFill: fills(series, cfg.Past)}
		for k, column := range f.given {
			f.raw = append(f.raw, f.yFill[k].measured(column))
		}
		for f.end = f.rows; f.end > 0 && f.bare(f.end-1); f.end-- {
		}
		if f.end == 0 && !cfg.NoTargetHistory {
			empty = append(empty, f.id)
			continue
		}
		for k := range f.raw {
			f.raw[k], f.given[k] = f.raw[k][:f.end], f.given[k][:f.end]
		}
		for _, name := range cfg.Static {
			at := slices.IndexFunc(series.Static, func(v data.StaticValue) bool { return v.Name == name })
			if at < 0 {
				return nil, nil, data.Errorf("the data lack the static column %s%s", name, ofSeries(f.id))
			}
			f.static = append(f.static, series.Static[at])
		}
		if err := f.check(cfg); err != nil {
			return nil, nil, err
		}
		frames = append(frames, f)
	}
	if len(frames) == 0 {
		return nil, nil, cfg.noTarget()
	}
	return frames, empty, nil
}

func (c *Config) noTarget() error {
	return data.Errorf("%s: no row has a value; name a column with numbers as target", joinAnd(c.columns()))
}

// withTarget divides frames into those with a target, which can be trained on or
// scored, and the names of the others. If there are none, that is an error.
func withTarget(cfg *Config, frames []*frame) (some []*frame, without []string, err error) {
	for _, f := range frames {
		if f.end > 0 {
			some = append(some, f)
		} else {
			without = append(without, f.id)
		}
	}
	if len(some) == 0 {
		return nil, nil, cfg.noTarget()
	}
	return some, without, nil
}

// largest is the largest size of a value, whose squares can still be added.
const largest = 1e150

// check returns an error for the first value that the model cannot use.
func (f *frame) check(cfg *Config) error {
	for _, part := range []struct {
		names   []string
		columns [][]float64
		target  bool
	}{{cfg.targets(), f.given, true}, {cfg.Past, f.rawPast, false}, {cfg.ahead(), f.rawAhead, false}} {
		for i, column := range part.columns {
			for t, v := range column {
				problem, fix := "", ""
				switch {
				case math.IsNaN(v):
					if input := !part.target || !cfg.NoTargetHistory; input && !masked(cfg) && t < f.end {
						problem, fix = "the value is missing", "give it, or use --missing interpolate or --missing mask"
					}
				case math.Abs(v) > largest:
					problem, fix = fmt.Sprintf("%v is too large to compute with", v), "correct it"
				case !part.target || math.IsNaN(f.raw[i][t]): // what was filled in is no truth
				case cfg.Transform == "log" && v <= 0:
					problem, fix = fmt.Sprintf("transform log needs positive values, got %v", v), "correct it, or train with transform none"
				case cfg.Loss == "negative-binomial" && (v < 0 || v != math.Trunc(v)):
					problem, fix = fmt.Sprintf("loss negative-binomial needs counts, got %v", v), "correct it, or train with another loss"
				}
				if problem != "" {
					return f.fault(part.names[i], t, problem, fix)
				}
			}
		}
	}
	return nil
}

// fault returns the error for a value in a row of a column.
func (f *frame) fault(column string, row int, problem, fix string) error {
	if f.isColumn && column == data.ValueColumn {
		return f.series.Fault(row, f.id, problem, fix)
	}
	return f.series.Fault(row, column, problem+ofSeries(f.id), fix)
}

func ofSeries(id string) string {
	if id == "" {
		return ""
	}
	return " in series " + id
}

// show shows the times in a zone, for the inputs.
func (f *frame) show(zone *time.Location) {
	if f.times == nil {
		return
	}
	f.zone = f.times[len(f.times)-1].Location()
	if zone == nil {
		return
	}
	f.times = slices.Clone(f.times)
	for i, t := range f.times {
		f.times[i] = t.In(zone)
	}
}

// stamp returns what the table has, or would have, as the time of a row.
func (f *frame) stamp(row int) string {
	switch n := len(f.counts); {
	case n > 0 && row < n:
		return strconv.FormatInt(f.counts[row], 10)
	case n > 0:
		step := int64(1)
		if n > 1 {
			step = f.counts[1] - f.counts[0]
		}
		return strconv.FormatInt(f.counts[n-1]+step*int64(row-n+1), 10)
	case f.times != nil:
		return f.style.Format(f.times[row].In(f.zone))
	}
	return ""
}

// bare reports whether a row has no target at all.
func (f *frame) bare(row int) bool {
	for _, column := range f.raw {
		if !math.IsNaN(column[row]) {
			return false
		}
	}
	return true
}

// prepare sets the fields in the network's units. Without columns that are known
// over the horizon, rows for one horizon are added.
func (f *frame) prepare(s *schema, cfg *Config) (err error) {
	f.past, f.numbers, f.ids = nil, nil, nil
	if known := f.knownEnd(cfg); len(s.Ahead) == 0 && f.rows < known+cfg.Horizon {
		f.extend(s, known, cfg.Horizon)
	}
	f.fit = s.Series[f.id]
	if f.fit == nil {
		f.fit = s.unseen(cfg, f)
	}
	scalers := make([]Scaler, len(f.fit))
	for k := range f.fit {
		scalers[k] = f.fit[k].Scaler
	}
	most := mostScaled
	if cfg.Scale == "none" {
		most = mostUnscaled
	}
	if f.y, f.yGap, err = f.scaled(cfg.targets(), f.given, scalers, most); err != nil {
		return err
	}
	for k, raw := range f.raw {
		for row, v := range raw {
			if math.IsNaN(v) {
				f.yGap[k][row] = 1
			}
		}
	}
	if f.past, f.pastGap, err = f.scaled(cfg.Past, f.rawPast, s.Past, mostScaled); err != nil {
		return err
	}
	if f.ahead, f.aheadGap, err = f.scaled(cfg.ahead(), f.rawAhead, s.Ahead, mostScaled); err != nil {
		return err
	}
	if width := s.Calendar.width(); width > 0 || s.Calendar.Groups > 0 {
		f.cal = make([]float32, f.rows*width)
		f.group = make([]int32, f.rows)
		for i, t := range f.times {
			s.Calendar.fill(f.cal[i*width:(i+1)*width], t)
			f.group[i] = s.Calendar.group(t)
		}
	}
	first := int32(0)
	for i := range s.Static {
		st, v := &s.Static[i], f.static[i]
		if err := st.check(f, v); err != nil {
			return err
		}
		if st.Categories == nil {
			x, _ := numberOf(v)
			f.numbers = append(f.numbers, simd.Narrow(st.Scaler.in(x)))
			continue
		}
		f.ids = append(f.ids, first+int32(st.category(v.Text)))
		first += int32(len(st.Categories)) + 1
	}
	return nil
}

// knownEnd returns the number of rows up to the last one that the model can know
// when it forecasts: with a target or, if these are no inputs, with a past covariate.
func (f *frame) knownEnd(cfg *Config) int {
	end := f.end
	if cfg.NoTargetHistory {
		for _, column := range f.rawPast {
			end = max(end, measuredEnd(column))
		}
	}
	return end
}

// extend adds n rows after the first end ones, with times by the frequency.
func (f *frame) extend(s *schema, end, n int) {
	if s.HasTime {
		known := f.times[:end:end]
		freq := s.Freq
		if f.freq.Unit == data.LocalSecond { // where clocks change, the table tells
			freq = f.freq
		}
		f.times = append(known, freq.After(known, n)...)
	}
	f.rows = end + n
}

// unseen fits a series that was not in training on its rows. If past targets are no
// inputs, it is scaled as all series together.
func (s *schema) unseen(cfg *Config, f *frame) []targetFit {
	var fits []targetFit
	for k, raw := range f.raw {
		fits = append(fits, s.fitSeries(cfg, raw[:min(max(f.part[trainPart].hi, cfg.Window, 2), f.end)], s.Pooled[k])) // without rows for training: those before the first forecast
		if cfg.NoTargetHistory {
			fits[k].Scaler = s.Pooled[k].Scaler
		}
	}
	return fits
}

// The largest size of a value in float32, and of a scaled one, whose squares fit in
// it also in the units of windows that hardly vary.
const (
	mostUnscaled = 1e37
	mostScaled   = 1e15
)

// scaled returns columns in the network's units, and marks of missing values. A
// value above most, which is out of all proportion to the training rows, is an
// error.
func (f *frame) scaled(names []string, raw [][]float64, scalers []Scaler, most float64) (values, gaps [][]float32, err error) {
	for i, column := range raw {
		x, gap := make([]float32, len(column)), make([]float32, len(column))
		last := float32(0)
		for t, v := range column {
			if math.IsNaN(v) {
				x[t], gap[t] = last, 1
				continue
			}
			z := scalers[i].in(v)
			if !(math.Abs(z) <= most) {
				return nil, nil, f.fault(names[i], t, fmt.Sprintf("%v is too large beside the training rows", v), "correct it, or use another scale")
			}
			x[t] = simd.Narrow(z)
			last = x[t]
		}
		values, gaps = append(values, x), append(gaps, gap)
	}
	return values, gaps, nil
}

// fill tells which values of a column were interpolated. They are inputs, never
// truth, and are known only from the next measured value on. It is nil for a
// column without such values.
type fill struct {
	last, next []int32 // [row]: the measured rows around it, or the row itself if it was measured
}

// newFill returns the fill of a column whose made values are marked.
func newFill(made []bool) *fill {
	if !slices.Contains(made, true) {
		return nil
	}
	f := &fill{make([]int32, len(made)), make([]int32, len(made))}
	last, next := int32(-1), int32(math.MaxInt32)
	for row, m := range made {
		if !m {
			last = int32(row)
		}
		f.last[row] = last
	}
	for row := len(made) - 1; row >= 0; row-- {
		if !made[row] {
			next = int32(row)
		}
		f.next[row] = next
	}
	return f
}

// measured returns a column with NaN for what was filled in.
func (f *fill) measured(column []float64) []float64 {
	if f == nil {
		return column
	}
	column = slices.Clone(column)
	for row := range f.last {
		if int(f.last[row]) != row {
			column[row] = math.NaN()
		}
	}
	return column
}

// at returns the value of a row as it was known at an origin: what the next
// measured value has filled in only if that lies before the origin, otherwise the
// last measured value, or 0 if there is none.
func (f *fill) at(column []float32, row, origin int) float32 {
	if f == nil || row >= len(f.next) || int(f.next[row]) < origin {
		return column[row]
	}
	if f.last[row] < 0 {
		return 0
	}
	return column[f.last[row]]
}

// known returns target k in a row as it was known at an origin.
func (f *frame) known(k, row, origin int) float32 { return f.yFill[k].at(f.y[k], row, origin) }

// knownPast is known for past covariates.
func (f *frame) knownPast(i, row, origin int) float32 {
	return f.pastFill[i].at(f.past[i], row, origin)
}
