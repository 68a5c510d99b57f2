package forecast

import (
	"math"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/report"
)

// The verdict names each baseline once, and says nothing of a difference that does
// not count.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name                            string
		by                              string
		mine, naive, seasonal, drift, l float64
		want                            string
		tone                            report.Tone
	}{
		{"better than all", byNetwork, 50, 100, 80, 200, 60,
			"In mean absolute error the network is better than naive by 50.0 %, seasonal naive (7 rows) by 37.5 %, drift by 75.0 %, linear by 16.7 %.", report.Good},
		{"a hair better than linear", byLine, 99.7, 200, 400, 200, 100,
			"In mean absolute error the linear path is better than naive by 50.2 %, seasonal naive (7 rows) by 75.1 %, drift by 50.2 %. It is equal to linear (ridge regression) to within 0.5 %.", report.Caution},
		{"a hair worse than naive", byNetwork, 100.4, 100, 400, 200, 200,
			"In mean absolute error the network is better than seasonal naive (7 rows) by 74.9 %, drift by 49.8 %, linear by 49.8 %. It is equal to naive to within 0.5 %. No method is better than the naive forecast, which repeats the last value.", report.Caution},
		{"worse than all", byNetwork, 100, 50, 80, 90, 25,
			"In mean absolute error the network is not better than naive, which is 50.0 % better; seasonal naive (7 rows), which is 20.0 % better; drift, which is 10.0 % better; linear, which is 75.0 % better.", report.Caution},
		{"no error at all", byNetwork, 0, 0, 0, 0, 0,
			"In mean absolute error the network is equal to naive, seasonal naive (7 rows), drift, linear to within 0.5 %. No method is better than the naive forecast, which repeats the last value.", report.Caution},
		{"nothing is known", byNetwork, math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN(), "", report.Caution},
	} {
		e := &Evaluation{Forecaster: c.by, Season: 7, Metrics: Metrics{MAE: c.mine}, Baselines: map[string]Metrics{
			"naive": {MAE: c.naive}, "seasonal_naive": {MAE: c.seasonal}, "seasonal_naive_7": {MAE: c.seasonal}, "drift": {MAE: c.drift}, "linear": {MAE: c.l}}}
		e.Verdict = e.verdict()
		if e.Verdict != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, e.Verdict, c.want)
		}
		if got := e.Summary().Tone; got != c.tone {
			t.Errorf("%s: tone %q, want %q", c.name, got, c.tone)
		}
		if strings.Contains(e.Verdict, " 0.0 %") {
			t.Errorf("%s: %s", c.name, e.Verdict)
		}
	}
}

// Several targets may have different units: what is small in one and large in the
// other is compared in standard deviations.
func TestSeveralTargetsAreComparedInTheirDeviations(t *testing.T) {
	e := &Evaluation{
		Forecaster: byNetwork, Metrics: Metrics{MAE: 1000, MAEScaled: 0.2},
		Baselines: map[string]Metrics{"naive": {MAE: 500, MAEScaled: 0.4}},
		Targets:   map[string]Metrics{"watts": {MAE: 1999}, "degrees": {MAE: 1}},
	}
	want := "In scaled mean absolute error the network is better than naive by 50.0 %."
	if got := e.verdict(); got != want {
		t.Errorf("verdict %q, want %q", got, want)
	}
	s := e.Summary()
	if s.Facts[0].Name != "scaled MAE" || s.Facts[0].Value != "0.2000" || !s.Tables[0].Rows[0].Best || len(s.Tables) != 2 || len(s.Tables[1].Rows) != 2 {
		t.Errorf("facts %+v, tables %+v", s.Facts, s.Tables)
	}
}

// 80 % intervals are called narrow where so few values in them are no accident.
func TestNarrowIntervals(t *testing.T) {
	for _, c := range []struct {
		coverage float64
		values   int
		note     bool
	}{
		{0.32, 40, true}, {0.55, 28, true}, {0.74, 5000, true},
		{0.76, 5000, false}, // significant, and too little to matter
		{0.70, 30, false}, {0.5, 6, false}, {0.8, 100, false}, {1, 100, false},
	} {
		e := &Evaluation{Nominal: 0.8, Metrics: Metrics{Coverage: c.coverage}}
		if got := e.narrow(c.values); (got != "") != c.note {
			t.Errorf("%v of %d values: %q", c.coverage, c.values, got)
		}
	}
	e := &Evaluation{Nominal: 0.8, Metrics: Metrics{Coverage: 0.472}}
	if got, want := e.narrow(99), "the 80 % intervals cover 47.2 % of the values: they are too narrow for this part of the data"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	none := &Evaluation{Metrics: Metrics{Coverage: math.NaN()}}
	if got := none.narrow(99); got != "" {
		t.Errorf("without intervals: %q", got)
	}
}
