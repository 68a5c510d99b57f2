package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/train"
)

// unescape lets a shell's argument name line ends and tabs.
func unescape(s string) string { return strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(s) }

// printTextScores writes how well a text was foreseen.
func printTextScores(w io.Writer, e *generate.Evaluation, part string) {
	size := plural(e.Tokens, unitName(e.Unit))
	if e.Unit != "char" {
		size += " (" + plural(e.Characters, "character") + ")"
	}
	fmt.Fprintf(w, "\nScores on the %s text: %s, %s\n\n", part, size, plural(e.Documents, "document"))
	var rows [][]string
	for _, m := range textMethods(e) {
		rows = append(rows, append([]string{m.name}, m.cells...))
	}
	printTable(w, append([]string{""}, textMetrics(e)...), rows)
	for _, n := range e.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

// unitName is what a unit is called where tokens are counted.
func unitName(unit string) string {
	if unit == "char" {
		return "character"
	}
	if unit == "bpe" {
		return "token"
	}
	return unit
}

func textMetrics(e *generate.Evaluation) []string {
	return []string{"nats a " + unitName(e.Unit), "bits a character", "perplexity"}
}

// textMethods lists the model, then what knows the frequencies alone.
func textMethods(e *generate.Evaluation) []scoredMethod {
	row := func(name string, m generate.Metrics) scoredMethod {
		return scoredMethod{name, []string{number(m.Nats), number(m.BitsPerChar), number(m.Perplexity)}, -m.Nats}
	}
	return []scoredMethod{row("network", e.Metrics), row("frequencies alone", e.Baselines["unigram"])}
}

// sample is a text at one temperature.
type sample struct {
	temperature float64
	text        generate.Generated
}

// sampleTexts lets a trained model write for its report.
func sampleTexts(ctx context.Context, m *generate.Model, seed uint64) ([]sample, error) {
	length := 500
	if cfg := m.Config(); cfg.Tokens != "char" {
		length = 120
	}
	var list []sample
	for _, t := range []float64{0.5, 0.8, 1} {
		texts, err := m.Generate(ctx, []string{""}, &generate.GenerateOptions{Length: length, Temperature: t, Seed: seed})
		if err != nil {
			return nil, err
		}
		list = append(list, sample{t, texts[0]})
	}
	return list, nil
}

// generatePage is the report of a trained language model; e, of the named part,
// may be nil.
func generatePage(run *generateRun, m *generate.Model, r *train.Result, out *trainResult, e *generate.Evaluation, part string, samples []sample) *report.Page {
	cfg := m.Config()
	page := &report.Page{Title: "Language model", Subtitle: filepath.Base(run.files.Data) + ": " + m.Describe(), Version: carousel.Version()}
	add := func(title string, blocks ...report.Block) {
		if len(blocks) > 0 {
			page.Sections = append(page.Sections, report.Section{Title: title, Blocks: blocks})
		}
	}
	training := trainingOf(r)
	add("Result", resultBlocks(out, r, training.BestEpoch, e, part)...)
	var passages []report.Block
	for _, s := range samples {
		text := s.text.Text
		if text == "" {
			text = "(nothing: the document ends at once)"
		}
		passages = append(passages, report.Passage{Title: fmt.Sprintf("Temperature %g", s.temperature), Text: text})
	}
	add("How it writes", passages...)
	if e != nil {
		add("Where it is sure and where not", groupFigures(e)...)
		add("The most surprising words", surpriseTable(e))
	}
	if fig := training.Figure(); fig != nil {
		add("Training", fig)
	}
	add("Configuration", report.Pairs(settingPairs(&cfg)))
	return page
}

// resultBlocks are the verdict, the key figures and the notes.
func resultBlocks(out *trainResult, r *train.Result, best int, e *generate.Evaluation, part string) []report.Block {
	var blocks []report.Block
	facts := report.Facts{{Name: "Weights", Value: count(out.Parameters)}, {Name: "Epochs", Value: count(r.Epochs)}}
	if best > 0 {
		facts[1].Note = fmt.Sprintf("best: %d", best)
	}
	if e != nil {
		unit := unitName(e.Unit)
		tone, verb := report.Good, "On average"
		if e.Metrics.Nats >= e.Baselines["unigram"].Nats {
			tone, verb = report.Caution, "It has learned nothing beyond frequencies: on average"
		}
		blocks = append(blocks, report.Notice{Tone: tone, Text: fmt.Sprintf(
			"%s, the model is as unsure of the next %s of the %s text as if it chose among %s with equal chances; by the %ss' frequencies alone it would be among %s.",
			verb, unit, part, number(e.Metrics.Perplexity), unit, number(e.Baselines["unigram"].Perplexity))})
		facts = append(report.Facts{
			{Name: "Perplexity", Value: number(e.Metrics.Perplexity), Note: "by " + unit},
			{Name: "Bits a character", Value: number(e.Metrics.BitsPerChar)},
			{Name: "Nats a " + unit, Value: number(e.Metrics.Nats)},
			{Name: "Scored", Value: count(e.Tokens), Note: fmt.Sprintf("%ss, state carried through", unit)},
		}, facts...)
		facts = append(facts, report.Fact{Name: "Vocabulary", Value: count(e.Vocabulary), Note: fmt.Sprintf("%.2g %% unknown", 100*float64(e.Unknown)/float64(max(e.Tokens, 1)))})
	}
	blocks = append(blocks, facts)
	if e != nil {
		blocks = append(blocks, scoreTable(textMethods(e), textMetrics(e)...))
		for _, n := range e.Notes {
			blocks = append(blocks, report.Text(n))
		}
	}
	for _, n := range out.Notes {
		blocks = append(blocks, report.Text(n))
	}
	return blocks
}

// groupFigures show the perplexity by place and by frequency.
func groupFigures(e *generate.Evaluation) []report.Block {
	unit := unitName(e.Unit)
	figure := func(title, x, caption string, list []generate.Group, name func(generate.Group) string) *report.Figure {
		bars := &report.Bars{X: report.Axis{Label: x}, Y: report.Axis{Label: "Nats a " + unit}}
		var y []float64
		for _, g := range list {
			bars.Categories = append(bars.Categories, name(g))
			y = append(y, g.Nats)
		}
		bars.Series = []report.Series{{Name: "nats", Y: y, Color: report.Blue}}
		return &report.Figure{Title: title, Caption: caption, Plot: bars}
	}
	var parts []string
	for _, g := range e.ByFrequency {
		parts = append(parts, fmt.Sprintf("%s %.2g %%", countName(g), 100*float64(g.Tokens)/float64(e.Tokens)))
	}
	return []report.Block{&report.Figure{Plot: &report.Grid{Columns: 2, Figures: []*report.Figure{
		figure("By place in the document", "Place", "What has been read before helps, as far as the bars fall.", e.ByPosition, placeName),
		figure("By frequency in the training text", "Times seen in training", "Shares of the "+unit+"s scored: "+strings.Join(parts, ", ")+".", e.ByFrequency, countName),
	}}}}
}

func placeName(g generate.Group) string {
	if g.To == 0 {
		return "from " + short(g.From+1)
	}
	return short(g.From+1) + "–" + short(g.To)
}

func countName(g generate.Group) string {
	switch {
	case g.To == 1:
		return "never"
	case g.To == 0:
		return short(g.From) + "+"
	}
	return short(g.From) + "–" + short(g.To-1)
}

// short is a count with thousands as k.
func short(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%gk", math.Round(float64(n)/1000))
}

func surpriseTable(e *generate.Evaluation) *report.Table {
	t := &report.Table{
		Caption: "The words that were foreseen worst, all their tokens together, and what stood before them. Of a word that comes often, its worst place.",
		Columns: []report.Column{{Name: "After"}, {Name: "came"}, {Name: "Nats", Number: true}},
	}
	for _, s := range e.Surprising {
		t.Rows = append(t.Rows, report.Row{Cells: []string{"… " + cmp.Or(s.Before, "(the beginning)"), shorten(s.Word, 40), number(s.Nats)}})
	}
	return t
}
