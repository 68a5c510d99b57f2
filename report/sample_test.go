package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// sampleSeries is a page on four weeks of a daily rhythm and a made-up model of it.
func sampleSeries() *Page {
	r := rand.New(rand.NewPCG(1, 2))
	curve := func(n int, base, slope float64) []float64 {
		y := make([]float64, n)
		for i := range y {
			y[i] = base + slope*math.Sqrt(float64(i)) + 8*r.Float64()
		}
		return y
	}
	scores := NewTable("method", "MAE", "coverage")
	for _, m := range []struct {
		name string
		mae  float64
	}{{"network", 143.27}, {"linear", 146.3}, {"seasonal naive", 243.6}} {
		scores.Rows = append(scores.Rows, Row{Cells: []string{m.name, Number(m.mae), Number(math.NaN())}, Score: -m.mae})
	}
	p := &Page{Title: "Forecast of demand_mw", Subtitle: "elec.csv: 26,304 rows at 1h", Version: "0.1.0", Time: time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC)}
	p.Add("Result", Notice{Good, "The network's mean absolute error is 41.2 % below seasonal naive's."},
		Facts{{"MAE", "143.3", "network"}, {"vs best baseline", "-2.1 %", "linear: 146.3"}, {"Weights", Count(54321), ""}}, scores.MarkBest())
	p.Add("Forecasts", sampleWindows(r))
	p.Add("Mean day", &Figure{Title: "Mean day", Plot: &Grid{Figures: []*Figure{{Title: "Weekdays", Plot: &Lines{
		X: Axis{Label: "Hour", Step: 3}, Y: Axis{Label: "Mean", Min: 3000, Max: 6000},
		Series: []Series{{Name: "measured", Y: curve(24, 4000, 20), Color: Ink}, {Name: "network", Y: curve(24, 4010, 20), Color: Blue}},
	}}}}})
	var hours []string
	for h := range 24 {
		hours = append(hours, fmt.Sprintf("%02d", h))
	}
	var week [][]float64
	for range 7 {
		week = append(week, curve(24, 80, 20))
	}
	p.Add("Where the errors are",
		&Figure{Title: "Error by forecast step", Plot: &Lines{X: Axis{Label: "Steps ahead"}, Y: Axis{Label: "Mean absolute error", Zero: true},
			Series: []Series{{Name: "network", Y: curve(24, 60, 25)}, {Name: "linear", Y: curve(24, 65, 26)}}}},
		&Figure{Title: "Error by hour", Height: 280, Plot: &Bars{Categories: hours, Series: []Series{{Name: "network", Y: curve(24, 90, 15)}}}},
		&Figure{Title: "Error by weekday and hour", Width: 960, Height: 300, Plot: &Heat{X: Axis{Label: "Hour"}, Columns: hours, Values: week, Legend: "error"}})
	t := Training{ValMetric: "val_mae", BestEpoch: 17}
	for e := 1; e <= 20; e++ {
		x := float64(e)
		t.History = append(t.History, Epoch{Epoch: e, LR: 1e-5 + 0.5e-3*(1+math.Cos(math.Pi*x/20)),
			TrainLoss: 0.05 + 0.6/x + 0.01*r.Float64(), ValLoss: 0.08 + 0.5/x + 0.02*r.Float64(), Val: 140 + 300/x + 8*r.Float64()})
	}
	p.Add("Training", t.Figure())
	p.Add("Configuration", Pairs{{"cell", "lstm"}, {"window", "72"}, {"split", "0.7,0.1,0.2"}})
	return p
}

// sampleWindows are four windows with their forecasts, over time.
func sampleWindows(r *rand.Rand) *Figure {
	day := func(at time.Time) float64 {
		h := float64(at.Hour())
		if at.Weekday() == time.Saturday || at.Weekday() == time.Sunday {
			return 4100 + 500*math.Sin((h-9)*math.Pi/12)
		}
		return 4500 + 900*math.Sin((h-8)*math.Pi/12) + 300*math.Sin((h-6)*math.Pi/6)
	}
	melbourne := time.FixedZone("AEST", 10*3600)
	var panels []*Figure
	for w := range 4 {
		start := time.Date(2014, time.Month(5+w), 3+2*w, 10, 0, 0, 0, melbourne)
		var times []time.Time
		var y, forecast, lower, upper []float64
		for i := range 96 {
			at := start.Add(time.Duration(i) * time.Hour)
			times = append(times, at)
			y = append(y, day(at)+90*r.NormFloat64())
			if i >= 72 {
				spread := 60 + 12*float64(i-72)
				forecast = append(forecast, day(at)+40*r.NormFloat64())
				lower, upper = append(lower, day(at)-spread), append(upper, day(at)+spread)
			}
		}
		x := Times(times)
		panels = append(panels, &Figure{Title: "From " + times[72].Format("Mon 2 Jan 2006, 15:04"), Plot: &Lines{
			X: Axis{Time: true, Zone: melbourne}, Marks: []Mark{{X: x[71]}},
			Series: []Series{{Name: "measured", X: x, Y: y, Color: Ink}, {Name: "network", X: x[72:], Y: forecast, Color: Blue}},
			Bands:  []Band{{Name: "80 % interval", X: x[72:], Lower: lower, Upper: upper, Color: Blue}},
		}})
	}
	return &Figure{File: "forecast.png", Title: "Sample windows", Caption: "The dashed line is the last moment known.", Plot: &Grid{Figures: panels}}
}

// samplePage shows the blocks that the page on series has no use for.
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
