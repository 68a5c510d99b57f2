package forecast

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
)

// A week of unlike days repeats; the window sees only a quarter of a day, and
// without lags the network cannot know the day before last.
func weekly(noise float64) *data.Panel {
	r := rand.New(rand.NewPCG(1, 2))
	pattern := make([]float64, 168)
	for i := range pattern {
		pattern[i] = r.NormFloat64()
	}
	s := &data.Series{ID: "w", Values: make([][]float64, 1)}
	for t := range 168 * 8 {
		s.Time = append(s.Time, time.Date(2024, 1, 1, t, 0, 0, 0, time.UTC))
		s.Line = append(s.Line, t+2)
		s.Values[0] = append(s.Values[0], pattern[t%168]+noise*r.NormFloat64())
	}
	return &data.Panel{Columns: []string{"a"}, Freq: data.Every(time.Hour), HasTime: true, Series: []*data.Series{s}}
}

func TestForecastLeansOnASeasonItCannotSee(t *testing.T) {
	for _, c := range []struct {
		name     string
		noise    float64
		least    float64
		most     float64
		worthOne float64 // the error must not exceed this share of seasonal naive's
	}{
		{"the season is all there is", 0.01, 0.9, 1, 1.3},
		{"the season is lost in noise", 50, 0, 0.3, 0.9},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := small()
			cfg.Future, cfg.Window, cfg.Lags, cfg.Calendar = nil, 6, []int{0}, "off"
			panel := weekly(c.noise)
			m, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			share := 0.0
			for _, p := range m.mixture.simpleOf(0) {
				if p.Method == "seasonal_naive_168" {
					share = p.Share
				}
			}
			if share < c.least || share > c.most {
				t.Errorf("the share of the seasonal naive forecast is %v, want %v to %v", share, c.least, c.most)
			}
			e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, simple := e.Metrics.MAE, e.Baselines["seasonal_naive"].MAE; !(got <= c.worthOne*simple) {
				t.Errorf("mean absolute error %v, seasonal naive %v", got, simple)
			}
			dir := t.TempDir()
			if err := m.Save(dir); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			again, err := opened.Evaluate(t.Context(), &Data{Panel: panel}, "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			if math.Float64bits(again.Metrics.MAE) != math.Float64bits(e.Metrics.MAE) {
				t.Errorf("saving and opening changes the error from %v to %v", e.Metrics.MAE, again.Metrics.MAE)
			}
		})
	}
}

func TestRoundedSharesAddUp(t *testing.T) {
	for _, shares := range [][]float64{
		slices.Repeat([]float64{1. / 7}, 7), slices.Repeat([]float64{1. / 3}, 3), {0.0005, 0.9995}, {0, 1}, {0.3004, 0.3004, 0.3992}, {1},
	} {
		sum := 0.0
		for j, share := range rounded(shares) {
			if math.Abs(share-shares[j]) > 0.003 || share != math.Round(1000*share)/1000 || share < 0 {
				t.Errorf("share %v is rounded to %v", shares[j], share)
			}
			sum += 1000 * share
		}
		if math.Round(1e9*sum) != 1e12 {
			t.Errorf("the shares %v add up to %v thousandths", shares, sum)
		}
	}
}

// Seasons of minutes with long windows and horizons would make a linear path of
// thousands of inputs, whose time grows with their cube.
func TestLagsKeepTheLinearPathNarrow(t *testing.T) {
	rows := []*frame{{part: parts{trainPart: {0, 100000}}}}
	for _, c := range []struct {
		window, horizon int
		lags            []int
		before          int
	}{
		{72, 24, []int{1440, 10080, 20160}, 72},
		{300, 300, []int{1440, 10080, 20160}, 75},
		{720, 336, []int{1440, 10080}, 0},
		{720, 1000, []int{1440}, 0},
	} {
		cfg := &Config{Window: c.window, Horizon: c.horizon}
		lags, before := lagsBeside(cfg, data.Every(time.Minute), rows)
		if !slices.Equal(lags, c.lags) || before != c.before {
			t.Errorf("window %d, horizon %d: lags %v, %d rows before, want %v, %d", c.window, c.horizon, lags, before, c.lags, c.before)
		}
		cfg.Lags = []int{1440, 10080, 20160}
		if lags, _ := lagsBeside(cfg, data.Every(time.Minute), rows); len(lags) != 3 {
			t.Errorf("window %d, horizon %d: lags %v of those asked for", c.window, c.horizon, lags)
		}
	}
}

// Of series that repeat a week, which the window does not show, and ones that are noise,
// the former are forecast by the last week and the latter are not; a series that is new
// has the shares of all together. A model that is opened again forecasts the same.
func TestSeriesHaveTheirOwnShares(t *testing.T) {
	panel := weekly(0.01)
	r := rand.New(rand.NewPCG(5, 6))
	first := panel.Series[0]
	for i := range 7 {
		s := &data.Series{ID: string(rune('a' + i)), Time: first.Time, Line: first.Line, Values: [][]float64{slices.Clone(first.Values[0])}}
		if i%2 == 0 {
			for at := range s.Values[0] {
				s.Values[0][at] = r.NormFloat64()
			}
		}
		panel.Series = append(panel.Series, s)
	}
	cfg := small()
	cfg.Future, cfg.Window, cfg.Lags, cfg.Calendar, cfg.Epochs = nil, 6, []int{0}, "off", 2
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	lastWeek := func(id string) (share float64) {
		for _, p := range m.parts(id, 0) {
			if p.Method == "seasonal_naive_168" {
				share = p.Share
			}
		}
		return share
	}
	for _, s := range panel.Series {
		noise := s.ID != "w" && (s.ID[0]-'a')%2 == 0
		if got := lastWeek(s.ID); noise && got > 0.3 || !noise && got < 0.8 {
			t.Errorf("series %s, noise %v: the share of the last week is %v", s.ID, noise, got)
		}
	}
	if got := lastWeek("new"); !(got > 0.3 && got < 0.8) {
		t.Errorf("a new series has the share %v of the last week", got)
	}
	count := 0
	for _, p := range m.shares() {
		count += p.Series
	}
	if count != len(panel.Series) {
		t.Errorf("the largest shares are counted in %d of %d series", count, len(panel.Series))
	}
	for _, even := range []bool{false, true} {
		m.even, m.at(stageScored).even = even, even
		e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, "test", nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := m.Save(dir); err != nil {
			t.Fatal(err)
		}
		opened, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		again, err := opened.Evaluate(t.Context(), &Data{Panel: panel}, "test", nil)
		if err != nil {
			t.Fatal(err)
		}
		if math.Float64bits(again.Metrics.MAE) != math.Float64bits(e.Metrics.MAE) {
			t.Errorf("saving and opening changes the error from %v to %v", e.Metrics.MAE, again.Metrics.MAE)
		}
	}
	m.own["a"][0] = m.own["a"][0][1:]
	if m.own.check(m.mixture) == nil {
		t.Error("shares of a series for too few methods are taken")
	}
}
