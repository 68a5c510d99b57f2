package classify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// Summary returns the evaluation as tables, figures and sentences.
func (e *Evaluation) Summary() *report.Summary {
	s := &report.Summary{
		Scored: report.Plural(e.Texts, "text"), Verdict: e.Verdict, Notes: e.Notes,
		Facts: report.Facts{
			{Name: "Accuracy", Value: report.Percent(e.Metrics.Accuracy)}, {Name: "Macro F1", Value: report.Percent(e.Metrics.MacroF1)},
			{Name: "Texts scored", Value: report.Count(e.Texts)},
		},
		Tables: []*report.Table{e.methods()},
	}
	if e.Metrics.Accuracy > e.Baselines["linear"].Accuracy {
		s.Tone = report.Good
	}
	if len(e.Classes) <= mostClasses {
		s.Tables = append(s.Tables, e.classTable())
		s.Add("Classes", report.Confusion(e.names(), e.Confusion, "Texts"))
	}
	return s
}

// mostClasses is the largest number of classes that are listed one by one.
const mostClasses = 60

// methods returns the scores of the model and of the baselines, best first.
func (e *Evaluation) methods() *report.Table {
	row := func(name string, m Metrics) report.Row {
		loss := "-"
		if m.Loss > 0 {
			loss = report.Number(m.Loss)
		}
		return report.Row{Cells: []string{name, report.Percent(m.Accuracy), report.Percent(m.MacroF1), report.Percent(m.MicroF1), loss}, Score: m.Accuracy}
	}
	name := "network"
	if e.Share > 0 {
		name = fmt.Sprintf("network, with %.0f %% of linear", 100*e.Share)
	}
	t := report.NewTable("method", "accuracy", "macro F1", "micro F1", "loss")
	t.Rows = append(t.Rows, row(name, e.Metrics))
	for _, name := range slices.SortedFunc(maps.Keys(e.Baselines), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Baselines[b].Accuracy, e.Baselines[a].Accuracy), strings.Compare(a, b))
	}) {
		label := name
		if name == "network" {
			label = "network alone"
		}
		t.Rows = append(t.Rows, row(label, e.Baselines[name]))
	}
	return t.MarkBest()
}

func (e *Evaluation) classTable() *report.Table {
	t := report.NewTable("class", "precision", "recall", "F1", "texts")
	for _, c := range e.Classes {
		t.Add(c.Class, report.Percent(c.Precision), report.Percent(c.Recall), report.Percent(c.F1), report.Count(c.Texts))
	}
	return t
}

func (e *Evaluation) names() []string {
	var names []string
	for _, c := range e.Classes {
		names = append(names, c.Class)
	}
	return names
}

// Illustrate returns a section with the wrong predictions of the evaluation that
// have the largest loss, and the words that contributed most to them. A cancelled
// ctx returns its error.
func (m *Model) Illustrate(ctx context.Context, _ *Data, e *Evaluation) (_ []report.Section, err error) {
	defer tensor.Recover(&err)
	if e == nil || len(e.Worst) == 0 {
		return nil, nil
	}
	var texts []string
	for _, x := range e.Worst {
		texts = append(texts, x.Text)
	}
	answers, err := m.Classify(ctx, texts, &PredictOptions{Explain: m.cfg.Pool != "last"})
	if err != nil {
		return nil, err
	}
	t := &report.Table{
		Caption: "The wrong predictions with the largest loss. The words are those that contributed most to the prediction.",
		Columns: []report.Column{{Name: "Line", Number: true}, {Name: "Text"}, {Name: "Label"}, {Name: "Predicted"}, {Name: "Probability", Number: true}, {Name: "Words"}},
	}
	for i, x := range e.Worst {
		var words []string
		for _, word := range strongest(answers[i].Words, 4) {
			if word.Share > 0 {
				words = append(words, word.Text)
			}
		}
		t.Add(report.Count(x.Line), report.Shorten(x.Text, 200), strings.Join(x.Labels, ", "), strings.Join(x.Predicted, ", "), report.Percent(x.Probability), strings.Join(words, ", "))
	}
	return []report.Section{{Title: "Largest errors", Blocks: []report.Block{t}}}, nil
}
