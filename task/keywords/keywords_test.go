package keywords

import (
	"bytes"
	"encoding/csv"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/speech/speechtest"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// whistles writes labelled sounds, whose tone rises or falls, and the rows from
// train on are the test.
func whistles(t *testing.T, dir string, n, train int) string {
	r := rand.New(rand.NewPCG(8, 8))
	path := filepath.Join(dir, "labels.csv")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := csv.NewWriter(f)
	w.Write([]string{"audio", "label", "part"})
	for i := range n {
		text, label := []string{"ad", "bc", "ac"}[r.IntN(3)], "rises"
		if i%2 == 1 {
			text, label = string(text[1])+string(text[0]), "falls"
		}
		name := filepath.Join(dir, text+string(rune('a'+i%26))+string(rune('a'+i/26))+".wav")
		speechtest.Write(t, name, speechtest.Whistle(r, text))
		part := "train"
		switch {
		case i >= train:
			part = "test"
		case i%5 == 4:
			part = "validation"
		}
		w.Write([]string{filepath.Base(name), label, part})
	}
	if w.Flush(); w.Error() != nil {
		t.Fatal(w.Error())
	}
	return path
}

func TestClassifier(t *testing.T) {
	dir := t.TempDir()
	cfg := Defaults()
	cfg.Hidden, cfg.Layers, cfg.RNNDropout, cfg.Bands, cfg.Epochs, cfg.Batch, cfg.LR, cfg.SplitColumn = 16, 1, 0, 20, 8, 8, 0.01, "part"
	path := whistles(t, dir, 80, 60)
	d, err := Read(t.Context(), &Files{Data: path}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := Train(t.Context(), d, cfg, &train.Run{Dir: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), d, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Metrics.Accuracy < 0.9 || e.Baselines["majority"].Accuracy != 0.5 || e.Confusion[0][0]+e.Confusion[1][1]+len(e.Wrong) != 20 {
		t.Errorf("%+v", e)
	}
	wrong := *d
	wrong.Test = slices.Clone(d.Test)
	wrong.Test[3].Text, wrong.Test[4].Text = wrong.Test[4].Text, wrong.Test[3].Text
	checkTally(t, m, &wrong)
	again, err := Open(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := again.Predict(t.Context(), task.Input{File: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := d.Of(task.All)
	sound, err := audio.Read(list[3].Audio)
	if err != nil {
		t.Fatal(err)
	}
	// A sound alone has the bits it has among others.
	p, err := m.Classify(t.Context(), sound)
	if err != nil || p[0] != all.Files[3].Probabilities[0] {
		t.Errorf("alone %v, among others %v, %v", p, all.Files[3].Probabilities, err)
	}
	var b bytes.Buffer
	if err := all.Write(&b); err != nil || !strings.HasPrefix(b.String(), "audio,label,probability,p(falls),p(rises)\n") {
		t.Errorf("%v: %.60q", err, b.String())
	}
	loss, err := m.Probe(t.Context(), d, 8)
	if err != nil {
		t.Fatal(err)
	}
	if v := loss(tensor.NewTape(m.Slab().Device(), tensor.Train)).Item(); !(v > 0 && v < 2) {
		t.Errorf("the loss of a batch is %v", v)
	}

	var input *data.InputError
	odd := *d
	odd.Test = []speech.Utterance{{Audio: list[0].Audio, Text: "stays"}}
	if _, _, err := Train(t.Context(), &odd, cfg, nil); !errors.As(err, &input) || !strings.Contains(err.Error(), `label "stays" is not among`) {
		t.Errorf("unknown label in the test: %v", err)
	}
	if _, err := m.Evaluate(t.Context(), &odd, task.Test, nil); !errors.As(err, &input) {
		t.Errorf("unknown label scored: %v", err)
	}
	for i := range list {
		list[i].Text = "rises"
	}
	if d, err = NewData(list, cfg); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Train(t.Context(), d, cfg, nil); !errors.As(err, &input) || !strings.Contains(err.Error(), "two labels are needed") {
		t.Errorf("one label: %v", err)
	}
}

// checkTally compares a tally with Evaluate: of all sounds of the test, some of which
// have a wrong label, and of each alone.
func checkTally(t *testing.T, m *Model, d *Data) {
	t.Helper()
	got, err := m.Tally(t.Context(), d, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), d, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "accuracy" || !got.Higher || got.Value() != e.Metrics.Accuracy || e.Metrics.Accuracy == 1 || len(got.Rows) != e.Sounds {
		t.Errorf("%s %v of %d sounds, evaluated %v", got.Name, got.Value(), len(got.Rows), e.Metrics.Accuracy)
	}
	for i := range d.Test {
		one := *d
		one.Test = d.Test[i : i+1]
		e, err := m.Evaluate(t.Context(), &one, task.Test, nil)
		if err != nil || got.Resampled([]int{i}) != e.Metrics.Accuracy {
			t.Errorf("sound %d: %v, alone %+v, %v", i, got.Rows[i], e, err)
		}
	}
}

// Directories that say the task's older name open.
func TestOlderName(t *testing.T) {
	d, err := model.Open("../../testdata/format1/classify-audio/model")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(d); err != nil || !Task.Is(d) {
		t.Errorf("a directory for task %s: %v", d.Task, err)
	}
	if d, err = model.Open("../../testdata/format1/transcribe/model"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(d); err == nil || !strings.Contains(err.Error(), "expected a classifier of keywords") || Task.Is(d) {
		t.Errorf("a directory for task %s: %v", d.Task, err)
	}
}
