package forecast

import (
	"fmt"
	"slices"
	"testing"
)

// TestNaive2 wants a season of positive values to be continued, and none of others.
func TestNaive2(t *testing.T) {
	for _, c := range []struct {
		add  float64
		want string
	}{
		{0, "[60.000000 30.000000 60.000000]"},
		{-20, "[10.000000 10.000000 10.000000]"},
	} {
		x := append(slices.Repeat([]float64{10 + c.add, 20 + c.add}, 30), 30+c.add)
		f := &frame{raw: [][]float64{x}, given: [][]float64{x}, fit: []targetFit{{Season: 2}}}
		d := &dataset{frames: []*frame{f}}
		forecast := d.naive2([]window{{0, 60}, {0, 61}})
		next := make([]float64, 3)
		if forecast(next, f, 0, 61); fmt.Sprintf("%.6f", next) != c.want {
			t.Errorf("%g in the low season goes on as %v, want %s", 30+c.add, next, c.want)
		}
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
