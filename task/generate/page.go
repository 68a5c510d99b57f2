package generate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// Summary returns the evaluation as tables, figures and sentences.
func (e *Evaluation) Summary() *report.Summary {
	unit, unigram := unitName(e.Unit), e.Baselines["unigram"]
	size := report.Plural(e.Tokens, unit)
	if e.Unit != "char" {
		size += " (" + report.Plural(e.Characters, "character") + ")"
	}
	tone, verb := report.Good, "On average"
	if e.Metrics.Nats >= unigram.Nats {
		tone, verb = report.Caution, "It is not better than the tokens' frequencies: on average"
	}
	s := &report.Summary{
		Scored: size + " of " + report.Plural(e.Documents, "document"),
		Verdict: fmt.Sprintf(
			"%s, the model is as uncertain about the next %s as a uniform choice among %s; with the %ss' frequencies alone it would be among %s.",
			verb, unit, report.Number(e.Metrics.Perplexity), unit, report.Number(unigram.Perplexity)),
		Tone: tone, Notes: e.Notes,
		Facts: report.Facts{
			{Name: "Perplexity", Value: report.Number(e.Metrics.Perplexity), Note: "by " + unit},
			{Name: "Bits per character", Value: report.Number(e.Metrics.BitsPerChar)},
			{Name: "Nats per " + unit, Value: report.Number(e.Metrics.Nats)},
			{Name: "Scored", Value: report.Count(e.Tokens), Note: unit + "s, state carried through"},
			{Name: "Vocabulary", Value: report.Count(e.Vocabulary), Note: report.Percent(float64(e.Unknown)/float64(max(e.Tokens, 1))) + " unknown"},
		},
	}
	t := report.NewTable("method", "nats per "+unit, "bits per character", "perplexity")
	add := func(name string, m Metrics, score float64) {
		t.Rows = append(t.Rows, report.Row{Cells: []string{name, report.Number(m.Nats), report.Number(m.BitsPerChar), report.Number(m.Perplexity)}, Score: score})
	}
	add("network", e.Metrics, -e.Metrics.Nats)
	if e.Known != nil { // on other tokens, so it is not compared
		add("network, without "+report.Plural(e.Unknown, "unknown "+unit), *e.Known, math.NaN())
	}
	add("frequencies alone", unigram, -unigram.Nats)
	s.Tables = []*report.Table{t.MarkBest()}
	s.Add("Loss by position and frequency", e.groupFigures())
	s.Add("Words with the highest loss", e.surpriseTable())
	return s
}

// unitName returns the word for a token.
func unitName(unit string) string {
	switch unit {
	case "char":
		return "character"
	case "space":
		return "word"
	}
	return "token"
}

// groupFigures plots the loss by position and by frequency.
func (e *Evaluation) groupFigures() *report.Figure {
	unit := unitName(e.Unit)
	figure := func(title, x, caption string, list []Group, name func(Group) string) *report.Figure {
		bars := &report.Bars{X: report.Axis{Label: x}, Y: report.Axis{Label: "Nats per " + unit}}
		var y []float64
		for _, g := range list {
			bars.Categories = append(bars.Categories, name(g))
			y = append(y, g.Nats)
		}
		bars.Series = []report.Series{{Name: "nats", Y: y, Color: report.Blue}}
		return &report.Figure{Title: title, Caption: caption, Plot: bars}
	}
	var shares []string
	for _, g := range e.ByFrequency {
		shares = append(shares, countName(g)+" "+report.Percent(float64(g.Tokens)/float64(e.Tokens)))
	}
	return &report.Figure{Plot: &report.Grid{Columns: 2, Figures: []*report.Figure{
		figure("By position in the document", "Position", "A lower loss at later positions is the effect of the context.", e.ByPosition, placeName),
		figure("By frequency in the training text", "Occurrences in training", "Shares of the "+unit+"s scored: "+strings.Join(shares, ", ")+".", e.ByFrequency, countName),
	}}}
}

func placeName(g Group) string {
	if g.To == 0 {
		return "from " + short(g.From+1)
	}
	return short(g.From+1) + "–" + short(g.To)
}

func countName(g Group) string {
	switch {
	case g.To == 1:
		return "never"
	case g.To == 0:
		return short(g.From) + "+"
	}
	return short(g.From) + "–" + short(g.To-1)
}

// short formats a count, with thousands as k.
func short(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%gk", math.Round(float64(n)/1000))
}

func (e *Evaluation) surpriseTable() *report.Table {
	t := &report.Table{
		Caption: "The words with the highest loss of all their tokens together, and the text before them. Each distinct word is shown at its worst position.",
		Columns: []report.Column{{Name: "Text before"}, {Name: "Word"}, {Name: "Nats", Number: true}},
	}
	for _, s := range e.Surprising {
		t.Add("… "+cmp.Or(s.Before, "(the beginning)"), report.Shorten(s.Word, 40), report.Number(s.Nats))
	}
	return t
}

// Illustrate returns a section with documents that the model generates at several
// temperatures, drawn by the seed of its training. A cancelled ctx returns its
// error.
func (m *Model) Illustrate(ctx context.Context, _ *Data, _ *Evaluation) (_ []report.Section, err error) {
	defer tensor.Recover(&err)
	o := DefaultPredict()
	o.Seed, o.MaxTokens = m.cfg.Seed, 120
	if m.cfg.Tokens == "char" {
		o.MaxTokens = 500
	}
	var passages []report.Block
	for _, t := range []float64{0.5, 0.8, 1} {
		o.Temperature = t
		texts, err := m.Generate(ctx, []string{""}, &o)
		if err != nil {
			return nil, err
		}
		text := cmp.Or(texts[0].Text, "(nothing: the document ends at once)")
		passages = append(passages, report.Passage{Title: fmt.Sprintf("Temperature %g", t), Text: text})
	}
	return report.AddSection(nil, "Generated texts", passages...), nil
}
