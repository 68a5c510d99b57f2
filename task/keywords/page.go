package keywords

import (
	"path/filepath"

	"github.com/carousel-ml/carousel/report"
)

// Summary returns the evaluation as tables, figures and sentences.
func (e *Evaluation) Summary() *report.Summary {
	methods := report.NewTable("method", "accuracy", "loss")
	row := func(name string, m Metrics) {
		loss := "-"
		if m.Loss > 0 {
			loss = report.Number(m.Loss)
		}
		methods.Rows = append(methods.Rows, report.Row{Cells: []string{name, report.Percent(m.Accuracy), loss}, Score: m.Accuracy})
	}
	majority := e.Baselines["majority"]
	row("network", e.Metrics)
	row("majority", majority)
	s := &report.Summary{
		Scored: report.Plural(e.Sounds, "sound"),
		Facts: report.Facts{
			{Name: "Accuracy", Value: report.Percent(e.Metrics.Accuracy), Note: "most frequent label: " + report.Percent(majority.Accuracy)},
			{Name: "Sounds scored", Value: report.Count(e.Sounds)},
		},
		Tables: []*report.Table{methods.MarkBest()},
	}
	s.Add("Classes", report.Confusion(e.Classes, e.Confusion, "Sounds"))
	wrong := &report.Table{Columns: []report.Column{{Name: "Line", Number: true}, {Name: "File"}, {Name: "Label"}, {Name: "Predicted"}, {Name: "Probability", Number: true}}}
	for _, x := range e.Wrong[:min(len(e.Wrong), 15)] {
		wrong.Add(report.Count(x.Line), filepath.Base(x.Audio), x.Text, x.Answer, report.Percent(x.Probability))
	}
	s.Add("Wrong predictions, the most probable first", wrong)
	return s
}
