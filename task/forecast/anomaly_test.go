package forecast

import (
	"bytes"
	"encoding/csv"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// wave is hours of a daily wave with noise, changed by edit.
func wave(n int, noise uint64, edit func(y []float64)) *data.Panel {
	r := rand.New(rand.NewPCG(5, noise))
	s := &data.Series{Values: make([][]float64, 1)}
	begin := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		s.Time, s.Line = append(s.Time, begin.Add(time.Duration(i)*time.Hour)), append(s.Line, i+2)
		s.Values[0] = append(s.Values[0], 100+10*math.Sin(2*math.Pi*float64(i)/24)+r.NormFloat64())
	}
	if edit != nil {
		edit(s.Values[0])
	}
	return &data.Panel{Columns: []string{"y"}, Freq: data.Every(time.Hour), HasTime: true, Series: []*data.Series{s}}
}

func waveConfig() Config {
	cfg := small()
	cfg.Target, cfg.Future, cfg.Horizon, cfg.Lags, cfg.Split = []string{"y"}, nil, 8, []int{0}, "0.4,0.3,0.3"
	return cfg
}

func trained(t *testing.T, panel *data.Panel, cfg Config) *Model {
	t.Helper()
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func detect(t *testing.T, m *Model, panel, calibration *data.Panel, part task.Part, o AnomalyOptions) *Anomalies {
	t.Helper()
	var ordinary *Data
	if calibration != nil {
		ordinary = &Data{Panel: calibration}
	}
	a, err := m.DetectAnomalies(t.Context(), &Data{Panel: panel}, ordinary, part, &o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Of a series like that of the calibration the share that was asked for is flagged,
// within the errors of two binomial samples.
func TestFalseAlarms(t *testing.T) {
	const n = 6000
	panel := wave(n, 1, nil)
	m := trained(t, panel, waveConfig())
	for _, rate := range []float64{0.01, 0.05, 0.2} {
		a := detect(t, m, panel, nil, task.Test, AnomalyOptions{Rate: rate})
		c := a.Calibration[0]
		if a.Values != 0.3*n || c.Values != 0.3*n || c.Rate != rate || a.Missing+a.Unforecast != 0 {
			t.Fatalf("rate %v: %+v", rate, a)
		}
		near(t, "share of false alarms at "+strconv.FormatFloat(rate, 'g', -1, 64), float64(a.Flagged)/float64(a.Values), rate,
			3.3*math.Sqrt(rate*(1-rate)*(1/float64(a.Values)+1/float64(c.Values))))
		for _, s := range a.scored {
			for i, score := range s.score {
				row := s.rows.lo + i
				value := s.frame.raw[0][row]
				lower, upper := s.ordinary(row, c.Threshold)
				flagged := score > c.Threshold
				if inside := lower <= value && value <= upper; flagged != (a.p(0, score) <= rate) || flagged == inside {
					t.Fatalf("rate %v, row %d: value %v in [%v, %v], score %v of %v, p-value %v", rate, row, value, lower, upper, score, c.Threshold, a.p(0, score))
				}
			}
		}
	}
}

// Planted spikes, level shifts and a sensor that is stuck are found, each from its
// first rows on.
func TestPlantedAnomalies(t *testing.T) {
	const n = 6000
	m := trained(t, wave(n, 1, nil), waveConfig())
	type plant struct {
		name      string
		row, rows int
		edit      func(y []float64)
	}
	planted := []plant{
		{"spike", 4500, 1, func(y []float64) { y[0] += 12 }},
		{"dip", 4800, 1, func(y []float64) { y[0] -= 12 }},
		{"level shift", 5000, 24, func(y []float64) {
			for i := range y {
				y[i] += 15
			}
		}},
		{"stuck sensor", 5310, 30, func(y []float64) { // from the top of the wave on
			for i := range y {
				y[i] = y[0]
			}
		}},
		{"large spike", 5700, 1, func(y []float64) { y[0] = 1000 }},
	}
	panel := wave(n, 1, func(y []float64) {
		for _, p := range planted {
			p.edit(y[p.row : p.row+p.rows])
		}
	})
	a := detect(t, m, panel, nil, task.Test, DefaultAnomalies())
	touched := func(row int) bool { // anomalous, or forecast from rows that are
		return slices.ContainsFunc(planted, func(p plant) bool { return row >= p.row && row < p.row+p.rows+m.cfg.Window+a.Origins })
	}
	for _, p := range planted {
		at := slices.IndexFunc(a.Events, func(e Anomaly) bool { return e.Begin.Row-1 < p.row+p.rows && e.End.Row-1 >= p.row })
		if at < 0 {
			t.Errorf("%s at row %d is not found", p.name, p.row)
			continue
		}
		e := a.Events[at]
		if late := e.Begin.Row - 1 - p.row; late > 6 || p.rows == 1 && (e.Peak.Row != p.row+1 || e.Begin.Time != panel.Series[0].Time[e.Begin.Row-1]) || e.Value != panel.Series[0].Values[0][e.Peak.Row-1] {
			t.Errorf("%s at row %d: %+v", p.name, p.row, e)
		}
	}
	ordinary, alarms := 0, 0
	s := a.scored[0]
	for i, score := range s.score {
		if !touched(s.rows.lo + i) {
			ordinary++
			if score > a.Calibration[0].Threshold {
				alarms++
			}
		}
	}
	near(t, "share of false alarms beside anomalies", float64(alarms)/float64(ordinary), 0.01,
		3.3*math.Sqrt(0.01*0.99*(1/float64(ordinary)+1/float64(a.Calibration[0].Values))))
	if e := a.Events[a.strongest(1)[0]]; e.Value != 1000 || e.P != 1/float64(a.Calibration[0].Values+1) {
		t.Errorf("the strongest event is %+v", e)
	}
	page := a.Summary()
	if len(page.Tables) != 1 || len(page.Tables[0].Rows) != len(a.Events) || len(page.Sections) != 3 || !strings.Contains(page.Verdict, "values are flagged") {
		t.Errorf("%+v", page)
	}
}

// until returns a table without the targets after row end, but with the columns known
// ahead over a horizon.
func until(panel *data.Panel, end, horizon int) *data.Panel {
	short := *panel
	short.Series = nil
	for _, s := range panel.Series {
		s = s.Head(min(s.Len(), end+horizon))
		s.Values = slices.Clone(s.Values)
		for c, name := range panel.Columns {
			if name != "x" {
				s.Values[c] = slices.Clone(s.Values[c])
				for row := end; row < s.Len(); row++ {
					s.Values[c][row] = math.NaN()
				}
			}
		}
		short.Series = append(short.Series, s)
	}
	return &short
}

// What comes after a row changes nothing about it.
func TestScoresKnowNothingOfTheFuture(t *testing.T) {
	holes := func(p *data.Panel) {
		for _, s := range p.Series {
			for row := 300; row < s.Len(); row += 17 {
				s.Values[0][row] = math.NaN()
			}
		}
	}
	for _, v := range []struct {
		name string
		set  func(*Config)
		edit func(*data.Panel)
	}{
		{"default", func(*Config) {}, nil},
		{"nothing ahead", func(c *Config) { c.Future, c.Lags = nil, []int{48} }, nil},
		{"past", func(c *Config) { c.Future, c.Past, c.WindowNorm = nil, Past{"p"}, "standard" }, nil},
		{"missing values", func(c *Config) { c.Missing = "mask" }, holes},
		{"joint, quantile", func(c *Config) { c.Target, c.Channels, c.Loss = []string{"a", "b"}, "joint", "quantile" }, nil},
		{"autoregressive", func(c *Config) { c.Head = "autoregressive" }, nil},
		{"without times", func(c *Config) { c.Time = "" }, func(p *data.Panel) {
			p.HasTime, p.Freq = false, data.Freq{}
			for _, s := range p.Series {
				s.Time = nil
			}
		}},
	} {
		panel, cfg := hourly(2, 800), small()
		cfg.Epochs = 1
		v.set(&cfg)
		if v.edit != nil {
			v.edit(panel)
		}
		m := trained(t, panel, cfg)
		o := AnomalyOptions{Rate: 0.1, Origins: 4}
		whole := detect(t, m, panel, nil, task.Test, o)
		if whole.Flagged == 0 {
			t.Errorf("%s: nothing is flagged", v.name)
		}
		for _, end := range []int{661, 700, 750} { // the test begins in row 641
			short := detect(t, m, until(panel, end, cfg.Horizon), nil, task.Test, o)
			if !slices.Equal(short.Calibration, whole.Calibration) {
				t.Fatalf("%s: the calibration changes with rows after it", v.name)
			}
			for i, s := range short.scored {
				n := len(s.score)
				missing := v.name == "missing values" // of the last rows, which the table then ends before
				if !missing && s.rows.hi != end || missing && s.rows.hi < end-2 {
					t.Fatalf("%s: rows %v of %d", v.name, s.rows, end)
				}
				if !slices.EqualFunc(s.score, whole.scored[i].score[:n], func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }) {
					t.Errorf("%s: scores up to row %d change with the rows after it", v.name, end)
				}
			}
		}
	}
}

// A table of its own calibrates as the same rows in the table do, and one that the
// model does not know by all its rows. Rows of the training are compared as well, if
// asked for.
func TestCalibrationTable(t *testing.T) {
	panel := wave(2000, 1, nil)
	m := trained(t, panel, waveConfig())
	own, other := detect(t, m, panel, nil, task.Test, DefaultAnomalies()), detect(t, m, panel, panel, task.Test, DefaultAnomalies())
	if !slices.Equal(own.Calibration, other.Calibration) || own.Flagged != other.Flagged {
		t.Errorf("%+v and %+v", own, other)
	}
	fresh := wave(900, 2, nil)
	for i := range fresh.Series[0].Time {
		fresh.Series[0].Time[i] = fresh.Series[0].Time[i].AddDate(1, 0, 0)
	}
	if a := detect(t, m, panel, fresh, task.Test, DefaultAnomalies()); a.Calibration[0].Values != 900-24-1 {
		t.Errorf("%+v", a.Calibration)
	}
	if a := detect(t, m, panel, nil, task.All, DefaultAnomalies()); a.Values != 2000-24-1 || a.Unforecast != 25 || a.Part != task.All {
		t.Errorf("%+v", a)
	}
	if _, err := m.DetectAnomalies(t.Context(), &Data{Panel: fresh}, nil, task.Test, nil); err == nil || !strings.Contains(err.Error(), "--calibration") {
		t.Errorf("a table without calibration: %v", err)
	}
}

// Few values cannot hold a small rate: the largest is the threshold, and a note says so.
func TestFewCalibrationValues(t *testing.T) {
	panel, cfg := wave(400, 1, func(y []float64) { y[380] = 500 }), waveConfig()
	cfg.Split = "300,30,70"
	a := detect(t, trained(t, panel, cfg), panel, nil, task.Test, DefaultAnomalies())
	c := a.Calibration[0]
	if c.Values != 30 || c.Rate != 1/31. || c.Threshold != a.sorted[0][29] || len(a.Notes) != 1 || !strings.Contains(a.Notes[0], "a rate of 0.01 needs 99") {
		t.Errorf("%+v", a)
	}
	if e := a.Events[a.strongest(1)[0]]; e.Value != 500 || e.P != 1/31. {
		t.Errorf("%+v", e)
	}
}

// Missing values are no anomalies and do not end an event; they are counted.
func TestMissingValuesAreNoAnomalies(t *testing.T) {
	cfg := waveConfig()
	cfg.Missing = "mask"
	panel := wave(2000, 1, func(y []float64) {
		for row := 1700; row < 1712; row++ {
			y[row] += 30
		}
		for _, row := range []int{1450, 1701, 1702} {
			y[row] = math.NaN()
		}
	})
	a := detect(t, trained(t, panel, cfg), panel, nil, task.Test, DefaultAnomalies())
	at := slices.IndexFunc(a.Events, func(e Anomaly) bool { return e.Begin.Row == 1701 })
	if a.Missing != 3 || a.Values != 597 || at < 0 || a.Events[at].Missing != 2 || a.Events[at].Flagged < 2 || !strings.Contains(strings.Join(a.Notes, "\n"), "3 of 600 values are missing") {
		t.Fatalf("%+v", a)
	}
	var b bytes.Buffer
	if err := a.Write(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(lines) != 601 {
		t.Fatalf("%v: %d lines", err, len(lines))
	}
	if got := lines[1+1701-1400]; got[2] != panel.Style.Format(panel.Series[0].Time[1701]) || got[3] != "" || got[4] == "" || got[7] != "" || got[8] != "" || got[9] != "" || got[10] != strconv.Itoa(at+1) {
		t.Errorf("a missing value: %q", got)
	}
	if got := lines[1+1700-1400]; got[9] != "1" || got[10] != strconv.Itoa(at+1) {
		t.Errorf("a flagged value: %q", got)
	}
}

// A constant series has no spread: what differs from it is an anomaly, and nothing
// else is.
func TestAnomalyOfAConstantSeries(t *testing.T) {
	panel := wave(600, 1, func(y []float64) {
		for i := range y {
			y[i] = 1000
		}
	})
	m := trained(t, panel, waveConfig())
	panel.Series[0].Values[0][595] = 1001
	a := detect(t, m, panel, nil, task.Test, DefaultAnomalies())
	if len(a.Events) == 0 || a.Events[0].Begin.Row != 596 || a.Events[0].Value != 1001 || math.IsInf(a.Events[0].Score, 0) {
		t.Errorf("%+v", a)
	}
	a.Summary()
}

// A series that was not in training is compared with the others' errors.
func TestAnomaliesOfAnUnknownSeries(t *testing.T) {
	panel, cfg := hourly(2, 800), small()
	m := trained(t, panel, cfg)
	three := hourly(3, 800)
	three.Series[2].Values[0][500] = 5000
	a := detect(t, m, three, nil, task.Test, DefaultAnomalies())
	at := slices.IndexFunc(a.Events, func(e Anomaly) bool { return e.Series == "C" && e.Peak.Row == 501 })
	if at < 0 || !strings.Contains(strings.Join(a.Notes, "\n"), "fewer than 20 values of series C") {
		t.Errorf("%q %+v", a.Notes, a.Events)
	}
}

func TestAnomalyErrors(t *testing.T) {
	panel := wave(800, 1, nil)
	m := trained(t, panel, waveConfig())
	later := wave(20, 3, nil) // too few for a window
	for i := range later.Series[0].Time {
		later.Series[0].Time[i] = later.Series[0].Time[i].AddDate(1, 0, 0)
	}
	renamed := wave(800, 1, nil)
	renamed.Columns = []string{"z"}
	for _, c := range []struct {
		panel, calibration *data.Panel
		o                  AnomalyOptions
		want               string
	}{
		{panel, panel, AnomalyOptions{}, "rate: want"},
		{panel, panel, AnomalyOptions{Rate: 0.01, Origins: 9}, "origins: want at most the model's horizon of 8, got 9"},
		{panel, panel, AnomalyOptions{Rate: 0.01, Gap: -1}, "gap: want"},
		{until(panel, 400, 0), panel, DefaultAnomalies(), "the test part has no measured value"},
		{later, panel, DefaultAnomalies(), "no value that can be forecast, which needs 25 rows before it; give a longer table"},
		{renamed, panel, DefaultAnomalies(), "lack the columns y, which the model needs"},
		{panel, until(panel, 20, 0), DefaultAnomalies(), "no row that the model was not trained on can be forecast"},
	} {
		if _, err := m.DetectAnomalies(t.Context(), &Data{Panel: c.panel}, &Data{Panel: c.calibration}, task.Test, &c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
