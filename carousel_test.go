package carousel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/modeltest"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/task/keywords"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/task/translate"
	"github.com/carousel-ml/carousel/train"
)

// trainSmall writes a table with a daily wave and a model of it.
func trainSmall(dir string) (table, run string, err error) {
	var b strings.Builder
	b.WriteString("time,y\n")
	for i := range 240 {
		fmt.Fprintf(&b, "2024-01-%02dT%02d:00:00,%.3f\n", 1+i/24, i%24, 10+math.Sin(2*math.Pi*float64(i)/24))
	}
	table, run = filepath.Join(dir, "y.csv"), filepath.Join(dir, "run")
	if err := os.WriteFile(table, []byte(b.String()), 0o600); err != nil {
		return "", "", err
	}
	cfg := forecast.Defaults()
	cfg.Time, cfg.Target = "time", []string{"y"}
	cfg.Window, cfg.Horizon, cfg.Hidden, cfg.Layers, cfg.Epochs = 24, 3, 8, 1, 1
	d, err := forecast.Read(context.Background(), &forecast.Files{Data: table}, cfg)
	if err != nil {
		return "", "", err
	}
	_, _, err = forecast.Train(context.Background(), d, cfg, &train.Run{Dir: run})
	return table, run, err
}

// Configurations that were written before settings got their current names. Each
// file has every setting, so it is read into zeros.
func TestOldConfigsOpen(t *testing.T) {
	g, k, ta, tr := generate.Defaults(), keywords.Defaults(), tag.Defaults(), translate.Defaults()
	g.Tokens, g.BPTT = "space", 48
	k.SplitColumn, k.Holdout, k.Frame, k.StackStride, k.Warmup = "fold", 0.25, 30, 2, 0.07
	ta.Token, ta.Tag = "2", "xpos"
	tr.BatchTokens = 1500
	for kind, want := range map[*task.Kind]task.Config{generate.Task: &g, keywords.Task: &k, tag.Task: &ta, translate.Task: &tr} {
		raw, err := os.ReadFile(filepath.Join("task", kind.Name, "testdata", "config_before_names.json"))
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface()
		if err := json.Unmarshal(raw, got); err != nil {
			t.Errorf("%s: %v", kind.Name, err)
		} else if !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s: got  %+v\nwant %+v", kind.Name, got, want)
		}
	}
	for _, kind := range carousel.Tasks {
		if err := json.Unmarshal([]byte(`{"unknown": 1}`), kind.Config()); err == nil {
			t.Errorf("%s: an unknown setting is accepted", kind.Name)
		}
	}
}

func TestOpen(t *testing.T) {
	table, run, err := trainSmall(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := carousel.Open(run)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := p.Model.(*forecast.Model); !ok || p.Kind != forecast.Task || f.Config().Horizon != 3 {
		t.Fatalf("got a %T for the task %q, want a forecasting model with horizon 3", p.Model, p.Kind.Name)
	}
	next, err := p.Predict(t.Context(), task.Input{File: table}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := next.Write(&text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], "2024-01-11T00:00:00,") {
		t.Errorf("got\n%s\nwant a header and three hours from midnight on the 11th", text.String())
	}
}

func TestOpenTagger(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "names.conll")
	if err := os.WriteFile(file, []byte(strings.Repeat("Ada B-PER\nsees O\nBob B-PER\n\nthe O\nhouse O\n\n", 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := tag.Defaults()
	cfg.Hidden, cfg.Embedding, cfg.Epochs, cfg.Holdout = 8, 8, 8, 0
	cfg.LR = 0.05
	run := filepath.Join(dir, "run")
	d, err := tag.Read(t.Context(), &task.Files{Data: file}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tag.Train(t.Context(), d, cfg, &train.Run{Dir: run}); err != nil {
		t.Fatal(err)
	}
	p, err := carousel.Open(run)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Model.(*tag.Model); !ok || p.Kind != tag.Task {
		t.Fatalf("got a %T for the task %q", p.Model, p.Kind.Name)
	}
	found, err := p.Predict(t.Context(), task.Input{File: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := found.Write(&text); err != nil || !strings.Contains(text.String(), "\n1,PER,Bob,") {
		t.Errorf("%s, %v", text.String(), err)
	}
}

func TestOpenRefusesAnotherTask(t *testing.T) {
	_, run, err := trainSmall(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	modeltest.Edit(t, run, model.ConfigFile, modeltest.Replace(`"task": "forecast"`, `"task": "weaving"`))
	_, err = carousel.Open(run)
	if err == nil || !strings.Contains(err.Error(), `task "weaving"`) {
		t.Errorf("got %v, want an error that names the task", err)
	}
}

func TestVersion(t *testing.T) {
	if carousel.Version() == "" {
		t.Error("the version is empty")
	}
}
