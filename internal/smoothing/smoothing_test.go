package smoothing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// method is what ETS and Theta have in common.
type method interface{ Run(y []float64) *Path }

// methods fits both.
func methods(t *testing.T, y []float64, period int) map[string]method {
	t.Helper()
	e, err := FitETS(t.Context(), y, period)
	if err != nil {
		t.Fatal(err)
	}
	th, err := FitTheta(y, period)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]method{"ets": e, "theta": th}
}

// hostile are series that break careless arithmetic, by name.
func hostile() map[string][]float64 {
	nan := math.NaN()
	r := rand.New(rand.NewPCG(5, 6))
	explosive, gaps, late := make([]float64, 60), seasonalSeries(90, 6), seasonalSeries(90, 6)
	for t := range explosive {
		explosive[t] = math.Pow(1.5, float64(t))
	}
	for t := range gaps {
		if t%7 == 3 || t > 30 && t < 50 {
			gaps[t] = nan
		}
		if t < 13 {
			late[t] = nan
		}
	}
	outlier := seasonalSeries(60, 6)
	outlier[41] = 1e9
	zeros := seasonalSeries(80, 6)
	for t := 30; t < 80; t++ {
		zeros[t] = 0
	}
	walk := make([]float64, 70)
	for t := 1; t < len(walk); t++ {
		walk[t] = walk[t-1] + r.NormFloat64()
	}
	negative := slices.Clone(zeros)
	for t := range negative {
		negative[t] = -negative[t]
	}
	return map[string][]float64{
		"empty": {}, "missing": {nan, nan, nan, nan, nan, nan}, "one": {3}, "one, late": {nan, nan, 3},
		"constant": slices.Repeat([]float64{7}, 40), "zero": make([]float64, 40), "infinite": {1, 2, math.Inf(1), 3, math.Inf(-1), 2, 1, 4},
		"explosive": explosive, "gaps": gaps, "late": late, "outlier": outlier, "zeros": zeros, "walk": walk, "negative": negative,
		"line": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, "steps": {0, 0, 0, 0, 0, 0, 0, 0, 1e6, 1e6, 1e6},
		"huge": {1e299, -1e299, 1e300, 1e308, 1e298, -1e300, 1e299}, "tiny": {1e-310, 3e-310, 2e-310, 4e-310, 1e-310, 3e-310},
		"alternating": slices.Repeat([]float64{1, 1e6}, 20),
	}
}

func TestForecastsAreFinite(t *testing.T) {
	series := hostile()
	for n := 2; n <= 10; n++ {
		series[fmt.Sprint(n, " rows")] = seasonalSeries(n, 4)
	}
	dst := make([]float64, 100)
	for name, y := range series {
		for _, period := range []int{1, 2, 6} {
			for kind, m := range methods(t, y, period) {
				for other, later := range series {
					for _, rows := range [][]float64{y, slices.Concat(y, later), later} {
						p := m.Run(rows)
						for _, origin := range []int{0, len(rows) / 2, len(rows)} {
							p.Forecast(dst, origin)
							for h, v := range dst {
								if math.IsNaN(v) || math.IsInf(v, 0) {
									t.Fatalf("%s of %s (period %d: %+v) over %s: step %d from row %d is %g", kind, name, period, m, other, h+1, origin, v)
								}
							}
						}
					}
				}
			}
		}
	}
}

func TestFewRowsRepeatTheLast(t *testing.T) {
	for _, y := range [][]float64{{4}, {4, 9}, {1, math.NaN(), 5, math.NaN()}, {2, 2, 2, 2, 2, 2, 2}} {
		last := 0.0
		for _, v := range y {
			if !math.IsNaN(v) {
				last = v
			}
		}
		for kind, m := range methods(t, y, 3) {
			got := make([]float64, 3)
			m.Run(y).Forecast(got, len(y))
			near(t, fmt.Sprint(kind, y), got, []float64{last, last, last}, 1e-12)
		}
	}
}

// TestNoLookAhead wants the forecasts from a row to be the same bits whatever follows.
func TestNoLookAhead(t *testing.T) {
	for _, name := range []string{"gaps", "late", "zeros", "walk"} {
		y := hostile()[name]
		for kind, m := range methods(t, y[:60], 6) {
			whole, got, want := m.Run(y), make([]float64, 15), make([]float64, 15)
			for origin := range len(y) + 1 {
				whole.Forecast(got, origin)
				m.Run(y[:origin]).Forecast(want, origin)
				if !slices.Equal(got, want) {
					t.Fatalf("%s of %s: the forecasts from row %d depend on later rows: %g, %g", kind, name, origin, got, want)
				}
			}
		}
	}
}

func TestUnits(t *testing.T) {
	y := seasonalSeries(80, 6)
	want := map[string][]float64{}
	for kind, m := range methods(t, y, 6) {
		want[kind] = make([]float64, 12)
		m.Run(y).Forecast(want[kind], len(y))
	}
	for _, c := range []float64{1e-9, 1e-3, 7, 1e12, -1, -3e7} {
		scaled := slices.Clone(y)
		for i := range scaled {
			scaled[i] *= c
		}
		for kind, m := range methods(t, scaled, 6) {
			got := make([]float64, 12)
			m.Run(scaled).Forecast(got, len(y))
			for i := range got {
				got[i] /= c
			}
			// Below zero a season is added and not multiplied, so that forms differ.
			tolerance := 1e-6
			if c < 0 {
				tolerance = 0.05
			}
			near(t, fmt.Sprintf("%s times %g", kind, c), got, want[kind], tolerance)
		}
	}
}

// TestMissingRows wants missing rows to leave a season in its place, and the forecasts
// close to those with all rows.
func TestMissingRows(t *testing.T) {
	y := seasonalSeries(120, 6)
	for name, gap := range map[string][2]int{"leading": {0, 15}, "inside": {40, 51}, "trailing": {110, 120}} {
		z := slices.Clone(y)
		for i := gap[0]; i < gap[1]; i++ {
			z[i] = math.NaN()
		}
		whole := methods(t, y, 6)
		for kind, m := range methods(t, z, 6) {
			got, want := make([]float64, 12), make([]float64, 12)
			m.Run(z).Forecast(got, len(z))
			whole[kind].Run(y).Forecast(want, len(y))
			near(t, kind+" "+name, got, want, 0.05)
		}
	}
}

// TestLongSeries wants the initial states of a series that is longer than what its
// parameters are fitted to be those of its first rows.
func TestLongSeries(t *testing.T) {
	y := seasonalSeries(fitRows+1300, 8)
	for kind, m := range methods(t, y, 8) {
		p := m.Run(y)
		got := make([]float64, 8)
		for _, origin := range []int{8, 700, len(y) - 8} {
			p.Forecast(got, origin)
			near(t, fmt.Sprint(kind, " from row ", origin), got, y[origin:origin+8], 0.12)
		}
	}
	clear(y[:100]) // zeros that no factors divide, outside of the last rows
	for kind, m := range methods(t, y, 8) {
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, m); err != nil || strings.Contains(string(text), `M"`) {
			t.Errorf("%s after zeros: %.80s: %v", kind, text, err)
		}
	}
}

func TestSpreadCoversErrors(t *testing.T) {
	y := seasonalSeries(400, 6)
	for kind, m := range methods(t, y[:300], 6) {
		p := m.Run(y)
		f, s := make([]float64, 6), make([]float64, 6)
		within, all := 0, 0
		for origin := 300; origin <= 394; origin++ {
			p.Forecast(f, origin)
			p.Spread(s, origin)
			for h := range f {
				if all++; math.Abs(y[origin+h]-f[h]) < 1.645*s[h] {
					within++
				}
			}
		}
		if share := float64(within) / float64(all); share < 0.8 || share > 0.97 {
			t.Errorf("%s: %.2f of the values lie in intervals of 90 %%", kind, share)
		}
	}
}

func TestJSON(t *testing.T) {
	for name, y := range map[string][]float64{"season": seasonalSeries(80, 6), "one": {3}, "walk": hostile()["walk"]} {
		for kind, m := range methods(t, y, 6) {
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			back := reflect.New(reflect.TypeOf(m).Elem()).Interface()
			if err := json.Unmarshal(text, back); err != nil {
				t.Fatalf("%s of %s: %v", kind, name, err)
			}
			if again, _ := json.Marshal(back); !bytes.Equal(text, again) || !reflect.DeepEqual(back, any(m)) {
				t.Errorf("%s of %s: %s came back as %s", kind, name, text, again)
			}
		}
	}
	for text, want := range map[string]string{
		`{"form":"XYZ","alpha":0.1,"phi":1}`:                                     `form: want one of ANN, AAN,`,
		`{"form":"","alpha":0.1,"phi":1}`:                                        `got ""`,
		`{"form":"ANN","alpha":1.1,"phi":1}`:                                     `alpha: want more than 0 and at most 1, got 1.1`,
		`{"form":"AAN","alpha":0.1,"beta":0.2,"phi":1}`:                          `beta: want 0 to alpha = 0.1, got 0.2`,
		`{"form":"ANA","alpha":0.5,"gamma":0.6,"phi":1,"season":[1,2]}`:          `gamma: want 0 to 1-alpha = 0.5, got 0.6`,
		`{"form":"AAdN","alpha":0.5,"phi":1.2}`:                                  `phi: want 1 or 0.8 to 0.98, got 1.2`,
		`{"form":"ANA","alpha":0.5,"phi":1}`:                                     `season: 0 values in a model of form ANA`,
		`{"form":"MNM","alpha":0.5,"phi":1,"level":1,"season":[1,-1]}`:           `have to be positive`,
		`{"form":"ANN","alpha":0.5,"phi":1,"season":[1,2]}`:                      `season: 2 values in a model of form ANN`,
		`{"form":"ANA","alpha":0.5,"phi":1,"level":"high","season":[1.0,2.0,3]}`: `level`,
	} {
		if err := json.Unmarshal([]byte(text), new(ETS)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{`{"alpha":-1}`, `{"alpha":0.1,"factors":true}`, `{"alpha":0.1,"factors":true,"season":[0,1]}`, `{"alpha":"x"}`} {
		if err := json.Unmarshal([]byte(text), new(Theta)); err == nil {
			t.Errorf("%s is read as a method", text)
		}
	}
}

// Numbers keep every bit of a method and end where the next ones begin.
func TestNumbers(t *testing.T) {
	series := hostile()
	series["season"] = seasonalSeries(80, 6)
	for name, y := range series {
		e, err := FitETS(t.Context(), y, 6)
		if err != nil {
			t.Fatal(err)
		}
		th, err := FitTheta(y, 6)
		if err != nil {
			t.Fatal(err)
		}
		ets, rest := ETSOf(append(e.Numbers(), th.Numbers()...))
		theta, rest := ThetaOf(rest)
		if len(rest) > 0 {
			t.Errorf("%s: %d numbers are left", name, len(rest))
		}
		for kind, pair := range map[string][2]method{"ets": {e, ets}, "theta": {th, theta}} {
			want, got := make([]float64, 7), make([]float64, 7)
			pair[0].Run(y).Forecast(want, len(y))
			pair[1].Run(y).Forecast(got, len(y))
			if a, b := fmt.Sprintf("%#v", pair[0]), fmt.Sprintf("%#v", pair[1]); a != b || !slices.Equal(got, want) {
				t.Errorf("%s of %s: %s came back as %s; it forecasts %v, want %v", kind, name, a, b, got, want)
			}
		}
	}
}

func TestFitErrors(t *testing.T) {
	if _, err := FitETS(t.Context(), []float64{1}, -1); err == nil {
		t.Error("ETS takes a period of -1")
	}
	if _, err := FitTheta([]float64{1}, -1); err == nil {
		t.Error("theta takes a period of -1")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FitETS(ctx, seasonalSeries(50, 4), 4); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled fit: %v", err)
	}
}
