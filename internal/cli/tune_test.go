package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/tune"
	"github.com/carousel-ml/carousel/tune/store"
)

// madeUpStudy runs a study of a made-up objective and returns where it is kept.
func madeUpStudy(t testing.TB, o tune.Options, spaceText string) string {
	t.Helper()
	space, err := tune.ParseSpace("space.yaml", spaceText)
	if err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(t.TempDir(), "study.db")
	kept, err := store.Open(t.Context(), address, true)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	s, err := tune.Open(t.Context(), kept, &tune.Header{Options: o, Subject: "a made-up task"}, space)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context(), func(ctx context.Context, tr *tune.Trial) ([]float64, error) {
		if tr.Number%11 == 7 {
			return nil, errors.New("training diverged at step 12")
		}
		lr := math.Log10(tr.Float("lr")) + 2.5
		loss := 0.2 + lr*lr/4 + math.Abs(float64(tr.Int("hidden"))-80)/400
		if tr.Choice("cell") == "gru" {
			loss += 0.05
		}
		loss += 0.1 * tr.Float("dropout")
		if len(o.Objectives) > 1 {
			return []float64{loss, float64(tr.Int("hidden")) / 30}, nil
		}
		at := tr.From
		value := func() float64 { return loss + math.Exp(-float64(at)*(0.15+tr.Float("lr")*6)) }
		for at < 27 {
			at++
			if stop, err := tr.Report(ctx, at, at*10, value()); err != nil || stop {
				return []float64{value()}, err
			}
		}
		return []float64{value()}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return address
}

const madeUpSpace = `
lr: {low: 1e-4, high: 1e-1, log: true, default: 1e-2}
hidden: {low: 16, high: 128, step: 16, type: int, default: 64}
cell: {choices: [lstm, gru, rnn], default: lstm}
dropout: {low: 0, high: 0.6, default: 0.1, when: cell, is: [lstm, gru]}
`

func TestPages(t *testing.T) {
	dir := os.Getenv("CAROUSEL_PAGES")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, o := range map[string]tune.Options{
		"one": {Trials: 60, Sampler: "random", Seed: 3, Lag: 3, Objectives: []tune.Objective{{Name: "loss"}}, Pruner: "asha", Resource: 27, Resumable: true},
		"two": {Trials: 60, Sampler: "random", Seed: 3, Objectives: []tune.Objective{{Name: "loss"}, {Name: "latency"}}},
	} {
		a := &app{quiet: true}
		s, err := a.openStudy(t.Context(), madeUpStudy(t, o, madeUpSpace))
		if err != nil {
			t.Fatal(err)
		}
		sum, err := s.summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.page(sum).WriteFile(filepath.Join(dir, name+".html")); err != nil {
			t.Fatal(err)
		}
		v := &searchView{study: s, total: 80, limit: time.Hour}
		fmt.Println(strings.Join(v.block(3*time.Minute), "\n"))
	}
}

func TestResumeCommandHasNoPassword(t *testing.T) {
	for _, args := range [][]string{{"tune", "--study", "postgres://tuner:secret@db/s"}, {"tune", "--study=postgres://tuner:secret@db/s", "--set", "a=b=c"}} {
		a := &app{args: args}
		if got := a.resumeCommand(); strings.Contains(got, "secret") || !strings.Contains(got, "postgres://tuner@db/s") {
			t.Errorf("%q: got %s", args, got)
		}
	}
}

func TestTryOut(t *testing.T) {
	for sampler, want := range map[string]string{"tpe": "none keeps its constraints", "cmaes": "none keeps its constraints", "grid": "no combination of the grid keeps the constraints"} {
		space, err := tune.ParseSpace("space.yaml", "n: {low: 1, high: 9, type: int, default: 3}\nconstraints: [\"n <= 0\"]")
		if err != nil {
			t.Fatal(err)
		}
		var wrong *misuse
		if err := tryOut(t.Context(), space, tune.Options{Sampler: sampler}); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", sampler, err)
		}
	}
}

// A recipe of a study has the settings of all its trials, and is quoted where YAML needs it.
func TestRecipeOfStudy(t *testing.T) {
	s := &openedStudy{Study: &tune.Study{Space: &tune.Space{Params: []*tune.Param{{Name: "lr"}, {Name: "pool", Type: tune.Choice}}}}, header: &tune.Header{Subject: "classify\nepochs: 3\nlr: 0.1\ntext: \"a b\"\n"}}
	r := &tune.Record{Values: tune.Values{"lr": 0.5, "pool": "- max"}}
	if got, want := s.recipe(r), "epochs: 3\ntext: \"a b\"\nlr: 0.5\npool: \"- max\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.header.Subject = "command\nrun: {lr}"
	if got, want := s.recipe(r), "lr: 0.5\npool: \"- max\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
