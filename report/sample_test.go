package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// sampleForecast is a full report: four weeks of a daily rhythm and a made-up model.
func sampleForecast() *Forecast {
	r := rand.New(rand.NewPCG(1, 2))
	f := &Forecast{
		Title:    "Forecast of demand_mw",
		Subtitle: "elec.csv: 26,304 rows, hourly, 2012-01-01 to 2014-12-31",
		Version:  "0.1.0",
		Time:     time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC),
		Model:    "LSTM",
		Unit:     "MW",
		Verdict:  "The LSTM beats all baselines: its mean absolute error is 41.2 % below seasonal naive's and 2.1 % below the linear model's.",
		Notes:    []string{"Temperature is taken as known ahead. An operator would put a weather forecast in its place."},
		Config: []Pair{{"cell", "lstm"}, {"window", "72"}, {"horizon", "24"}, {"hidden", "64"}, {"layers", "2"}, {"dropout", "0.2"},
			{"loss", "quantile"}, {"batch", "64"}, {"lr", "0.001"}, {"min-lr", "1e-05"}, {"clip", "1"}, {"future", "temperature_c, holiday"}, {"split", "0.7,0.1,0.2"}},
		Parameters: 54321, Windows: 5237, Elapsed: 97 * time.Second,
		Training: Training{ValMetric: "val_mae", BestEpoch: 17},
		Metrics:  []string{"mse", "mae", "rmse", "smape", "mase", "mse_scaled", "mae_scaled", "coverage"},
		Scores: []Score{
			{"lstm", []float64{39876.2, 143.27, 199.7, 3.21, 0.588, 0.0512, 0.164, 0.81}},
			{"naive", []float64{812345.1, 712.9, 901.3, 15.4, 2.91, 1.04, 0.813, math.NaN()}},
			{"seasonal_naive", []float64{142345.1, 243.6, 377.3, 5.43, 1.0, 0.183, 0.279, math.NaN()}},
			{"drift", []float64{833345.1, 722.9, 912.9, 15.7, 2.95, 1.07, 0.826, math.NaN()}},
			{"linear", []float64{41876.2, 146.3, 204.6, 3.3, 0.60, 0.0538, 0.167, math.NaN()}},
		},
	}
	for e := 1; e <= 20; e++ {
		x := float64(e)
		f.History = append(f.History, Epoch{Epoch: e, LR: 1e-5 + 0.5e-3*(1+math.Cos(math.Pi*x/20)),
			TrainLoss: 0.05 + 0.6/x + 0.01*r.Float64(), ValLoss: 0.08 + 0.5/x + 0.02*r.Float64(), Val: 140 + 300/x + 8*r.Float64()})
	}
	curve := func(n int, base, slope float64) []float64 {
		y := make([]float64, n)
		for i := range y {
			y[i] = base + slope*math.Sqrt(float64(i)) + 8*r.Float64()
		}
		return y
	}
	f.ByStep = []Series{{Name: "lstm", Y: curve(24, 60, 25)}, {Name: "seasonal_naive", Y: curve(24, 240, 0)}, {Name: "linear", Y: curve(24, 65, 26)}, {Name: "naive", Y: curve(24, 90, 190)}}
	f.ByHour = []Series{{Name: "lstm", Y: curve(24, 90, 15)}, {Name: "seasonal_naive", Y: curve(24, 200, 15)}}
	f.ByWeekday = []Series{{Name: "lstm", Y: curve(7, 140, 0)}, {Name: "seasonal_naive", Y: curve(7, 240, 0)}}
	for range 7 {
		f.WeekHour = append(f.WeekHour, curve(24, 80, 20))
	}
	day := func(h int, weekend bool) float64 {
		v := 4500 + 900*math.Sin(float64(h-8)*math.Pi/12) + 300*math.Sin(float64(h-6)*math.Pi/6)
		if weekend {
			v = 4100 + 500*math.Sin(float64(h-9)*math.Pi/12)
		}
		return v
	}
	for _, name := range []string{"Weekdays", "Weekends"} {
		p := Profile{Name: name}
		for h := range 24 {
			p.Truth = append(p.Truth, day(h, name == "Weekends"))
			p.Forecast = append(p.Forecast, day(h, name == "Weekends")+60*r.NormFloat64())
		}
		f.Profiles = append(f.Profiles, p)
	}
	melbourne := time.FixedZone("AEST", 10*3600)
	for w := range 4 {
		s := Sample{Interval: "80 % interval"}
		start := time.Date(2014, time.Month(5+w), 3+2*w, 10, 0, 0, 0, melbourne)
		for i := range 96 {
			t := start.Add(time.Duration(i) * time.Hour)
			s.Times = append(s.Times, t)
			weekend := t.Weekday() == time.Saturday || t.Weekday() == time.Sunday
			v := day(t.Hour(), weekend)
			if i < 72 {
				s.History = append(s.History, v+90*r.NormFloat64())
				continue
			}
			s.Truth = append(s.Truth, v+90*r.NormFloat64())
			spread := 60 + 12*float64(i-72)
			s.Median = append(s.Median, v+40*r.NormFloat64())
			s.Lower, s.Upper = append(s.Lower, v-spread), append(s.Upper, v+spread)
		}
		f.Samples = append(f.Samples, s)
	}
	return f
}

// samplePage shows the blocks that the forecast report has no use for.
func samplePage() *Page {
	confusion := &Heat{
		X: Axis{Label: "Predicted"}, Y: Axis{Label: "True"}, Format: "%.0f", Legend: "count",
		Columns: []string{"abbreviation", "description", "entity", "human", "location", "number"},
		Rows:    []string{"abbreviation", "description", "entity", "human", "location", "number"},
		Values: [][]float64{{7, 2, 0, 0, 0, 0}, {0, 130, 6, 1, 0, 1}, {1, 9, 78, 4, 2, 0},
			{0, 1, 3, 60, 1, 0}, {0, 1, 4, 2, 74, 0}, {0, 4, 5, 0, 1, 103}},
	}
	attention := &Heat{Y: Axis{Label: "target"}, X: Axis{Label: "source"}, Columns: []string{"the", "house", "is", "very", "small", "."},
		Rows:   []string{"das", "Haus", "ist", "sehr", "klein", "."},
		Values: [][]float64{{.9, .1}, {.1, .8, .1}, {0, .1, .8, .1}, {0, 0, .1, .85, .05}, {0, 0, 0, .1, .9}, {0, 0, 0, 0, .1, .9}}}
	spectrogram := &Heat{Up: true, X: Axis{Label: "Time (s)", Max: 3}, Y: Axis{Label: "Mel band"}, Legend: "dB"}
	for b := range 80 {
		row := make([]float64, 300)
		for t := range row {
			row[t] = -60 + 50*math.Exp(-math.Pow(float64(b)-30-20*math.Sin(float64(t)/25), 2)/80)
		}
		spectrogram.Values = append(spectrogram.Values, row)
	}
	flow := &Lines{X: Axis{Label: "Steps back in time"}, Y: Axis{Label: "|dLoss/dh|", Log: true}}
	for i, rate := range []float64{0.85, 0.97, 0.995} {
		y := make([]float64, 100)
		for t := range y {
			y[t] = math.Pow(rate, float64(t))
		}
		flow.Series = append(flow.Series, Series{Name: []string{"RNN", "GRU", "LSTM"}[i], Y: y})
	}
	posterior := &Lines{X: Axis{Label: "Time (s)"}, Y: Axis{Label: "Probability"}}
	for i, c := range "carousel" {
		y := make([]float64, 120)
		x := make([]float64, 120)
		for t := range y {
			x[t] = float64(t) / 40
			y[t] = math.Exp(-math.Pow(float64(t-10-14*i), 2) / 4)
		}
		posterior.Series = append(posterior.Series, Series{X: x, Y: y})
		posterior.Marks = append(posterior.Marks, Mark{X: float64(10+14*i) / 40, Label: string(c)})
	}
	diverging := &Heat{Diverging: true, Format: "%+.1f", Values: [][]float64{{-2, -1, 0, 1, 2}, {3, 1, math.NaN(), -1, -3}}}
	table := &Table{Caption: "The most wrong examples.", Columns: []Column{{Name: "Text"}, {Name: "True"}, {Name: "Predicted"}, {Name: "Probability", Number: true}}}
	for i := range 4 {
		table.Rows = append(table.Rows, Row{Cells: []string{"What is the <b>capital</b> of Mongolia & who lives there?", "location", "human", fmt.Sprintf("0.%d", 99-i)}, Best: i == 1})
	}
	return &Page{Title: "Blocks & <figures>", Subtitle: "All kinds", Version: "test", Sections: []Section{
		{Title: "Classification", Blocks: []Block{
			Text("First paragraph.\n\nSecond paragraph with <script>alert(1)</script>."),
			Notice{Caution, "No model beats the naive forecast on this series."}, table,
			&Figure{Title: "Confusion matrix", Plot: confusion},
			&Figure{Title: "Attention", Plot: &Grid{Figures: []*Figure{{Title: "Sentence 1", Plot: attention}, {Title: "Sentence 2", Plot: attention}}}}}},
		{Title: "Gradient flow", Blocks: []Block{&Figure{Title: "Gradient norm through time", Plot: flow, Caption: "The carousel carries errors back unchanged."},
			&Figure{Title: "Signed", Plot: diverging}}},
		{Title: "Speech", Blocks: []Block{&Figure{Title: "Spectrogram", Plot: spectrogram}, &Figure{Title: "CTC posteriors", Plot: posterior}}},
	}}
}
