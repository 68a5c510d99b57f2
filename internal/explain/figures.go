package explain

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
)

// picture is a figure with the name of its PNG file.
type picture struct {
	file string
	*report.Figure
}

// PageFile is the file name of the page that Write makes, beside the pictures.
const PageFile = "gradients.html"

// Write writes the study as a page and its pictures as PNG files into a
// directory, which it creates if necessary. version is carousel's. The errors are
// those of the file system.
func (s *Study) Write(dir, version string) error {
	before, after := s.beforeFigure(), s.afterFigure()
	carousel := s.carouselFigure()
	gates := gatesFigure("LSTM, trained", s.Trained[len(s.Trained)-1].Layers[0])
	memory := memoryFigure(s.Trained, s.Length)
	page := &report.Page{
		Title:    "How errors travel back through time",
		Subtitle: fmt.Sprintf("The adding problem over %d steps, networks of %d units", s.Length, s.Hidden),
		Version:  version,
		Sections: []report.Section{
			{Blocks: []report.Block{report.Text(strings.Join(slices.Concat(s.Advice, s.Notes()), "\n\n")), s.table()}},
			{Title: "Before training", Blocks: []report.Block{before.Figure, carousel.Figure}},
			{Title: "After training", Blocks: []report.Block{after.Figure, gates.Figure, memory.Figure}},
			{Title: "What is measured", Blocks: []report.Block{report.Text(measured)}},
		},
	}
	return write(dir, page, before, carousel, after, gates, memory)
}

// Write writes the flow as a page and its pictures as PNG files into a directory,
// which it creates if necessary. version is carousel's. The errors are those of
// the file system.
func (f *Flow) Write(dir, version string) error {
	gradients, memory := f.gradientFigure(), memoryFigure([]*Flow{f}, 0)
	pictures := []picture{gradients}
	page := &report.Page{
		Title:    "How errors travel back through time",
		Subtitle: f.Name,
		Version:  version,
		Sections: []report.Section{
			{Blocks: append(notices(slices.Concat(f.Advice, f.Notes())), f.table())},
			{Title: "Gradients", Blocks: []report.Block{gradients.Figure}},
		},
	}
	gates := report.Section{Title: "Gates and memory"}
	for i, l := range f.Layers {
		if g := gatesFigure(l.Name, l); g.Figure != nil {
			g.file = fmt.Sprintf("gates_%d.png", i+1)
			pictures, gates.Blocks = append(pictures, g), append(gates.Blocks, g.Figure)
		}
	}
	if memory.Figure != nil {
		pictures, gates.Blocks = append(pictures, memory), append(gates.Blocks, memory.Figure)
	}
	if gates.Blocks != nil {
		page.Sections = append(page.Sections, gates)
	}
	page.Sections = append(page.Sections, report.Section{Title: "What is measured", Blocks: []report.Block{report.Text(measured)}})
	return write(dir, page, pictures...)
}

const measured = `The loss of a batch is backpropagated once. The curves are the norms, over all rows and units, of its gradient in the states h and c after each step: in h through everything that reads it, in c through the steps that follow. They are shown by the number of steps between the state and the end of its row. Gradients too small for float32 are measured in further passes, in which they are scaled by powers of two; if that is not possible, a bound is given.

A gate is saturated below 0.1 and above 0.9, a tanh beyond ±0.9. A unit's memory is 1/(1−f) steps, where f is the mean share of its state that it keeps in a step: an LSTM's forget gate, a GRU's z.`

func write(dir string, page *report.Page, pictures ...picture) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, p := range pictures {
		if err := model.WriteFileAtomic(filepath.Join(dir, p.file), p.WritePNG); err != nil {
			return err
		}
	}
	return page.WriteFile(filepath.Join(dir, PageFile))
}

func notices(advice []string) []report.Block {
	var blocks []report.Block
	for _, a := range advice {
		blocks = append(blocks, report.Notice{Tone: report.Neutral, Text: a})
	}
	return blocks
}

// faintest is the smallest gradient that is drawn, relative to that at the last
// step.
const faintest = 1e-12

// curve returns a gradient by steps back, divided by its value at the last step.
func curve(name string, g []float64, last float64, c report.Color, dashed bool) report.Series {
	s := report.Series{Name: name, Color: c, Dashed: dashed, Y: make([]float64, len(g))}
	for k, v := range g {
		s.Y[k] = v / last
		if !(s.Y[k] >= faintest) {
			s.Y[k] = math.NaN()
		}
	}
	return s
}

// backAxis counts steps back from the last.
var backAxis = report.Axis{Label: "Steps before the last"}

const relativeLabel = "Norm of dLoss/d(h, c), relative to the last step"

var networkColors = map[string]report.Color{"RNN": report.Orange, "RNN, radius 2": report.Pink, "GRU": report.Green, "LSTM": report.Blue, "LSTM, bias 1": report.Blue}

func (s *Study) beforeFigure() picture {
	l := &report.Lines{X: backAxis, Y: report.Axis{Label: relativeLabel, Log: true}}
	for _, f := range s.Untrained {
		if c, ok := networkColors[f.Name]; ok {
			g := f.Layers[0].State()
			l.Series = append(l.Series, curve(f.Name, g, g[0], c, false))
		}
	}
	return picture{"before.png", &report.Figure{Title: "Untrained: vanishing and exploding gradients", Plot: l,
		Caption: "A straight line is a constant factor per step. The second RNN has a recurrent matrix of spectral radius 2."}}
}

func (s *Study) carouselFigure() picture {
	l := &report.Lines{X: backAxis, Y: report.Axis{Label: "Norm of dLoss/dc, relative to dLoss/dh at the last step", Log: true}}
	for i, name := range []string{"LSTM, bias 0", "LSTM, bias 1", "LSTM, bias 3"} {
		for _, f := range s.Untrained {
			if f.Name == name {
				one := f.Layers[0]
				text := fmt.Sprintf("%s: memory of %s steps", strings.TrimPrefix(name, "LSTM, "), short(one.Memory.Mean))
				l.Series = append(l.Series, curve(text, one.DC, one.DH[0], []report.Color{report.Sky, report.Blue, report.Ink}[i], false))
			}
		}
	}
	return picture{"carousel.png", &report.Figure{Title: "The LSTM's error carousel: the gradient in c, by the bias of the forget gate", Plot: l,
		Caption: "The cell passes the share f of its gradient back in each step. The closer f is to 1, the longer it lasts."}}
}

func (s *Study) afterFigure() picture {
	l := &report.Lines{X: backAxis, Y: report.Axis{Label: relativeLabel, Log: true}}
	for i, f := range s.Trained {
		g := f.Layers[0].State()
		text := fmt.Sprintf("%s (error %s)", f.Name, short(s.Outcomes[i].Error))
		l.Series = append(l.Series, curve(text, g, g[0], networkColors[f.Name], false))
	}
	return picture{"after.png", &report.Figure{Title: "Trained on the adding problem", Plot: l,
		Caption: "Networks that have solved the problem have a gradient at the first step. Without memory the mean squared error is 0.167."}}
}

// gradientFigure has a panel for each stack of layers.
func (f *Flow) gradientFigure() picture {
	grid := &report.Grid{Columns: 1}
	for _, stack := range stacks(f.Layers) {
		module, _, _ := strings.Cut(stack[0].Name, ", ")
		grid.Figures = append(grid.Figures, &report.Figure{Title: module, Width: 960, Height: 300, Plot: gradientLines(stack)})
	}
	p := picture{"gradients.png", &report.Figure{Title: "The gradient by steps back", Plot: grid,
		Caption: "Solid: in h. Dashed: in c. A straight line is a constant factor per step."}}
	if len(grid.Figures) == 1 {
		p.Plot = grid.Figures[0].Plot
	}
	return p
}

func gradientLines(stack []*Layer) *report.Lines {
	lines := &report.Lines{X: backAxis, Y: report.Axis{Label: "Norm of the gradient", Log: true}}
	most := 0.0
	for _, l := range stack {
		most = max(most, slices.Max(append(l.State(), 0)))
	}
	for i, l := range stack {
		_, name, ok := strings.Cut(l.Name, ", ")
		if !ok {
			name = l.title()
		}
		add := func(what string, g []float64, dashed bool) {
			c := curve(name+": "+what, g, most, report.Color(1+i%6), dashed) // values below faintest are not drawn
			for k := range c.Y {
				c.Y[k] *= most
			}
			lines.Series = append(lines.Series, c)
		}
		add("dh", l.DH, false)
		if l.DC != nil {
			add("dc", l.DC, true)
		}
	}
	return lines
}

// gateWords are descriptions of gates.
var gateWords = map[string]string{"i": "i, input gate", "f": "f, forget gate", "o": "o, output gate", "r": "r, reset gate", "h": "h"}

// gateTitle returns the description of a gate of a cell.
func gateTitle(s *cell.Spec, name string) string {
	switch words := gateWords[name]; {
	case words != "":
		return words
	case name == s.Keep:
		return name + ", update gate (keeps)"
	case name == s.Take:
		return name + ", update gate (replaces)"
	}
	if g := s.Gate(name); g >= 0 && s.Gates[g].Act == s.Candidate() {
		return name + ", candidate"
	}
	return name
}

func gatesFigure(name string, l *Layer) picture {
	if len(l.Gates) == 0 {
		return picture{}
	}
	grid := &report.Grid{Columns: min(len(l.Gates), 2)}
	for _, g := range l.Gates {
		low, names := 0.0, []string{}
		if g.Signed {
			low = -1
		}
		values := make([]float64, len(g.Histogram))
		for i, v := range g.Histogram {
			values[i] = 100 * v
			names = append(names, fmt.Sprintf("%.1f", low+(1-low)*float64(i)/float64(len(g.Histogram))))
		}
		grid.Figures = append(grid.Figures, &report.Figure{Title: fmt.Sprintf("%s: mean %.2f", gateTitle(l.kind.Spec(), g.Name), g.Mean), Height: 220,
			Plot: &report.Bars{Y: report.Axis{Label: "% of values"}, Categories: names, Series: []report.Series{{Y: values, Color: report.Blue}}}})
	}
	title := "Gates"
	if name != "" {
		title += ": " + name
	}
	return picture{"gates.png", &report.Figure{Title: title, Plot: grid}}
}

// memoryFigure draws the memories of all units, shortest first. length, if not 0,
// is that of the sequences.
func memoryFigure(flows []*Flow, length int) picture {
	l := &report.Lines{X: report.Axis{Label: "Units, by memory (%)"}, Y: report.Axis{Label: "Memory 1/(1−f), in steps", Log: true}}
	for _, f := range flows {
		for _, one := range f.Layers {
			if one.Memory == nil {
				continue
			}
			name := f.Name
			if len(flows) == 1 {
				name, length = one.Name, max(length, one.Steps)
			}
			s := report.Series{Name: name, Color: networkColors[f.Name]}
			for j, v := range one.Memory.Units {
				s.X = append(s.X, 100*(float64(j)+0.5)/float64(len(one.Memory.Units)))
				s.Y = append(s.Y, v)
			}
			l.Series = append(l.Series, s)
		}
	}
	if l.Series == nil {
		return picture{}
	}
	l.Series = append(l.Series, report.Series{Name: fmt.Sprintf("length of the sequences: %d", length), X: []float64{0, 100}, Y: []float64{float64(length), float64(length)}, Color: report.Muted, Dashed: true})
	return picture{"memory.png", &report.Figure{Title: "Memory of the units", Plot: l}}
}

func (s *Study) table() *report.Table {
	t := &report.Table{Caption: "The gradient in h and c from the last step back to the first.", Columns: append([]report.Column{{Name: "Network"}, {Name: "Training steps", Number: true}, {Name: "Error", Number: true}}, flowColumns...)}
	for _, f := range s.Untrained {
		t.Rows = append(t.Rows, report.Row{Cells: append([]string{f.Name, "–", "–"}, f.Layers[0].cells()...)})
	}
	for i, f := range s.Trained {
		o := s.Outcomes[i]
		t.Rows = append(t.Rows, report.Row{Cells: append([]string{f.Name + ", trained", fmt.Sprint(o.Steps), short(o.Error)}, f.Layers[0].cells()...), Best: o.Solved})
	}
	return t
}

func (f *Flow) table() *report.Table {
	t := &report.Table{Columns: append([]report.Column{{Name: "Layer"}, {Name: "Cell"}, {Name: "Units", Number: true}, {Name: "Steps", Number: true}}, flowColumns...)}
	for _, l := range f.Layers {
		t.Rows = append(t.Rows, report.Row{Cells: append([]string{l.Name, l.Cell, fmt.Sprint(l.Units), fmt.Sprint(l.Steps)}, l.cells()...)})
	}
	return t
}

var flowColumns = []report.Column{{Name: "Factor per step", Number: true}, {Name: "Left at the first step", Number: true}, {Name: "A thousandth after", Number: true}, {Name: "Mean memory", Number: true}}

// cells returns the entries of flowColumns.
func (l *Layer) cells() []string {
	reach, memory := fmt.Sprint(l.Reach), "–"
	if l.Reach >= l.Steps {
		reach = "never"
	}
	if l.Memory != nil {
		memory = short(l.Memory.Mean)
	}
	return []string{short(l.Rate), l.LeftText(short), reach, memory}
}
