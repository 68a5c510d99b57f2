package tag

import (
	"testing"

	"github.com/carousel-ml/carousel/task"
)

// The tally is the F1 of Evaluate, or the accuracy if tags mark no spans, and its rows
// give those of single sentences.
func TestTally(t *testing.T) {
	for name, scheme := range map[string]string{"f1": "auto", "accuracy": string(Labels)} {
		m := trained(t, IOB2, func(c *Config) { c.Epochs, c.LR, c.Scheme = 2, 0.01, scheme })
		sentences := made(3, 30, BILOU)
		if name == "accuracy" {
			sentences = made(3, 30, IOB2)
		}
		figure := func(e *Evaluation) float64 {
			if name == "f1" {
				return e.Metrics.F1
			}
			return e.Metrics.Accuracy
		}
		d := both(sentences, nil)
		got, err := m.Tally(t.Context(), d, task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Evaluate(t.Context(), d, task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		if v := got.Value(); got.Name != name || !got.Higher || v != figure(e) || !(v > 0 && v < 1) || len(got.Rows) != 30 {
			t.Errorf("%s: %s %v of %d sentences, evaluated %v", name, got.Name, v, len(got.Rows), figure(e))
		}
		for i := range sentences {
			one, err := m.Evaluate(t.Context(), both(sentences[i:i+1], nil), task.All, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Resampled([]int{i}) != figure(one) {
				t.Errorf("%s: sentence %d: %v, alone %v", name, i, got.Rows[i], figure(one))
			}
		}
	}
}
