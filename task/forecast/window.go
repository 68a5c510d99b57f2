package forecast

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/report"
)

// dataset cuts windows from frames and writes them as inputs of the network.
type dataset struct {
	*schema
	cfg    *Config
	frames []*frame
	empty  []string // series without a value, which have no frame

	chosen   *ridge                // in training: the linear path of training and validation
	out      *unseen               // in training: what the linear path forecast of windows left out
	trained  bool                  // smoothing is not fitted to the rows of validation
	inside   bool                  // smoothing is fitted to all rows of training, also those after the first window
	smoothed map[string][]smoothed // by series, then target; see smooth
	earlier  *knownForecasts       // of a stream; nil: none
	shape
}

// shape is the sizes of inputs and outputs; see fillEncoder, fillDecoder and
// fillLinear.
type shape struct {
	targets  int // K
	channels int // targets in one row of the network: 1 or K
	window   int
	horizon  int
	segment  int // rows of one step of the network
	read     int // steps that the encoder reads: those of the window, without target history those of the horizon as well
	encoder  int // inputs per step of the encoder
	decoder  int // inputs per step of the decoder; 0: there is none
	lookback int // rows before the origin of which the linear path sees the target: the window, none without target history
	linear   int // inputs of the linear path
	history  int // rows before the origin of which they include the covariates
	groups   int // kinds of time that the linear path distinguishes; 0: none
	outputs  int // outputs per target and step
	reach    int // rows of history that a window needs
	table    int // rows of the embedding table of static categories
	ids      int // static categories per series
}

// window is a forecast: origin is the first row that is not known.
type window struct{ frame, origin int32 }

func newShape(s *schema, cfg *Config) shape {
	k := len(cfg.targets())
	d := shape{targets: k, channels: 1, window: cfg.Window, horizon: cfg.Horizon, outputs: outputsOf(cfg), groups: s.Calendar.Groups, segment: max(1, cfg.Segment)}
	gaps := 1
	if masked(cfg) {
		gaps = 2
	}
	name := k // one-hot input of the target
	if cfg.Channels == "joint" {
		d.channels, name = k, 0
	}
	if k == 1 {
		name = 0
	}
	numbers := 0
	for i := range s.Static {
		if c := s.Static[i].Categories; c != nil {
			d.table += len(c) + 1
			d.ids++
		} else {
			numbers++
		}
	}
	ahead := gaps*len(s.Ahead) + s.Calendar.width()
	always := numbers + name
	d.read = d.steps(d.window)
	if cfg.NoTargetHistory {
		d.read += d.steps(d.horizon)
		d.encoder = d.segment*(gaps*len(s.Past)+ahead) + always
		if len(s.Past) > 0 {
			d.encoder++ // the position in the horizon
		}
	} else {
		d.lookback = d.window
		d.encoder = d.segment*(gaps*(d.channels+len(s.Past))+ahead) + always
		d.decoder = d.segment * (ahead + d.channels*len(s.Lags))
	}
	if d.decoder > 0 || d.segment > 1 && !cfg.NoTargetHistory {
		d.decoder += 1 + always
	}
	d.linear, d.history = linearWidth(s, cfg, numbers)
	d.reach = d.window
	for _, lag := range s.Lags {
		d.reach = max(d.reach, lag+s.Before)
	}
	if cfg.Head == "autoregressive" {
		d.encoder = gaps*d.channels + ahead + d.channels*len(s.Lags) + always
		for _, lag := range s.Lags {
			d.reach = max(d.reach, d.window+lagBack(lag, d.horizon))
		}
	}
	return d
}

// steps returns the number of the network's steps for a number of rows.
func (d *shape) steps(rows int) int { return (rows + d.segment - 1) / d.segment }

// lagBack returns the least multiple of a season that is at least the horizon.
func lagBack(season, horizon int) int { return (horizon + season - 1) / season * season }

// seasonalRow returns the row that the seasonal naive forecast of step h (from 0)
// repeats.
func seasonalRow(origin, h, season int) int { return origin + h - (h+season)/season*season }

func outputsOf(cfg *Config) int {
	switch cfg.Loss {
	case "quantile":
		return len(cfg.Quantiles)
	case "gaussian", "negative-binomial":
		return 2
	case "student-t":
		return 3
	}
	return 1
}

// windows returns the windows whose targets are all in a part of their series.
// Their history may begin before the part.
func (d *dataset) windows(part, stride int) []window {
	var list []window
	for i, f := range d.frames {
		p := f.part[part]
		for o := max(p.lo, d.reach); o+d.horizon <= p.hi; o += stride {
			if d.anyTarget(f, o) {
				list = append(list, window{int32(i), int32(o)})
			}
		}
	}
	return list
}

// toScore returns the windows by which a part is scored, and the rows from one to
// the next: those from every origin or, without target history, which makes them
// alike, those that cover each row of the part once.
func (d *dataset) toScore(part int) (list []window, stride int) {
	if !d.cfg.NoTargetHistory {
		return d.windows(part, 1), 1
	}
	for i, f := range d.frames {
		for _, w := range d.cover(i, f.part[part].lo, f.part[part].hi) {
			if int(w.origin) >= f.part[part].lo && d.anyTarget(f, int(w.origin)) {
				list = append(list, w)
			}
		}
	}
	return list, d.horizon
}

// cover returns windows one after the other over the rows [lo,hi) of a frame. The
// last one ends with them, so it may begin within the one before it, or before lo.
// Rows without enough history have none.
func (d *dataset) cover(frame, lo, hi int) (list []window) {
	lo = max(lo, d.reach)
	for o := lo; o < hi; o += d.horizon {
		if o = min(o, hi-d.horizon); o < d.reach {
			break
		}
		list = append(list, window{int32(frame), int32(o)})
	}
	return list
}

// repeated returns, for the windows of a list without target history, the number
// of their first steps that the window before forecasts as well.
func (d *dataset) repeated(list []window) map[window]int {
	steps := map[window]int{}
	for i := 1; i < len(list) && d.cfg.NoTargetHistory; i++ {
		if before, w := list[i-1], list[i]; before.frame == w.frame {
			steps[w] = max(0, int(before.origin)+d.horizon-int(w.origin))
		}
	}
	return steps
}

// anyTarget reports whether some target of a window was measured.
func (d *dataset) anyTarget(f *frame, origin int) bool {
	for _, gap := range f.yGap {
		if slices.Contains(gap[origin:origin+d.horizon], 0) {
			return true
		}
	}
	return false
}

// about describes windows and parts in one line.
func (d *dataset) about() string {
	text := fmt.Sprintf("window %d, horizon %d", d.window, d.horizon)
	first := d.frames[0]
	for _, f := range d.frames {
		if f.part != first.part || f.times != nil && !f.times[0].Equal(first.times[0]) {
			return text + "; each series divided by " + d.cfg.Split
		}
	}
	for _, part := range []int{validationPart, testPart} {
		if p := first.part[part]; p.len() > 0 {
			begin := "row " + report.Count(p.lo+1)
			if first.times != nil {
				begin = d.Clocks.Format(first.times[p.lo])
			}
			text += fmt.Sprintf(", %s from %s", partNames[part], begin)
		}
	}
	return text
}

// centre is the shift and the scale of a window's units.
type centre struct{ shift, scale float32 }

// from converts v to the window's units.
func (c centre) from(v float64) float64 { return (v - float64(c.shift)) / float64(c.scale) }

// of is from in float32, with zero for subnormal results.
func (c centre) of(v float32) float32 {
	return simd.Narrow(float64(simd.Narrow(float64(v)-float64(c.shift))) / float64(c.scale))
}

// leastDeviation is a lower bound on the scale of windows that hardly vary.
const leastDeviation = 1e-2

func (d *dataset) centre(f *frame, k, origin int) centre {
	switch d.cfg.WindowNorm {
	case "last":
		return centre{f.known(k, origin-1, origin), d.Unit}
	case "mean", "standard":
		sum, squares := 0.0, 0.0
		for row := origin - d.window; row < origin; row++ {
			v := float64(f.known(k, row, origin))
			sum += v
			squares += v * v
		}
		n := float64(d.window)
		c := centre{simd.Narrow(sum / n), d.Unit}
		if d.cfg.WindowNorm == "standard" {
			c.scale = max(float32(math.Sqrt(math.Max(0, squares/n-sum/n*sum/n))), leastDeviation)
		}
		return c
	}
	return centre{0, d.Unit}
}

// unitWindows is the number of windows that fitUnit uses.
const unitWindows = 2000

// fitUnit sets Unit to the root mean square of centred windows, unless they are
// nothing but the rounding of their values.
func (d *dataset) fitUnit(train []window) {
	sum, values, n := 0.0, 0.0, 0
	for _, w := range thin(train, (len(train)+unitWindows-1)/unitWindows) {
		f, origin := d.frames[w.frame], int(w.origin)
		for k := range d.targets {
			c := d.centre(f, k, origin)
			for row := origin - d.window; row < origin; row++ {
				v := f.known(k, row, origin)
				z := float64(c.of(v))
				sum += z * z
				values += float64(v) * float64(v)
				n++
			}
		}
	}
	if size := math.Sqrt(sum / float64(n)); size > 1e-6*math.Sqrt(values/float64(n)) && d.cfg.WindowNorm != "standard" {
		d.Unit = float32(size)
	}
}

// seen returns the targets [lo,hi) in row k of the network: that target, or all.
func (d *dataset) seen(k int) (lo, hi int) {
	if d.channels > 1 {
		return 0, d.targets
	}
	return k, k + 1
}

// fillEncoder writes the inputs of one row of the network [read,encoder]: for
// each table row of a segment its targets (target k, or all), marks of missing
// values, past covariates and what is known over the horizon, and then what is
// constant for the series. The last segment of the window ends at the origin; the
// first repeats the window's first row where it lacks rows. Without target history
// there are no targets, and the segments of the horizon follow, the last of which
// repeats the horizon's last row; past covariates are zeros there, and the position
// in the horizon tells its steps from those of the window.
func (d *dataset) fillEncoder(dst []float32, f *frame, k, origin int, centres []centre) {
	lo, hi := d.seen(k)
	if d.cfg.NoTargetHistory {
		hi = lo
	}
	known := d.steps(d.window)
	begin := origin - known*d.segment
	for step := range d.read {
		x := dst[step*d.encoder : (step+1)*d.encoder]
		n := 0
		for i := range d.segment {
			row := min(max(begin+step*d.segment+i, origin-d.window), origin+d.horizon-1)
			for c := lo; c < hi; c++ {
				x[n] = centres[c].of(f.known(c, row, origin))
				n++
			}
			if masked(d.cfg) {
				n += gather(x[n:], f.yGap[lo:hi], row)
				for _, gap := range f.pastGap {
					if x[n] = 1; row < origin {
						x[n] = gap[row]
					}
					n++
				}
			}
			for p := range f.past {
				if row < origin {
					x[n] = f.knownPast(p, row, origin)
				}
				n++
			}
			n += d.fillAhead(x[n:], f, row)
		}
		if d.cfg.NoTargetHistory && len(f.past) > 0 {
			x[n] = float32(max(0, step-known+1)) / float32(d.read-known)
			n++
		}
		d.fillAlways(x[n:], f, k)
	}
}

// fillDecoder writes the inputs of one row of the network [steps,decoder]: for
// each table row of a segment what is known over the horizon and the seasonal
// naive forecasts of seasons longer than the window, and then the position in the
// horizon and what is constant for the series. The last segment repeats the
// horizon's last row where it goes beyond it.
func (d *dataset) fillDecoder(dst []float32, f *frame, k, origin int, centres []centre) {
	lo, hi := d.seen(k)
	steps := d.steps(d.horizon)
	for step := range steps {
		x := dst[step*d.decoder : (step+1)*d.decoder]
		n := 0
		for i := range d.segment {
			h := min(step*d.segment+i, d.horizon-1)
			n += d.fillAhead(x[n:], f, origin+h)
			for _, lag := range d.Lags {
				row := seasonalRow(origin, h, lag)
				for c := lo; c < hi; c++ {
					x[n] = centres[c].of(f.known(c, row, origin))
					n++
				}
			}
		}
		x[n] = float32(step+1) / float32(steps)
		d.fillAlways(x[n+1:], f, k)
	}
}

// fillUnrolled writes the inputs of one row [steps,encoder] of an autoregressive
// network from the row first on: a row's targets, and what is known of the next
// row.
func (d *dataset) fillUnrolled(dst []float32, f *frame, k, first, steps int, centres []centre) {
	lo, hi := d.seen(k)
	for i := range steps {
		row := first + i
		x := dst[i*d.encoder : (i+1)*d.encoder]
		n := 0
		for c := lo; c < hi; c++ {
			if row < f.end {
				x[n] = centres[c].of(f.known(c, row, row+1))
			}
			n++
		}
		if masked(d.cfg) && row < f.end {
			gather(x[n:], f.yGap[lo:hi], row)
		}
		if masked(d.cfg) {
			n += hi - lo
		}
		n += d.fillAhead(x[n:], f, row+1)
		for _, lag := range d.Lags {
			for c := lo; c < hi; c++ {
				back := row + 1 - lagBack(lag, d.horizon)
				x[n] = centres[c].of(f.known(c, back, back+1))
				n++
			}
		}
		d.fillAlways(x[n:], f, k)
	}
}

// gather copies one row of columns and returns their number.
func gather(dst []float32, columns [][]float32, row int) int {
	for i, column := range columns {
		dst[i] = column[row]
	}
	return len(columns)
}

func (d *dataset) fillAhead(dst []float32, f *frame, row int) int {
	n := gather(dst, f.ahead, row)
	if masked(d.cfg) {
		n += gather(dst[n:], f.aheadGap, row)
	}
	width := d.Calendar.width()
	return n + copy(dst[n:], f.cal[row*width:(row+1)*width])
}

func (d *dataset) fillAlways(dst []float32, f *frame, k int) {
	n := copy(dst, f.numbers)
	if d.channels == 1 && d.targets > 1 {
		for c := range d.targets {
			dst[n+c] = 0
		}
		dst[n+k] = 1
	}
}

// mostLinear is the largest number of inputs with which the linear path has the
// covariates over the window; beyond, it has them over the horizon only or, if it
// has nothing else of the past, over as many rows before it.
const mostLinear = 900

// linearWidth returns the number of inputs that fillLinear writes, and the rows
// before the origin of which they include the covariates.
func linearWidth(s *schema, cfg *Config, numbers int) (width, history int) {
	curved := 0
	for _, binary := range s.Binary {
		if !binary {
			curved++
		}
	}
	width = 2 + len(s.Lags)*(s.Before+cfg.Horizon) + (len(s.Ahead)+curved)*cfg.Horizon + s.Calendar.annual() + numbers
	columns := len(s.Past) + len(s.Ahead)
	history = cfg.Window
	switch {
	case cfg.NoTargetHistory:
		history = min(history, max(1, (mostLinear-width)/columns))
	case width+cfg.Window+columns*history > mostLinear:
		history = 0
	}
	if !cfg.NoTargetHistory {
		width += cfg.Window
	}
	return width + columns*history, history
}

// fillLinear writes the inputs of the linear path for target k [linear]: one, the
// window, the rows one lag before the forecast's and those before them, covariates
// over the horizon with their squares and over the window, the harmonics of the year,
// static numbers, and last the window's level. The kind of time, group, is separate.
func (d *dataset) fillLinear(dst []float32, f *frame, k, origin int, c centre) {
	dst[0] = 1
	n := 1
	for row := origin - d.lookback; row < origin; row++ {
		dst[n] = c.of(f.known(k, row, origin))
		n++
	}
	for _, lag := range d.Lags {
		for row := origin - d.Before - lag; row < origin-lag; row++ {
			dst[n] = c.of(f.known(k, row, origin))
			n++
		}
		for h := range d.horizon {
			dst[n] = c.of(f.known(k, seasonalRow(origin, h, lag), origin))
			n++
		}
	}
	for i, column := range f.ahead {
		next := column[origin : origin+d.horizon]
		n += copy(dst[n:], next)
		if !d.Binary[i] {
			for _, v := range next {
				dst[n] = simd.Narrow(float64(v) * float64(v))
				n++
			}
		}
		n += copy(dst[n:], column[origin-d.history:origin])
	}
	for i := range f.past {
		for row := origin - d.history; row < origin; row++ {
			dst[n] = f.knownPast(i, row, origin)
			n++
		}
	}
	if d.Calendar.annual() > 0 {
		n += d.Calendar.yearly(dst[n:], f.times[origin])
	}
	n += copy(dst[n:], f.numbers)
	dst[n] = c.shift
}

// groupAt returns the kind of time of a window's first step.
func (d *dataset) groupAt(f *frame, origin int) int32 {
	if d.groups == 0 {
		return 0
	}
	return f.group[origin]
}

// fillTarget writes target k over the horizon, and 1 if it was measured, else 0.
func (d *dataset) fillTarget(y, weight []float32, f *frame, k, origin int, c centre) {
	for h := range d.horizon {
		row := origin + h
		if row >= f.end || f.yGap[k][row] != 0 {
			y[h], weight[h] = 0, 0
			continue
		}
		y[h], weight[h] = c.of(f.y[k][row]), 1
	}
}
