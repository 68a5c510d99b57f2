package translate

import (
	"context"
	"encoding/csv"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// writeFiles writes files into a folder, and gives their paths by their names.
func writeFiles(t *testing.T, files map[string]string) func(name string) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range files {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// Two files and a table give the same pairs, and a part of the training pairs
// validates unless files do.
func TestRead(t *testing.T) {
	at := writeFiles(t, map[string]string{
		"a": strings.Repeat("x\ny\n\n", 20), "b": strings.Repeat("X\nY\nZ\n", 20),
		"t.tsv": "target\tsource\n" + strings.Repeat("X\tx\nY\ty\nZ\t\n", 20),
	})
	cfg := Defaults()
	cfg.Holdout = 0.3
	files, err := Read(t.Context(), &Files{Source: at("a"), Target: at("b")}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Read(t.Context(), &Files{Data: at("t.tsv"), Test: at("t.tsv")}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if files.String() != "a to b" || table.String() != "t.tsv" || files.Has(task.Test) || len(table.Test) != 60 {
		t.Errorf("%q with %d pairs for the test, %q with %d", files, len(files.Test), table, len(table.Test))
	}
	plain := func(list []data.Pair) (texts []string) {
		for _, p := range list {
			texts = append(texts, p.Source+"\t"+p.Target)
		}
		return texts
	}
	for part, least := range map[task.Part]int{task.Training: 30, task.Validation: 10, task.All: 60} {
		if a, b := plain(files.Of(part)), plain(table.Of(part)); !slices.Equal(a, b) || len(a) < least {
			t.Errorf("%s: %d pairs of two files are not the %d of a table", part, len(a), len(b))
		}
	}
	own, err := Read(t.Context(), &Files{Data: at("t.tsv"), ValidSource: at("a"), ValidTarget: at("b")}, cfg)
	if err != nil || len(own.Training) != 60 || len(own.Validation) != 60 {
		t.Errorf("%d pairs to learn from and %d to validate on, %v; want 60 and 60", len(own.Training), len(own.Validation), err)
	}
	for want, f := range map[string]*Files{
		"needs --data-source and --data-target, files with corresponding lines": {Valid: at("t.tsv")},
		"needs both --test-source and --test-target":                            {Data: at("t.tsv"), TestTarget: at("a")},
		"takes --data, a table with both languages, or --data-source":           {Data: at("t.tsv"), Source: at("a")},
		"none: there is no such file":                                           {Data: at("t.tsv"), Test: "none"},
	} {
		var wrong *data.InputError
		if _, err := Read(t.Context(), f, cfg); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", f, err, want)
		}
	}
}

// Options without a beam are the model's own, and so are those that the command
// begins with.
func TestOwnSearch(t *testing.T) {
	m := *untrained()
	m.cfg.SearchOptions = SearchOptions{Beam: 2, LengthPenalty: 0.5, NGramBlock: 1}
	var own PredictOptions
	own.Inherit(&m, nil)
	for name, o := range map[string]*PredictOptions{"nil": nil, "no beam": {}, "inherited": &own} {
		if got := m.settled(o).SearchOptions; got != m.cfg.SearchOptions {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if own.NBest = 2; own.Validate() != nil {
		t.Error(own.Validate())
	}
	if own.NBest = 3; own.Validate() == nil {
		t.Error("more translations than the beam has hypotheses are accepted")
	}
}

// What the program that wrote a model of format 1 made of a file.
func TestFormat1(t *testing.T) {
	const dir = "../../testdata/format1/translate"
	m, err := Open(filepath.Join(dir, "model"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Predict(t.Context(), task.Input{File: filepath.Join(dir, "in.txt")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "out.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := csv.NewReader(f).ReadAll()
	if err != nil || len(got.List) != len(want)-1 {
		t.Fatalf("%d translations, %d rows, %v", len(got.List), len(want), err)
	}
	for i, row := range want[1:] {
		score, err := strconv.ParseFloat(row[2], 64)
		if g := got.List[i]; err != nil || g.Source != row[0] || g.Text != row[1] || math.Abs(g.Score-score) > 2e-4*(1+math.Abs(score)) {
			t.Errorf("%q becomes %q with %.4f, want %q", g.Source, g.Text, g.Score, row)
		}
	}
}

// Whatever takes long ends with its context.
func TestCancelled(t *testing.T) {
	m, list := untrained(), copies(20, 1)
	at := writeFiles(t, map[string]string{"t.tsv": "source\ttarget\na\tA\n"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errRead := Read(ctx, &Files{Data: at("t.tsv")}, tiny())
	_, errPrepare := prepare(ctx, learn(list), tiny(), nil)
	_, errEvaluate := m.Evaluate(ctx, learn(list), task.Training, nil)
	_, errPredict := m.Predict(ctx, task.Input{Texts: []string{"a"}}, nil)
	var errParts error
	for _, errParts = range m.Parts(ctx, task.Input{Texts: []string{"a"}}, nil) {
	}
	for name, err := range map[string]error{"Read": errRead, "prepare": errPrepare, "Evaluate": errEvaluate, "Predict": errPredict, "Parts": errParts} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No text has no translation.
func TestNoText(t *testing.T) {
	got, err := untrained().Predict(t.Context(), task.Input{}, nil)
	if err != nil || len(got.List) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
