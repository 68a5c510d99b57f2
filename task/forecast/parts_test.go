package forecast

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"gonum.org/v1/gonum/stat/distuv"
)

func TestDefaultsNeedATarget(t *testing.T) {
	cfg := Defaults()
	if err := cfg.Validate(); err == nil {
		t.Error("a configuration without a target is valid")
	}
	cfg.Target = []string{"y"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestScaler(t *testing.T) {
	x := []float64{4, 8, math.NaN(), 6, 2, 100}
	for _, c := range []struct {
		kind         string
		log          bool
		shift, scale float64
	}{
		{"standard", false, 24, 38.05260},
		{"robust", false, 6, (8 - 4) / 1.349},
		{"minmax", false, 2, 98},
		{"none", false, 0, 1},
		{"minmax", true, math.Log(2), math.Log(50)},
	} {
		s := fitScaler(c.kind, c.log, x)
		near(t, c.kind+" shift", s.Shift, c.shift, 1e-4)
		near(t, c.kind+" scale", s.Scale, c.scale, 1e-4)
		near(t, c.kind+" there and back", s.out(s.in(37)), 37, 1e-9)
	}
	if s := fitScaler("standard", false, []float64{1e9, 1e9, 1e9}); s.Scale != 1 {
		t.Errorf("a constant column is scaled by %v", s.Scale)
	}
}

func TestSplit(t *testing.T) {
	var times []time.Time
	begin := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100 {
		times = append(times, begin.AddDate(0, 0, i))
	}
	for text, want := range map[string]parts{
		"":                      {{0, 70}, {70, 80}, {80, 100}},
		"0.6,0.2,0.2":           {{0, 60}, {60, 80}, {80, 100}},
		"50,10,20":              {{0, 50}, {50, 60}, {60, 80}},
		"rest,10,20":            {{0, 70}, {70, 80}, {80, 100}},
		"40,10,rest":            {{0, 40}, {40, 50}, {50, 100}},
		"2024-03-01,2024-04-01": {{0, 60}, {60, 91}, {91, 100}},
	} {
		s, err := parseSplit(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.rows(100, times)
		if err != nil || got != want {
			t.Errorf("%q: got %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"rest,60,40", "90,10,10"} {
		s, err := parseSplit(text)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := s.rows(100, nil); err == nil {
			t.Errorf("%q divides 100 rows into %v", text, p)
		}
	}
}

func TestSeasonalRow(t *testing.T) {
	for _, c := range []struct{ h, season, want int }{{0, 24, 76}, {23, 24, 99}, {24, 24, 76}, {47, 24, 99}, {3, 1, 99}, {0, 100, 0}} {
		if got := seasonalRow(100, c.h, c.season); got != c.want {
			t.Errorf("step %d of season %d repeats row %d, want %d", c.h, c.season, got, c.want)
		}
	}
	f := &frame{raw: [][]float64{{1, 2, 3, 4, 5, math.NaN()}}}
	got := make([]float64, 3)
	seasonal(got, f, 0, 6, 2)
	for h, want := range []float64{5, 4, 5} { // row 5 is missing: the cycle before it
		near(t, "seasonal", got[h], want, 0)
	}
	drift(got, f, 0, 6)
	for h, want := range []float64{7, 8, 9} {
		near(t, "drift", got[h], want, 1e-12)
	}
	naive(got, f, 0, 6)
	near(t, "naive", got[2], 5, 0)
}

func TestMetrics(t *testing.T) {
	var s score
	fit := &targetFit{Deviation: 2, Seasonal: 4}
	s.add(0, 10, 12, fit)
	s.add(0, -4, 4, fit)
	s.add(0, math.NaN(), 1, fit)
	s.add(0, 0, 0, fit)
	m := s.metrics()
	near(t, "mse", m.MSE, 68./3, 1e-12)
	near(t, "mae", m.MAE, 10./3, 1e-12)
	near(t, "rmse", m.RMSE, math.Sqrt(68./3), 1e-12)
	near(t, "smape", m.SMAPE, (200*2./22+200)/3, 1e-12)
	near(t, "mase", m.MASE, 10./12, 1e-12)
	near(t, "mse scaled", m.MSEScaled, 68./12, 1e-12)
	near(t, "mae scaled", m.MAEScaled, 10./6, 1e-12)
	s.addQuantiles(3, []float64{0.1, 0.9}, []float64{1, 2})
	s.addQuantiles(3, []float64{0.1, 0.9}, []float64{1, 5})
	m = s.metrics()
	near(t, "pinball", m.Pinball, (0.1*2+0.9*1+0.1*2+0.1*2)/4, 1e-12)
	near(t, "coverage", m.Coverage, 0.5, 0)
	if text, err := json.Marshal(Metrics{MASE: math.NaN()}); err != nil || !strings.Contains(string(text), `"mase":null`) {
		t.Errorf("%s %v", text, err)
	}
}

func TestNegativeBinomialQuantile(t *testing.T) {
	const mean, alpha = 7.5, 0.4
	var draws []float64
	r := rand.New(rand.NewPCG(1, 2))
	gamma := distuv.Gamma{Alpha: 1 / alpha, Beta: 1 / (alpha * mean), Src: r}
	for range 40000 {
		draws = append(draws, distuv.Poisson{Lambda: gamma.Rand(), Src: r}.Rand())
	}
	sorted := thinSorted(draws, len(draws))
	for _, q := range []float64{0.05, 0.3, 0.5, 0.9, 0.99} {
		near(t, "quantile", negativeBinomialQuantile(mean, alpha, q, 0), sortedQuantile(sorted, q), 0.5)
	}
	if got := negativeBinomialQuantile(1e-3, 1e-6, 0.5, 0); got != 0 {
		t.Errorf("the median of almost nothing is %v", got)
	}
}

func TestStudentQuantile(t *testing.T) {
	for _, nu := range []float64{2, 2.01, 3, 10, 50} {
		for _, q := range []float64{1e-9, 1e-4, 0.025, 0.1, 0.3, 0.45, 0.5, 0.9, 0.999} {
			want := distuv.StudentsT{Sigma: 1, Nu: nu}.Quantile(q)
			near(t, "quantile", studentQuantile(nu, q), want, 1e-9*(1+math.Abs(want)))
		}
	}
}

func TestInterpolatedQuantiles(t *testing.T) {
	levels, z := []float64{0.1, 0.5, 0.9}, []float64{1, 2, 4}
	for q, want := range map[float64]float64{0.01: 1, 0.1: 1, 0.3: 1.5, 0.5: 2, 0.7: 3, 0.9: 4, 0.99: 4} {
		near(t, "quantile", interpolated(levels, z, q), want, 1e-12)
	}
}

func TestCalendar(t *testing.T) {
	year := 365 * day
	for _, c := range []struct {
		freq          string
		covered       time.Duration
		width, groups int
	}{
		{"1h", 3 * year, 2*2 + 2 + 7, 168},
		{"1h", year, 2*2 + 7, 168},
		{"1h", 40 * day, 2*2 + 7, 168},
		{"1h", 10 * day, 2 * 2, 24},
		{"30min", year, 2*2 + 7, 336},
		{"15min", year, 2*2 + 7, 168},
		{"1d", 3 * year, 7 + 4, 7},
		{"1b", year, 7, 7},
		{"1w", 3 * year, 4, 0},
		{"1mo", 8 * year, 12, 12},
		{"1y", 30 * year, 0, 0},
	} {
		freq, err := data.ParseFreq(c.freq)
		if err != nil {
			t.Fatal(err)
		}
		got := newCalendar(freq, c.covered)
		if got.width() != c.width || got.Groups != c.groups {
			t.Errorf("%s over %v: width %d, groups %d, want %d and %d", c.freq, c.covered, got.width(), got.Groups, c.width, c.groups)
		}
	}
	// The wall clock counts: noon in Melbourne is noon, whatever UTC says.
	zone := time.FixedZone("", 11*3600)
	cal := newCalendar(data.Every(time.Hour), year)
	at := time.Date(2024, 5, 4, 12, 0, 0, 0, zone) // a Saturday
	if got := cal.group(at); got != 5*24+12 {
		t.Errorf("group %d, want %d", got, 5*24+12)
	}
	x := make([]float32, cal.width())
	cal.fill(x, at)
	near(t, "sine of noon", float64(x[0]), 0, 1e-6)
	near(t, "cosine of noon", float64(x[1]), -1, 1e-6)
	near(t, "Saturday", float64(x[4+5]), 1, 0)
}

// TestRidgeSolvesItsEquations checks the solution by the equation it must solve:
// the gradient of the penalised squares is zero.
func TestRidgeSolvesItsEquations(t *testing.T) {
	cfg := small()
	_, d, err := prepare(t.Context(), &Data{Panel: hourly(1, 500)}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	train := d.windows(trainPart, 1)
	eq, err := newNormal(t.Context(), d, 0, train)
	if err != nil {
		t.Fatal(err)
	}
	const lambda = 3
	w := eq.solve(rising(0, d.linear+d.groups), lambda)
	x, y, groups := d.design(0, train, false)
	gradient := make([]float64, d.linear+d.groups)
	const step = 2 // of the horizon
	for i := range train {
		e := w.At(d.linear+int(groups[i]), step) - y.At(i, step)
		for j := range d.linear {
			e += x.At(i, j) * w.At(j, step)
		}
		for j := range d.linear {
			gradient[j] += e * x.At(i, j)
		}
		gradient[d.linear+int(groups[i])] += e
	}
	for j := range gradient {
		near(t, "gradient", gradient[j]+lambda*w.At(j, step), 0, 1e-6)
	}
}

// TestSkipIsTheRidge compares the network before training with the regression
// that it starts at.
func TestSkipIsTheRidge(t *testing.T) {
	cfg := small()
	cfg.Target = []string{"a", "b"}
	panel := hourly(2, 500)
	m, d, err := prepare(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := d.windows(testPart, 7)
	var linear baseline
	baselines, err := d.baselines(t.Context(), m.ridge, list)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range baselines {
		if b.name == "linear" {
			linear = b
		}
	}
	want := make([]float64, d.horizon)
	err = m.forecastAll(t.Context(), d, list, nil, func(w window, k int, s *steps) {
		linear.forecast(want, d.frames[w.frame], k, int(w.origin))
		for h := range want {
			if math.Abs(s.point[h]-want[h]) > 1e-3*math.Abs(want[h]) {
				t.Errorf("window %v target %d step %d: %v, the regression says %v", w, k, h, s.point[h], want[h])
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformalIntervals(t *testing.T) {
	m := &Model{residuals: residuals{{{1, 2, 3, 4, 5, 6, 7, 8, 9}}}}
	for q, want := range map[float64]float64{0.5: 0, 0.9: 8, 0.1: -8, 0.95: 9, 0.999: 9, 0.001: -9, 0.75: 5, 0.25: -5} {
		near(t, "distance", m.residual(0, 0, q), want, 0)
	}
}

func TestCertainty(t *testing.T) {
	pairs := func(advantages ...float64) []pair {
		var list []pair
		for i, a := range advantages {
			list = append(list, pair{window: window{0, int32(i)}, truth: 0, line: 2, full: 2 - a})
		}
		return list
	}
	near(t, "the same advantage everywhere", certainty(pairs(1, 1, 1, 1), 1, 1, false), 1, 1e-12)
	near(t, "a disadvantage", certainty(pairs(-1, -1, -1, -1), 1, 1, false), 0, 0)
	// Mean 1, deviation 1: four windows apart have a standard error of a half,
	// but count as one where the horizon makes them overlap.
	near(t, "half sure", certainty(pairs(0, 2, 0, 2), 1, 1, false), 0.75, 1e-12)
	near(t, "overlapping", certainty(pairs(0, 2, 0, 2), 1, 4, false), 0, 1e-12)
	near(t, "best share", bestGain([]pair{{truth: 1, line: 0, full: 2}}, false), 0.5, 1e-12)
}
