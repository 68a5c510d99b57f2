package cli

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/gonum/stat"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/train"
)

// transcribePage is the report of a trained recogniser.
func transcribePage(ctx context.Context, run *transcribeRun, m *speech.Model, r *train.Result, out *trainResult, e *speech.Evaluation, list []speech.Utterance) (*report.Page, error) {
	cfg := m.Config()
	page := &report.Page{Title: "Recognition of speech", Subtitle: fmt.Sprintf("%s: %s", filepath.Base(run.files.Data), plural(len(list), "utterance")), Version: carousel.Version()}
	training := trainingOf(r)
	add := func(title string, blocks ...report.Block) {
		if len(blocks) > 0 {
			page.Sections = append(page.Sections, report.Section{Title: title, Blocks: blocks})
		}
	}
	facts := report.Facts{
		{Name: "Weights", Value: count(out.Parameters)},
		{Name: "Epochs", Value: count(r.Epochs), Note: fmt.Sprintf("best: %d", training.BestEpoch)},
		{Name: "Training", Value: fmt.Sprintf("%.1f min", r.Elapsed.Minutes())},
	}
	if e != nil {
		facts = append(report.Facts{
			{Name: "Word error rate", Value: percent(e.Metrics.WER), Note: plural(e.Words.Reference, "word")},
			{Name: "Character error rate", Value: percent(e.Metrics.CER)},
			{Name: "Without any error", Value: percent(float64(e.Exact) / float64(e.Utterances)), Note: plural(e.Utterances, "utterance")},
		}, facts...)
	}
	result := []report.Block{facts}
	if e != nil {
		result = append(result, errorTable(e))
	}
	for _, n := range out.Notes {
		result = append(result, report.Text(n))
	}
	add("Result", result...)
	if e != nil {
		worst := e.Worst(12)
		blocks, err := heardBlocks(ctx, m, typical(e))
		if err != nil {
			return nil, err
		}
		add("What the network hears", blocks...)
		add("The worst utterances", alignmentTable(worst))
		if c := confusionTable(e); c != nil {
			add("Frequent errors", c)
		}
	}
	if fig := training.Figure(); fig != nil {
		add("Training", fig)
	}
	add("Configuration", report.Pairs(settingPairs(&cfg)))
	return page, nil
}

func errorTable(e *speech.Evaluation) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: ""}}}
	for _, name := range []string{"Error rate", "Said", "Right", "Substituted", "Missed", "Made up"} {
		t.Columns = append(t.Columns, report.Column{Name: name, Number: true})
	}
	row := func(name string, r speech.Errors) {
		t.Rows = append(t.Rows, report.Row{Cells: []string{name, percent(r.Rate()), count(r.Reference), count(r.Hits), count(r.Substitutions), count(r.Deletions), count(r.Insertions)}})
	}
	row("Words", e.Words)
	row("Characters", e.Units)
	if e.Greedy != nil {
		t.Caption = fmt.Sprintf("Decoded greedily, without language model and lexicon: %s of words, %s of characters.", percent(e.Greedy.WER), percent(e.Greedy.CER))
	}
	return t
}

// typical are utterances to show: neither short nor long, one without an error and
// one with few; the shortest of all where there is none.
func typical(e *speech.Evaluation) []*speech.Result {
	var best, wrong *speech.Result
	for _, r := range e.Results {
		if n := len(r.Text); n < 8 || r.Transcript.Seconds > 8 {
			continue
		}
		if r.Words.Total() == 0 && (best == nil || len(r.Text) > len(best.Text)) {
			best = r
		}
		if k := r.Words.Total(); k > 0 && (wrong == nil || k < wrong.Words.Total()) {
			wrong = r
		}
	}
	var list []*speech.Result
	for _, r := range []*speech.Result{best, wrong} {
		if r != nil {
			list = append(list, r)
		}
	}
	if list == nil {
		list = []*speech.Result{slices.MinFunc(e.Results, func(a, b *speech.Result) int {
			return cmp.Compare(a.Transcript.Seconds, b.Transcript.Seconds)
		})}
	}
	return list
}

// heardBlocks draws, for each utterance, its features and the probabilities of
// the units over the same time, with the text on top.
func heardBlocks(ctx context.Context, m *speech.Model, list []*speech.Result) ([]report.Block, error) {
	var blocks []report.Block
	for _, r := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := m.Trace(ctx, r.Audio, nil)
		if err != nil {
			return nil, err
		}
		seconds := float64(len(t.Features)) * t.Hop
		blocks = append(blocks,
			report.Text(fmt.Sprintf("%s, line %d. Said: “%s”. Heard: “%s”.", filepath.Base(r.Audio), r.Line, r.Text, r.Transcript.Text)),
			&report.Figure{Title: "Features", Height: 240, Plot: spectrogram(m, t, seconds)},
			&report.Figure{Title: "Probability of the units", Height: 240, Plot: posteriors(m, t, seconds),
				Caption: "Above the curves: the units of the text where they are heard. Between them the network says blank."},
		)
	}
	return blocks, nil
}

// spectrogram is the features over time, low bands at the bottom. Coefficients,
// unlike bands, are of very different sizes: each is shown against its own mean.
func spectrogram(m *speech.Model, t *speech.Trace, seconds float64) *report.Heat {
	h := &report.Heat{X: report.Axis{Label: "Seconds", Max: seconds}, Y: report.Axis{Label: "Band", Max: float64(len(t.Features[0]))}, Up: true, Bare: true}
	h.Values = make([][]float64, len(t.Features[0]))
	for _, f := range t.Features {
		for band, v := range f {
			h.Values[band] = append(h.Values[band], v)
		}
	}
	if cfg := m.Config(); cfg.Rate > 0 && cfg.Features == "logmel" {
		return h
	}
	h.Y.Label, h.Diverging = "Coefficient, in deviations from its mean", true
	for _, row := range h.Values {
		mean, deviation := stat.MeanStdDev(row, nil)
		for i := range row {
			row[i] = (row[i] - mean) / math.Max(deviation, 1e-9)
		}
	}
	return h
}

// posteriors is a curve for the likeliest of the text's units at each step, and
// one for the blank.
func posteriors(m *speech.Model, t *speech.Trace, seconds float64) *report.Lines {
	lines := &report.Lines{X: report.Axis{Label: "Seconds", Max: seconds}, Y: report.Axis{Label: "Probability", Max: 1}}
	times := make([]float64, len(t.Posteriors))
	for i := range times {
		times[i] = float64(i) * t.Step
	}
	curve := func(class int) []float64 {
		y := make([]float64, len(t.Posteriors))
		for i, p := range t.Posteriors {
			y[i] = p[class]
		}
		return y
	}
	lines.Series = append(lines.Series, report.Series{Name: "blank", X: times, Y: curve(0), Color: report.Muted, Dashed: true})
	all := report.Series{Name: "units of the text", X: times, Y: make([]float64, len(times)), Color: report.Blue}
	for i, p := range t.Posteriors {
		for _, u := range t.Units {
			all.Y[i] = max(all.Y[i], p[u.Class])
		}
	}
	lines.Series = append(lines.Series, all)
	for _, u := range t.Units {
		lines.Marks = append(lines.Marks, report.Mark{X: u.Seconds, Label: strings.ReplaceAll(u.Unit, " ", "␣")})
	}
	return lines
}

// alignmentTable sets what was said above what was heard, word by word.
func alignmentTable(list []*speech.Result) *report.Table {
	t := &report.Table{
		Caption: "[right → wrong], [missed → ], [ → made up].",
		Columns: []report.Column{{Name: "Line", Number: true}, {Name: "Words wrong", Number: true}, {Name: "Alignment"}, {Name: "File"}},
	}
	for _, r := range list {
		if r.Words.Total() == 0 {
			break
		}
		var words []string
		for _, p := range r.Pairs {
			if p.Reference == p.Hypothesis {
				words = append(words, p.Reference)
			} else {
				words = append(words, fmt.Sprintf("[%s → %s]", p.Reference, p.Hypothesis))
			}
		}
		t.Rows = append(t.Rows, report.Row{Cells: []string{
			count(r.Line), fmt.Sprintf("%d of %d", r.Words.Total(), r.Words.Reference), shorten(strings.Join(words, " "), 300), filepath.Base(r.Audio),
		}})
	}
	return t
}

func confusionTable(e *speech.Evaluation) *report.Table {
	list := e.Confusions(15)
	if len(list) == 0 {
		return nil
	}
	t := &report.Table{Columns: []report.Column{{Name: "Said"}, {Name: "Heard"}, {Name: "Times", Number: true}}}
	for _, c := range list {
		cells := []string{c.Reference, c.Hypothesis, count(c.Times)}
		for i, s := range cells {
			if s == "" {
				cells[i] = "(nothing)"
			}
		}
		t.Rows = append(t.Rows, report.Row{Cells: cells})
	}
	return t
}
