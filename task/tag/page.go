package tag

import (
	"maps"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/report"
)

// mostLabels is the largest number of labels that a terminal lists.
const mostLabels = 60

// Summary returns the evaluation as tables, figures and sentences.
func (e *Evaluation) Summary() *report.Summary {
	s := &report.Summary{
		Scored:  report.Plural(e.Tokens, "token") + " of " + report.Plural(e.Sentences, "sentence"),
		Verdict: e.Verdict, Tone: report.Caution, Notes: e.Notes,
		Facts: report.Facts{
			{Name: "F1", Value: report.Percent(e.Metrics.F1)}, {Name: "Accuracy", Value: report.Percent(e.Metrics.Accuracy), Note: "of tokens"},
			{Name: "Sentences scored", Value: report.Count(e.Sentences), Note: report.Plural(e.Tokens, "token")},
			{Name: "Unknown words", Value: report.Percent(float64(e.Unknown) / float64(max(1, e.Tokens))), Note: "of the tokens scored"},
		},
		Tables: []*report.Table{e.methods()},
	}
	if s.Tables[0].Rows[0].Best {
		s.Tone = report.Good
	}
	labels := e.labelTable()
	if len(e.Labels) <= mostLabels {
		s.Tables, labels = append(s.Tables, labels), nil
	}
	s.Add("Labels", labels, e.confusion())
	s.Add("Largest errors", e.worstTable())
	return s
}

// methods returns the scores of the model and of the baselines. Where tags mark no
// spans, all metrics are equal, and one column is enough.
func (e *Evaluation) methods() *report.Table {
	t := report.NewTable("method", "F1", "precision", "recall", "accuracy")
	if e.Scheme == Labels {
		t = report.NewTable("method", "accuracy")
	}
	add := func(name string, m Metrics) {
		row := report.Row{Cells: []string{name, report.Percent(m.F1), report.Percent(m.Precision), report.Percent(m.Recall), report.Percent(m.Accuracy)}, Score: m.F1}
		if e.Scheme == Labels {
			row = report.Row{Cells: []string{name, report.Percent(m.Accuracy)}, Score: m.Accuracy}
		}
		t.Rows = append(t.Rows, row)
	}
	add("network", e.Metrics)
	for _, name := range slices.Sorted(maps.Keys(e.Baselines)) {
		add(strings.Replace(name, "usual", "most frequent tag of each word", 1), e.Baselines[name])
	}
	return t.MarkBest()
}

func (e *Evaluation) labelTable() *report.Table {
	t := report.NewTable("label", "precision", "recall", "F1", "true", "found", "right")
	for _, l := range e.Labels {
		t.Add(l.Label, report.Percent(l.Precision), report.Percent(l.Recall), report.Percent(l.F1), report.Count(l.Gold), report.Count(l.Found), report.Count(l.Right))
	}
	return t
}

// confusion draws the confusion matrix as shares per label: most tokens are outside
// of all spans.
func (e *Evaluation) confusion() *report.Figure {
	c := e.Confusion
	shares := make([][]float64, len(c.Counts))
	for i, row := range c.Counts {
		total := 0
		for _, n := range row {
			total += n
		}
		for _, n := range row {
			shares[i] = append(shares[i], 100*float64(n)/float64(max(1, total)))
		}
	}
	f := report.Confusion(c.Labels, shares, "% of the row")
	if f != nil {
		f.Caption = "Shares of the tokens of each label, in percent. Rows are the labels, columns the predicted labels; the diagonal is right. O is outside of all spans."
	}
	return f
}

// worstTable lists the sentences with the largest loss, with true and predicted tags.
func (e *Evaluation) worstTable() *report.Table {
	t := &report.Table{
		Caption: "Sentences for which the model considers the predicted tags much more probable than the true ones. Above are the true tags, below the predicted ones.",
		Columns: []report.Column{{Name: "Line", Number: true}, {Name: ""}, {Name: "Sentence"}},
	}
	for _, x := range e.Worst {
		t.Add(report.Count(x.Line), "true", report.Shorten(bracketed(x.Tokens, x.Tags, e.Scheme, nil), 400))
		t.Add("", "found", report.Shorten(bracketed(x.Tokens, x.Found, e.Scheme, nil), 400))
	}
	return t
}

// bracketed writes a sentence as "[New York](LOC) is big" or, if tags mark no
// spans, as "New/PROPN York/PROPN". gaps are the parts of the text before, between
// and after the tokens; nil is a space between two tokens, and so is a gap of "" where
// tags mark no spans.
func bracketed(tokens, tags []string, scheme Scheme, gaps []string) string {
	var b strings.Builder
	spans := Spans(tags)
	for i, token := range tokens {
		if gaps != nil {
			b.WriteString(gaps[i])
		}
		if i > 0 && (gaps == nil || gaps[i] == "" && scheme == Labels) {
			b.WriteByte(' ')
		}
		if scheme == Labels {
			b.WriteString(token + "/" + tags[i])
			continue
		}
		if len(spans) > 0 && spans[0].From == i {
			b.WriteByte('[')
		}
		b.WriteString(token)
		if len(spans) > 0 && spans[0].To == i+1 {
			b.WriteString("](" + spans[0].Label + ")")
			spans = spans[1:]
		}
	}
	if gaps != nil {
		b.WriteString(gaps[len(tokens)])
	}
	return b.String()
}
