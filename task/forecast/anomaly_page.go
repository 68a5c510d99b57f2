package forecast

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// The largest numbers of events that are listed and drawn, and of series that are
// drawn as a whole, which bound the sizes of a terminal's output and of a page.
const (
	eventsListed = 50
	eventsDrawn  = 8
	seriesDrawn  = 6
)

// Remarks returns remarks on the result, a sentence each.
func (a *Anomalies) Remarks() []string { return a.Notes }

// Summary returns the result as tables, figures and sentences.
func (a *Anomalies) Summary() *report.Summary {
	share := float64(a.Flagged) / float64(a.Values)
	s := &report.Summary{
		Scored: fmt.Sprintf("%s: %s, each with the median of its forecasts from the %s before it", partOf(a.Part), report.Plural(a.Values, "value"), report.Plural(a.Origins, "row")),
		Verdict: fmt.Sprintf("%s flagged (%s), in %s. Of ordinary values alone about %s would be.",
			report.Agree(a.Flagged, "value is", "values are"), report.Percent(share), report.Plural(len(a.Events), "event"), report.Count(int(math.Round(a.falseAlarms())))),
		Tone: report.Neutral, Notes: a.Notes,
		Facts: report.Facts{
			{Name: "Events", Value: report.Count(len(a.Events))},
			{Name: "Flagged values", Value: report.Count(a.Flagged), Note: fmt.Sprintf("%s of %s", report.Percent(share), report.Count(a.Values))},
		},
	}
	switch {
	case a.Flagged == 0:
		s.Tone = report.Good
	case float64(a.Flagged) > a.falseAlarms():
		s.Tone = report.Caution
	}
	for _, c := range a.Calibration {
		name := "Threshold"
		if len(a.Calibration) > 1 {
			name += " of " + c.Target
		}
		s.Facts = append(s.Facts, report.Fact{Name: name, Value: report.Number(c.Threshold), Note: fmt.Sprintf("for %s of %s", percentOf(c.Rate), report.Plural(c.Values, "value"))})
	}
	if list := a.strongest(eventsListed); len(list) > 0 {
		t := a.table(list)
		t.Caption = "Score: distance from the forecast, in mean distances of ordinary values. p-value: share of ordinary values with such a score."
		if len(list) < len(a.Events) {
			t.Caption = fmt.Sprintf("The %d strongest of %s events. ", len(list), report.Count(len(a.Events))) + t.Caption
		}
		s.Tables = append(s.Tables, t)
	}
	var whole []report.Block
	for _, one := range a.drawn() {
		whole = append(whole, a.seriesFigure(one))
	}
	s.Add("Values and forecasts", whole...)
	s.Add("The strongest events", a.eventsFigure())
	s.Add("Scores", a.scoresFigure())
	return s
}

// falseAlarms returns the number of values that would be flagged if all were
// ordinary.
func (a *Anomalies) falseAlarms() (sum float64) {
	for _, s := range a.scored {
		for _, score := range s.score {
			if !math.IsNaN(score) {
				sum += a.Calibration[s.k].Rate
			}
		}
	}
	return sum
}

// strongest returns the indices of at most most events with the highest scores, in
// the order of Events.
func (a *Anomalies) strongest(most int) []int {
	list := make([]int, len(a.Events))
	for i := range list {
		list[i] = i
	}
	slices.SortStableFunc(list, func(i, j int) int { return cmp.Compare(a.Events[j].Score, a.Events[i].Score) })
	list = list[:min(len(list), most)]
	slices.Sort(list)
	return list
}

// table lists events.
func (a *Anomalies) table(list []int) *report.Table {
	t := &report.Table{}
	add := func(number bool, names ...string) {
		for _, name := range names {
			t.Columns = append(t.Columns, report.Column{Name: name, Number: number})
		}
	}
	series, targets := a.several()
	if series {
		add(false, "series")
	}
	if targets {
		add(false, "target")
	}
	add(false, "begin", "end")
	add(true, "flagged")
	add(false, "peak")
	add(true, "value", "forecast", "lower", "upper", "score", "p-value")
	for _, i := range list {
		e := &a.Events[i]
		var cells []string
		if series {
			cells = append(cells, e.Series)
		}
		if targets {
			cells = append(cells, e.Target)
		}
		spread := e.Upper - e.Lower
		flagged := report.Count(e.Flagged)
		if e.Missing > 0 {
			flagged += fmt.Sprintf(" (%s missing)", report.Count(e.Missing))
		}
		t.Add(append(cells, e.Begin.String(), e.End.String(), flagged, e.Peak.String(), shown(e.Value, spread), shown(e.Forecast, spread),
			shown(e.Lower, spread), shown(e.Upper, spread), report.Number(e.Score), report.Number(e.P))...)
	}
	return t
}

// text returns the place as the table writes it.
func (p Place) text() string { return cmp.Or(p.Stamp, strconv.Itoa(p.Row)) }

// String returns the place for people: as the table writes it, but a long time without
// its seconds and zone.
func (p Place) String() string {
	const layout = "2006-01-02 15:04"
	if !p.Time.IsZero() && len(p.Stamp) > len(layout) && p.Time.Second() == 0 && p.Time.Nanosecond() == 0 {
		return p.Time.Format(layout)
	}
	return p.text()
}

// several reports whether there are several series, and several targets.
func (a *Anomalies) several() (series, targets bool) {
	for _, s := range a.scored {
		series = series || s.frame != a.scored[0].frame
	}
	return series, len(a.Calibration) > 1
}

// title names a target of a series where there are several.
func (a *Anomalies) title(s *anomalySeries) string {
	series, targets := a.several()
	var words []string
	if series {
		words = append(words, s.frame.id)
	}
	if targets || !series {
		words = append(words, a.Calibration[s.k].Target)
	}
	return strings.Join(words, " ")
}

// drawn returns the series to draw: those with the highest scores.
func (a *Anomalies) drawn() []*anomalySeries {
	highest := func(s *anomalySeries) float64 {
		most := 0.0
		for _, score := range s.score {
			if score > most { // NaN is not
				most = score
			}
		}
		return most / cmp.Or(a.Calibration[s.k].Threshold, 1)
	}
	list := slices.SortedStableFunc(slices.Values(a.scored), func(s, t *anomalySeries) int { return cmp.Compare(highest(t), highest(s)) })
	return list[:min(len(list), seriesDrawn)]
}

func (a *Anomalies) seriesFigure(s *anomalySeries) *report.Figure {
	f := a.figure(s, s.rows)
	f.Title = a.title(s)
	f.Caption = fmt.Sprintf("Values outside of the interval are flagged; it holds %s of ordinary ones.", percentOf(1-a.Calibration[s.k].Rate))
	return f
}

// figure draws some rows with their forecasts and what is flagged.
func (a *Anomalies) figure(s *anomalySeries, rows span) *report.Figure {
	lines := &report.Lines{X: report.Axis{Label: "Row"}}
	n := rows.len()
	x := make([]float64, n)
	if s.frame.times != nil {
		x = report.Times(s.frame.times[rows.lo:rows.hi])
		lines.X = report.Axis{Time: true, Zone: s.frame.zone}
	} else {
		for i := range x {
			x[i] = float64(rows.lo + i + 1)
		}
	}
	threshold := a.Calibration[s.k].Threshold
	lower, upper := make([]float64, n), make([]float64, n)
	flagged := report.Series{Name: "flagged", Color: report.Orange, Dots: true}
	for i := range n {
		row := rows.lo + i
		lower[i], upper[i] = s.ordinary(row, threshold)
		if s.rows.lo <= row && row < s.rows.hi && s.score[row-s.rows.lo] > threshold {
			flagged.X, flagged.Y = append(flagged.X, x[i]), append(flagged.Y, s.frame.raw[s.k][row])
		}
	}
	lines.Bands = []report.Band{{Name: percentOf(1-a.Calibration[s.k].Rate) + " interval", X: x, Lower: lower, Upper: upper, Color: report.Blue}}
	lines.Series = []report.Series{
		{Name: "forecast", X: x, Y: s.expect[rows.lo:rows.hi], Color: report.Blue},
		{Name: "measured", X: x, Y: s.frame.raw[s.k][rows.lo:rows.hi], Color: report.Ink},
		flagged,
	}
	return &report.Figure{Plot: lines}
}

// eventsFigure draws the strongest events with the rows around them.
func (a *Anomalies) eventsFigure() *report.Figure {
	var panels []*report.Figure
	for _, i := range a.strongest(eventsDrawn) {
		e := &a.Events[i]
		at := slices.IndexFunc(a.scored, func(s *anomalySeries) bool { return s.frame.id == e.Series && a.Calibration[s.k].Target == e.Target })
		s := a.scored[at]
		first, last := e.Begin.Row-1, e.End.Row
		around := max(24, last-first)
		panel := a.figure(s, span{max(first-around, s.rows.lo), min(last+around, s.rows.hi)})
		panel.Title = strings.TrimSpace(fmt.Sprintf("%s: %s, score %s", e.Peak, report.Number(e.Value), report.Number(e.Score)))
		if series, targets := a.several(); series || targets {
			panel.Title = a.title(s) + ", " + panel.Title
		}
		panels = append(panels, panel)
	}
	if panels == nil {
		return nil
	}
	return &report.Figure{Title: "Events and the rows around them", Plot: &report.Grid{Figures: panels}}
}

// tailPoints is about the number of points of a curve of scoresFigure.
const tailPoints = 400

// scoresFigure draws the shares of the calibration and of the scored values whose
// score is above a number, in units of the threshold.
func (a *Anomalies) scoresFigure() *report.Figure {
	if slices.ContainsFunc(a.Calibration, func(c AnomalyCalibration) bool { return c.Threshold == 0 }) {
		return nil // there is no unit
	}
	var ordinary, scored []float64
	for k, list := range a.sorted {
		for _, score := range list {
			ordinary = append(ordinary, score/a.Calibration[k].Threshold)
		}
	}
	for _, s := range a.scored {
		for _, score := range s.score {
			if !math.IsNaN(score) {
				scored = append(scored, score/a.Calibration[s.k].Threshold)
			}
		}
	}
	tail := func(name string, scores []float64, color report.Color) report.Series {
		slices.Sort(scores)
		s := report.Series{Name: name, Color: color}
		last := math.Inf(-1)
		for i, v := range scores {
			if v > last*(1+1.0/tailPoints) || i == len(scores)-1 {
				s.X, s.Y = append(s.X, v), append(s.Y, float64(len(scores)-i)/float64(len(scores)))
				last = v
			}
		}
		return s
	}
	return &report.Figure{
		File: "scores.png", Title: "How many values have a score as high",
		Caption: "To the right of the threshold are the flagged values. Where the two curves agree, the values are as ordinary as those of the calibration.",
		Plot: &report.Lines{
			X:      report.Axis{Label: "Score, in thresholds", Log: true, Min: 0.02, Max: max(2, slices.Max(scored), slices.Max(ordinary))},
			Y:      report.Axis{Label: "Share of values", Log: true},
			Series: []report.Series{tail("scored values", scored, report.Orange), tail("calibration", ordinary, report.Blue)},
			Marks:  []report.Mark{{X: 1, Label: "threshold"}},
		},
	}
}

// Write writes the rows that were looked at as CSV: series, target, time or number
// of the row as the table has it, value, forecast, the least and the largest value
// that is not flagged, score, p-value, whether it is flagged (0 or 1), and the number
// of its event. What a row lacks is empty. Its errors are those of w.
func (a *Anomalies) Write(w io.Writer) error {
	c := csv.NewWriter(w)
	head := []string{"series", "target", "time", "actual", "forecast", "lower", "upper", "score", "p_value", "flagged", "event"}
	if !a.hasTime {
		head[2] = "row"
	}
	if err := c.Write(head); err != nil {
		return err
	}
	for _, s := range a.scored {
		threshold := a.Calibration[s.k].Threshold
		for i, score := range s.score {
			row := s.rows.lo + i
			line := make([]string, len(head))
			line[0], line[1], line[2] = s.frame.id, a.Calibration[s.k].Target, s.place(row).text()
			lower, upper := s.ordinary(row, threshold)
			for at, v := range []float64{s.frame.raw[s.k][row], s.expect[row], lower, upper, score} {
				if !math.IsNaN(v) {
					line[3+at] = task.FormatNumber(v)
				}
			}
			if !math.IsNaN(score) {
				line[8], line[9] = task.FormatNumber(a.p(s.k, score)), "0"
			}
			if score > threshold {
				line[9] = "1"
			}
			if e := s.event[i]; e > 0 {
				line[10] = strconv.Itoa(e)
			}
			if err := c.Write(line); err != nil {
				return err
			}
		}
	}
	c.Flush()
	return c.Error()
}
