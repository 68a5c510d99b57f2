package translate

import (
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/report"
)

// Summary returns the evaluation as text, tables and figures.
func (e *Evaluation) Summary() *report.Summary {
	letters := "with case"
	if e.Lowercase {
		letters = "lower case"
	}
	s := &report.Summary{
		Scored: report.Plural(e.Sentences, "sentence"), Notes: e.Notes,
		Facts: report.Facts{
			{Name: "BLEU", Value: fmt.Sprintf("%.1f", e.Metrics.BLEU), Note: letters}, {Name: "chrF2", Value: fmt.Sprintf("%.1f", e.Metrics.CHRF), Note: letters},
			{Name: "chrF2++", Value: fmt.Sprintf("%.1f", e.Metrics.CHRFPP), Note: letters},
			{Name: "Sentences scored", Value: report.Count(e.Sentences)},
		},
		Tables: []*report.Table{e.lengthTable()},
		Text: []string{fmt.Sprintf("BLEU|%s%s\nchrF2|%s = %.2f\nchrF2++|%s = %.2f",
			e.Signatures.BLEU, strings.TrimPrefix(e.Detail, "BLEU"), e.Signatures.CHRF, e.Metrics.CHRF, e.Signatures.CHRFPP, e.Metrics.CHRFPP)},
	}
	if e.Long != nil {
		s.Text = append(s.Text, e.Long.String())
	}
	s.Add("By the length of the source", e.lengthBars())
	s.Add("Examples", e.exampleTable())
	s.Add("Attention", e.maps())
	return s
}

func (e *Evaluation) lengthTable() *report.Table {
	t := report.NewTable("source words", "sentences", "BLEU")
	for _, l := range e.ByLength {
		t.Add(l.String(), report.Count(l.Sentences), fmt.Sprintf("%.1f", l.BLEU))
	}
	return t
}

func (e *Evaluation) lengthBars() *report.Figure {
	bars := &report.Bars{X: report.Axis{Label: "Words of the source"}, Y: report.Axis{Label: "BLEU"}, Series: []report.Series{{Name: "BLEU"}}}
	for _, l := range e.ByLength {
		bars.Categories = append(bars.Categories, fmt.Sprintf("%s (%s)", l.String(), report.Plural(l.Sentences, "sentence")))
		bars.Series[0].Y = append(bars.Series[0].Y, l.BLEU)
	}
	return &report.Figure{Title: "BLEU by length", Plot: bars}
}

// String returns the range of lengths: "1 to 5".
func (l *LengthScore) String() string {
	if l.To == 0 {
		return fmt.Sprintf("%d and more", l.From)
	}
	return fmt.Sprintf("%d to %d", l.From, l.To)
}

// String describes in a sentence the effect of cutting long sources, and of carrying
// the state.
func (l *LongScore) String() string {
	change := func(d float64) string {
		switch {
		case d >= 0.05:
			return fmt.Sprintf("gains %.1f", d)
		case d <= -0.05:
			return fmt.Sprintf("costs %.1f", -d)
		}
		return "changes nothing"
	}
	return fmt.Sprintf("Sources of %d joined sentences: BLEU %.1f as a whole; in parts of at most %d tokens %.1f, which %s; with the encoder's state carried from part to part %.1f, which %s compared with that.",
		l.Joined, l.Whole, l.PieceLength, l.Cut, change(l.Cut-l.Whole), l.Carried, change(l.Carried-l.Cut))
}

func (e *Evaluation) exampleTable() *report.Table {
	t := &report.Table{
		Caption: "From the best to the worst by the chrF of the sentence, evenly chosen.",
		Columns: []report.Column{{Name: "Source"}, {Name: "Translation"}, {Name: "Reference"}, {Name: "chrF", Number: true}},
	}
	for _, x := range e.Examples {
		t.Add(x.Source, x.Text, x.Reference, fmt.Sprintf("%.0f", x.CHRF))
	}
	return t
}

// maps draws the attention of a few examples that are short enough to read; nil
// without such.
func (e *Evaluation) maps() *report.Figure {
	const most = 4
	grid := &report.Grid{Columns: 2}
	for _, x := range e.Examples {
		if x.Attention == nil || len(x.Attention.Source) > 20 || len(x.Attention.Target) > 20 || len(grid.Figures) == most {
			continue
		}
		fig := x.Attention.figure()
		fig.Title, fig.Width, fig.Height = x.Text, 480, 120+22*len(x.Attention.Target)
		grid.Figures = append(grid.Figures, fig)
	}
	if len(grid.Figures) == 0 {
		return nil
	}
	return &report.Figure{Title: "Attention", Caption: "Each row is a token of the translation, each column one of the source; the last column is the end of the source.", Plot: grid}
}

// figure draws the weights: a row per target token, a column per source token.
func (a *Attention) figure() *report.Figure {
	heat := &report.Heat{X: report.Axis{Label: "Source"}, Y: report.Axis{Label: "Translation"}, Rows: a.Target, Legend: "attention"}
	for _, s := range a.Source {
		heat.Columns = append(heat.Columns, strings.TrimSpace(s))
	}
	for _, weights := range a.Weights {
		row := make([]float64, len(weights))
		for k, w := range weights {
			row[k] = float64(w)
		}
		heat.Values = append(heat.Values, row)
	}
	return &report.Figure{Title: "Attention", Plot: heat}
}
