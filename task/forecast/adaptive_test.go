package forecast

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
)

// cut returns a panel's first rows.
func cut(p *data.Panel, rows int) *data.Panel {
	short := *p
	short.Series = nil
	for _, s := range p.Series {
		short.Series = append(short.Series, s.Head(rows))
	}
	return &short
}

// targetAlone is small without the covariate, which later rows would need.
func targetAlone() Config {
	cfg := small()
	cfg.Future = nil
	return cfg
}

// A table that goes on after the training's has forecasts whose intervals adapt to the
// rows since. Neither other series nor other levels change a bit of one.
func TestForecastDependsOnItsSeriesAndLevelAlone(t *testing.T) {
	all := hourly(20, 700)
	some := *all
	some.Series = all.Series[:2]
	m, _, err := Train(t.Context(), &Data{Panel: cut(&some, 500)}, targetAlone(), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.mixture = mixture{{{Method: ownPart, Share: 0.5}, {Method: "ets", Share: 0.5}}}
	first := func(p *data.Panel, levels ...float64) SeriesForecast {
		f, err := m.Forecast(t.Context(), p, &PredictOptions{Quantiles: levels})
		if err != nil {
			t.Fatal(err)
		}
		return f.Series[0]
	}
	alone := *all
	alone.Series = all.Series[:1]
	want := first(&alone, 0.1, 0.9)
	got := first(all, 0.1, 0.9)
	if !slices.Equal(got.Point, want.Point) || !slices.Equal(got.Quantiles[0], want.Quantiles[0]) || !slices.Equal(got.Quantiles[1], want.Quantiles[1]) {
		t.Errorf("beside other series: %v %v, alone %v %v", got.Point, got.Quantiles, want.Point, want.Quantiles)
	}
	for _, levels := range [][]float64{{0.1}, {0.02, 0.1, 0.98}} {
		if got := first(&alone, levels...).Quantiles[slices.Index(levels, 0.1)]; !slices.Equal(got, want.Quantiles[0]) {
			t.Errorf("level 0.1 of %v: %v, want %v", levels, got, want.Quantiles[0])
		}
	}
	m.spread = nil // as of an older model
	if fixed := first(&alone, 0.1, 0.9); slices.Equal(fixed.Quantiles[0], want.Quantiles[0]) {
		t.Error("the intervals have not adapted to the rows since the training, so nothing was tested")
	}
}

// The spread of a series lasts where there is no test part, and of a series that is
// too short for one.
func TestSpreadLastsWithoutTestPart(t *testing.T) {
	cfg := targetAlone()
	cfg.Split = "0.7,0.3,0"
	m, _, err := Train(t.Context(), &Data{Panel: hourly(2, 500)}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"A", "B"} {
		begin := m.at(stageScored).spread[id]
		if begin == nil || !slices.Equal(m.spread[id][0], begin[0]) {
			t.Errorf("series %s: spread %v, at the end of validation %v", id, m.spread[id], begin)
		}
	}
}

// A model of an older version has no spreads, and its intervals stay as they are.
func TestIntervalsWithoutSpreadsStay(t *testing.T) {
	panel := hourly(1, 700)
	m, _, err := Train(t.Context(), &Data{Panel: cut(panel, 500)}, targetAlone(), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.spread, m.mixture = nil, nil
	got, err := m.Forecast(t.Context(), panel, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.dataset(panel, true)
	if err != nil {
		t.Fatal(err)
	}
	err = m.forecastAll(t.Context(), d, []window{{0, 700}}, got.Levels, func(_ window, _ int, s *steps) {
		for h, want := range s.quantiles {
			for i := range want {
				if q := got.Series[0].Quantiles[i][h]; q != want[i] {
					t.Errorf("step %d, level %v: %v, want %v", h+1, got.Levels[i], q, want[i])
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestQuantilesOfCountsAreWholeNumbers(t *testing.T) {
	panel, cfg := hourly(1, 500), targetAlone()
	for i, v := range panel.Series[0].Values[0] {
		panel.Series[0].Values[0][i] = math.Floor(v / 20)
	}
	cfg.Loss, cfg.Quantiles = "negative-binomial", []float64{0.1, 0.9}
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.spread = spreads{"A": {slices.Repeat([]float64{0.3}, cfg.Horizon)}}
	f, err := m.Forecast(t.Context(), panel, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range slices.Concat(f.Series[0].Quantiles...) {
		if q != math.Trunc(q) {
			t.Errorf("quantile %v of counts", q)
		}
	}
}

// A table that holds one window is learnt from, without choices by windows left out.
func TestOneTrainingWindow(t *testing.T) {
	panel := &data.Panel{Columns: []string{"a"}, Freq: data.Every(time.Hour), Series: []*data.Series{{Values: [][]float64{{3, 5, 4, 6, 8, 7, 9, 11, 10, 12}}}}}
	for i := range 10 {
		panel.Series[0].Line = append(panel.Series[0].Line, i+2)
	}
	for _, c := range []struct {
		split  string
		window int
	}{{"1,0,0", 8}, {"rest,0,2", 6}} {
		cfg := targetAlone()
		cfg.Time, cfg.Window, cfg.Horizon, cfg.Split = "", c.window, 2, c.split
		m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(c.split, err)
		}
		if err := m.Save(t.TempDir()); err != nil {
			t.Error(c.split, err)
		}
		f, err := m.Forecast(t.Context(), panel, nil)
		if err != nil || slices.ContainsFunc(f.Series[0].Point, math.IsNaN) {
			t.Errorf("split %s: %v, %v", c.split, f, err)
		}
	}
}

// A target without a value in the rows that the shares are chosen on has no shares of
// simple methods.
func TestTargetThatComesLater(t *testing.T) {
	panel, cfg := hourly(1, 500), targetAlone()
	cfg.Target, cfg.Missing = []string{"a", "b"}, "mask"
	for i := range 450 {
		panel.Series[0].Values[1][i] = math.NaN()
	}
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(t.TempDir()); err != nil {
		t.Error(err)
	}
	if own := m.mixture.own(1); own != 1 {
		t.Errorf("the network's share is %v, want 1", own)
	}
}

// Errors that become three times as large leave the intervals for a while; after that
// they hold their share again, and narrow when the errors do.
func TestIntervalsFollowTheErrors(t *testing.T) {
	const outside, horizon, rows = 0.2, 1, 3000
	r := rand.New(rand.NewPCG(1, 2))
	f := &frame{raw: [][]float64{make([]float64, rows)}, end: rows}
	for i := range rows {
		f.raw[0][i] = r.NormFloat64()
		if i >= 1000 && i < 2000 {
			f.raw[0][i] *= 3
		}
	}
	a := newAdapter(nil, &dataset{shape: shape{targets: 1, horizon: horizon}})
	within := make([]float64, 3) // of the later half of each thousand rows
	for origin := range rows {
		a.compare(f, 0, origin, outside)
		width := 1.2816 * math.Exp(a.width(0, 0))
		a.issued[0] = append(a.issued[0], issued{origin: origin, low: []float64{-width}, high: []float64{width}})
		if origin%1000 >= 500 && math.Abs(f.raw[0][origin]) <= width {
			within[origin/1000] += 1.0 / 500
		}
	}
	for part, share := range within {
		if math.Abs(share-(1-outside)) > 0.05 { // 2.8 standard errors of 500 values
			t.Errorf("part %d: %.3f of the values are within intervals of 80 %%", part, share)
		}
	}
}

// Values outside the intervals of the first steps widen those of steps that no value has
// been compared with yet; values inside leave these as they are.
func TestIntervalsOfFarStepsFollowNearOnes(t *testing.T) {
	const outside, horizon = 0.2, 12
	for _, c := range []struct {
		name         string
		value        float64
		least, most  float64 // of the logarithm of the last step's factor
		first, below float64 // of the first step's
	}{
		{"all outside", 9, 1, 4, 1, 4},
		{"all inside", 0, 0, 0, -2, -0.1},
	} {
		f := &frame{raw: [][]float64{slices.Repeat([]float64{c.value}, 20)}, end: 20}
		a := newAdapter(nil, &dataset{shape: shape{targets: 1, horizon: horizon}})
		for origin := range horizon {
			a.compare(f, 0, origin, outside)
			one := issued{origin: origin}
			for h := range horizon {
				width := math.Exp(a.width(0, h))
				one.low, one.high = append(one.low, -width), append(one.high, width)
			}
			a.issued[0] = append(a.issued[0], one)
		}
		if first, last := a.width(0, 0), a.width(0, horizon-1); !(last >= c.least && last <= c.most && first >= c.first && first <= c.below) {
			t.Errorf("%s: the factors' logarithms are %v of the first and %v of the last step", c.name, first, last)
		}
	}
}

// What a config.json says of shares and spreads is checked when it is opened.
func TestDamagedSharesAndSpreads(t *testing.T) {
	for name, x := range map[string]mixture{
		"unknown method": {{{Method: "linear", Share: 0.5}, {Method: "oracle", Share: 0.5}}},
		"no season":      {{{Method: "seasonal_naive_0", Share: 1}}},
		"sum":            {{{Method: "linear", Share: 0.5}, {Method: "ets", Share: 0.4}}},
		"negative":       {{{Method: "linear", Share: 1.5}, {Method: "ets", Share: -0.5}}},
		"not a number":   {{{Method: "linear", Share: math.NaN()}}},
		"targets":        {{{Method: "linear", Share: 1}}, {{Method: "linear", Share: 1}}},
	} {
		if x.check(1) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := (mixture{{{Method: "linear", Share: 0.25}, {Method: "seasonal_naive_24", Share: 0.75}}}).check(1); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]spread{"targets": {}, "steps": {{0}}, "size": {{0, 4}}, "number": {{0, math.NaN()}}} {
		if (spreads{"a": s}).check(1, 2) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := (spreads{"a": {{-3, 3}}}).check(1, 2); err != nil {
		t.Error(err)
	}
}
