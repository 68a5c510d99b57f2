package smoothing

import (
	"math"
	"slices"
	"testing"
)

// The factors are those of statsmodels' seasonal_decompose (multiplicative), of the
// first five years of AirPassengers and of a season of odd length.
func TestSeason(t *testing.T) {
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
		near(t, "factors", Season(c.x, len(c.want), true), c.want, 1e-12)
	}
	// Without trend and noise a season that is added comes back exactly.
	near(t, "added", Season(slices.Repeat([]float64{7, 9, 14}, 4), 3, false), []float64{-3, -1, 4}, 1e-12)
	for name, c := range map[string]struct {
		x    []float64
		want bool
	}{
		"a season":   {[]float64{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}, true},
		"no season":  {[]float64{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8}, false},
		"too short":  {[]float64{1, 2, 3, 1, 2, 3, 1, 2}, false},
		"with zeros": {[]float64{0, 2, 3, 0, 2, 3, 0, 2, 3, 0, 2, 3}, true},
		"missing":    {[]float64{1, 2, 3, 1, math.NaN(), 3, 1, 2, 3, 1, 2, 3}, false},
		"constant":   {[]float64{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, false},
	} {
		if IsSeasonal(c.x, 3) != c.want {
			t.Errorf("%s is seasonal: %v", name, !c.want)
		}
	}
}

// Values that are missing in a season do not hide it.
func TestBridge(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct{ in, want []float64 }{
		{[]float64{1, nan, nan, 4}, []float64{1, 2, 3, 4}},
		{[]float64{nan, 2, nan}, []float64{2, 2, 2}},
		{[]float64{5}, []float64{5}},
		{nil, nil},
	} {
		if got := Bridge(c.in); !slices.Equal(got, c.want) {
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
	if !IsSeasonal(clear, 24) || !IsSeasonal(Bridge(season), 24) {
		t.Error("a season with a gap of 30 rows does not show")
	}
}
