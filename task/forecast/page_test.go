package forecast

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// sampleEvaluation is a full evaluation: a made-up model of a daily rhythm.
func sampleEvaluation() *Evaluation {
	simple := func(mae float64) Metrics { // without intervals
		return Metrics{MAE: mae, RMSE: 1.4 * mae, SMAPE: mae / 40, MASE: mae / 240, MSEScaled: mae / 2000, MAEScaled: mae / 900, MAPE: math.NaN(), OWA: math.NaN(), Pinball: math.NaN(), WQL: math.NaN(), Coverage: math.NaN()}
	}
	e := &Evaluation{
		Task: Name, Scored: task.Scored{Part: task.Test}, Windows: 5237, Series: 1, Horizon: 24, Season: 168, Levels: []float64{0.1, 0.5, 0.9}, Nominal: 0.8, Forecaster: byNetwork,
		Metrics:   Metrics{MAPE: math.NaN(), OWA: math.NaN(), RMSSE: 0.6, WQL: 0.024, MAE: 143.27, RMSE: 199.7, SMAPE: 3.21, MASE: 0.588, MSEScaled: 0.0512, MAEScaled: 0.164, Pinball: 60, Coverage: 0.81},
		Baselines: map[string]Metrics{"naive": simple(712.9), "seasonal_naive": simple(243.6), "seasonal_naive_168": simple(243.6), "seasonal_naive_24": simple(320.9), "drift": simple(722.9), "linear": simple(146.3)},
		Verdict:   "The network beats all.", Notes: []string{"A note."},
	}
	for h := range 24 {
		v := 4500 + 900*math.Sin(float64(h-8)*math.Pi/12)
		e.ByStep = append(e.ByStep, StepError{h + 1, 60 + float64(h), map[string]float64{"seasonal_naive": 240, "linear": 65 + float64(h), "naive": 500}})
		e.ByHour = append(e.ByHour, GroupError{fmt.Sprintf("%02d", h), 90, 95, v})
		e.Profile = append(e.Profile, ProfileHour{false, h, v, v + 9}, ProfileHour{true, h, v - 300, v - 290})
	}
	for _, name := range weekdayNames {
		e.ByWeekday = append(e.ByWeekday, GroupError{name, 140, 146, 4500})
	}
	for w := range 4 {
		start := time.Date(2014, time.Month(5+w), 3+2*w, 10, 0, 0, 0, time.FixedZone("AEST", 10*3600))
		s := Sample{Target: "demand_mw", Quantiles: make([][]float64, 3)}
		for i := range 96 {
			v := 4500 + 900*math.Sin(float64(i)*math.Pi/12)
			at := start.Add(time.Duration(i) * time.Hour)
			if i < 72 {
				s.HistoryTime, s.History = append(s.HistoryTime, at), append(s.History, v)
				continue
			}
			s.Time, s.Actual, s.Forecast = append(s.Time, at), append(s.Actual, v+90), append(s.Forecast, v)
			for q, d := range []float64{-60, 0, 60} {
				s.Quantiles[q] = append(s.Quantiles[q], v+d)
			}
		}
		e.Samples = append(e.Samples, s)
	}
	return e
}

// pageOf is the evaluation's part of a page.
func pageOf(t *testing.T, e *Evaluation) (s *report.Summary, html string) {
	t.Helper()
	s = e.Summary()
	page := &report.Page{}
	page.Add("Result", report.Notice{Tone: s.Tone, Text: s.Verdict}, s.Facts, s.Tables[0])
	page.Sections = append(page.Sections, s.Sections...)
	dir := t.TempDir()
	if err := page.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, report.PageFile))
	if err != nil {
		t.Fatal(err)
	}
	pictures, _ := filepath.Glob(filepath.Join(dir, "*.png"))
	for i, p := range pictures {
		pictures[i] = filepath.Base(p)
	}
	if want := []string{"forecast.png", "horizon.png", "hours.png", "profile.png"}; len(e.Samples) > 0 && len(e.ByHour) > 0 && !slices.Equal(pictures, want) {
		t.Errorf("pictures %v, want %v", pictures, want)
	}
	return s, string(b)
}

func TestSummary(t *testing.T) {
	e := sampleEvaluation()
	s, html := pageOf(t, e)
	for _, want := range []string{
		"notice good", "143.3", "-2.1\u00a0%", "linear: 146.3", "5,237", "80\u00a0% interval", "From Tue 6 May 2014, 10:00",
		`<tr class="best"><td>network</td><td class="n">143.3</td>`, "<td>seasonal naive 168</td>", "Error by weekday", "Weekends",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(html, "<svg"); n != 4+2+1+1+1 {
		t.Errorf("%d drawings", n)
	}
	if want := "the test part: 5,237 windows of one series, horizon 24"; s.Scored != want {
		t.Errorf("scored %q, want %q", s.Scored, want)
	}
	var order []string
	for _, r := range s.Tables[0].Rows {
		order = append(order, r.Cells[0])
	}
	if want := []string{"network", "linear", "seasonal naive 168", "seasonal naive 24", "naive", "drift"}; !slices.Equal(order, want) {
		t.Errorf("methods %q, want %q", order, want)
	}
	var b bytes.Buffer
	s.Tables[0].Print(&b)
	if head, _, _ := strings.Cut(b.String(), "\n"); strings.Join(strings.Fields(head), " ") != "method MAE WQL CRPS RMSE sMAPE MASE RMSSE coverage" {
		t.Errorf("columns %q", head)
	}
}

// A model that a simple method beats, or equals, is not the best.
func TestSummaryOfALoss(t *testing.T) {
	for _, simple := range []float64{100, 143.27} {
		e := sampleEvaluation()
		e.Baselines["linear"] = Metrics{MAE: simple}
		s, html := pageOf(t, e)
		if s.Tone != report.Caution || !strings.Contains(html, `<tr class="best"><td>linear</td>`) {
			t.Errorf("linear at %v: tone %s", simple, s.Tone)
		}
	}
}

// What an evaluation lacks is not drawn.
func TestSummaryOfLittle(t *testing.T) {
	nan := math.NaN()
	for name, e := range map[string]*Evaluation{
		"nothing": {Verdict: "Nothing is known."},
		"no number": {Metrics: Metrics{MAE: nan}, Baselines: map[string]Metrics{"naive": {MAE: nan}}, Verdict: "Nothing is known.",
			Profile: []ProfileHour{{false, 3, nan, nan}}, Samples: []Sample{{History: []float64{nan}, Forecast: []float64{nan}, Actual: []float64{nan}}}},
		"perfect":  {Baselines: map[string]Metrics{"naive": {}}, ByStep: []StepError{{Step: 1}}, Series: 3},
		"one hour": {Profile: []ProfileHour{{true, 3, 5, 5}}, ByHour: []GroupError{{Name: "03"}}},
	} {
		if _, html := pageOf(t, e); strings.Contains(html, "NaN") || strings.Contains(html, "Inf") {
			t.Errorf("%s: the page shows what is no number", name)
		}
	}
	// A window that ends before its horizon does, without times.
	e := &Evaluation{Series: 2, Samples: []Sample{{Series: "A", Target: "y", History: []float64{1, 2}, Forecast: []float64{3, 4}, Actual: []float64{3}}}}
	if _, html := pageOf(t, e); !strings.Contains(html, "A y") || !strings.Contains(html, "Steps from the start") {
		t.Error("the window is not shown")
	}
}

// However many and long the windows are, the page stays small.
func TestSummaryStaysSmall(t *testing.T) {
	e := sampleEvaluation()
	base := e.Samples[0]
	for len(e.Samples) < 100 {
		s := base
		s.HistoryTime, s.Time = nil, nil
		s.History, s.Actual, s.Forecast = slices.Repeat(s.History, 200), slices.Repeat(s.Actual, 200), slices.Repeat(s.Forecast, 200)
		s.Quantiles = [][]float64{slices.Repeat(s.Quantiles[0], 200), slices.Repeat(s.Quantiles[2], 200)}
		e.Samples = append([]Sample{s}, e.Samples...)
	}
	e.ByStep = slices.Repeat(e.ByStep, 200)
	var html bytes.Buffer
	if err := (&report.Page{Sections: e.Summary().Sections}).WriteHTML(&html); err != nil || html.Len() > 2<<20 {
		t.Errorf("the page has %d bytes, %v", html.Len(), err)
	}
}

// A table in memory and one read from its file give the same parts, description and
// forecasts, and a training leaves the table as it is.
func TestData(t *testing.T) {
	var b strings.Builder
	b.WriteString("time,y,x\n")
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 300 {
		fmt.Fprintf(&b, "%s,%.3f,%d\n", at.Add(time.Duration(i)*time.Hour).Format(time.RFC3339), 10+math.Sin(float64(i)*math.Pi/12), i%5)
	}
	path := filepath.Join(t.TempDir(), "y.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := small()
	cfg.Time, cfg.Target, cfg.Future, cfg.Past, cfg.Epochs = "time", []string{"y"}, nil, Past{"x"}, 1
	d, err := Read(t.Context(), &Files{Data: path}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.String(); got != "y.csv: 300 rows at 1h from 2024-01-01T00:00:00Z to 2024-01-13T11:00:00Z" {
		t.Errorf("the table is %q", got)
	}
	values := slices.Clone(d.Panel.Series[0].Values[0])
	m, _, err := Train(t.Context(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Window, cfg.Scale = 12, "minmax" // the same table serves another training
	if _, _, err := Train(t.Context(), d, cfg, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(values, d.Panel.Series[0].Values[0]) || d.Panel.Series[0].Len() != 300 {
		t.Error("training changed the table")
	}
	fromFile, err := m.Predict(t.Context(), task.Input{File: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	inMemory, err := m.Forecast(t.Context(), d.Panel, nil)
	if err != nil || !slices.Equal(fromFile.Series[0].Point, inMemory.Series[0].Point) {
		t.Errorf("%v: the file's forecast is %v, the table's %v", err, fromFile.Series[0].Point, inMemory.Series[0].Point)
	}
	var input *data.InputError
	if _, err := m.Predict(t.Context(), task.Input{Stream: strings.NewReader("1\n")}, nil); !errors.As(err, &input) {
		t.Errorf("a stream gives %v", err)
	}
	for split, want := range map[string][4]bool{ // train, validation, test, all
		"":            {true, true, true, true},
		"0.8,0.2,0":   {true, true, false, true},
		"1,0,0":       {true, false, false, true},
		"rest,400,40": {true, true, true, true}, // more than there is: an error for who needs the parts
	} {
		cfg.Split = split
		d, err := NewData(d.Panel, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range append(slices.Clone(partNames), task.All) {
			if d.Has(part) != want[i] {
				t.Errorf("split %q: has %s is %v", split, part, !want[i])
			}
		}
	}
}
