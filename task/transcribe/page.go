package transcribe

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/gonum/stat"

	"github.com/carousel-ml/carousel/report"
)

// Summary is the evaluation for people.
func (e *Evaluation) Summary() *report.Summary {
	utterances := report.Plural(e.Utterances, "utterance")
	s := &report.Summary{
		Scored: fmt.Sprintf("%s, %.1f minutes of sound", utterances, e.Seconds/60),
		Facts: report.Facts{
			{Name: "Word error rate", Value: report.Percent(e.Metrics.WER), Note: report.Plural(e.Words.Reference, "word")},
			{Name: "Character error rate", Value: report.Percent(e.Metrics.CER)},
			{Name: "Without any error", Value: report.Percent(float64(e.Exact) / float64(max(e.Utterances, 1))), Note: utterances},
		},
		Tables: []*report.Table{e.errorTable()},
		Notes:  e.Notes,
	}
	if e.Greedy != nil {
		s.Text = append(s.Text, fmt.Sprintf("Decoded greedily, without language model and lexicon: %s of words, %s of characters.", report.Percent(e.Greedy.WER), report.Percent(e.Greedy.CER)))
	}
	s.Text = append(s.Text, fmt.Sprintf("%s of %s have no error. Transcribed in %.2g of the time they last.", report.Count(e.Exact), utterances, e.Taken/math.Max(e.Seconds, 1e-9)))
	s.Add("The worst utterances", alignmentTable(e.Worst(12)))
	s.Add("Frequent errors", confusionTable(e.Confusions(15)))
	return s
}

// errorTable counts the errors in words and in characters.
func (e *Evaluation) errorTable() *report.Table {
	t := report.NewTable("", "error rate", "said", "right", "substituted", "missed", "made up")
	row := func(name string, r Errors) {
		t.Add(name, report.Percent(r.Rate()), report.Count(r.Reference), report.Count(r.Hits), report.Count(r.Substitutions), report.Count(r.Deletions), report.Count(r.Insertions))
	}
	row("words", e.Words)
	row("characters", e.Units)
	return t
}

// Illustrate draws, for utterances of the evaluation, the features and the
// probabilities of the units over the same time, with the text on top.
func (m *Model) Illustrate(ctx context.Context, _ *Data, e *Evaluation) ([]report.Section, error) {
	if e == nil || len(e.Results) == 0 {
		return nil, nil
	}
	var blocks []report.Block
	for _, r := range typical(e) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := m.Trace(ctx, r.Audio, nil)
		if err != nil {
			return nil, err
		}
		seconds := float64(len(t.Features)) * t.Hop
		blocks = append(blocks,
			report.Text(fmt.Sprintf("%s, line %d. Said: “%s”. Transcribed: “%s”.", filepath.Base(r.Audio), r.Line, r.Text, r.Transcript.Text)),
			&report.Figure{Title: "Features", Height: 240, Plot: spectrogram(m, t, seconds)},
			&report.Figure{Title: "Probability of the units", Height: 240, Plot: unitCurves(t, seconds),
				Caption: "Above the curves: the units of the text where they are found. Between them the network gives the blank."},
		)
	}
	return []report.Section{{Title: "Features and probabilities", Blocks: blocks}}, nil
}

// typical are utterances to show: neither short nor long, one without an error and
// one with few; the shortest of all where there is none.
func typical(e *Evaluation) []*Result {
	var best, wrong *Result
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
	var list []*Result
	for _, r := range []*Result{best, wrong} {
		if r != nil {
			list = append(list, r)
		}
	}
	if list == nil {
		list = []*Result{slices.MinFunc(e.Results, func(a, b *Result) int {
			return cmp.Compare(a.Transcript.Seconds, b.Transcript.Seconds)
		})}
	}
	return list
}

// spectrogram is the features over time, low bands at the bottom. Coefficients,
// unlike bands, are of very different sizes: each is shown against its own mean.
func spectrogram(m *Model, t *Trace, seconds float64) *report.Heat {
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

// unitCurves is a curve for the likeliest of the text's units at each step, and
// one for the blank.
func unitCurves(t *Trace, seconds float64) *report.Lines {
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

// alignmentTable sets the words said beside those transcribed.
func alignmentTable(list []*Result) *report.Table {
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
		t.Add(report.Count(r.Line), fmt.Sprintf("%d of %d", r.Words.Total(), r.Words.Reference), report.Shorten(strings.Join(words, " "), 300), filepath.Base(r.Audio))
	}
	return t
}

func confusionTable(list []Confusion) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: "Said"}, {Name: "Transcribed"}, {Name: "Times", Number: true}}}
	for _, c := range list {
		t.Add(cmp.Or(c.Reference, "(nothing)"), cmp.Or(c.Hypothesis, "(nothing)"), report.Count(c.Times))
	}
	return t
}
