package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tune"
)

// Most parameters that a figure shows.
const (
	mostAxes   = 8
	mostSlices = 12
)

// page is all of a study on a page. Its items are the trials.
func (s *openedStudy) page(sum *studySummary) *report.Page {
	p := &report.Page{Title: "Hyper-parameters of " + sum.Subject, Subtitle: countStates(sum.States), Version: carousel.Version()}
	for _, r := range s.list {
		p.Items = append(p.Items, s.card(r))
	}
	s.addVerdict(p, sum)
	if len(s.Options.Objectives) > 1 {
		p.Add("Trade-off", s.fronts()...)
	}
	p.Add("History", s.histories())
	p.Add("Learning curves", s.curves())
	shown, at := s.comparable()
	when := ""
	if at > 0 {
		when = fmt.Sprintf(" Trials are compared as they were after %s, since few are complete.", s.unitsText(at))
	}
	important, err := s.Importance(shown)
	order := slices.Clone(s.Space.Params) // the most important first
	if err == nil {
		rank := func(p *tune.Param) int {
			return slices.IndexFunc(important, func(one tune.Importance) bool { return one.Name == p.Name })
		}
		slices.SortStableFunc(order, func(a, b *tune.Param) int { return rank(a) - rank(b) })
		p.Add("Importance of the parameters", importanceFigure(important),
			report.Text("The share of each parameter in what tells the best tenth of the trials from all of them (PED-ANOVA, Watanabe et al. 2023)."+when))
	}
	p.Add("Parameters and results", s.parallel(order))
	p.Add("Parameter by parameter", s.slices(order))
	p.Add("Two parameters", s.contours(shown, order, when))
	p.Add("Trials", s.trialTable(s.list), s.failures())
	p.Add("The study", report.Pairs{
		{Name: "study", Value: sum.Study}, {Name: "sampler", Value: sum.Sampler}, {Name: "pruner", Value: sum.Pruner},
		{Name: "seed", Value: fmt.Sprint(s.Options.Seed)}, {Name: "lag", Value: fmt.Sprint(s.Options.Lag)},
		{Name: "data", Value: s.header.Data}, {Name: "software", Value: s.header.Software},
	}, report.Passage{Title: "Space", Text: strings.TrimSpace(s.header.Space)})
	return p
}

// card is what is shown of a trial where it is pointed at.
func (s *openedStudy) card(r *tune.Record) report.Item {
	item := report.Item{Title: fmt.Sprintf("Trial %d: %s", r.Number, r.State)}
	add := func(name, value string) {
		if value != "" {
			item.Values = append(item.Values, report.Pair{Name: name, Value: value})
		}
	}
	for i, o := range s.Options.Objectives {
		add(o.Name, valueText(results(r), i))
	}
	for _, p := range s.Space.Params {
		if v, has := r.Values[p.Name]; has {
			add(p.Name, paramText(v))
		}
	}
	add("steps", report.Count(r.Steps))
	add("from", r.Origin)
	add("breaks", strings.Join(r.Broken, ", "))
	add("error", report.Shorten(r.Error, 160))
	return item
}

func (s *openedStudy) addVerdict(p *report.Page, sum *studySummary) {
	facts := report.Facts{{Name: "Trials", Value: report.Count(len(s.list)), Note: strings.TrimPrefix(countStates(sum.States), report.Plural(len(s.list), "trial")+": ")}}
	var blocks []report.Block
	if v := sum.Verdict; v != nil {
		tone := report.Neutral
		if v.Beats {
			tone = report.Good
		}
		blocks = append(blocks, report.Notice{Tone: tone, Text: v.Text})
	}
	if len(sum.Best) > 0 && len(s.Options.Objectives) == 1 {
		best := sum.Best[0]
		facts = append(report.Facts{{Name: s.Options.Objectives[0].Name, Value: valueText(best.Results, 0), Note: fmt.Sprintf("trial %d", best.Number)}}, facts...)
	}
	facts = append(facts, report.Fact{Name: "Training steps", Value: report.Count(sum.Steps)},
		report.Fact{Name: "Work", Value: (time.Duration(sum.Seconds) * time.Second).String(), Note: "of all workers together"})
	blocks = append(blocks, facts)
	if t := s.finalistTable(); t != nil {
		blocks = append(blocks, t)
	}
	if len(sum.Best) > 0 && len(s.Options.Objectives) == 1 {
		var pairs report.Pairs
		for _, q := range s.Space.Params {
			if v, has := sum.Best[0].Values[q.Name]; has {
				pairs = append(pairs, report.Pair{Name: q.Name, Value: paramText(v)})
			}
		}
		blocks = append(blocks, report.Text(fmt.Sprintf("The parameters of trial %d:", sum.Best[0].Number)), pairs)
	}
	if !sum.Repeatable {
		blocks = append(blocks, report.Text("This study cannot be repeated: "+sum.Why))
	}
	p.Add("Result", blocks...)
}

// stateLooks are the colours of trials, in the order in which they are drawn.
var stateLooks = []struct {
	state tune.State
	color report.Color
}{
	{tune.Pruned, report.Muted}, {tune.Paused, report.Muted}, {tune.Running, report.Sky}, {tune.Failed, report.Orange}, {tune.Complete, report.Blue},
}

// dots are a series of dots for each state, and one for the best trials; x and y are NaN
// where a trial has none.
func (s *openedStudy) dots(list []*tune.Record, x, y func(*tune.Record) float64) (out []report.Series) {
	best := s.best()
	add := func(name string, color report.Color, of func(*tune.Record) bool) {
		one := report.Series{Name: name, Color: color, Dots: true}
		for _, r := range list {
			if of(r) && !math.IsNaN(x(r)) && !math.IsNaN(y(r)) {
				one.X, one.Y, one.Items = append(one.X, x(r)), append(one.Y, y(r)), append(one.Items, r.Number)
			}
		}
		if len(one.X) > 0 {
			out = append(out, one)
		}
	}
	isBest := func(r *tune.Record) bool {
		return slices.Contains(best, r) && (len(s.Options.Objectives) > 1 || best[0] == r)
	}
	for _, look := range stateLooks {
		add(string(look.state), look.color, func(r *tune.Record) bool { return r.State == look.state && !isBest(r) })
	}
	add("best", report.Green, isBest)
	return out
}

// objective returns an objective of a trial as far as it is known, NaN if it is not.
func objective(i int) func(*tune.Record) float64 {
	return func(r *tune.Record) float64 {
		if values := results(r); i < len(values) {
			return values[i]
		}
		return math.NaN()
	}
}

// valueAxis is the axis of an objective.
func (s *openedStudy) valueAxis(i int) report.Axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, r := range s.list {
		if v := objective(i)(r); !math.IsNaN(v) {
			low, high = min(low, v), max(high, v)
		}
	}
	return report.Axis{Label: s.Options.Objectives[i].Name, Log: low > 0 && high/low > 20}
}

// histories draws each objective by the number of the trial, with the best so far.
func (s *openedStudy) histories() *report.Figure {
	var figures []*report.Figure
	for i, o := range s.Options.Objectives {
		so := report.Series{Name: "best so far", Color: report.Green}
		best := math.NaN()
		for _, r := range s.list {
			if r.State != tune.Complete || len(r.Broken) > 0 {
				continue
			}
			if v := r.Results[i]; math.IsNaN(best) || (v > best) == o.Maximize && v != best {
				if !math.IsNaN(best) {
					so.X, so.Y = append(so.X, float64(r.Number)), append(so.Y, best)
				}
				best = v
				so.X, so.Y = append(so.X, float64(r.Number)), append(so.Y, best)
			}
		}
		if !math.IsNaN(best) {
			so.X, so.Y = append(so.X, float64(len(s.list)-1)), append(so.Y, best)
		}
		number := func(r *tune.Record) float64 { return float64(r.Number) }
		lines := &report.Lines{X: report.Axis{Label: "Trial"}, Y: s.valueAxis(i), Series: append([]report.Series{so}, s.dots(s.list, number, objective(i))...)}
		figures = append(figures, &report.Figure{Plot: lines})
	}
	if len(figures) == 1 {
		figures[0].Caption = "Each trial by its number. Those that were pruned or paused stand at the value that they had then."
		return figures[0]
	}
	for i, f := range figures {
		f.Title = s.Options.Objectives[i].Name
	}
	return &report.Figure{Plot: &report.Grid{Figures: figures}}
}

// curves draws the first objective of all trials part way; nil if none is known.
func (s *openedStudy) curves() *report.Figure {
	lines := &report.Lines{X: report.Axis{Label: s.unitName()}, Y: s.valueAxis(0)}
	named := map[string]bool{}
	add := func(r *tune.Record, name string, color report.Color) {
		one := report.Series{Color: color, Items: []int{r.Number}}
		for _, q := range r.Curve {
			one.X, one.Y = append(one.X, float64(q.At)), append(one.Y, q.Values[0])
		}
		if len(one.X) == 0 {
			return
		}
		if !named[name] {
			one.Name, named[name] = name, true
		}
		lines.Series = append(lines.Series, one)
	}
	best := s.best()
	for _, look := range stateLooks {
		for _, r := range s.list {
			if r.State == look.state && !(len(best) > 0 && best[0] == r) {
				add(r, string(r.State), look.color)
			}
		}
	}
	if len(best) > 0 {
		add(best[0], "best", report.Green)
	}
	if len(lines.Series) == 0 {
		return nil
	}
	return &report.Figure{Plot: lines, Caption: "Each line is a trial while it is trained."}
}

// paramAxis is the axis of a parameter, and where a trial is on it; NaN if the parameter is not used there.
func paramAxis(p *tune.Param) (report.Axis, func(*tune.Record) float64) {
	if p.Type == tune.Choice {
		return report.Axis{Label: p.Name, Names: p.Choices}, func(r *tune.Record) float64 {
			if v, has := r.Values[p.Name].(string); has {
				return float64(slices.Index(p.Choices, v))
			}
			return math.NaN()
		}
	}
	return report.Axis{Label: p.Name, Log: p.Log, Min: p.Low, Max: p.High}, func(r *tune.Record) float64 {
		switch v := r.Values[p.Name].(type) {
		case float64:
			return v
		case int:
			return float64(v)
		}
		return math.NaN()
	}
}

// parallel draws the trials across the parameters to the objectives.
func (s *openedStudy) parallel(order []*tune.Param) *report.Figure {
	plot := &report.Parallel{}
	var at []func(*tune.Record) float64
	for _, p := range order[:min(len(order), mostAxes)] {
		axis, where := paramAxis(p)
		plot.Axes, at = append(plot.Axes, axis), append(at, where)
	}
	for i := range s.Options.Objectives {
		plot.Axes, at = append(plot.Axes, s.valueAxis(i)), append(at, objective(i))
	}
	for _, dots := range s.dots(s.list, func(*tune.Record) float64 { return 0 }, objective(0)) {
		for j, item := range dots.Items {
			one := report.Series{Color: dots.Color, Items: []int{item}}
			if j == 0 {
				one.Name = dots.Name
			}
			for _, where := range at {
				one.Y = append(one.Y, where(s.list[item]))
			}
			plot.Series = append(plot.Series, one)
		}
	}
	if len(plot.Series) == 0 {
		return nil
	}
	caption := "Each line is a trial: its parameters from left to right, and its result."
	if len(order) > mostAxes {
		caption += fmt.Sprintf(" The %d most important of %d parameters.", mostAxes, len(order))
	}
	return &report.Figure{Plot: plot, Caption: caption}
}

func importanceFigure(list []tune.Importance) *report.Figure {
	bars := &report.Bars{Y: report.Axis{Label: "Importance"}, Series: []report.Series{{}}}
	for _, one := range list {
		bars.Categories, bars.Series[0].Y = append(bars.Categories, one.Name), append(bars.Series[0].Y, one.Share)
	}
	return &report.Figure{Plot: bars, Height: 240}
}

// slices draws the first objective by each parameter.
func (s *openedStudy) slices(order []*tune.Param) *report.Figure {
	grid := &report.Grid{Columns: 3}
	for _, p := range order[:min(len(order), mostSlices)] {
		x, where := paramAxis(p)
		f := &report.Figure{Title: p.Name, Width: 350, Height: 250}
		x.Label = ""
		lines := &report.Lines{X: x, Y: s.valueAxis(0), Series: s.dots(s.list, where, objective(0))}
		for i := range lines.Series {
			lines.Series[i].Name = "" // the colours are explained above
		}
		f.Plot = lines
		grid.Figures = append(grid.Figures, f)
	}
	return &report.Figure{Plot: grid, Caption: "Each dot is a trial. One that does not use a parameter is absent there."}
}

// fronts draws each pair of objectives, with the trials of the front joined.
func (s *openedStudy) fronts() (blocks []report.Block) {
	n := len(s.Options.Objectives)
	for i := range n {
		for j := range i {
			front := report.Series{Name: "front", Color: report.Green}
			best := s.best()
			slices.SortFunc(best, func(a, b *tune.Record) int { return int(math.Copysign(1, a.Results[j]-b.Results[j])) })
			for _, r := range best {
				front.X, front.Y = append(front.X, r.Results[j]), append(front.Y, r.Results[i])
			}
			lines := &report.Lines{X: s.valueAxis(j), Y: s.valueAxis(i)}
			if n == 2 { // of more objectives the front is no line
				lines.Series = append(lines.Series, front)
			}
			lines.Series = append(lines.Series, s.dots(s.list, objective(j), objective(i))...)
			blocks = append(blocks, &report.Figure{Plot: lines, Caption: "The trials of the front are those that no other one is better than in all objectives."})
		}
	}
	return blocks
}

// failures lists why trials failed.
func (s *openedStudy) failures() *report.Table {
	t := &report.Table{Caption: "Trials that failed", Columns: []report.Column{{Name: "trial", Number: true}, {Name: "error"}}}
	for _, r := range s.list {
		if r.State == tune.Failed {
			t.Rows, t.Items = append(t.Rows, report.Row{Cells: []string{fmt.Sprint(r.Number), r.Error}}), append(t.Items, r.Number)
		}
	}
	return t
}

// enough is the number of trials among which a difference says something.
const enough = 10

// comparable returns the trials by which parameters are compared: the complete ones or, where these are few, all that
// have come as far as at least half of them, as if they had ended there, after at units.
func (s *openedStudy) comparable() (list []*tune.Record, at int) {
	complete := countOf(s.list)[tune.Complete]
	var last []int // units behind each trial
	for _, r := range s.list {
		if n := len(r.Curve); n > 0 {
			last = append(last, r.Curve[n-1].At)
		}
	}
	if complete >= enough || len(last) < enough || len(s.Options.Objectives) > 1 {
		return s.list, 0
	}
	slices.SortFunc(last, func(a, b int) int { return b - a })
	at = last[max(enough, len(last)/2)-1]
	for _, r := range s.list {
		if i := slices.IndexFunc(r.Curve, func(q tune.Point) bool { return q.At >= at }); i >= 0 {
			one := *r
			one.State, one.Results = tune.Complete, r.Curve[i].Values
			list = append(list, &one)
		}
	}
	return list, at
}

// unitName is what the work on a trial is counted in.
func (s *openedStudy) unitName() string {
	if strings.HasPrefix(s.header.Subject, "command\n") {
		return "at"
	}
	return "Epoch"
}

// unitsText counts units.
func (s *openedStudy) unitsText(n int) string {
	if s.unitName() == "at" {
		return fmt.Sprintf("at=%d", n)
	}
	return report.Plural(n, "epoch")
}

// Contours: cells of a side where numbers are a continuum, levels of the colours, how far a trial counts
// as a standard deviation in shares of a side, and the weight below which nothing is known.
const (
	contourCells  = 96
	contourLevels = 9
	contourReach  = 0.09
	contourLeast  = 0.1
)

// contours draws the first objective of complete trials over the two most important parameters, smoothed; nil if there
// are too few trials to tell. when says which results these are.
func (s *openedStudy) contours(list []*tune.Record, order []*tune.Param, when string) *report.Figure {
	order = slices.DeleteFunc(slices.Clone(order), func(p *tune.Param) bool { return p.Count() == 1 || p.When != "" })
	if len(order) < 2 {
		return nil
	}
	px, py := order[0], order[1]
	type point struct{ x, y, v float64 }
	var points []point
	heat := &report.Heat{Up: true, Legend: s.Options.Objectives[0].Name}
	for _, r := range list {
		if r.State == tune.Complete {
			points = append(points, point{px.Unit(r.Values[px.Name]), py.Unit(r.Values[py.Name]), r.Results[0]})
			heat.Dots.X, heat.Dots.Y, heat.Dots.Items = append(heat.Dots.X, px.Unit(r.Values[px.Name])), append(heat.Dots.Y, py.Unit(r.Values[py.Name])), append(heat.Dots.Items, r.Number)
		}
	}
	if len(points) < 5 {
		return nil
	}
	axis := func(p *tune.Param, names *[]string) (report.Axis, int) {
		if p.Type == tune.Choice {
			*names = p.Choices
			return report.Axis{Label: p.Name}, len(p.Choices)
		}
		half := 0.0 // of a whole number's share of the axis
		if p.Type == tune.Int {
			half = max(1, p.Step) / 2
		}
		return report.Axis{Label: p.Name, Log: p.Log, Min: p.Low - half, Max: p.High + half}, contourCells
	}
	var columns, rows int
	heat.X, columns = axis(px, &heat.Columns)
	heat.Y, rows = axis(py, &heat.Rows)
	for i := range rows {
		row := make([]float64, columns)
		for j := range columns {
			x, y := (float64(j)+.5)/float64(columns), (float64(i)+.5)/float64(rows)
			sum, weights := 0.0, 0.0
			for _, q := range points {
				w := math.Exp(-((q.x-x)*(q.x-x) + (q.y-y)*(q.y-y)) / (2 * contourReach * contourReach))
				sum, weights = sum+w*q.v, weights+w
			}
			if row[j] = math.NaN(); weights > contourLeast {
				row[j] = sum / weights
			}
		}
		heat.Values = append(heat.Values, row)
	}
	level(heat.Values, contourLevels)
	return &report.Figure{Plot: heat, Width: 720, Height: 420, Caption: fmt.Sprintf("%s over %s and %s, smoothed between the trials, whatever their other parameters. Where there is no colour no trial was near.", s.Options.Objectives[0].Name, px.Name, py.Name) + when}
}

// level rounds values to so many levels, whose borders are seen as contours.
func level(rows [][]float64, levels int) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, row := range rows {
		for _, v := range row {
			if !math.IsNaN(v) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	step := (high - low) / float64(levels)
	for _, row := range rows {
		for i, v := range row {
			if step > 0 && !math.IsNaN(v) {
				row[i] = low + (math.Min(math.Floor((v-low)/step), float64(levels-1))+.5)*step
			}
		}
	}
}
