package forecast

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// The factors are those of statsmodels' seasonal_decompose (multiplicative), of the
// first five years of AirPassengers and of a season of odd length.
func TestNaive2(t *testing.T) {
	for _, c := range []struct {
		x, want []float64
	}{
		{
			[]float64{
				112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118, 115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140, 145, 150, 178, 163, 172, 178, 199, 199,
				184, 162, 146, 166, 171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194, 196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201,
			},
			[]float64{
				0.9106345009657295, 0.9380801300405925, 1.0590210804762428, 0.9962340923287099, 0.9776627020743003, 1.0807809700326223,
				1.174789985872351, 1.1776308580169155, 1.0578385176761265, 0.9163505395570588, 0.7993373586573138, 0.9116392643020369,
			},
		},
		{[]float64{10, 21, 33, 11, 20, 31, 12, 24, 35, 11, 22, 30, 13, 25, 36, 12, 23, 37}, []float64{0.5248036220517555, 0.9995974116530807, 1.4755989662951636}},
	} {
		for i, got := range seasonalFactors(c.x, len(c.want)) {
			near(t, "factor", got, c.want[i], 1e-12)
		}
	}
	for name, c := range map[string]struct {
		x    []float64
		want bool
	}{
		"a season":     {[]float64{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}, true},
		"no season":    {[]float64{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8}, false},
		"too short":    {[]float64{1, 2, 3, 1, 2, 3, 1, 2}, false},
		"not positive": {[]float64{0, 2, 3, 0, 2, 3, 0, 2, 3, 0, 2, 3}, false},
		"constant":     {[]float64{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, false},
	} {
		if isSeasonal(c.x, 3) != c.want {
			t.Errorf("%s is seasonal: %v", name, !c.want)
		}
	}
	x := append(slices.Repeat([]float64{10, 20}, 30), 30)
	f := &frame{raw: [][]float64{x}, given: [][]float64{x}, fit: []targetFit{{Season: 2}}}
	d := &dataset{frames: []*frame{f}}
	forecast := d.naive2([]window{{0, 60}, {0, 61}})
	next := make([]float64, 3)
	if forecast(next, f, 0, 61); fmt.Sprintf("%.6f", next) != "[60.000000 30.000000 60.000000]" {
		t.Errorf("30 in the low season goes on as %v, want 60, 30, 60", next)
	}
}

// The organisers of M4 publish sMAPE 18.383 and 13.912 for these (MASE is scaled by
// more rows there).
func TestBaselinesOnM4Hourly(t *testing.T) {
	cfg := Defaults()
	cfg.Layout, cfg.Split, cfg.Window, cfg.Horizon, cfg.Calendar, cfg.Lags, cfg.WindowStride = "rows", "rest,48,48", 24, 48, "off", []int{0}, 97
	if err := cfg.Freq.UnmarshalText([]byte("1h")); err != nil {
		t.Fatal(err)
	}
	panel := read(t, sharedFile(t, "forecast/Hourly-train.csv"), cfg)
	rest := read(t, sharedFile(t, "forecast/Hourly-test.csv"), cfg)
	for i, s := range panel.Series {
		s.Values[0] = append(s.Values[0], rest.Series[i].Values[0]...)
		s.Line = append(s.Line, rest.Series[i].Line...)
	}
	b := scoreBaselines(t, panel, cfg)
	near(t, "naive2", b["naive2"].SMAPE, 18.383, 5e-4)
	near(t, "seasonal naive", b["seasonal_naive_24"].SMAPE, 13.912, 5e-4)
	near(t, "OWA of naive2", b["naive2"].OWA, 1, 1e-12)
	near(t, "OWA of seasonal naive", b["seasonal_naive_24"].OWA, 0.6275, 2e-3)
}

// Values that are missing in a season do not hide it.
func TestBridged(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct{ in, want []float64 }{
		{[]float64{1, nan, nan, 4}, []float64{1, 2, 3, 4}},
		{[]float64{nan, 2, nan}, []float64{2, 2, 2}},
		{[]float64{5}, []float64{5}},
		{nil, nil},
	} {
		if got := bridged(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
	season := make([]float64, 240)
	for i := range season {
		season[i] = 100 + 10*math.Sin(2*math.Pi*float64(i)/24)
	}
	clear := slices.Clone(season)
	for i := 100; i < 130; i++ {
		season[i] = nan
	}
	if !isSeasonal(clear, 24) || !isSeasonal(bridged(season), 24) {
		t.Error("a season with a gap of 30 rows does not show")
	}
}
