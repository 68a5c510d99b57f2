package report

import (
	"bytes"
	"fmt"
	"image/png"
	"strings"
	"testing"
	"time"
)

// plots draws the same rows of numbers in every kind of plot.
func plots(rows [][]float64) map[string]Plot {
	var series []Series
	var bands []Band
	for i, y := range rows {
		series = append(series, Series{Name: fmt.Sprint(i), Y: y, Dots: i == 1})
		bands = append(bands, Band{Lower: y, Upper: rows[len(rows)-1-i]})
	}
	lines := &Lines{Series: series, Bands: bands, Marks: []Mark{{X: 0, Label: "m"}, {X: nan}, {X: 1e9, Label: "far"}}}
	bars := &Bars{Series: series, Categories: []string{"a", "b", "c"}}
	heat := &Heat{Values: rows, Format: "%.1f"}
	return map[string]Plot{
		"lines":      lines,
		"log lines":  &Lines{X: Axis{Log: true}, Y: Axis{Log: true}, Series: series, Bands: bands},
		"time lines": &Lines{X: Axis{Time: true}, Series: series},
		"fixed axes": &Lines{X: Axis{Min: 0.5, Max: 1.5}, Y: Axis{Min: 0.25, Max: 0.75, Log: true}, Series: series, Bands: bands},
		"own x":      &Lines{Series: []Series{{X: rows0(rows), Y: rows0(rows)}}},
		"bars":       bars,
		"named bars": &Bars{Series: series},
		"heat":       heat,
		"up":         &Heat{Values: rows, Up: true, Diverging: true, Rows: []string{"one"}, Columns: []string{"a very long column name", "b"}},
		"bare":       &Heat{Values: rows, Bare: true, X: Axis{Max: 1}},
		"grid":       &Grid{Columns: 3, Figures: []*Figure{{Title: "t", Plot: lines}, {Plot: bars}, {Plot: heat}, {}}},
	}
}

func rows0(rows [][]float64) []float64 {
	if len(rows) == 0 {
		return nil
	}
	return rows[0]
}

func TestPlotsBearAnyData(t *testing.T) {
	long := make([]float64, 3000)
	for i := range long {
		long[i] = float64(i % 17)
	}
	for name, rows := range map[string][][]float64{
		"nothing": nil, "no values": {{}, {}}, "nil rows": {nil}, "one point": {{3}}, "constant": {{5, 5, 5}, {5, 5, 5}}, "zero": {{0, 0}},
		"NaN": {{nan, nan}}, "infinite": {{inf, -inf}}, "gaps": {{1, nan, 2, inf, 3}, {nan, 1}}, "ragged": {{1}, {1, 2, 3, 4, 5}, {}},
		"huge": {{1e299, -1e299, 1.7e308}}, "tiny": {{1e-300, 2e-300}}, "denormal": {{5e-324, 1}}, "negative": {{-3, -2, -1}},
		"close": {{1e15, 1e15 + 1}, {1, 1 + 1e-15}}, "long": {long, long},
	} {
		for kind, plot := range plots(rows) {
			for _, size := range [][2]int{{0, 0}, {1, 1}, {200, 150}} {
				f := &Figure{Title: "t", Width: size[0], Height: size[1], Plot: plot}
				svg, err := f.svg()
				if err != nil {
					t.Errorf("%s, %s: %v", kind, name, err)
				}
				if strings.Contains(string(svg), "NaN") || strings.Contains(string(svg), "Inf") {
					t.Errorf("%s, %s: a coordinate is not finite", kind, name)
				}
			}
			if name == "gaps" || name == "nothing" {
				if err := (&Figure{Plot: plot}).WritePNG(&bytes.Buffer{}); err != nil {
					t.Errorf("%s, %s: %v", kind, name, err)
				}
			}
		}
	}
}

func TestNoDataIsSaid(t *testing.T) {
	for kind, plot := range plots([][]float64{{nan, inf}}) {
		svg, err := (&Figure{Plot: plot}).svg()
		if err != nil || !strings.Contains(string(svg), ">no data<") {
			t.Errorf("%s of nothing but NaN does not say so (%v)", kind, err)
		}
	}
}

func TestPNGSize(t *testing.T) {
	lines := &Lines{Series: []Series{{Y: []float64{1, 2}}}}
	for _, c := range []struct {
		fig  *Figure
		w, h int
	}{
		{&Figure{Plot: lines}, 1920, 640},
		{&Figure{Title: "t", Plot: lines}, 1920, 696},
		{&Figure{Title: "t", Width: 300, Height: 200, Plot: lines}, 600, 456},
		{&Figure{Plot: &Grid{Figures: []*Figure{{Plot: lines}, {Plot: lines}, {Title: "t", Plot: lines}}}}, 1960, 2 * (270 + 20 + 298)},
		{&Figure{}, 320, 240},
	} {
		var buf bytes.Buffer
		if err := c.fig.WritePNG(&buf); err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if b := img.Bounds(); b.Dx() != c.w || b.Dy() != c.h {
			t.Errorf("%+v: %d x %d pixels, want %d x %d", c.fig, b.Dx(), b.Dy(), c.w, c.h)
		}
	}
}

func TestPNGShowsTheData(t *testing.T) {
	var buf bytes.Buffer
	fig := &Figure{Width: 400, Height: 300, Plot: &Heat{Values: [][]float64{{0, 1}, {1, 0}}, Rows: []string{"", ""}, Columns: []string{"", ""}}}
	if err := fig.WritePNG(&buf); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&buf)
	if err != nil {
		t.Fatal(err)
	}
	dark := func(x, y int) bool {
		r, _, _, _ := img.At(x, y).RGBA()
		return r < 0x4000
	}
	if dark(150, 150) || !dark(500, 150) || !dark(150, 400) || dark(500, 400) {
		t.Errorf("the first row is not on top: %v %v / %v %v", dark(150, 150), dark(500, 150), dark(150, 400), dark(500, 400))
	}
}

func TestThinKeepsPeaksAndGaps(t *testing.T) {
	y := make([]float64, 100_000)
	for i := range y {
		y[i] = 1
	}
	y[12_345], y[54_321], y[77_777] = 9, -9, nan
	x, got := thin(nilX(y), y, 500)
	if len(got) > 1500 || len(x) != len(got) {
		t.Fatalf("%d points, %d abscissas", len(got), len(x))
	}
	var high, low, gap bool
	for i, v := range got {
		switch {
		case v == 9:
			high = x[i] == 12_345
		case v == -9:
			low = x[i] == 54_321
		case v != v:
			gap = x[i] == 77_777
		}
		if i > 0 && x[i-1] == x[i] {
			t.Errorf("point %v twice", x[i])
		}
	}
	if !high || !low || !gap {
		t.Errorf("lost: high %v, low %v, gap %v", high, low, gap)
	}
	b := thinBand(Band{Lower: y, Upper: y}, 500)
	if len(b.X) != 500 || b.X[499] != 99_999 {
		t.Errorf("band: %d points, last at %v", len(b.X), b.X[len(b.X)-1])
	}
	if k := 12_345 * 500 / 100_000; b.Upper[k] != 9 || b.Lower[k] != 1 {
		t.Errorf("band lost its peak: %v to %v", b.Lower[k], b.Upper[k])
	}
}

func nilX(y []float64) []float64 {
	x, _ := withX(nil, y)
	return x
}

func TestThinBandOrdersEdges(t *testing.T) {
	b := thinBand(Band{Lower: []float64{5, nan, 1}, Upper: []float64{2, 3, 4, 9}}, 50)
	if fmt.Sprint(b.X, b.Lower, b.Upper) != "[0 1 2] [2 NaN 1] [5 NaN 4]" {
		t.Errorf("got %v %v %v", b.X, b.Lower, b.Upper)
	}
}

func TestBarsAverageBeyondLimit(t *testing.T) {
	y := make([]float64, 2*maxCategories)
	for i := range y {
		y[i] = float64(i)
	}
	names, values := (&Bars{Series: []Series{{Y: y}}}).grouped()
	if len(names) != maxCategories || names[1] != "3" || values[0][1] != 2.5 {
		t.Errorf("%d groups, second %q = %v", len(names), names[1], values[0][1])
	}
}

func labels(ts []tick) string {
	var s []string
	for _, t := range ts {
		s = append(s, t.label)
	}
	return strings.Join(s, " | ")
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		axis   Axis
		lo, hi float64
		n      int
		whole  bool
		want   string
	}{
		{Axis{}, 0, 10, 5, false, "0 | 2 | 4 | 6 | 8 | 10"},
		{Axis{}, -1, 1, 4, false, "−1.0 | −0.5 | 0.0 | 0.5 | 1.0"},
		{Axis{}, 1, 3, 8, true, "1 | 2 | 3"},
		{Axis{}, 3100, 5900, 4, false, "4,000 | 5,000"},
		{Axis{Step: 3}, 0, 23, 8, true, "0 | 3 | 6 | 9 | 12 | 15 | 18 | 21"},
		{Axis{Step: 3}, 0, 2300, 4, true, "0 | 1,000 | 2,000"},
		{Axis{}, 0, 3e6, 3, false, "0M | 1M | 2M | 3M"},
		{Axis{}, 0, 0.0003, 3, false, "0.0000 | 0.0001 | 0.0002 | 0.0003"},
		{Axis{Log: true}, -4, 0, 5, false, "0.0001 | 0.001 | 0.01 | 0.1 | 1"},
		{Axis{Log: true}, -12, 0, 4, false, "1e-12 | 1e-09 | 1e-06 | 0.001 | 1"},
		{Axis{Log: true}, 0, 1, 6, false, "1 | 2 | 5 | 10"},
	} {
		s := scale{axis: c.axis, lo: c.lo, hi: c.hi, whole: c.whole}
		if got := labels(s.ticks(c.n)); got != c.want {
			t.Errorf("%g to %g: %s, want %s", c.lo, c.hi, got, c.want)
		}
	}
}

func TestTimeTicks(t *testing.T) {
	melbourne, err := time.LoadLocation("Australia/Melbourne")
	if err != nil {
		t.Skip("no time zone data on this machine")
	}
	at := func(s string) float64 {
		v, err := time.ParseInLocation("2006-01-02 15:04", s, melbourne)
		if err != nil {
			t.Fatal(err)
		}
		return float64(v.Unix())
	}
	for _, c := range []struct {
		from, to string
		n        int
		want     string
	}{
		{"2014-05-03 22:00", "2014-05-06 10:00", 4, "4 May 2014 | 5 May | 6 May"},
		{"2014-05-03 10:00", "2014-05-04 04:00", 4, "12:00 | 18:00 | 4 May 2014"},
		{"2014-05-03 10:00", "2014-05-03 10:30", 3, "3 May 2014 10:00 | 10:15 | 10:30"},
		// The clock goes forward on 5 October 2014: the day has 23 hours, midnight stays midnight.
		{"2014-10-04 12:00", "2014-10-06 12:00", 5, "12:00 | 5 Oct 2014 | 12:00 | 6 Oct | 12:00"},
		{"2014-01-01 00:00", "2014-12-31 00:00", 4, "Jan 2014 | Apr 2014 | Jul 2014 | Oct 2014"},
		{"1990-01-01 00:00", "2014-12-31 00:00", 5, "1990 | 1995 | 2000 | 2005 | 2010"},
	} {
		s := scale{axis: Axis{Time: true, Zone: melbourne}, lo: at(c.from), hi: at(c.to)}
		if got := labels(s.ticks(c.n)); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.from, c.to, got, c.want)
		}
	}
}

func TestTimesOutsideNanoseconds(t *testing.T) {
	ts := []time.Time{time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 5e8), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	if got := Times(ts); got[0] >= 0 || got[1] != 0.5 || got[2] != 253370764800 {
		t.Errorf("got %v", got)
	}
}

func TestFit(t *testing.T) {
	if got := fit("short", 12, 200, regular); got != "short" {
		t.Errorf("got %q", got)
	}
	got := fit(strings.Repeat("wide ", 100), 12, 80, regular)
	if !strings.HasSuffix(got, "…") || textWidth(got, 12, regular) > 80 || textWidth(got, 12, regular) < 50 {
		t.Errorf("got %q, %g pixels", got, textWidth(got, 12, regular))
	}
	if got := fit("x", 12, 1, regular); got != "" {
		t.Errorf("got %q where nothing fits", got)
	}
}

// A bare heat map has no numbers of its colours.
func TestBareHeat(t *testing.T) {
	for _, bare := range []bool{false, true} {
		svg, err := (&Figure{Plot: &Heat{Values: [][]float64{{700, 900}}, Rows: []string{"a"}, Columns: []string{"b", "c"}, Bare: bare}}).svg()
		if err != nil {
			t.Fatal(err)
		}
		if got := !strings.Contains(string(svg), ">900<"); got != bare {
			t.Errorf("bare %v: without numbers %v", bare, got)
		}
	}
}
