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
	"github.com/carousel-ml/carousel/tensor"
)

// Summary returns the evaluation as tables, figures and sentences.
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
		s.Text = append(s.Text, fmt.Sprintf("Greedy decoding, without language model and lexicon: word error rate %s, character error rate %s.", report.Percent(e.Greedy.WER), report.Percent(e.Greedy.CER)))
	}
	s.Text = append(s.Text, fmt.Sprintf("%s of %s without an error. Transcribing takes %.2g times the length of the sounds.", report.Count(e.Exact), utterances, e.Taken/math.Max(e.Seconds, 1e-9)))
	s.Add("Utterances with the most errors", alignmentTable(e.Worst(12)))
	s.Add("Frequent errors", confusionTable(e.Confusions(15)))
	return s
}

// errorTable returns the numbers of errors in words and in characters.
func (e *Evaluation) errorTable() *report.Table {
	t := report.NewTable("", "error rate", "reference", "right", "substituted", "deleted", "inserted")
	row := func(name string, r Errors) {
		t.Add(name, report.Percent(r.Rate()), report.Count(r.Reference), report.Count(r.Hits), report.Count(r.Substitutions), report.Count(r.Deletions), report.Count(r.Insertions))
	}
	row("words", e.Words)
	row("characters", e.Units)
	return t
}

// Illustrate returns a section that shows, for utterances of the evaluation, the
// features and the probabilities of the tokens over time, with the text above.
// The errors are those of [Model.Trace].
func (m *Model) Illustrate(ctx context.Context, _ *Data, e *Evaluation) (_ []report.Section, err error) {
	defer tensor.Recover(&err)
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
			report.Text(fmt.Sprintf("%s, line %d. Reference: “%s”. Transcript: “%s”.", filepath.Base(r.Audio), r.Line, r.Text, r.Transcript.Text)),
			&report.Figure{Title: "Features", Height: 240, Plot: spectrogram(m, t, seconds)},
			&report.Figure{Title: "Probability of the tokens", Height: 240, Plot: unitCurves(t, seconds),
				Caption: "Above the curves are the tokens of the transcript at their times. Between them the blank is most probable."},
		)
	}
	return []report.Section{{Title: "Features and probabilities", Blocks: blocks}}, nil
}

// typical returns utterances to show, neither short nor long: one without an
// error and one with few errors; the shortest of all if there is none.
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

// spectrogram draws the features over time, low bands at the bottom.
// Coefficients, unlike bands, have different scales, so each is standardised.
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
	h.Y.Label, h.Diverging = "Coefficient, standardised", true
	for _, row := range h.Values {
		mean, deviation := stat.MeanStdDev(row, nil)
		for i := range row {
			row[i] = (row[i] - mean) / math.Max(deviation, 1e-9)
		}
	}
	return h
}

// unitCurves draws the probability of the most probable of the text's tokens at
// each step, and that of the blank.
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
	all := report.Series{Name: "tokens of the text", X: times, Y: make([]float64, len(times)), Color: report.Blue}
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

// alignmentTable aligns the words of references and transcripts.
func alignmentTable(list []*Result) *report.Table {
	t := &report.Table{
		Caption: "[reference → transcript], [deleted → ], [ → inserted].",
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
	t := &report.Table{Columns: []report.Column{{Name: "Reference"}, {Name: "Transcript"}, {Name: "Times", Number: true}}}
	for _, c := range list {
		t.Add(cmp.Or(c.Reference, "(nothing)"), cmp.Or(c.Hypothesis, "(nothing)"), report.Count(c.Times))
	}
	return t
}
