package memory

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/modeltest"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// small is a network that solves its problem in a second or two.
func small() Config {
	c := Defaults()
	c.Length, c.Hidden, c.LR, c.Batch, c.Steps, c.Check, c.Chrono = 12, 16, 1e-2, 32, 600, 100, 12
	return c
}

func TestAnLSTMLearnsToAdd(t *testing.T) {
	m, r, err := Train(context.Background(), small(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := m.Outcome()
	if !out.Solved || out.Test.Error >= 0.01 || out.Steps != r.Steps || out.Baseline != 1./6 || out.Parameters != m.Slab().NumElements() {
		t.Errorf("%+v", out)
	}
	if len(r.History) == 0 || r.History[0].TrainLoss < out.Test.Error {
		t.Errorf("history %+v", r.History)
	}
}

func TestSaveAndOpen(t *testing.T) {
	c := small()
	c.Problem, c.Length, c.Chrono, c.Cell, c.Steps, c.Check = "reber", 20, 0, "gru", 4, 2
	dir := filepath.Join(t.TempDir(), "net")
	m, _, err := Train(context.Background(), c, &train.Run{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if o.Config() != m.Config() || o.Outcome() != m.Outcome() {
		t.Errorf("came back as %+v %+v", o.Config(), o.Outcome())
	}
	for i, p := range m.Slab().Params {
		if !slices.Equal(p.Read(), o.Slab().Params[i].Read()) {
			t.Errorf("%s differs", p.Name)
		}
	}
	for _, damage := range []struct{ old, new, want string }{
		{`"reber"`, `"rebar"`, `problem: want adding, copy, reber, got "rebar"`},
		{`"task": "memory"`, `"task": "forecast"`, "expected a model of a memory benchmark"},
		{`"hidden": 16`, `"hidden": 17`, ""},
	} {
		modeltest.Edit(t, dir, model.ConfigFile, modeltest.Replace(damage.old, damage.new))
		var file *model.FileError
		if _, err := Open(dir); !errors.As(err, &file) || !strings.Contains(err.Error(), damage.want) {
			t.Errorf("%s: got %v", damage.new, err)
		}
		if err := m.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// A trial cut off and resumed gives the table of one that was not, and takes
// finished networks as they are.
func TestTrialResumes(t *testing.T) {
	trial := DefaultTrial()
	trial.Config = small()
	trial.Steps, trial.Cells, trial.Runs = 200, []string{"rnn", "lstm"}, 2
	want, err := trial.Run(context.Background(), &TrialOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if want[0].Cell != "rnn" || want[0].Runs != 2 || want[1].Cell != "lstm" || want[1].Sequences != want[1].Steps*32 {
		t.Fatalf("rows %+v", want)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	var begun []string
	note := func(name string) {
		if begun = append(begun, name); len(begun) == 3 {
			cancel()
		}
	}
	if _, err := trial.Run(ctx, &TrialOptions{Dir: dir, Note: note}); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled trial gives %v", err)
	}
	begun = nil
	got, err := trial.Run(context.Background(), &TrialOptions{Dir: dir, Resume: true, Note: func(name string) { begun = append(begun, name) }})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(begun, []string{"adding 12 lstm 1", "adding 12 lstm 2"}) {
		t.Errorf("resumed %v", begun)
	}
	for i := range want {
		want[i].Seconds, got[i].Seconds = 0, 0
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
	trial.LR /= 2
	if _, err := trial.Run(context.Background(), &TrialOptions{Dir: dir, Resume: true}); err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("a trial of other settings: %v", err)
	}
}

// A probe asks for the last answer alone.
func TestProbe(t *testing.T) {
	for _, name := range ProblemNames() {
		c := Defaults()
		c.Problem, c.Length, c.Hidden = name, 20, 8
		m, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		loss := m.Probe(5)
		tape := tensor.NewTape(tensor.CPU(), tensor.Train)
		tape.Trace()
		l := loss(tape)
		if v := l.Item(); !(v > 0 && v < 10) {
			t.Errorf("%s: loss %v", name, v)
		}
		l.Backward()
		r := tape.Traces()[0]
		dh, dc := r.Grads()
		for b := range r.B {
			last := (r.Length(b) - 1) * r.B
			for j, v := range dc[(last+b)*8:][:8] {
				if v != 0 || dh[(last+b)*8+j] == 0 {
					t.Fatalf("%s: at the last step dh %v, dc %v", name, dh[(last+b)*8+j], v)
				}
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		set  func(*Trial)
		want string
	}{
		{func(t *Trial) { t.Problem = "mnist" }, `problem: want adding, copy, reber, got "mnist"`},
		{func(t *Trial) { t.Length = 1 }, "length: adding wants 2 or more, got 1"},
		{func(t *Trial) { t.Problem, t.Length = "reber", 5 }, "length: reber wants 12"},
		{func(t *Trial) { t.Steps = 0 }, "steps: want a number from 1"},
		{func(t *Trial) { t.LR = -1 }, "lr: want"},
		{func(t *Trial) { t.Batch = 1 << 20 }, "batch: want"},
		{func(t *Trial) { t.Cells = []string{"lstm", "lsmt"} }, `cells: want lstm, gru`},
		{func(t *Trial) { t.Cells = nil }, "cells: name at least one"},
		{func(t *Trial) { t.Runs = 0 }, "runs: want"},
		{func(t *Trial) { t.Bidirectional = true }, "bidirectional"},
		{func(t *Trial) { t.Chrono = 2 }, "chrono: want 0, or a number from 3"},
	} {
		trial := DefaultTrial()
		c.set(&trial)
		var input *data.InputError
		if err := trial.Validate(); !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q in it", err, c.want)
		}
	}
	for _, quick := range []bool{false, true} {
		for _, trial := range Suite(quick) {
			if err := trial.Validate(); err != nil {
				t.Errorf("%+v: %v", trial, err)
			}
		}
	}
}
