package transcribe

import (
	"testing"

	"github.com/carousel-ml/carousel/speech/speechtest"
	"github.com/carousel-ml/carousel/task"
)

// The tally is the word error rate of Evaluate with the same options, and its rows are
// the errors of single utterances.
func TestTally(t *testing.T) {
	m := trainedModel(t)
	d, err := Read(t.Context(), &Files{Data: speechtest.Manifest(t, t.TempDir(), []string{"ab cd", "d", "ca", "bad cab", " ", "dd aa"})}, m.Config())
	if err != nil {
		t.Fatal(err)
	}
	all := d.Of(task.All)
	all[1].Text, all[3].Text = "d a", "cab" // which are not what is said
	if d, err = NewData(all, m.Config()); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]*EvaluateOptions{"default": nil, "search": {Decoding: Decoding{Beam: 4, WordBonus: -8}}} {
		got, err := m.Tally(t.Context(), d, task.All, o)
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Evaluate(t.Context(), d, task.All, o)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "wer" || got.Higher || got.Value() != e.Metrics.WER || e.Metrics.WER == 0 || len(got.Rows) != 6 {
			t.Errorf("%s: %s %v of %d utterances, evaluated %v", name, got.Name, got.Value(), len(got.Rows), e.Metrics.WER)
		}
		for i, r := range e.Results {
			if got.Resampled([]int{i}) != r.Words.Rate() {
				t.Errorf("%s: utterance %d: %v, evaluated %+v", name, i, got.Rows[i], r.Words)
			}
		}
	}
}
