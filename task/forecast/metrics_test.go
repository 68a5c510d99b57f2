package forecast

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// The numbers are those of Python's utilsforecast 0.2.17 (mae, mse, mape, smape,
// mase, rmsse with seasonality 2, coverage, winkler_score, mqloss, scaled_crps) for
// the same two series.
func TestMetricsAsUtilsforecast(t *testing.T) {
	type series struct {
		train, y, low, point, high []float64
		want                       Metrics
	}
	levels := []float64{0.1, 0.5, 0.9}
	all := []series{
		{
			[]float64{3, 5, 4, 6, 2, 7, 5, 8, 3, 6}, []float64{4, 9, 5, 7}, []float64{3, 6, 4, 5}, []float64{5, 7.5, 5, 8}, []float64{6, 8, 6, 9},
			Metrics{MAE: 0.875, MSE: 1.0625, RMSE: 1.0307764064044151, MAPE: 13.988095238095238, SMAPE: 2 * 6.717171717171717, MASE: 0.5384615384615384,
				RMSSE: 0.5830951894845301, Pinball: 0.32083333333333336, WQL: 0.10266666666666667, Coverage: 0.75, Winkler: 5.25},
		},
		{
			[]float64{100, 130, 90, 160, 120, 150, 80, 170, 110, 140}, []float64{95, 180, 100, 0}, []float64{80, 120, 101, 10}, []float64{100, 150, 110, 40}, []float64{130, 175, 140, 60},
			Metrics{MAE: 21.25, MSE: 656.25, RMSE: 25.617376914898998, MAPE: 10.64327485380117, SMAPE: 2 * 29.1042291042291, MASE: 0.85,
				RMSSE: 0.9514054938842341, Pinball: 6.491666666666666, WQL: 0.13848888888888888, Coverage: 0.25, Winkler: 88.5},
		},
	}
	var total score
	for i, c := range all {
		var own score
		fit := &targetFit{}
		fit.Seasonal, fit.SeasonalRMS = seasonalErrors(c.train, 2)
		for h, y := range c.y {
			for _, s := range []*score{&own, &total} {
				s.add(i, y, c.point[h], fit)
				s.addQuantiles(y, levels, []float64{c.low[h], c.point[h], c.high[h]})
			}
		}
		got := own.metrics()
		for name, pair := range map[string][2]float64{
			"mae": {got.MAE, c.want.MAE}, "mse": {got.MSE, c.want.MSE}, "rmse": {got.RMSE, c.want.RMSE}, "mape": {got.MAPE, c.want.MAPE},
			"smape": {got.SMAPE, c.want.SMAPE}, "mase": {got.MASE, c.want.MASE}, "rmsse": {got.RMSSE, c.want.RMSSE}, "pinball": {got.Pinball, c.want.Pinball},
			"wql": {got.WQL, c.want.WQL}, "coverage": {got.Coverage, c.want.Coverage}, "winkler": {got.Winkler, c.want.Winkler},
		} {
			near(t, name, pair[0], pair[1], 1e-9)
		}
	}
	got := total.metrics()
	near(t, "rmsse is the mean of the series", got.RMSSE, (0.5830951894845301+0.9514054938842341)/2, 1e-12)
	near(t, "wql of all values", got.WQL, 0.13625, 1e-12)
	near(t, "mase of all values", got.MASE, (0.5384615384615384+0.85)/2, 1e-12)
}

// What the data leave undefined is null, and metrics of intervals are absent where
// there are none, also where they would be 0.
func TestMetricsThatAreNotThere(t *testing.T) {
	fit := &targetFit{}
	var bare, single, missed score
	for _, s := range []*score{&bare, &single, &missed} {
		s.add(0, 0, 1, fit)
	}
	single.addQuantiles(0, []float64{0.5}, []float64{1})
	missed.addQuantiles(0, []float64{0.1, 0.9}, []float64{1, 2})
	for _, c := range []struct {
		name          string
		of            score
		present, lack []string
	}{
		{"no quantiles", bare, []string{`"mape":null`, `"mase":null`, `"rmsse":null`, `"mae":1`}, []string{"pinball", "wql", "coverage", "winkler"}},
		{"the median alone", single, []string{`"pinball":0.5`}, []string{"coverage", "winkler"}},
		{"an interval that covers nothing", missed, []string{`"coverage":0`, `"winkler":11`}, []string{"wql"}}, // the mean value is 0
	} {
		text, err := json.Marshal(c.of.metrics())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.present {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: %s lacks %s", c.name, text, want)
			}
		}
		for _, no := range c.lack {
			if strings.Contains(string(text), no) {
				t.Errorf("%s: %s has %s", c.name, text, no)
			}
		}
	}
}

func TestSeasonalErrors(t *testing.T) {
	absolute, rms := seasonalErrors([]float64{1, 5, math.NaN(), 8, 4, 4}, 2)
	near(t, "mean of |3| and |-4|", absolute, 3.5, 1e-12) // the pairs with the missing value are left out
	near(t, "root of the mean square", rms, math.Sqrt(12.5), 1e-12)
}
