package forecast

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
)

func TestForReading(t *testing.T) {
	c := small()
	if err := (&Reading{}).ForReading(&c); err != nil || c.Time != "time" || c.Missing != "error" {
		t.Errorf("nothing given: got %v, %+v", err, c)
	}
	r := Reading{Time: "day", ID: "shop", TZ: "UTC", Freq: data.Every(time.Hour), Missing: "interpolate"}
	if err := r.ForReading(&c); err != nil || c.Time != "day" || c.ID != "shop" || c.TZ != "UTC" || c.Freq != data.Every(time.Hour) || c.Missing != "interpolate" {
		t.Errorf("all given: got %v, %+v", err, c)
	}
	for want, r := range map[string]Reading{
		"no inputs that mark missing values": {Missing: "mask"},
		"time zone":                          {TZ: "Mars/Olympus"},
		"both as time and as target":         {Time: "a"},
	} {
		c := small()
		if err := r.ForReading(&c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", r, err, want)
		}
	}
	c.Missing = "mask"
	if err := (&Reading{Missing: "interpolate"}).ForReading(&c); err != nil || c.Missing != "interpolate" {
		t.Errorf("a model with marks reads interpolated values: got %v", err)
	}
}

// One target, or a past covariate, may end before another: the last value is
// repeated up to the last row with a target, and not beyond.
func TestRepeatLast(t *testing.T) {
	nan := math.NaN()
	p := &data.Panel{Columns: []string{"a", "b", "p"}, Series: []*data.Series{{
		Line: []int{2, 3, 4, 5}, Values: [][]float64{{1, 2, 3, nan}, {4, nan, nan, nan}, {5, 6, nan, nan}}}}}
	cfg := &Config{Target: []string{"a", "b"}, Past: Past{"p"}}
	if err := repeatLast(p, cfg); err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]float64{{1, 2, 3}, {4, 4, 4}, {5, 6, 6}} {
		if v := p.Series[0].Values[i]; !slices.Equal(v[:3], want) || !math.IsNaN(v[3]) {
			t.Errorf("%s: got %v, want %v and NaN", p.Columns[i], v, want)
		}
	}
	p.Series[0].Values[1] = []float64{nan, nan, nan, nan}
	if err := repeatLast(p, cfg); err == nil || !strings.Contains(err.Error(), `column "b": all values are missing`) {
		t.Errorf("got %v", err)
	}
}

// Few rows fit several frequencies.
func TestFrequencyOfFewRows(t *testing.T) {
	panel := func(freq data.Freq, dates ...string) *data.Panel {
		s := &data.Series{}
		for _, d := range dates {
			at, err := time.Parse(time.DateOnly, d)
			if err != nil {
				t.Fatal(err)
			}
			s.Time, s.Line = append(s.Time, at), append(s.Line, 0)
		}
		return &data.Panel{HasTime: true, Freq: freq, Series: []*data.Series{s}}
	}
	daily, business := data.Freq{Unit: data.Day, N: 1}, data.Freq{Unit: data.BusinessDay, N: 1}
	for _, c := range []struct {
		model data.Freq
		panel *data.Panel
		fits  bool
	}{
		{business, panel(daily, "2024-01-08", "2024-01-09", "2024-01-10"), true},
		{daily, panel(business, "2024-01-08", "2024-01-09", "2024-01-10"), true},
		{business, panel(daily, "2024-01-11", "2024-01-12", "2024-01-13"), false},
		{daily, panel(business, "2024-01-12", "2024-01-15"), false},
		{daily, panel(data.Freq{Unit: data.Day, N: 7}, "2024-01-08", "2024-01-15"), false},
	} {
		err := (&schema{HasTime: true, Freq: c.model}).check(c.panel)
		if (err == nil) != c.fits {
			t.Errorf("model of %v, table of %v: got %v", c.model, c.panel.Freq, err)
		}
	}
}

// A few short series among others do not decide window and horizon; many series
// that are not so short do.
func TestTypicalLength(t *testing.T) {
	for _, c := range []struct {
		rows []int
		want int
	}{
		{[]int{100, 100, 1}, 70}, {[]int{1, 100}, 70}, {[]int{5, 100, 100, 9}, 70}, {[]int{100, 40}, 28}, {[]int{12}, 8},
		{slices.Concat(slices.Repeat([]int{3}, 20), slices.Repeat([]int{100}, 10)), 70},
	} {
		var frames []*frame
		for _, n := range c.rows {
			frames = append(frames, &frame{end: n})
		}
		if err := divide(defaultSplit, frames); err != nil {
			t.Fatal(err)
		}
		if got := typical(frames, trainPart); got != c.want {
			t.Errorf("%v rows: got %d, want %d", c.rows, got, c.want)
		}
	}
	if err := divide(defaultSplit, []*frame{{end: 2, id: "a"}, {end: 3, id: "b"}}); err == nil || !strings.Contains(err.Error(), "of 3 rows leave none for test in series b") {
		t.Errorf("got %v, want the error of the longest series", err)
	}
}

// TestRestOfShortSeries: the last rows of a series are its test part, however few
// they are.
func TestRestOfShortSeries(t *testing.T) {
	s, err := parseSplit("rest,3,4")
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]parts{8: {{0, 1}, {1, 4}, {4, 8}}, 7: {{0, 0}, {0, 3}, {3, 7}}, 6: {{0, 0}, {0, 2}, {2, 6}}, 2: {{0, 0}, {0, 0}, {0, 2}}, 0: {}} {
		if got, err := s.rows(n, nil); got != want || (err == nil) != (n > 7) {
			t.Errorf("%d rows: got %v, %v, want %v", n, got, err, want)
		}
	}
}

// A series may be as small as it likes: its forecasts scale with it, exactly for a
// power of two.
func TestTinySeries(t *testing.T) {
	forecast := func(factor float64) []float64 {
		panel, cfg := hourly(1, 400), small()
		cfg.Future, cfg.Epochs, cfg.Transform = nil, 1, "none" // a logarithm rounds
		for i := range panel.Series[0].Values[0] {
			panel.Series[0].Values[0][i] *= factor
		}
		m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range m.Notes() {
			if strings.Contains(n, "constant") {
				t.Errorf("times %v: got the note %q", factor, n)
			}
		}
		f, err := m.Forecast(t.Context(), panel, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f.Series[0].Point
	}
	const factor = 0x1p-60
	want := forecast(1)
	for h, v := range forecast(factor) {
		if v != want[h]*factor {
			t.Errorf("step %d: got %v, want %v", h+1, v, want[h]*factor)
		}
	}
	if !isConstant(1e-13, 1) || isConstant(1e-11, 1) || isConstant(1e-30, 0) || !isConstant(0, 0) {
		t.Error("what rounding can do is constant, and nothing else")
	}
}
