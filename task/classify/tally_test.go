package classify

import (
	"errors"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// The tally is the accuracy of Evaluate, and its rows are the accuracies of single
// texts: of models with and without a share of the linear method, and with texts that
// have several labels or one that the model lacks.
func TestTally(t *testing.T) {
	for name, set := range map[string]func(*Config, []data.Example){
		"one label":      func(*Config, []data.Example) {},
		"network alone":  func(c *Config, _ []data.Example) { c.Linear = false },
		"several labels": func(_ *Config, list []data.Example) { list[0].Labels = []string{"bad", "good"} },
	} {
		cfg := small()
		cfg.Epochs = 1 // some answers are wrong
		list := reviews(200, 1)
		set(&cfg, list)
		m, _ := fitted(t, cfg, list, nil)
		if name == "one label" {
			m.share = 0.5
		}
		texts := reviews(60, 2)
		texts[7].Labels = []string{"neither"}
		d := dealt(texts, Config{})
		got, err := m.Tally(t.Context(), d, task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Evaluate(t.Context(), d, task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "accuracy" || !got.Higher || got.Value() != e.Metrics.Accuracy || e.Metrics.Accuracy == 1 || len(got.Rows) != 60 {
			t.Errorf("%s: %s %v of %d texts, evaluated %v", name, got.Name, got.Value(), len(got.Rows), e.Metrics.Accuracy)
		}
		for i := range texts {
			one, err := m.Evaluate(t.Context(), dealt(texts[i:i+1], Config{}), task.All, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Resampled([]int{i}) != one.Metrics.Accuracy {
				t.Errorf("%s: text %d: %v, alone %v", name, i, got.Rows[i], one.Metrics.Accuracy)
			}
		}
		var input *data.InputError
		whole := &task.Trained{Model: m, Kind: Task}
		_, want := whole.Evaluate(t.Context(), d, task.Test, nil)
		if _, err := whole.Tally(t.Context(), d, task.Test, nil); !errors.As(err, &input) || err.Error() != want.Error() {
			t.Errorf("%s: a part without texts: %v, evaluated: %v", name, err, want)
		}
	}
}
