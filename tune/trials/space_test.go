package trials

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/task/keywords"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/task/transcribe"
	"github.com/carousel-ml/carousel/task/translate"
	"github.com/carousel-ml/carousel/tune"
)

var tasks = []*task.Kind{classify.Task, forecast.Task, generate.Task, keywords.Task, tag.Task, transcribe.Task, translate.Task}

// Every task has a space whose parameters are its settings, around its defaults, and whose trials are valid settings.
func TestShippedSpaces(t *testing.T) {
	for _, k := range tasks {
		base := k.Config()
		if k == forecast.Task {
			if err := assign(settings.List(base), "target", "x"); err != nil {
				t.Fatal(err)
			}
		}
		for name, text := range map[string]string{"batch": "32", "batch_tokens": "1000", "dropout": "0.75"} {
			if one := settings.Named(settings.List(base), name); one != nil {
				if err := one.Assign(text); err != nil {
					t.Fatal(err)
				}
			}
		}
		subject := &Task{Kind: k, Base: base, objectives: []tune.Objective{{Name: "x"}}}
		s := Space(k, base)
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		if err := subject.Check(s); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		for _, want := range []string{"lr", "hidden", "layers", "dropout"} {
			if s.Param(want) == nil {
				t.Errorf("%s: no %s", k.Name, want)
			}
		}
		if n := len(s.Params); n < 6 || n > 9 {
			t.Errorf("%s: %d parameters", k.Name, n)
		}
		if d := s.Defaults(); d == nil || d["dropout"] != 0.75 {
			t.Errorf("%s: %v", k.Name, d)
		} else if cfg, err := subject.Config(s, d); err != nil || subject.recipe(cfg) != subject.recipe(base) && settings.Named(settings.List(base), "layers").String() != "1" {
			t.Errorf("%s: the defaults are\n%s, not\n%s: %v", k.Name, subject.recipe(cfg), subject.recipe(base), err)
		}
		study, err := tune.New(s, tune.Options{Trials: 60, Sampler: "random", Lag: 60})
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			trial, err := study.Ask(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := subject.Config(s, trial.Values); err != nil {
				t.Errorf("%s: %v: %v", k.Name, trial.Values, err)
			}
		}
	}
}

// A task that is not among those of the table has the settings that all have.
func TestSpaceOfOtherTask(t *testing.T) {
	other := *classify.Task
	other.Name = "other"
	var names []string
	for _, p := range Space(&other, other.Config()).Params {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"lr", "hidden", "layers", "dropout"}) {
		t.Errorf("%q", names)
	}
}

// A space that is read is one of the task, and says where it is not.
func TestReadSpace(t *testing.T) {
	k := classify.Task
	base := k.Config()
	read := func(text string) (*tune.Space, error) { return ReadSpace(write(t, "space.yaml", text), k, base) }
	s, err := read("hidden: {low: 16, high: 256, type: int}\nlr: {low: 1e-3, high: 1e-2, log: true}\nbidirectional: {choices: ['true', 'false']}\nclip: {low: 2, high: 3}\nconstraints: ['hidden <= 100', 'latency <= 2', 'size <= 1e6']")
	if err != nil {
		t.Fatal(err)
	}
	if s.Param("hidden").Default != 128 || s.Param("lr").Default != 1e-3 || s.Param("bidirectional").Default != "true" || s.Param("clip").Default != nil {
		t.Errorf("%+v", s.Defaults())
	}
	if _, err := ReadSpace("no.yaml", k, base); err == nil || !strings.HasPrefix(err.Error(), "no.yaml: ") {
		t.Error(err)
	}
	var input *data.InputError
	if _, err := read("lr: {low: 2, high: 1}"); !errors.As(err, &input) || !strings.HasSuffix(err.Error(), "space.yaml:1: lr: the range 2 to 1 is empty: expected low <= high") {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"lr: {low: 1e-3, high: 1e-2}\nhiden: {low: 1, high: 2, type: int}": "line 2: hiden: unknown setting; did you mean hidden?; name a setting of train classify",
		"dropout: {low: 0, high: 1.5}":                                     "line 1: dropout: 1.5: want a number from 0 to 0.99, got 1.5; choose a range within that of the setting",
		"\nhidden: {low: 16, high: 64}":                                    `line 2: hidden: 34.336: want a whole number, got "34.336"; choose a range within that of the setting`,
		"pool: {choices: [max, min]}":                                      "line 1: pool: min: want max, mean, last, attention, got \"min\"; did you mean max?; choose a range within that of the setting",
		"epochs: {low: 1, high: 9, type: int}":                             "line 1: epochs: not a parameter of trials: it is the resource of all trials; set it for all; leave it out",
		"holdout: {low: 0.1, high: 0.5}":                                   "line 1: holdout: not a parameter of trials: trials would be scored on different data; leave it out",
		"lr: {low: 1e-3, high: 1e-2}\nconstraints: ['lr * speed <= 2']":    "line 2: constraint \"lr * speed <= 2\": speed is neither a parameter nor a measure; write a parameter of the space, latency or size",
	} {
		_, err := read(text)
		if !errors.As(err, &input) || !strings.HasSuffix(err.Error(), "space.yaml: "+want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// A recipe has what differs from the defaults, as a recipe file is written.
func TestRecipe(t *testing.T) {
	k := forecast.Task
	base := k.Config()
	for name, text := range map[string]string{"target": `"a, b",c`, "freq": "1h", "split": "0.5,0.25,0.25", "forget_bias": "0", "lags": "0", "max_time": "90s", "no_target_history": "true", "quantiles": ""} {
		if err := assign(settings.List(base), name, text); err != nil {
			t.Fatal(err)
		}
	}
	subject := &Task{Kind: k, Base: base}
	lines := strings.Split(strings.TrimSpace(subject.recipe(base)), "\n")
	slices.Sort(lines)
	want := []string{"forget_bias: 0", `freq: "1h"`, "lags: [0]", "max_time: 1m30s", "no_target_history: true", "quantiles: []", `split: "0.5,0.25,0.25"`, `target: ["a, b","c"]`}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q", lines)
	}
}
