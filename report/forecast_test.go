package report

import (
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestForecastWrite(t *testing.T) {
	dir := t.TempDir()
	f := sampleForecast()
	if err := f.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"loss.png", "forecast.png", "horizon.png", "hours.png", "profile.png"} {
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		file.Close()
	}
	html, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		f.Verdict, "notice good", "143.3 MW", "−2.1 %", "Linear: 146.3", "best: 17", "54,321", "97 s", "Seasonal naive", "80 % interval",
		`<tr class="best"><td>LSTM</td><td class="n">39,876</td><td class="n">143.3</td>`, "Error by weekday and hour", "From Tue 6 May 2014, 10:00",
	} {
		want = strings.ReplaceAll(want, "'", "&#39;")
		if !strings.Contains(string(html), want) {
			t.Errorf("report lacks %q", want)
		}
	}
	if n := strings.Count(string(html), "<svg"); n != 4+2+4+3 {
		t.Errorf("%d drawings", n)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 6 {
		t.Errorf("%d files in the directory, want 6", len(entries))
	}
}

func TestForecastNotBest(t *testing.T) {
	f := sampleForecast()
	f.Scores[2].Values[1] = 100
	f.Verdict = "The LSTM does not beat seasonal naive."
	html := render(t, f.Page())
	for _, want := range []string{"notice caution", `<tr class="best"><td>Seasonal naive</td>`, "&#43;43.3 %"} {
		if !strings.Contains(html, want) {
			t.Errorf("report lacks %q", want)
		}
	}
	f.Scores[2].Values[1] = f.Scores[0].Values[1]
	if f.best() != 2 {
		t.Error("a tie must not count as the model's win")
	}
	f.MetricName = "mase"
	if f.best() != 0 {
		t.Errorf("best by mase is %d", f.best())
	}
}

func TestForecastWithoutData(t *testing.T) {
	nans := []float64{nan, nan}
	hollow := &Forecast{
		Verdict: "Nothing is known.", Metrics: []string{"smape"}, Scores: []Score{{"lstm", nil}, {"", nans}},
		Training: Training{History: []Epoch{{}}, BestEpoch: 3}, ByStep: []Series{{Y: nans}}, ByHour: []Series{{}}, ByWeekday: []Series{{Y: nans}}, WeekHour: [][]float64{nil, nans},
		Profiles: []Profile{{}, {Truth: nans}}, Samples: []Sample{{}, {Median: nans, History: []float64{1}}},
	}
	for name, f := range map[string]*Forecast{"empty": {}, "hollow": hollow} {
		dir := t.TempDir()
		if err := f.Write(dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		html, _ := os.ReadFile(filepath.Join(dir, "report.html"))
		if strings.Contains(string(html), "<svg") || strings.Contains(string(html), "NaN") {
			t.Errorf("%s: report draws what is not there", name)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "*.png")); len(files) > 0 {
			t.Errorf("%s: %v", name, files)
		}
	}
	if !strings.Contains(render(t, hollow.Page()), "notice neutral") {
		t.Error("a verdict without scores must not be good or bad")
	}
}

func TestForecastRaggedSamples(t *testing.T) {
	one := []float64{1}
	f := &Forecast{Samples: []Sample{
		{Truth: one}, {Median: []float64{1, 2, 3}, Truth: one, Lower: one, Upper: []float64{4, 5, 6, 7}},
		{History: one, Median: one, Times: []time.Time{time.Unix(0, 0)}},
	}}
	if n := len(f.sampleFigure().Plot.(*Grid).Figures); n != 3 {
		t.Errorf("%d panels", n)
	}
	render(t, f.Page())
}

func TestForecastStaysSmall(t *testing.T) {
	f := sampleForecast()
	base := f.Samples[0]
	for len(f.Samples) < 100 {
		s := base
		s.History = slices.Repeat(s.History, 200)
		s.Truth, s.Median = slices.Repeat(s.Truth, 200), slices.Repeat(s.Median, 200)
		s.Lower, s.Upper, s.Times = slices.Repeat(s.Lower, 200), slices.Repeat(s.Upper, 200), nil
		f.Samples = append([]Sample{s}, f.Samples...)
	}
	for e := 21; e < 20_000; e++ {
		f.History = append(f.History, Epoch{Epoch: e, LR: 1e-3, TrainLoss: float64(e % 13), ValLoss: float64(e % 7), Val: float64(e % 5)})
	}
	for i := range f.ByStep {
		f.ByStep[i].Y = slices.Repeat(f.ByStep[i].Y, 200)
	}
	if n := len(render(t, f.Page())); n > 2<<20 {
		t.Errorf("the page has %d bytes", n)
	}
}

func TestColumnFormat(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   string
	}{
		{[]float64{143.27, 1200}, "143.3 1,200.0"}, {[]float64{0.588, 2.91}, "0.588 2.910"}, {[]float64{39876.2}, "39,876"},
		{[]float64{nan, 3.214}, "– 3.21"}, {[]float64{0, 0}, "0 0"}, {[]float64{1e-9, 1}, "1e-09 1"}, {[]float64{-5.5, inf}, "−5.50 –"},
	} {
		var scores []Score
		for _, v := range c.values {
			scores = append(scores, Score{Values: []float64{v}})
		}
		format := columnFormat(scores, 0)
		var got []string
		for _, v := range c.values {
			got = append(got, format(v))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%v: %s, want %s", c.values, s, c.want)
		}
	}
}
