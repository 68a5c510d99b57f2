package carousel_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/keywords"
	"github.com/carousel-ml/carousel/task/transcribe"
	"github.com/carousel-ml/carousel/tensor"
)

// TestMistakesAreErrors gives each task what belongs to another one, or nothing.
// The answer is an error that says what was needed, and no panic.
func TestMistakesAreErrors(t *testing.T) {
	for _, k := range carousel.Tasks {
		name := k.Name
		if k.Was != "" {
			name = k.Was
		}
		m, err := carousel.Open(filepath.Join("testdata", "format1", name, "model"))
		if err != nil {
			t.Fatal(err)
		}
		other := carousel.Tasks[0]
		if other == k {
			other = carousel.Tasks[1]
		}
		calls := map[string]func() error{
			"read nothing":                 func() error { _, err := k.Read(t.Context(), nil, k.Config()); return err },
			"read by another's settings":   func() error { _, err := k.Read(t.Context(), k.Files(), other.Config()); return err },
			"train on nothing":             func() error { _, _, err := k.Train(t.Context(), nil, k.Config(), nil); return err },
			"train on another's":           func() error { _, _, err := k.Train(t.Context(), strangeData{}, k.Config(), nil); return err },
			"evaluate nothing":             func() error { _, err := m.Evaluate(t.Context(), nil, task.All, nil); return err },
			"evaluate another's":           func() error { _, err := m.Evaluate(t.Context(), strangeData{}, task.All, nil); return err },
			"predict by another's options": func() error { _, err := m.Predict(t.Context(), task.Input{File: "none"}, strangeData{}); return err },
			"tally another's":              func() error { _, err := m.Tally(t.Context(), strangeData{}, task.All, nil); return err },
			"probe another's":              func() error { _, err := probeOf(t, m, strangeData{}); return err },
		}
		for of, d := range map[string]task.Data{"keywords": &keywords.Data{}, "transcribe": &transcribe.Data{}} {
			if of != k.Name {
				calls["train on data of "+of] = func() error { _, _, err := k.Train(t.Context(), d, k.Config(), nil); return err }
			}
		}
		for what, call := range calls {
			var misuse *tensor.UseError
			if err := call(); !errors.As(err, &misuse) {
				t.Errorf("%s: %s: got %v, want a *tensor.UseError", k.Name, what, err)
			}
		}
		var input *data.InputError
		if _, err := m.Evaluate(t.Context(), strangeData{}, "some", nil); !errors.As(err, &input) || !strings.Contains(err.Error(), `got "some"`) {
			t.Errorf("%s: a part that is none: %v", k.Name, err)
		}
		if _, err := m.Predict(t.Context(), task.Input{}, nil); !errors.As(err, &input) || !strings.Contains(err.Error(), k.Takes) {
			t.Errorf("%s: predicting from nothing: %v", k.Name, err)
		}
	}
}

func probeOf(t *testing.T, m *task.Trained, d task.Data) (any, error) {
	if !m.Kind.CanProbe() {
		t.Errorf("%s cannot be looked into", m.Kind.Name)
	}
	return m.Probe(t.Context(), d, 1)
}

// strangeData are no task's.
type strangeData struct{}

func (strangeData) Has(task.Part) bool { return true }
func (strangeData) Notes() []string    { return nil }
func (strangeData) String() string     { return "" }
