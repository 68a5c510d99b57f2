package forecast

import (
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
	id        string
	end, rows int
	times     []time.Time    // [rows], nil without times
	zone      *time.Location // in which the table has the times
	freq      data.Freq      // of the rows that are added
	counts    []int64        // [rows of the table], the numbers by which it counts rows; nil without
	part      parts
	fit       []targetFit

	raw               [][]float64 // [target][end], data units, NaN missing
	rawPast, rawAhead [][]float64 // [column][rows], data units

	// In the network's units. A missing value repeats the one before it, and the
	// gaps are 1 there.
	y               [][]float32 // [target][end]
	yGap            [][]float32
	past, pastGap   [][]float32 // [column][rows]
	ahead, aheadGap [][]float32
	cal             []float32 // [rows, calendar width]
	group           []int32   // [rows]

	numbers []float32 // static numbers, scaled
	ids     []int32   // static categories, as indices of the embedding table
}

// rawFrames returns the columns of a panel by kind. Trailing rows without any
// target have what is known over the horizon.
func rawFrames(panel *data.Panel, cfg *Config) ([]*frame, error) {
	if err := checkPresent(panel, cfg); err != nil {
		return nil, err
	}
	pick := func(series *data.Series, names []string) [][]float64 {
		columns := make([][]float64, len(names))
		for i, name := range names {
			columns[i] = series.Values[panel.Column(name)]
		}
		return columns
	}
	var frames []*frame
	for _, series := range panel.Series {
		f := &frame{id: series.ID, rows: series.Len(), times: series.Time, counts: series.Count, freq: panel.Freq,
			raw: pick(series, cfg.targets()), rawPast: pick(series, cfg.Past), rawAhead: pick(series, cfg.ahead())}
		for f.end = f.rows; f.end > 0 && f.bare(f.end-1); f.end-- {
		}
		for k := range f.raw {
			f.raw[k] = f.raw[k][:f.end]
		}
		if f.end == 0 {
			return nil, &data.InputError{Column: cfg.targets()[0], Problem: "has no value" + ofSeries(f.id), Fix: "name a column with numbers as target"}
		}
		frames = append(frames, f)
	}
	return frames, nil
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
func (f *frame) stamp(row int, style data.TimeStyle) string {
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
		return style.Format(f.times[row].In(f.zone))
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
func (f *frame) prepare(s *schema, cfg *Config, static []data.StaticValue) error {
	if len(s.Ahead) == 0 && f.rows < f.end+cfg.Horizon {
		f.extend(s, cfg.Horizon)
	}
	f.fit = s.Series[f.id]
	if f.fit == nil {
		f.fit = s.unseen(cfg, f)
	}
	for k, raw := range f.raw {
		for _, v := range raw {
			if cfg.Transform == "log" && v <= 0 {
				return &data.InputError{Column: cfg.targets()[k], Problem: "a value is not positive, and the model takes logarithms", Fix: "train it with transform none"}
			}
		}
	}
	scalers := make([]Scaler, len(f.fit))
	for k := range f.fit {
		scalers[k] = f.fit[k].Scaler
	}
	f.y, f.yGap = scaled(f.raw, scalers)
	f.past, f.pastGap = scaled(f.rawPast, s.Past)
	f.ahead, f.aheadGap = scaled(f.rawAhead, s.Ahead)
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
		st := &s.Static[i]
		if st.Categories == nil {
			f.numbers = append(f.numbers, simd.Narrow(st.Scaler.in(static[i].Number)))
			continue
		}
		f.ids = append(f.ids, first+int32(st.category(static[i].Text)))
		first += int32(len(st.Categories)) + 1
	}
	return nil
}

// extend adds n rows after the last, with times by the frequency.
func (f *frame) extend(s *schema, n int) {
	if s.HasTime {
		known := f.times[:f.end:f.end]
		freq := s.Freq
		if f.freq.Unit == data.LocalSecond { // where clocks change, the table tells
			freq = f.freq
		}
		f.times = append(known, freq.After(known, n)...)
	}
	f.rows = f.end + n
}

// unseen fits a series that was not in training on its rows.
func (s *schema) unseen(cfg *Config, f *frame) []targetFit {
	var fits []targetFit
	for k, raw := range f.raw {
		rows := raw[:min(max(f.part[trainPart].hi, 2), f.end)]
		fit := s.fitTarget(cfg, rows)
		if cfg.ScalePer == "global" {
			fit.Scaler = s.Pooled[k].Scaler
		}
		fits = append(fits, fit)
	}
	return fits
}

// scaled returns columns in the network's units, and marks of missing values.
func scaled(raw [][]float64, scalers []Scaler) (values, gaps [][]float32) {
	for i, column := range raw {
		x, gap := make([]float32, len(column)), make([]float32, len(column))
		last := float32(0)
		for t, v := range column {
			if math.IsNaN(v) {
				x[t], gap[t] = last, 1
				continue
			}
			x[t] = simd.Narrow(scalers[i].in(v))
			last = x[t]
		}
		values, gaps = append(values, x), append(gaps, gap)
	}
	return values, gaps
}
