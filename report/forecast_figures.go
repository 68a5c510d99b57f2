package report

import (
	"fmt"
	"slices"
)

// methodColors keeps each baseline's colour the same in all figures.
var methodColors = map[string]Color{
	"seasonal_naive": Orange, "linear": Green, "naive": Pink, "drift": Amber,
}

// methods names and colours curves of which the first is the model's, and drops
// those without a number.
func (f *Forecast) methods(curves []Series) []Series {
	var out []Series
	for i, s := range curves {
		if !slices.ContainsFunc(s.Y, finite) {
			continue
		}
		if s.Color == Auto {
			s.Color = methodColors[s.Name]
		}
		if i == 0 {
			s.Name, s.Color = f.modelName(), Blue
		} else {
			s.Name = methodName(s.Name)
		}
		out = append(out, s)
	}
	return out
}

// errorLabel names an axis of mean absolute errors.
func (f *Forecast) errorLabel() string { return withUnit("Mean absolute error", f.Unit) }

func withUnit(s, unit string) string {
	if unit == "" {
		return s
	}
	return s + " (" + unit + ")"
}

func (f *Forecast) stepFigure() *Figure {
	curves := f.methods(f.ByStep)
	if len(curves) == 0 {
		return nil
	}
	for i := range curves {
		curves[i].X = counting(1, len(curves[i].Y))
		curves[i].Dots = len(curves[i].Y) == 1
	}
	return &Figure{
		Title: "Error by forecast step",
		Plot: &Lines{
			X:      Axis{Label: "Steps ahead"},
			Y:      Axis{Label: f.errorLabel(), Zero: true},
			Series: curves,
		},
	}
}

func counting(from, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(from + i)
	}
	return x
}

func hourNames() []string {
	names := make([]string, 24)
	for i := range names {
		names[i] = fmt.Sprintf("%02d", i)
	}
	return names
}

var weekdayNames = []string{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}

func (f *Forecast) hourFigure() *Figure {
	return f.errorBars("Error by hour of the day", "Hour", hourNames(), f.ByHour)
}

func (f *Forecast) weekdayFigure() *Figure {
	return f.errorBars("Error by weekday", "", weekdayNames, f.ByWeekday)
}

func (f *Forecast) errorBars(title, label string, names []string, curves []Series) *Figure {
	curves = f.methods(curves)
	if len(curves) == 0 {
		return nil
	}
	return &Figure{
		Title:  title,
		Height: 280,
		Plot:   &Bars{X: Axis{Label: label}, Y: Axis{Label: f.errorLabel()}, Categories: names, Series: curves},
	}
}

func (f *Forecast) weekHourFigure() *Figure {
	if !slices.ContainsFunc(f.WeekHour, func(row []float64) bool { return slices.ContainsFunc(row, finite) }) {
		return nil
	}
	return &Figure{
		Title:  "Error by weekday and hour",
		Width:  960,
		Height: 300,
		Plot: &Heat{
			X: Axis{Label: "Hour"}, Columns: hourNames(), Rows: weekdayNames,
			Values: f.WeekHour, Legend: f.errorLabel(),
		},
	}
}

func (f *Forecast) profileFigure() *Figure {
	var panels []*Figure
	for _, pr := range f.Profiles {
		if !slices.ContainsFunc(pr.Truth, finite) && !slices.ContainsFunc(pr.Forecast, finite) {
			continue
		}
		panels = append(panels, &Figure{Title: pr.Name, Plot: &Lines{
			X: Axis{Label: "Hour", Step: 3},
			Y: f.profileAxis(),
			Series: []Series{
				{Name: "Observed", Y: pr.Truth, Color: Ink},
				{Name: f.modelName(), Y: pr.Forecast, Color: Blue},
			},
		}})
	}
	if len(panels) == 0 {
		return nil
	}
	return &Figure{Title: "Mean day, observed and forecast", Plot: &Grid{Figures: panels}}
}

// profileAxis gives all profiles the same range, so that they can be compared.
func (f *Forecast) profileAxis() Axis {
	e := newExtent(false)
	for _, pr := range f.Profiles {
		for _, v := range slices.Concat(pr.Truth, pr.Forecast) {
			e.add(v)
		}
	}
	s := newScale(Axis{}, e, 0.05)
	return Axis{Label: withUnit("Mean", f.Unit), Min: s.lo, Max: s.hi}
}

func (f *Forecast) sampleFigure() *Figure {
	var panels []*Figure
	for _, s := range f.Samples {
		if !slices.ContainsFunc(s.Median, finite) && !slices.ContainsFunc(s.Truth, finite) {
			continue
		}
		if len(panels) == maxSamples {
			break
		}
		panels = append(panels, f.samplePanel(s))
	}
	if len(panels) == 0 {
		return nil
	}
	return &Figure{
		Title:   "Sample windows of the evaluated part",
		Caption: "The dashed line is the last moment known to the forecast.",
		Plot:    &Grid{Figures: panels},
	}
}

func (f *Forecast) samplePanel(s Sample) *Figure {
	horizon := max(len(s.Median), len(s.Truth))
	// Far more history than horizon would leave no room to see the forecast.
	past := min(len(s.History), max(2*horizon, 24))
	history := s.History[len(s.History)-past:]
	title := s.Title
	lines := &Lines{Y: Axis{Label: f.Unit}}
	x := counting(1-past, past+horizon)
	if first := len(s.History) - past; len(s.Times) >= len(s.History)+horizon {
		times := s.Times[first : len(s.History)+horizon]
		x = Times(times)
		lines.X = Axis{Time: true, Zone: times[0].Location()}
		if title == "" && past < len(times) {
			title = "From " + times[past].Format("Mon 2 Jan 2006, 15:04")
		}
	} else {
		lines.X.Label = "Steps from the start of the forecast"
	}
	if past > 0 {
		lines.Marks = []Mark{{X: x[past-1]}}
	}
	lines.Series = []Series{
		{Name: "Observed", X: x, Y: slices.Concat(history, s.Truth), Color: Ink},
		{Name: f.modelName(), X: x[past:], Y: s.Median, Color: Blue},
	}
	if slices.ContainsFunc(s.Lower, finite) && slices.ContainsFunc(s.Upper, finite) {
		name := s.Interval
		if name == "" {
			name = "Interval"
		}
		lines.Bands = []Band{{Name: name, X: x[past:], Lower: s.Lower, Upper: s.Upper, Color: Blue}}
	}
	return &Figure{Title: title, Plot: lines}
}
