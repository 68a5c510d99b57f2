package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// printSummary writes an evaluation for people.
func printSummary(w io.Writer, s *report.Summary) {
	fmt.Fprintf(w, "\nScores on %s\n", s.Scored)
	for _, t := range s.Tables {
		fmt.Fprintln(w)
		t.Print(w)
	}
	for _, text := range append(slices.Clone(s.Text), s.Verdict) {
		if text != "" {
			fmt.Fprintf(w, "\n%s\n", text)
		}
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

// trainPage is the report of a training; e may be nil.
func trainPage(ctx context.Context, m *task.Trained, d task.Data, r *train.Result, out *trainResult, e task.Evaluation) (*report.Page, error) {
	page := &report.Page{Title: m.Title(), Subtitle: d.String(), Version: carousel.Version()}
	if one, ok := m.Model.(fmt.Stringer); ok {
		page.Subtitle += ": " + one.String()
	}
	training := trainingOf(r)
	facts := report.Facts{
		{Name: "Weights", Value: report.Count(out.Parameters)},
		{Name: "Epochs", Value: report.Count(r.Epochs)},
		{Name: "Training time", Value: r.Elapsed.Round(time.Second).String()},
	}
	if training.BestEpoch > 0 {
		facts[1].Note = fmt.Sprintf("best: %d", training.BestEpoch)
	}
	s := &report.Summary{}
	if e != nil {
		s = e.Summary()
	}
	addResult(page, s, facts, slices.Concat(out.Notes, s.Notes, selectionOf(e)))
	own, err := m.Illustrate(ctx, d, e)
	if err != nil {
		return nil, err
	}
	page.Sections = append(page.Sections, own...)
	page.Add("Training", training.Figure())
	page.Add("Configuration", report.Pairs(settingPairs(m.Settings())))
	return page, nil
}

// addResult adds a result to a page, with further facts and remarks.
func addResult(page *report.Page, s *report.Summary, facts report.Facts, notes []string) {
	var result []report.Block
	if s.Verdict != "" {
		result = append(result, report.Notice{Tone: s.Tone, Text: s.Verdict})
	}
	result = append(result, slices.Concat(s.Facts, facts))
	for _, t := range s.Tables {
		result = append(result, t)
	}
	for _, n := range slices.Concat(s.Text, notes) {
		result = append(result, report.Text(n))
	}
	page.Add("Result", result...)
	page.Sections = append(page.Sections, s.Sections...)
}

// selectionOf says which rows were scored, if e does.
func selectionOf(e task.Evaluation) []string {
	if text := task.ScoredOf(e).Selection(); text != "" {
		return []string{text}
	}
	return nil
}

// trainingOf takes over the epochs of a run, with the validation metric that was
// in every record.
func trainingOf(r *train.Result) report.Training {
	metric := ""
	for _, r := range r.History {
		for _, name := range slices.Sorted(maps.Keys(r.Val)) {
			if metric == "" && name != "loss" {
				metric = name
			}
		}
	}
	value := func(r train.Record, name string) float64 {
		if v, ok := r.Val[name]; ok {
			return v
		}
		return math.NaN()
	}
	var t report.Training
	for _, r := range r.History {
		t.History = append(t.History, report.Epoch{
			Epoch: r.Epoch, LR: float64(r.LR), TrainLoss: r.TrainLoss, ValLoss: value(r, "loss"), Val: value(r, metric),
		})
	}
	if metric != "" {
		t.ValMetric = "val_" + metric
	}
	if r.Best != nil {
		t.BestEpoch = r.Best.Epoch
	}
	return t
}

// settingPairs lists the settings of a struct that have a value, in its order.
func settingPairs(ptr any) []report.Pair {
	var pairs []report.Pair
	for _, one := range settings.List(ptr) {
		if text := one.String(); text != "" && (one.IsBool() || !one.IsZero()) {
			pairs = append(pairs, report.Pair{Name: one.Flag(), Value: text})
		}
	}
	return pairs
}
